//! What reaches the daemon besides messages of workers and clients.

mod trouble;

pub(super) use trouble::Trouble;

use super::fleet::recovery::Recovery;
use super::{Daemon, Leaving};
use crate::os::signals::{Request as SignalRequest, Signal};
use crate::policy::claim::WorkerId;
use crate::policy::event::{DrainLimit, Event, MemoryUsed};
use crate::store::op::Event as StoreEvent;
use shiftboss_protocol::control::Response;
use shiftboss_protocol::job::JobId;
use shiftboss_protocol::message::{Receipt, ReceiptOf, SupervisorMessage};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::mpsc;

/// Something that happened.
pub(super) enum Input {
    /// The store reports.
    Store(StoreEvent),
    /// A signal came.
    Signal(Signal),
    /// A worker's process ended.
    Ended(WorkerId),
    /// What a dead worker had started was looked for; these processes do not end.
    Swept(WorkerId, Vec<u32>),
    /// The memory of workers and their programs was looked at.
    MemoryUsed(Vec<(WorkerId, MemoryUsed)>),
    /// What dead supervisors of these names left was looked at.
    Recovered(BTreeSet<String>, Box<Recovery>),
    /// A row was read for a client; live facts are added before it goes out.
    Row(serde_json::Value, mpsc::Sender<Response>),
    /// Rows were read for a watcher.
    Rows(u64, BTreeMap<JobId, Option<serde_json::Value>>),
    /// The counts of waiting jobs were read, by type.
    Types(BTreeMap<String, i64>, mpsc::Sender<Response>),
    /// What the workers use was read, by process.
    Usage(BTreeMap<u32, crate::os::host::Usage>, mpsc::Sender<Response>),
    /// A type was paused or resumed, and that is stored.
    Paused(String, bool),
}

impl Daemon {
    pub(super) fn on_input(&mut self, input: Input) {
        match input {
            Input::Store(event) => self.on_store(event),
            Input::Signal(signal) => self.on_signal(&signal),
            Input::Ended(worker) => self.on_process_ended(worker),
            Input::Swept(worker, left) => self.on_swept(worker, &left),
            Input::MemoryUsed(looked) => self.on_memory_used(looked),
            Input::Recovered(names, recovery) => self.on_recovered(&names, *recovery),
            Input::Row(row, reply) => self.answer_row(row, &reply),
            Input::Rows(watcher, rows) => self.answer_watcher(watcher, rows),
            Input::Types(waiting, reply) => self.answer_types(&waiting, &reply),
            Input::Usage(usage, reply) => self.answer_workers(&usage, &reply),
            Input::Paused(name, true) => self.handle(Event::Pause(name.as_str().into())),
            Input::Paused(name, false) => self.handle(Event::Resume(name.as_str().into())),
        }
    }

    fn on_store(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Taken(taken, parcels) => {
                self.live.changed(taken.jobs.iter().map(|job| job.job));
                if taken.promoted > 0 || taken.unknown_failed > 0 {
                    self.live.all_changed();
                }
                self.parcels.extend(taken.jobs.iter().map(|job| job.job).zip(parcels));
                self.handle(Event::Taken(taken));
            }
            StoreEvent::Moved(moved) => {
                self.retention.look_at_kept();
                self.live.ended(moved.iter().map(|one| one.job));
                self.fleet.forget_written(moved.iter().map(|one| (one.job, one.attempt)));
                self.handle(Event::Moved(moved));
            }
            StoreEvent::CheckpointStored { job, attempt, stale } => {
                let receipt = Receipt { job, attempt, of: ReceiptOf::Checkpoint, stale };
                if let Some(run) = self.crew.run_view(self.clock.now(), job) {
                    let message = SupervisorMessage::Recorded { receipts: vec![receipt] };
                    self.send(run.worker, &message);
                }
            }
            StoreEvent::OwnRows => {
                self.live.all_changed();
                self.handle(Event::OwnRows);
            }
            StoreEvent::Changed { running } => {
                self.retention.look_at_kept();
                self.live.all_changed();
                self.handle(Event::TableChanged(running));
            }
            StoreEvent::CancelRequested(jobs) => {
                self.live.changed(jobs.iter().copied());
                self.handle(Event::CancelAsked(jobs));
            }
            StoreEvent::Pruned(jobs) => self.on_pruned(jobs),
            StoreEvent::Trouble { text, needs_a_hand } => self.on_trouble(text, needs_a_hand),
            StoreEvent::TroubleOver(after_ms) => {
                tracing::info!(after_ms, "the database can be written again; no outcome was lost");
                self.trouble = None;
            }
        }
    }

    fn on_signal(&mut self, signal: &Signal) {
        match signal.request {
            SignalRequest::Reload => {
                self.reload(&signal.text);
            }
            SignalRequest::HandOver => self.hand_over(&signal.text, Leaving::HandOver),
            SignalRequest::Stop => {
                self.stops += 1;
                match self.stops {
                    1 => {
                        tracing::info!(
                            by = signal.text,
                            "stopping: running jobs get their grace; a second signal hurries"
                        );
                        self.handle(Event::Drain(DrainLimit::Grace));
                    }
                    2 => {
                        tracing::warn!(
                            by = signal.text,
                            "hurrying: running jobs are stopped and go back to the table; a third \
                             signal kills their workers"
                        );
                        self.handle(Event::Hurry);
                    }
                    _ => {
                        tracing::warn!(by = signal.text, "killing all workers");
                        self.handle(Event::Hurry);
                    }
                }
            }
        }
    }
}
