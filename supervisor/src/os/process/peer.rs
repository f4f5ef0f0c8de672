//! Who is at the other end of a socket: not only a number, but where its process stands.

use super::facts;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `SO_PEERPIDFD` of asm-generic/socket.h, since Linux 6.5.
const SO_PEERPIDFD: libc::c_int = 77;

/// A chain of parents is never longer in practice: a bound instead of a visited set.
const ANCESTORS_MAX: usize = 64;

/// Where a process stands among all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Itself, its parent, and so on.
    pub line: Vec<u32>,
    /// In how many pid namespaces it has a number, seen from ours: 1 when it is in ours.
    pub namespaces: usize,
    /// Its cgroup of the second version, as in `/proc/PID/cgroup`.
    pub group: Option<String>,
}

/// Where the process stands that opened this connection, whose number is `pid`. `None`: it has
/// ended, so that nothing can be said of it (whoever holds its socket now is somebody else).
#[must_use]
pub fn standing(stream: BorrowedFd<'_>, pid: u32) -> Option<Standing> {
    let held = peer_pidfd(stream);
    let before = facts::stat(pid)?;
    let mut line = vec![pid];
    let mut parent = before.parent;
    while parent > 0 && line.len() < ANCESTORS_MAX {
        line.push(parent);
        parent = facts::stat(parent).map_or(0, |stat| stat.parent);
    }
    let standing = Standing { line, namespaces: namespaces(pid)?, group: group(pid) };
    // Everything above was read by number. It is true of the peer if that still lives: then the
    // number cannot have changed hands. A kernel without SO_PEERPIDFD is asked whether the number
    // still means the process that it meant a moment ago.
    let lives = match held {
        Some(pidfd) => !facts::has_ended(pidfd.as_fd()),
        None => facts::stat(pid).is_some_and(|now| now == before),
    };
    (lives && !before.is_zombie).then_some(standing)
}

/// The cgroup of a process.
#[must_use]
pub fn group(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

fn namespaces(pid: u32) -> Option<usize> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    Some(line.split_whitespace().count())
}

fn peer_pidfd(stream: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut pidfd: libc::c_int = -1;
    let mut size = libc::socklen_t::try_from(size_of::<libc::c_int>()).ok()?;
    #[expect(unsafe_code, reason = "neither nix nor rustix has SO_PEERPIDFD")]
    // SAFETY: the kernel writes at most `size` bytes, which is the size of `pidfd`.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut pidfd).cast(),
            &raw mut size,
        )
    };
    if result != 0 || pidfd < 0 {
        return None;
    }
    #[expect(unsafe_code, reason = "the kernel hands over a new descriptor as a number")]
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::process::Command;

    /// In the place of a connection: the kernel says nothing of who is behind it, as an old one
    /// does of everybody.
    fn silent() -> File {
        File::open("/dev/null").expect("it is there")
    }

    #[test]
    fn a_peer_stands_below_its_parents_in_our_namespace() {
        let own = std::process::id();
        let standing = standing(silent().as_fd(), own).expect("we live");
        assert_eq!(standing.line[0], own);
        assert_eq!(standing.line[1], std::os::unix::process::parent_id());
        assert_eq!(standing.namespaces, 1);
        assert_eq!(standing.group, group(own));
    }

    #[test]
    fn nothing_is_said_of_a_peer_that_has_ended() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep runs");
        assert!(standing(silent().as_fd(), child.id()).is_some());
        child.kill().expect("it is ours");
        child.wait().expect("it was killed");
        assert_eq!(standing(silent().as_fd(), child.id()), None);
    }
}
