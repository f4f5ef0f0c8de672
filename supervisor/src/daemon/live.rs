//! What changes from moment to moment: progress of running jobs, and who watches them.

use crate::store::op::ProgressRow;
use serde_json::Value;
use shiftboss_protocol::control::Response;
use shiftboss_protocol::job::{Attempt, JobId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Progress reaches the table at most this often; watchers and listings see it at once.
const STORE_EVERY: Duration = Duration::from_secs(1);

/// The latest progress of a running attempt.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) attempt: Attempt,
    pub(super) fraction: Option<f64>,
    pub(super) note: String,
    stored: bool,
}

/// A client that watches jobs.
pub(super) struct Watcher {
    pub(super) jobs: Vec<JobId>,
    pub(super) reply: mpsc::Sender<Response>,
    /// What it was last told of each job.
    sent: HashMap<JobId, Value>,
    finals: BTreeSet<JobId>,
}

/// Progress and watchers.
#[derive(Default)]
pub(super) struct Live {
    progress: HashMap<JobId, Progress>,
    next_store: Option<Instant>,
    watchers: BTreeMap<u64, Watcher>,
    next_watcher: u64,
    /// Watchers whose jobs may have changed.
    dirty: BTreeSet<u64>,
}

impl Live {
    pub(super) fn progress(
        &mut self,
        job: JobId,
        attempt: Attempt,
        fraction: Option<f64>,
        note: String,
    ) {
        let fraction =
            fraction.filter(|value| value.is_finite()).map(|value| value.clamp(0.0, 1.0));
        self.progress.insert(job, Progress { attempt, fraction, note, stored: false });
        self.next_store.get_or_insert_with(|| Instant::now() + STORE_EVERY);
        self.changed([job]);
    }

    pub(super) fn of(&self, job: JobId) -> Option<&Progress> {
        self.progress.get(&job)
    }

    pub(super) fn next_store(&self) -> Option<Instant> {
        self.next_store
    }

    /// Progress to be stored, when it is time.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Vec<ProgressRow>> {
        if self.next_store? > now {
            return None;
        }
        self.next_store = None;
        let mut rows = Vec::new();
        for (job, one) in self.progress.iter_mut().filter(|(_, one)| !one.stored) {
            one.stored = true;
            let (attempt, fraction, note) = (one.attempt, one.fraction, one.note.clone());
            rows.push(ProgressRow { job: *job, attempt, fraction, note });
        }
        (!rows.is_empty()).then_some(rows)
    }

    /// The attempts of these jobs are over.
    pub(super) fn ended(&mut self, jobs: impl IntoIterator<Item = JobId>) {
        for job in jobs {
            self.progress.remove(&job);
            self.changed([job]);
        }
    }

    pub(super) fn changed(&mut self, jobs: impl IntoIterator<Item = JobId>) {
        if self.watchers.is_empty() {
            return;
        }
        for job in jobs {
            let watching = self.watchers.iter().filter(|(_, one)| one.jobs.contains(&job));
            self.dirty.extend(watching.map(|(id, _)| *id));
        }
    }

    pub(super) fn all_changed(&mut self) {
        self.dirty.extend(self.watchers.keys());
    }

    pub(super) fn watch(&mut self, jobs: Vec<JobId>, reply: mpsc::Sender<Response>) {
        self.next_watcher += 1;
        let watcher = Watcher { jobs, reply, sent: HashMap::new(), finals: BTreeSet::new() };
        self.watchers.insert(self.next_watcher, watcher);
        self.dirty.insert(self.next_watcher);
    }

    /// Watchers whose jobs are to be read again, with the jobs that are not final yet.
    pub(super) fn take_dirty(&mut self) -> Vec<(u64, Vec<JobId>)> {
        let dirty = std::mem::take(&mut self.dirty);
        let open = |id: u64| {
            let one = self.watchers.get(&id)?;
            let jobs: Vec<_> =
                one.jobs.iter().filter(|job| !one.finals.contains(job)).copied().collect();
            (!one.reply.is_closed()).then_some((id, jobs))
        };
        let found: Vec<_> = dirty.into_iter().filter_map(open).collect();
        self.watchers.retain(|_, one| !one.reply.is_closed());
        found
    }

    /// Tells a watcher what is new about a job; `row` is `None` when there is no such job.
    pub(super) fn tell(&mut self, watcher: u64, job: JobId, row: Option<Value>, is_final: bool) {
        let Some(one) = self.watchers.get_mut(&watcher) else { return };
        if is_final {
            one.finals.insert(job);
        }
        let row = row.unwrap_or_else(|| serde_json::json!({ "id": job.0, "state": null }));
        if one.sent.get(&job) == Some(&row) {
            return;
        }
        let text = row.to_string();
        one.sent.insert(job, row);
        if one.reply.try_send(Response::Job(text)).is_err() && !is_final {
            // It is behind with reading: it gets the next state instead of this one.
            one.sent.remove(&job);
        }
    }

    /// Ends the watch once all its jobs are final.
    pub(super) fn end_if_final(&mut self, watcher: u64) {
        let Some(one) = self.watchers.get(&watcher) else { return };
        if one.jobs.iter().all(|job| one.finals.contains(job)) {
            let one = self.watchers.remove(&watcher).expect("found a line above");
            // A slow reader must still learn of the end, so this waits for room.
            tokio::spawn(async move { one.reply.send(Response::Done).await });
        }
    }
}
