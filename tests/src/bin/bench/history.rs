//! What claiming costs beside 5,000,000 finished jobs, and beside 1,000: by the store alone,
//! whose times are those of its transactions, and through the whole product.

use crate::figures::{Spread, head, micros, row, say};
use crate::throughput::insert_many;
use rusqlite::Connection;
use shiftboss::policy::claim::{Offer, TakeRequest, Taken, TypeLook, WorkerId};
use shiftboss::store::op::{AttemptRecord, Event, FencedMove, Move, Op};
use shiftboss::store::writer::{self, Started};
use shiftboss::store::{InstanceRow, OpenOptions, WalPolicy};
use shiftboss_tests::{Stage, wait_until};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SIZES: [i64; 2] = [1_000, 5_000_000];
/// Of the store alone; each claims `SINGLES` jobs one by one and `BATCH` at once.
const ROUNDS: usize = 40;
const SINGLES: i64 = 20;
const BATCH: u32 = 256;
/// Of the product: each runs this many jobs.
const DRAINS: usize = 15;
const DRAIN: i64 = 4_000;

pub(crate) fn history() {
    let start = Instant::now();
    let mut stages = SIZES.map(|rows| {
        let config = "[types.noop]\nconcurrency = 1000\nworkers = { min = 1 }";
        let stage = Stage::dark(config);
        fill(&stage, rows);
        stage
    });
    nix::unistd::sync();
    let bytes = stages.each_ref().map(|stage| {
        std::fs::metadata(stage.path("jobs.db")).map_or(0, |metadata| metadata.len() >> 20)
    });
    say(&format!(
        "Finished jobs, each with its attempt: {} in {} MiB, {} in {} MiB (made in {:.0} s).\n",
        SIZES[0],
        bytes[0],
        SIZES[1],
        bytes[1],
        start.elapsed().as_secs_f64()
    ));
    head(&["microseconds, min / median / max", "n", "1,000", "5,000,000", "ratio of medians"]);
    for sync in [false, true] {
        let [small, large] = claims(&stages, sync);
        let how = if sync { "synced (FULL)" } else { "not synced (`claim_sync = false`)" };
        compare(&format!("claim of 1 job, {how}"), &small.singles, &large.singles);
        compare(&format!("claim of {BATCH} jobs, {how}"), &small.batches, &large.batches);
    }
    let [small, large] = drains(&mut stages);
    let what = format!("a job of {DRAIN} through the product, INSERT to committed outcome");
    compare(&what, &small, &large);
    say("\n(target: ratio 1.2)");
}

fn compare(what: &str, small: &[f64], large: &[f64]) {
    let (small, large) = (Spread::of(small.to_vec()), Spread::of(large.to_vec()));
    let ratio = large.median() / small.median();
    let count = small.count().to_string();
    let cells = [what.to_owned(), count, small.range(1), large.range(1), format!("**{ratio:.2}**")];
    row(&cells);
}

/// Finished jobs as the supervisor leaves them. The triggers guard against other programs, and
/// would make this take minutes: they are put back as they were.
fn fill(stage: &Stage, rows: i64) {
    assert!(stage.run(&["submit", "noop"]).status.success());
    let database = stage.database();
    let mut statement = database
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        .expect("it is SQL");
    let triggers: Vec<(String, String)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("it can be read")
        .collect::<Result<_, _>>()
        .expect("rows are whole");
    drop(statement);
    assert!(!triggers.is_empty(), "the table has no triggers to take away");
    let batch = |sql: &str| database.execute_batch(sql).expect("it is SQL");
    // Nothing here needs to survive anything, so nothing is written twice.
    batch("PRAGMA journal_mode = DELETE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF");
    batch("PRAGMA cache_size = -262144; DELETE FROM jobs; BEGIN");
    triggers.iter().for_each(|(name, _)| batch(&format!("DROP TRIGGER {name}")));
    insert_finished(&database, rows);
    triggers.iter().for_each(|(_, sql)| batch(sql));
    batch("COMMIT; PRAGMA journal_mode = WAL");
}

fn insert_finished(database: &Connection, rows: i64) {
    let now = i64::try_from(now().as_millis()).expect("this is not the far future");
    // The last has ended a moment ago; older than a week would be pruned.
    let numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?1)";
    let sql = format!(
        "{numbers} INSERT INTO jobs(type, payload, state, run_at, created_at, started_at, \
         finished_at, attempt, progress, result) SELECT 'noop', '{{\"frames\":' || x || '}}', \
         'succeeded', t, t, t + 1, t + 2, 1, 1.0, '{{}}' FROM (SELECT x, ?2 - ?1 / 20 + x / 20 \
         AS t FROM n)"
    );
    let inserted = database.execute(&sql, [rows, now]).expect("the rows are good");
    assert_eq!(i64::try_from(inserted), Ok(rows));
    let sql = "INSERT INTO attempts(job_id, attempt, instance, worker, pid, started_at, ended_at, \
               outcome, cpu_ms, memory_peak, confinement) SELECT id, 1, 'main-boot-0', '1', 4321, \
               started_at, finished_at, 'succeeded', 1, 1048576, 'none' FROM jobs ORDER BY id";
    database.execute(sql, []).expect("the rows are good");
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Times of claims, microseconds.
#[derive(Default)]
struct Times {
    singles: Vec<f64>,
    batches: Vec<f64>,
}

/// The store of the product on each database in turn.
fn claims(stages: &[Stage; 2], sync: bool) -> [Times; 2] {
    let stores = stages.each_ref().map(Rig::open);
    let mut times = [Times::default(), Times::default()];
    for round in 0..ROUNDS {
        for (at, rig) in stores.iter().enumerate() {
            insert_many(&rig.database, SINGLES + i64::from(BATCH));
            let mut all = Taken::default();
            for _ in 0..SINGLES {
                let (micros, taken) = rig.claim(1, sync);
                // The first round fills caches.
                if round > 0 {
                    times[at].singles.push(micros);
                }
                all.jobs.extend(taken.jobs);
            }
            let (mut micros, mut left) = (0.0, BATCH);
            // On a machine that is busy a claim may reach its bound of time before the last job.
            while left > 0 {
                let (took, taken) = rig.claim(left, sync);
                micros += took;
                left -= u32::try_from(taken.jobs.len()).expect("no more than were asked for");
                all.jobs.extend(taken.jobs);
            }
            if round > 0 {
                times[at].batches.push(micros);
            }
            rig.finish(&all);
        }
    }
    stores.into_iter().for_each(Rig::close);
    times
}

/// The store's writer thread on one database, and another program that inserts.
struct Rig {
    database: Connection,
    store: Started,
    events: Receiver<Event>,
}

impl Rig {
    fn open(stage: &Stage) -> Self {
        let options = OpenOptions {
            path: stage.path("jobs.db"),
            prefix: String::new(),
            wal: WalPolicy::Require,
            network_fs: None,
        };
        let instance = InstanceRow {
            id: format!("bench-boot-{}", now().as_nanos()),
            boot_id: "boot".to_owned(),
            host: "host".to_owned(),
            pid: std::process::id(),
            version: "0".to_owned(),
            started_at_ms: 1,
        };
        let (sender, events) = channel();
        let report = Box::new(move |event| drop(sender.send(event)));
        let store = writer::start(options, instance, report).expect("the database opens");
        Self { database: stage.database(), store, events }
    }

    /// Claims up to this many jobs; from the asking to the committed answer.
    fn claim(&self, count: u32, sync: bool) -> (f64, Taken) {
        let look =
            TypeLook { priority: 0, counts_in_total: true, count_max: 100, sync, running: 0 };
        let offer = Offer {
            worker: WorkerId(1),
            job_type: "noop".into(),
            room: count,
            pid: std::process::id(),
            confinement: "none".into(),
            only: Vec::new(),
        };
        let request = TakeRequest {
            now_ms: i64::try_from(now().as_millis()).expect("this is not the far future"),
            offers: vec![offer],
            room_total: None,
            types: [("noop".into(), look)].into(),
            avoid: std::collections::BTreeSet::default(),
        };
        let start = Instant::now();
        self.store.handle.send(Op::Take(request));
        loop {
            match self.events.recv().expect("the writer runs") {
                Event::Taken(taken, _) => {
                    let took = micros(start.elapsed());
                    assert!(!taken.jobs.is_empty(), "they were inserted before");
                    return (took, taken);
                }
                // Our own inserts are another program's commits to it.
                Event::Changed { .. } => {}
                other => panic!("the store reports {other:?}"),
            }
        }
    }

    fn finish(&self, taken: &Taken) {
        let moves = taken.jobs.iter().map(|job| FencedMove {
            job: job.job,
            attempt: job.attempt,
            to: Move::Succeed { result: "{}".to_owned() },
            record: AttemptRecord::default(),
        });
        self.store.handle.send(Op::Move(moves.collect()));
        while !matches!(self.events.recv().expect("the writer runs"), Event::Moved(_)) {}
    }

    fn close(self) {
        self.store.handle.send(Op::Stop);
        self.store.thread.join().expect("the writer ends");
    }
}

/// Microseconds per job of each round, on each database in turn.
fn drains(stages: &mut [Stage; 2]) -> [Vec<f64>; 2] {
    for stage in stages.iter_mut() {
        stage.start();
        wait_until("a worker is ready", || stage.log().contains("is ready"));
    }
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..DRAINS {
        for (at, stage) in stages.iter().enumerate() {
            let took = drain(&stage.database());
            if round > 0 {
                times[at].push(took / DRAIN as f64);
            }
        }
    }
    times
}

fn drain(database: &Connection) -> f64 {
    let last: i64 = database
        .query_row("SELECT max(id) FROM jobs", [], |row| row.get(0))
        .expect("the table is there");
    let start = Instant::now();
    insert_many(database, DRAIN);
    // By number: to count all that is unfinished would walk the whole history.
    let sql = "SELECT count(*) FROM jobs WHERE id > ?1 AND finished_at IS NULL";
    let mut statement = database.prepare(sql).expect("it is SQL");
    loop {
        std::thread::sleep(Duration::from_millis(2));
        let left: i64 = statement.query_row([last], |row| row.get(0)).expect("it can be read");
        if left == 0 {
            return micros(start.elapsed());
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{left} jobs are left after a minute");
    }
}
