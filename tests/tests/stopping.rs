//! The supervisor stops, is hurried, is killed: running jobs finish or go back, uncounted.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shiftboss_tests::{Stage, children, has_program, skip, wait_until};

/// Workers that do not outlive their supervisor.
const NO_GRACE: &str = "[types.command]\norphan_grace = \"0s\"";

#[test]
fn sigterm_lets_a_running_job_finish() {
    let mut stage = Stage::new("");
    let go = stage.file("go");
    let job = stage.shell(&format!("while [ ! -e {} ]; do sleep 0.02; done", go.display()));
    stage.wait_for_state(job, "running");
    wait_until("the program runs", || !stage.programs_of(job).is_empty());
    stage.signal(Signal::SIGTERM);
    let late = stage.insert("noop", "{}");
    wait_until("it drains", || stage.log().contains("draining"));
    std::fs::write(&go, "").expect("the folder is ours");
    assert_eq!(stage.wait_for_end(), Some(0), "{}", stage.log());
    assert_eq!(stage.job(job).expect("it is there").state, "succeeded");
    assert_eq!(stage.job(late).expect("it is there").state, "available");
    stage.start();
    stage.wait_for_state(late, "succeeded");
}

#[test]
fn a_second_signal_takes_the_job_back_at_once_and_the_next_start_runs_it() {
    let mut stage = Stage::new("");
    let flag = stage.file("flag");
    let job = stage.shell(&format!("[ -e {0} ] || {{ touch {0}; sleep 300; }}", flag.display()));
    wait_until("the program runs", || flag.exists());
    stage.signal(Signal::SIGTERM);
    wait_until("it drains", || stage.log().contains("draining"));
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.wait_for_end(), Some(0), "{}", stage.log());
    let back = stage.job(job).expect("it is there");
    assert_eq!((&*back.state, back.failures, back.crash_count), ("available", 0, 0));
    assert!(stage.programs_of(job).is_empty());
    assert_eq!(stage.attempts(job)[0].outcome.as_deref(), Some("released"));
    stage.start();
    assert_eq!(stage.wait_for_state(job, "succeeded").attempt, 2);
}

#[test]
fn without_orphan_grace_work_stops_with_its_supervisor_and_the_next_start_does_it() {
    let mut stage = Stage::new(NO_GRACE);
    let flag = stage.file("flag");
    let job = stage.shell(&format!("[ -e {0} ] || {{ touch {0}; sleep 300; }}", flag.display()));
    wait_until("the program runs", || flag.exists());
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
    let waiting = stage.insert("noop", "{}");
    wait_until("its programs are gone", || stage.programs_of(job).is_empty());
    assert_eq!(stage.job(job).expect("it is there").state, "running");
    stage.start();
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.failures, done.crash_count), (2, 0, 0));
    stage.wait_for_state(waiting, "succeeded");
}

#[test]
fn a_second_supervisor_needs_a_name_of_its_own_and_shares_the_work() {
    let mut stage = Stage::new("");
    let same = stage.run(&["run"]);
    let text = String::from_utf8_lossy(&same.stderr).into_owned();
    assert_eq!(same.status.code(), Some(100), "{text}");
    assert!(
        text.contains("another supervisor named main") && text.contains("INSTANCE_ID"),
        "{text}"
    );
    let other = stage.spawn_supervisor("log2", &[("INSTANCE_ID", "second")]);
    stage.keep(other);
    wait_until("the second has started", || {
        std::fs::read_to_string(stage.path("log2")).is_ok_and(|log| log.contains("started"))
    });
    let database = stage.database();
    database.execute_batch("BEGIN IMMEDIATE").expect("begun");
    for _ in 0..200 {
        let payload = "{\"argv\":[\"true\"]}";
        let sql = "INSERT INTO jobs(type, payload) VALUES ('command', ?1)";
        database.execute(sql, [payload]).expect("inserted");
    }
    database.execute_batch("COMMIT").expect("committed");
    wait_until("all have run", || stage.count("state = 'succeeded'") == 200);
    assert_eq!(stage.count("attempt <> 1"), 0);
}

#[test]
fn drain_waits_for_running_jobs_and_stops() {
    let mut stage = Stage::new("");
    let go = stage.file("go");
    let job = stage.shell(&format!("while [ ! -e {} ]; do sleep 0.02; done", go.display()));
    wait_until("the program runs", || !stage.programs_of(job).is_empty());
    assert!(stage.run(&["drain"]).status.success());
    assert_eq!(stage.json(&["status", "--json"])["state"], "draining");
    std::fs::write(&go, "").expect("the folder is ours");
    assert_eq!(stage.wait_for_end(), Some(0));
    assert_eq!(stage.job(job).expect("it is there").state, "succeeded");
}

#[test]
fn a_job_that_outlasts_the_grace_goes_back_uncounted_and_the_next_start_runs_it() {
    let grace = "[types.command]\ngrace = { drain = \"300ms\", term = \"200ms\" }";
    let mut stage = Stage::new(grace);
    let flag = stage.file("flag");
    let stubborn = "trap '' TERM; (trap '' TERM; setsid sleep 300 &); while :; do sleep 1; done";
    let script = format!("[ -e {0} ] || {{ touch {0}; {stubborn}; }}", flag.display());
    let job = stage.shell(&script);
    wait_until("the program runs", || flag.exists() && stage.programs_of(job).len() >= 3);
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.wait_for_end(), Some(0), "{}", stage.log());
    let back = stage.job(job).expect("it is there");
    assert_eq!((&*back.state, back.failures, back.crash_count), ("available", 0, 0));
    assert!(stage.programs_of(job).is_empty());
    stage.start();
    assert_eq!(stage.wait_for_state(job, "succeeded").attempt, 2);
}

#[test]
fn a_supervisor_started_at_once_after_kill_9_never_runs_a_job_beside_its_old_program() {
    if !has_program("flock") {
        return skip("a_supervisor_started_at_once_after_kill_9", "flock is not installed");
    }
    let quick = "grace = { drain = \"300ms\", term = \"100ms\" }";
    let mut stage = Stage::new(&format!("{NO_GRACE}\n{quick}"));
    // The lock ends with the last process of the tree that holds it, however that one dies.
    let script = format!(
        "cd {}; exec 9>>lock; flock -n 9 || echo twice >> overlap; echo start $$ >> runs; \
         trap '' TERM; for i in $(seq 15); do sleep 0.1; done; echo end $$ >> runs",
        stage.file("").display()
    );
    let job = stage.shell(&script);
    for kills in 1..=3 {
        let starts = || std::fs::read_to_string(stage.file("runs")).unwrap_or_default();
        wait_until("an attempt has started", || starts().matches("start").count() >= kills);
        stage.signal(Signal::SIGKILL);
        stage.wait_for_end();
        stage.start();
    }
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.failures, done.crash_count), (0, 0), "{}", done.last_error);
    assert!(!stage.file("overlap").exists(), "{}", stage.log());
    let runs = std::fs::read_to_string(stage.file("runs")).expect("it wrote");
    assert_eq!(runs.matches("end").count(), 1, "{runs}");
}

#[test]
fn what_a_killed_supervisor_left_stopped_is_dead_before_the_next_one_runs_its_job_again() {
    if !has_program("flock") {
        return skip("what_a_killed_supervisor_left_stopped", "flock is not installed");
    }
    let mut stage = Stage::new("");
    let script = format!(
        "cd {}; exec 9>>lock; flock -n 9 || echo twice >> overlap; [ -e flag ] && exit 0; \
         touch flag; while :; do sleep 1; done",
        stage.file("").display()
    );
    let job = stage.shell(&script);
    wait_until("the program runs", || stage.file("flag").exists());
    // Neither worker nor launcher sees that the supervisor has gone; the program runs on.
    let worker = stage.attempts(job)[0].pid;
    let stopped: Vec<i32> = children(worker).into_iter().chain([worker]).collect();
    for pid in &stopped {
        kill(Pid::from_raw(*pid), Signal::SIGSTOP).expect("it lives");
    }
    let before = stage.programs_of(job);
    assert!(!before.is_empty());
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
    stage.start();
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.failures, done.crash_count), (0, 0), "{}", done.last_error);
    assert!(!stage.file("overlap").exists(), "{}", stage.log());
    let after = stage.programs_of(job);
    assert!(before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
}
