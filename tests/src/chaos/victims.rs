//! Processes of one run, recognised by the instance's name in their environment or by their
//! parent, and signalled through a descriptor that is held before they are looked at again.

use super::journal::Journals;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Worker,
    Launcher,
    Program,
}

/// A process that is held.
#[derive(Debug)]
pub(super) struct Victim {
    pub(super) role: Role,
    pub(super) pid: i32,
    held: OwnedFd,
}

impl Victim {
    /// Sends a signal; one that has ended takes none.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.held, signal);
    }
}

/// All processes of instances whose name begins with `mark`, supervisors left out.
pub(super) fn find(mark: &str) -> Vec<Victim> {
    let roles = roles(mark);
    let hold = |(pid, role): (i32, Role)| {
        let held = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        // The number may have changed hands before it was held.
        (role_of(pid, mark, &roles) == Some(role)).then_some(Victim { role, pid, held })
    };
    roles.clone().into_iter().filter_map(hold).collect()
}

fn roles(mark: &str) -> BTreeMap<i32, Role> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids: Vec<i32> =
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let mut roles = BTreeMap::new();
    // Launchers and the keepers below them are known by their parents, so these come first.
    for _ in 0..3 {
        for pid in &pids {
            if let Some(role) = role_of(*pid, mark, &roles) {
                roles.insert(*pid, role);
            }
        }
    }
    roles
}

fn role_of(pid: i32, mark: &str, known: &BTreeMap<i32, Role>) -> Option<Role> {
    let environment = text(pid, "environ");
    let owner = environment.split('\0').find_map(|one| one.strip_prefix("SHIFTBOSS_OWNER="));
    if owner.is_some_and(|owner| owner.starts_with(mark)) {
        let is_program = environment.split('\0').any(|one| one.starts_with("SHIFTBOSS_JOB="));
        return Some(if is_program { Role::Program } else { Role::Worker });
    }
    let is_launcher = text(pid, "cmdline").starts_with("shiftboss-launcher");
    let parent = known.get(&parent(pid)?);
    let of_ours = is_launcher && matches!(parent, Some(Role::Worker | Role::Launcher));
    of_ours.then_some(Role::Launcher)
}

fn text(pid: i32, file: &str) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = text(pid, "stat");
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

/// Kills the workers whose programs wish it.
pub(super) fn grant(mark: &str, journals: &Journals) {
    let wishes = journals.wishes();
    if wishes.is_empty() {
        return;
    }
    let victims = find(mark);
    for (file, job, attempt) in wishes {
        let words = [format!("SHIFTBOSS_JOB={job}"), format!("SHIFTBOSS_ATTEMPT={attempt}")];
        let wants = |one: &&Victim| {
            let environment = text(one.pid, "environ");
            let has = |word: &String| environment.split('\0').any(|one| one == word);
            one.role == Role::Program && words.iter().all(has)
        };
        // Above the program are the keeper of its cage, the launcher, and the worker.
        let above = victims.iter().find(wants).into_iter().flat_map(|program| {
            std::iter::successors(parent(program.pid), |pid| parent(*pid)).take(8)
        });
        for pid in above {
            if let Some(worker) =
                victims.iter().find(|one| one.pid == pid && one.role == Role::Worker)
            {
                worker.signal(Signal::KILL);
            }
        }
        let _ = std::fs::remove_file(file);
    }
}

/// What is left of a run, for the report.
pub(super) fn describe(mark: &str) -> Vec<String> {
    let shown = |one: &Victim| {
        let words = text(one.pid, "cmdline").replace('\0', " ");
        format!("{:?} {}: {words}", one.role, one.pid)
    };
    find(mark).iter().map(shown).collect()
}
