//! What the death of a worker means: for its type, and for each attempt that it held.

use super::Crew;
use super::deadline::Timer;
use super::run::Run;
use super::worker::Worker;
use crate::policy::claim::WorkerId;
use crate::policy::event::{Action, Exit, Notice};
use crate::policy::restart::{Blame, Breaker, Ending};
use crate::policy::time::Now;
use shiftboss_protocol::job::{Cause, JobId};
use shiftboss_protocol::message::StopReason;
use std::time::Duration;

/// The signal by which the kernel ends a sealed worker that makes a forbidden system call
/// (signal(7), the same on every architecture that we run on).
const SIGSYS: i32 = 31;

/// What a death was.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    kind: Kind,
    ending: Ending,
    /// It exceeded its memory limit.
    out_of_memory: bool,
    /// A sentence for people.
    pub(super) what: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// It went as it was told to.
    Dismissed,
    /// It died while it held no attempt.
    Empty,
    /// It died while it held this attempt alone.
    Alone(JobId),
    /// It died while it held several.
    Shared,
    /// It was killed because this attempt did not stop; the others are innocent.
    Forced(JobId),
    /// It ended while it had no supervisor, nobody knows of what.
    Away,
}

/// What the loss of its worker means for one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes back, nothing is counted.
    Innocent(String),
    /// It was alone: a crash is counted, for this cause.
    Culprit(Cause, String),
    /// It was alone and used more memory than its slot may have: that is a failure of its own.
    OutOfMemory(String),
    /// It was being stopped for this reason, and is stopped now.
    Stopped(StopReason, String),
}

impl Loss {
    pub(super) fn verdict_on(&self, job: JobId, run: &Run) -> Verdict {
        if let Some(reason) = run.stop_reason {
            return Verdict::Stopped(reason, self.what.clone());
        }
        match self.kind {
            Kind::Alone(culprit) if culprit == job && self.out_of_memory => {
                Verdict::OutOfMemory(self.what.clone())
            }
            Kind::Alone(culprit) if culprit == job => {
                let is_forbidden = self.ending == Ending::Signal(SIGSYS);
                let cause = if is_forbidden { Cause::ForbiddenSyscall } else { Cause::Crash };
                Verdict::Culprit(cause, self.what.clone())
            }
            Kind::Dismissed
            | Kind::Empty
            | Kind::Alone(_)
            | Kind::Shared
            | Kind::Forced(_)
            | Kind::Away => Verdict::Innocent(self.what.clone()),
        }
    }
}

impl Crew {
    pub(super) fn judge(&self, one: &Worker, worker: WorkerId, exit: &Exit) -> Loss {
        let what = sentence(one, worker, exit);
        // Attempts whose outcome is already decided did not die with it.
        let mut held = one
            .attempts
            .iter()
            .filter(|job| self.runs.get(job).is_some_and(|run| run.state.is_undecided()));
        let kind = match (one.forced_by, held.next(), held.next()) {
            (Some(job), ..) => Kind::Forced(job),
            (None, ..) if one.dismissed => Kind::Dismissed,
            (None, ..) if one.away => Kind::Away,
            (None, None, _) => Kind::Empty,
            (None, Some(job), None) => Kind::Alone(*job),
            (None, Some(_), Some(_)) => Kind::Shared,
        };
        let out_of_memory = exit.out_of_memory.is_some() || one.out_of_memory.is_some();
        Loss { kind, ending: ending_of(one, exit), out_of_memory, what }
    }

    /// Writes the death into the type's books and tells the log.
    pub(super) fn note_exit(
        &mut self,
        now: Now,
        worker: WorkerId,
        one: &Worker,
        loss: &Loss,
        out: &mut Vec<Action>,
    ) {
        let job_type = one.job_type.clone();
        let blame = match loss.kind {
            Kind::Away if one.attempts.is_empty() => {
                out.push(Action::Notice(Notice::Left { worker, job_type }));
                return;
            }
            Kind::Dismissed => {
                out.push(Action::Notice(Notice::Left { worker, job_type }));
                return;
            }
            Kind::Forced(_) => {
                let what = format!("{}, because an attempt did not stop", loss.what);
                let restart_in = Duration::ZERO;
                out.push(Action::Notice(Notice::Died { worker, job_type, what, restart_in }));
                return;
            }
            Kind::Away => {
                let what = format!("{}, while it had no supervisor", loss.what);
                let restart_in = Duration::ZERO;
                out.push(Action::Notice(Notice::Died { worker, job_type, what, restart_in }));
                return;
            }
            Kind::Alone(job) => Blame::Job(job),
            Kind::Shared => Blame::OneOf(one.attempts.len().ilog2()),
            Kind::Empty => Blame::Nobody,
        };
        let Some(book) = self.types.get_mut(&job_type) else { return };
        let settings = &one.settings.restart;
        let was_open = matches!(book.restart.breaker(), Breaker::Open { .. });
        let restart_in =
            book.restart.on_death(now.mono, settings, (blame, loss.ending), &loss.what);
        let opened = !was_open && matches!(book.restart.breaker(), Breaker::Open { .. });
        self.deadlines.arm(now.mono + restart_in, Timer::Restart(job_type.clone()));
        let what = loss.what.clone();
        out.push(Action::Notice(Notice::Died {
            worker,
            job_type: job_type.clone(),
            what: what.clone(),
            restart_in,
        }));
        if opened {
            let probe_in = restart_in;
            out.push(Action::Notice(Notice::BreakerOpened { job_type, cause: what, probe_in }));
        }
    }
}

impl Crew {
    /// What the death of `worker` says about the jobs that it held and that go on: after those
    /// of a shared death a culprit may have to be searched, one that was alone runs alone.
    pub(super) fn suspect(&mut self, worker: WorkerId, one: &Worker, loss: &Loss) {
        let was_dedicated = self.suspects.is_dedicated(worker);
        if one.attempts.is_empty() {
            // Its claim is under way and will be given back.
            self.suspects.put_back(worker);
            return;
        }
        if one.settings.poison_after == 0 {
            // None of them is ever given up, so nobody has to be found, or to wait meanwhile.
            self.suspects.on_worker_gone(worker);
            return;
        }
        match loss.kind {
            Kind::Shared => {
                let goes_on = |job: &JobId| self.runs.get(job).is_some_and(Run::goes_on);
                let jobs: Vec<_> = one.attempts.iter().copied().filter(goes_on).collect();
                let max = self.settings.types.get(&*one.job_type).map_or(1, |it| it.workers_max);
                let places = (max as usize).saturating_sub(self.workers_of(&one.job_type));
                self.suspects.on_shared_death(worker, &one.job_type, &jobs, places);
            }
            Kind::Alone(job) => {
                self.suspects.on_worker_gone(worker);
                let proven = |run: &Run| run.goes_on() && (was_dedicated || run.crash_count > 0);
                // Where workers run one attempt at once, every job is alone anyway.
                if one.settings.concurrency > 1 && self.runs.get(&job).is_some_and(proven) {
                    self.suspects.isolate(&one.job_type, job);
                }
            }
            Kind::Dismissed | Kind::Empty | Kind::Forced(_) | Kind::Away => {
                self.suspects.on_worker_gone(worker);
            }
        }
    }
}

fn ending_of(one: &Worker, exit: &Exit) -> Ending {
    match (&one.end_cause, exit.signal, exit.code) {
        (Some(_), ..) if !one.was_ready => Ending::FailedStart,
        (Some(_), ..) => Ending::Told,
        (None, Some(signal), _) => Ending::Signal(signal),
        (None, None, Some(code)) => Ending::Code(code),
        (None, None, None) => Ending::Unknown,
    }
}

fn sentence(one: &Worker, worker: WorkerId, exit: &Exit) -> String {
    let pid = one.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    let how = match (exit.signal, exit.code) {
        (Some(SIGSYS), _) => "was ended by the kernel for a forbidden system call".to_owned(),
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("exited with code {code}"),
        (None, None) => "ended".to_owned(),
    };
    let exceeded = exit.out_of_memory.as_ref().or(one.out_of_memory.as_ref());
    if let Some(exceeded) = exceeded {
        return format!("worker {worker}{pid} {exceeded} and was killed");
    }
    let why = one.end_cause.as_deref().map_or_else(String::new, |cause| format!(": {cause}"));
    let words = if exit.last_words.is_empty() {
        String::new()
    } else {
        format!("; its last words: {}", exit.last_words)
    };
    format!("worker {worker}{pid} {how}{why}{words}")
}
