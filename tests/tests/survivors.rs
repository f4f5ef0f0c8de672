//! The supervisor dies or is replaced: its workers go on, the next one takes them over.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shiftboss_tests::{Stage, built, has_failpoints, wait_for, wait_until};
use std::path::Path;

/// A script that writes down each start, waits until `go` exists, and writes down its end.
fn journalled(stage: &Stage) -> String {
    let dir = stage.file("").display().to_string();
    format!(
        "cd {dir}; echo start $SHIFTBOSS_ATTEMPT >> journal; \
         while [ ! -e go ]; do sleep 0.02; done; echo end $SHIFTBOSS_ATTEMPT >> journal"
    )
}

fn journal(stage: &Stage) -> String {
    std::fs::read_to_string(stage.file("journal")).unwrap_or_default()
}

/// A job whose program runs, and its worker.
fn running(stage: &Stage) -> (i64, i32) {
    let job = stage.shell(&journalled(stage));
    wait_until("the program runs", || journal(stage).contains("start"));
    (job, stage.attempts(job)[0].pid)
}

fn go(stage: &Stage) {
    std::fs::write(stage.file("go"), "").expect("the folder is ours");
}

fn worker_of(stage: &Stage, job: i64) -> i64 {
    wait_for("the attempt is back with its worker", || {
        let workers = stage.json(&["workers", "--json"]);
        let holds = |worker: &serde_json::Value| {
            let attempts = worker["attempts"].as_array().cloned().unwrap_or_default();
            worker["state"] == "busy" && attempts.iter().any(|one| one["job"] == job)
        };
        workers.as_array()?.iter().find(|one| holds(one))?["pid"].as_i64()
    })
}

fn kill_supervisor(stage: &mut Stage) {
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
}

#[test]
fn a_program_runs_on_through_kill_9_of_three_supervisors() {
    let mut stage = Stage::new("");
    let (job, worker) = running(&stage);
    for _ in 0..3 {
        kill_supervisor(&mut stage);
        stage.start();
        assert_eq!(worker_of(&stage, job), i64::from(worker));
    }
    go(&stage);
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.failures, done.crash_count), (1, 0, 0));
    assert_eq!(journal(&stage), "start 1\nend 1\n");
    let next = stage.shell("true");
    assert_eq!(stage.wait_for_state(next, "succeeded").attempt, 1);
}

#[test]
fn an_outcome_that_was_reached_without_a_supervisor_is_stored_once_by_the_next() {
    let mut stage = Stage::new("");
    let (job, worker) = running(&stage);
    kill_supervisor(&mut stage);
    go(&stage);
    stage.wait_until_written_down();
    assert_eq!(stage.job(job).expect("it is there").state, "running");
    stage.start();
    assert_eq!(stage.wait_for_state(job, "succeeded").attempt, 1);
    wait_until("the file is gone", || stage.outcomes().is_empty());
    assert_eq!(stage.attempts(job)[0].pid, worker);
    assert_eq!(journal(&stage), "start 1\nend 1\n");
}

#[test]
fn an_outcome_counts_although_its_worker_is_dead_too() {
    let mut stage = Stage::new("");
    let (job, worker) = running(&stage);
    kill_supervisor(&mut stage);
    go(&stage);
    stage.wait_until_written_down();
    kill(Pid::from_raw(worker), Signal::SIGKILL).expect("it lives");
    stage.start();
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.failures, done.crash_count), (1, 0, 0));
    wait_until("the file is gone", || stage.outcomes().is_empty());
    assert_eq!(journal(&stage), "start 1\nend 1\n");
}

#[test]
fn a_worker_that_died_without_a_supervisor_gives_its_job_back_uncounted() {
    let mut stage = Stage::new("");
    let (job, worker) = running(&stage);
    kill_supervisor(&mut stage);
    kill(Pid::from_raw(worker), Signal::SIGKILL).expect("it lives");
    go(&stage);
    stage.start();
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.failures, done.crash_count), (2, 0, 0));
}

#[test]
fn a_worker_that_is_taken_over_and_dies_then_takes_its_program_along() {
    let mut stage = Stage::new("");
    let (job, worker) = running(&stage);
    kill_supervisor(&mut stage);
    stage.start();
    assert_eq!(worker_of(&stage, job), i64::from(worker));
    let before = stage.programs_of(job);
    assert!(!before.is_empty());
    kill(Pid::from_raw(worker), Signal::SIGKILL).expect("it lives");
    wait_until("it runs again", || journal(&stage).contains("start 2"));
    let after = stage.programs_of(job);
    assert!(before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
    go(&stage);
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.failures, done.crash_count), (2, 0, 1));
}

#[test]
fn a_cancel_that_came_without_a_supervisor_is_carried_out_by_the_next() {
    let mut stage = Stage::new("");
    let (job, _) = running(&stage);
    kill_supervisor(&mut stage);
    let sql = "UPDATE jobs SET cancel_requested_at = 1 WHERE id = ?1";
    stage.database().execute(sql, [job]).expect("the table takes it");
    stage.start();
    assert_eq!(stage.wait_for_state(job, "cancelled").attempt, 1);
    assert!(stage.programs_of(job).is_empty());
}

#[test]
fn a_worker_without_a_supervisor_ends_after_its_grace_and_the_job_runs_again() {
    let mut stage = Stage::new("[types.command]\norphan_grace = \"300ms\"");
    let (job, worker) = running(&stage);
    kill_supervisor(&mut stage);
    let proc = format!("/proc/{worker}");
    wait_until("the worker has ended", || !Path::new(&proc).exists());
    assert!(stage.programs_of(job).is_empty());
    go(&stage);
    stage.start();
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.failures, done.crash_count), (2, 0, 0));
}

#[test]
fn an_upgrade_keeps_process_workers_and_programs() {
    let stage = Stage::new("");
    let (job, worker) = running(&stage);
    let before = stage.json(&["status", "--json"]);
    let upgraded = stage.json(&["upgrade", "--json"]);
    assert_eq!(upgraded["workers"], 1, "{upgraded}");
    let after = stage.json(&["status", "--json"]);
    assert_eq!(before["pid"], after["pid"]);
    assert_ne!(before["instance"], after["instance"]);
    assert_eq!(worker_of(&stage, job), i64::from(worker));
    go(&stage);
    assert_eq!(stage.wait_for_state(job, "succeeded").attempt, 1);
    assert_eq!(journal(&stage), "start 1\nend 1\n");
}

#[test]
fn an_upgrade_that_could_not_start_again_is_refused() {
    let stage = Stage::new("");
    let file = stage.path("shiftboss.toml");
    let good = std::fs::read_to_string(&file).expect("it is there");
    let bad = stage.path("bad.toml");
    std::fs::write(&bad, &good).expect("the folder is ours");
    std::fs::write(&file, good.replace("[poll]", "[pol]")).expect("the folder is ours");
    let mut upgrade = stage.shiftboss(&["upgrade"]);
    let refused = upgrade.env("SHIFTBOSS_CONFIG", &bad).output().expect("it can be started");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("goes on"), "{text}");
    let id = stage.shell("true");
    stage.wait_for_state(id, "succeeded");
}

#[test]
fn sigusr2_hands_over_at_once() {
    let mut stage = Stage::new("");
    let (job, worker) = running(&stage);
    stage.signal(Signal::SIGUSR2);
    assert_eq!(stage.wait_for_end(), Some(0), "{}", stage.log());
    assert!(!stage.programs_of(job).is_empty());
    stage.start();
    assert_eq!(worker_of(&stage, job), i64::from(worker));
    go(&stage);
    assert_eq!(stage.wait_for_state(job, "succeeded").attempt, 1);
}

#[test]
fn records_that_are_cut_or_foreign_cost_nothing_but_an_attempt() {
    let mut stage = Stage::new("");
    let (job, _) = running(&stage);
    kill_supervisor(&mut stage);
    let records = stage.path("run/main/records");
    for entry in std::fs::read_dir(&records).expect("it is there").flatten() {
        std::fs::write(entry.path(), "{\"version\":1,").expect("the folder is ours");
    }
    std::fs::write(stage.path("jobs.db.work/outcomes/command/x.1.1.outcome"), [7; 40])
        .expect("written");
    go(&stage);
    stage.start();
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.failures, done.crash_count), (0, 0));
    assert!(stage.log().contains("not a record of ours"), "{}", stage.log());
}

#[test]
fn jobs_of_a_dead_supervisor_of_another_name_are_its_workers_until_they_end() {
    let mut stage = Stage::new("");
    let (job, worker) = running(&stage);
    kill_supervisor(&mut stage);
    let other = stage.spawn_supervisor("log2", &[("INSTANCE_ID", "second")]);
    stage.keep(other);
    let log2 = || std::fs::read_to_string(stage.path("log2")).unwrap_or_default();
    wait_until("the second has started", || log2().contains("its workers go on"));
    let other_job = stage.shell("true");
    stage.wait_for_state(other_job, "succeeded");
    assert_eq!(stage.job(job).expect("it is there").attempt, 1);
    kill(Pid::from_raw(worker), Signal::SIGKILL).expect("it lives");
    go(&stage);
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.crash_count), (2, 0));
    assert!(done.result.is_some());
}

#[test]
fn an_outcome_counts_although_the_last_owner_of_its_row_never_met_the_worker() {
    if !has_failpoints("an_outcome_counts_although_the_last_owner_of_its_row_never_met_the_worker")
    {
        return;
    }
    let mut stage = Stage::new("");
    let (job, worker) = running(&stage);
    kill_supervisor(&mut stage);
    // The second is the owner that the worker knows; the third takes the row over and dies as
    // the worker says Hello.
    stage.start();
    assert_eq!(worker_of(&stage, job), i64::from(worker));
    kill_supervisor(&mut stage);
    let order = ("SHIFTBOSS_TEST_FAILPOINT", "greeted");
    let mut third = stage.spawn_supervisor("log", &[order]);
    wait_for("the third dies", || third.try_wait().expect("it is ours"));
    go(&stage);
    stage.wait_until_written_down();
    kill(Pid::from_raw(worker), Signal::SIGKILL).expect("it lives");
    stage.start();
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.failures, done.crash_count), (1, 0, 0));
    assert_eq!(journal(&stage), "start 1\nend 1\n");
}

#[test]
fn outcomes_and_scratch_of_attempts_that_are_over_do_not_stay_while_a_supervisor_lives() {
    let stage = Stage::new("");
    let (job, worker) = running(&stage);
    let work = stage.path("jobs.db.work");
    let stale = work.join(format!("outcomes/command/main-0-0.{job}.7.outcome"));
    let cut = work.join(format!("outcomes/command/main-0-0.{job}.7.outcome.tmp"));
    for path in [&stale, &cut] {
        std::fs::write(path, "").expect("the folder is ours");
    }
    let scratch = work.join(format!("scratch/command/{job}-1"));
    assert!(scratch.exists());
    kill(Pid::from_raw(worker), Signal::SIGKILL).expect("it lives");
    wait_until("it runs again", || journal(&stage).contains("start 2"));
    wait_until("what is over is gone", || {
        [&stale, &cut, &scratch].iter().all(|path| !path.exists())
    });
    assert!(work.join(format!("scratch/command/{job}-2")).exists());
    go(&stage);
    assert_eq!(stage.wait_for_state(job, "succeeded").attempt, 2);
}

#[test]
fn a_worker_that_was_taken_over_keeps_its_jobs_from_a_supervisor_of_another_name() {
    let crowd = built("crowd-worker");
    let mut stage = Stage::dark(&format!(
        "[types.crowd]\nworkload = \"crowd\"\nworker = {crowd:?}\nconcurrency = 4"
    ));
    let name = [("INSTANCE_ID", "second")];
    let mut second = stage.spawn_supervisor("log2", &name);
    wait_until("the tables are there", || {
        stage.database().execute("UPDATE jobs SET id = id", []).is_ok()
    });
    let job = stage.insert("crowd", "\"wait\"");
    let worker = |job| stage.attempts(job)[0].pid;
    stage.wait_for_state(job, "succeeded");
    let first = worker(job);
    let mut replace = |next: bool| {
        let _ = second.kill();
        let _ = second.wait();
        if next {
            second = stage.spawn_supervisor("log2", &name);
        }
    };
    replace(true);
    // Of the second supervisor of its name, in a worker of the first; it starts no program.
    let job = stage.insert("crowd", "\"wait\"");
    stage.wait_for_state(job, "running");
    assert_eq!(worker(job), first);
    replace(false);
    stage.start();
    assert!(stage.log().contains("its workers go on"), "{}", stage.log());
    let third = stage.spawn_supervisor("log2", &name);
    stage.keep(third);
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.crash_count), (1, 0));
}

#[test]
fn workers_that_are_always_kept_are_taken_over_and_not_replaced() {
    let mut stage = Stage::new("[types.command]\nworkers = { min = 3, max = 3 }");
    let jobs: Vec<i64> = (0..3).map(|_| stage.shell("sleep 300")).collect();
    let pids = |stage: &Stage| -> Vec<i32> {
        jobs.iter().filter_map(|job| Some(stage.attempts(*job).first()?.pid)).collect()
    };
    for job in &jobs {
        wait_until("its program runs", || !stage.programs_of(*job).is_empty());
    }
    let before = pids(&stage);
    kill_supervisor(&mut stage);
    stage.start();
    for job in &jobs {
        worker_of(&stage, *job);
        assert_eq!(stage.attempts(*job).len(), 1, "{}", stage.log());
    }
    assert_eq!(pids(&stage), before);
}
