//! 20,000 jobs from one INSERT to committed outcomes, beside one loop of the same row changes.

use crate::figures::{Spread, head, row, say};
use rusqlite::Connection;
use shiftboss_tests::{Stage, wait_until};
use std::ops::RangeInclusive;
use std::time::Instant;

const JOBS: i64 = 20_000;
const ROUNDS: usize = 5;

pub(crate) fn throughput() {
    head(&["round", "product, jobs/s", "floor, batch 256", "floor, batch 1000", "ratio to 256"]);
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let floor_of_256 = floor(256);
        let product = drain();
        let floor_of_1000 = floor(1000);
        let ratio = product / floor_of_256;
        ratios.push(ratio);
        let rates = [product, floor_of_256, floor_of_1000].map(|rate| format!("{rate:.0}"));
        let [product, small, large] = rates;
        row(&[round.to_string(), product, small, large, format!("{ratio:.2}")]);
    }
    let ratios = Spread::of(ratios).range(2);
    say(&format!("\nratio to the floor of batches of 256: {ratios} (target: 0.25 or more)"));
}

/// Inserts jobs of type `noop` in one transaction, as another program does.
pub(crate) fn insert_many(database: &Connection, count: i64) {
    let sql = "INSERT INTO jobs(type) SELECT 'noop' FROM (WITH RECURSIVE n(x) AS (SELECT 1 UNION \
               ALL SELECT x + 1 FROM n WHERE x < ?1) SELECT x FROM n)";
    database.execute(sql, [count]).expect("inserted");
}

fn drain() -> f64 {
    let stage = Stage::new("[types.noop]\nconcurrency = 1000\nworkers = { min = 1 }");
    wait_until("a worker is ready", || stage.log().contains("is ready"));
    insert_many(&stage.database(), JOBS);
    let start = Instant::now();
    wait_until("all have run", || stage.count("finished_at IS NULL") == 0);
    JOBS as f64 / start.elapsed().as_secs_f64()
}

/// The same row changes in one loop on one connection, each transaction synced.
fn floor(batch: i64) -> f64 {
    let stage = Stage::dark("");
    assert!(stage.run(&["submit", "noop"]).status.success());
    let database = stage.database();
    insert_many(&database, JOBS);
    database.set_prepared_statement_cache_capacity(16);
    // As the product has it: without this SQLite parses statements again at every new value.
    let stable = rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG;
    database.set_db_config(stable, true).expect("set");
    database
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0")
        .expect("set");
    let start = Instant::now();
    let mut first = 1;
    while first <= JOBS {
        let last = (first + batch - 1).min(JOBS);
        transaction(&database, &CLAIM, first..=last);
        transaction(&database, &FINISH, first..=last);
        first = last + 1;
    }
    JOBS as f64 / start.elapsed().as_secs_f64()
}

const CLAIM: [&str; 2] = [
    "UPDATE jobs SET state = 'running', attempt = attempt + 1, owner = 'floor', started_at = 1 \
     WHERE id = ?1 AND state = 'available' RETURNING payload",
    "INSERT INTO attempts(job_id, attempt, instance, worker, pid, started_at, confinement) \
     VALUES (?1, 1, 'floor', '1', 1, 1, 'none')",
];

const FINISH: [&str; 2] = [
    "UPDATE jobs SET state = 'succeeded', owner = NULL, finished_at = 2, progress = 1.0, \
     result = '{}', last_error = NULL WHERE id = ?1 AND state = 'running' AND attempt = 1 AND \
     owner = 'floor'",
    "UPDATE attempts SET ended_at = 2, outcome = 'succeeded' WHERE job_id = ?1 AND attempt = 1",
];

fn transaction(database: &Connection, sql: &[&str], ids: RangeInclusive<i64>) {
    database.execute_batch("BEGIN IMMEDIATE").expect("begun");
    for id in ids {
        for sql in sql {
            let mut statement = database.prepare_cached(sql).expect("it is SQL");
            let mut rows = statement.query([id]).expect("it runs");
            while rows.next().expect("it runs").is_some() {}
        }
    }
    database.execute_batch("COMMIT").expect("committed");
}
