//! Another program locks the database for seconds: everything waits, nothing is lost, and the
//! supervisor says what is wrong.

use shiftboss_tests::{Control, Stage, spawn_quiet, wait_for, wait_until};
use std::time::{Duration, Instant};

/// What is wrong, and how long the answer took.
fn trouble(control: &Control) -> (String, Duration) {
    let asked = Instant::now();
    let status = control.status();
    (status["trouble"].as_str().unwrap_or_default().to_owned(), asked.elapsed())
}

#[test]
fn a_lock_of_twelve_seconds_delays_everything_loses_nothing_and_is_told() {
    let stage = Stage::new("[types.command]\nworkers = { max = 4 }\nmax_attempts = 1");
    let (go, runs) = (stage.file("go"), stage.file("runs"));
    let script = |end: &str| {
        let (go, runs) = (go.display(), runs.display());
        format!("echo run >> {runs}; while [ ! -e {go} ]; do sleep 0.02; done; {end}")
    };
    let failed = stage.shell("exit 7");
    stage.wait_for_state(failed, "failed");
    let good = stage.shell(&script("true"));
    let bad = stage.shell(&script("exit 3"));
    let marked = stage.shell(&script("sleep 300"));
    let cancelled = stage.shell(&script("sleep 300"));
    for job in [good, bad, marked, cancelled] {
        wait_until("the program runs", || !stage.programs_of(job).is_empty());
    }
    let lock = stage.database();
    let sql = "UPDATE jobs SET cancel_requested_at = 1 WHERE id = ?1";
    lock.execute(sql, [marked]).expect("marked");
    lock.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let locked_at = Instant::now();
    std::fs::write(&go, "").expect("the folder is ours");
    for job in [good, bad] {
        wait_until("the program has ended", || stage.programs_of(job).is_empty());
    }
    let (cancel, retry) = (cancelled.to_string(), failed.to_string());
    let requests = [
        vec!["submit", "noop"],
        vec!["cancel", &cancel],
        vec!["retry", &retry],
        vec!["pause", "encode"],
    ];
    let mut waiting: Vec<_> =
        requests.iter().map(|words| spawn_quiet(&mut stage.shiftboss(words))).collect();
    let control = Control::connect(&stage);
    wait_until("the lock is told", || trouble(&control).0.contains("database is locked"));
    let mut took = Vec::new();
    wait_until("twelve seconds are over", || {
        took.push(trouble(&control).1);
        locked_at.elapsed() > Duration::from_secs(12)
    });
    let longest = took.iter().max().expect("it was asked");
    assert!(*longest < Duration::from_secs(3), "status waited for the lock: {longest:?}");
    assert_eq!(stage.job(good).expect("it is there").state, "running");
    for child in &mut waiting {
        assert!(child.try_wait().expect("it is ours").is_none(), "it waits for its answer");
    }
    lock.execute_batch("COMMIT").expect("unlocked");
    assert_eq!(stage.wait_for_state(good, "succeeded").attempt, 1);
    assert_eq!(stage.wait_for_state(bad, "failed").failures, 1);
    assert_eq!(stage.wait_for_state(marked, "cancelled").failures, 0);
    assert_eq!(stage.wait_for_state(cancelled, "cancelled").attempt, 1);
    for mut child in waiting {
        let ended = wait_for("the answer", || child.try_wait().expect("it is ours"));
        assert!(ended.success());
    }
    wait_until("the submitted job has run", || {
        stage.count("type = 'noop' AND state = 'succeeded'") == 1
    });
    wait_until("the retried job has failed again", || {
        let job = stage.job(failed).expect("it is there");
        (job.state.as_str(), job.attempt) == ("failed", 2)
    });
    let types = stage.json(&["types", "--json"]);
    let is_paused = |one: &serde_json::Value| one["type"] == "encode" && one["state"] == "paused";
    assert!(types.as_array().expect("a list").iter().any(is_paused), "{types}");
    wait_until("the trouble is over", || trouble(&control).0.is_empty());
    let text = std::fs::read_to_string(runs).expect("they wrote");
    assert_eq!(text.lines().count(), 4, "nothing ran twice");
}

#[test]
fn a_submission_to_a_database_that_stays_locked_is_refused_and_stores_nothing() {
    let stage = Stage::new("");
    let lock = stage.database();
    lock.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let asked = Instant::now();
    let refused = stage.run(&["submit", "noop"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing was stored") && said.contains("locked"), "{said}");
    assert!(asked.elapsed() < Duration::from_secs(30), "a client's patience ends there");
    lock.execute_batch("ROLLBACK").expect("unlocked");
    wait_until("the trouble is over", || stage.trouble().is_empty());
    assert_eq!(stage.count("TRUE"), 0);
}
