//! Who comes back must be who went: forged reattachments change nothing, and neither does a
//! worker that says more than it should.

use interprocess::local_socket::traits::Stream as _;
use interprocess::local_socket::{GenericFilePath, Stream, ToFsName};
use nix::sys::signal::Signal;
use shiftboss_protocol::frame;
use shiftboss_protocol::job::{Attempt, JobId};
use shiftboss_protocol::message::{Hello, WorkerMessage};
use shiftboss_tests::{Stage, built, wait_for, wait_until};

/// A stage on which a worker of that kind holds job 2 while job 1 runs in a proper one.
fn odd(kind: &str) -> (Stage, i64, i64) {
    let worker = built("odd-worker");
    let stage = Stage::new(&format!("[types.{kind}]\nworker = {worker:?}\nworkload = \"odd\""));
    let proper = stage.shell("while [ ! -e go ]; do sleep 0.02; done");
    stage.wait_for_state(proper, "running");
    let own = stage.insert(kind, "{}");
    stage.wait_for_state(own, "running");
    assert_eq!((proper, own), (1, 2));
    (stage, proper, own)
}

fn restart(stage: &mut Stage) {
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
    stage.start();
}

fn log_says(stage: &Stage, sentence: &str) {
    wait_until(&format!("the log says {sentence:?}"), || stage.log().contains(sentence));
}

/// The job was given back without blame, and the other one does not know of any of it.
fn only_lost_its_attempt(stage: &Stage, proper: i64, own: i64) {
    wait_until("the job runs again", || stage.job(own).is_some_and(|job| job.attempt >= 2));
    let job = stage.job(own).expect("it is there");
    assert_eq!((job.failures, job.crash_count), (0, 0), "{}", job.last_error);
    let job = stage.job(proper).expect("it is there");
    assert_eq!((&*job.state, job.attempt), ("running", 1));
}

#[test]
fn a_wrong_token_is_refused_and_the_worker_ended() {
    let (mut stage, proper, own) = odd("forger");
    restart(&mut stage);
    log_says(&stage, "a Hello without the right token; refused");
    log_says(&stage, "it did not find its new supervisor");
    only_lost_its_attempt(&stage, proper, own);
}

#[test]
fn the_right_token_from_another_process_is_refused() {
    let (mut stage, proper, own) = odd("sharer");
    restart(&mut stage);
    let socket = stage.path("run/main/w/worker.sock");
    let shared = stage.path("run/main/w/worker.sock.token");
    let token = wait_for("the worker gives its token away", || {
        <[u8; 32]>::try_from(std::fs::read(&shared).ok()?).ok()
    });
    let name = socket.as_path().to_fs_name::<GenericFilePath>().expect("a path");
    let stream = Stream::connect(name).expect("the supervisor listens");
    let job_type = "sharer".to_owned();
    let held = vec![(JobId(own), Attempt(1))];
    let hello = Hello { protocol: 1, job_type, token, held, program: "thief".to_owned() };
    frame::write(&mut &stream, &WorkerMessage::Hello(hello)).expect("it is read");
    log_says(&stage, "a process that is no worker of ours said Hello; refused");
    let answer: Option<WorkerMessage> = frame::read(&mut &stream).ok().flatten();
    assert_eq!(answer, None);
    only_lost_its_attempt(&stage, proper, own);
}

#[test]
fn attempts_that_a_worker_never_had_are_not_given_to_it() {
    let (mut stage, proper, own) = odd("claimer");
    restart(&mut stage);
    log_says(&stage, "came too late");
    only_lost_its_attempt(&stage, proper, own);
    std::fs::write(stage.path("go"), "").expect("the folder is ours");
}

#[test]
fn a_worker_of_another_version_is_told_to_end() {
    let (mut stage, proper, own) = odd("newer");
    restart(&mut stage);
    log_says(&stage, "cannot be taken over: this supervisor speaks protocol version 1");
    only_lost_its_attempt(&stage, proper, own);
}

#[test]
fn what_a_worker_says_of_an_attempt_that_has_ended_changes_nothing() {
    let worker = built("odd-worker");
    let stage = Stage::new(&format!("[types.twice]\nworker = {worker:?}\nworkload = \"odd\""));
    let job = stage.insert("twice", "{}");
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.result.as_deref()), (1, Some("\"a lie\"")));
    log_says(&stage, "came too late");
    let next = stage.insert("noop", "{}");
    stage.wait_for_state(next, "succeeded");
    let attempts = stage.attempts(job);
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].outcome.as_deref(), Some("succeeded"));
    assert_eq!(stage.count("checkpoint IS NOT NULL"), 0);
}
