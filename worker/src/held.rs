//! The attempts that this worker holds: admitted, running, or ended and not yet recorded.
//!
//! An outcome stays here until its receipt; between two supervisors it goes to disk too
//! (`held/outcomes.rs`). The next supervisor hears all of it again (`held/again.rs`).

mod again;
mod ending;
mod outcomes;

pub(crate) use ending::Returned;

use crate::attempt::{AttemptState, Job, Key};
use crate::connection::Outbox;
use crate::serve::life::Event;
use crate::timer::{Alarm, HEARTBEAT};
use ending::outcome_of;
use outcomes::Outcomes;
use shiftboss_protocol::job::{Outcome, Usage};
use shiftboss_protocol::message::{
    Assignment, LogLevel, Receipt, ReceiptOf, Settings, StopReason, WorkerMessage,
};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// An attempt and what it is given, ready to be run.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) state: Arc<AttemptState>,
    pub(crate) job: Job,
}

pub(crate) struct Held {
    pub(crate) job_type: String,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) alarm: Arc<Alarm>,
    pub(crate) events: Sender<Event>,
    outcomes: Outcomes,
    entries: Mutex<Entries>,
}

struct Entries {
    by_key: HashMap<Key, Entry>,
    running: usize,
    leaving: Option<&'static str>,
    /// Those of the latest Welcome: all that is held belongs to its owner.
    settings: Arc<Settings>,
    /// Between two supervisors: what finishes goes to disk.
    is_orphaned: bool,
}

struct Entry {
    state: Arc<AttemptState>,
    /// Said again to the next supervisor that has not recorded it.
    finished: Option<WorkerMessage>,
    /// The file that holds it, once one does.
    file: Option<PathBuf>,
}

impl Held {
    pub(crate) fn new(
        job_type: String,
        settings: Arc<Settings>,
        outbox: Arc<Outbox>,
        alarm: Arc<Alarm>,
        events: Sender<Event>,
    ) -> Self {
        let (by_key, leaving) = (HashMap::new(), None);
        let entries = Entries { by_key, running: 0, leaving, settings, is_orphaned: false };
        let (outcomes, entries) = (Outcomes::default(), Mutex::new(entries));
        Self { job_type, outbox, alarm, events, outcomes, entries }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().expect("nothing panics while it holds the attempts")
    }

    /// Takes assignments in. One that is held already is not run twice; a worker that leaves
    /// gives everything back.
    pub(crate) fn admit(&self, jobs: Vec<Assignment>) -> Vec<Task> {
        let now = Instant::now();
        let mut wake_at = now + HEARTBEAT;
        let mut tasks = Vec::with_capacity(jobs.len());
        let mut entries = self.lock();
        for assignment in jobs {
            let key = (assignment.job, assignment.attempt);
            if entries.by_key.contains_key(&key) {
                self.warn(key, "assigned again while this worker holds it, goes on as it is");
                continue;
            }
            let (settings, outbox) = (Arc::clone(&entries.settings), Arc::clone(&self.outbox));
            let (alarm, timeout_ms) = (Arc::clone(&self.alarm), assignment.timeout_ms);
            let state = AttemptState::new(key, settings, outbox, alarm, timeout_ms, now);
            wake_at = state.deadline().map_or(wake_at, |deadline| deadline.min(wake_at));
            let state = Arc::new(state);
            let entry = Entry { state: Arc::clone(&state), finished: None, file: None };
            entries.by_key.insert(key, entry);
            entries.running += 1;
            if let Some(reason) = entries.leaving {
                let outcome = Outcome::Released { reason: reason.to_owned() };
                state.end();
                self.settle(&mut entries, key, outcome, Usage::default());
                continue;
            }
            let (id, attempt) = key;
            let Assignment { payload, checkpoint, .. } = assignment;
            let job = Job { id, attempt, job_type: self.job_type.clone(), payload, checkpoint };
            tasks.push(Task { state, job });
        }
        drop(entries);
        self.alarm.set(wake_at);
        tasks
    }

    /// Ends an attempt with what its workload returned.
    pub(crate) fn finish(&self, state: &AttemptState, returned: Returned) {
        let (stop, usage) = state.end();
        let outcome = outcome_of(returned, stop, state.timeout_ms);
        self.settle(&mut self.lock(), state.key, outcome, usage);
    }

    fn settle(&self, entries: &mut Entries, key: Key, outcome: Outcome, usage: Usage) {
        let (job, attempt) = key;
        let finished = WorkerMessage::Finished { job, attempt, outcome, usage };
        self.outbox.send(&finished);
        if let Some(entry) = entries.by_key.get_mut(&key) {
            entry.finished = Some(finished);
        }
        entries.running -= 1;
        if entries.is_orphaned {
            self.outcomes.wake();
        }
        self.tell_when_done(entries);
    }

    pub(crate) fn on_recorded(&self, receipts: &[Receipt]) {
        let mut entries = self.lock();
        let mut files = Vec::new();
        for receipt in receipts {
            let key = (receipt.job, receipt.attempt);
            match receipt.of {
                ReceiptOf::Outcome => {
                    let is_finished = |entry: &Entry| entry.finished.is_some();
                    if entries.by_key.get(&key).is_some_and(is_finished) {
                        let entry = entries.by_key.remove(&key);
                        files.extend(entry.and_then(|entry| entry.file));
                    }
                }
                ReceiptOf::Checkpoint => {
                    let Some(entry) = entries.by_key.get(&key) else { continue };
                    let state = Arc::clone(&entry.state);
                    if receipt.stale {
                        // First: its workload returns as soon as it knows of the receipt.
                        self.stop_state(&mut entries, &state, StopReason::Released);
                    }
                    state.on_checkpoint_recorded(receipt.stale);
                }
            }
        }
        drop(entries);
        // Before the worker may go: nobody else looks for a file of a job that is settled.
        self.outcomes.remove(&files);
        self.tell_when_done(&self.lock());
    }

    /// Stops one attempt; an unknown one was finished or never came here.
    pub(crate) fn stop(&self, key: Key, reason: StopReason) {
        let mut entries = self.lock();
        let Some(entry) = entries.by_key.get(&key).filter(|entry| entry.finished.is_none()) else {
            return;
        };
        let state = Arc::clone(&entry.state);
        self.stop_state(&mut entries, &state, reason);
    }

    fn stop_state(&self, entries: &mut Entries, state: &AttemptState, reason: StopReason) {
        if state.stop(reason) {
            let stopped = Returned::NotRun;
            let outcome = outcome_of(stopped, Some(reason), state.timeout_ms);
            self.settle(entries, state.key, outcome, Usage::default());
        }
    }

    /// Takes nothing new from now on; the main thread hears when the rest is done.
    pub(crate) fn leave(&self, reason: &'static str) {
        let mut entries = self.lock();
        entries.leaving = Some(reason);
        self.tell_when_done(&entries);
    }

    /// Stops everything that runs, because the worker leaves.
    pub(crate) fn release_all(&self) {
        let mut entries = self.lock();
        let states: Vec<_> = entries
            .by_key
            .values()
            .filter(|entry| entry.finished.is_none())
            .map(|entry| Arc::clone(&entry.state))
            .collect();
        for state in states {
            self.stop_state(&mut entries, &state, StopReason::Released);
            state.wake();
        }
    }

    fn tell_when_done(&self, entries: &Entries) {
        if entries.leaving.is_none() || entries.running > 0 {
            return;
        }
        let event = if entries.by_key.is_empty() { Event::Settled } else { Event::Ended };
        // The main thread may have left already: then nobody needs to know.
        let _ = self.events.send(event);
    }

    /// Looks after every attempt; `None` when there is none, else when to look again.
    pub(crate) fn on_timer(&self, now: Instant) -> Option<Option<Instant>> {
        let mut entries = self.lock();
        if entries.by_key.is_empty() {
            return None;
        }
        let mut next: Option<Instant> = None;
        let mut late = Vec::new();
        for entry in entries.by_key.values().filter(|entry| entry.finished.is_none()) {
            let (at, is_late) = entry.state.on_timer(now);
            next = next.min(at).or(next).or(at);
            late.extend(is_late.then(|| Arc::clone(&entry.state)));
        }
        for state in late {
            self.stop_state(&mut entries, &state, StopReason::Timeout);
        }
        Some(next)
    }

    /// True when nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().by_key.is_empty()
    }

    pub(crate) fn send_heartbeat(&self) {
        self.outbox.send(&WorkerMessage::Heartbeat);
    }

    fn warn(&self, key: Key, text: &str) {
        let text = format!("attempt {} {text}", key.1);
        let message = WorkerMessage::Log { level: LogLevel::Warn, job: Some(key.0), text };
        self.outbox.send_unless_full(&message);
    }
}
