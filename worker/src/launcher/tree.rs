//! The processes below a process: found through `/proc`, signalled, killed until none is left.

use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process, pidfd_open, pidfd_send_signal,
    wait,
};
use std::fs;

/// How long a sweep waits for deaths before the next one looks for processes that were born
/// meanwhile.
const SWEEP_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// Kills and reaps every descendant of this process, which is their subreaper, until none is
/// left. `deaths` becomes readable when a child dies.
///
/// A sweep may miss a process that is born during it. Its parent is then dead or will be in the
/// next sweep, and it is this process's child itself then: the loop ends when the kernel says
/// that there is none.
pub(super) fn kill_all(deaths: &SignalFd, mut on_death: impl FnMut(Pid, WaitStatus)) {
    loop {
        // Emptied before the sweep, so that a death after it ends the wait.
        while let Ok(Some(_)) = deaths.read_signal() {}
        signal_all(Signal::KILL);
        if reap(&mut on_death) == Children::None {
            return;
        }
        let mut waiting = [PollFd::new(deaths, PollFlags::IN)];
        let _ = poll(&mut waiting, Some(&SWEEP_WAIT));
    }
}

/// Whether this process has children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Children {
    Left,
    None,
}

/// Takes the status of every child that is dead.
pub(super) fn reap(on_death: &mut impl FnMut(Pid, WaitStatus)) -> Children {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => on_death(pid, status),
            Ok(None) => return Children::Left,
            Err(Errno::INTR) => {}
            Err(_) => return Children::None,
        }
    }
}

/// Signals every descendant of this process once, parents before their children: a dead parent
/// starts nothing more.
pub(super) fn signal_all(signal: Signal) {
    for pid in descendants(rustix::process::getpid()) {
        // One that is gone already needs no signal.
        let _ = kill_process(pid, signal);
    }
}

fn descendants(of: Pid) -> Vec<Pid> {
    let mut found = children(of);
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        found.extend(children(pid));
        at += 1;
    }
    found
}

/// A process that dies while it is read has no children, or they have become ours.
fn children(of: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", of.as_raw_nonzero())) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(list) => found.extend(list.split_whitespace().filter_map(parse_pid)),
            // A kernel without CONFIG_PROC_CHILDREN.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return processes(|status| status.parent == of.as_raw_nonzero().get());
            }
            Err(_) => {}
        }
    }
    found
}

/// Kills every process of a session until none is left: what remains of a launcher that was
/// killed itself. The caller has not reaped the session's leader yet, so that its number
/// cannot mean another session.
pub(super) fn kill_session(leader: Pid) {
    let leader_raw = leader.as_raw_nonzero().get();
    loop {
        let left = processes(|status| status.session == leader_raw && !status.is_dead);
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = poll(&mut [], Some(&SWEEP_WAIT));
    }
}

/// Kills every process that was started with all of these entries in its environment, until none
/// is left. In the middle of an exec a process shows no environment: so none must be found twice.
pub(super) fn kill_marked(marks: &[Vec<u8>]) {
    let mut looked_again = false;
    loop {
        let found: Vec<Pid> =
            processes(|_| true).into_iter().filter(|pid| is_marked(*pid, marks)).collect();
        if marks.is_empty() || (found.is_empty() && looked_again) {
            return;
        }
        looked_again = found.is_empty();
        for pid in found {
            // The number may have changed hands before it was held.
            if let Ok(held) = pidfd_open(pid, PidfdFlags::empty())
                && is_marked(pid, marks)
            {
                let _ = pidfd_send_signal(&held, Signal::KILL);
            }
        }
        let _ = poll(&mut [], Some(&SWEEP_WAIT));
    }
}

/// A zombie shows no environment: it is as good as gone.
fn is_marked(pid: Pid, marks: &[Vec<u8>]) -> bool {
    let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero()));
    environment.is_ok_and(|bytes| {
        let has = |mark: &Vec<u8>| bytes.split(|byte| *byte == 0).any(|entry| entry == mark);
        marks.iter().all(has)
    })
}

struct Status {
    parent: i32,
    session: i32,
    is_dead: bool,
}

fn processes(mut is_wanted: impl FnMut(&Status) -> bool) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| parse_pid(entry.file_name().to_str()?));
    pids.filter(|pid| {
        fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero()))
            .ok()
            .and_then(|text| parse_status(&text))
            .is_some_and(|status| is_wanted(&status))
    })
    .collect()
}

/// The fields behind the program's name, which stands in brackets and may hold anything.
fn parse_status(text: &[u8]) -> Option<Status> {
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&text[name_end + 1..]).ok()?.split_whitespace();
    let is_dead = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Status { parent, session, is_dead })
}

fn parse_pid(text: &str) -> Option<Pid> {
    Pid::from_raw(text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_cannot_forge_its_status() {
        let text = b"812 (a) Z 1 (b\xff)) S 7 812 9 0 -1";
        let status = parse_status(text).expect("a status line");
        assert_eq!((status.parent, status.session, status.is_dead), (7, 9, false));
        assert!(parse_status(b"812 (cut").is_none());
    }

    #[test]
    fn a_child_is_found_below_this_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let pid = Pid::from_child(&child);
        let parent = rustix::process::getpid();
        assert!(descendants(parent).contains(&pid));
        assert!(processes(|status| status.parent == parent.as_raw_nonzero().get()).contains(&pid));
        child.kill().expect("kill");
        child.wait().expect("reap");
    }
}
