//! Who waits for a job, or reads along, goes on when the supervisor is replaced or dies and comes
//! back.

use nix::sys::signal::Signal;
use shiftboss_tests::{Stage, wait_until};
use std::fs::File;
use std::process::{Child, Stdio};

/// A command that runs in the background; what it prints goes into files of its name.
fn start(stage: &Stage, name: &str, args: &[&str]) -> Child {
    let file = |end: &str| File::create(stage.path(&format!("{name}.{end}"))).expect("ours");
    let mut command = stage.shiftboss(args);
    command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
    command.spawn().expect("it can be started")
}

fn text(stage: &Stage, name: &str) -> String {
    std::fs::read_to_string(stage.path(name)).unwrap_or_default()
}

fn code(name: &str, child: &mut Child) -> Option<i32> {
    wait_until(&format!("{name} has ended"), || child.try_wait().is_ok_and(|it| it.is_some()));
    child.wait().expect("it is ours").code()
}

/// A job that says a word, waits for the file `go`, and says another.
fn slow(stage: &Stage) -> String {
    let go = stage.file("go");
    let script =
        format!("echo before; while [ ! -e {} ]; do sleep 0.02; done; echo after", go.display());
    stage.script(&script).to_string()
}

/// Everybody who waits, and a job that they wait for.
fn all_wait(stage: &Stage) -> [(&'static str, Child); 3] {
    let submit =
        start(stage, "submit", &["submit", "command", "--payload", &slow(stage), "--wait"]);
    wait_until("it runs", || !stage.programs_of(1).is_empty());
    let wait = start(stage, "wait", &["wait", "1", "--json"]);
    let logs = start(stage, "logs", &["logs", "1", "--follow"]);
    wait_until("all have seen it", || {
        text(stage, "submit.err").contains("running")
            && text(stage, "wait.out").contains("running")
            && text(stage, "logs.out").contains("before")
    });
    [("submit", submit), ("wait", wait), ("logs", logs)]
}

fn all_end_well(stage: &Stage, children: [(&'static str, Child); 3]) {
    std::fs::write(stage.file("go"), "").expect("the folder is ours");
    for (name, mut child) in children {
        let told = || format!("{name}: {} {}", text(stage, &format!("{name}.err")), stage.log());
        assert_eq!(code(name, &mut child), Some(0), "{}", told());
    }
    assert_eq!(stage.job(1).expect("it is there").attempt, 1);
    assert!(text(stage, "submit.out").contains("job 1 succeeded"), "{}", text(stage, "submit.out"));
    assert!(text(stage, "logs.out").contains("after"), "{}", text(stage, "logs.out"));
    let rows = text(stage, "wait.out");
    let states: Vec<_> = rows
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON lines"))
        .map(|row| row["state"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(states, ["running", "succeeded"], "each state once: {rows}");
}

#[test]
fn an_upgrade_disturbs_nobody_who_waits() {
    let stage = Stage::new("");
    let children = all_wait(&stage);
    for _ in 0..3 {
        assert!(stage.run(&["upgrade"]).status.success(), "{}", stage.log());
    }
    wait_until("they say so", || text(&stage, "wait.err").contains("waits for one"));
    all_end_well(&stage, children);
}

#[test]
fn kill_9_of_the_supervisor_and_a_restart_disturb_nobody_who_waits() {
    let mut stage = Stage::new("");
    let children = all_wait(&stage);
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
    for name in ["submit.err", "wait.err", "logs.err"] {
        wait_until("they say so", || text(&stage, name).contains("waits for one"));
    }
    stage.start();
    all_end_well(&stage, children);
}

#[test]
fn a_job_that_ends_while_there_is_no_supervisor_ends_the_wait_for_it_at_the_next_start() {
    let mut stage = Stage::new("");
    let children = all_wait(&stage);
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
    std::fs::write(stage.file("go"), "").expect("the folder is ours");
    stage.wait_until_written_down();
    stage.start();
    all_end_well(&stage, children);
}
