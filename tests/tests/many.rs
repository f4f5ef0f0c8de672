//! Many rows, many writers, two supervisors: every job runs, and runs once.

use shiftboss_tests::{Stage, has_program, skip, spawn_quiet, wait_until};
use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn two_thousand_rows_from_several_processes_succeed_exactly_once() {
    let name = "two_thousand_rows_from_several_processes_succeed_exactly_once";
    if !has_program("python3") {
        return skip(name, "python3 is not installed");
    }
    let stage = Stage::new("");
    let script = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=60)
for _ in range(500):
    with db:
        db.execute(\"INSERT INTO jobs(type) VALUES ('noop')\")
";
    let path = stage.path("jobs.db");
    let start = |_| spawn_quiet(Command::new("python3").arg("-c").arg(script).arg(&path));
    let writers: Vec<_> = (0..4).map(start).collect();
    for mut writer in writers {
        assert!(writer.wait().expect("it is ours").success());
    }
    wait_until("all have run", || stage.count("state = 'succeeded'") == 2000);
    assert_eq!(stage.count("1"), 2000);
    assert_eq!(stage.count("attempt <> 1 OR failures <> 0 OR crash_count <> 0"), 0);
}

#[test]
fn two_supervisors_share_the_work_and_no_program_is_started_twice() {
    let mut stage = Stage::new("[types.command]\nworkers = { max = 2 }");
    let other = stage.spawn_supervisor("log2", &[("INSTANCE_ID", "second")]);
    stage.keep(other);
    wait_until("the second has started", || {
        std::fs::read_to_string(stage.path("log2")).is_ok_and(|log| log.contains("started"))
    });
    let runs = stage.file("runs");
    let script = format!("echo $SHIFTBOSS_JOB >> {}; sleep 0.05", runs.display());
    let payload = stage.script(&script).to_string();
    let sql = "INSERT INTO jobs(type, payload) SELECT 'command', ?1 FROM (WITH RECURSIVE n(x) AS \
               (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 200) SELECT x FROM n)";
    stage.database().execute(sql, [payload]).expect("inserted");
    wait_until("all have run", || stage.count("state = 'succeeded'") == 200);
    assert_eq!(stage.count("attempt <> 1"), 0);
    let text = std::fs::read_to_string(runs).expect("they wrote");
    let numbers: BTreeSet<&str> = text.lines().collect();
    assert_eq!((text.lines().count(), numbers.len()), (200, 200));
    let sql = "SELECT count(DISTINCT instance) FROM attempts";
    let took_part: i64 = stage.database().query_row(sql, [], |row| row.get(0)).expect("SQL");
    assert_eq!(took_part, 2);
}
