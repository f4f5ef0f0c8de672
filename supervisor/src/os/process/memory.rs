//! What processes use, read from `/proc`: for limits that the kernel does not enforce.

use std::fs;

/// Size of a page, bytes: what `/proc/<pid>/statm` counts in.
const PAGE_BYTES: u64 = 4096;

/// Most descendants that are looked at.
const DESCENDANTS_MAX: usize = 100_000;

/// Memory of one process that is not shared with others, and its part of what is, bytes; its
/// whole resident set where the kernel does not let us see so much (another user's, or one that
/// made itself untraceable). 0 when it is gone.
#[must_use]
pub fn used_by(pid: u32) -> u64 {
    proportional(pid).unwrap_or_else(|| resident(pid))
}

/// The resident set of a process, bytes; 0 when it is gone. Costs some microseconds.
#[must_use]
pub fn resident(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(PAGE_BYTES)
}

/// Pages that several processes share are counted in parts, so that forks are not counted twice.
fn proportional(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// A process and all that descend from it by parentage; what has lost its parent is not found.
#[must_use]
pub fn tree_of(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied()
        && found.len() < DESCENDANTS_MAX
    {
        at += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(list.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_what_it_has_written_to() {
        let before = used_by(std::process::id());
        let filled = vec![1_u8; 64 << 20];
        let after = used_by(std::process::id());
        assert!(filled[1_000_000] == 1 && after >= before + (48 << 20), "{before} {after}");
        assert!(resident(std::process::id()) >= 64 << 20);
        assert_eq!((used_by(u32::MAX), resident(u32::MAX)), (0, 0));
    }

    #[test]
    fn children_are_found_from_their_parent() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep runs");
        assert!(tree_of(std::process::id()).contains(&child.id()));
        assert_eq!(tree_of(child.id()), [child.id()]);
        child.kill().expect("it is ours");
        child.wait().expect("it was killed");
    }
}
