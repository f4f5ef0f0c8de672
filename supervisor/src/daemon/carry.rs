//! Carries out what the policy decided.

use super::Daemon;
use crate::policy::claim::{TakeRequest, WorkerId};
use crate::policy::event::{Action, Event, Notice};
use crate::store::op::Op;
use shiftboss_protocol::frame;
use shiftboss_protocol::job::{Attempt, Cause, Failure, JobId, Outcome, Usage};
use shiftboss_protocol::message::{Assignment, SupervisorMessage};

/// Bytes of assignments sent in one frame: well below the frame's own limit.
const BATCH_BYTES: usize = frame::FRAME_BYTES_MAX / 2;

/// What one assignment takes besides its texts, bytes, rounded up.
const ENVELOPE_BYTES: usize = 64;

impl Daemon {
    pub(super) fn carry_out(&mut self, action: Action) {
        super::note(&action);
        match action {
            Action::Take(request) => self.fleet.take = Some(request),
            Action::Spawn { worker, job_type, slot } => {
                let event = match self.spawn(worker, &job_type, slot) {
                    Ok(pid) => Event::WorkerSpawned { worker, pid },
                    Err(reason) => Event::SpawnFailed { worker, reason },
                };
                self.pending.push_back(event);
            }
            Action::Assign { worker, jobs } => {
                for (job, attempt, _) in &jobs {
                    self.note_throttling(worker, (*job, *attempt));
                }
                self.watch_memory(worker);
                self.assign(worker, &jobs);
            }
            Action::Stop { worker, job, attempt, reason } => {
                self.send(worker, &SupervisorMessage::Cancel { job, attempt, reason });
            }
            Action::DrainWorker(worker) => self.send(worker, &SupervisorMessage::Drain),
            Action::TerminateWorker(worker) => self.fleet.terminate(worker),
            Action::KillWorker(worker) => self.fleet.kill(worker),
            Action::Move(mut one) => {
                one.record.throttled_ms = self.throttled_ms((one.job, one.attempt));
                self.moves.push(one);
            }
            Action::Record { worker, receipts } => {
                self.send(worker, &SupervisorMessage::Recorded { receipts });
            }
            Action::Notice(notice) => {
                if matches!(notice, Notice::BreakerOpened { .. } | Notice::BreakerClosed(_)) {
                    // Why jobs wait has changed, and watchers are told why.
                    self.live.all_changed();
                }
                super::tell::tell(&notice);
            }
            Action::Exit => self.exiting = true,
        }
    }

    pub(super) fn flush_take(&mut self) {
        if let Some(request) = self.fleet.take.take() {
            self.store.send(Op::Take(request));
        }
    }

    fn assign(&mut self, worker: WorkerId, jobs: &[(JobId, Attempt, u64)]) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for (job, attempt, timeout_ms) in jobs {
            let parcel = self.parcels.remove(job).unwrap_or_default();
            let checkpoint = parcel.checkpoint;
            let size = parcel.payload.len() + checkpoint.as_ref().map_or(0, Vec::len);
            if parcel.payload.len() > frame::TEXT_BYTES_MAX {
                self.refuse_payload(worker, *job, *attempt, parcel.payload.len());
                continue;
            }
            if bytes + size + ENVELOPE_BYTES > BATCH_BYTES && !batch.is_empty() {
                self.send(worker, &SupervisorMessage::Assign { jobs: std::mem::take(&mut batch) });
                bytes = 0;
            }
            bytes += size + ENVELOPE_BYTES;
            let (job, attempt, timeout_ms) = (*job, *attempt, *timeout_ms);
            let payload = parcel.payload;
            batch.push(Assignment { job, attempt, payload, checkpoint, timeout_ms });
        }
        if !batch.is_empty() {
            self.send(worker, &SupervisorMessage::Assign { jobs: batch });
        }
    }

    /// A payload that fits no frame fails here, as it would in a worker that could read it.
    fn refuse_payload(&mut self, worker: WorkerId, job: JobId, attempt: Attempt, bytes: usize) {
        let text = format!(
            "payload has {bytes} bytes, at most {} are allowed: put large data into a file and \
             name it",
            frame::TEXT_BYTES_MAX
        );
        let outcome = Outcome::Failed(Failure::permanent(Cause::Payload, text));
        let usage = Usage::default();
        self.pending.push_back(Event::Finished { worker, job, attempt, outcome, usage });
    }

    /// Sends a message; a worker that cannot be reached or does not read is reported.
    pub(super) fn send(&mut self, worker: WorkerId, message: &SupervisorMessage) {
        if let Err(reason) = self.fleet.send(worker, message) {
            self.pending.push_back(Event::WorkerBroken { worker, reason });
        }
    }
}

/// Kept with the fleet: the policy has at most one look under way.
pub(super) type PendingTake = Option<TakeRequest>;
