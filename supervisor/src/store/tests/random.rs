//! Random operations keep the table's invariants.

use super::*;
use crate::store::change::{enqueue, instances, moves, prune, requests, take};
use proptest::prelude::*;
use shiftboss_protocol::job::JobState;

#[derive(Clone, Debug)]
enum Step {
    Enqueue { key: Option<u8>, delay_ms: i64 },
    Take { owner: usize, room: u32, later_ms: i64 },
    Move { owner: usize, index: usize, to: Move },
    Cancel { job: i64 },
    Retry { job: i64 },
    Rescue { owner: usize },
    Prune,
    Delete { job: i64 },
}

const OWNERS: [&str; 2] = ["first", "second"];

fn step() -> impl Strategy<Value = Step> {
    let to = prop_oneof![
        Just(Move::Succeed { result: "1".to_owned() }),
        Just(Move::Retry { run_at_ms: 0 }),
        Just(Move::Retry { run_at_ms: i64::MAX }),
        Just(Move::Fail),
        Just(Move::Cancel),
        Just(Move::Hold),
        Just(Move::GiveBack),
        Just(Move::Crash),
        Just(Move::Poison),
    ];
    prop_oneof![
        3 => (prop::option::of(0..3_u8), prop_oneof![Just(0), Just(1000)])
            .prop_map(|(key, delay_ms)| Step::Enqueue { key, delay_ms }),
        3 => (0..2_usize, 0..4_u32, prop_oneof![Just(0), Just(5000)])
            .prop_map(|(owner, room, later_ms)| Step::Take { owner, room, later_ms }),
        4 => (0..2_usize, 0..9_usize, to)
            .prop_map(|(owner, index, to)| Step::Move { owner, index, to }),
        1 => (1..15_i64).prop_map(|job| Step::Cancel { job }),
        2 => (1..15_i64).prop_map(|job| Step::Retry { job }),
        1 => (0..2_usize).prop_map(|owner| Step::Rescue { owner }),
        1 => Just(Step::Prune),
        1 => (1..15_i64).prop_map(|job| Step::Delete { job }),
    ]
}

fn run(db: &Db, claimed: &mut Vec<TakenJob>, step: Step) {
    match step {
        Step::Enqueue { key, delay_ms } => {
            let run_at = (delay_ms > 0).then(|| now_ms() + delay_ms);
            let unique_key = key.map(|key| key.to_string());
            let job = NewJob { run_at, unique_key, ..new_job("a") };
            match enqueue::enqueue(db, &[job]) {
                Ok(_) | Err(Error::Refused(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        Step::Take { owner, room, later_ms } => {
            let request = look(now_ms() + later_ms, room);
            let (taken, _) = take::take(db, OWNERS[owner], &request).expect("it looks");
            claimed.extend(taken.jobs);
        }
        Step::Move { owner, index, to } => {
            if let Some(job) = claimed.get(index) {
                moves::apply(db, OWNERS[owner], &[fenced(job, to)]).expect("it moves or is stale");
            }
        }
        Step::Cancel { job } => {
            requests::cancel(db, Some(OWNERS[0]), &[JobId(job)]).expect("it is answered");
        }
        Step::Retry { job } => {
            requests::retry(db, &[JobId(job)]).expect("it is answered");
        }
        Step::Rescue { owner } => {
            instances::rescue(db, &[OWNERS[owner].to_owned()]).expect("it is done");
        }
        Step::Prune => {
            let before = [(JobState::Succeeded, i64::MAX), (JobState::Failed, i64::MAX)];
            prune::prune(db, [before[0], before[1], (JobState::Cancelled, 0)]).expect("done");
        }
        Step::Delete { job } => {
            db.conn.execute("DELETE FROM jobs WHERE id = ?1", [job]).expect("it is deleted");
        }
    }
}

/// Counts the rows that break a rule.
fn broken(db: &Db) -> Vec<(&'static str, i64)> {
    let rules = [
        ("a running job has an owner", "jobs WHERE (state = 'running') <> (owner IS NOT NULL)"),
        (
            "a final job has an end",
            "jobs WHERE (state IN ('succeeded', 'failed', 'cancelled'))
               <> (finished_at IS NOT NULL)",
        ),
        (
            "a running job has its open attempt",
            "jobs WHERE state = 'running' AND NOT EXISTS (SELECT 1 FROM attempts
               WHERE job_id = jobs.id AND attempts.attempt = jobs.attempt AND ended_at IS NULL)",
        ),
        (
            "a job has at most one open attempt",
            "(SELECT 1 FROM attempts WHERE ended_at IS NULL GROUP BY job_id HAVING count(*) > 1)",
        ),
        (
            "an open attempt is its job's",
            "attempts WHERE ended_at IS NULL AND EXISTS (SELECT 1 FROM jobs WHERE id = job_id
               AND (state <> 'running' OR jobs.attempt <> attempts.attempt))",
        ),
        (
            "no attempt is ahead of its job",
            "attempts JOIN jobs ON id = job_id WHERE attempts.attempt > jobs.attempt",
        ),
        (
            "a key has one unfinished job",
            "(SELECT 1 FROM jobs WHERE finished_at IS NULL AND unique_key IS NOT NULL
               GROUP BY unique_key HAVING count(*) > 1)",
        ),
        ("every job has its times", "jobs WHERE run_at IS NULL OR created_at IS NULL"),
    ];
    let count = |rows: &str| {
        let sql = format!("SELECT count(*) FROM {rows}");
        db.conn.query_row(&sql, [], |row| row.get(0)).expect("it can be counted")
    };
    rules.iter().map(|(rule, rows)| (*rule, count(rows))).filter(|(_, rows)| *rows > 0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_operations_keep_the_invariants(steps in prop::collection::vec(step(), 1..60)) {
        let folder = folder();
        let db = database(&folder);
        db.pragma("synchronous", "OFF").expect("it can be set");
        let mut claimed = Vec::new();
        for step in steps {
            let said = format!("{step:?}");
            run(&db, &mut claimed, step);
            let broken = broken(&db);
            prop_assert!(broken.is_empty(), "after {said}: {broken:?}");
        }
    }
}
