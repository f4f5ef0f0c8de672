//! Facts about this host and about processes on it, read when somebody asks.

use std::collections::BTreeMap;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// What a worker uses, its programs included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Share of one core since the last look, percent: 200 is two cores.
    pub cpu_percent: f32,
    /// Resident memory, bytes.
    pub memory_bytes: u64,
}

/// Looks at processes. Kept between looks: CPU use is what happened since the last one.
#[derive(Debug)]
pub struct Host {
    system: System,
}

impl Host {
    /// A first look at nothing.
    ///
    /// # Errors
    /// When the system cannot be read at all.
    pub fn new() -> Result<Self, String> {
        Ok(Self { system: System::new().map_err(|error| format!("{error:?}"))? })
    }

    /// What each of these processes uses together with all its descendants. Costs some
    /// milliseconds: for listings, not for control.
    pub fn usage(&mut self, roots: &[u32]) -> BTreeMap<u32, Usage> {
        let kind = ProcessRefreshKind::nothing().with_cpu().with_memory().without_tasks();
        self.system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
        let mut sums: BTreeMap<u32, Usage> =
            roots.iter().map(|root| (*root, Usage::default())).collect();
        for process in self.system.processes().values() {
            let Some(root) = self.root_of(process.pid(), roots) else { continue };
            let sum = sums.entry(root).or_default();
            sum.cpu_percent += process.cpu_usage();
            sum.memory_bytes += process.memory();
        }
        sums
    }

    fn root_of(&self, pid: Pid, roots: &[u32]) -> Option<u32> {
        let mut at = pid;
        // A bound instead of a visited set: a chain of parents is never longer in practice.
        for _ in 0..64 {
            if roots.contains(&at.as_u32()) {
                return Some(at.as_u32());
            }
            at = self.system.process(at)?.parent()?;
        }
        None
    }
}

/// Name of this host, for the record.
#[must_use]
pub fn host_name() -> String {
    System::host_name().unwrap_or_else(|_| "unknown".to_owned())
}

/// Id of this boot: a process number of another boot means nothing.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Bytes from the kernel's random number generator.
///
/// # Panics
/// Never on Linux: the call fails only before the generator is seeded in early boot.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel's generator is seeded");
    bytes
}
