//! Every move of a running job, and its fence.

use super::*;
use crate::store::op::ProgressRow;
use shiftboss_protocol::job::{Attempt, Cause, Usage};

fn record(error: &str) -> AttemptRecord {
    AttemptRecord {
        throttled_ms: Some(250),
        cause: Some(Cause::ExitCode),
        exit_code: Some(3),
        signal: None,
        usage: Usage { cpu_ms: Some(1500), memory_peak_bytes: Some(1 << 20) },
        error: Some(error.to_owned()),
    }
}

/// Claims a new job and moves it; the row and its attempts row afterwards.
fn moved(rig: &Rig, to: Move) -> (Value, Value) {
    rig.enqueue(vec![new_job("a")]);
    let job = rig.claim();
    let one = FencedMove { record: record("it broke"), ..fenced(&job, to) };
    assert!(!rig.apply(vec![one.clone()])[0].stale);
    assert!(!rig.apply(vec![one])[0].stale, "the same outcome again was stored before");
    let row = rig.job(job.job);
    assert_eq!(row["owner"], Value::Null);
    assert_eq!(row["attempt"], 1);
    let attempts = rig.attempts(job.job);
    assert_eq!(attempts.len(), 1);
    // Nothing may be claimed by the next case.
    let conn = foreign(&rig.path);
    conn.execute("DELETE FROM jobs WHERE finished_at IS NULL", []).expect("deleted");
    (row, attempts[0].clone())
}

fn texts<const N: usize>(row: &Value, names: [&str; N]) -> [String; N] {
    names.map(|name| row[name].to_string().replace('"', ""))
}

#[test]
fn every_move_writes_its_row_and_its_attempt() {
    let rig = Rig::new();
    let later = now_ms() + 60_000;
    let columns = ["state", "failures", "crash_count", "last_error"];
    let cases = [
        (Move::Succeed { result: "[1]".to_owned() }, "succeeded,0,0,null", "succeeded"),
        (Move::Retry { run_at_ms: later }, "scheduled,1,0,it broke", "failed"),
        (Move::Retry { run_at_ms: 1 }, "available,1,0,it broke", "failed"),
        (Move::Fail, "failed,1,0,it broke", "failed"),
        (Move::Cancel, "cancelled,0,0,it broke", "cancelled"),
        (Move::Hold, "held,0,0,it broke", "held"),
        (Move::GiveBack, "available,0,0,null", "released"),
        (Move::Crash, "available,0,1,it broke", "crashed"),
        (Move::Poison, "failed,0,1,it broke", "crashed"),
    ];
    for (to, expected, outcome) in cases {
        let (row, attempt) = moved(&rig, to.clone());
        assert_eq!(texts(&row, columns).join(","), expected, "{to:?}");
        let is_final = ["succeeded", "failed", "cancelled"].contains(&&*texts(&row, ["state"])[0]);
        assert_eq!(row["finished_at"].is_i64(), is_final, "{to:?}");
        let ended = ["outcome", "cause", "exit_code", "cpu_ms", "memory_peak", "error"];
        let expected = format!("{outcome},exit_code,3,1500,1048576,it broke");
        assert_eq!(texts(&attempt, ended).join(","), expected, "{to:?}");
        assert!(attempt["ended_at"].is_i64());
        let begun = ["instance", "worker", "pid", "confinement"];
        assert_eq!(texts(&attempt, begun).join(","), format!("{US},5,4321,namespaces"));
    }
    let (row, _) = moved(&rig, Move::Succeed { result: "{\"n\":1}".to_owned() });
    assert_eq!((&row["result"]["n"], &row["progress"]), (&1.into(), &1.0.into()));
    let (row, _) = moved(&rig, Move::Retry { run_at_ms: later });
    assert_eq!(row["run_at"], later);
}

#[test]
fn a_stale_move_changes_nothing() {
    let rig = Rig::new();
    rig.enqueue(vec![new_job("a")]);
    let job = rig.claim();
    let before = rig.job(job.job);
    let old = FencedMove { attempt: Attempt(0), ..fenced(&job, Move::Fail) };
    let later = FencedMove { attempt: Attempt(2), ..fenced(&job, Move::Fail) };
    let other = FencedMove { job: JobId(99), ..fenced(&job, Move::Fail) };
    let moved = rig.apply(vec![old, later, other]);
    assert!(moved.iter().all(|one| one.stale));
    assert_eq!(rig.job(job.job), before);
    assert!(!rig.apply(vec![fenced(&job, Move::Crash)])[0].stale);
    assert!(rig.apply(vec![fenced(&job, Move::Fail)])[0].stale, "another outcome comes too late");
    assert_eq!(rig.job(job.job)["state"], "available");
}

#[test]
fn another_owners_job_cannot_be_moved() {
    let rig = Rig::new();
    rig.enqueue(vec![new_job("a")]);
    let job = rig.claim();
    let conn = foreign(&rig.path);
    conn.execute("UPDATE jobs SET owner = 'somebody'", []).expect("set");
    assert!(rig.apply(vec![fenced(&job, Move::Fail)])[0].stale);
    assert_eq!(rig.job(job.job)["state"], "running");
    assert_eq!(rig.attempts(job.job)[0]["outcome"], Value::Null, "its owner closes the attempt");
}

#[test]
fn a_job_that_was_changed_by_hand_leaves_no_open_attempt() {
    let rig = Rig::new();
    rig.enqueue(vec![new_job("a"), new_job("a")]);
    let (changed, deleted) = (rig.claim(), rig.claim());
    let conn = foreign(&rig.path);
    conn.execute(
        "UPDATE jobs SET state = 'cancelled', finished_at = 5, owner = NULL WHERE id = ?1",
        [changed.job.0],
    )
    .expect("changed");
    conn.execute("DELETE FROM jobs WHERE id = ?1", [deleted.job.0]).expect("deleted");
    let moved = rig.apply(vec![fenced(&changed, Move::Crash), fenced(&deleted, Move::Crash)]);
    assert!(moved.iter().all(|one| one.stale));
    assert_eq!(rig.attempts(changed.job)[0]["outcome"], "crashed");
    assert_eq!(rig.job(changed.job)["state"], "cancelled");
    assert!(rig.attempts(deleted.job).is_empty());
}

#[test]
fn a_cancel_request_turns_another_run_into_a_cancel() {
    let rig = Rig::new();
    for to in [Move::Retry { run_at_ms: 1 }, Move::GiveBack, Move::Crash] {
        rig.enqueue(vec![new_job("a")]);
        let job = rig.claim();
        let id = job.job;
        rig.ask(|reply| Op::Cancel(vec![id], reply)).expect("it is asked");
        assert!(!rig.apply(vec![fenced(&job, to)])[0].stale);
        assert_eq!(rig.job(id)["state"], "cancelled");
        assert_eq!(rig.attempts(id)[0]["outcome"], "cancelled");
    }
}

#[test]
fn progress_and_checkpoints_are_fenced() {
    let rig = Rig::new();
    rig.enqueue(vec![new_job("a")]);
    let job = rig.claim();
    let row = |fraction, note: &str| ProgressRow {
        job: job.job,
        attempt: job.attempt,
        fraction,
        note: note.to_owned(),
    };
    let store = |attempt, data: &[u8]| {
        rig.handle.send(Op::Checkpoint { job: job.job, attempt, data: data.to_vec() });
        rig.wait("the answer to a checkpoint", |event| match event {
            Event::CheckpointStored { stale, .. } => Some(*stale),
            _ => None,
        })
    };
    rig.handle.send(Op::Progress(vec![row(Some(0.25), "a quarter"), row(Some(f64::NAN), "odd")]));
    assert!(!store(job.attempt, b"abc"));
    let stale = ProgressRow { attempt: Attempt(9), ..row(Some(0.9), "stale") };
    rig.handle.send(Op::Progress(vec![stale]));
    assert!(store(Attempt(9), b"stale"));
    let found = rig.job(job.job);
    assert_eq!(found["progress"], 0.25);
    assert_eq!(found["progress_note"], "odd");
    assert_eq!(found["checkpoint"]["bytes"], 3);
    rig.apply(vec![fenced(&job, Move::GiveBack)]);
    let (taken, parcels) = rig.take(look(now_ms(), 1));
    assert_eq!(taken.jobs[0].attempt, Attempt(2));
    assert_eq!(parcels[0].checkpoint.as_deref(), Some(&b"abc"[..]));
    assert_eq!(rig.job(job.job)["progress"], Value::Null);
}

#[test]
fn what_confines_an_attempt_is_stored_behind_the_fence() {
    let rig = Rig::new();
    rig.enqueue(vec![new_job("a")]);
    let job = rig.claim();
    let tell = |attempt, text: &str| {
        let (job, confinement) = (job.job, text.to_owned());
        rig.handle.send(Op::Confined { job, attempt, confinement });
    };
    tell(job.attempt, "seccomp");
    tell(Attempt(9), "stale");
    rig.apply(vec![fenced(&job, Move::GiveBack)]);
    assert_eq!(rig.attempts(job.job)[0]["confinement"], "seccomp");
    tell(job.attempt, "late");
    rig.take(look(now_ms(), 1));
    assert_eq!(rig.attempts(job.job)[0]["confinement"], "seccomp");
}

#[test]
fn an_enormous_error_is_cut() {
    let rig = Rig::new();
    rig.enqueue(vec![new_job("a")]);
    let job = rig.claim();
    let long = AttemptRecord { error: Some("é".repeat(100_000)), ..AttemptRecord::default() };
    rig.apply(vec![FencedMove { record: long, ..fenced(&job, Move::Fail) }]);
    let stored = rig.job(job.job)["last_error"].as_str().expect("text").to_owned();
    assert!(stored.len() <= 16 << 10 && stored.ends_with(" [cut]"));
}
