//! Simulated workers: what a job does in one, and how one answers its supervisor.

use crate::policy::claim::WorkerId;
use crate::policy::event::{Event, Exit};
use shiftboss_protocol::job::{Attempt, Cause, Failure, JobId, Outcome, Usage};
use shiftboss_protocol::message::StopReason;
use std::collections::{BTreeMap, BTreeSet};

/// What an attempt does in its worker; times in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Does {
    Succeed(u64),
    Fail(u64, Failure),
    Hold(u64),
    /// Kills its worker.
    Crash(u64),
    /// Never ends and makes no progress, but stops when it is told to.
    Hang,
    /// Never ends, and does not stop when it is told to.
    IgnoreStop,
    /// Stops its whole worker from saying or hearing anything.
    Mute(u64),
}

/// How a process starts.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Boot {
    Ready(u64),
    FailsToSpawn,
    Dies(u64),
    NeverReady,
}

/// What a process is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Order {
    Assign(Vec<(JobId, Attempt)>),
    Stop(JobId, Attempt, StopReason),
    Drain,
    Terminate,
    Kill,
    Forget(JobId, Attempt),
}

/// What a process does by itself later.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Tell(Event),
    Act(JobId, Attempt),
    Beat,
    Die(Exit),
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) job_type: String,
    pub(super) room: u32,
    pub(super) ready_known: bool,
    pub(super) told_to_go: bool,
    pub(super) alive: bool,
    /// Ignores everything but SIGKILL.
    pub(super) stubborn: bool,
    pub(super) mute: bool,
    /// Does its jobs, but does not go when it is told to.
    pub(super) stays: bool,
    pub(super) held: BTreeMap<JobId, Attempt>,
    pub(super) draining: bool,
    beats: bool,
    unrecorded: BTreeSet<(JobId, Attempt)>,
}

impl Process {
    pub(super) fn new(job_type: &str, room: u32) -> Self {
        Self {
            job_type: job_type.to_owned(),
            room,
            ready_known: false,
            told_to_go: false,
            alive: true,
            stubborn: false,
            mute: false,
            stays: false,
            held: BTreeMap::new(),
            draining: false,
            beats: false,
            unrecorded: BTreeSet::new(),
        }
    }

    /// Answers an order; each step comes after its delay in milliseconds.
    pub(super) fn obey(
        &mut self,
        id: WorkerId,
        order: Order,
        plan: &dyn Fn(JobId, Attempt) -> Does,
    ) -> Vec<(u64, Step)> {
        let mut steps = Vec::new();
        if order == Order::Kill {
            steps.push((1, Step::Die(Exit { signal: Some(9), ..Exit::default() })));
            return steps;
        }
        if !self.alive || self.stubborn || self.mute {
            return steps;
        }
        match order {
            Order::Assign(jobs) => {
                for (job, attempt) in jobs {
                    self.held.insert(job, attempt);
                    let after = match plan(job, attempt) {
                        Does::Succeed(ms) | Does::Hold(ms) | Does::Crash(ms) | Does::Mute(ms) => ms,
                        Does::Fail(ms, _) => ms,
                        Does::Hang | Does::IgnoreStop => continue,
                    };
                    steps.push((after, Step::Act(job, attempt)));
                }
                if !self.beats {
                    self.beats = true;
                    steps.push((5_000, Step::Beat));
                }
            }
            Order::Stop(job, attempt, reason) => {
                let obeys = plan(job, attempt) != Does::IgnoreStop;
                if obeys && self.held.get(&job) == Some(&attempt) {
                    steps.extend(self.end(id, job, attempt, stopped(reason)));
                }
            }
            Order::Drain => self.draining = true,
            Order::Terminate => {
                self.draining = true;
                for (job, attempt) in self.held.clone() {
                    let reason = "stopped".to_owned();
                    steps.extend(self.end(id, job, attempt, Outcome::Released { reason }));
                }
            }
            Order::Forget(job, attempt) => {
                self.unrecorded.remove(&(job, attempt));
            }
            Order::Kill => {}
        }
        steps.extend(self.leave());
        steps
    }

    /// Its time has come: what the attempt does.
    pub(super) fn act(
        &mut self,
        id: WorkerId,
        job: JobId,
        attempt: Attempt,
        does: Does,
    ) -> Vec<(u64, Step)> {
        if !self.alive || self.mute || self.held.get(&job) != Some(&attempt) {
            return Vec::new();
        }
        let outcome = match does {
            Does::Succeed(_) => Outcome::Succeeded { result: "{}".to_owned() },
            Does::Fail(_, failure) => Outcome::Failed(failure),
            Does::Hold(_) => Outcome::Held { reason: "unknown".to_owned() },
            Does::Crash(_) => {
                return vec![(0, Step::Die(Exit { signal: Some(11), ..Exit::default() }))];
            }
            Does::Mute(_) => {
                self.mute = true;
                return Vec::new();
            }
            Does::Hang | Does::IgnoreStop => return Vec::new(),
        };
        let mut steps = self.end(id, job, attempt, outcome);
        steps.extend(self.leave());
        steps
    }

    pub(super) fn beat(
        &mut self,
        id: WorkerId,
        plan: &dyn Fn(JobId, Attempt) -> Does,
    ) -> Vec<(u64, Step)> {
        self.beats = self.alive && !self.mute && !self.held.is_empty();
        if !self.beats {
            return Vec::new();
        }
        let mut steps = vec![(1, Step::Tell(Event::WorkerHeard(id))), (5_000, Step::Beat)];
        for (job, attempt) in &self.held {
            if !matches!(plan(*job, *attempt), Does::Hang | Does::IgnoreStop) {
                let (worker, job, attempt) = (id, *job, *attempt);
                steps.push((1, Step::Tell(Event::Progress { worker, job, attempt })));
            }
        }
        steps
    }

    fn end(
        &mut self,
        worker: WorkerId,
        job: JobId,
        attempt: Attempt,
        outcome: Outcome,
    ) -> Vec<(u64, Step)> {
        self.held.remove(&job);
        self.unrecorded.insert((job, attempt));
        let usage = Usage::default();
        vec![(1, Step::Tell(Event::Finished { worker, job, attempt, outcome, usage }))]
    }

    /// A worker that drains exits when it holds nothing and every outcome is recorded.
    fn leave(&self) -> Option<(u64, Step)> {
        let done =
            self.draining && !self.stays && self.held.is_empty() && self.unrecorded.is_empty();
        done.then(|| (2, Step::Die(Exit { code: Some(0), ..Exit::default() })))
    }
}

fn stopped(reason: StopReason) -> Outcome {
    match reason {
        StopReason::Cancelled => Outcome::Cancelled,
        StopReason::Timeout => Outcome::Failed(Failure::retryable(Cause::Timeout, "timed out")),
        StopReason::Stalled => Outcome::Failed(Failure::retryable(Cause::Stalled, "stalled")),
        StopReason::Released => Outcome::Released { reason: "released".to_owned() },
    }
}
