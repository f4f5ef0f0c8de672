//! A worker's life: start, jobs, drain, signals, the loss of its supervisor.

use crate::supervisor::{Supervisor, TOKEN, is_alive, pid_in, wait_until};
use shiftboss_protocol::PROTOCOL_VERSION;
use shiftboss_protocol::frame;
use shiftboss_protocol::job::{Attempt, Cause, JobId, Outcome};
use shiftboss_protocol::message::{
    Assignment, ReceiptOf, Settings, StopReason, SupervisorMessage, WorkerMessage,
};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn by_hand(arguments: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_shiftboss-worker");
    Command::new(binary).args(arguments).output().expect("worker")
}

#[test]
fn a_worker_says_who_it_is_then_works_then_drains() {
    let mut supervisor = Supervisor::start("noop", 4);
    assert_eq!(supervisor.hello.protocol, PROTOCOL_VERSION);
    assert_eq!(supervisor.hello.job_type, "test");
    assert_eq!(supervisor.hello.token, TOKEN);
    assert!(supervisor.ready().confinement.contains("no-new-privs"), "{:?}", supervisor.ready());
    supervisor.assign(1, "{}");
    assert_eq!(supervisor.succeeded(1), serde_json::json!({}));
    supervisor.say(&SupervisorMessage::Drain);
    supervisor.record(1, ReceiptOf::Outcome, false);
    assert_eq!(supervisor.exit().code(), Some(0));
}

#[test]
fn a_worker_started_by_hand_says_what_it_is() {
    let output = by_hand(&[]);
    assert_eq!(output.status.code(), Some(100));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("shiftboss run") && said.lines().count() == 1, "{said}");
    let version = by_hand(&["--version"]);
    assert!(String::from_utf8_lossy(&version.stdout).contains("protocol 1"));
}

#[test]
fn a_refused_worker_logs_the_sentence_and_exits() {
    let mut supervisor = Supervisor::spawn(Path::new(env!("CARGO_BIN_EXE_shiftboss-worker")));
    supervisor.refuse("speaks protocol 1, this supervisor speaks 9");
    assert_eq!(supervisor.exit().code(), Some(1));
    assert!(supervisor.errors().contains("this supervisor speaks 9"), "{}", supervisor.errors());
}

#[test]
fn an_unknown_workload_is_named() {
    let mut supervisor = Supervisor::start("alchemy", 1);
    assert_eq!(supervisor.exit().code(), Some(1));
    let errors = supervisor.errors();
    assert!(errors.contains("alchemy") && errors.contains("command"), "{errors}");
}

#[test]
fn only_the_standard_streams_pass_on_to_programs() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor.assign(1, r#"{"argv":["ls","/proc/self/fd"]}"#);
    let result = supervisor.succeeded(1);
    // ls itself opens the folder as 3.
    assert_eq!(result["stdout_tail"], "0\n1\n2\n3");
    let lock = format!("/proc/{}/fd/4", supervisor.worker.id());
    assert!(std::fs::read_link(lock).is_ok_and(|path| path.ends_with("lock")));
}

#[test]
fn a_burst_of_jobs_is_answered_one_by_one() {
    let mut supervisor = Supervisor::start("noop", 256);
    let one = |job| Assignment {
        job: JobId(job),
        attempt: Attempt(1),
        payload: "{}".into(),
        checkpoint: None,
        timeout_ms: 60_000,
    };
    supervisor.say(&SupervisorMessage::Assign { jobs: (1..=256).map(one).collect() });
    for job in 1..=256 {
        supervisor.succeeded(job);
    }
}

#[test]
fn an_assignment_that_is_held_already_is_not_run_twice() {
    let mut supervisor = Supervisor::start("command", 2);
    let counts = supervisor.path("count");
    let payload = supervisor.script(&format!("echo x >> {}", counts.display()));
    supervisor.assign(1, &payload);
    supervisor.succeeded(1);
    supervisor.assign(1, &payload);
    supervisor.assign(2, r#"{"argv":["true"]}"#);
    supervisor.succeeded(2);
    assert_eq!(std::fs::read_to_string(counts).expect("count"), "x\n");
}

#[test]
fn drain_lets_running_jobs_finish_and_gives_new_ones_back() {
    let mut supervisor = Supervisor::start("command", 2);
    let go = supervisor.path("go");
    let wait = format!("until [ -e {} ]; do sleep 0.01; done", go.display());
    supervisor.assign(1, &supervisor.script(&wait));
    supervisor.started(1);
    supervisor.say(&SupervisorMessage::Drain);
    supervisor.assign(2, r#"{"argv":["true"]}"#);
    assert!(matches!(supervisor.finished(2).0, Outcome::Released { .. }));
    std::fs::write(go, "").expect("go");
    supervisor.succeeded(1);
    supervisor.record(1, ReceiptOf::Outcome, false);
    supervisor.record(2, ReceiptOf::Outcome, true);
    assert_eq!(supervisor.exit().code(), Some(0));
}

#[test]
fn sigterm_releases_what_runs_and_ends_the_worker() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor.assign(1, r#"{"argv":["sleep","1000"]}"#);
    supervisor.started(1);
    supervisor.signal("TERM");
    assert!(matches!(supervisor.finished(1).0, Outcome::Released { .. }));
    supervisor.record(1, ReceiptOf::Outcome, false);
    assert_eq!(supervisor.exit().code(), Some(0));
}

#[test]
fn sigterm_ends_a_worker_whose_supervisor_gives_no_receipts() {
    let mut supervisor = Supervisor::start("noop", 1);
    supervisor.assign(1, "{}");
    supervisor.succeeded(1);
    supervisor.signal("TERM");
    assert_eq!(supervisor.exit().code(), Some(0));
}

#[test]
fn without_an_orphan_grace_a_worker_ends_with_its_supervisor_and_its_programs() {
    let binary = Path::new(env!("CARGO_BIN_EXE_shiftboss-worker"));
    let at_once = |settings: &mut Settings| settings.orphan_grace_ms = 0;
    let mut supervisor = Supervisor::start_with(binary, "command", 1, at_once);
    let file = supervisor.path("pid");
    supervisor.assign(1, &supervisor.script(&format!("echo $$ > {}; sleep 1000", file.display())));
    let pid = pid_in(&file);
    let worker = supervisor.lose();
    assert_eq!(worker.wait().expect("worker").code(), Some(0));
    assert!(!is_alive(&pid));
}

#[test]
fn a_frame_that_is_no_message_ends_the_worker() {
    let mut supervisor = Supervisor::start("noop", 1);
    supervisor.ready();
    supervisor.say_bytes(&frame::encode(&77u32).expect("frame"));
    assert_eq!(supervisor.exit().code(), Some(1));
    assert!(supervisor.errors().contains("cannot be decoded"), "{}", supervisor.errors());
}

#[test]
fn heartbeats_come_only_while_attempts_are_held() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor.ready();
    let file = supervisor.path("go");
    let wait = format!("until [ -e {} ]; do sleep 0.05; done", file.display());
    supervisor.assign(1, &supervisor.script(&wait));
    supervisor.wait_for(|message| matches!(message, WorkerMessage::Heartbeat).then_some(()));
    std::fs::write(file, "").expect("go");
    supervisor.succeeded(1);
    supervisor.record(1, ReceiptOf::Outcome, false);
    supervisor.seen.clear();
    // Longer than one beat, without the worker being spoken to: its threads use no time.
    let stat = format!("/proc/{}/task", supervisor.worker.id());
    let quiet = supervisor.hear_within(Duration::from_secs(6));
    assert_eq!(quiet, None);
    let switches = || -> u64 {
        std::fs::read_dir(&stat)
            .expect("threads")
            .flatten()
            .filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok())
            .flat_map(|status| {
                let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
                lines
                    .filter_map(|line| line.split_whitespace().nth(1)?.parse().ok())
                    .collect::<Vec<u64>>()
            })
            .sum()
    };
    let before = switches();
    assert_eq!(supervisor.hear_within(Duration::from_secs(6)), None);
    assert_eq!(switches(), before, "an idle worker was woken");
}

#[test]
fn a_cancelled_attempt_reports_by_its_reason() {
    let mut supervisor = Supervisor::start("command", 4);
    let reasons =
        [StopReason::Cancelled, StopReason::Timeout, StopReason::Stalled, StopReason::Released];
    for (job, reason) in (1..).zip(reasons) {
        supervisor.assign_limited(job, r#"{"argv":["sleep","1000"]}"#, 123_456);
        supervisor.started(job);
        supervisor.cancel(job, reason);
    }
    supervisor.cancel(99, StopReason::Cancelled);
    assert_eq!(supervisor.finished(1).0, Outcome::Cancelled);
    let timeout = supervisor.failed(2);
    assert_eq!(timeout.cause, Cause::Timeout);
    assert!(timeout.message.contains("123456 ms"), "{}", timeout.message);
    assert_eq!(supervisor.failed(3).cause, Cause::Stalled);
    assert!(matches!(supervisor.finished(4).0, Outcome::Released { .. }));
}

#[test]
fn a_timeout_holds_without_the_supervisor() {
    let mut supervisor = Supervisor::start("command", 1);
    let start = Instant::now();
    supervisor.assign_limited(1, r#"{"argv":["sleep","1000"]}"#, 100);
    assert_eq!(supervisor.failed(1).cause, Cause::Timeout);
    assert!(start.elapsed() >= Duration::from_millis(2_100));
}

#[test]
fn a_queued_attempt_is_cancelled_without_being_run() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor.assign(1, r#"{"argv":["sleep","1000"]}"#);
    // Its scratch exists from here on: one that was cancelled earlier never gets any.
    supervisor.started(1);
    supervisor.assign(2, r#"{"argv":["true"]}"#);
    supervisor.cancel(2, StopReason::Cancelled);
    assert_eq!(supervisor.finished(2).0, Outcome::Cancelled);
    supervisor.cancel(1, StopReason::Cancelled);
    assert_eq!(supervisor.finished(1).0, Outcome::Cancelled);
    wait_until("nothing is left in scratch", || {
        std::fs::read_dir(supervisor.path("scratch"))
            .is_ok_and(|mut folder| folder.next().is_none())
    });
}
