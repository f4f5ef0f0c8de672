//! A worker written with the library, as its users write one: this program is worker, launcher
//! and the test of both.

#[path = "process/supervisor.rs"]
#[expect(dead_code, reason = "these tests use a part of it")]
mod supervisor;

use shiftboss_protocol::message::{ReceiptOf, StopReason, WorkerMessage};
use shiftboss_worker::program::{Lines, Program, run_program};
use shiftboss_worker::{AttemptContext, Cause, Failure, Job, Settings, Workload, parse_payload};
use std::process::ExitCode;
use std::time::Duration;
use supervisor::{PATIENCE, Supervisor};

struct Odd;

struct Silent;

impl Lines for Silent {
    fn on_stdout(&mut self, _: &[u8]) {}
    fn on_stderr(&mut self, _: &[u8]) {}
}

impl Workload for Odd {
    fn name(&self) -> &'static str {
        "odd"
    }

    fn starts_programs(&self) -> bool {
        true
    }

    fn set_up(&self, _: &Settings) -> Result<Vec<String>, String> {
        Ok(vec!["oddity".to_owned()])
    }

    fn run(&self, job: &Job, context: &AttemptContext) -> Result<serde_json::Value, Failure> {
        let word: String = parse_payload(job)?;
        context.progress(None, &word);
        match word.as_str() {
            "panic" => panic!("this one is odd"),
            "large" => Ok("x".repeat(500 << 10).into()),
            "checkpoint" => context.checkpoint(b"half").map(|()| "stored".into()),
            "owner" => {
                context.checkpoint(b"first")?;
                let program = Program {
                    argv: ["sh", "-c", "echo $SHIFTBOSS_OWNER"].map(Into::into).into(),
                    ..Program::default()
                };
                let ended = run_program(context, &program, &mut Silent)?;
                Ok(ended.stdout_tail.into())
            }
            "stop" => Err(match context.wait_for_stop(PATIENCE) {
                Some(_) => Failure::retryable(Cause::Error, "told to stop"),
                None => Failure::permanent(Cause::Error, "not told to stop"),
            }),
            "success" => {
                let _ = context.wait_for_stop(PATIENCE);
                Ok("done all the same".into())
            }
            "word" => {
                let program = Program {
                    argv: ["sh", "-c", "trap '' TERM; read word; echo got $word"]
                        .map(Into::into)
                        .into(),
                    stop_word: Some(b"q\n".to_vec()),
                    stop_word_grace: PATIENCE,
                    timeout: Some(Duration::from_millis(50)),
                    ..Program::default()
                };
                let ended = run_program(context, &program, &mut Silent)?;
                Ok(serde_json::json!([ended.timed_out, ended.exit_code, ended.stdout_tail]))
            }
            other => Err(Failure::permanent(Cause::Payload, other)),
        }
    }
}

fn a_panic_fails_the_attempt_and_leaves_the_worker_whole() {
    let mut supervisor = start();
    assert_eq!(supervisor.ready().abilities, ["oddity"]);
    supervisor.assign(1, r#""panic""#);
    let failure = supervisor.failed(1);
    assert_eq!(failure.message, "workload panicked: this one is odd");
    assert!(!failure.permanent);
    supervisor.assign(2, r#""word""#);
    assert_eq!(supervisor.succeeded(2), serde_json::json!([true, 0, "got q"]));
}

fn a_result_that_is_too_large_fails_for_good() {
    let mut supervisor = start();
    supervisor.assign(1, r#""large""#);
    let failure = supervisor.failed(1);
    assert!(failure.permanent && failure.message.contains("result of"), "{failure:?}");
}

fn a_checkpoint_waits_for_its_receipt() {
    let mut supervisor = start();
    for (job, stale) in [(1, false), (2, true)] {
        supervisor.assign(job, r#""checkpoint""#);
        supervisor.wait_for(|message| match message {
            WorkerMessage::Checkpoint { job: id, data, .. } if id.0 == job => {
                assert_eq!(data, b"half");
                Some(())
            }
            _ => None,
        });
        supervisor.record(job, ReceiptOf::Checkpoint, stale);
    }
    assert_eq!(supervisor.succeeded(1), "stored");
    let (outcome, _) = supervisor.finished(2);
    assert!(matches!(outcome, shiftboss_worker::Outcome::Released { .. }), "{outcome:?}");
}

/// Waits for the checkpoint of a job, and says how often it came on this connection.
fn checkpoints(supervisor: &mut Supervisor, id: i64) -> usize {
    let is_it = |message: &WorkerMessage| matches!(message, WorkerMessage::Checkpoint { job, .. } if job.0 == id);
    supervisor.wait_for(|message| is_it(message).then_some(()));
    supervisor.seen.iter().filter(|message| is_it(message)).count()
}

fn a_checkpoint_waits_for_the_receipt_of_the_next_supervisor() {
    let mut supervisor = start();
    supervisor.assign(1, r#""owner""#);
    supervisor.assign(2, r#""checkpoint""#);
    checkpoints(&mut supervisor, 1);
    checkpoints(&mut supervisor, 2);
    supervisor.lose();
    supervisor.take_over(2);
    supervisor.lose();
    supervisor.take_over(3);
    assert_eq!(checkpoints(&mut supervisor, 1), 1);
    assert_eq!(checkpoints(&mut supervisor, 2), 1);
    supervisor.record(1, ReceiptOf::Checkpoint, false);
    supervisor.record(2, ReceiptOf::Checkpoint, true);
    // A program that starts now is told whose it is now.
    assert_eq!(supervisor.succeeded(1), supervisor::owner(3));
    let (outcome, _) = supervisor.finished(2);
    assert!(matches!(outcome, shiftboss_worker::Outcome::Released { .. }), "{outcome:?}");
}

fn a_checkpoint_of_a_stopped_orphan_is_told_before_its_end() {
    let mut supervisor = start();
    supervisor.assign_limited(1, r#""checkpoint""#, 1);
    checkpoints(&mut supervisor, 1);
    supervisor.lose();
    // Its timeout stops it, and it is not waited for any longer.
    let file = supervisor.path(&format!("outcomes/{}", supervisor::outcome(1, 1)));
    supervisor::wait_until("the attempt has ended", || file.exists());
    supervisor.take_over(2);
    assert_eq!(supervisor.failed(1).cause, Cause::Timeout);
    assert_eq!(checkpoints(&mut supervisor, 1), 1);
    let first = supervisor.seen.iter().position(|message| {
        matches!(message, WorkerMessage::Checkpoint { .. } | WorkerMessage::Finished { .. })
    });
    let first = &supervisor.seen[first.expect("both were said")];
    assert!(matches!(first, WorkerMessage::Checkpoint { .. }), "{first:?}");
}

fn a_success_stays_one_when_the_attempt_was_cancelled() {
    let mut supervisor = start();
    supervisor.assign(1, r#""success""#);
    supervisor.assign(2, r#""stop""#);
    // One that no thread has taken yet would be cancelled without being run.
    supervisor.noted("success");
    supervisor.noted("stop");
    supervisor.cancel(1, StopReason::Cancelled);
    supervisor.cancel(2, StopReason::Cancelled);
    assert_eq!(supervisor.succeeded(1), "done all the same");
    assert_eq!(supervisor.finished(2).0, shiftboss_worker::Outcome::Cancelled);
}

fn start() -> Supervisor {
    let own = std::env::current_exe().expect("this program");
    Supervisor::start_with(&own, "odd", 4, |_| {})
}

#[expect(clippy::print_stderr, reason = "a test program says which test runs")]
fn main() -> ExitCode {
    let first = std::env::args().nth(1).unwrap_or_default();
    if first == "--launch" || first == "--type" {
        return shiftboss_worker::run(&[&Odd]);
    }
    let tests: [(&str, fn()); 6] = [
        ("panic", a_panic_fails_the_attempt_and_leaves_the_worker_whole),
        ("large", a_result_that_is_too_large_fails_for_good),
        ("checkpoint", a_checkpoint_waits_for_its_receipt),
        ("orphan's checkpoint", a_checkpoint_waits_for_the_receipt_of_the_next_supervisor),
        ("stopped orphan's checkpoint", a_checkpoint_of_a_stopped_orphan_is_told_before_its_end),
        ("success", a_success_stays_one_when_the_attempt_was_cancelled),
    ];
    for (name, test) in tests {
        eprintln!("custom worker: {name}");
        test();
    }
    ExitCode::SUCCESS
}
