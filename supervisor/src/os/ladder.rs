//! What this kernel offers to confine and limit programs, found out by trying.

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getuid};
use std::fs;
use std::path::{Path, PathBuf};

/// One rung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rung {
    /// What it is.
    pub name: &'static str,
    /// Whether this host and user have it.
    pub offered: bool,
    /// What was found.
    pub found: String,
    /// What would bring it, when it is missing.
    pub remedy: &'static str,
}

/// All rungs, the strongest first. Must be called while the process has one thread: it forks.
#[must_use]
pub fn probe() -> Vec<Rung> {
    vec![
        cgroup(),
        controllers(),
        user_namespace(),
        pid_namespace(),
        landlock(),
        seccomp(),
        pressure(),
    ]
}

/// Where the second version of the cgroup hierarchy is mounted.
fn cgroup_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    })
}

/// Our own folder in it.
fn own_cgroup() -> Option<PathBuf> {
    let mount = cgroup_mount()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(mount.join(path.trim_start_matches('/')))
}

fn cgroup() -> Rung {
    let own = own_cgroup();
    let writable = own.as_deref().is_some_and(|own| {
        // A folder of a name that nobody else uses, removed at once.
        let trial = own.join(format!("shiftboss-doctor-{}", std::process::id()));
        let made = fs::create_dir(&trial).is_ok();
        made && fs::remove_dir(&trial).is_ok()
    });
    Rung {
        name: "cgroup v2, writable",
        offered: writable,
        found: own.map_or_else(|| "not mounted".to_owned(), |own| own.display().to_string()),
        remedy: "run under systemd with Delegate=yes, or as root",
    }
}

fn controllers() -> Rung {
    let file = own_cgroup().map(|own| own.join("cgroup.controllers"));
    let list = file.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
    let list = list.trim().to_owned();
    let has = |name| list.split(' ').any(|one| one == name);
    Rung {
        name: "cgroup v2 controllers memory, cpu, pids",
        offered: has("memory") && has("cpu") && has("pids"),
        found: if list.is_empty() { "none".to_owned() } else { list.clone() },
        remedy: "mount cgroup v2 alone (systemd.unified_cgroup_hierarchy=1) and delegate it",
    }
}

fn user_namespace() -> Rung {
    let offered = in_child(|| unshare(CloneFlags::CLONE_NEWUSER).is_ok());
    Rung {
        name: "user namespaces",
        offered,
        found: format!("tried as user {}", getuid()),
        remedy: "sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), \
                 user.max_user_namespaces above 0, or leave the container's seccomp profile",
    }
}

fn pid_namespace() -> Rung {
    const ALL: CloneFlags =
        CloneFlags::CLONE_NEWUSER.union(CloneFlags::CLONE_NEWPID).union(CloneFlags::CLONE_NEWNS);
    let offered = in_child(|| unshare(ALL).is_ok());
    Rung {
        name: "pid and mount namespaces",
        offered,
        found: "tried together with a user namespace".to_owned(),
        remedy: "as for user namespaces",
    }
}

fn landlock() -> Rung {
    const VERSION: u32 = 1;
    #[expect(unsafe_code, reason = "no safe wrapper asks for the version alone")]
    // SAFETY: with this flag the kernel takes a null pointer and size 0 and only answers.
    let abi = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION)
    };
    Rung {
        name: "Landlock",
        offered: abi > 0,
        found: if abi > 0 { format!("ABI {abi}") } else { "not in this kernel".to_owned() },
        remedy: "a kernel of 5.13 or newer that boots with lsm=landlock,...",
    }
}

fn seccomp() -> Rung {
    let path = "/proc/sys/kernel/seccomp/actions_avail";
    let actions = fs::read_to_string(path).unwrap_or_default();
    Rung {
        name: "seccomp filters",
        offered: actions.contains("kill_process"),
        found: actions.trim().to_owned(),
        remedy: "a kernel with CONFIG_SECCOMP_FILTER",
    }
}

fn pressure() -> Rung {
    let offered = Path::new("/proc/pressure/cpu").exists();
    Rung {
        name: "pressure stall information",
        offered,
        found: if offered { "/proc/pressure".to_owned() } else { "missing".to_owned() },
        remedy: "boot with psi=1",
    }
}

/// Runs `attempt` in a child, so that what it does to itself ends with it.
fn in_child(attempt: fn() -> bool) -> bool {
    #[expect(unsafe_code, reason = "what is tried cannot be undone in this process")]
    // SAFETY: the caller has one thread, so no lock can be held by another in the child; the
    // child makes one system call and ends without running destructors.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            let code = i32::from(!attempt());
            // SAFETY: ends the child at once, as it must.
            unsafe { libc::_exit(code) }
        }
        Ok(ForkResult::Parent { child }) => {
            matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0)))
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_says_what_was_found_and_what_would_help() {
        for rung in [cgroup(), controllers(), landlock(), seccomp(), pressure()] {
            assert!(!rung.found.is_empty(), "{rung:?}");
            assert!(!rung.remedy.is_empty(), "{rung:?}");
        }
    }
}
