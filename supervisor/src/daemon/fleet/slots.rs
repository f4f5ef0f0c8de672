//! The control groups of workers: made with their limits before a worker does anything, killed
//! and removed when it is gone, found again after the death of a supervisor.

use crate::config::{Config, Confine, JobType, Size};
use crate::daemon::Daemon;
use crate::os::cgroup::io::{Disk, disk_of};
use crate::os::cgroup::slot::{self, Limits, Missing, Slot};
use crate::os::cgroup::tree::{self, Tree};
use crate::os::cgroup::{Controller, Lack};
use crate::os::process::Process;
use crate::policy::claim::WorkerId;
use shiftboss_protocol::confine::Wall;
use shiftboss_protocol::job::{Attempt, JobId};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The groups of all workers, or why there are none.
pub(in crate::daemon) type Groups = Result<Tree, Lack>;

/// How long what dead supervisors left in their groups may take to die at the start: a large
/// process needs some time to free its memory.
const CLEARED_WITHIN: Duration = Duration::from_secs(10);

/// What holds one worker.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// Its groups.
    pub(super) slot: Option<Slot>,
    /// Limits that its type has and that nothing enforces, with the reason.
    missing: Vec<Missing>,
}

/// Finds the tree and says in the log what it offers.
pub(in crate::daemon) fn set_up(config: &Config) -> Groups {
    let groups = tree::find(&base_name(config, &config.instance)).and_then(Tree::set_up);
    let asked = config.types.values().flat_map(|one| limits_of(config, one).asked());
    let wanted: BTreeSet<_> = asked.map(|(controller, _)| controller).collect();
    match &groups {
        Ok(tree) => {
            let controllers: Vec<_> = tree.controllers().iter().map(|one| one.name()).collect();
            let base = tree.base().display().to_string();
            tracing::info!(base, ?controllers, "control groups: programs are killed by group");
            for lack in wanted.iter().filter_map(|one| tree.lack_of(*one)) {
                tracing::warn!("not every limit is enforced by the kernel: {lack}");
            }
        }
        Err(lack) if !wanted.is_empty() => {
            tracing::warn!("no control groups, limits are not enforced by the kernel: {lack}");
        }
        Err(lack) => tracing::info!("no control groups: {lack}"),
    }
    groups
}

/// The name of the base of an instance's groups, where we make it: unlike for every other
/// instance of this or any other database.
fn base_name(config: &Config, instance: &str) -> String {
    format!("shiftboss-{}", config.mark_of(instance))
}

/// Kills and removes the groups of slots in which no worker lives. True when none is left.
pub(super) fn clear(tree: &Tree, living: &[PathBuf]) -> bool {
    let left = tree.slots().into_iter().filter(|dir| !living.contains(dir));
    let mut is_clear = true;
    for dir in left {
        if let Err(error) = slot::clear(&dir, CLEARED_WITHIN) {
            tracing::error!("{error}; jobs whose programs they may be stay as they are");
            is_clear = false;
        } else {
            let group = dir.display().to_string();
            tracing::info!(group, "a control group that a dead supervisor left was emptied");
        }
    }
    is_clear
}

/// The same for a dead instance of another name, none of whose workers lives.
pub(super) fn clear_of(tree: &Tree, config: &Config, instance: &str) -> bool {
    let Some(tree) = tree.beside(&base_name(config, instance)) else { return true };
    let is_clear = clear(&tree, &[]);
    tree.dismantle();
    is_clear
}

/// What a slot of this type may use.
pub(super) fn limits_of(config: &Config, job_type: &JobType) -> Limits {
    let limits = &job_type.limits;
    Limits {
        memory_bytes: limits.memory.map(Size::bytes),
        cpus: limits.cpu,
        cpu_weight: limits.cpu_weight,
        pids: limits.pids,
        io_read: limits.io_read.map(Size::bytes),
        io_write: limits.io_write.map(Size::bytes),
        disks: disks_of(config, job_type),
    }
}

/// The disks that a type's jobs work on, each once. Without roots: that of the root directory.
fn disks_of(config: &Config, job_type: &JobType) -> Vec<Result<Disk, String>> {
    let limits = &job_type.limits;
    if limits.io_read.is_none() && limits.io_write.is_none() {
        return Vec::new();
    }
    let anywhere = Path::new("/");
    let roots = [&job_type.roots.read, &job_type.roots.write];
    let is_bound = roots.iter().all(|roots| !roots.is_empty());
    let roots = roots.into_iter().flatten().map(PathBuf::as_path);
    let places = roots.chain([config.work_dir.as_path()]);
    let places = places.chain((!is_bound).then_some(anywhere));
    let mut disks: Vec<_> = places.map(disk_of).collect();
    disks.sort();
    disks.dedup();
    disks
}

impl Bounds {
    /// Makes a worker's groups and writes its limits.
    ///
    /// # Errors
    /// Its type requires a limit that cannot be had, or what an earlier worker left there lives.
    pub(super) fn make(
        groups: &Groups,
        (limits, confine): (&Limits, Confine),
        slot: (&str, u32),
    ) -> Result<Self, String> {
        let (made, missing) = match groups {
            Ok(tree) => match Slot::make(tree, slot, limits) {
                Ok((slot, missing)) => (Some(slot), missing),
                // Nobody may start beside what still runs there.
                Err(error @ crate::os::cgroup::Error::Occupied(_)) => return Err(error.to_string()),
                Err(error) => (None, limits.all_missing(&super::chain(&error))),
            },
            Err(lack) => (None, limits.all_missing(&lack.why)),
        };
        let bounds = Self { slot: made, missing };
        if confine == Confine::Require
            && let Some(Missing { key, why, .. }) = bounds.missing.first()
        {
            bounds.drop_slot();
            return Err(format!("a required limit is not in force: {key}: {why}"));
        }
        Ok(bounds)
    }

    /// Puts the worker into its group, before it is welcomed and so before it does anything.
    ///
    /// # Errors
    /// It cannot be put there, and its type requires it.
    pub(super) fn take_in(
        &mut self,
        (limits, confine): (&Limits, Confine),
        process: &Process,
    ) -> Result<(), String> {
        let Some(slot) = &self.slot else { return Ok(()) };
        let Err(error) = slot.take_in(process.pid()) else { return Ok(()) };
        let text = super::chain(&error);
        self.drop_slot();
        self.slot = None;
        self.missing = limits.all_missing(&text);
        if confine == Confine::Require && !self.missing.is_empty() {
            return Err(text);
        }
        tracing::warn!("{text}; the worker runs without limits of the kernel");
        Ok(())
    }

    /// What a supervisor before us made for a worker that lives.
    pub(super) fn found(slot: Option<Slot>, limits: &Limits) -> Self {
        let missing = match &slot {
            Some(_) => Vec::new(),
            None => limits.all_missing("its supervisor had no control group for it"),
        };
        Self { slot, missing }
    }

    /// True when this limit is wanted and nothing enforces it.
    pub(super) fn lacks(&self, limit: Controller) -> bool {
        self.missing.iter().any(|missing| missing.limit == limit)
    }

    fn drop_slot(&self) {
        if let Some(slot) = &self.slot {
            // Nothing is in it. What stays is cleared for the next worker of the slot.
            let _ = slot.remove();
        }
    }

    /// What holds the worker as it says itself, and what holds it from outside.
    pub(super) fn confinement(&self, said: &str) -> String {
        let (holds, lacks) = said.split_once(';').map_or((said, ""), |(a, b)| (a.trim(), b.trim()));
        let mut words: Vec<_> =
            holds.split(", ").filter(|word| !word.is_empty() && *word != "none").collect();
        let cgroup = Wall::Cgroup.to_string();
        if self.slot.is_some() && !words.contains(&cgroup.as_str()) {
            let rlimits = Wall::Rlimits.to_string();
            let at = words.iter().position(|word| *word == rlimits).unwrap_or(words.len());
            words.insert(at, &cgroup);
        }
        let mut text = if words.is_empty() { "none".to_owned() } else { words.join(", ") };
        if !lacks.is_empty() {
            text = format!("{text}; {lacks}");
        }
        for Missing { key, why, .. } in &self.missing {
            let why = why.replace(';', ",");
            text = format!("{text}; missing: {cgroup} ({key}: {why})");
        }
        text
    }
}

/// How long attempts were held back by their slot's CPU limit.
#[derive(Debug, Default)]
pub(super) struct Throttling {
    /// What the slot had counted when an attempt was given to its worker, microseconds.
    began: HashMap<(JobId, Attempt), (WorkerId, u64)>,
}

impl Throttling {
    pub(super) fn begin(&mut self, worker: WorkerId, key: (JobId, Attempt), throttled_us: u64) {
        self.began.insert(key, (worker, throttled_us));
    }

    /// Milliseconds since [`Self::begin`].
    pub(super) fn end(&mut self, key: (JobId, Attempt), throttled_us: Option<u64>) -> Option<u64> {
        let (_, before) = self.began.remove(&key)?;
        Some(throttled_us?.saturating_sub(before) / 1_000)
    }

    fn worker_of(&self, key: (JobId, Attempt)) -> Option<WorkerId> {
        self.began.get(&key).map(|(worker, _)| *worker)
    }
}

impl Daemon {
    /// An attempt is about to run in this worker.
    pub(in crate::daemon) fn note_throttling(&mut self, worker: WorkerId, key: (JobId, Attempt)) {
        if let Some(throttled_us) = self.fleet.throttled_us(worker) {
            self.fleet.throttling.begin(worker, key, throttled_us);
        }
    }

    /// How long it was held back by its slot's CPU limit, milliseconds.
    pub(in crate::daemon) fn throttled_ms(&mut self, key: (JobId, Attempt)) -> Option<u64> {
        let worker = self.fleet.throttling.worker_of(key)?;
        let now = self.fleet.throttled_us(worker);
        self.fleet.throttling.end(key, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Limits {
        Limits { memory_bytes: Some(64 << 20), ..Limits::default() }
    }

    fn nothing() -> Groups {
        Err(Lack { why: "cgroup v2 is not mounted".to_owned(), remedy: "mount it" })
    }

    #[test]
    fn without_control_groups_best_effort_goes_on_and_says_so() {
        let made = Bounds::make(&nothing(), (&memory(), Confine::BestEffort), ("command", 0));
        let bounds = made.expect("best-effort");
        let missing = "missing: cgroup (limits.memory: cgroup v2 is not mounted)";
        assert_eq!(bounds.confinement("none"), format!("none; {missing}"));
        let text = bounds.confinement("seccomp, rlimits; missing: user-ns (EPERM)");
        assert_eq!(text, format!("seccomp, rlimits; missing: user-ns (EPERM); {missing}"));
    }

    #[test]
    fn without_control_groups_a_required_limit_is_a_worker_that_does_not_start() {
        let required =
            |limits: Limits| Bounds::make(&nothing(), (&limits, Confine::Require), ("command", 0));
        let error = required(memory()).expect_err("required");
        assert!(
            error.ends_with("not in force: limits.memory: cgroup v2 is not mounted"),
            "{error}"
        );
        required(Limits::default()).expect("no limit is asked for");
    }

    #[test]
    fn a_group_is_named_among_what_holds_in_order_of_strength() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let tree = Tree::of(dir.path(), &[]);
        let plain = (&Limits::default(), Confine::BestEffort);
        let bounds = Bounds::make(&Ok(tree), plain, ("command", 0)).expect("best-effort");
        assert_eq!(bounds.confinement("none"), "cgroup");
        assert_eq!(bounds.confinement("seccomp, rlimits"), "seccomp, cgroup, rlimits");
        assert_eq!(bounds.confinement("cgroup, rlimits"), "cgroup, rlimits");
    }

    #[test]
    fn throttling_is_what_was_counted_while_the_attempt_ran() {
        let mut throttling = Throttling::default();
        let key = (JobId(1), Attempt(2));
        assert_eq!(throttling.end(key, Some(9_000)), None);
        throttling.begin(WorkerId(7), key, 5_000);
        assert_eq!(throttling.worker_of(key), Some(WorkerId(7)));
        assert_eq!(throttling.end(key, Some(12_500)), Some(7));
        throttling.begin(WorkerId(7), key, 5_000);
        assert_eq!(throttling.end(key, None), None, "its group is gone");
    }
}
