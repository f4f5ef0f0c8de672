//! What the kernel says of a process that is not ours to wait for.

use rustix::process::{Pid, PidfdFlags, Signal};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// `PIDFD_INFO_EXIT` of linux/pidfd.h, since Linux 6.15: the exit status of a process that
/// somebody has reaped.
const INFO_EXIT: u64 = 1 << 3;

/// `struct pidfd_info` of linux/pidfd.h, its first version.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    pids: [u32; 3],
    ids: [u32; 8],
    exit_code: i32,
}

/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)`.
const GET_INFO: libc::c_ulong =
    (3 << 30) | ((size_of::<PidfdInfo>() as libc::c_ulong) << 16) | (0xFF << 8) | 11;

/// A clock tick as proc(5) shows it to programs: a hundredth of a second on every Linux.
const TICK_MS: u64 = 10;

/// What `/proc/<pid>/stat` tells of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its parent.
    pub parent: u32,
    /// The session that it is in.
    pub session: u32,
    /// When it started, clock ticks since boot: with the number, this names one process.
    pub start_ticks: u64,
    /// It has ended and waits for its parent.
    pub is_zombie: bool,
}

/// What a process is now; `None` when there is none of that number.
#[must_use]
pub fn stat(pid: u32) -> Option<Stat> {
    parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The name stands in brackets and may hold anything: fields are counted from its last bracket.
fn parse(text: &[u8]) -> Option<Stat> {
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(text.get(name_end + 1..)?).ok()?.split_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    // Field 22 of proc(5); the session was field 6.
    let start_ticks = fields.nth(15)?.parse().ok()?;
    Some(Stat { parent, session, start_ticks, is_zombie })
}

/// How long a process has existed that started at `start_ticks`; time in suspend counts.
#[must_use]
pub fn age(start_ticks: u64) -> Duration {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let since_boot = uptime.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let since_boot = Duration::try_from_secs_f64(since_boot).unwrap_or_default();
    since_boot.saturating_sub(Duration::from_millis(start_ticks.saturating_mul(TICK_MS)))
}

/// What became of a process that is known by its number and start time.
#[derive(Debug)]
pub enum Seen {
    /// It runs.
    Same(OwnedFd),
    /// A process of this number runs that `/proc` does not show us: it is in another user namespace
    /// and `/proc` is mounted with `hidepid` (systemd's `ProtectProc=`), so nobody can say when it
    /// started.
    Hidden(OwnedFd),
    /// It has ended, and whoever has the number now is another one.
    Gone,
}

/// Takes hold of the process that had this number when it started at `start_ticks`.
#[must_use]
pub fn look(pid: u32, start_ticks: u64) -> Seen {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // Opened before the check: from then on the number cannot change hands unnoticed.
    let opened = number.map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK));
    let Some(Ok(pidfd)) = opened else { return Seen::Gone };
    match stat(pid) {
        Some(stat) if stat.start_ticks == start_ticks && !stat.is_zombie => Seen::Same(pidfd),
        Some(_) => Seen::Gone,
        None if has_ended(std::os::fd::AsFd::as_fd(&pidfd)) => Seen::Gone,
        None => Seen::Hidden(pidfd),
    }
}

/// As [`look`], for those who need to be sure. `None`: it has ended, or cannot be seen.
#[must_use]
pub fn hold(pid: u32, start_ticks: u64) -> Option<OwnedFd> {
    match look(pid, start_ticks) {
        Seen::Same(pidfd) => Some(pidfd),
        Seen::Hidden(_) | Seen::Gone => None,
    }
}

/// True once the process has ended.
#[must_use]
pub fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut poll = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut poll, Some(&now)), Ok(1..))
}

/// How a process ended that somebody else has reaped: `None` when the kernel does not say (it is
/// older than 6.15, or nobody has reaped it yet).
#[must_use]
pub fn exit_of(pidfd: BorrowedFd<'_>) -> Option<super::Ended> {
    let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
    #[expect(unsafe_code, reason = "neither nix nor rustix has PIDFD_GET_INFO")]
    // SAFETY: the kernel writes at most the size that is part of the request's number, which is
    // that of `info`; the descriptor is open.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &raw mut info) };
    if result != 0 || info.mask & INFO_EXIT == 0 {
        return None;
    }
    // The status has the form that wait(2) gives.
    let code = libc::WIFEXITED(info.exit_code).then(|| libc::WEXITSTATUS(info.exit_code));
    let signal = libc::WIFSIGNALED(info.exit_code).then(|| libc::WTERMSIG(info.exit_code));
    Some(super::Ended { code, signal })
}

/// SIGKILL to the leader of a session and to every process in it. True once none is left.
pub fn end_session(leader: BorrowedFd<'_>, session: u32) -> bool {
    // The only possible failure is that it has ended.
    let _ = rustix::process::pidfd_send_signal(leader, Signal::KILL);
    kill_session(session) && has_ended(leader)
}

fn kill_session(session: u32) -> bool {
    let Ok(entries) = std::fs::read_dir("/proc") else { return true };
    let mut left = false;
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Some(facts) = stat(pid).filter(|facts| facts.session == session) else { continue };
        if facts.is_zombie {
            continue;
        }
        let Some(pidfd) = hold(pid, facts.start_ticks) else { continue };
        left = true;
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
    }
    !left
}

/// Replaces this program by another one in the same process, with the same environment. Returns
/// only when that failed.
#[must_use]
pub fn replace_program(program: &std::path::Path, args: &[std::ffi::OsString]) -> io::Error {
    use std::os::unix::process::CommandExt;
    std::process::Command::new(program).args(args).exec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_name_cannot_forge_the_fields() {
        let text = b"812 (a) Z 1 (b\xff)) S 7 8 9 0 -1 4 5 6 7 8 9 1 2 3 20 0 1 0 4711 9 9";
        let stat = parse(text).expect("a status line");
        let expected = Stat { parent: 7, session: 9, start_ticks: 4711, is_zombie: false };
        assert_eq!(stat, expected);
        assert!(parse(b"812 (cut").is_none());
    }

    #[test]
    fn the_age_of_a_process_grows_from_its_start_on() {
        let start = stat(std::process::id()).expect("we run").start_ticks;
        let young = age(start);
        assert!(young < Duration::from_secs(3_600), "{young:?}");
        assert!(age(start - 100) >= young + Duration::from_secs(1));
        assert_eq!(age(u64::MAX), Duration::ZERO);
    }

    #[test]
    fn a_process_is_held_only_under_its_own_start_time() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let start = stat(child.id()).expect("it runs").start_ticks;
        assert!(hold(child.id(), start + 1).is_none());
        let pidfd = hold(child.id(), start).expect("it runs");
        assert!(!has_ended(pidfd.as_fd()));
        child.kill().expect("it is ours");
        child.wait().expect("it was killed");
        assert!(has_ended(pidfd.as_fd()));
        assert!(hold(child.id(), start).is_none());
        if let Some(ended) = exit_of(pidfd.as_fd()) {
            assert_eq!(ended, super::super::Ended { code: None, signal: Some(9) });
        }
    }
}
