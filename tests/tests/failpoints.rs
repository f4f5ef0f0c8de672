//! The supervisor dies at every place that has a name; the next one goes on, nothing runs twice.

use nix::sys::signal::Signal;
use shiftboss_tests::{Stage, has_failpoints, wait_for};
use std::os::unix::process::ExitStatusExt;
use std::process::Child;

const VARIABLE: &str = "SHIFTBOSS_TEST_FAILPOINT";

/// Places that a supervisor without a predecessor reaches, and the attempt that then succeeds.
const PLACES: [(&str, i64); 8] = [
    ("spawned", 1),
    ("greeted", 1),
    ("commit", 1),
    // Between claim and Assign there is only the row.
    ("claimed", 2),
    ("launched", 1),
    ("finished", 1),
    ("stored", 1),
    ("checkpoint", 1),
];

fn dies(place: &str, mut supervisor: Child) {
    let ended = wait_for(&format!("the supervisor dies: {place}"), || {
        supervisor.try_wait().expect("it is ours")
    });
    assert_eq!(ended.signal(), Some(9), "{place}: {ended}");
}

/// A job that says which attempt runs; inserted without a supervisor, which makes the tables.
fn submit(stage: &Stage) -> i64 {
    let script = format!("echo $SHIFTBOSS_ATTEMPT >> {}", stage.file("journal").display());
    let payload = stage.script(&script).to_string();
    let added = stage.json(&["submit", "command", "--payload", &payload, "--json"]);
    added["id"].as_i64().expect("it has an id")
}

fn succeeds_once(stage: &Stage, place: &str, job: i64, attempt: i64) {
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.failures, done.crash_count), (attempt, 0, 0), "{place}");
    let journal = std::fs::read_to_string(stage.file("journal")).expect("it ran");
    assert_eq!(journal, format!("{attempt}\n"), "{place}");
}

#[test]
fn a_job_succeeds_once_wherever_its_first_supervisor_died() {
    if !has_failpoints("a_job_succeeds_once_wherever_its_first_supervisor_died") {
        return;
    }
    for (place, attempt) in PLACES {
        let mut stage = Stage::dark("");
        let job = submit(&stage);
        dies(place, stage.spawn_supervisor("log", &[(VARIABLE, place)]));
        stage.start();
        succeeds_once(&stage, place, job, attempt);
    }
}

#[test]
fn tables_whose_making_was_cut_off_are_made_by_the_next_start() {
    if !has_failpoints("tables_whose_making_was_cut_off_are_made_by_the_next_start") {
        return;
    }
    let mut stage = Stage::dark("");
    dies("migration", stage.spawn_supervisor("log", &[(VARIABLE, "migration")]));
    stage.start();
    let job = submit(&stage);
    succeeds_once(&stage, "migration", job, 1);
}

#[test]
fn a_recovery_that_was_cut_off_is_done_by_the_next_start() {
    if !has_failpoints("a_recovery_that_was_cut_off_is_done_by_the_next_start") {
        return;
    }
    for place in ["found", "adopted"] {
        let mut stage = Stage::new("");
        let job = stage.shell(&format!(
            "cd {}; echo $SHIFTBOSS_ATTEMPT >> journal; until [ -e go ]; do sleep 0.02; done",
            stage.file("").display()
        ));
        wait_for("it runs", || stage.file("journal").exists().then_some(()));
        stage.signal(Signal::SIGKILL);
        stage.wait_for_end();
        dies(place, stage.spawn_supervisor("log", &[(VARIABLE, place)]));
        std::fs::write(stage.file("go"), "").expect("the folder is ours");
        stage.start();
        succeeds_once(&stage, place, job, 1);
    }
}
