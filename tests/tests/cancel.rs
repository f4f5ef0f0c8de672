//! Jobs are stopped: on request, by their limits, because their row is gone. The tree dies first.

use shiftboss_tests::{Stage, wait_until};

const STUBBORN: &str =
    "trap '' TERM; (trap '' TERM; setsid sleep 300 &) ; while :; do sleep 1; done";

fn quick(extra: &str) -> Stage {
    Stage::new(&format!("[types.command]\ngrace = {{ term = \"200ms\" }}\n{extra}"))
}

#[test]
fn cancel_stops_a_running_job_that_ignores_sigterm() {
    let stage = quick("");
    let job = stage.shell(STUBBORN);
    wait_until("the program runs", || stage.programs_of(job).len() >= 2);
    assert!(stage.run(&["cancel", &job.to_string()]).status.success());
    let job_row = stage.wait_for_state(job, "cancelled");
    assert!(stage.programs_of(job).is_empty());
    assert_eq!((job_row.failures, job_row.crash_count), (0, 0));
}

#[test]
fn waiting_jobs_are_cancelled_at_once_and_retried_by_hand() {
    let stage = quick("");
    let out = stage.json(&["submit", "noop", "--delay", "1h", "--json"]);
    let id = out["id"].as_i64().expect("it has a number").to_string();
    assert!(stage.run(&["cancel", &id]).status.success());
    let output = stage.run(&["wait", &id]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stage.run(&["retry", &id]).status.success());
    assert_eq!(stage.run(&["wait", &id]).status.code(), Some(0));
}

#[test]
fn a_running_job_is_cancelled_by_sql_and_by_the_loss_of_its_row() {
    let stage = quick("");
    let [marked, deleted] = [stage.shell("sleep 300"), stage.shell("sleep 300")];
    for job in [marked, deleted] {
        wait_until("the program runs", || !stage.programs_of(job).is_empty());
    }
    let sql = "UPDATE jobs SET cancel_requested_at = 1 WHERE id = ?1";
    stage.database().execute(sql, [marked]).expect("marked");
    stage.wait_for_state(marked, "cancelled");
    stage.database().execute("DELETE FROM jobs WHERE id = ?1", [deleted]).expect("deleted");
    wait_until("its program is stopped", || stage.programs_of(deleted).is_empty());
    // The slot is free again, and nothing is left of the job.
    let next = stage.shell("true");
    stage.wait_for_state(next, "succeeded");
    assert!(stage.job(deleted).is_none());
}

#[test]
fn a_replaced_row_stops_the_old_program_and_the_new_row_runs() {
    let stage = quick("");
    let insert =
        "INSERT OR REPLACE INTO jobs(type, payload, unique_key) VALUES ('command', ?1, 'k')";
    let database = stage.database();
    database.execute(insert, ["{\"argv\":[\"sleep\",\"300\"]}"]).expect("inserted");
    wait_until("the program runs", || !stage.programs_of(1).is_empty());
    database.execute(insert, ["{\"argv\":[\"true\"]}"]).expect("replaced");
    stage.wait_for_state(2, "succeeded");
    wait_until("the old program is stopped", || stage.programs_of(1).is_empty());
    assert!(stage.job(1).is_none());
}

#[test]
fn a_job_that_runs_too_long_is_stopped_and_says_so() {
    let stage = quick("timeout = \"300ms\"\nmax_attempts = 1");
    let job = stage.shell(STUBBORN);
    let row = stage.wait_for_state(job, "failed");
    assert!(stage.programs_of(job).is_empty());
    assert_eq!(stage.attempts(job)[0].cause.as_deref(), Some("timeout"), "{}", row.last_error);
}

#[test]
fn a_job_without_progress_is_stopped_and_one_with_progress_is_not() {
    let stage = quick("stall_timeout = \"1s\"\nmax_attempts = 1");
    let stuck = stage.shell("sleep 300");
    let script = "for i in $(seq 1 12); do echo $((i * 8))%; sleep 0.2; done";
    let payload = serde_json::json!({
        "argv": ["sh", "-c", script], "progress": { "regex": "(?<percent>[0-9]+)%" },
    });
    let moving = stage.insert("command", &payload.to_string());
    stage.wait_for_state(stuck, "failed");
    assert_eq!(stage.attempts(stuck)[0].cause.as_deref(), Some("stalled"));
    stage.wait_for_state(moving, "succeeded");
}

#[test]
fn whoever_waits_for_a_job_that_has_not_started_learns_of_its_cancel() {
    let stage = quick("");
    assert!(stage.run(&["pause", "noop"]).status.success());
    let job = stage.insert("noop", "{}").to_string();
    let told = std::fs::File::create(stage.path("told")).expect("the folder is ours");
    let mut wait = stage.shiftboss(&["wait", &job]);
    let mut wait = wait.stderr(told).spawn().expect("it can be started");
    wait_until("it waits", || {
        std::fs::read_to_string(stage.path("told")).is_ok_and(|text| text.contains("available"))
    });
    assert!(stage.run(&["cancel", &job]).status.success());
    wait_until("it has ended", || wait.try_wait().is_ok_and(|ended| ended.is_some()));
    assert_eq!(wait.wait().expect("it is ours").code(), Some(1));
}

#[test]
fn what_was_kept_for_another_attempt_goes_when_there_will_be_none() {
    let mut stage = Stage::dark("");
    let stale = stage.path("jobs.db.work/scratch/noop/77-kept");
    std::fs::create_dir_all(stale.join("chunk-00000")).expect("the folder is ours");
    stage.start();
    wait_until("what belongs to no job is swept at the start", || !stale.exists());
    let out = stage.json(&["submit", "noop", "--delay", "1h", "--json"]);
    let id = out["id"].as_i64().expect("it has a number").to_string();
    let kept = [&id, "88"].map(|id| stage.path(&format!("jobs.db.work/scratch/noop/{id}-kept")));
    for folder in &kept {
        std::fs::create_dir_all(folder.join("chunk-00000")).expect("the folder is ours");
    }
    let done = stage.insert("noop", "{}");
    stage.wait_for_state(done, "succeeded");
    wait_until("any event makes it look", || !kept[1].exists());
    assert!(kept[0].exists(), "its job waits");
    assert!(stage.run(&["cancel", &id]).status.success());
    wait_until("a job that is cancelled while it waits leaves nothing", || !kept[0].exists());
}
