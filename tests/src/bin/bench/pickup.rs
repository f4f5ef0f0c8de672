//! From the COMMIT of a foreign INSERT to the start of its job in a warm worker, beside the
//! least that anything must do which notices commits, claims durably and tells a process.

use crate::figures::{Spread, latencies, latencies_head, now_micros};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use rusqlite::{Connection, OptionalExtension};
use shiftboss_tests::{Stage, built, wait_until};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ROUNDS: usize = 300;

pub(crate) fn pickup() {
    let worker = built("stamp-worker");
    let stage = Stage::new(&format!(
        "[types.stamp]\nworkload = \"stamp\"\nworker = {worker:?}\nworkers = {{ min = 1 }}"
    ));
    wait_until("a worker is ready", || stage.log().contains("is ready"));
    let product = stage.database();
    product.execute_batch("PRAGMA synchronous = FULL").expect("set");
    let (bare, database, watcher) = watch_barely();
    let mut commits = Vec::new();
    let mut bare_commits = Vec::new();
    for round in 0..ROUNDS {
        std::thread::sleep(Duration::from_millis(20 + round as u64 * 37 % 60));
        product.execute("INSERT INTO jobs(type) VALUES ('stamp')", []).expect("inserted");
        commits.push(now_micros());
        std::thread::sleep(Duration::from_millis(20 + round as u64 * 41 % 60));
        database.execute("INSERT INTO jobs(type) VALUES ('floor')", []).expect("inserted");
        bare_commits.push(now_micros());
    }
    wait_until("all have run", || stage.count("state = 'succeeded'") == ROUNDS as i64);
    let (seen, started) = watcher.join().expect("the watcher saw all");
    drop(bare);
    latencies_head();
    let product = stamps(&stage).map(|(job, at)| at - commits[job - 1]);
    latencies("COMMIT returned to start in a warm worker (target: p50 1000, p90 3000)", &{
        Spread::of(product)
    });
    let since = |moments: Vec<f64>| {
        Spread::of(moments.into_iter().zip(&bare_commits).map(|(at, commit)| at - commit))
    };
    latencies("floor: to seen by inotify, then `data_version` without a pause", &since(seen));
    latencies("floor: and claimed (FULL), told over a socket, heard", &since(started));
}

/// Jobs and the moments of their starts.
fn stamps(stage: &Stage) -> impl Iterator<Item = (usize, f64)> {
    let text = std::fs::read_to_string(stage.path("jobs.db.work/logs/stamp/stamps"))
        .expect("they were written");
    let pairs: Vec<(usize, f64)> = text
        .lines()
        .map(|line| {
            let (job, nanos) = line.split_once(' ').expect("two numbers");
            let nanos: f64 = nanos.parse().expect("a time");
            (job.parse().expect("a job"), nanos / 1000.0)
        })
        .collect();
    pairs.into_iter()
}

type Watcher = JoinHandle<(Vec<f64>, Vec<f64>)>;

/// A table of its own, a connection that inserts, and a thread that claims what comes.
fn watch_barely() -> (Stage, Connection, Watcher) {
    let stage = Stage::dark("");
    assert!(stage.run(&["submit", "noop"]).status.success());
    let database = stage.database();
    // Also makes the -wal file, which stays as long as a connection does.
    database
        .execute_batch("PRAGMA synchronous = FULL; UPDATE jobs SET run_at = 1")
        .expect("the table is there");
    let connection = stage.database();
    connection.execute_batch("PRAGMA synchronous = FULL").expect("set");
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).expect("inotify works");
    inotify.add_watch(&stage.path("jobs.db-wal"), AddWatchFlags::IN_MODIFY).expect("it exists");
    // Opened and read once before anything is measured.
    let version = version(&connection);
    let watcher = std::thread::spawn(move || watch(&connection, &inotify, version));
    (stage, database, watcher)
}

fn watch(connection: &Connection, inotify: &Inotify, mut known: i64) -> (Vec<f64>, Vec<f64>) {
    let (mut teller, mut hearer) = UnixStream::pair().expect("sockets can be made");
    let hearing = std::thread::spawn(move || {
        let mut heard = Vec::new();
        let mut byte = [0];
        while hearer.read(&mut byte).is_ok_and(|count| count == 1) {
            heard.push(now_micros());
        }
        heard
    });
    let mut seen = Vec::new();
    while seen.len() < ROUNDS {
        inotify.read_events().expect("inotify works");
        // The event comes before the commit can be seen; our own commits make events too.
        let until = Instant::now() + Duration::from_millis(5);
        while Instant::now() < until {
            let now = version(connection);
            if now == known {
                continue;
            }
            known = now;
            let at = now_micros();
            // A log that is begun anew changes the version too, without a commit.
            if claim(connection) {
                seen.push(at);
                teller.write_all(&[1]).expect("somebody listens");
                break;
            }
        }
    }
    drop(teller);
    (seen, hearing.join().expect("it ends with its socket"))
}

fn version(connection: &Connection) -> i64 {
    let mut statement = connection.prepare_cached("PRAGMA data_version").expect("it is SQL");
    statement.query_row([], |row| row.get(0)).expect("it can be read")
}

/// The row changes of a claim, synced. False: nothing was there.
fn claim(connection: &Connection) -> bool {
    connection.execute_batch("BEGIN IMMEDIATE").expect("begun");
    let sql = "UPDATE jobs SET state = 'running', attempt = attempt + 1, owner = 'floor', \
               started_at = 1 WHERE id = (SELECT id FROM jobs WHERE state = 'available' AND \
               type = 'floor' ORDER BY priority DESC, run_at, id LIMIT 1) RETURNING id";
    let mut statement = connection.prepare_cached(sql).expect("it is SQL");
    let job = statement.query_row([], |row| row.get::<_, i64>(0)).optional().expect("it runs");
    let Some(job) = job else {
        connection.execute_batch("ROLLBACK").expect("undone");
        return false;
    };
    let sql = "INSERT INTO attempts(job_id, attempt, instance, worker, pid, started_at, \
               confinement) VALUES (?1, 1, 'floor', '1', 1, 1, 'none')";
    connection.prepare_cached(sql).expect("it is SQL").execute([job]).expect("inserted");
    connection.execute_batch("COMMIT").expect("committed");
    true
}
