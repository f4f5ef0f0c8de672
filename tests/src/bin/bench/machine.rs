//! Where, when and how a run was made: without that no figure means anything.

use crate::figures::say;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use std::fs;
use std::process::Command;

pub(crate) fn describe(wanted: &[String]) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = value(&cpus, "model name").unwrap_or("of an unknown model");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo");
    let kib = value(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok());
    let gib = kib.map_or(0, |kib: u64| kib >> 20);
    let kernel = read("/proc/sys/kernel/osrelease");
    say(&format!(
        "`cargo xtask bench {}`, {}: {cores} cores ({model}), {gib} GiB, Linux {}, {}, load {}",
        wanted.join(" "),
        line_of("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        kernel.trim(),
        line_of("rustc", &["--version"]),
        read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
    ));
    let folder = std::env::temp_dir();
    if statfs(&folder).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC) {
        say(&format!(
            "\nWARNING: {} is a tmpfs, so no commit waits for a disk: set TMPDIR to a folder on one",
            folder.display()
        ));
    }
    if cfg!(debug_assertions) {
        say("\nWARNING: this is no release build");
    }
}

/// The value of the first line with this name in a file of /proc.
pub(crate) fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_start().trim_start_matches(':').trim())
}

fn line_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| format!("no {program}"))
}
