//! The memory controller: how much a group may use, and whether it ran out of it.

use super::{Error, count, keep, read};
use std::path::Path;

/// Limits are kept in whole pages.
const PAGE_BYTES: u64 = 4096;

/// Limits the memory of everything in the group, and allows it no swap: a limit that spills to
/// disk makes a job slow instead of telling it.
///
/// memory.high is not used: without swap the kernel then brings programs nearly to a halt
/// instead of ending them.
///
/// # Errors
/// When the kernel does not keep what is written.
pub fn limit(dir: &Path, bytes: u64) -> Result<(), Error> {
    keep(dir, "memory.max", &(bytes / PAGE_BYTES * PAGE_BYTES).to_string())?;
    match keep(dir, "memory.swap.max", "0") {
        // A kernel that has no swap, or does not count it, has no such file.
        Err(Error::Write { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The limit of a group, bytes; `None`: it has none of its own.
#[must_use]
pub fn limit_of(dir: &Path) -> Option<u64> {
    read(dir, "memory.max").ok()?.parse().ok()
}

/// Processes of the group and of those below it that were killed for want of memory.
#[must_use]
pub fn kills(dir: &Path) -> u64 {
    count(dir, "memory.events", "oom_kill").unwrap_or(0)
}

/// The most that the group has used, bytes; `None` where the kernel does not say (before 5.19).
#[must_use]
pub fn peak(dir: &Path) -> Option<u64> {
    read(dir, "memory.peak").ok()?.parse().ok()
}

/// What the group uses now, bytes.
#[must_use]
pub fn current(dir: &Path) -> Option<u64> {
    read(dir, "memory.current").ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fake, text};
    use super::*;

    #[test]
    fn memory_is_limited_in_whole_pages_and_swap_not_at_all_allowed() {
        let dir = fake(&[("memory.max", "max\n"), ("memory.swap.max", "max\n")]);
        limit(dir.path(), (64 << 20) + 1).expect("it can be written");
        assert_eq!(text(dir.path(), "memory.max").trim_end(), "67108864");
        assert_eq!(limit_of(dir.path()), Some(64 << 20));
        assert!(text(dir.path(), "memory.swap.max").starts_with('0'));
    }

    #[test]
    fn a_kernel_without_swap_has_nothing_to_limit_and_one_without_the_controller_refuses() {
        limit(fake(&[("memory.max", "max\n")]).path(), 1 << 30).expect("swap is optional");
        limit(fake(&[("memory.swap.max", "max\n")]).path(), 1 << 30).expect_err("no controller");
    }

    #[test]
    fn kills_and_peak_are_read_and_default_to_nothing() {
        let events = "low 0\nhigh 0\nmax 812\noom 1\noom_kill 3\noom_group_kill 1\n";
        let dir = fake(&[("memory.events", events), ("memory.peak", "67108864\n")]);
        assert_eq!((kills(dir.path()), peak(dir.path())), (3, Some(64 << 20)));
        let dir = fake(&[("memory.max", "max\n")]);
        assert_eq!((kills(dir.path()), peak(dir.path()), limit_of(dir.path())), (0, None, None));
    }
}
