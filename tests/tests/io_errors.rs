//! A disk that answers with errors for a while: nothing is told as stored, outcomes are kept,
//! and all goes on when the errors end. The errors are put in by strace.

use shiftboss_tests::{Stage, Strace, wait_until};

/// Runs a job while writes or syncs of the log fail; the log must then tell of `told`.
fn survives(test: &str, inject: &str, told: &str) {
    let stage = Stage::new("[types.command]\nmax_attempts = 1");
    let (go, runs) = (stage.file("go"), stage.file("runs"));
    let (go_shown, runs_shown) = (go.display(), runs.display());
    let wait = format!("while [ ! -e {go_shown} ]; do sleep 0.02; done");
    let job = stage.shell(&format!("echo run >> {runs_shown}; {wait}"));
    wait_until("the program runs", || !stage.programs_of(job).is_empty());
    let log = std::fs::canonicalize(stage.path("jobs.db-wal")).expect("it is there");
    let log = log.display().to_string();
    let args = ["-e", "trace=pwrite64,fsync,fdatasync", "-e", inject, "-P", &log];
    let Some(strace) = Strace::attach(test, &stage, &args) else { return };
    let later = stage.shell(&format!("echo later >> {runs_shown}"));
    std::fs::write(&go, "").expect("the folder is ours");
    wait_until("the program has ended", || stage.programs_of(job).is_empty());
    wait_until("the trouble is told", || stage.trouble().contains(told));
    let refused = stage.run(&["submit", "noop"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing was stored") && said.contains(told), "{said}");
    assert_eq!(stage.job(job).expect("it is there").state, "running");
    let text = std::fs::read_to_string(&runs).expect("one ran");
    assert_eq!(text, "run\n", "the other's claim cannot be stored, so it does not start");
    let trace = strace.detach();
    assert!(trace.contains("(INJECTED)"), "no error was put in: {trace}");
    assert_eq!(stage.wait_for_state(job, "succeeded").attempt, 1);
    assert_eq!(stage.wait_for_state(later, "succeeded").attempt, 1);
    wait_until("the trouble is over", || stage.trouble().is_empty());
    assert_eq!(stage.count("TRUE"), 2, "what was refused was not stored");
    assert!(stage.run(&["db", "check"]).status.success());
}

#[test]
fn syncs_that_fail_for_a_while_lose_nothing() {
    let name = "syncs_that_fail_for_a_while_lose_nothing";
    survives(name, "inject=fsync,fdatasync:error=EIO", "disk I/O error");
}

#[test]
fn writes_that_fail_for_a_while_lose_nothing() {
    let name = "writes_that_fail_for_a_while_lose_nothing";
    survives(name, "inject=pwrite64:error=EIO", "disk I/O error");
}

#[test]
fn writes_that_find_no_room_for_a_while_lose_nothing() {
    let name = "writes_that_find_no_room_for_a_while_lose_nothing";
    survives(name, "inject=pwrite64:error=ENOSPC", "database or disk is full");
}
