//! Whether a worker stays or goes: what it knows of its supervisor, what it was told, and until
//! when it may take. Pure: events and `now` come in, the next step goes out.

use shiftboss_protocol::message::Settings;
use std::time::{Duration, Instant};

/// How long a worker that was told to end waits for the receipts of its last outcomes, and for a
/// supervisor to give them to.
pub(crate) const RECEIPTS_WAIT: Duration = Duration::from_secs(5);

/// How long attempts may take to stop, beyond the grace of their programs, once the worker
/// must go. What then still runs ends with the process; programs end by their lifeline.
const STOP_WAIT: Duration = Duration::from_secs(60);

/// What the main thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// SIGTERM.
    Terminated,
    /// The supervisor wants the worker to finish what it holds and go.
    Drained,
    /// The connection has ended.
    Lost {
        /// True when what came was no message.
        is_fault: bool,
    },
    /// A supervisor has said Welcome and has been told what is held.
    Attached(Limits),
    /// A supervisor does not want this worker.
    Refused,
    /// The worker leaves and no attempt runs any more.
    Ended,
    /// The worker leaves, and every outcome has its receipt.
    Settled,
    /// A thread without which the worker is only half alive has panicked.
    Broken,
}

/// What the supervisor says about a worker's own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How long the worker goes on without a supervisor; zero: not at all.
    pub(crate) orphan_grace: Duration,
    stop_wait: Duration,
}

impl Limits {
    pub(crate) fn of(settings: &Settings) -> Self {
        let stop_wait = Duration::from_millis(settings.term_grace_ms).saturating_add(STOP_WAIT);
        Self { orphan_grace: Duration::from_millis(settings.orphan_grace_ms), stop_wait }
    }
}

/// What the worker knows of its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contact {
    /// Ended by the end of the connection.
    Attached,
    /// It looks for the next one. Ended by its Welcome or its refusal.
    Orphaned { since: Instant },
    /// It looks for none any more. Final.
    Abandoned,
}

/// What the worker was told, or told itself. Never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// It takes jobs.
    Staying,
    /// Its attempts go on to their end.
    Draining,
    /// Its attempts are being stopped; what still runs at `until` ends with the process.
    Stopping { until: Instant },
}

/// The next step of the main thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait for the next event, or the deadline.
    Wait,
    /// Stop every attempt and take none any more, for this reason.
    Stop(&'static str),
    /// The same, and speak to nobody any more.
    Abandon(&'static str),
    /// Leave, with what has no receipt written to disk.
    Exit(End),
}

/// How the worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should.
    Success,
    /// A supervisor refused it or did not speak its language.
    Failure,
    /// A fault of this program.
    Fault,
}

/// The state of a worker's life from its Ready on.
#[derive(Debug)]
pub(crate) struct Life {
    limits: Limits,
    contact: Contact,
    leaving: Leaving,
    /// Since when no attempt runs any more, of a worker that leaves.
    ended_at: Option<Instant>,
    /// Set when it was too long without a supervisor: it does not wait for one at the end.
    has_given_up: bool,
    end: End,
}

impl Life {
    pub(crate) fn new(limits: Limits) -> Self {
        let (contact, leaving) = (Contact::Attached, Leaving::Staying);
        let end = End::Success;
        Self { limits, contact, leaving, ended_at: None, has_given_up: false, end }
    }

    pub(crate) fn on(&mut self, now: Instant, event: Event) -> Step {
        match event {
            Event::Terminated => self.stop(now, "the worker was told to end"),
            Event::Drained => {
                if self.leaving == Leaving::Staying {
                    self.leaving = Leaving::Draining;
                }
                Step::Wait
            }
            Event::Lost { is_fault } => self.on_lost(now, is_fault),
            Event::Attached(limits) => {
                self.limits = limits;
                self.contact = Contact::Attached;
                Step::Wait
            }
            Event::Refused => {
                self.end = End::Failure;
                self.abandon(now, "the supervisor refused this worker")
            }
            Event::Ended => {
                self.ended_at.get_or_insert(now);
                self.leave_unless_heard()
            }
            Event::Settled => Step::Exit(self.end),
            Event::Broken => Step::Exit(End::Fault),
        }
    }

    fn on_lost(&mut self, now: Instant, is_fault: bool) -> Step {
        self.contact = Contact::Orphaned { since: now };
        if is_fault {
            self.end = End::Failure;
            return self.abandon(now, "the supervisor did not speak the protocol");
        }
        if self.limits.orphan_grace.is_zero() {
            return self.abandon(now, "the supervisor has gone");
        }
        self.leave_unless_heard()
    }

    fn abandon(&mut self, now: Instant, reason: &'static str) -> Step {
        self.contact = Contact::Abandoned;
        self.stop(now, reason);
        Step::Abandon(reason)
    }

    fn stop(&mut self, now: Instant, reason: &'static str) -> Step {
        match self.leaving {
            Leaving::Staying | Leaving::Draining => {
                let until = now + self.limits.stop_wait;
                self.leaving = Leaving::Stopping { until };
                // A drain may have waited for its receipts without end.
                self.ended_at = self.ended_at.map(|_| now);
            }
            Leaving::Stopping { .. } => {}
        }
        Step::Stop(reason)
    }

    /// When nothing runs any more, goes at once where nobody can be told.
    fn leave_unless_heard(&self) -> Step {
        let is_heard = match self.contact {
            Contact::Attached => true,
            Contact::Orphaned { .. } => !self.has_given_up,
            Contact::Abandoned => false,
        };
        if self.ended_at.is_some() && !is_heard { Step::Exit(self.end) } else { Step::Wait }
    }

    /// When [`Life::on_deadline`] is to be asked, if no event comes before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match (self.leaving, self.contact, self.ended_at) {
            (Leaving::Stopping { until }, _, None) => Some(until),
            (Leaving::Stopping { until }, _, Some(ended_at)) => {
                Some(until.min(ended_at + RECEIPTS_WAIT))
            }
            (Leaving::Draining, Contact::Orphaned { since }, Some(ended_at)) => {
                Some(since.max(ended_at) + RECEIPTS_WAIT)
            }
            (Leaving::Staying | Leaving::Draining, Contact::Orphaned { since }, _) => {
                since.checked_add(self.limits.orphan_grace)
            }
            // A drain waits for its receipts without end: the supervisor asked for it, and has
            // stronger words when it will not wait.
            (Leaving::Staying | Leaving::Draining, Contact::Attached | Contact::Abandoned, _) => {
                None
            }
        }
    }

    pub(crate) fn on_deadline(&mut self, now: Instant) -> Step {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return Step::Wait;
        }
        match (self.leaving, self.ended_at) {
            (Leaving::Stopping { .. }, _) | (Leaving::Draining, Some(_)) => Step::Exit(self.end),
            (Leaving::Staying, _) | (Leaving::Draining, None) => {
                self.has_given_up = true;
                self.stop(now, "no supervisor has come back")
            }
        }
    }
}

#[cfg(test)]
mod tests;
