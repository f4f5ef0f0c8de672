//! Processes beside the supervisor: starting, finding, waiting for them.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Starts a program whose output nobody needs.
///
/// # Panics
/// When it cannot be started.
pub fn spawn_quiet(command: &mut Command) -> Child {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the program can be started")
}

/// Runs a command of ours to its end; one that does not end is killed after a minute, so that
/// the test fails and does not hang.
///
/// # Panics
/// When it cannot be started.
pub fn output_of(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the program can be started");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids are small"));
    let (ended, waits) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if waits.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let output = child.wait_with_output();
        drop(ended);
        output.expect("it can be waited for")
    })
}

/// Processes that any thread of a process has started.
///
/// # Panics
/// When the process is gone or has started none.
#[must_use]
pub fn children(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let lists = tasks.flatten().flat_map(|task| {
        std::fs::read_to_string(task.path().join("children")).into_iter().collect::<Vec<_>>()
    });
    let numbers = |text: String| text.split_whitespace().flat_map(str::parse).collect::<Vec<_>>();
    let children: Vec<i32> = lists.flat_map(numbers).collect();
    assert!(!children.is_empty(), "process {pid} has started nothing");
    children
}

/// Processes whose environment answers to a condition.
pub(crate) fn processes(condition: impl Fn(&[String]) -> bool) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let environment = |pid: i32| {
        let bytes = std::fs::read(Path::new("/proc").join(pid.to_string()).join("environ")).ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Some(text.split('\0').map(str::to_owned).collect::<Vec<_>>())
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| environment(*pid).is_some_and(|environment| condition(&environment)))
        .collect()
}
