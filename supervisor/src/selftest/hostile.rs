//! The hostile program: what a taken-over ffmpeg would be. It does what its plan says and reports
//! in lines of JSON on standard output.

use super::attempts::{self, Scene};
use super::kernel::{fork_off, ignore, in_child, is_open, numbers, take_memory};
use super::plan::{Phase, Plan};
use super::verdict::Outcome;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

/// What the last line of a report holds, so that a report that was cut is told from a whole one.
pub(super) const END: &str = "end";

/// Processes that a bomb starts at most, and bytes that one takes at most: its own bound, where
/// that of its job fails.
const PROCESSES_MAX: u32 = 20_000;
const MEMORY_MAX: u64 = 8 << 30;

/// A line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) attempt: String,
    pub(super) outcome: Outcome,
}

/// Reads the plan and does what it says.
///
/// # Errors
/// The plan cannot be read, or nobody reads the report.
pub(super) fn run(plan: &Path) -> io::Result<()> {
    // First, before anything here opens a file.
    let inherited: Vec<i32> = (3..1024).filter(|number| is_open(*number)).collect();
    let text = fs::read(plan).map_err(|error| {
        io::Error::other(format!("cannot read plan {}: {error}", plan.display()))
    })?;
    let plan: Plan = serde_json::from_slice(&text)?;
    let scene = Scene { plan, inherited };
    match scene.plan.phase {
        Phase::Attempts => attempt_all(&scene),
        Phase::Flood => flood(scene.plan.flood_bytes),
        Phase::Outlive => outlive(),
        Phase::Stubborn => stubborn(),
        Phase::FalseOutput => false_output(&scene.plan),
        Phase::ForkBomb => fork_bomb(),
        Phase::MemoryBomb => memory_bomb(),
        Phase::TmpfsBomb => tmpfs_bomb(),
        Phase::CacheBomb => cache_bomb(),
    }
}

/// One after another, each in a process of its own; told at once, so that the report names the
/// last one if an attempt ends us.
fn attempt_all(scene: &Scene) -> io::Result<()> {
    let mut made = 0;
    for attempt in attempts::all() {
        let outcome = in_child(|| (attempt.run)(scene));
        tell(attempt.name, outcome)?;
        made += 1;
    }
    tell(END, Outcome::Held(made.to_string()))
}

fn tell(attempt: &str, outcome: Outcome) -> io::Result<()> {
    let line = serde_json::to_string(&Line { attempt: attempt.to_owned(), outcome })?;
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Fills both streams.
fn flood(bytes: u64) -> io::Result<()> {
    let line = [&[b'x'; 1023][..], b"\n"].concat();
    for _ in 0..bytes / 1024 {
        io::stdout().write_all(&line)?;
        io::stderr().write_all(&line)?;
    }
    Ok(())
}

/// Forks twice, leaves the session, closes what ties it to its parent, and stays.
fn outlive() -> io::Result<()> {
    fork_off(|| {
        let _ = rustix::process::setsid();
        let _ = fork_off(|| {
            let _ = numbers(libc::SYS_close_range, &[0, i64::from(u32::MAX), 0]);
            stay()
        });
        0
    })?;
    tell(END, Outcome::Done("left one behind".to_owned()))
}

/// Ignores what can be ignored, in three processes of two sessions.
fn stubborn() -> io::Result<()> {
    (1..=64).for_each(ignore);
    fork_off(stay)?;
    fork_off(|| {
        let _ = rustix::process::setsid();
        stay()
    })?;
    tell(END, Outcome::Done("stays".to_owned()))?;
    stay();
    Ok(())
}

/// Ten minutes: longer than any test waits, and not for ever where the cage has a hole.
fn stay() -> i32 {
    std::thread::sleep(Duration::from_secs(600));
    0
}

/// Puts links to a secret in the place of every file that it should have made.
fn false_output(plan: &Plan) -> io::Result<()> {
    for argument in std::env::args().skip(1).filter(|word| word.starts_with('/')) {
        if Path::new(&argument).starts_with(&plan.output) {
            let _ = fs::remove_file(&argument);
            symlink(&plan.other_input, &argument)?;
        }
    }
    tell(END, Outcome::Done("linked".to_owned()))
}

fn fork_bomb() -> io::Result<()> {
    for count in 0..PROCESSES_MAX {
        if let Err(error) = fork_off(stay) {
            return tell(END, Outcome::Held(format!("no more after {count}: {error}")));
        }
    }
    tell(END, Outcome::Got(format!("{PROCESSES_MAX} processes and no end")))
}

fn memory_bomb() -> io::Result<()> {
    for taken in (0..MEMORY_MAX).step_by(16 << 20) {
        if let Err(error) = take_memory(16 << 20) {
            return tell(END, Outcome::Held(format!("no more after {} MiB: {error}", taken >> 20)));
        }
    }
    tell(END, Outcome::Got(format!("{} MiB and no end", MEMORY_MAX >> 20)))
}

/// Many files, because the size of each is limited.
fn tmpfs_bomb() -> io::Result<()> {
    let chunk = vec![1; 1 << 20];
    let mut written = 0_u64;
    for folder in ["/tmp", "/dev/shm"] {
        for number in 0..MEMORY_MAX >> 22 {
            let path = format!("{folder}/bomb-{number}");
            let filled = File::create(path)
                .and_then(|mut file| (0..4).try_for_each(|_| file.write_all(&chunk)));
            if filled.is_err() {
                break;
            }
            written += 4 << 20;
        }
    }
    if written >= MEMORY_MAX {
        return tell(END, Outcome::Got(format!("{} MiB and no end", written >> 20)));
    }
    tell(END, Outcome::Held(format!("no more after {} MiB", written >> 20)))
}

/// The cache of files is given back under pressure, so this one must live.
fn cache_bomb() -> io::Result<()> {
    let mut chunk = vec![1; 1 << 20];
    for round in 0..128 {
        let path = format!("cache-{}", round % 64);
        let mut file = File::create(&path)?;
        (0..4).try_for_each(|_| file.write_all(&chunk))?;
        file.sync_all()?;
        let mut file = File::open(&path)?;
        while file.read(&mut chunk)? > 0 {}
    }
    tell(END, Outcome::Held("512 MiB written and read".to_owned()))
}
