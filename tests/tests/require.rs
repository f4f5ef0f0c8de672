//! `confine = "require"`: refused where this host lacks what it needs, at the start and at a
//! reload; told by the doctor. What is missing is pretended, in debug builds of the supervisor.

use serde_json::Value;
use shiftboss_tests::{Stage, skip, wait_until};
use std::process::Output;

const LACK: &str = "SHIFTBOSS_TEST_LACK";

fn text(output: &Output) -> String {
    let bytes = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs a command of ours on a host that lacks `words`.
fn run_lacking(stage: &Stage, words: &str, args: &[&str]) -> Output {
    stage.shiftboss(args).env(LACK, words).output().expect("the program can be started")
}

#[test]
fn what_a_type_requires_and_the_host_lacks_is_refused_at_the_start_with_code_100() {
    let stage = Stage::dark(
        "[types.noop]\nconfine = \"require\"\nlimits.memory = \"64MiB\"\n[types.command]\n\
         enabled = false\nconfine = \"require\"",
    );
    for (lack, key, says) in [
        ("user-ns", "confine", "user namespaces (a test wants that): sysctl user.max_user_name"),
        ("memory,landlock", "confine", "Landlock for files (a test wants that): a kernel of 5.13"),
        ("memory", "limits.memory", "memory limits (cgroup v2) (a test wants that): "),
        ("net-ns", "network", "network namespaces (a test wants that): in a container"),
    ] {
        for command in [&["run"][..], &["config", "check"]] {
            let output = run_lacking(&stage, lack, command);
            let told = text(&output);
            assert_eq!(output.status.code(), Some(100), "{lack}: {told}");
            assert!(told.contains(&format!("types.noop.{key}: \"require\" needs")), "{told}");
            assert!(told.contains(says), "{told}");
            assert!(told.contains("or write confine = \"best-effort\""), "{told}");
            assert!(told.contains("shiftboss.toml:"), "the place is named: {told}");
            assert!(!told.contains("types.command"), "it is switched off: {told}");
        }
    }
}

#[test]
fn a_reload_that_requires_what_the_host_lacks_keeps_the_old_configuration() {
    let mut stage = Stage::dark("[types.noop]\npriority = 1");
    stage.start_with(&[(LACK, "mount-ns")]);
    wait_until("it says what work goes without", || {
        stage.log().contains("work of type noop runs without mount-ns")
    });
    stage.reconfigure("priority = 1", "priority = 2\nconfine = \"require\"");
    let output = stage.run(&["config", "reload"]);
    let told = text(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("the old configuration stays in force"), "{told}");
    assert!(told.contains("types.noop.confine") && told.contains("mount namespaces"), "{told}");
    let id = stage.insert("noop", "{}");
    stage.wait_for_state(id, "succeeded");
}

#[test]
fn the_doctor_tells_each_rung_what_is_missing_and_the_remedy() {
    let stage = Stage::dark("[types.noop]\nconfine = \"require\"");
    let output = run_lacking(&stage, "seccomp,cgroup", &["doctor", "--json"]);
    let findings: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let findings = findings.as_array().expect("a listing").clone();
    let rung = |word: &str| {
        let found = findings.iter().find(|one| one["word"] == word);
        found.unwrap_or_else(|| panic!("no rung {word} in {findings:?}")).clone()
    };
    for word in [
        "memory",
        "cpu",
        "pids",
        "pid-max",
        "nproc",
        "user-ns",
        "mount-ns",
        "pid-ns",
        "ipc-ns",
        "uts-ns",
        "cgroup-ns",
        "net-ns",
        "landlock",
        "landlock-tcp",
    ] {
        let rung = rung(word);
        let is_there = rung["verdict"] == "ok";
        assert_eq!(rung["remedy"].is_null(), is_there, "{rung}");
    }
    for word in ["seccomp", "cgroup"] {
        let rung = rung(word);
        assert_eq!(
            (&rung["verdict"], &rung["found"]),
            (&"note".into(), &"a test wants that".into())
        );
        assert!(rung["remedy"].is_string());
    }
    let asked = findings.iter().find(|one| one["check"] == "what types ask for");
    let asked = asked.expect("it is told whether types get what they ask for");
    assert_eq!(asked["verdict"], "problem");
    assert!(asked["found"].as_str().is_some_and(|found| found.contains("types.noop.confine")));
    assert_eq!(output.status.code(), Some(1));
    let said = text(&run_lacking(&stage, "cgroup,pid-ns", &["doctor"]));
    assert!(said.contains("trees are killed: by its launcher and its session"), "{said}");
}

#[test]
fn a_host_that_has_all_runs_what_is_required() {
    let name = "a_host_that_has_all_runs_what_is_required";
    let mut stage = Stage::dark("[types.noop]\nconfine = \"require\"");
    let output = stage.run(&["config", "check"]);
    if !output.status.success() {
        return skip(name, &format!("this host cannot confine: {}", text(&output)));
    }
    stage.start();
    let id = stage.insert("noop", "{}");
    stage.wait_for_state(id, "succeeded");
}
