//! Any group: who is in it, killing all of that at once, seeing it empty, removing it.

use super::{Error, count};
use crate::os::process::facts;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Makes a group; one that exists is fine.
///
/// # Errors
/// When the kernel refuses.
pub fn make(dir: &Path) -> Result<(), Error> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(Error::Make(dir.to_owned(), error))
        }
        _ => Ok(()),
    }
}

/// Moves a process with all its threads into a group.
///
/// # Errors
/// When the kernel refuses, or the process is gone.
pub fn join(dir: &Path, pid: u32) -> Result<(), Error> {
    super::write(dir, "cgroup.procs", &pid.to_string()).map_err(|error| match error {
        Error::Write { dir, source, .. } => Error::Join { dir, pid, source },
        other => other,
    })
}

/// True while a process lives in the group or below it. A group that cannot be read is gone.
#[must_use]
pub fn is_populated(dir: &Path) -> bool {
    count(dir, "cgroup.events", "populated").is_some_and(|populated| populated > 0)
}

/// SIGKILL to every process in the group and below it, also to what is born meanwhile.
///
/// Where the kernel has no `cgroup.kill` (before 5.14) or refuses it, the group is frozen, so that
/// nothing is born, and its processes are killed one by one: a frozen process takes that signal.
pub fn kill(dir: &Path) {
    if !is_populated(dir) || super::write(dir, "cgroup.kill", "1").is_ok() {
        return;
    }
    let _ = super::write(dir, "cgroup.freeze", "1");
    for pid in processes(dir) {
        let Some(stat) = facts::stat(pid) else { continue };
        let Some(pidfd) = facts::hold(pid, stat.start_ticks) else { continue };
        // The number may have changed hands before it was held.
        if is_in(dir, pid) {
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        }
    }
    let _ = super::write(dir, "cgroup.freeze", "0");
}

/// Processes in the group and below it, as this process sees them.
#[must_use]
pub fn processes(dir: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    for group in below(dir) {
        let list = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        // 0 stands for a process that our own pid namespace does not show.
        found
            .extend(list.lines().filter_map(|pid| pid.parse::<u32>().ok()).filter(|pid| *pid != 0));
    }
    found
}

/// Removes a group and all below it, the deepest first. One that does not exist is fine.
///
/// # Errors
/// The first refusal; `EBUSY` means that a process is still there, or was a moment ago.
pub fn remove(dir: &Path) -> io::Result<()> {
    for group in below(dir).into_iter().rev() {
        match std::fs::remove_dir(&group) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn is_in(dir: &Path, pid: u32) -> bool {
    below(dir).iter().any(|group| {
        let list = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        list.lines().any(|line| line.parse() == Ok(pid))
    })
}

/// The group and all below it, parents before their children.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut at = 0;
    while let Some(group) = found.get(at).cloned() {
        let entries = std::fs::read_dir(&group).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        found.extend(folders.map(|entry| entry.path()));
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fake, text};
    use super::*;

    #[test]
    fn an_empty_group_is_not_killed_and_a_populated_one_at_once() {
        let dir = fake(&[("cgroup.events", "populated 0\nfrozen 0\n"), ("cgroup.kill", "")]);
        kill(dir.path());
        assert_eq!(text(dir.path(), "cgroup.kill"), "");
        std::fs::write(dir.path().join("cgroup.events"), "populated 1\n").expect("ours");
        kill(dir.path());
        assert_eq!(text(dir.path(), "cgroup.kill"), "1");
        assert!(!is_populated(Path::new("/nonexistent")));
    }

    #[test]
    fn without_the_kill_file_a_frozen_sweep_ends_every_process_of_the_group() {
        let dir = fake(&[("cgroup.events", "populated 1\n"), ("cgroup.freeze", "0")]);
        let mut children = [(); 2]
            .map(|()| std::process::Command::new("sleep").arg("60").spawn().expect("sleep runs"));
        std::fs::create_dir(dir.path().join("job-0")).expect("ours");
        let list = |path: &str, pid: u32| {
            std::fs::write(dir.path().join(path), format!("{pid}\n")).expect("ours");
        };
        list("cgroup.procs", children[0].id());
        list("job-0/cgroup.procs", children[1].id());
        kill(dir.path());
        for child in &mut children {
            assert!(!child.wait().expect("ours").success());
        }
        assert_eq!(text(dir.path(), "cgroup.freeze"), "0");
    }

    #[test]
    fn a_group_is_removed_with_all_below_it() {
        let dir = fake(&[]);
        let slot = dir.path().join("encode-0");
        std::fs::create_dir_all(slot.join("job-0/deeper")).expect("ours");
        std::fs::create_dir_all(slot.join("worker")).expect("ours");
        remove(&slot).expect("nothing holds it");
        assert!(!slot.exists());
        remove(&slot).expect("what is gone is fine");
        make(&slot).expect("ours");
        make(&slot).expect("what exists is fine");
        make(&slot.join("a/b")).expect_err("its parent does not exist");
    }

    #[test]
    fn a_process_joins_by_its_number() {
        let dir = fake(&[("cgroup.procs", "")]);
        join(dir.path(), 812).expect("it can be written");
        assert_eq!(text(dir.path(), "cgroup.procs"), "812");
        let error = join(Path::new("/nonexistent"), 812).expect_err("no group");
        assert!(error.to_string().starts_with("cannot put process 812 into control group /non"));
    }
}
