//! A supervisor that cannot see what its predecessor left: the processes of another user namespace
//! behind `hidepid`, or of another pid namespace. It must not take the living for dead.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shiftboss_tests::{Stage, children, is_root, skip, wait_until};
use std::process::Command;

/// What systemd does for `PrivateUsers=yes` and `ProtectProc=invisible`: a user namespace of its own
/// for each start of the service, in which processes of another one are not in `/proc`.
const HIDING: [&str; 5] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount -t proc -o hidepid=2 proc /proc && exec setpriv --regid 1 --clear-groups \
     unshare --user --map-current-user \"$0\" \"$@\"",
];

fn can_hide(test: &str) -> bool {
    let mut trial = Command::new(HIDING[0]);
    let hides = is_root()
        && trial
            .args(&HIDING[1..])
            .arg("true")
            .output()
            .is_ok_and(|output| output.status.success());
    if !hides {
        skip(test, "/proc cannot be mounted with hidepid here (needs root and user namespaces)");
    }
    hides
}

/// Starts a supervisor that answers nobody: it cannot see who asks.
fn start_hidden(stage: &mut Stage) {
    let starts = |stage: &Stage| stage.log().matches(" started instance=").count();
    let before = starts(stage);
    stage.spawn_within(&HIDING);
    wait_until("the supervisor has started", || starts(stage) > before);
}

/// A script that writes down each start, waits until `go` exists, and writes down its end.
fn running(stage: &Stage) -> (i64, i32) {
    let dir = stage.file("").display().to_string();
    let job = stage.shell(&format!(
        "cd {dir}; echo start $SHIFTBOSS_ATTEMPT >> journal; \
         while [ ! -e go ]; do sleep 0.02; done; echo end $SHIFTBOSS_ATTEMPT >> journal"
    ));
    wait_until("the program runs", || journal(stage).contains("start"));
    (job, stage.attempts(job)[0].pid)
}

fn journal(stage: &Stage) -> String {
    std::fs::read_to_string(stage.file("journal")).unwrap_or_default()
}

fn kill_supervisor(stage: &mut Stage) {
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("it lives and is ours");
}

#[test]
fn a_worker_that_proc_does_not_show_is_taken_over() {
    if !can_hide("a_worker_that_proc_does_not_show_is_taken_over") {
        return;
    }
    let mut stage = Stage::dark("");
    start_hidden(&mut stage);
    let (job, worker) = running(&stage);
    kill_supervisor(&mut stage);
    start_hidden(&mut stage);
    wait_until("the worker is back", || stage.log().contains("worker 1 is back"));
    std::fs::write(stage.file("go"), "").expect("the folder is ours");
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.crash_count), (1, 0));
    assert_eq!(stage.attempts(job)[0].pid, worker);
    assert_eq!(journal(&stage), "start 1\nend 1\n");
}

#[test]
fn a_job_whose_launcher_proc_does_not_show_waits_for_its_end() {
    if !can_hide("a_job_whose_launcher_proc_does_not_show_waits_for_its_end") {
        return;
    }
    let mut stage = Stage::dark("");
    start_hidden(&mut stage);
    let (job, worker) = running(&stage);
    let launcher = children(worker)[0];
    // One that is stopped cannot see that its worker is gone: its program runs on.
    signal(launcher, Signal::SIGSTOP);
    kill_supervisor(&mut stage);
    signal(worker, Signal::SIGKILL);
    start_hidden(&mut stage);
    wait_until("it is said", || stage.log().contains("cannot be examined"));
    let waits = stage.job(job).expect("it is there");
    assert_eq!((waits.state.as_str(), waits.attempt), ("running", 1));
    signal(launcher, Signal::SIGCONT);
    wait_until("the next attempt runs", || journal(&stage) == "start 1\nstart 2\n");
    std::fs::write(stage.file("go"), "").expect("the folder is ours");
    stage.wait_for_state(job, "succeeded");
    assert_eq!(journal(&stage), "start 1\nstart 2\nend 2\n");
}

/// As a supervisor in another pid namespace sees it: the numbers say nothing there.
fn renumber(stage: &Stage, job: i64) {
    const NOBODY: i32 = 4_194_303;
    let entries = std::fs::read_dir(stage.path("run/main/records")).expect("it is there");
    let paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("readable");
        let mut record: serde_json::Value = serde_json::from_str(&text).expect("a record");
        record["pid"] = NOBODY.into();
        std::fs::write(&path, record.to_string()).expect("writable");
    }
    let sql = "UPDATE attempts SET pid = ?1 WHERE job_id = ?2";
    stage.database().execute(sql, [i64::from(NOBODY), job]).expect("writable");
}

#[test]
fn a_job_whose_worker_holds_its_lock_out_of_reach_waits_for_its_end() {
    if !can_hide("a_job_whose_worker_holds_its_lock_out_of_reach_waits_for_its_end") {
        return;
    }
    let mut stage = Stage::dark("");
    start_hidden(&mut stage);
    let (job, worker) = running(&stage);
    kill_supervisor(&mut stage);
    renumber(&stage, job);
    start_hidden(&mut stage);
    wait_until("it is said", || stage.log().contains("cannot be examined"));
    let waits = stage.job(job).expect("it is there");
    assert_eq!((waits.state.as_str(), waits.attempt), ("running", 1));
    let refusals = || stage.log().matches("that is no worker of ours said Hello").count();
    wait_until("its Hello is refused", || refusals() > 0);
    signal(worker, Signal::SIGKILL);
    wait_until("the next attempt runs", || journal(&stage) == "start 1\nstart 2\n");
    assert_eq!(refusals(), 1, "said once, not with every try");
    std::fs::write(stage.file("go"), "").expect("the folder is ours");
    stage.wait_for_state(job, "succeeded");
}
