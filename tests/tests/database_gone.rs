//! The database is moved, replaced or deleted while a supervisor works on it: nothing is written
//! where nobody would find it, running jobs go on, and what can come back is waited for.

use nix::sys::signal::Signal;
use shiftboss_tests::{Stage, wait_until};
use std::path::PathBuf;

const QUICK_STOP: &str =
    "wal = \"switch\"\n[types.command]\ngrace = { drain = \"100ms\", term = \"1s\" }";

/// A stage with a program that runs until the file `go` is there.
fn stage_with_a_run() -> (Stage, i64) {
    let stage = Stage::new(QUICK_STOP);
    let (go, runs) = (stage.file("go"), stage.file("runs"));
    let (go, runs) = (go.display(), runs.display());
    let job = stage.shell(&format!("echo run >> {runs}; while [ ! -e {go} ]; do sleep 0.02; done"));
    wait_until("the program runs", || !stage.programs_of(job).is_empty());
    (stage, job)
}

fn wait_for_trouble(stage: &Stage, text: &str) {
    wait_until(&format!("the trouble is told: {text}"), || stage.trouble().contains(text));
    assert!(stage.log().contains(text), "{}", stage.log());
}

fn rename(stage: &Stage, from: &str, to: &str) {
    std::fs::rename(stage.path(from), stage.path(to)).expect("the folder is ours");
}

fn is_refused(stage: &Stage) {
    let refused = stage.run(&["submit", "noop"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing was stored"), "{said}");
}

/// Stops the supervisor: that is no success, and takes the programs along.
fn stop_in_trouble(stage: &mut Stage, job: i64) {
    assert!(!stage.programs_of(job).is_empty(), "the program runs on: {}", stage.log());
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.wait_for_end(), Some(1), "{}", stage.log());
    assert!(stage.programs_of(job).is_empty());
    assert!(stage.log().contains("stopped while the job table could not be written"));
}

#[test]
fn a_database_that_is_moved_away_and_back_gets_every_outcome() {
    let (stage, job) = stage_with_a_run();
    rename(&stage, "jobs.db", "aside.db");
    wait_for_trouble(&stage, "deleted or moved away");
    is_refused(&stage);
    std::fs::write(stage.file("go"), "").expect("the folder is ours");
    wait_until("the program has ended", || stage.programs_of(job).is_empty());
    assert!(!stage.path("jobs.db").exists(), "no new database was made");
    rename(&stage, "aside.db", "jobs.db");
    wait_until("the trouble is over", || stage.trouble().is_empty());
    assert_eq!(stage.wait_for_state(job, "succeeded").attempt, 1);
    let next = stage.insert("noop", "{}");
    stage.wait_for_state(next, "succeeded");
    let runs = std::fs::read_to_string(stage.file("runs")).expect("it ran");
    assert_eq!(runs, "run\n");
}

#[test]
fn a_database_that_takes_the_place_of_ours_is_not_touched_before_a_restart() {
    let (mut stage, job) = stage_with_a_run();
    let other = stage.path("other.db").display().to_string();
    assert!(stage.run(&["db", "backup", &other]).status.success());
    let before = std::fs::read(&other).expect("nobody uses it");
    let later = stage.insert("noop", "{}");
    stage.wait_for_state(later, "succeeded");
    rename(&stage, "jobs.db", "aside.db");
    rename(&stage, "other.db", "jobs.db");
    wait_for_trouble(&stage, "was replaced by another file");
    is_refused(&stage);
    stop_in_trouble(&mut stage, job);
    assert!(std::fs::read(stage.path("jobs.db")).expect("nobody uses it") == before);
    // Neither lost what was acknowledged, nor mixed the two.
    assert!(stage.run(&["db", "check"]).status.success());
    assert!(stage.job(later).is_none(), "it was enqueued after the backup");
    stage.start();
    let next = stage.insert("noop", "{}");
    stage.wait_for_state(next, "succeeded");
    std::fs::write(stage.file("go"), "").expect("the folder is ours");
    stage.wait_for_state(job, "succeeded");
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.wait_for_end(), Some(0));
    rename(&stage, "jobs.db", "other.db");
    rename(&stage, "aside.db", "jobs.db");
    assert!(stage.run(&["db", "check"]).status.success());
    assert_eq!(stage.job(later).expect("it was acknowledged").state, "succeeded");
}

#[test]
fn a_deleted_database_is_told_and_a_restart_makes_a_new_one() {
    let (mut stage, job) = stage_with_a_run();
    for name in ["jobs.db", "jobs.db-wal", "jobs.db-shm"] {
        std::fs::remove_file(stage.path(name)).expect("it is there");
    }
    wait_for_trouble(&stage, "deleted or moved away");
    is_refused(&stage);
    stop_in_trouble(&mut stage, job);
    stage.start();
    let next = stage.insert("noop", "{}");
    stage.wait_for_state(next, "succeeded");
    assert_eq!(stage.count("TRUE"), 1);
}

#[test]
fn a_deleted_log_loses_nothing_that_was_acknowledged() {
    let (mut stage, job) = stage_with_a_run();
    let acknowledged = stage.json(&["submit", "noop", "--json"])["id"].as_i64().expect("an id");
    let log: PathBuf = stage.path("jobs.db-wal");
    std::fs::remove_file(&log).expect("it is there");
    wait_for_trouble(&stage, "-wal was deleted");
    is_refused(&stage);
    stop_in_trouble(&mut stage, job);
    assert!(stage.run(&["db", "check"]).status.success());
    stage.start();
    stage.wait_for_state(acknowledged, "succeeded");
    std::fs::write(stage.file("go"), "").expect("the folder is ours");
    assert!(stage.wait_for_state(job, "succeeded").attempt >= 2);
}
