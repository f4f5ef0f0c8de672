//! A worker dies: its programs die with it, its job runs again, its neighbours do not notice.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shiftboss_tests::{Stage, children, has_program, skip, wait_for, wait_until};

/// Kills the worker that runs the newest attempt of a job.
fn kill_worker(stage: &Stage, job: i64) {
    let attempt = wait_for("an attempt runs", || {
        stage.attempts(job).into_iter().rfind(|attempt| attempt.outcome.is_none())
    });
    kill(Pid::from_raw(attempt.pid), Signal::SIGKILL).expect("the worker lives");
}

#[test]
fn kill_9_of_a_worker_ends_its_programs_and_another_attempt_does_the_job() {
    let stage = Stage::new("[types.command]\nworkers = { max = 2 }");
    let neighbour = stage.shell("while [ ! -e go ]; do sleep 0.05; done");
    // The first attempt leaves a daemon behind that closed everything and left the session.
    let flag = stage.file("first");
    let script = format!(
        "if [ ! -e {0} ]; then touch {0}; (setsid sh -c 'exec >/dev/null 2>&1 </dev/null; \
         sleep 300' &); sleep 300; fi",
        flag.display()
    );
    let job = stage.shell(&script);
    wait_until("the first attempt runs with its daemon", || stage.programs_of(job).len() >= 3);
    let before = stage.programs_of(job);
    kill_worker(&stage, job);
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.crash_count, done.failures), (2, 1, 0));
    let after = stage.programs_of(job);
    assert!(before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
    let attempts = stage.attempts(job);
    assert_eq!(attempts[0].outcome.as_deref(), Some("crashed"));
    assert_eq!(attempts[0].cause.as_deref(), Some("crash"));
    let neighbour = stage.job(neighbour).expect("it is there");
    assert_eq!((&*neighbour.state, neighbour.attempt), ("running", 1));
}

#[test]
fn a_job_that_kills_its_workers_is_poison_and_others_run_on() {
    let stage = Stage::new("");
    // No program reaches its worker, so the test does to each what the job would do to it.
    let starts = stage.file("starts");
    let poison = stage.shell(&format!("echo x >> {}; sleep 300", starts.display()));
    let others: Vec<i64> = (0..5).map(|_| stage.shell("true")).collect();
    for nth in 1..=3 {
        let count = || std::fs::read_to_string(&starts).map_or(0, |text| text.lines().count());
        wait_until("the program runs", || count() == nth);
        kill_worker(&stage, poison);
    }
    let job = stage.wait_for_state(poison, "failed");
    assert_eq!((job.attempt, job.crash_count, job.failures), (3, 3, 0));
    assert!(job.last_error.starts_with("poison: 3 workers died"), "{}", job.last_error);
    for id in others {
        let job = stage.wait_for_state(id, "succeeded");
        assert_eq!(job.crash_count, 0);
    }
}

#[test]
fn a_worker_that_dies_idle_is_replaced_when_it_must_be_kept() {
    let stage = Stage::new("[types.noop]\nworkers = { min = 1 }");
    let pid = || {
        let workers = stage.json(&["workers", "--json"]);
        let idle = workers.as_array()?.iter().find(|one| one["state"] == "idle")?;
        idle["pid"].as_i64()
    };
    let first = wait_for("a worker is ready", pid);
    kill(Pid::from_raw(i32::try_from(first).expect("small")), Signal::SIGKILL).expect("it lives");
    wait_for("another worker is ready", || pid().filter(|second| *second != first));
}

#[test]
fn the_culprit_among_many_held_attempts_is_found_and_no_other_is_blamed() {
    let worker = shiftboss_tests::built("crowd-worker");
    let stage = Stage::new(&format!(
        "[types.crowd]\nworkload = \"crowd\"\nworker = {worker:?}\nconcurrency = 40\n\
         workers = {{ max = 3 }}\nrestart = {{ base = \"1ms\", max = \"20ms\" }}"
    ));
    let database = stage.database();
    let sql = "INSERT INTO jobs(type, payload) SELECT 'crowd', \
               iif(value = 17, '\"die\"', '\"wait\"') FROM (WITH RECURSIVE n(value) AS \
               (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 40) SELECT value FROM n)";
    database.execute(sql, []).expect("inserted");
    let job = stage.wait_for_state(17, "failed");
    assert_eq!(job.crash_count, 3, "{}", job.last_error);
    wait_until("all others have run", || stage.count("state = 'succeeded'") == 39);
    assert_eq!(stage.count("id <> 17 AND (crash_count <> 0 OR failures <> 0)"), 0);
}

#[test]
fn one_culprit_among_ten_thousand_held_attempts_is_found_and_no_innocent_is_lost() {
    let worker = shiftboss_tests::built("crowd-worker");
    let stage = Stage::new(&format!(
        "[types.crowd]\nworkload = \"crowd\"\nworker = {worker:?}\nconcurrency = 10000\n\
         workers = {{ max = 3 }}\nrestart = {{ base = \"1ms\", max = \"20ms\" }}"
    ));
    let database = stage.database();
    let sql = "INSERT INTO jobs(type, payload) SELECT 'crowd', \
               iif(value = 1, '\"die\"', '\"wait\"') FROM (WITH RECURSIVE n(value) AS \
               (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 10000) \
               SELECT value FROM n)";
    database.execute(sql, []).expect("inserted");
    let job = stage.wait_for_state(1, "failed");
    assert_eq!(job.crash_count, 3, "{}", job.last_error);
    wait_until("all others have run", || stage.count("state = 'succeeded'") == 9999);
    assert_eq!(stage.count("id <> 1 AND (crash_count <> 0 OR failures <> 0)"), 0);
}

#[test]
fn a_program_whose_launcher_is_stopped_is_dead_before_its_job_runs_again() {
    if !has_program("flock") {
        return skip("a_program_whose_launcher_is_stopped", "flock is not installed");
    }
    let stage = Stage::new("");
    // The lock ends with the last process that holds it. A second start ends the job.
    let script = format!(
        "cd {}; exec 9>>lock; flock -n 9 || echo twice >> overlap; [ -e flag ] && exit 0; \
         touch flag; while :; do sleep 1; done",
        stage.file("").display()
    );
    let job = stage.shell(&script);
    wait_until("the program runs", || stage.file("flag").exists());
    // A stopped launcher does not see that its worker has gone.
    for pid in stage.attempts(job).iter().flat_map(|attempt| children(attempt.pid)) {
        kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("the launcher lives");
    }
    let before = stage.programs_of(job);
    kill_worker(&stage, job);
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.crash_count, done.failures), (2, 1, 0));
    assert!(!stage.file("overlap").exists(), "{}", stage.log());
    let after = stage.programs_of(job);
    assert!(before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
}
