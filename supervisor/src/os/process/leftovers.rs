//! Ends what a supervisor that died without a successor left running.
//!
//! Every worker has `SHIFTBOSS_OWNER=<instance>` in its environment, every program also its job
//! and attempt. Before the jobs of a dead instance are given back, each process that carries its
//! name is killed and seen gone, so that no job ever runs twice at once.

use rustix::process::{Pid, PidfdFlags, Signal};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The variable that names the instance.
pub const OWNER_VARIABLE: &str = "SHIFTBOSS_OWNER";

/// How long killed processes may take to go: a large one needs some time to free its memory.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// In the middle of an exec a process shows no environment at all: one that was missed so is
/// found by a second look after this pause.
const EXEC_TAKES: Duration = Duration::from_millis(20);

/// The environment that a process was started with.
#[derive(Debug)]
pub struct Environment(Vec<u8>);

impl Environment {
    /// The value of a variable, when it is UTF-8.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.split(|byte| *byte == 0).find_map(|entry| {
            std::str::from_utf8(entry).ok()?.strip_prefix(name)?.strip_prefix('=')
        })
    }
}

/// Processes that were started with an environment like this.
#[must_use]
pub fn find(is_wanted: &dyn Fn(u32, &Environment) -> bool) -> Vec<u32> {
    held(is_wanted).into_iter().map(|(pid, _)| pid).collect()
}

/// Kills every process that was started with an environment like this; returns those that are
/// still there after ten seconds (in an uninterruptible sleep, or another user's).
#[must_use]
pub fn end(is_wanted: &dyn Fn(u32, &Environment) -> bool) -> Vec<u32> {
    let deadline = Instant::now() + GONE_WITHIN;
    let mut looked_again = false;
    loop {
        let found = held(is_wanted);
        if (found.is_empty() && looked_again) || Instant::now() > deadline {
            return found.into_iter().map(|(pid, _)| pid).collect();
        }
        looked_again = found.is_empty();
        if looked_again {
            std::thread::sleep(EXEC_TAKES);
        }
        kill(&found);
    }
}

/// Kills what one look finds of them, and waits a moment for each: before [`end`], where some
/// must be gone before the others.
pub fn end_seen(is_wanted: &dyn Fn(u32, &Environment) -> bool) {
    kill(&held(is_wanted));
}

fn kill(found: &[(u32, OwnedFd)]) {
    for (_, pidfd) in found {
        let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    }
    for (_, pidfd) in found {
        let mut poll = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
        let limit = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
        let _ = rustix::event::poll(&mut poll, Some(&limit));
    }
}

fn held(is_wanted: &dyn Fn(u32, &Environment) -> bool) -> Vec<(u32, OwnedFd)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != std::process::id())
        .filter_map(|pid| {
            if !carries(pid, is_wanted) {
                return None;
            }
            let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
            let pidfd = rustix::process::pidfd_open(raw, PidfdFlags::empty()).ok()?;
            // Looked at again after the pidfd was opened: the number may have changed hands.
            carries(pid, is_wanted).then_some((pid, pidfd))
        })
        .collect()
}

fn carries(pid: u32, is_wanted: &dyn Fn(u32, &Environment) -> bool) -> bool {
    // A zombie shows no environment: it is as good as gone.
    let environment = std::fs::read(format!("/proc/{pid}/environ"));
    environment.is_ok_and(|bytes| is_wanted(pid, &Environment(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_a_dead_instance_are_killed_and_others_are_not() {
        let sleep = |owner: &str| {
            let mut command = std::process::Command::new("sleep");
            command.arg("60").env(OWNER_VARIABLE, owner).spawn().expect("sleep runs")
        };
        let (mut dead, mut alive) = (sleep("test-leftover-dead"), sleep("test-leftover-alive"));
        // Reaped beside the sweep, as init would do: a zombie still has a number.
        let reaper = std::thread::spawn(move || dead.wait());
        let is_wanted = |_: u32, environment: &Environment| {
            environment.get(OWNER_VARIABLE) == Some("test-leftover-dead")
        };
        assert!(end(&is_wanted).is_empty());
        let ended = reaper.join().expect("no panic").expect("it was ours");
        assert!(!ended.success());
        assert!(alive.try_wait().expect("it is ours").is_none());
        alive.kill().expect("it is ours");
        alive.wait().expect("it was killed");
    }
}
