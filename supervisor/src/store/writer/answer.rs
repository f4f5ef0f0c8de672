//! Working an operation out inside the group's transaction, and answering it after the commit.

use super::{DEFERRED_WAIT, Queued, Writer};
use crate::os::failpoint::{self, Place};
use crate::policy::claim::Taken;
use crate::store::change::{ROWS_MAX, enqueue, instances, moves, prune, requests, take};
use crate::store::connection::Db;
use crate::store::error::{Error, chain};
use crate::store::op::{Event, Moved, Op, Parcel};
use shiftboss_protocol::control::ActionTaken;
use shiftboss_protocol::job::{JobId, JobState};
use std::time::Instant;

/// What came of an operation; each kind fills in its own part.
#[derive(Debug, Default)]
pub(super) struct Answer {
    taken: Taken,
    parcels: Vec<Parcel>,
    moved: Vec<Moved>,
    /// Inserted, deleted, or running and to be cancelled.
    jobs: Vec<JobId>,
    actions: Vec<ActionTaken>,
    adopted: Vec<bool>,
    rescued: usize,
    is_stale: bool,
}

impl Answer {
    /// The answer to a look that claimed nothing.
    pub(super) fn found(taken: Taken) -> Self {
        Self { taken, ..Self::default() }
    }

    /// Does the operation's work; nothing is committed.
    pub(super) fn work_out(db: &Db, us: &str, queued: &Queued) -> Result<Self, Error> {
        let mut answer = Self::default();
        match &queued.op {
            Op::Enqueue(jobs, _) => answer.jobs = enqueue::enqueue(db, jobs)?,
            Op::Take(request) => (answer.taken, answer.parcels) = take::take(db, us, request)?,
            Op::Move(moves) => answer.moved = moves::apply(db, us, moves)?,
            Op::Progress(rows) => moves::progress(db, us, rows)?,
            Op::Confined { job, attempt, confinement } => {
                moves::confined(db, us, (*job, *attempt), confinement)?;
            }
            Op::Checkpoint { job, attempt, data } => {
                answer.is_stale = !moves::checkpoint(db, us, (*job, *attempt), data)?;
            }
            Op::Cancel(ids, _) => {
                let cancelled = requests::cancel(db, Some(us), ids)?;
                (answer.actions, answer.jobs) = (cancelled.actions, cancelled.ours);
            }
            Op::Retry(ids, _) => answer.actions = requests::retry(db, ids)?,
            Op::Resolve(id, how, _) => answer.actions = vec![requests::resolve(db, *id, how)?],
            Op::Adopt(adoptions, _) => answer.adopted = instances::adopt(db, us, adoptions)?,
            Op::Rescue(dead, _) => answer.rescued = instances::rescue(db, dead)?,
            Op::Pause { job_type, paused, reply: _ } => requests::pause(db, job_type, *paused)?,
            Op::Prune { succeeded_before, failed_before, cancelled_before } => {
                let before = [
                    (JobState::Succeeded, *succeeded_before),
                    (JobState::Failed, *failed_before),
                    (JobState::Cancelled, *cancelled_before),
                ];
                answer.jobs = prune::prune(db, before)?;
            }
            // Never queued: they change no rows.
            Op::Touched | Op::Stop => {}
        }
        Ok(answer)
    }
}

impl Writer {
    /// Answers an operation whose commit is certain, or that failed by itself.
    pub(super) fn deliver(&mut self, queued: Queued, answer: Result<Answer, Error>) {
        match answer {
            Ok(answer) => self.confirm(queued, answer),
            Err(error) => self.on_refused(queued.op, error),
        }
    }

    fn confirm(&mut self, queued: Queued, answer: Answer) {
        match queued.op {
            Op::Enqueue(_, reply) => {
                reply(Ok(answer.jobs));
                self.send(Event::OwnRows);
            }
            Op::Take(_) => {
                if !answer.taken.jobs.is_empty() {
                    failpoint::reach(Place::Claimed);
                }
                self.send(Event::Taken(answer.taken, answer.parcels));
            }
            Op::Move(_) => {
                failpoint::reach(Place::Stored);
                self.send(Event::Moved(answer.moved));
            }
            Op::Checkpoint { job, attempt, data: _ } => {
                let stale = answer.is_stale;
                self.send(Event::CheckpointStored { job, attempt, stale });
            }
            Op::Cancel(_, reply) => {
                let any = answer.actions.iter().any(|action| action.ok);
                reply(Ok(answer.actions));
                if !answer.jobs.is_empty() {
                    self.send(Event::CancelRequested(answer.jobs));
                }
                if any {
                    // Jobs that waited are over now, and whoever watches them must learn of it.
                    self.send(Event::OwnRows);
                }
            }
            Op::Retry(_, reply) | Op::Resolve(_, _, reply) => {
                let any = answer.actions.iter().any(|action| action.ok);
                reply(Ok(answer.actions));
                if any {
                    self.send(Event::OwnRows);
                }
            }
            Op::Adopt(_, reply) => reply(Ok(answer.adopted)),
            Op::Rescue(dead, reply) => {
                let rescued = queued.rescued + answer.rescued as u64;
                if answer.rescued >= ROWS_MAX {
                    // Behind what others queued meanwhile.
                    let again = Queued::new(Op::Rescue(dead, reply));
                    self.queue.push_back(Queued { rescued, ..again });
                } else {
                    reply(Ok(rescued));
                    self.send(Event::OwnRows);
                }
            }
            Op::Pause { reply, .. } => reply(Ok(())),
            Op::Prune { .. } => self.send(Event::Pruned(answer.jobs)),
            Op::Progress(_) | Op::Confined { .. } | Op::Touched | Op::Stop => {}
        }
    }

    /// The table refused the operation itself; nothing of it was stored.
    fn on_refused(&mut self, op: Op, error: Error) {
        let reason = chain(&error);
        match op {
            Op::Enqueue(_, reply) => reply(Err(error)),
            Op::Cancel(_, reply) | Op::Retry(_, reply) | Op::Resolve(_, _, reply) => {
                reply(Err(error));
            }
            Op::Adopt(_, reply) => reply(Err(error)),
            Op::Rescue(_, reply) => reply(Err(error)),
            Op::Pause { reply, .. } => reply(Err(error)),
            Op::Take(_) => {
                tracing::error!(reason, "cannot claim jobs, looking again at the next poll");
                self.send(Event::Taken(Taken::default(), Vec::new()));
            }
            Op::Move(moves) if moves.len() > 1 => {
                for one in moves.into_iter().rev() {
                    self.queue.push_front(Queued::new(Op::Move(vec![one])));
                }
            }
            Op::Move(_) | Op::Checkpoint { .. } if self.stop_by.is_some() => refuse(op),
            Op::Move(_) | Op::Checkpoint { .. } => {
                tracing::error!(reason, "the job table refuses an outcome, trying again in 1 s");
                self.deferred.push((Instant::now() + DEFERRED_WAIT, op));
            }
            Op::Progress(_) => tracing::warn!(reason, "progress was not stored"),
            Op::Confined { job, .. } => {
                tracing::warn!(reason, job = job.0, "the confinement was not stored");
            }
            Op::Prune { .. } => {
                tracing::error!(reason, "cannot delete old jobs, trying again at the next time");
                self.send(Event::Pruned(Vec::new()));
            }
            Op::Touched | Op::Stop => {}
        }
    }
}

/// True when a client waits for the answer.
pub(super) fn is_request(op: &Op) -> bool {
    match op {
        Op::Enqueue(..) | Op::Cancel(..) | Op::Retry(..) | Op::Resolve(..) | Op::Pause { .. } => {
            true
        }
        Op::Take(_)
        | Op::Move(_)
        | Op::Progress(_)
        | Op::Confined { .. }
        | Op::Checkpoint { .. }
        | Op::Adopt(..)
        | Op::Rescue(..)
        | Op::Touched
        | Op::Prune { .. }
        | Op::Stop => false,
    }
}

/// Answers a client's request with an error; a second answer goes nowhere.
pub(super) fn give_up(op: &mut Op, error: Error) {
    match op {
        Op::Enqueue(_, reply) => std::mem::replace(reply, Box::new(drop))(Err(error)),
        Op::Cancel(_, reply) | Op::Retry(_, reply) | Op::Resolve(_, _, reply) => {
            std::mem::replace(reply, Box::new(drop))(Err(error));
        }
        Op::Pause { reply, .. } => std::mem::replace(reply, Box::new(drop))(Err(error)),
        Op::Take(_)
        | Op::Move(_)
        | Op::Progress(_)
        | Op::Confined { .. }
        | Op::Checkpoint { .. }
        | Op::Adopt(..)
        | Op::Rescue(..)
        | Op::Touched
        | Op::Prune { .. }
        | Op::Stop => {}
    }
}

/// Answers an operation that came too late.
pub(super) fn refuse(op: Op) {
    match op {
        Op::Enqueue(_, reply) => reply(Err(Error::Stopped)),
        Op::Cancel(_, reply) | Op::Retry(_, reply) | Op::Resolve(_, _, reply) => {
            reply(Err(Error::Stopped));
        }
        Op::Adopt(_, reply) => reply(Err(Error::Stopped)),
        Op::Rescue(_, reply) => reply(Err(Error::Stopped)),
        Op::Pause { reply, .. } => reply(Err(Error::Stopped)),
        Op::Move(moves) => {
            for one in moves {
                tracing::error!(
                    job = one.job.0,
                    attempt = one.attempt.0,
                    "outcome was not stored before the stop: its worker keeps it"
                );
            }
        }
        Op::Checkpoint { job, attempt, data: _ } => {
            tracing::error!(
                job = job.0,
                attempt = attempt.0,
                "checkpoint was not stored before the stop: its worker keeps it"
            );
        }
        Op::Take(_)
        | Op::Progress(_)
        | Op::Confined { .. }
        | Op::Prune { .. }
        | Op::Touched
        | Op::Stop => {}
    }
}
