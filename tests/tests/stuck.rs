//! Work that is stuck ends within its grace, the whole tree with it, and the table says of what:
//! with the supervisor that started it, with the next one, and with none.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shiftboss_tests::{Stage, built, wait_for, wait_until};

/// Ignores SIGTERM, forks twice, closes everything, leaves the session, and never ends.
const STUBBORN: &str = "trap '' TERM; (trap '' TERM; setsid sh -c \
    'exec </dev/null >/dev/null 2>&1; (sleep 300 &) ; sleep 300' &); while :; do sleep 1; done";

fn quick(extra: &str) -> Stage {
    Stage::new(&format!(
        "[types.command]\nmax_attempts = 1\ngrace = {{ term = \"200ms\" }}\n{extra}"
    ))
}

/// A stubborn job whose whole tree runs.
fn stubborn(stage: &Stage) -> i64 {
    let job = stage.shell(STUBBORN);
    wait_until("its tree runs", || stage.programs_of(job).len() >= 4);
    job
}

fn kill_supervisor(stage: &mut Stage) {
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
}

/// Waits until the worker of a job has come back to the supervisor that runs now.
fn wait_for_return(stage: &Stage, job: i64) {
    wait_until("its worker is back", || {
        let workers = stage.json(&["workers", "--json"]);
        let is_back =
            |one: &serde_json::Value| one["state"] == "busy" && one["attempts"][0]["job"] == job;
        workers.as_array().is_some_and(|all| all.iter().any(is_back))
    });
}

fn ended(stage: &Stage, job: i64, state: &str, cause: &str) {
    let row = stage.wait_for_state(job, state);
    let attempts = stage.attempts(job);
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].cause.as_deref(), Some(cause), "{}", row.last_error);
    assert_eq!(row.crash_count, 0, "{}", row.last_error);
    assert!(stage.programs_of(job).is_empty(), "its tree is dead before its outcome is stored");
}

#[test]
fn the_next_supervisor_cancels_a_stubborn_tree_that_it_took_over() {
    let mut stage = quick("");
    let job = stubborn(&stage);
    kill_supervisor(&mut stage);
    stage.start();
    wait_for_return(&stage, job);
    assert!(stage.run(&["cancel", &job.to_string()]).status.success());
    ended(&stage, job, "cancelled", "cancelled");
}

#[test]
fn the_next_supervisor_keeps_the_time_limit_of_what_it_took_over() {
    let mut stage = quick("timeout = \"3s\"");
    let job = stubborn(&stage);
    kill_supervisor(&mut stage);
    stage.start();
    ended(&stage, job, "failed", "timeout");
}

#[test]
fn the_next_supervisor_sees_that_what_it_took_over_makes_no_progress() {
    let mut stage = quick("stall_timeout = \"2s\"");
    let job = stubborn(&stage);
    kill_supervisor(&mut stage);
    stage.start();
    ended(&stage, job, "failed", "stalled");
}

#[test]
fn the_time_limit_holds_without_any_supervisor() {
    let mut stage = quick("timeout = \"2s\"");
    let job = stubborn(&stage);
    kill_supervisor(&mut stage);
    wait_until("the tree is dead", || stage.programs_of(job).is_empty());
    assert_eq!(stage.job(job).expect("it is there").state, "running");
    stage.start();
    ended(&stage, job, "failed", "timeout");
}

/// A job whose first attempt waits for ever and whose second one ends at once.
fn once_stuck(stage: &Stage) -> i64 {
    let flag = stage.file("flag");
    let job = stage.shell(&format!("[ -e {0} ] || {{ touch {0}; {STUBBORN}; }}", flag.display()));
    wait_until("its tree runs", || stage.programs_of(job).len() >= 4);
    job
}

/// Stops the worker: it lives, and says nothing.
fn silence(stage: &Stage, job: i64) -> Vec<i32> {
    let before = stage.programs_of(job);
    let worker = stage.attempts(job)[0].pid;
    kill(Pid::from_raw(worker), Signal::SIGSTOP).expect("it lives");
    before
}

fn given_up(stage: &Stage, job: i64, before: &[i32]) {
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.failures, done.crash_count), (2, 0, 1), "{}", stage.log());
    let after = stage.programs_of(job);
    assert!(before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
    let sql = "SELECT cause || ': ' || error FROM attempts WHERE job_id = ?1 AND attempt = 1";
    let error: String = stage.database().query_row(sql, [job], |row| row.get(0)).expect("stored");
    assert!(error.starts_with("crash: ") && error.contains("no sign of life"), "{error}");
}

#[test]
fn a_worker_that_exists_and_says_nothing_is_killed_after_half_a_minute() {
    let stage = Stage::new("");
    let job = once_stuck(&stage);
    let before = silence(&stage, job);
    given_up(&stage, job, &before);
}

#[test]
fn so_is_one_that_was_taken_over() {
    let mut stage = Stage::new("");
    let job = once_stuck(&stage);
    kill_supervisor(&mut stage);
    stage.start();
    wait_for_return(&stage, job);
    let before = silence(&stage, job);
    given_up(&stage, job, &before);
}

/// A worker that holds a job, and hears neither Cancel nor SIGTERM.
fn deaf(extra: &str) -> (Stage, i64) {
    let worker = built("odd-worker");
    let stage = Stage::new(&format!(
        "[types.deaf]\nworker = {worker:?}\nworkload = \"odd\"\nmax_attempts = 1\n\
         grace = {{ term = \"100ms\", drain = \"100ms\" }}\n{extra}"
    ));
    let job = stage.insert("deaf", "{}");
    stage.wait_for_state(job, "running");
    (stage, job)
}

#[test]
fn a_worker_that_ignores_cancel_is_killed_and_the_job_is_cancelled() {
    let (stage, job) = deaf("");
    let worker = stage.attempts(job)[0].pid;
    assert!(stage.run(&["cancel", &job.to_string()]).status.success());
    ended(&stage, job, "cancelled", "cancelled");
    assert!(!std::path::Path::new(&format!("/proc/{worker}")).exists());
}

#[test]
fn a_worker_that_ignores_the_end_of_its_jobs_time_is_killed_and_the_job_says_timeout() {
    let (stage, job) = deaf("timeout = \"500ms\"");
    ended(&stage, job, "failed", "timeout");
}

#[test]
fn a_worker_that_ignores_drain_and_sigterm_does_not_keep_its_supervisor() {
    let (mut stage, job) = deaf("");
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.wait_for_end(), Some(0), "{}", stage.log());
    let back = stage.job(job).expect("it is there");
    assert_eq!((&*back.state, back.failures, back.crash_count), ("available", 0, 0));
    let worker = stage.attempts(job)[0].pid;
    wait_for("it is dead", || {
        (!std::path::Path::new(&format!("/proc/{worker}")).exists()).then_some(())
    });
}
