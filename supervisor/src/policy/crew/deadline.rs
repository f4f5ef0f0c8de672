//! All timers of the crew: one ordered set, each entry removed when its reason ends.

use super::Crew;
use crate::policy::claim::{TypeName, WorkerId};
use crate::policy::event::{Action, Notice};
use crate::policy::machine::run::RunEvent;
use crate::policy::machine::worker::WorkerEvent;
use crate::policy::time::Now;
use shiftboss_protocol::job::JobId;
use shiftboss_protocol::message::StopReason;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a timer is for; at most one of each exists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Ready must have come, or the next step of stopping is due.
    Worker(WorkerId),
    /// The worker must have been heard.
    Silence(WorkerId),
    /// The idle worker may be retired.
    Spare(WorkerId),
    /// The worker has been ready long enough to be called healthy.
    Health(WorkerId),
    /// The attempt has run as long as it may.
    Timeout(JobId),
    /// The attempt must have made progress.
    Stall(JobId),
    /// The attempt must have stopped.
    Stop(JobId),
    /// Workers of the type may be started again.
    Restart(TypeName),
}

/// The timers, ordered by time and found by reason.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    at: BTreeSet<(Duration, Timer)>,
    of: BTreeMap<Timer, Duration>,
}

impl Deadlines {
    /// Sets or moves a timer.
    pub(super) fn arm(&mut self, at: Duration, timer: Timer) {
        self.disarm(&timer);
        self.of.insert(timer.clone(), at);
        self.at.insert((at, timer));
    }

    /// Removes a timer, if it is set.
    pub(super) fn disarm(&mut self, timer: &Timer) {
        if let Some(at) = self.of.remove(timer) {
            self.at.remove(&(at, timer.clone()));
        }
    }

    /// True while the timer is set.
    pub(super) fn is_set(&self, timer: &Timer) -> bool {
        self.of.contains_key(timer)
    }

    /// How many timers are set.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.at.len()
    }

    fn first(&self) -> Option<Duration> {
        self.at.first().map(|(at, _)| *at)
    }

    fn pop_due(&mut self, now: Duration) -> Option<Timer> {
        if self.first()? > now {
            return None;
        }
        let (_, timer) = self.at.pop_first()?;
        self.of.remove(&timer);
        Some(timer)
    }
}

/// A silent worker that holds attempts is called late after three heartbeats.
const LATE_AFTER: Duration = Duration::from_secs(15);

/// ... and is killed after six.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(30);

const _: () = assert!(
    LATE_AFTER.as_secs() >= 3 * shiftboss_protocol::message::HEARTBEAT_SECONDS,
    "one lost heartbeat must not make a worker late"
);

/// Longest sleep before a `run_at` is compared with the wall clock again: it may jump.
const WALL_CHECK: Duration = Duration::from_secs(60);

/// Kill signals are repeated while a process does not go.
const KILL_AGAIN: Duration = Duration::from_secs(5);

impl Crew {
    /// The moment at which [`super::Event::Deadline`] must be handled, at the latest.
    #[must_use]
    pub fn next_deadline(&self, now: Now) -> Option<Duration> {
        let mut next = self.deadlines.first();
        if self.may_look() && !self.look.in_flight {
            next = sooner(next, self.poll.next());
            if let Some(due) = self.next_due_ms {
                next = sooner(next, now.mono + now.until(due).min(WALL_CHECK));
            }
            if let Some(warm) = self.warm_start() {
                next = sooner(next, warm);
            }
        }
        next
    }

    pub(super) fn fire_deadlines(&mut self, now: Now, out: &mut Vec<Action>) {
        while let Some(timer) = self.deadlines.pop_due(now.mono) {
            match timer {
                Timer::Worker(worker) => self.on_grace_over(now, worker, out),
                Timer::Silence(worker) => self.on_silence(now, worker, out),
                Timer::Spare(_) | Timer::Restart(_) => {}
                Timer::Health(worker) => self.on_healthy(worker, out),
                Timer::Timeout(job) => self.stop_run(now, job, StopReason::Timeout, out),
                Timer::Stall(job) => self.on_stall(now, job, out),
                Timer::Stop(job) => self.run_event(now, job, RunEvent::GraceOver, out),
            }
        }
        if !self.may_look() {
            return;
        }
        if self.next_due_ms.is_some_and(|due| due <= now.unix_ms) {
            self.next_due_ms = None;
            self.want_look();
        }
        if self.poll.next() <= now.mono && !self.look.in_flight {
            self.poll.on_poll(now.mono);
            self.look.by_poll = !self.look.wanted;
            self.want_look();
        }
    }

    /// Gives `worker` time until its next step.
    pub(super) fn arm_grace(&mut self, now: Now, worker: WorkerId, grace: Duration) {
        self.deadlines.arm(now.mono + grace, Timer::Worker(worker));
    }

    fn on_grace_over(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Action>) {
        let Some(one) = self.workers.get_mut(&worker) else { return };
        if one.state == super::worker::WorkerState::Starting {
            let missing = if one.greeted { "become ready" } else { "say Hello" };
            one.end_cause.get_or_insert_with(|| format!("it did not {missing} in time"));
        }
        if one.state == super::worker::WorkerState::Returning {
            one.end_cause.get_or_insert_with(|| "it did not find its new supervisor".to_owned());
        }
        self.worker_event(now, worker, WorkerEvent::GraceOver, out);
    }

    /// Sets the timer of the step that a worker has just entered.
    pub(super) fn arm_step(&mut self, now: Now, worker: WorkerId) {
        use super::worker::WorkerState as S;
        let Some(one) = self.workers.get(&worker) else { return };
        match one.state {
            // Set where it is started or found, and where it is told to drain.
            S::Starting | S::Returning | S::Draining => {}
            S::Idle | S::Busy | S::Gone => self.deadlines.disarm(&Timer::Worker(worker)),
            S::Stopping => {
                // The worker gives its programs the same grace; it needs a little more itself.
                let grace = self.type_settings_of(worker).grace.term + super::run::STOP_MARGIN;
                self.arm_grace(now, worker, grace);
            }
            S::Killing => self.arm_grace(now, worker, KILL_AGAIN),
        }
    }

    /// The worker got its first attempt: from now on it must be heard.
    pub(super) fn arm_silence(&mut self, now: Now, worker: WorkerId) {
        self.deadlines.arm(now.mono + LATE_AFTER, Timer::Silence(worker));
    }

    fn on_silence(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Action>) {
        let Some(one) = self.workers.get_mut(&worker) else { return };
        if one.attempts.is_empty() {
            return;
        }
        let silent = now.mono.saturating_sub(one.heard);
        if silent < LATE_AFTER {
            let at = one.heard + LATE_AFTER;
            self.deadlines.arm(at, Timer::Silence(worker));
        } else if silent < DEAD_AFTER {
            out.push(Action::Notice(Notice::Late { worker, silent }));
            let at = one.heard + DEAD_AFTER;
            self.deadlines.arm(at, Timer::Silence(worker));
        } else {
            let sentence = format!("it gave no sign of life for {} s", silent.as_secs());
            one.end_cause.get_or_insert(sentence);
            self.worker_event(now, worker, WorkerEvent::Kill, out);
        }
    }

    fn on_stall(&mut self, now: Now, job: JobId, out: &mut Vec<Action>) {
        let Some(run) = self.runs.get(&job) else { return };
        let Some(limit) = run.stall_timeout else { return };
        // The timer is not moved with every progress, only looked at again when it fires.
        let due = run.progress_at + limit;
        if due > now.mono {
            self.deadlines.arm(due, Timer::Stall(job));
        } else {
            self.stop_run(now, job, StopReason::Stalled, out);
        }
    }
}

fn sooner(one: Option<Duration>, other: Duration) -> Option<Duration> {
    Some(one.map_or(other, |one| one.min(other)))
}
