//! A worker and its next supervisor: what is said again, and what becomes of what is held.

use crate::supervisor::{Supervisor, TOKEN, is_alive, outcome, owner, pid_in, wait_until};
use shiftboss_protocol::PROTOCOL_VERSION;
use shiftboss_protocol::frame;
use shiftboss_protocol::job::{Attempt, JobId, Outcome};
use shiftboss_protocol::message::{
    Assignment, ReceiptOf, StopReason, SupervisorMessage, WorkerMessage,
};

const ONE: (JobId, Attempt) = (JobId(1), Attempt(1));

#[test]
fn an_attempt_runs_on_and_is_told_of_again() {
    let mut supervisor = Supervisor::start("command", 1);
    let abilities = supervisor.ready();
    let go = supervisor.path("go");
    let lines = format!(
        "echo '{{\"percent\": 50, \"note\": \"half\"}}'; until [ -e {0} ]; do sleep 0.01; done; \
         echo '{{\"result\": \"whole\"}}'",
        go.display()
    );
    supervisor.assign(1, &supervisor.script(&lines));
    let launcher = supervisor.started(1);
    supervisor.noted("half");
    supervisor.lose();
    supervisor.come_back();
    assert_eq!(supervisor.hello.protocol, PROTOCOL_VERSION);
    assert_eq!(supervisor.hello.token, TOKEN);
    assert_eq!(supervisor.hello.held, [ONE]);
    supervisor.settings.owner = owner(2);
    supervisor.welcome();
    supervisor.noted("half");
    let said = std::mem::take(&mut supervisor.seen);
    let [WorkerMessage::Ready(ready), WorkerMessage::Started { launcher_pid, .. }, _] = &said[..]
    else {
        panic!("not Ready, Started, Progress: {said:?}")
    };
    assert_eq!((ready, *launcher_pid), (&abilities, launcher));
    supervisor.wait_for(|message| matches!(message, WorkerMessage::Heartbeat).then_some(()));
    std::fs::write(go, "").expect("go");
    assert_eq!(supervisor.succeeded(1), "whole");
    supervisor.record(1, ReceiptOf::Outcome, false);
    supervisor.say(&SupervisorMessage::Drain);
    assert_eq!(supervisor.exit().code(), Some(0));
}

#[test]
fn an_idle_worker_waits_for_the_next_supervisor_and_works_for_it() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor.ready();
    supervisor.lose();
    supervisor.take_over(2);
    assert_eq!(supervisor.hello.held, []);
    supervisor.assign(1, &supervisor.script("echo $SHIFTBOSS_OWNER"));
    assert_eq!(supervisor.succeeded(1)["stdout_tail"], owner(2));
}

#[test]
fn outcomes_without_a_receipt_are_each_told_once_more() {
    let mut supervisor = Supervisor::start("noop", 256);
    let one = |job| Assignment {
        job: JobId(job),
        attempt: Attempt(1),
        payload: "{}".into(),
        checkpoint: None,
        timeout_ms: 0,
    };
    supervisor.say(&SupervisorMessage::Assign { jobs: (1..=256).map(one).collect() });
    for job in 1..=256 {
        supervisor.succeeded(job);
    }
    supervisor.lose();
    supervisor.take_over(2);
    let held: Vec<_> = (1..=256).map(|job| (JobId(job), Attempt(1))).collect();
    assert_eq!(supervisor.hello.held, held);
    for job in 1..=256 {
        supervisor.succeeded(job);
        supervisor.record(job, ReceiptOf::Outcome, false);
    }
    supervisor.assign(257, "{}");
    supervisor.succeeded(257);
    let is_finished = |message: &&WorkerMessage| matches!(message, WorkerMessage::Finished { .. });
    assert_eq!(supervisor.seen.iter().filter(is_finished).count(), 257);
    supervisor.lose();
    supervisor.come_back();
    assert_eq!(supervisor.hello.held, [(JobId(257), Attempt(1))]);
}

#[test]
fn a_supervisor_that_goes_before_its_welcome_is_followed_by_the_next() {
    let mut supervisor = Supervisor::start("command", 1);
    let file = supervisor.path("pid");
    supervisor.assign(1, &supervisor.script(&format!("echo $$ > {}; sleep 1000", file.display())));
    let pid = pid_in(&file);
    supervisor.lose();
    supervisor.come_back();
    supervisor.lose();
    supervisor.come_back();
    supervisor.say(&SupervisorMessage::Drain);
    supervisor.come_back();
    supervisor.say_bytes(&frame::encode(&77u32).expect("frame"));
    supervisor.take_over(2);
    assert_eq!(supervisor.hello.held, [ONE]);
    assert!(is_alive(&pid));
    supervisor.cancel(1, StopReason::Cancelled);
    assert_eq!(supervisor.finished(1).0, Outcome::Cancelled);
}

#[test]
fn a_supervisor_that_dies_inside_a_frame_is_lost_like_any_other() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor.assign(1, r#"{"argv":["sleep","1000"]}"#);
    supervisor.started(1);
    let frame = frame::encode(&SupervisorMessage::Drain).expect("frame");
    supervisor.say_bytes(&frame[..frame.len() - 1]);
    supervisor.lose();
    supervisor.take_over(2);
    assert_eq!(supervisor.hello.held, [ONE]);
    supervisor.cancel(1, StopReason::Released);
    assert!(matches!(supervisor.finished(1).0, Outcome::Released { .. }));
}

#[test]
fn a_worker_that_the_next_supervisor_refuses_stops_cleanly_and_says_why() {
    let mut supervisor = Supervisor::start("command", 1);
    let file = supervisor.path("pid");
    supervisor.assign(1, &supervisor.script(&format!("echo $$ > {}; sleep 1000", file.display())));
    let pid = pid_in(&file);
    supervisor.lose();
    supervisor.come_back();
    supervisor.refuse("speaks protocol 1, this supervisor speaks 9");
    assert_eq!(supervisor.exit().code(), Some(1));
    assert!(supervisor.errors().contains("this supervisor speaks 9"), "{}", supervisor.errors());
    assert!(!is_alive(&pid));
    assert!(supervisor.path(&format!("outcomes/{}", outcome(1, 1))).exists());
}

#[test]
fn attempts_that_the_next_supervisor_does_not_want_are_released_and_forgotten() {
    let mut supervisor = Supervisor::start("command", 2);
    supervisor.assign(1, r#"{"argv":["sleep","1000"]}"#);
    supervisor.assign(2, r#"{"argv":["true"]}"#);
    supervisor.started(1);
    supervisor.succeeded(2);
    supervisor.lose();
    supervisor.come_back();
    supervisor.welcome();
    // Said before the worker has told anything again.
    supervisor.cancel(1, StopReason::Released);
    supervisor.record(2, ReceiptOf::Outcome, true);
    assert!(matches!(supervisor.finished(1).0, Outcome::Released { .. }));
    supervisor.record(1, ReceiptOf::Outcome, true);
    wait_until("no file is left", || {
        std::fs::read_dir(supervisor.path("outcomes")).expect("outcomes").count() == 0
    });
    supervisor.lose();
    supervisor.come_back();
    assert_eq!(supervisor.hello.held, []);
}

#[test]
fn an_attempt_that_is_assigned_again_after_the_gap_goes_on_as_it_is() {
    let mut supervisor = Supervisor::start("command", 2);
    let (counts, go) = (supervisor.path("count"), supervisor.path("go"));
    let payload = supervisor.script(&format!(
        "echo x >> {}; until [ -e {} ]; do sleep 0.01; done",
        counts.display(),
        go.display()
    ));
    supervisor.assign(1, &payload);
    supervisor.started(1);
    supervisor.lose();
    supervisor.take_over(2);
    supervisor.assign(1, &payload);
    supervisor.assign(2, r#"{"argv":["true"]}"#);
    supervisor.succeeded(2);
    std::fs::write(go, "").expect("go");
    supervisor.succeeded(1);
    assert_eq!(std::fs::read_to_string(counts).expect("count"), "x\n");
}
