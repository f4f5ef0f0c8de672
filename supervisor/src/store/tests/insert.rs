//! Inserts by other people's programs: what the triggers make of them.

use super::open::eprintln_skip;
use super::*;
use std::process::Command;

const DUE_LATER: i64 = 60_000;

fn state(conn: &Connection, id: i64) -> (String, i64, i64) {
    let sql = "SELECT state, run_at, created_at FROM jobs WHERE id = ?1";
    let get = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    conn.query_row(sql, [id], get).expect("the row exists and its times are set")
}

/// The cases of trap 5, by this connection.
fn check_normalising(conn: &Connection) {
    let later = now_ms() + DUE_LATER;
    let cases = [
        ("(type) VALUES ('a')".to_owned(), "available"),
        ("(type, payload) VALUES ('a', '{}')".to_owned(), "available"),
        ("(type, run_at, created_at) VALUES ('a', NULL, NULL)".to_owned(), "available"),
        ("(type, state, run_at) VALUES ('a', 'scheduled', NULL)".to_owned(), "available"),
        ("(type, state) VALUES ('a', 'scheduled')".to_owned(), "available"),
        ("(type, run_at) VALUES ('a', 5)".to_owned(), "available"),
        (format!("(type, run_at) VALUES ('a', {later})"), "scheduled"),
        (format!("(type, state, run_at) VALUES ('a', 'available', {later})"), "scheduled"),
    ];
    for (values, expected) in cases {
        let before = now_ms();
        conn.execute(&format!("INSERT INTO jobs {values}"), []).expect("it is a good row");
        let (state, run_at, created_at) = state(conn, conn.last_insert_rowid());
        assert_eq!(state, expected, "{values}");
        assert!((before..=now_ms()).contains(&created_at), "{values}: created_at {created_at}");
        let is_later = run_at > now_ms();
        assert_eq!(is_later, state == "scheduled", "{values}: run_at {run_at}");
    }
}

#[test]
fn inserts_are_normalised_with_and_without_recursive_triggers() {
    let folder = folder();
    drop(database(&folder));
    let conn = foreign(&options(&folder).path);
    check_normalising(&conn);
    conn.execute_batch("PRAGMA recursive_triggers = on; PRAGMA foreign_keys = on").expect("set");
    conn.execute_batch("PRAGMA trusted_schema = off").expect("set");
    check_normalising(&conn);
}

#[test]
fn what_belongs_to_the_supervisor_cannot_be_inserted() {
    let folder = folder();
    drop(database(&folder));
    let conn = foreign(&options(&folder).path);
    let cases = [
        ("(type, state) VALUES ('a', 'blocked')", "reserved for chained jobs"),
        ("(type, state) VALUES ('a', 'running')", "leave state out, and set run_at to delay it"),
        ("(type, state) VALUES ('a', 'succeeded')", "'available' or 'scheduled' only"),
        ("(type, state) VALUES ('a', 'queued')", "'available' or 'scheduled' only"),
        ("(type, attempt) VALUES ('a', 1)", "belong to the supervisor"),
        ("(type, failures) VALUES ('a', 2)", "belong to the supervisor"),
        ("(type, crash_count) VALUES ('a', 1)", "belong to the supervisor"),
        ("(type, owner) VALUES ('a', 'me')", "belong to the supervisor"),
        ("(type, finished_at) VALUES ('a', 1)", "belong to the supervisor"),
        ("(type, max_attempts) VALUES ('a', 0)", "CHECK"),
        ("(type, timeout_ms) VALUES ('a', -5)", "CHECK"),
        ("(type, progress) VALUES ('a', 1.5)", "CHECK"),
        ("(type) VALUES ('')", "CHECK"),
        ("(payload) VALUES ('{}')", "NOT NULL"),
        ("(type, run_at) VALUES ('a', 'tomorrow')", "TEXT value in INTEGER column"),
    ];
    for (values, expected) in cases {
        let error = conn.execute(&format!("INSERT INTO jobs {values}"), []);
        let said = error.expect_err(values).to_string();
        assert!(said.contains(expected), "{values}: {said}");
    }
    // The other conflict policies do not hide a refusal.
    for policy in ["IGNORE", "REPLACE", "FAIL", "ROLLBACK"] {
        let sql = format!("INSERT OR {policy} INTO jobs(type, state) VALUES ('a', 'running')");
        assert!(conn.execute(&sql, []).is_err(), "{policy}");
    }
    let rows: i64 = conn.query_row("SELECT count(*) FROM jobs", [], |row| row.get(0)).expect("ok");
    assert_eq!(rows, 0);
}

#[test]
fn stored_rows_keep_their_invariants() {
    let folder = folder();
    drop(database(&folder));
    let conn = foreign(&options(&folder).path);
    conn.execute("INSERT INTO jobs(type) VALUES ('a')", []).expect("inserted");
    for change in [
        "state = 'running'",
        "owner = 'me'",
        "state = 'failed'",
        "finished_at = 5",
        "state = 'odd'",
        "attempt = -1",
        "run_at = NULL",
        "progress = 2.0",
    ] {
        assert!(conn.execute(&format!("UPDATE jobs SET {change}"), []).is_err(), "{change}");
    }
}

#[test]
fn returning_shows_the_state_before_the_trigger() {
    let folder = folder();
    drop(database(&folder));
    let conn = foreign(&options(&folder).path);
    let sql = format!(
        "INSERT INTO jobs(type, run_at) VALUES ('a', {}) RETURNING state",
        now_ms() + DUE_LATER
    );
    let said: String = conn.query_row(&sql, [], |row| row.get(0)).expect("inserted");
    assert_eq!(said, "available");
    assert_eq!(state(&conn, 1).0, "scheduled");
}

#[test]
fn a_unique_key_holds_while_its_job_is_unfinished() {
    let folder = folder();
    drop(database(&folder));
    let conn = foreign(&options(&folder).path);
    let insert = "INSERT INTO jobs(type, unique_key) VALUES ('a', 'k')";
    let quiet = format!("{insert} ON CONFLICT DO NOTHING");
    assert_eq!(conn.execute(insert, []).expect("the first"), 1);
    assert!(conn.execute(insert, []).is_err());
    assert_eq!(conn.execute(&quiet, []).expect("it is passed over"), 0);
    conn.execute("UPDATE jobs SET state = 'cancelled', finished_at = 1", []).expect("ended");
    assert_eq!(conn.execute(&quiet, []).expect("the key is free"), 1);
}

fn run(program: &str, args: &[&str]) -> Option<(bool, String)> {
    match Command::new(program).args(args).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
        }
        Err(error) => {
            eprintln_skip(&format!("cannot start {program}: {error}"));
            None
        }
    }
}

#[test]
fn the_sqlite3_program_enqueues() {
    let folder = folder();
    drop(database(&folder));
    let path = options(&folder).path;
    let path = path.to_str().expect("the path is UTF-8");
    let later = now_ms() + DUE_LATER;
    let script = format!(
        "INSERT INTO jobs(type, payload) VALUES ('command', '{{\"argv\":[\"true\"]}}');
         INSERT INTO jobs(type, run_at) VALUES ('a', {later});
         INSERT INTO jobs(type, run_at) VALUES ('a', NULL);
         PRAGMA recursive_triggers = on;
         INSERT OR REPLACE INTO jobs(type, unique_key, run_at) VALUES ('a', 'k', {later});
         INSERT INTO jobs(type, unique_key) VALUES ('a', 'k') ON CONFLICT DO NOTHING;
         SELECT group_concat(state), min(run_at > 1700000000000), min(created_at > 1700000000000)
         FROM jobs;"
    );
    let Some((_, said)) = run("sqlite3", &["-bail", path, &script]) else { return };
    assert_eq!(said.trim(), "available,scheduled,available,scheduled|1|1");
    let refused = "INSERT INTO jobs(type, state) VALUES ('a', 'blocked')";
    let (done, said) = run("sqlite3", &[path, refused]).expect("it ran before");
    assert!(!done && said.contains("reserved for chained jobs"), "{said}");
}

#[test]
fn python_enqueues_in_its_own_transaction() {
    let folder = folder();
    drop(database(&folder));
    let path = options(&folder).path;
    let script = "
import sqlite3, sys, time
conn = sqlite3.connect(sys.argv[1])
conn.execute('CREATE TABLE orders(id INTEGER PRIMARY KEY)')
with conn:
    conn.execute('INSERT INTO orders DEFAULT VALUES')
    conn.execute('INSERT INTO jobs(type, payload) VALUES (?, ?)', ('a', '{}'))
    later = int(time.time() * 1000) + 60000
    conn.execute('INSERT INTO jobs(type, run_at) VALUES (?, ?)', ('a', later))
try:
    with conn:
        conn.execute('INSERT INTO orders DEFAULT VALUES')
        conn.execute('INSERT INTO jobs(type, state) VALUES (?, ?)', ('a', 'running'))
except sqlite3.IntegrityError as error:
    print('refused:', error)
print([row[0] for row in conn.execute('SELECT state FROM jobs ORDER BY id')])
print(conn.execute('SELECT count(*) FROM orders').fetchone()[0])
created = conn.execute('SELECT max(created_at) FROM jobs').fetchone()[0]
print(abs(created - time.time() * 1000) < 5000)
";
    let path = path.to_str().expect("the path is UTF-8");
    let Some((_, said)) = run("python3", &["-c", script, path]) else { return };
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("refused: shiftboss: a job is inserted as"), "{said}");
    assert_eq!(lines[1..], ["['available', 'scheduled']", "1", "True"]);
}
