//! What a dead supervisor and its workers left on disk is cut, from another boot, somebody
//! else's, or gone: it is not believed, and costs an attempt at most.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shiftboss_tests::{Stage, is_root, skip, wait_until};
use std::fs;
use std::path::{Path, PathBuf};

const RECORDS: &str = "run/main/records";
const OUTCOMES: &str = "jobs.db.work/outcomes/command";

/// Somebody else: the number of `nobody` nearly everywhere.
const NOBODY: u32 = 65_534;

fn files(stage: &Stage, folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(stage.path(folder)).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn journal(stage: &Stage) -> String {
    fs::read_to_string(stage.file("journal")).unwrap_or_default()
}

/// A job that runs on without its supervisor.
fn orphaned() -> (Stage, i64) {
    let mut stage = Stage::new("");
    let job = stage.shell(&format!(
        "cd {}; echo start $SHIFTBOSS_ATTEMPT >> journal; \
         while [ ! -e go ]; do sleep 0.02; done; echo end $SHIFTBOSS_ATTEMPT >> journal",
        stage.file("").display()
    ));
    wait_until("the program runs", || journal(&stage).contains("start"));
    // A worker's record, and a launcher's.
    wait_until("both are on record", || files(&stage, RECORDS).len() == 2);
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
    (stage, job)
}

/// The next supervisor does not believe what it finds: the old program is dead before the job
/// runs again, and nothing is counted.
fn runs_again(mut stage: Stage, job: i64) {
    let before = stage.programs_of(job);
    assert!(!before.is_empty());
    stage.start();
    wait_until("it runs again", || journal(&stage).contains("start 2"));
    let after = stage.programs_of(job);
    assert!(before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
    fs::write(stage.file("go"), "").expect("the folder is ours");
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.failures, done.crash_count), (2, 0, 0));
    assert_eq!(journal(&stage), "start 1\nstart 2\nend 2\n");
}

#[test]
fn records_of_another_boot_are_not_believed() {
    let (stage, job) = orphaned();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux has it");
    for path in files(&stage, RECORDS) {
        let text = fs::read_to_string(&path).expect("it is a record");
        assert!(text.contains(boot.trim()), "{text}");
        let text = text.replace(boot.trim(), "00000000-0000-4000-8000-000000000000");
        fs::write(&path, text).expect("the folder is ours");
    }
    runs_again(stage, job);
}

#[test]
fn a_worker_without_its_lock_file_is_not_taken_over() {
    let (stage, job) = orphaned();
    let mut locks = files(&stage, "run/main/locks");
    locks.retain(|path| path.extension().is_some_and(|end| end == "lock"));
    assert_eq!(locks.len(), 1);
    fs::remove_file(&locks[0]).expect("the folder is ours");
    runs_again(stage, job);
}

#[test]
fn lock_files_that_are_cut_are_locks_still() {
    let (mut stage, job) = orphaned();
    let mut locks = files(&stage, "run/main/locks");
    locks.retain(|path| path.extension().is_some_and(|end| end == "lock"));
    locks.push(stage.path("jobs.db.main.lock"));
    for path in locks {
        let file = fs::File::options().write(true).open(path).expect("it is there");
        file.set_len(0).expect("it is ours");
    }
    stage.start();
    fs::write(stage.file("go"), "").expect("the folder is ours");
    assert_eq!(stage.wait_for_state(job, "succeeded").attempt, 1);
    assert_eq!(stage.run(&["run"]).status.code(), Some(100), "the name is taken");
}

#[test]
fn records_of_another_user_are_not_believed() {
    if !is_root() {
        return skip("records_of_another_user_are_not_believed", "only root can give files away");
    }
    let (stage, job) = orphaned();
    for path in files(&stage, RECORDS) {
        std::os::unix::fs::chown(path, Some(NOBODY), None).expect("we are root");
    }
    runs_again(stage, job);
}

/// A job whose outcome is on disk, and whose worker is dead too.
fn written(stage: &mut Stage, job: i64) -> PathBuf {
    fs::write(stage.file("go"), "").expect("the folder is ours");
    wait_until("it is written down", || {
        files(stage, OUTCOMES).iter().any(|path| path.extension().is_some_and(|it| it == "outcome"))
    });
    let worker = stage.attempts(job)[0].pid;
    kill(Pid::from_raw(worker), Signal::SIGKILL).expect("it lives");
    wait_until("it is dead", || !Path::new(&format!("/proc/{worker}/exe")).exists());
    files(stage, OUTCOMES).remove(0)
}

fn counts_as_lost(mut stage: Stage, job: i64) {
    stage.start();
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.failures, done.crash_count), (2, 0, 0));
    assert!(stage.log().contains("cannot use the outcome"), "{}", stage.log());
}

#[test]
fn an_outcome_that_is_cut_counts_as_lost() {
    let (mut stage, job) = orphaned();
    let path = written(&mut stage, job);
    let bytes = fs::read(&path).expect("it is there");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("the folder is ours");
    counts_as_lost(stage, job);
}

#[test]
fn an_outcome_of_another_user_counts_as_lost() {
    if !is_root() {
        return skip("an_outcome_of_another_user_counts_as_lost", "only root can give files away");
    }
    let (mut stage, job) = orphaned();
    let path = written(&mut stage, job);
    std::os::unix::fs::chown(&path, Some(NOBODY), None).expect("we are root");
    counts_as_lost(stage, job);
}

#[test]
fn an_outcome_that_is_a_link_or_a_pipe_keeps_no_supervisor() {
    let (mut stage, job) = orphaned();
    let path = written(&mut stage, job);
    let elsewhere = stage.path("elsewhere");
    fs::rename(&path, &elsewhere).expect("the folder is ours");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("the folder is ours");
    counts_as_lost(stage, job);
    let (mut stage, job) = orphaned();
    let path = written(&mut stage, job);
    let elsewhere = stage.path("elsewhere");
    fs::rename(&path, &elsewhere).expect("the folder is ours");
    std::os::unix::fs::symlink(&elsewhere, &path).expect("the folder is ours");
    counts_as_lost(stage, job);
}
