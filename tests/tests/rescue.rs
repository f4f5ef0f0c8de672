//! A supervisor takes over what one of another name left, and nothing of its own is touched.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shiftboss_tests::{Stage, wait_until};

/// One job at a time for each supervisor, so that it is known who runs which.
const ONE_EACH: &str = "[types.command]\nworkers = { max = 1 }";

/// A script that writes its attempt down and waits for the file `go`.
fn journalled(stage: &Stage, name: &str) -> String {
    let dir = stage.file("").display().to_string();
    format!(
        "cd {dir}; echo start $SHIFTBOSS_ATTEMPT >> {name}; \
         while [ ! -e go ]; do sleep 0.02; done; echo end $SHIFTBOSS_ATTEMPT >> {name}"
    )
}

fn text(stage: &Stage, name: &str) -> String {
    std::fs::read_to_string(stage.file(name)).unwrap_or_default()
}

fn log2(stage: &Stage) -> String {
    std::fs::read_to_string(stage.path("log2")).unwrap_or_default()
}

/// A stage on which each of two supervisors runs one job: the first and the second job.
fn two() -> (Stage, i64, i64) {
    let mut stage = Stage::new(ONE_EACH);
    let first = stage.shell(&journalled(&stage, "first"));
    wait_until("the first program runs", || text(&stage, "first").contains("start"));
    let other = stage.spawn_supervisor("log2", &[("INSTANCE_ID", "second")]);
    stage.keep(other);
    let second = stage.shell(&journalled(&stage, "second"));
    wait_until("the second program runs", || text(&stage, "second").contains("start"));
    let owner = stage.job(second).and_then(|job| job.owner).unwrap_or_default();
    assert!(owner.starts_with("second-"), "{owner}");
    (stage, first, second)
}

fn kill_supervisor(stage: &mut Stage) {
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
}

fn kill_worker(stage: &Stage, job: i64) {
    let pid = stage.attempts(job)[0].pid;
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the worker lives");
}

#[test]
fn the_workers_and_programs_of_the_one_who_takes_over_go_on() {
    let (mut stage, first, second) = two();
    let programs = stage.programs_of(second);
    kill_supervisor(&mut stage);
    kill_worker(&stage, first);
    let back = stage.wait_for_state(first, "available");
    assert_eq!((back.failures, back.crash_count), (0, 0));
    // Its only place is taken: a job that waits for it shows that it went on after the rescue.
    std::fs::write(stage.file("go"), "").expect("the folder is ours");
    let done = stage.wait_for_state(second, "succeeded");
    assert_eq!((done.attempt, done.failures, done.crash_count), (1, 0, 0));
    assert!(!programs.is_empty());
    assert_eq!(text(&stage, "second"), "start 1\nend 1\n", "{}", log2(&stage));
    let done = stage.wait_for_state(first, "succeeded");
    assert_eq!((done.attempt, done.failures, done.crash_count), (2, 0, 0));
    assert_eq!(text(&stage, "first"), "start 1\nstart 2\nend 2\n");
    let log = log2(&stage);
    assert!(!log.contains("has outlived its supervisor"), "{log}");
    assert!(!log.contains("did not find its new supervisor"), "{log}");
}

#[test]
fn an_outcome_that_was_written_down_for_a_dead_supervisor_is_stored_by_the_other() {
    let (mut stage, first, second) = two();
    kill_supervisor(&mut stage);
    std::fs::write(stage.file("go"), "").expect("the folder is ours");
    stage.wait_for_state(second, "succeeded");
    stage.wait_until_written_down();
    assert_eq!(stage.job(first).expect("it is there").state, "running");
    kill_worker(&stage, first);
    let done = stage.wait_for_state(first, "succeeded");
    assert_eq!((done.attempt, done.failures, done.crash_count), (1, 0, 0));
    assert_eq!(text(&stage, "first"), "start 1\nend 1\n");
    wait_until("the file is gone", || stage.outcomes().is_empty());
}
