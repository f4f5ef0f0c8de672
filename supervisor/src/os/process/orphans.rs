//! Sees to it that nothing of a dead worker goes on.
//!
//! The supervisor is a child subreaper: whatever a dead worker leaves behind (launchers, and
//! what their programs forked off) becomes its child. So every child that is no known worker
//! is an orphan, is killed, and its own children come up in turn, until none is left. Only
//! unreaped children of this process are ever signalled, so no number can name a stranger.

use rustix::process::{Pid, Signal, WaitOptions};
use std::collections::BTreeSet;
use std::io;

/// Makes this process the parent of its descendants' orphans.
///
/// # Errors
/// When the kernel refuses.
pub fn adopt_orphans() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(io::Error::from)
}

/// Kills and reaps every child that is not one of `workers`. True when none is left: what the
/// dead workers started is gone. Must not run while a worker is being spawned.
pub fn sweep(workers: &BTreeSet<u32>) -> bool {
    let mut left = false;
    for child in children() {
        if workers.contains(&child) {
            continue;
        }
        let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) else { continue };
        // It is our child and has not been waited for, so the number is still its own.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        match rustix::process::waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(_) => {}
            Ok(None) => left = true,
        }
    }
    !left && children().iter().all(|child| workers.contains(child))
}

/// All children of this process, of all its threads.
fn children() -> Vec<u32> {
    let mut found = Vec::new();
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return scan() };
    for thread in threads.flatten() {
        match std::fs::read_to_string(thread.path().join("children")) {
            Ok(list) => {
                found.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()))
            }
            // A kernel without CONFIG_PROC_CHILDREN.
            Err(error) if error.kind() == io::ErrorKind::NotFound && found.is_empty() => {
                return scan();
            }
            Err(_) => {}
        }
    }
    found
}

/// The slow way: every process whose parent we are.
fn scan() -> Vec<u32> {
    let me = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| parent_of(*pid) == Some(me))
        .collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and brackets: fields are counted from its last bracket.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_find_the_same_children() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep runs");
        assert!(children().contains(&child.id()));
        assert!(scan().contains(&child.id()));
        child.kill().expect("it is ours");
        child.wait().expect("it was killed");
    }
}
