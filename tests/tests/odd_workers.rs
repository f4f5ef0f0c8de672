//! Worker programs that do not start, do not speak, or lie: they end, and nothing else does.

use shiftboss_tests::{Stage, built, skip, wait_until};
use std::os::unix::fs::PermissionsExt;

fn odd(kind: &str) -> Stage {
    let worker = built("odd-worker");
    Stage::new(&format!(
        "[types.{kind}]\nworker = {worker:?}\nworkload = \"odd\"\npoison_after = 2\n\
         restart = {{ base = \"1ms\", max = \"1h\", burst = 3 }}"
    ))
}

/// The log says what is wrong, and another type runs on.
fn told(stage: &Stage, sentence: &str) {
    wait_until(&format!("the log says {sentence:?}"), || stage.log().contains(sentence));
    let id = stage.insert("noop", "{}");
    stage.wait_for_state(id, "succeeded");
}

#[test]
fn a_worker_that_exits_at_once_opens_its_breaker_and_its_last_words_are_told() {
    let stage = odd("exits");
    let id = stage.insert("exits", "{}");
    told(&stage, "no model found in /models");
    wait_until("the breaker is open", || stage.log().contains("die too often"));
    let job = stage.job(id).expect("it is there");
    assert_eq!((&*job.state, job.attempt, job.crash_count), ("available", 0, 0));
    let story = stage.json(&["job", &id.to_string(), "--json"]);
    let why = story["why_waiting"].as_str().expect("it waits");
    assert!(why.contains("no model found in /models"), "{why}");
}

#[test]
fn a_program_that_is_missing_or_not_executable_is_named() {
    let stage = Stage::dark(
        "[types.missing]\nworkload = \"x\"\nworker = \"/no/such/worker\"\n[types.plain]\n\
         workload = \"x\"\nworker = \"./plain\"",
    );
    let mut stage = stage;
    std::fs::write(stage.path("plain"), "text").expect("written");
    let rights = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(stage.path("plain"), rights).expect("it is ours");
    stage.start();
    stage.insert("missing", "{}");
    stage.insert("plain", "{}");
    told(&stage, "cannot start worker program /no/such/worker: No such file");
    told(&stage, "plain: Permission denied");
}

#[test]
fn a_worker_of_another_protocol_version_is_refused_in_a_sentence() {
    let stage = odd("version");
    stage.insert("version", "{}");
    told(&stage, "speaks protocol version 1, the worker program (odd-worker 0.1) speaks 99");
}

#[test]
fn a_worker_that_connects_and_says_nothing_is_sent_away() {
    let stage = odd("silent");
    stage.insert("silent", "{}");
    told(&stage, "did not say Hello");
}

#[test]
fn a_worker_that_sends_garbage_is_killed_and_its_job_counted() {
    for kind in ["garbage", "huge"] {
        let stage = odd(kind);
        let id = stage.insert(kind, "{}");
        let job = stage.wait_for_state(id, "failed");
        assert_eq!(job.crash_count, 2);
        assert!(job.last_error.contains("it broke the protocol"), "{}", job.last_error);
        told(&stage, "starting worker");
    }
}

#[test]
fn outcomes_of_jobs_that_a_worker_does_not_hold_change_nothing() {
    let stage = odd("liar");
    let other = stage.shell("sleep 300");
    stage.wait_for_state(other, "running");
    let own = stage.insert("liar", "{}");
    let own = stage.wait_for_state(own, "succeeded");
    assert_eq!(own.result.as_deref(), Some("\"a lie\""));
    told(&stage, "came too late");
    assert_eq!(stage.job(other).expect("it is there").state, "running");
}

#[test]
fn a_worker_that_hangs_before_hello_is_killed_after_ten_seconds_and_its_job_waits_uncounted() {
    let stage = odd("hangs");
    let id = stage.insert("hangs", "{}");
    told(&stage, "starting worker 1");
    let worker = || stage.json(&["workers", "--json"])[0]["state"].clone();
    wait_until("it starts", || worker() == "starting");
    told(&stage, "it did not say Hello in time; its last words: loading a very large model");
    let job = stage.job(id).expect("it is there");
    assert_eq!((&*job.state, job.attempt, job.crash_count), ("available", 0, 0));
}

#[test]
fn the_control_socket_answers_no_worker_and_nothing_that_one_has_started() {
    let stage = odd("caller");
    let id = stage.insert("caller", "{}");
    wait_until("it was ready", || stage.log().contains("abilities"));
    let log = stage.log();
    let refused = "this process may ask nothing: it is a worker of this supervisor, or was";
    assert_eq!(log.matches(&format!("Refused(\\\"{refused}")).count(), 2, "{log}");
    // Neither drained it, so that other jobs are claimed; and an ordinary client is answered.
    told(&stage, "a client was refused");
    assert!(stage.json(&["status", "--json"])["instance"].is_string());
    assert!(stage.job(id).is_some());
}

#[test]
fn a_worker_that_is_not_confined_gets_no_job_of_a_type_that_requires_it() {
    let worker = built("odd-worker");
    let mut stage = Stage::dark(&format!(
        "[types.liar]\nworker = {worker:?}\nworkload = \"odd\"\nconfine = \"require\"\n\
         restart = {{ base = \"1ms\", max = \"1h\", burst = 3 }}"
    ));
    let check = stage.run(&["config", "check"]);
    if !check.status.success() {
        let why = String::from_utf8_lossy(&check.stderr).into_owned();
        return skip("a_worker_that_is_not_confined_gets_no_job", &why);
    }
    stage.start();
    let id = stage.insert("liar", "{}");
    told(&stage, "its type requires confinement, and it says that it has");
    assert_eq!(stage.job(id).expect("it is there").attempt, 0, "nothing was given to it");
}
