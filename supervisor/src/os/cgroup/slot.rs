//! The groups of one worker: `<type>-<slot>/` holds the limits and no process, `worker/` in it
//! the worker. The worker makes `job-<place>/` beside it for each attempt that starts programs.

use super::io::{self as disks, Disk};
use super::tree::{self, Tree};
use super::{Controller, Error, cpu, group, memory, pids};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The group of the worker itself.
const WORKER: &str = "worker";

/// How long what a crash left in a slot's group may take to die, when a worker needs the slot. At
/// the start there is more time; here the main loop waits.
const CLEARED_WITHIN: Duration = Duration::from_millis(200);

/// Pause between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What a slot may use; `None`: without limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Memory of worker and programs together, bytes.
    pub memory_bytes: Option<u64>,
    /// CPU time, in CPUs.
    pub cpus: Option<f64>,
    /// Share of CPU time when CPUs are short, 1 to 10,000; that of a slot without is 100.
    pub cpu_weight: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Bytes a second that are read from each of `disks`.
    pub io_read: Option<u64>,
    /// Bytes a second that are written to each of them.
    pub io_write: Option<u64>,
    /// The disks that the slot works on, or why one of them cannot be limited.
    pub disks: Vec<Result<Disk, String>>,
}

impl Limits {
    /// What is limited: by what, and the key of the limit within a type.
    #[must_use]
    pub fn asked(&self) -> Vec<(Controller, &'static str)> {
        let keys = [
            (self.memory_bytes.is_some(), Controller::Memory, "limits.memory"),
            (self.cpus.is_some(), Controller::Cpu, "limits.cpu"),
            (self.cpu_weight.is_some(), Controller::Cpu, "limits.cpu_weight"),
            (self.pids.is_some(), Controller::Pids, "limits.pids"),
            (self.io_read.is_some(), Controller::Io, "limits.io_read"),
            (self.io_write.is_some(), Controller::Io, "limits.io_write"),
        ];
        let asked = keys.into_iter().filter(|(is_asked, ..)| *is_asked);
        asked.map(|(_, controller, key)| (controller, key)).collect()
    }

    /// All of them, missing for one reason.
    #[must_use]
    pub fn all_missing(&self, why: &str) -> Vec<Missing> {
        let missing = |(limit, key)| Missing { limit, key, why: why.to_owned() };
        self.asked().into_iter().map(missing).collect()
    }
}

/// A limit that is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What would enforce it.
    pub limit: Controller,
    /// The key that sets it, within a type.
    pub key: &'static str,
    /// Why it does not.
    pub why: String,
}

/// The groups of one worker.
#[derive(Debug)]
pub struct Slot {
    dir: PathBuf,
}

/// What a worker died of, when its group ran out of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// The slot's limit, bytes; `None`: it had none, the whole machine was short.
    pub limit: Option<u64>,
    /// The most that the slot used, bytes, where the kernel says.
    pub peak: Option<u64>,
}

/// True for the name of a slot's group.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let number = name.rsplit_once('-').filter(|(job_type, _)| !job_type.is_empty());
    number.is_some_and(|(_, number)| number.parse::<u32>().is_ok_and(|n| n.to_string() == number))
}

impl Slot {
    /// Makes the groups of a worker and writes its limits, each read back. What an earlier worker
    /// left there is killed. Returns the limits that could not be written, too.
    ///
    /// # Errors
    /// The groups cannot be made, or what is left in them does not end.
    pub fn make(
        tree: &Tree,
        (job_type, number): (&str, u32),
        limits: &Limits,
    ) -> Result<(Self, Vec<Missing>), Error> {
        let dir = tree.base().join(format!("{job_type}-{number}"));
        if dir.exists() {
            clear(&dir, CLEARED_WITHIN)?;
        }
        group::make(&dir)?;
        // Each group below is counted by itself: so it is known which attempt ran out of memory.
        let mut missing = Vec::new();
        for controller in tree.controllers() {
            if let Err(lack) = tree::hand_down(&dir, controller) {
                let all = limits.all_missing(&lack.why).into_iter();
                missing.extend(all.filter(|one| one.limit == controller));
            }
        }
        let slot = Self { dir };
        group::make(&slot.worker())?;
        missing.extend(slot.write(tree, limits));
        if tree.offers(Controller::Cpu) {
            // It reports while its programs use up all that the slot may have. Without it, later.
            let _ = cpu::weigh(&slot.worker(), cpu::WEIGHT_HIGH);
        }
        Ok((slot, missing))
    }

    fn write(&self, tree: &Tree, limits: &Limits) -> Vec<Missing> {
        let dir = &self.dir;
        let written = [
            limits.memory_bytes.map(|bytes| ("limits.memory", memory::limit(dir, bytes))),
            limits.cpus.map(|cpus| ("limits.cpu", cpu::limit(dir, cpus))),
            limits.cpu_weight.map(|weight| ("limits.cpu_weight", cpu::weigh(dir, weight))),
            limits.pids.map(|pids| ("limits.pids", pids::limit(dir, pids))),
        ];
        let written = written.into_iter().flatten().map(|(key, one)| (key, one.map_err(chain)));
        let failed: Vec<_> = written
            .chain(self.write_io(limits))
            .filter_map(|(key, one)| Some((key, one.err()?)))
            .collect();
        let missing = limits.asked().into_iter().filter_map(|(limit, key)| {
            let (_, why) = failed.iter().find(|(failed, _)| *failed == key)?;
            // Why there is no such file is better told by the tree.
            let why = tree.lack_of(limit).map_or_else(|| why.clone(), |lack| lack.why.clone());
            Some(Missing { limit, key, why })
        });
        missing.collect()
    }

    /// Both limits of one disk are one line.
    fn write_io(&self, limits: &Limits) -> Vec<(&'static str, Result<(), String>)> {
        let (read, write) = (limits.io_read, limits.io_write);
        let disks = limits.disks.iter().filter(|_| read.or(write).is_some());
        let written = disks.flat_map(|disk| {
            let disk = disk.clone();
            let done =
                disk.and_then(|disk| disks::limit(&self.dir, disk, read, write).map_err(chain));
            [("limits.io_read", done.clone()), ("limits.io_write", done)]
        });
        written.collect()
    }

    /// The groups that a supervisor before us made in `dir`, while this worker is in them. Asked of
    /// the group: `/proc` may hide a worker of another user namespace.
    #[must_use]
    pub fn find(dir: &Path, pid: u32) -> Option<Self> {
        let slot = Self { dir: dir.to_owned() };
        group::processes(&slot.worker()).contains(&pid).then_some(slot)
    }

    /// The folder of the worker's group, to be born in.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn cradle(&self) -> io::Result<std::fs::File> {
        std::fs::File::open(self.worker())
    }

    /// Puts the worker's process into its group. Whatever it starts is born in the slot.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_in(&self, pid: u32) -> Result<(), Error> {
        group::join(&self.worker(), pid)
    }

    /// Where it lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn worker(&self) -> PathBuf {
        self.dir.join(WORKER)
    }

    /// SIGKILL to the worker and everything that it started.
    pub fn kill(&self) {
        group::kill(&self.dir);
    }

    /// True while anything of it lives.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        group::is_populated(&self.dir)
    }

    /// Every process of worker and programs.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        group::processes(&self.dir)
    }

    /// How long worker and programs had to wait because the slot's CPU limit was used up,
    /// microseconds; `None` where nothing limits it.
    #[must_use]
    pub fn throttled_us(&self) -> Option<u64> {
        cpu::throttled_us(&self.dir)
    }

    /// Set when the worker's own process was killed for want of memory.
    #[must_use]
    pub fn worker_out_of_memory(&self) -> Option<OutOfMemory> {
        (memory::kills(&self.worker()) > 0).then(|| OutOfMemory {
            limit: memory::limit_of(&self.dir),
            peak: memory::peak(&self.dir),
        })
    }

    /// Removes the groups of a worker that is gone.
    ///
    /// # Errors
    /// `EBUSY` while the kernel still takes a process apart.
    pub fn remove(&self) -> io::Result<()> {
        group::remove(&self.dir)
    }
}

/// Kills what is in a slot's group and removes it.
///
/// # Errors
/// It is not empty after this time, or cannot be removed then.
pub fn clear(dir: &Path, within: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + within;
    loop {
        group::kill(dir);
        if !group::is_populated(dir) && group::remove(dir).is_ok() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::Occupied(dir.to_owned()));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn chain(error: Error) -> String {
    let cause =
        std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

#[cfg(test)]
mod tests {
    use super::super::tests::fake;
    use super::*;

    #[test]
    fn names_of_slots_are_told_from_others() {
        for name in ["encode-0", "a-b-12", "x-4294967295"] {
            assert!(is_name(name), "{name}");
        }
        for name in
            ["supervisor", "-1", "encode-", "encode-01", "encode-x", ".control", "x-9999999999"]
        {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn limits_that_nothing_enforces_are_named_with_their_reason() {
        let dir = fake(&[]);
        let limits = Limits { memory_bytes: Some(1 << 30), pids: Some(9), ..Limits::default() };
        let tree = Tree::of(dir.path(), &[]);
        let (slot, missing) =
            Slot::make(&tree, ("encode", 0), &limits).expect("groups are folders");
        let named: Vec<_> = missing.iter().map(|one| (one.limit, one.why.as_str())).collect();
        let expected = [(Controller::Memory, "not offered"), (Controller::Pids, "not offered")];
        assert_eq!(named, expected);
        assert!(slot.dir().ends_with("encode-0") && slot.worker().is_dir());
        slot.remove().expect("nothing is in it");
        assert!(tree.slots().is_empty());
    }

    #[test]
    fn a_disk_that_cannot_be_limited_and_a_share_of_cpu_time_are_missing_by_their_own_keys() {
        let dir = fake(&[]);
        let limits = Limits {
            cpu_weight: Some(50),
            io_write: Some(1 << 20),
            disks: vec![Err("/x lies on no disk".to_owned())],
            ..Limits::default()
        };
        let tree = Tree::of(dir.path(), &[Controller::Io]);
        let (_, missing) = Slot::make(&tree, ("encode", 0), &limits).expect("they are folders");
        let named: Vec<_> = missing.iter().map(|one| (one.key, one.why.as_str())).collect();
        let io = ("limits.io_write", "/x lies on no disk");
        assert!(named.contains(&("limits.cpu_weight", "not offered")), "{named:?}");
        assert!(named.contains(&io), "{named:?}");
    }

    #[test]
    fn what_a_crash_left_in_a_slot_makes_room_when_it_is_dead() {
        let dir = fake(&[]);
        let tree = Tree::of(dir.path(), &[]);
        std::fs::create_dir_all(dir.path().join("encode-0/job-7")).expect("ours");
        assert_eq!(tree.slots().len(), 1);
        Slot::make(&tree, ("encode", 0), &Limits::default()).expect("it was empty");
        assert!(!dir.path().join("encode-0/job-7").exists());
        // One whose processes do not end is not taken over.
        let stuck = dir.path().join("encode-1");
        std::fs::create_dir(&stuck).expect("ours");
        std::fs::write(stuck.join("cgroup.events"), "populated 1\n").expect("ours");
        let error = Slot::make(&tree, ("encode", 1), &Limits::default()).expect_err("occupied");
        assert!(error.to_string().contains("do not end"), "{error}");
    }

    #[test]
    fn a_worker_out_of_memory_is_told_from_one_that_was_killed() {
        let dir = fake(&[("memory.max", "67108864\n"), ("memory.peak", "67108864\n")]);
        let slot = Slot { dir: dir.path().to_owned() };
        std::fs::create_dir(slot.worker()).expect("ours");
        let events =
            |text| std::fs::write(slot.worker().join("memory.events"), text).expect("ours");
        events("oom 0\noom_kill 0\n");
        assert_eq!(slot.worker_out_of_memory(), None);
        events("oom 1\noom_kill 1\n");
        let told = OutOfMemory { limit: Some(64 << 20), peak: Some(64 << 20) };
        assert_eq!(slot.worker_out_of_memory(), Some(told));
    }
}
