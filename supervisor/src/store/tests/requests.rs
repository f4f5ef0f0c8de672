//! Cancel, retry, pause, prune, and the same without a supervisor.

use super::*;
use crate::store::direct::Direct;
use shiftboss_protocol::control::ActionTaken;
use shiftboss_provider::operation::{Record, Resolution, Stage};

fn cancel(rig: &Rig, ids: &[i64]) -> Vec<ActionTaken> {
    let ids = ids.iter().copied().map(JobId).collect();
    rig.ask(|reply| Op::Cancel(ids, reply)).expect("it is answered")
}

fn retry(rig: &Rig, id: JobId) -> ActionTaken {
    let actions = rig.ask(|reply| Op::Retry(vec![id], reply)).expect("it is answered");
    actions.into_iter().next().expect("one answer per job")
}

#[test]
fn cancel_says_what_happened_to_each_job() {
    let rig = Rig::new();
    let ids = rig.enqueue(vec![new_job("a"), new_job("a"), new_job("a")]);
    let running = rig.claim();
    let done = rig.claim();
    rig.apply(vec![fenced(&done, Move::Succeed { result: "null".to_owned() })]);
    assert_eq!((running.job, done.job), (ids[0], ids[1]));
    let answers = cancel(&rig, &[1, 2, 3, 99]);
    let answers: Vec<_> = answers.iter().map(|one| (one.ok, &*one.message)).collect();
    assert_eq!(
        answers,
        [
            (true, "job 1 is running: asked its worker to stop it"),
            (false, "job 2 has already succeeded: nothing to cancel"),
            (true, "job 3 was available: cancelled"),
            (false, "no such job: 99"),
        ]
    );
    let asked = rig.wait("the request to cancel", |event| match event {
        Event::CancelRequested(jobs) => Some(jobs.clone()),
        _ => None,
    });
    assert_eq!(asked, [running.job]);
    assert!(rig.job(running.job)["cancel_requested_at"].is_i64());
    assert_eq!(cancel(&rig, &[3])[0].message, "job 3 was cancelled before");
}

#[test]
fn a_decision_is_written_into_the_checkpoint_of_a_held_operation_only() {
    let rig = Rig::new();
    let id = rig.enqueue(vec![new_job("a")])[0];
    let resolve = |how: Resolution| {
        let actions = rig.ask(|reply| Op::Resolve(id, how, reply)).expect("it is answered");
        actions.into_iter().next().expect("one answer")
    };
    let refused = resolve(Resolution::Resubmit);
    assert_eq!(
        (refused.ok, &*refused.message),
        (false, "job 1 is available: only a held job has something to decide")
    );
    let job = rig.claim();
    rig.apply(vec![fenced(&job, Move::Hold)]);
    assert!(resolve(Resolution::Resubmit).message.contains("cannot be resolved: the checkpoint"));
    let mut record = Record::new("x".to_owned(), "k".to_owned());
    record.stage = Stage::Submitting;
    retry(&rig, id);
    let job = rig.claim();
    rig.handle.send(Op::Checkpoint { job: job.job, attempt: job.attempt, data: record.to_bytes() });
    rig.apply(vec![fenced(&job, Move::Hold)]);
    let adopted = resolve(Resolution::Adopt("o7".to_owned()));
    assert_eq!(
        (adopted.ok, &*adopted.message),
        (true, "job 1 goes on as operation o7: available again")
    );
    let (_, parcels) = rig.take(look(now_ms() + 1_000, 1));
    let stored = parcels[0].checkpoint.clone().expect("it has one");
    let stored = Record::read(&stored).expect("a record");
    assert_eq!(stored.resolution, Some(Resolution::Adopt("o7".to_owned())));
}

#[test]
fn retry_forgets_failures_and_refuses_a_key_in_use() {
    let rig = Rig::new();
    let keyed = NewJob { unique_key: Some("film".to_owned()), ..new_job("a") };
    let id = rig.enqueue(vec![keyed.clone()])[0];
    let job = rig.claim();
    rig.apply(vec![fenced(&job, Move::Fail)]);
    let other = rig.enqueue(vec![keyed])[0];
    let refused = retry(&rig, id);
    assert!(!refused.ok);
    let said =
        format!("job {id} has the unique key \"film\", and so has the unfinished job {other}");
    assert!(refused.message.starts_with(&said), "{}", refused.message);
    cancel(&rig, &[other.0]);
    assert_eq!(retry(&rig, id).message, format!("job {id} was failed: available again"));
    let row = rig.job(id);
    assert_eq!((&row["state"], &row["failures"]), (&"available".into(), &0.into()));
    assert_eq!((&row["finished_at"], &row["attempt"]), (&Value::Null, &1.into()));
    assert!(retry(&rig, id).message.ends_with("is available already"));
    rig.claim();
    assert!(retry(&rig, id).message.contains("only an ended or held job can be retried"));
}

#[test]
fn an_enqueue_is_all_or_none_and_names_the_bad_job() {
    let rig = Rig::new();
    let keyed = NewJob { unique_key: Some("k".to_owned()), ..new_job("a") };
    let id = rig.enqueue(vec![keyed.clone()])[0];
    let jobs = vec![new_job("a"), keyed];
    let error = rig.ask(|reply| Op::Enqueue(jobs, reply)).expect_err("the key is taken");
    let said = format!(
        "cannot insert job 2 of 2 (type \"a\"): the unfinished job {id} has the unique key \"k\""
    );
    assert_eq!(error.to_string(), said);
    let empty = vec![new_job("")];
    let error = rig.ask(|reply| Op::Enqueue(empty, reply)).expect_err("it has no type");
    assert_eq!(error.to_string(), "cannot insert job 1 of 1 (type \"\"): its type is empty");
    let reader = Reader::open(&rig.path, "").expect("it opens");
    assert_eq!(reader.counts().expect("counted")[0].count, 1);
}

#[test]
fn a_paused_type_is_remembered() {
    let rig = Rig::new();
    for (job_type, paused) in [("a", true), ("b", true), ("b", false), ("ü", true)] {
        let job_type = job_type.to_owned();
        rig.ask(|reply| Op::Pause { job_type, paused, reply }).expect("it is stored");
    }
    let folder = rig.stop();
    let started =
        writer::start(options(&folder), instance("main-boot-2"), Box::new(drop)).expect("started");
    assert_eq!(started.paused, ["a", "ü"]);
}

#[test]
fn old_jobs_are_deleted_in_batches_with_their_attempts() {
    let rig = Rig::new();
    rig.enqueue(vec![new_job("a"); 3]);
    for to in [Move::Succeed { result: "1".to_owned() }, Move::Fail, Move::Cancel] {
        let job = rig.claim();
        rig.apply(vec![fenced(&job, to)]);
    }
    let conn = foreign(&rig.path);
    conn.execute_batch(
        "INSERT INTO jobs(type) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
           WHERE i < 600) SELECT 'a' FROM n;
         UPDATE jobs SET state = 'failed', finished_at = 5 WHERE state = 'available';",
    )
    .expect("filled");
    let prune = || {
        rig.handle.send(Op::Prune {
            succeeded_before: i64::MAX,
            failed_before: 1000,
            cancelled_before: 0,
        });
        rig.wait("the answer to a prune", |event| match event {
            Event::Pruned(jobs) => Some(jobs.clone()),
            _ => None,
        })
    };
    let mut pruned = Vec::new();
    loop {
        let batch = prune();
        assert!(batch.len() <= 500);
        if batch.is_empty() {
            break;
        }
        pruned.extend(batch);
    }
    assert_eq!((pruned.len(), pruned[0]), (601, JobId(1)));
    assert!(rig.attempts(JobId(1)).is_empty());
    assert_eq!(rig.attempts(JobId(2)).len(), 1);
}

#[test]
fn the_command_line_works_without_a_supervisor() {
    let folder = folder();
    let direct = Direct::open(&options(&folder)).expect("it opens");
    let ids = direct.enqueue(&[new_job("a"), new_job("a")]).expect("they are inserted");
    let conn = foreign(&options(&folder).path);
    conn.execute("UPDATE jobs SET state = 'running', owner = 'dead', attempt = 1 WHERE id = 1", [])
        .expect("set");
    let answers = direct.cancel(&ids).expect("it is answered");
    assert!(answers[0].message.contains("marked for cancellation, its supervisor stops it"));
    assert_eq!(answers[1].message, "job 2 was available: cancelled");
    assert!(direct.retry(&ids[1..]).expect("it is answered")[0].ok);
    assert!(direct.enqueue(&[new_job("")]).is_err());
}
