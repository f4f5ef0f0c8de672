//! Acknowledged means on disk: seen from outside, at the supervisor's system calls, no answer
//! leaves before the fsync that covers what it says was stored.

use shiftboss_protocol::control::{NewJob, Request, Response};
use shiftboss_tests::{Control, Stage, Strace, skip, wait_until};
use std::collections::BTreeMap;

const CALLS: &[&str] =
    &["-e", "trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendmmsg,fsync,fdatasync"];

/// What a trace says about the messages on one socket.
#[derive(Debug, Default)]
struct Judgement {
    /// Messages sent.
    messages: usize,
    /// Of these, sent after a write to the log that was synced since the message before.
    covered: usize,
    /// Sent while something written to the log was not synced.
    early: Vec<String>,
}

/// A call that has begun: which sync covers how many writes.
struct Begun {
    line: String,
    writes: u64,
}

/// Reads a trace in order. A write or a message counts from its beginning, a sync from its end
/// and only for what was written before it began.
fn judge(trace: &str, socket: &str) -> Judgement {
    let mut judgement = Judgement::default();
    let mut unfinished: BTreeMap<&str, Begun> = BTreeMap::new();
    let (mut writes, mut synced, mut told) = (0_u64, 0_u64, 0_u64);
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let begun = if call.starts_with("<...") {
            unfinished.remove(thread)
        } else {
            let to_log = call.contains("jobs.db-wal>");
            if to_log && !call.starts_with('f') {
                writes += 1;
            }
            if call.contains(socket) {
                judgement.messages += 1;
                if writes > synced {
                    judgement.early.push(line.to_owned());
                } else if synced > told {
                    judgement.covered += 1;
                }
                told = synced;
            }
            Some(Begun { line: call.to_owned(), writes })
        };
        let Some(begun) = begun else { continue };
        if call.contains("<unfinished ...>") {
            unfinished.insert(thread, begun);
        } else if begun.line.starts_with('f') && begun.line.contains("jobs.db-wal>") {
            // fsync and fdatasync are the only traced calls that begin with f.
            assert!(call.trim_end().ends_with("= 0"), "a sync failed: {line}");
            synced = synced.max(begun.writes);
        }
    }
    judgement
}

/// What the supervisor does meanwhile; `None` where that cannot be seen.
fn traced(test: &str, stage: &Stage, socket: &str, act: impl FnOnce()) -> Option<Judgement> {
    let strace = Strace::attach(test, stage, CALLS)?;
    act();
    let trace = strace.detach();
    if !trace.contains(socket) {
        skip(test, "strace cannot name sockets here (the kernel lacks unix_diag)");
        return None;
    }
    Some(judge(&trace, socket))
}

/// Runs a job to the very end: its worker has been told that the outcome is recorded.
fn run_to_the_end(stage: &Stage, control: &Control, job_type: &str, payload: &str) {
    let job = stage.insert(job_type, payload);
    stage.wait_for_state(job, "succeeded");
    wait_until("its outcome is told", || control.status()["running"] == 0);
    let _ = control.status();
}

#[test]
fn no_acknowledgement_leaves_before_the_fsync_that_covers_it() {
    let name = "no_acknowledgement_leaves_before_the_fsync_that_covers_it";
    let stage = Stage::new("[types.command]\nworkers = { min = 1, max = 1 }");
    let control = Control::connect(&stage);
    let command = r#"{"argv":["true"]}"#;
    run_to_the_end(&stage, &control, "command", command);
    run_to_the_end(&stage, &control, "noop", "{}");

    let enqueues = traced(name, &stage, "control.sock", || {
        for _ in 0..20 {
            let run_at = Some(i64::MAX / 2);
            let job_type = "noop".to_owned();
            let job = NewJob { job_type, payload: "{}".into(), run_at, ..NewJob::default() };
            let answer = control.ask(&Request::Submit(vec![job]));
            assert!(matches!(answer, Response::Submitted(_)), "{answer:?}");
        }
    });
    let Some(enqueues) = enqueues else { return };
    assert!(enqueues.early.is_empty(), "{:#?}", enqueues.early);
    assert_eq!((enqueues.messages, enqueues.covered), (20, 20), "each has a sync of its own");

    let runs = traced(name, &stage, "worker.sock", || {
        for _ in 0..10 {
            run_to_the_end(&stage, &control, "command", command);
        }
    });
    let Some(runs) = runs else { return };
    assert!(runs.early.is_empty(), "{:#?}", runs.early);
    assert_eq!((runs.messages, runs.covered), (20, 20), "an Assign and a Recorded each");

    // The claims of `noop` are not synced, as its `claim_sync` says: this must show, or the
    // reading of the trace proves nothing.
    let noops = traced(name, &stage, "worker.sock", || {
        for _ in 0..5 {
            run_to_the_end(&stage, &control, "noop", "{}");
        }
    });
    let Some(noops) = noops else { return };
    assert_eq!((noops.messages, noops.early.len(), noops.covered), (10, 5, 5), "{noops:#?}");
}
