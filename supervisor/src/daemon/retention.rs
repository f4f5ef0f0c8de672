//! Takes old things away: rows, logs and scratch folders, in small batches.

use super::Daemon;
use super::start::{logs_dir, outcomes_dir, scratch_dir};
use crate::os::dirs;
use crate::policy::time::{ClockGuard, Now};
use crate::store::op::Op;
use crate::store::reader::Reader;
use shiftboss_protocol::job::JobId;
use shiftboss_protocol::stored::{StoredOutcomeName, TEMPORARY_SUFFIX};
use std::collections::BTreeSet;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The first look after the start, when the rush is over.
const FIRST: Duration = Duration::from_secs(60);

/// Between two looks: nobody needs old rows gone to the minute.
const EVERY: Duration = Duration::from_secs(3600);

/// From something that may have ended a job to a look at what was kept for its next attempt:
/// many jobs may end meanwhile.
const KEPT: Duration = Duration::from_secs(2);

/// Between two batches of rows, so that other writers get their turn.
const BETWEEN: Duration = Duration::from_millis(100);

/// When the next batch is due.
#[derive(Debug)]
pub(super) struct Retention {
    next: Instant,
    /// Logs are looked through once per look, not once per batch of rows.
    logs_due: bool,
    /// When to look for what was kept for jobs that have ended.
    kept: Option<Instant>,
    clock: ClockGuard,
}

impl Retention {
    pub(super) fn start(now: Now) -> Self {
        let clock = ClockGuard::start(now);
        Self { next: Instant::now() + FIRST, logs_due: true, kept: None, clock }
    }

    pub(super) fn next(&self) -> Instant {
        self.kept.map_or(self.next, |kept| kept.min(self.next))
    }

    /// A job may have ended.
    pub(super) fn look_at_kept(&mut self) {
        self.kept.get_or_insert_with(|| Instant::now() + KEPT);
    }

    /// The configuration has changed: what is old now need not wait for the next look.
    pub(super) fn look_now(&mut self) {
        (self.next, self.logs_due) = (Instant::now(), true);
    }
}

impl Daemon {
    /// Asks for the next batch of old rows when it is time.
    pub(super) fn prune_when_due(&mut self) {
        let now = Instant::now();
        if self.retention.kept.is_some_and(|due| due <= now) {
            self.retention.kept = None;
            self.sweep_kept();
            self.sweep_outcomes();
            self.sweep_scratch();
        }
        if self.retention.next > now {
            return;
        }
        self.retention.next = now + EVERY;
        let keep = &self.config.retention;
        let now = self.clock.now();
        if let Some(ahead) = self.retention.clock.look(now) {
            tracing::warn!(
                "the clock was set {} s ahead since the last look at old jobs: nothing is removed \
                 until the next look, in {} minutes",
                ahead.as_secs(),
                EVERY.as_secs() / 60,
            );
            return;
        }
        let now_ms = now.unix_ms;
        let before = |span: Option<Duration>| {
            let span =
                span.map_or(i64::MAX, |it| i64::try_from(it.as_millis()).unwrap_or(i64::MAX));
            now_ms.saturating_sub(span)
        };
        self.store.send(Op::Prune {
            succeeded_before: before(keep.succeeded.duration()),
            failed_before: before(keep.failed.duration()),
            cancelled_before: before(keep.cancelled.duration()),
        });
        let logs_due = std::mem::replace(&mut self.retention.logs_due, false);
        if let Some(age) = keep.logs.duration().filter(|_| logs_due) {
            let logs = logs_dir(&self.config);
            let running: BTreeSet<JobId> = self
                .crew
                .workers_view()
                .iter()
                .flat_map(|one| one.attempts.clone())
                .map(|it| it.0)
                .collect();
            self.queries.ask(move |_| sweep_logs(&logs, age, &running));
        }
    }

    /// Rows are gone: their logs go too, and the next batch follows while there is one.
    pub(super) fn on_pruned(&mut self, jobs: Vec<JobId>) {
        if jobs.is_empty() {
            self.retention.logs_due = true;
            return;
        }
        tracing::info!(jobs = jobs.len(), "old jobs removed, as [retention] says");
        self.retention.next = Instant::now() + BETWEEN;
        let logs = logs_dir(&self.config);
        self.queries.ask(move |_| {
            for job in jobs {
                for (_, of_type) in dirs::folders_in(&logs) {
                    // Most jobs have none; what cannot be removed now is found by age later.
                    let _ = std::fs::remove_dir_all(of_type.join(job.to_string()));
                }
            }
        });
    }

    /// What workloads kept for the next attempt of jobs that will have none. The worker removes
    /// it when the job succeeds or fails; a job that is cancelled while it waits, or that its
    /// last attempt did not survive, ends without one.
    pub(super) fn sweep_kept(&self) {
        let scratch = scratch_dir(&self.config);
        self.queries.ask(move |desk| {
            let Ok(reader) = desk.reader() else { return };
            for (path, job) in kept_in(&scratch) {
                if is_over(reader, job) {
                    remove(&path, "what was kept for an attempt that will not come");
                }
            }
        });
    }

    /// Outcomes of attempts that no longer run: their worker died before it could remove them.
    /// An attempt runs before its outcome is written and never again after it has ended, so what
    /// is not running is settled.
    pub(super) fn sweep_outcomes(&self) {
        let folder = outcomes_dir(&self.config);
        self.queries.ask(move |desk| {
            let found = outcomes_in(&folder);
            let Ok(reader) = desk.reader() else { return };
            for (path, name) in found {
                if !is_running(reader, name.job, name.attempt.0.into()) {
                    // Somebody may have been faster; what stays is looked at again.
                    let _ = std::fs::remove_file(path);
                }
            }
        });
    }

    /// Scratch folders of attempts that no longer run, left by a crash.
    pub(super) fn sweep_scratch(&self) {
        let scratch = scratch_dir(&self.config);
        self.queries.ask(move |desk| {
            let Ok(reader) = desk.reader() else { return };
            for (path, job, attempt) in attempts_in(&scratch) {
                if !is_running(reader, job, attempt) {
                    remove(&path, "scratch folder of a dead attempt");
                }
            }
        });
    }
}

/// What lies in the folders of all types.
fn in_all(base: &Path) -> impl Iterator<Item = DirEntry> {
    let of_types = dirs::folders_in(base).into_iter();
    of_types.flat_map(|(_, path)| std::fs::read_dir(path).into_iter().flatten().flatten())
}

fn attempts_in(scratch: &Path) -> Vec<(PathBuf, JobId, u64)> {
    in_all(scratch)
        .filter_map(|entry| {
            let name = entry.file_name();
            let (job, attempt) = name.to_str()?.split_once('-')?;
            Some((entry.path(), JobId(job.parse().ok()?), attempt.parse().ok()?))
        })
        .collect()
}

/// Outcome files, also those that were not finished.
fn outcomes_in(folder: &Path) -> Vec<(PathBuf, StoredOutcomeName)> {
    in_all(folder)
        .filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            let whole = name.strip_suffix(TEMPORARY_SUFFIX).unwrap_or(name);
            Some((entry.path(), StoredOutcomeName::parse(whole)?))
        })
        .collect()
}

/// The folders that outlive attempts: `<job>-kept`.
fn kept_in(scratch: &Path) -> Vec<(PathBuf, JobId)> {
    in_all(scratch)
        .filter_map(|entry| {
            let name = entry.file_name();
            let job = name.to_str()?.strip_suffix("-kept")?.parse().ok()?;
            Some((entry.path(), JobId(job)))
        })
        .collect()
}

/// A job that cannot be looked up may go on.
fn is_over(reader: &Reader, job: JobId) -> bool {
    match reader.job(job) {
        Ok(Some(row)) => {
            ["succeeded", "failed", "cancelled"].iter().any(|state| row["state"] == *state)
        }
        Ok(None) => true,
        Err(_) => false,
    }
}

/// An attempt that cannot be looked up counts as running: its folder is kept.
fn is_running(reader: &Reader, job: JobId, attempt: u64) -> bool {
    match reader.job(job) {
        Ok(Some(row)) => row["state"] == "running" && row["attempt"] == attempt,
        Ok(None) => false,
        Err(_) => true,
    }
}

fn sweep_logs(logs: &Path, age: Duration, running: &BTreeSet<JobId>) {
    let Some(before) = SystemTime::now().checked_sub(age) else { return };
    for entry in in_all(logs) {
        let job = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(JobId);
        if job.is_none_or(|job| running.contains(&job)) {
            continue;
        }
        if newest(&entry.path()).is_some_and(|changed| changed < before) {
            remove(&entry.path(), "old logs");
        }
    }
}

/// When anything in the folder was last written.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).ok()?;
    let files = entries.flatten().filter_map(|entry| entry.metadata().ok()?.modified().ok());
    files.chain(std::fs::metadata(folder).ok()?.modified().ok()).max()
}

fn remove(path: &Path, what: &str) {
    match std::fs::remove_dir_all(path) {
        Ok(()) => tracing::debug!(path = %path.display(), "{what} removed"),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot remove {what}, it stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_go_by_age_and_never_while_their_job_runs() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let of_type = dir.path().join("command");
        for name in ["1", "2", "3", "notes"] {
            std::fs::create_dir_all(of_type.join(name)).expect("a folder can be made");
            let file = std::fs::File::create(of_type.join(name).join("1.command.out"));
            let file = file.expect("a file can be made");
            let old = SystemTime::now() - Duration::from_secs(if name == "3" { 10 } else { 1000 });
            file.set_modified(old).expect("it is ours");
            let folder = std::fs::File::open(of_type.join(name)).expect("it is there");
            folder.set_modified(old).expect("it is ours");
        }
        sweep_logs(dir.path(), Duration::from_secs(100), &BTreeSet::from([JobId(2)]));
        let left = |name: &str| of_type.join(name).exists();
        assert!(!left("1") && left("2") && left("3") && left("notes"));
    }
}
