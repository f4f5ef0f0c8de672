//! The control group of one attempt's programs, `job-<place>` in the slot of this worker: made
//! for the attempt's first program and removed with the attempt, so that whatever the kernel
//! counts in it is the attempt's own, whichever kernel it is (only from 6.12 on can a peak be
//! reset). The supervisor limits the slot; here it is told what hit a limit.

use shiftboss_protocol::job::{Cause, Failure};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Places that attempts of this process have.
static TAKEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// How long killed processes may take to go before the group is left to the supervisor, which
/// removes it with the slot.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// Pause between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The group of an attempt. Dropping it kills what is in it and removes it.
#[derive(Debug)]
pub(crate) struct Group {
    dir: PathBuf,
    slot: PathBuf,
    /// Programs of the attempt that run now.
    programs: AtomicU32,
}

/// What the kernel had counted when a program started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    memory_kills: u64,
    pids_hits: u64,
}

/// What an attempt's programs used together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) cpu_ms: Option<u64>,
    pub(crate) memory_peak_bytes: Option<u64>,
}

impl Group {
    /// Makes the group at the first free place of a slot.
    ///
    /// # Errors
    /// The kernel refuses it, or does not keep that it is killed as a whole.
    pub(crate) fn make(slot: &Path) -> io::Result<Self> {
        let dir = take_place(slot);
        let group = Self { dir, slot: slot.to_owned(), programs: AtomicU32::new(0) };
        // What an attempt before could not remove would count as this one's.
        remove(&group.dir)?;
        fs::create_dir(&group.dir)?;
        // One killed process of a tree would leave the others to go on with half of their work.
        // Without the memory controller there is no such file, and nothing to kill for.
        let whole = group.dir.join("memory.oom.group");
        if whole.exists() {
            fs::write(&whole, "1")?;
            if fs::read_to_string(&whole)?.trim() != "1" {
                return Err(io::Error::other("the kernel does not keep memory.oom.group = 1"));
            }
        }
        Ok(group)
    }

    /// Where the launcher of a program puts itself.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A program of the attempt starts.
    pub(crate) fn enter(&self) -> Counts {
        self.programs.fetch_add(1, Ordering::SeqCst);
        self.counts()
    }

    /// ... and has ended: its launcher is gone.
    pub(crate) fn leave(&self) {
        self.programs.fetch_sub(1, Ordering::SeqCst);
    }

    fn counts(&self) -> Counts {
        let of = |dir: &Path, file, key| count(&dir.join(file), key).unwrap_or(0);
        Counts {
            memory_kills: of(&self.dir, "memory.events", "oom_kill"),
            // Until Linux 6.11 counted where the process was that could not fork, since then where
            // the limit is.
            pids_hits: of(&self.dir, "pids.events", "max") + of(&self.slot, "pids.events", "max"),
        }
    }

    /// Kills everything in the group, when only one program of the attempt runs: the launcher of
    /// that one has failed to. True when the group is empty afterwards.
    pub(crate) fn kill_last(&self) -> bool {
        self.programs.load(Ordering::SeqCst) == 1 && end(&self.dir)
    }

    /// What a program failed of that ended without success, if it hit a limit meanwhile.
    pub(crate) fn failure_since(&self, before: Counts, program: &str) -> Option<Failure> {
        let now = self.counts();
        if now.memory_kills > before.memory_kills {
            let limit = number(&self.slot.join("memory.max"));
            let peak = number(&self.dir.join("memory.peak"));
            let message = out_of_memory(program, limit, peak);
            return Some(Failure::retryable(Cause::OutOfMemory, message));
        }
        if now.pids_hits > before.pids_hits {
            let limit = number(&self.slot.join("pids.max")).unwrap_or(0);
            let message = format!(
                "{program} reached its limit of {limit} processes and threads (limits.pids) and \
                 could not start another one"
            );
            return Some(Failure::retryable(Cause::Limit, message));
        }
        None
    }

    /// What the programs of the attempt have used up to now, where the kernel says.
    pub(crate) fn used(&self) -> Used {
        Used {
            cpu_ms: count(&self.dir.join("cpu.stat"), "usage_usec").map(|us| us / 1_000),
            memory_peak_bytes: number(&self.dir.join("memory.peak")),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What stays goes with the slot.
        let _ = remove(&self.dir);
        TAKEN.lock().expect("nothing panics while it holds the places").remove(&self.dir);
    }
}

fn out_of_memory(program: &str, limit: Option<u64>, peak: Option<u64>) -> String {
    let peak = peak.map_or_else(String::new, |bytes| format!(" (peak {})", shown(bytes)));
    match limit {
        Some(limit) => format!(
            "{program} exceeded its memory limit of {}{peak} and was killed with everything that \
             it had started (limits.memory)",
            shown(limit)
        ),
        None => format!("{program} was killed because this machine ran out of memory{peak}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn shown(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS.iter().find(|(_, size)| bytes >= *size);
    unit.map_or_else(
        || format!("{bytes} bytes"),
        |(name, size)| format!("{:.1} {name}", bytes as f64 / *size as f64),
    )
}

fn take_place(slot: &Path) -> PathBuf {
    let mut taken = TAKEN.lock().expect("nothing panics while it holds the places");
    let mut places = (0_u32..).map(|place| slot.join(format!("job-{place}")));
    let free = places.find(|dir| !taken.contains(dir)).expect("attempts are fewer than numbers");
    taken.insert(free.clone());
    free
}

/// Kills what is in a group and removes it. One that does not exist is fine.
fn remove(dir: &Path) -> io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    end(dir);
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        match fs::remove_dir(dir) {
            // The last process may still be taken apart.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                if Instant::now() >= deadline {
                    return Err(error);
                }
                std::thread::sleep(LOOK_EVERY);
            }
            other => return other,
        }
    }
}

/// Kills everything in a group and waits until it is empty; false when it is not in time, or the
/// kernel cannot kill groups (before 5.14).
fn end(dir: &Path) -> bool {
    let is_populated = || count(&dir.join("cgroup.events"), "populated") == Some(1);
    if is_populated() && write_one(&dir.join("cgroup.kill")).is_err() {
        return false;
    }
    let deadline = Instant::now() + GONE_WITHIN;
    while is_populated() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}

/// Not `fs::write`: a file that the kernel does not offer must not be made.
fn write_one(path: &Path) -> io::Result<()> {
    io::Write::write_all(&mut fs::File::options().write(true).open(path)?, b"1")
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn count(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, file: &str, text: &str) {
        fs::write(dir.join(file), text).expect("the folder is ours");
    }

    fn slot() -> tempfile::TempDir {
        let slot = tempfile::tempdir().expect("a folder can be made");
        write(slot.path(), "memory.max", "67108864\n");
        write(slot.path(), "pids.max", "64\n");
        slot
    }

    #[test]
    fn attempts_get_places_of_their_own_and_give_them_back() {
        let slot = slot();
        let name = |group: &Group| group.dir().file_name().expect("it has one").to_owned();
        let first = Group::make(slot.path()).expect("made");
        let second = Group::make(slot.path()).expect("made");
        assert_eq!((name(&first), name(&second)), ("job-0".into(), "job-1".into()));
        drop(first);
        assert!(!slot.path().join("job-0").exists(), "it is removed with its attempt");
        assert_eq!(name(&Group::make(slot.path()).expect("made")), "job-0");
        drop(second);
        Group::make(Path::new("/nonexistent/slot")).expect_err("no slot");
    }

    #[test]
    fn a_program_that_ran_out_of_memory_is_told_with_limit_and_peak() {
        let slot = slot();
        let group = Group::make(slot.path()).expect("made");
        let before = group.enter();
        assert_eq!(group.failure_since(before, "ffmpeg"), None, "a bare SIGKILL is none");
        write(group.dir(), "memory.events", "max 9\noom 1\noom_kill 3\noom_group_kill 1\n");
        write(group.dir(), "memory.peak", "66060288\n");
        let failure = group.failure_since(before, "ffmpeg").expect("it was killed");
        assert_eq!(failure.cause, Cause::OutOfMemory);
        let start = "ffmpeg exceeded its memory limit of 64.0 MiB (peak 63.0 MiB) and was killed";
        assert!(failure.message.starts_with(start), "{}", failure.message);
        // The next program of the attempt is not blamed for it.
        assert_eq!(group.failure_since(group.enter(), "ffmpeg"), None);
        write(slot.path(), "memory.max", "max\n");
        let failure = group.failure_since(before, "ffmpeg").expect("it was killed");
        assert!(failure.message.contains("this machine ran out"), "{}", failure.message);
        for file in ["memory.events", "memory.peak"] {
            fs::remove_file(group.dir().join(file)).expect("ours");
        }
    }

    #[test]
    fn a_limit_of_processes_is_told_wherever_the_kernel_counts_it() {
        let slot = slot();
        let group = Group::make(slot.path()).expect("made");
        let before = group.enter();
        for (dir, hits) in [(slot.path(), "max 1\n"), (group.dir(), "max 5\n")] {
            write(dir, "pids.events", hits);
            let failure = group.failure_since(before, "make").expect("it was hit");
            assert_eq!(failure.cause, Cause::Limit);
            assert!(failure.message.contains("limit of 64 processes"), "{}", failure.message);
            fs::remove_file(dir.join("pids.events")).expect("ours");
        }
    }

    #[test]
    fn what_was_used_is_read_where_the_kernel_counts_it() {
        let slot = slot();
        let group = Group::make(slot.path()).expect("made");
        assert_eq!(group.used(), Used { cpu_ms: None, memory_peak_bytes: None });
        write(group.dir(), "cpu.stat", "usage_usec 1234567\nuser_usec 1\n");
        write(group.dir(), "memory.peak", "4096\n");
        assert_eq!(group.used(), Used { cpu_ms: Some(1234), memory_peak_bytes: Some(4096) });
        for file in ["cpu.stat", "memory.peak"] {
            fs::remove_file(group.dir().join(file)).expect("ours");
        }
    }

    #[test]
    fn a_group_is_killed_only_while_one_program_runs_in_it() {
        let slot = slot();
        let group = Group::make(slot.path()).expect("made");
        group.enter();
        group.enter();
        assert!(!group.kill_last(), "the other one is not to blame");
        group.leave();
        assert!(group.kill_last(), "nothing is populated");
        write(group.dir(), "cgroup.events", "populated 1\n");
        assert!(!group.kill_last(), "this kernel cannot kill groups");
        fs::remove_file(group.dir().join("cgroup.events")).expect("ours");
    }
}
