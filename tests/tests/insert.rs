//! Any program inserts jobs in its own transaction, in any language.

use shiftboss_tests::{Stage, has_program, skip, wait_for};
use std::process::Command;

#[test]
fn a_row_from_the_sqlite3_program_runs() {
    if !has_program("sqlite3") {
        return skip("a_row_from_the_sqlite3_program_runs", "sqlite3 is not installed");
    }
    let stage = Stage::new("");
    let sql = "BEGIN IMMEDIATE; CREATE TABLE mine(x); INSERT INTO mine VALUES (1); \
               INSERT INTO jobs(type, payload) VALUES ('command', '{\"argv\":[\"true\"]}'); \
               COMMIT;";
    let mut command = Command::new("sqlite3");
    let status =
        command.arg("-cmd").arg(".timeout 5000").arg(stage.path("jobs.db")).arg(sql).status();
    assert!(status.expect("it can be started").success());
    let job = stage.wait_for_state(1, "succeeded");
    assert_eq!((job.attempt, job.owner), (1, None));
}

#[test]
fn rows_from_python_run_when_committed_and_never_when_rolled_back() {
    if !has_program("python3") {
        return skip("rows_from_python", "python3 is not installed");
    }
    let stage = Stage::new("");
    let script = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=30)
insert = 'INSERT INTO jobs(type, payload, unique_key) VALUES (?, ?, ?) ON CONFLICT DO NOTHING'
db.execute(insert, ('noop', '{}', 'rolled back'))
db.rollback()
with db:
    db.execute(insert, ('command', '{\"argv\":[\"sleep\",\"30\"]}', 'once'))
with db:
    assert db.execute(insert, ('noop', '{}', 'once')).rowcount == 0
with db:
    db.execute(insert, ('noop', '{}', None))
";
    let status = Command::new("python3").arg("-c").arg(script).arg(stage.path("jobs.db")).status();
    assert!(status.expect("it can be started").success());
    wait_for("the second row has run", || (stage.count("state = 'succeeded'") == 1).then_some(()));
    assert_eq!(stage.count("1"), 2);
    assert_eq!(stage.count("unique_key = 'rolled back'"), 0);
}

#[test]
fn the_table_lives_in_an_applications_own_database_under_a_prefix() {
    let mut stage = Stage::dark("table_prefix = \"sb_\"\nwal = \"switch\"");
    stage.database().execute_batch("CREATE TABLE jobs(mine)").expect("it is the application's");
    stage.start();
    let sql = "INSERT INTO sb_jobs(type) VALUES ('noop')";
    stage.database().execute(sql, []).expect("inserted");
    wait_for("it has run", || {
        let sql = "SELECT state FROM sb_jobs WHERE id = 1";
        let state: String = stage.database().query_row(sql, [], |row| row.get(0)).ok()?;
        (state == "succeeded").then_some(())
    });
}

#[test]
fn somebody_elses_database_is_not_switched_or_taken_without_being_asked() {
    let stage = Stage::dark("");
    stage.database().execute_batch("CREATE TABLE jobs(mine)").expect("it is the application's");
    let output = stage.run(&["run"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(100), "{text}");
    assert!(text.contains("wal = \"switch\""), "{text}");
    stage.database().execute_batch("PRAGMA journal_mode = wal").expect("switched");
    let output = stage.run(&["run"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("table_prefix"), "{text}");
}

#[test]
fn many_programs_insert_at_once_and_every_row_runs_exactly_once() {
    let stage = Stage::new("");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let database = stage.database();
                for _ in 0..250 {
                    let sql = "INSERT INTO jobs(type) VALUES ('noop')";
                    database.execute(sql, []).expect("inserted");
                }
            });
        }
    });
    wait_for("all have run", || (stage.count("state = 'succeeded'") == 1000).then_some(()));
    assert_eq!(stage.count("attempt <> 1 OR failures <> 0 OR crash_count <> 0"), 0);
}
