//! Programs yield to everything else on the machine, also where the kernel schedules sessions
//! as groups (autogroup) and nice alone counts only between programs of one session.

use shiftboss_tests::{Stage, skip};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

const AUTOGROUP: &str = "/proc/self/autogroup";

#[test]
fn the_session_of_a_program_yields_and_no_other_does() {
    let name = "the_session_of_a_program_yields_and_no_other_does";
    let Ok(own) = std::fs::read_to_string(AUTOGROUP) else {
        return skip(name, "this kernel has no autogroup");
    };
    if !own.contains("nice") {
        return skip(name, "this process is in no autogroup");
    }
    if !std::fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0) {
        return skip(name, "without privilege the kernel takes few such wishes a second");
    }
    let stage = Stage::new("");
    let out = stage.file("autogroup");
    let job = stage.shell(&format!("cat {AUTOGROUP} > '{}'", out.display()));
    let _ = stage.wait_for_state(job, "succeeded");
    let theirs = std::fs::read_to_string(out).expect("the job has written it");
    assert!(theirs.trim_end().ends_with(" nice 10"), "{theirs}");
    let supervisor = std::fs::read_to_string(format!("/proc/{}/autogroup", stage.pid()));
    assert!(supervisor.expect("it runs").trim_end().ends_with(" nice 0"));
    assert_eq!(std::fs::read_to_string(AUTOGROUP).expect("it was there"), own);
}

/// Runs `nice` alone, which prints how much it yields.
fn own_nice() -> i32 {
    let told = Command::new("nice").output().expect("coreutils are there");
    String::from_utf8_lossy(&told.stdout).trim().parse().expect("a number")
}

#[test]
fn programs_yield_by_ten_and_never_less_than_their_supervisor() {
    for more in [0, 15] {
        let mut stage = Stage::dark("");
        stage.start_within(&["nice", "-n", &more.to_string()]);
        let out = stage.file("nice");
        let job = stage.shell(&format!("nice > '{}'", out.display()));
        let _ = stage.wait_for_state(job, "succeeded");
        let theirs = std::fs::read_to_string(out).expect("the job has written it");
        let wanted = (own_nice() + more).clamp(10, 19);
        assert_eq!(theirs.trim(), wanted.to_string(), "a supervisor at nice +{more}");
    }
}
