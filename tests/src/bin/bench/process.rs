//! What the kernel counts of a process, thread by thread.

use crate::machine::value;
use std::collections::BTreeMap;
use std::fs;

/// What one thread has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) name: String,
    /// Time on a core.
    pub(crate) nanos: u64,
    /// How often it went to sleep: once per wake-up.
    pub(crate) sleeps: u64,
}

/// The threads of a process by number.
pub(crate) fn threads(pid: i32) -> BTreeMap<i32, Thread> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let thread = |path: &std::path::Path| {
        let status = fs::read_to_string(path.join("status")).ok()?;
        let schedstat = fs::read_to_string(path.join("schedstat")).ok()?;
        Some(Thread {
            name: value(&status, "Name")?.to_owned(),
            nanos: schedstat.split(' ').next()?.parse().ok()?,
            sleeps: value(&status, "voluntary_ctxt_switches")?.parse().ok()?,
        })
    };
    tasks
        .flatten()
        .filter_map(|task| {
            let number = task.file_name().to_str()?.parse().ok()?;
            Some((number, thread(&task.path())?))
        })
        .collect()
}

/// Resident memory of a process, KiB: all of it, and what is no file's.
pub(crate) fn resident(pid: i32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let kib = |name: &str| {
        value(&status, name).and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0)
    };
    (kib("VmRSS"), kib("RssAnon"))
}

/// Ticks that all cores together have spent since boot: idle ones, all.
pub(crate) fn ticks() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").expect("Linux has it");
    let first = stat.lines().next().unwrap_or_default();
    // User, nice, system, idle, iowait, irq, softirq, steal; guests are in user.
    let ticks: Vec<u64> = first.split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
    let idle = ticks.iter().skip(3).take(2).sum();
    (idle, ticks.iter().sum())
}
