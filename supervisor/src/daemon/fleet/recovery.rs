//! What supervisors before us left: workers that live are taken over, outcomes that were written
//! down are stored, and the rest goes back to the table once nothing of it runs any more.
//!
//! The order is fixed: find the living, end what is neither living nor theirs, make the rows of
//! the living ours, give back the others; only then is anything claimed.

use super::record::{self, Found, Launcher, WorkerRecord};
use super::{chain, outcomes, slots};
use crate::config::Config;
use crate::daemon::start::{lock_dir, record_dir};
use crate::os::cgroup::slot::Slot;
use crate::os::cgroup::tree::Tree;
use crate::os::failpoint::{self, Place};
use crate::os::process::{Process, facts, leftovers};
use crate::os::{host, lock};
use crate::store::op::{Adoption, Op};
use crate::store::writer::StoreHandle;
use crate::store::{OtherInstance, OwnedJob};
use shiftboss_protocol::job::{Attempt, JobId};
use shiftboss_protocol::stored::StoredOutcome;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

type Key = (JobId, Attempt);

/// A launcher whose worker is dead kills its tree at once; one that takes longer was stopped, or
/// its tree is in an uninterruptible sleep.
const LAUNCHERS_END_WITHIN: Duration = Duration::from_secs(2);

/// Pause between two looks at processes that should be gone.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What was found, with the rows that are ours now.
#[derive(Default)]
pub(in crate::daemon) struct Recovery {
    pub(super) living: Vec<Living>,
    /// Attempts whose worker is gone and whose outcome was written down.
    pub(super) written: Vec<Written>,
    /// Names of dead instances whose workers live, or whose rest does not end: later.
    pub(in crate::daemon) postponed: BTreeSet<String>,
}

impl Recovery {
    /// Nothing could be done for these names.
    pub(in crate::daemon) fn postponed(names: BTreeSet<String>) -> Self {
        Self { postponed: names, ..Self::default() }
    }
}

/// A worker that lives.
pub(super) struct Living {
    pub(super) process: Process,
    pub(super) record: WorkerRecord,
    pub(super) record_path: PathBuf,
    pub(super) jobs: Vec<OwnedJob>,
    pub(super) launchers: BTreeMap<Key, Launcher>,
    /// Instances under which its programs were started.
    pub(super) owners: BTreeSet<String>,
    /// Its control groups.
    pub(super) slot: Option<Slot>,
}

/// An outcome without a worker.
pub(super) struct Written {
    pub(super) job: OwnedJob,
    pub(super) stored: StoredOutcome,
    pub(super) path: PathBuf,
}

/// Dead instances, and what is known of them.
struct Dead {
    ids: BTreeSet<String>,
    /// Their ids, and those of earlier instances whose attempts they had taken over.
    owners: BTreeSet<String>,
    jobs: Vec<OwnedJob>,
}

/// When it is looked for what dead instances left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Moment {
    /// At the start: whatever is on record under our name is a supervisor's before us.
    Start,
    /// Later: our records are those of our own workers, which are nobody's to take over.
    Later,
}

/// Takes over what dead instances left. Waits for the store, not for the daemon.
pub(in crate::daemon) fn recover(
    config: &Config,
    others: &[OtherInstance],
    store: &StoreHandle,
    (moment, tree): (Moment, Option<&Tree>),
) -> Recovery {
    let mut recovery = Recovery::default();
    let dead = find_dead((config, tree), others, &mut recovery.postponed);
    let mut jobs = dead.jobs;
    let boot_id = host::boot_id();
    if moment == Moment::Start {
        recovery.living = find_living((config, tree), &boot_id, &mut jobs);
    }
    // At once and before all others: workers and programs die together, whatever they have made
    // of their environment.
    let mut is_clear = true;
    if let Some(tree) = tree.filter(|_| moment == Moment::Start) {
        let slots = recovery.living.iter().filter_map(|one| one.slot.as_ref());
        let slots: Vec<PathBuf> = slots.map(|slot| slot.dir().to_owned()).collect();
        is_clear = slots::clear(tree, &slots);
    }
    let spared = attempts_of(&recovery.living);
    let pids: BTreeSet<u32> = recovery.living.iter().map(|one| one.record.pid).collect();
    let is_theirs = |pid: u32, environment: &leftovers::Environment| {
        let owner = environment.get(leftovers::OWNER_VARIABLE);
        owner.is_some_and(|owner| dead.owners.contains(owner)) && !pids.contains(&pid)
    };
    // Workers first: one that sees its program killed would write that down as its outcome.
    leftovers::end_seen(&|pid, environment| {
        is_theirs(pid, environment) && key_of(environment).is_none()
    });
    if moment == Moment::Start {
        end_launchers(config, &boot_id, &spared);
    }
    let left = leftovers::end(&|pid, environment| {
        is_theirs(pid, environment) && !key_of(environment).is_some_and(|key| spared.contains(&key))
    });
    let unseen = unseen(config, &boot_id, &jobs);
    if !left.is_empty() || !unseen.is_empty() || !is_clear {
        tracing::error!(
            pids = ?left,
            unseen = ?unseen,
            "processes of a dead supervisor do not end, or cannot be examined by this one (their \
             user or pid namespace is another: PrivateUsers=, ProtectProc= or a container); jobs \
             whose workers are gone stay as they are until these have ended, which is looked at \
             every 5 s"
        );
        adopt(store, &mut recovery);
        recovery.postponed.extend(dead.ids.iter().filter_map(|id| name_of(id)).map(str::to_owned));
        return recovery;
    }
    if moment == Moment::Start {
        remove_free_locks(&lock_dir(config));
    }
    let lost = take_written(config, jobs, &mut recovery);
    failpoint::reach(Place::Found);
    adopt(store, &mut recovery);
    failpoint::reach(Place::Adopted);
    give_back(store, dead.ids, lost);
    recovery
}

/// Processes that may still work on one of these jobs and that cannot be examined: workers whose
/// lock is held somewhere, launchers that `/proc` does not show.
fn unseen(config: &Config, boot_id: &str, jobs: &[OwnedJob]) -> Vec<u32> {
    let mut unseen = Vec::new();
    let names: BTreeSet<&str> = jobs.iter().filter_map(|job| name_of(&job.owner)).collect();
    for name in names {
        let dir = record_dir(config, name);
        let its = || jobs.iter().filter(move |job| name_of(&job.owner) == Some(name));
        unseen.extend(its().filter_map(|job| {
            let key = (job.job, job.attempt);
            record::hidden_launcher(&dir, key, boot_id)
        }));
        let elsewhere = record::workers(&dir).into_iter().map(|(_, record)| record);
        unseen.extend(elsewhere.filter_map(|record| {
            let is_its = its().any(|job| job.pid == Some(record.pid));
            let lives = || matches!(record.find(boot_id), Found::Elsewhere | Found::Lives(_));
            (is_its && lives()).then_some(record.pid)
        }));
    }
    unseen
}

fn attempts_of(living: &[Living]) -> BTreeSet<Key> {
    let jobs = living.iter().flat_map(|one| &one.jobs);
    jobs.map(|job| (job.job, job.attempt)).collect()
}

/// Which instances are dead, with their running rows; and those of other names whose processes
/// still live: a supervisor of that name may come back for them.
fn find_dead(
    (config, tree): (&Config, Option<&Tree>),
    others: &[OtherInstance],
    postponed: &mut BTreeSet<String>,
) -> Dead {
    let mut dead = Dead { ids: BTreeSet::new(), owners: BTreeSet::new(), jobs: Vec::new() };
    for other in others {
        if !is_dead(config, other) {
            let (instance, jobs) = (other.id.as_str(), other.running.len());
            tracing::info!(instance, jobs, "another supervisor lives on this database");
            continue;
        }
        let mut owners = BTreeSet::from([other.id.clone()]);
        owners.extend(other.running.iter().filter_map(|job| job.instance.clone()));
        // A worker that it had taken over carries the name of whoever spawned it.
        owners.extend(
            name_of(&other.id)
                .into_iter()
                .flat_map(|name| record::owners(&record_dir(config, name))),
        );
        if name_of(&other.id) != Some(&config.instance) && !other.running.is_empty() {
            let theirs = leftovers::find(&|_, environment| {
                environment
                    .get(leftovers::OWNER_VARIABLE)
                    .is_some_and(|owner| owners.contains(owner))
            });
            if !theirs.is_empty() {
                tracing::info!(
                    instance = other.id,
                    pids = ?theirs,
                    "another supervisor died and its workers go on: their jobs stay theirs until \
                     it is back or they have ended"
                );
                postponed.extend(name_of(&other.id).map(str::to_owned));
                continue;
            }
            // What has cleared its environment is still in its group.
            let name = name_of(&other.id).zip(tree);
            if name.is_some_and(|(name, tree)| !slots::clear_of(tree, config, name)) {
                postponed.extend(name_of(&other.id).map(str::to_owned));
                continue;
            }
        }
        dead.ids.insert(other.id.clone());
        dead.owners.append(&mut owners);
        dead.jobs.extend(other.running.iter().cloned());
    }
    dead
}

/// The name in an instance's id, which is name, boot and a random number; only the name may hold
/// further dashes.
pub(in crate::daemon) fn name_of(id: &str) -> Option<&str> {
    id.rsplitn(3, '-').nth(2)
}

/// Whether an instance is dead: its lock says so. Our own name is ours, so any other id of that
/// name is dead; another boot is another life.
fn is_dead(config: &Config, other: &OtherInstance) -> bool {
    let Some(name) = name_of(&other.id) else { return false };
    if name == config.instance {
        return true;
    }
    match lock::holder(&config.lock_file_of(name)) {
        lock::Holder::Nobody => true,
        lock::Holder::Somebody => false,
        // Deleted by hand, perhaps under a living instance: only another boot is proof.
        lock::Holder::NoFile => {
            other.row.as_ref().is_some_and(|row| row.boot_id != host::boot_id())
        }
    }
}

/// Workers on record that live, each with the rows that were claimed for its process. What is on
/// record and does not live is forgotten.
fn find_living(
    (config, tree): (&Config, Option<&Tree>),
    boot_id: &str,
    jobs: &mut Vec<OwnedJob>,
) -> Vec<Living> {
    let dir = record_dir(config, &config.instance);
    record::remove_unfinished(&dir);
    let mut living = Vec::new();
    for (record_path, record) in record::workers(&dir) {
        let process = match record.find(boot_id) {
            Found::Lives(process) => process,
            Found::Elsewhere => continue,
            Found::Gone => {
                forget(&record_path, &record);
                continue;
            }
        };
        let is_its = |job: &mut OwnedJob| {
            name_of(&job.owner) == Some(&config.instance) && job.pid == Some(record.pid)
        };
        let jobs: Vec<OwnedJob> = jobs.extract_if(.., is_its).collect();
        let launchers = jobs.iter().filter_map(|job| {
            let key = (job.job, job.attempt);
            Some((key, record::launcher(&dir, key, boot_id)?))
        });
        let launchers = launchers.collect();
        let owners = jobs.iter().flat_map(|job| [Some(job.owner.clone()), job.instance.clone()]);
        let owners = owners.flatten().chain(record.owners.iter().cloned()).collect();
        let group = record.group.as_deref().filter(|_| tree.is_some());
        let slot = group.and_then(|dir| Slot::find(dir, record.pid));
        living.push(Living { process, record, record_path, jobs, launchers, owners, slot });
    }
    living
}

/// Removes a record and its lock file; a lock that somebody holds is somebody else's matter.
fn forget(path: &Path, record: &WorkerRecord) {
    let _ = std::fs::remove_file(path);
    if lock::holder(&record.lock) == lock::Holder::Nobody {
        let _ = std::fs::remove_file(&record.lock);
    }
}

/// Removes lock files that nobody holds: of workers that a supervisor did not live to record.
fn remove_free_locks(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_lock = path.extension().is_some_and(|extension| extension == "lock");
        if is_lock && lock::holder(&path) == lock::Holder::Nobody {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Waits until launchers of dead workers have ended; those that do not are killed with their
/// session.
fn end_launchers(config: &Config, boot_id: &str, spared: &BTreeSet<Key>) {
    let dir = record_dir(config, &config.instance);
    let mut left = Vec::new();
    for key in record::launched(&dir) {
        if spared.contains(&key) {
            continue;
        }
        left.extend(record::launcher(&dir, key, boot_id));
        // Of one that cannot be examined the record is all that tells of it.
        if record::hidden_launcher(&dir, key, boot_id).is_none() {
            record::remove_launcher(&dir, key);
        }
    }
    let deadline = Instant::now() + LAUNCHERS_END_WITHIN;
    while !left.is_empty() && Instant::now() < deadline {
        left.retain(|one| !facts::has_ended(one.pidfd.as_fd()));
        std::thread::sleep(LOOK_EVERY);
    }
    for one in &left {
        facts::end_session(one.pidfd.as_fd(), one.pid);
    }
}

/// The attempt that a program's environment names.
pub(super) fn key_of(environment: &leftovers::Environment) -> Option<Key> {
    let job = environment.get("SHIFTBOSS_JOB")?.parse().ok()?;
    let attempt = environment.get("SHIFTBOSS_ATTEMPT")?.parse().ok()?;
    Some((JobId(job), Attempt(attempt)))
}

/// Moves rows whose outcome was written down into the recovery; returns how many are lost.
fn take_written(config: &Config, jobs: Vec<OwnedJob>, recovery: &mut Recovery) -> usize {
    let files = outcomes::list(config);
    let mut lost = 0;
    for job in jobs {
        let key = (job.job, job.attempt);
        let mut of_attempt = files.get(&key).into_iter().flatten();
        let file = of_attempt.find(|file| outcomes::is_of(&job, file));
        match file.and_then(|file| Some((outcomes::read(file, key)?, &file.path))) {
            Some((stored, path)) => {
                recovery.written.push(Written { job, stored, path: path.clone() });
            }
            None => lost += 1,
        }
    }
    lost
}

/// Makes the rows ours, in one commit. One that is no longer its owner's is dropped.
fn adopt(store: &StoreHandle, recovery: &mut Recovery) {
    let living = recovery.living.iter().flat_map(|one| &one.jobs);
    let jobs: Vec<&OwnedJob> = living.chain(recovery.written.iter().map(|one| &one.job)).collect();
    if jobs.is_empty() {
        return;
    }
    let adoptions = jobs.iter().map(|job| Adoption {
        job: job.job,
        attempt: job.attempt,
        owner: job.owner.clone(),
    });
    let adoptions: Vec<_> = adoptions.collect();
    let keys: Vec<Key> = adoptions.iter().map(|one| (one.job, one.attempt)).collect();
    let (reply, answer) = std::sync::mpsc::channel();
    store.send(Op::Adopt(adoptions, Box::new(move |result| drop(reply.send(result)))));
    let ours: BTreeSet<Key> = match answer.recv() {
        Ok(Ok(adopted)) => {
            keys.into_iter().zip(adopted).filter(|(_, ours)| *ours).map(|(key, _)| key).collect()
        }
        Ok(Err(error)) => {
            let error = chain(&error);
            tracing::error!(error, "cannot take over the jobs of a dead supervisor");
            BTreeSet::new()
        }
        Err(_) => BTreeSet::new(),
    };
    let is_ours = |job: &OwnedJob| ours.contains(&(job.job, job.attempt));
    for one in &mut recovery.living {
        one.jobs.retain(is_ours);
    }
    recovery.written.retain(|one| is_ours(&one.job));
}

fn give_back(store: &StoreHandle, ids: BTreeSet<String>, lost: usize) {
    if ids.is_empty() {
        return;
    }
    if lost > 0 {
        tracing::warn!(
            jobs = lost,
            "a supervisor died and these jobs' workers with it; they go back to the table"
        );
    }
    let done = Box::new(|result: Result<u64, crate::store::Error>| {
        if let Err(error) = result {
            tracing::error!("cannot give back the jobs of a dead supervisor: {}", chain(&error));
        }
    });
    store.send(Op::Rescue(ids.into_iter().collect(), done));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_that_nobody_holds_go_and_others_stay() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let path = |name: &str| dir.path().join(name);
        for name in ["free.lock", "worker.sock"] {
            std::fs::write(path(name), "").expect("written");
        }
        let held = lock::acquire(&path("held.lock"), "").expect("it can be made");
        remove_free_locks(dir.path());
        assert!(held.is_some() && path("held.lock").exists());
        assert!(path("worker.sock").exists() && !path("free.lock").exists());
        drop(held);
        remove_free_locks(dir.path());
        assert!(!path("held.lock").exists());
    }
}
