//! What this kernel offers to confine and limit programs, found out by trying.

use super::cgroup::tree::{self, Offer};
use super::cgroup::{Controller, Lack};
use super::failpoint;
use crate::policy::settings::require::Piece;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getegid, geteuid};
use std::fs;

/// One rung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rung {
    /// What it is.
    pub piece: Piece,
    /// Its name for people.
    pub name: &'static str,
    /// Whether this host and user have it.
    pub offered: bool,
    /// What was found.
    pub found: String,
    /// What would bring it, when it is missing.
    pub remedy: &'static str,
}

/// Why nothing can be done about a kernel.
const REMEDY_NAMESPACE: &str = "in a container its seccomp profile must allow unshare and mount \
                                (docker: --security-opt seccomp=..., podman: --security-opt \
                                unmask=ALL), in a unit RestrictNamespaces= must be unset";
const REMEDY_USER_NAMESPACE: &str = "sysctl user.max_user_namespaces above 0; where there is one, \
                                     kernel.unprivileged_userns_clone=1 (Debian) or \
                                     kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); in \
                                     a container a seccomp profile that allows unshare and mount";
/// All rungs: limits, then the ways to kill a tree, then walls, each the strongest first. Must be
/// called while the process has one thread: it forks.
#[must_use]
pub fn probe() -> Vec<Rung> {
    let controllers = [
        (Piece::Memory, "memory limits (cgroup v2)", Controller::Memory),
        (Piece::Cpu, "CPU limits (cgroup v2)", Controller::Cpu),
        (Piece::Pids, "limits of processes (cgroup v2)", Controller::Pids),
        (Piece::Io, "limits of reading and writing (cgroup v2)", Controller::Io),
    ];
    let offer = groups();
    let mut rungs: Vec<Rung> = controllers.map(|one| controller(&offer, one)).into();
    rungs.extend([pid_max(), process_limit(), group_kill(&offer)]);
    rungs.extend(namespaces());
    rungs.extend(landlock());
    rungs.push(seccomp());
    for rung in &mut rungs {
        if failpoint::is_lacking(rung.piece.word()) {
            rung.offered = false;
            "a test wants that".clone_into(&mut rung.found);
        }
    }
    rungs
}

/// How the tree of a job is ended for certain on a host with these rungs: the best of four ways.
#[must_use]
pub fn killing(rungs: &[Rung]) -> &'static str {
    let has = |piece| rungs.iter().any(|rung| rung.piece == piece && rung.offered);
    if has(Piece::GroupKill) {
        "by its cgroup (cgroup.kill)"
    } else if has(Piece::PidNs) {
        "by its pid namespace: all of it ends with the first process"
    } else {
        "by its launcher and its session: a process that leaves both and clears its environment \
         is found only while its worker's supervisor lives"
    }
}

/// What control groups offer here. The name is that of a group that nobody makes.
fn groups() -> Offer {
    tree::offer(&tree::find("shiftboss-doctor"))
}

fn group_kill(offer: &Offer) -> Rung {
    rung(
        Piece::GroupKill,
        "kill, freeze and watch a tree by its cgroup",
        offer,
        offer.kill.as_ref(),
    )
}

fn controller(offer: &Offer, (piece, name, controller): (Piece, &'static str, Controller)) -> Rung {
    rung(piece, name, offer, offer.lack_of(controller))
}

fn rung(piece: Piece, name: &'static str, offer: &Offer, lack: Option<&Lack>) -> Rung {
    let base = || offer.base.as_ref().map_or_else(String::new, |base| base.display().to_string());
    Rung {
        piece,
        name,
        offered: lack.is_none(),
        found: lack.map_or_else(base, |lack| lack.why.clone()),
        remedy: lack.map_or("none is needed", |lack| lack.remedy),
    }
}

fn namespaces() -> Vec<Rung> {
    let whole = [
        (Piece::MountNs, "mount namespaces", CloneFlags::CLONE_NEWNS),
        (Piece::PidNs, "pid namespaces", CloneFlags::CLONE_NEWPID),
        (Piece::IpcNs, "IPC namespaces", CloneFlags::CLONE_NEWIPC),
        (Piece::UtsNs, "host name namespaces", CloneFlags::CLONE_NEWUTS),
        (Piece::CgroupNs, "cgroup namespaces", CloneFlags::CLONE_NEWCGROUP),
        (Piece::NetNs, "network namespaces", CloneFlags::CLONE_NEWNET),
    ];
    let rung = |piece, name, tried: Result<(), Errno>, remedy| {
        let user = geteuid();
        let found = match tried {
            Ok(()) => format!("tried as user {user}"),
            Err(error) => format!("tried as user {user}: {error}"),
        };
        Rung { piece, name, offered: tried.is_ok(), found, remedy }
    };
    let user = in_child(own_user_namespace);
    let mut rungs = vec![rung(Piece::UserNs, "user namespaces", user, REMEDY_USER_NAMESPACE)];
    for (piece, name, flag) in whole {
        let tried = in_child(|| {
            // As the cage does it; root may still go without where that alone is refused.
            if own_user_namespace().is_err() && !geteuid().is_root() {
                return Err(Errno::EPERM);
            }
            unshare(flag)?;
            if flag == CloneFlags::CLONE_NEWNS { try_mount() } else { Ok(()) }
        });
        rungs.push(rung(piece, name, tried, REMEDY_NAMESPACE));
    }
    rungs
}

/// Enters a user namespace in which this user is itself. Some distributions let it be made, and
/// then give no capability in it: the maps cannot be written there.
fn own_user_namespace() -> Result<(), Errno> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{uid} {uid} 1"))?;
    write("gid_map", format!("{gid} {gid} 1"))
}

/// A namespace of mounts is of use only where something can be mounted in it.
fn try_mount() -> Result<(), Errno> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, none)
}

fn landlock() -> [Rung; 2] {
    const VERSION: u32 = 1;
    #[expect(unsafe_code, reason = "no safe wrapper asks for the version alone")]
    // SAFETY: with this flag the kernel takes a null pointer and size 0 and only answers.
    let abi = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION)
    };
    let found = if abi > 0 { format!("ABI {abi}") } else { "not in force here".to_owned() };
    [
        Rung {
            piece: Piece::Landlock,
            name: "Landlock for files",
            offered: abi > 0,
            found: found.clone(),
            remedy: "a kernel of 5.13 or newer that boots with lsm=landlock,...",
        },
        Rung {
            piece: Piece::LandlockTcp,
            name: "Landlock for TCP ports",
            offered: abi >= 4,
            found,
            remedy: "a kernel of 6.7 or newer that boots with lsm=landlock,...; or network = \
                     \"none\" or \"host\" for the type",
        },
    ]
}

fn seccomp() -> Rung {
    let tried = in_child(put_on_a_filter);
    Rung {
        piece: Piece::Seccomp,
        name: "seccomp filters",
        offered: tried.is_ok(),
        found: match tried {
            Ok(()) => "put on, by trial".to_owned(),
            Err(error) => format!("putting one on: {error}"),
        },
        remedy: "a kernel of 4.14 or newer with CONFIG_SECCOMP_FILTER; in a unit SystemCallFilter= \
                 must name seccomp, which no group of systemd 252 has",
    }
}

/// A filter that allows everything, by the system call by which workers and cages put on theirs:
/// what the kernel says that it has may still be forbidden by a unit or a container.
fn put_on_a_filter() -> Result<(), Errno> {
    nix::sys::prctl::set_no_new_privs()?;
    let mut allow =
        libc::sock_filter { code: libc::BPF_RET as u16, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    let filter = libc::sock_fprog { len: 1, filter: &raw mut allow };
    #[expect(unsafe_code, reason = "no safe wrapper of seccomp exists")]
    // SAFETY: the kernel copies a program of one instruction, which outlives the call.
    let done = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
    };
    Errno::result(done).map(drop)
}

fn pid_max() -> Rung {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|sign: char| !sign.is_ascii_digit());
    let mut number = || numbers.next().and_then(|text| text.parse::<u32>().ok());
    // Before, the file is one for the whole host, and writing it would change the host.
    let is_own =
        matches!((number(), number()), (Some(major), Some(minor)) if (major, minor) >= (6, 14));
    Rung {
        piece: Piece::PidMax,
        name: "limit of processes by a pid namespace (kernel.pid_max)",
        offered: is_own,
        found: format!("kernel {release}"),
        remedy: "a kernel of 6.14 or newer",
    }
}

fn process_limit() -> Rung {
    let user = geteuid();
    Rung {
        piece: Piece::ProcessLimit,
        name: "limit of processes by RLIMIT_NPROC",
        offered: !user.is_root(),
        found: if user.is_root() {
            "it does not bind root".to_owned()
        } else {
            format!("it binds user {user}")
        },
        remedy: "run the supervisor as a user of its own",
    }
}

/// Runs `attempt` in a child, so that what it does to itself ends with it.
fn in_child(attempt: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    /// Exit code of a child whose error has a number that fits no exit code.
    const OTHER: i32 = 255;
    #[expect(unsafe_code, reason = "what is tried cannot be undone in this process")]
    // SAFETY: the caller has one thread, so no lock can be held by another in the child; the
    // child makes a few system calls and ends without running destructors.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            let code = attempt().map_or_else(|error| (error as i32).clamp(1, OTHER), |()| 0);
            // SAFETY: ends the child at once, as it must.
            unsafe { libc::_exit(code) }
        }
        Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            Ok(WaitStatus::Exited(_, code)) => Err(Errno::from_raw(code)),
            // A filter that kills whoever tries.
            Ok(_) => Err(Errno::EPERM),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_says_what_was_found_and_what_would_help() {
        // Each test runs in a process of its own, whose other thread only waits.
        let rungs = probe();
        for rung in &rungs {
            assert!(!rung.found.is_empty(), "{rung:?}");
            assert!(!rung.remedy.is_empty(), "{rung:?}");
        }
        let mut pieces: Vec<_> = rungs.iter().map(|rung| rung.piece).collect();
        pieces.sort_unstable();
        pieces.dedup();
        assert_eq!(pieces.len(), rungs.len(), "each piece is told once");
        let process_limit = rungs.iter().find(|rung| rung.piece == Piece::ProcessLimit);
        assert_eq!(process_limit.map(|rung| rung.offered), Some(!geteuid().is_root()));
    }

    #[test]
    fn what_is_tried_in_a_child_is_told_and_ends_with_it() {
        assert_eq!(in_child(|| Ok(())), Ok(()));
        assert_eq!(in_child(|| Err(Errno::ENOSPC)), Err(Errno::ENOSPC));
        let killed = in_child(|| {
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
            Ok(())
        });
        assert_eq!(killed, Err(Errno::EPERM));
    }

    #[test]
    fn trees_are_killed_in_the_best_way_that_there_is() {
        let rung =
            |piece, offered| Rung { piece, name: "", offered, found: String::new(), remedy: "" };
        let best = |kill, pid| killing(&[rung(Piece::GroupKill, kill), rung(Piece::PidNs, pid)]);
        assert!(best(true, true).contains("cgroup.kill"));
        assert!(best(false, true).contains("pid namespace"));
        assert!(best(false, false).contains("session"));
    }
}
