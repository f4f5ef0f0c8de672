//! A worker between two supervisors: it goes on, keeps what it reached, and knows when to stop.

use crate::supervisor::{Supervisor, is_alive, outcome, owner, pid_in, skip, text, wait_until};
use shiftboss_protocol::job::{Cause, Outcome};
use shiftboss_protocol::message::{ReceiptOf, Settings, StopReason, SupervisorMessage};
use shiftboss_protocol::stored::StoredOutcome;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A script that ends when the test says so by making the file `go`.
fn until_go(supervisor: &Supervisor) -> String {
    let go = supervisor.path("go");
    supervisor.script(&format!("until [ -e {} ]; do sleep 0.01; done; echo end", go.display()))
}

fn go(supervisor: &Supervisor) {
    std::fs::write(supervisor.path("go"), "").expect("go");
}

/// Waits for the file of an outcome.
fn stored(supervisor: &Supervisor, name: &str) -> StoredOutcome {
    let path = supervisor.path("outcomes").join(name);
    wait_until("the outcome is on disk", || path.exists());
    // It got its name when it was whole: no second look is needed.
    let bytes = std::fs::read(path).expect("outcome file");
    StoredOutcome::decode(&bytes).expect("a whole outcome")
}

fn files(supervisor: &Supervisor) -> usize {
    std::fs::read_dir(supervisor.path("outcomes")).expect("outcomes").count()
}

fn with(change: impl FnOnce(&mut Settings)) -> Supervisor {
    let binary = Path::new(env!("CARGO_BIN_EXE_shiftboss-worker"));
    Supervisor::start_with(binary, "command", 2, change)
}

#[test]
fn an_outcome_reached_without_a_supervisor_is_on_disk_until_its_receipt() {
    let mut supervisor = Supervisor::start("command", 1);
    let payload = until_go(&supervisor);
    supervisor.assign(1, &payload);
    supervisor.started(1);
    supervisor.lose();
    go(&supervisor);
    let stored = stored(&supervisor, &outcome(1, 1));
    assert_eq!((stored.owner.as_str(), stored.job_type.as_str()), (owner(1).as_str(), "test"));
    supervisor.take_over(2);
    let (outcome, usage) = supervisor.finished(1);
    assert_eq!((outcome, usage), (stored.outcome, stored.usage));
    assert_eq!(supervisor.succeeded(1)["stdout_tail"], "end");
    supervisor.record(1, ReceiptOf::Outcome, false);
    wait_until("the file is deleted", || files(&supervisor) == 0);
}

#[test]
fn a_receipt_for_an_outcome_whose_file_is_gone_already_is_no_fault() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor.assign(1, r#"{"argv":["true"]}"#);
    supervisor.succeeded(1);
    supervisor.lose();
    stored(&supervisor, &outcome(1, 1));
    std::fs::remove_file(supervisor.path(&format!("outcomes/{}", outcome(1, 1)))).expect("deleted");
    supervisor.take_over(2);
    supervisor.record(1, ReceiptOf::Outcome, true);
    supervisor.assign(2, r#"{"argv":["true"]}"#);
    supervisor.succeeded(2);
}

#[test]
fn an_outcome_moves_with_its_owner_when_the_next_supervisor_is_lost_too() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor.assign(1, r#"{"argv":["true"]}"#);
    supervisor.succeeded(1);
    assert_eq!(files(&supervisor), 0, "written while there was a supervisor");
    supervisor.lose();
    stored(&supervisor, &outcome(1, 1));
    supervisor.take_over(2);
    supervisor.succeeded(1);
    supervisor.lose();
    assert_eq!(stored(&supervisor, &outcome(2, 1)).owner, owner(2));
    wait_until("the old file is gone", || files(&supervisor) == 1);
    supervisor.take_over(3);
    supervisor.succeeded(1);
    supervisor.record(1, ReceiptOf::Outcome, false);
    wait_until("the file is deleted", || files(&supervisor) == 0);
}

#[test]
fn an_orphan_stops_cleanly_after_its_grace_with_its_outcomes_on_disk() {
    let mut supervisor = with(|settings| settings.orphan_grace_ms = 500);
    let file = supervisor.path("pid");
    supervisor.assign(1, &supervisor.script(&format!("echo $$ > {}; sleep 1000", file.display())));
    supervisor.assign(2, r#"{"argv":["true"]}"#);
    supervisor.succeeded(2);
    let pid = pid_in(&file);
    let worker = supervisor.lose();
    assert_eq!(worker.wait().expect("worker").code(), Some(0));
    assert!(!is_alive(&pid));
    let released = stored(&supervisor, &outcome(1, 1)).outcome;
    assert!(matches!(released, Outcome::Released { .. }), "{released:?}");
    let succeeded = stored(&supervisor, &outcome(1, 2)).outcome;
    assert!(matches!(succeeded, Outcome::Succeeded { .. }), "{succeeded:?}");
    assert_eq!(files(&supervisor), 2);
}

#[test]
fn an_idle_orphan_leaves_after_its_grace() {
    let mut supervisor = with(|settings| settings.orphan_grace_ms = 50);
    supervisor.ready();
    assert_eq!(supervisor.lose().wait().expect("worker").code(), Some(0));
    assert_eq!(files(&supervisor), 0);
}

#[test]
fn a_timeout_holds_while_there_is_no_supervisor() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor.assign_limited(1, r#"{"argv":["sleep","1000"]}"#, 100);
    supervisor.started(1);
    supervisor.lose();
    let outcome = stored(&supervisor, &outcome(1, 1)).outcome;
    let Outcome::Failed(failure) = outcome else { panic!("not failed: {outcome:?}") };
    assert_eq!(failure.cause, Cause::Timeout);
    supervisor.take_over(2);
    assert_eq!(supervisor.failed(1), failure);
}

#[test]
fn what_the_supervisor_said_before_it_went_counts() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor.assign(1, r#"{"argv":["sleep","1000"]}"#);
    supervisor.started(1);
    supervisor.cancel(1, StopReason::Cancelled);
    supervisor.lose();
    assert_eq!(stored(&supervisor, &outcome(1, 1)).outcome, Outcome::Cancelled);
}

#[test]
fn sigterm_ends_an_orphan_with_its_outcomes_on_disk() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor.assign(1, r#"{"argv":["sleep","1000"]}"#);
    supervisor.started(1);
    supervisor.lose();
    supervisor.signal("TERM");
    assert_eq!(supervisor.worker.wait().expect("worker").code(), Some(0));
    let outcome = stored(&supervisor, &outcome(1, 1)).outcome;
    assert!(matches!(outcome, Outcome::Released { .. }), "{outcome:?}");
}

#[test]
fn an_orphan_that_was_terminated_tells_a_supervisor_that_comes_in_time() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor.assign(1, r#"{"argv":["sleep","1000"]}"#);
    supervisor.started(1);
    supervisor.lose();
    supervisor.signal("TERM");
    supervisor.take_over(2);
    assert!(matches!(supervisor.finished(1).0, Outcome::Released { .. }));
    supervisor.record(1, ReceiptOf::Outcome, false);
    assert_eq!(supervisor.exit().code(), Some(0));
    assert_eq!(files(&supervisor), 0);
}

#[test]
fn a_drained_orphan_finishes_its_jobs_and_leaves() {
    let mut supervisor = Supervisor::start("command", 1);
    let payload = until_go(&supervisor);
    supervisor.assign(1, &payload);
    supervisor.started(1);
    supervisor.say(&SupervisorMessage::Drain);
    supervisor.lose();
    go(&supervisor);
    let outcome = stored(&supervisor, &outcome(1, 1)).outcome;
    assert!(matches!(outcome, Outcome::Succeeded { .. }), "{outcome:?}");
    assert_eq!(supervisor.worker.wait().expect("worker").code(), Some(0));
}

#[test]
fn a_drained_orphan_takes_nothing_from_the_next_supervisor() {
    let mut supervisor = Supervisor::start("command", 2);
    let payload = until_go(&supervisor);
    supervisor.assign(1, &payload);
    supervisor.started(1);
    supervisor.say(&SupervisorMessage::Drain);
    supervisor.lose();
    supervisor.take_over(2);
    supervisor.assign(2, r#"{"argv":["true"]}"#);
    assert!(matches!(supervisor.finished(2).0, Outcome::Released { .. }));
    go(&supervisor);
    supervisor.succeeded(1);
    supervisor.record(1, ReceiptOf::Outcome, false);
    supervisor.record(2, ReceiptOf::Outcome, true);
    assert_eq!(supervisor.exit().code(), Some(0));
}

#[test]
fn an_outcome_that_cannot_be_written_is_kept_in_memory_and_tried_again() {
    let mut supervisor = Supervisor::start("command", 1);
    let folder = supervisor.path("outcomes");
    std::fs::remove_dir(&folder).expect("removed");
    supervisor.assign(1, r#"{"argv":["true"]}"#);
    supervisor.succeeded(1);
    supervisor.lose();
    wait_until("it says so", || supervisor.errors().contains("cannot write outcome"));
    std::fs::create_dir(&folder).expect("folder");
    stored(&supervisor, &outcome(1, 1));
    assert_eq!(supervisor.errors().matches("cannot write outcome").count(), 1);
    supervisor.take_over(2);
    supervisor.succeeded(1);
}

/// A program that runs the worker in a mount namespace of its own, where `small` is a file
/// system without a free block; `None` where this host allows no such namespace.
fn wrapper(small: &Path) -> Option<std::path::PathBuf> {
    let mount = format!(
        "mount -t tmpfs -o size=64k none {0} && ! head -c 1000000 /dev/zero 2>&- >{0}/full",
        small.display()
    );
    let unshare = |script: &str| format!("unshare --user --map-root-user --mount sh -c '{script}'");
    let try_out = std::process::Command::new("sh").args(["-c", &unshare(&mount)]).status();
    if !try_out.expect("sh").success() {
        return None;
    }
    let path = small.with_file_name("wrapper");
    let worker = env!("CARGO_BIN_EXE_shiftboss-worker");
    let run = unshare(&format!("{mount}; exec \"$@\""));
    std::fs::write(&path, format!("#!/bin/sh\nexec {run} sh {worker} \"$@\"\n")).expect("wrapper");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("mode");
    Some(path)
}

#[test]
fn a_full_disk_costs_no_outcome() {
    let folder = tempfile::tempdir().expect("folder");
    let small = folder.path().join("small");
    std::fs::create_dir(&small).expect("folder");
    let Some(wrapper) = wrapper(&small) else {
        return skip("a_full_disk_costs_no_outcome", "no user and mount namespaces");
    };
    let mut supervisor = Supervisor::start_with(&wrapper, "command", 1, |settings| {
        settings.outcomes_dir = text(&small);
    });
    supervisor.assign(1, r#"{"argv":["true"]}"#);
    supervisor.succeeded(1);
    supervisor.lose();
    wait_until("it says so", || supervisor.errors().contains("cannot write outcome"));
    assert!(supervisor.errors().contains("No space left"), "{}", supervisor.errors());
    // The file system as the worker sees it.
    let inside = format!("/proc/{}/root{}", supervisor.worker.id(), small.display());
    let names = || -> Vec<_> {
        std::fs::read_dir(&inside).expect("seen").flatten().map(|entry| entry.file_name()).collect()
    };
    // The name of a try is there only while it lasts.
    wait_until("no half of a file is left", || names() == ["full"]);
    std::fs::remove_file(format!("{inside}/full")).expect("room");
    wait_until("it is written", || names() == [std::ffi::OsString::from(outcome(1, 1))]);
    supervisor.take_over(2);
    supervisor.succeeded(1);
    supervisor.record(1, ReceiptOf::Outcome, false);
    wait_until("it is deleted", || names().is_empty());
}

#[test]
fn an_orphan_without_a_folder_delivers_from_memory() {
    let mut supervisor = with(|settings| {
        settings.outcomes_dir = String::new();
    });
    let payload = until_go(&supervisor);
    supervisor.assign(1, &payload);
    supervisor.started(1);
    supervisor.lose();
    go(&supervisor);
    supervisor.take_over(2);
    supervisor.succeeded(1);
    assert_eq!(files(&supervisor), 0);
}

#[test]
fn an_orphan_that_is_killed_takes_its_programs_along() {
    let mut supervisor = Supervisor::start("command", 1);
    let file = supervisor.path("pid");
    let escape = format!("(setsid sh -c 'echo $$ > {}; sleep 1000' &); sleep 1000", file.display());
    supervisor.assign(1, &supervisor.script(&escape));
    let pid = pid_in(&file);
    let launcher = supervisor.started(1).to_string();
    supervisor.lose();
    supervisor.worker.kill().expect("kill");
    wait_until("the launcher is gone", || !is_alive(&launcher));
    assert!(!is_alive(&pid), "the launcher went before its tree");
}
