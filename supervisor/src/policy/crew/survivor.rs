//! Workers that outlived their supervisor: found at the start, awaited, taken over.
//!
//! A found worker and its attempts are ours from the first moment, so its place and its share of
//! every cap are taken; it gets nothing new before it is back. What does not come back is given
//! back without counting: nobody saw what it died of.

use super::Crew;
use super::deadline::DEAD_AFTER;
use super::deadline::Timer;
use super::loss::Verdict;
use super::worker::{Worker, WorkerState};
use crate::policy::claim::{TakenJob, TypeName, WorkerId};
use crate::policy::event::{Action, Notice};
use crate::policy::machine::run::{RunEvent, RunState};
use crate::policy::machine::worker::WorkerEvent;
use crate::policy::settings::TypeSettings;
use crate::policy::time::Now;
use shiftboss_protocol::job::{Attempt, JobId};
use shiftboss_protocol::message::StopReason;
use std::collections::BTreeSet;
use std::time::Duration;

/// A living worker tries to connect several times a second: one that is not back by then hangs. It
/// gets as long as one that says nothing: a host that is short of CPUs must not cost it its work.
pub(super) const BACK_WITHIN: Duration = DEAD_AFTER;

/// A worker that a dead supervisor left running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// Its number with us, from [`Crew::reserve_worker`].
    pub worker: WorkerId,
    /// Its type.
    pub job_type: TypeName,
    /// Its place among the workers of the type.
    pub slot: u32,
    /// Its process; `None`: it has ended, and only what it wrote down is left.
    pub pid: Option<u32>,
    /// When it was started, unix milliseconds.
    pub started_ms: i64,
    /// Name of the workload that it runs.
    pub workload: String,
    /// How many attempts it was told to hold at most.
    pub concurrency: u32,
    /// Rows that its supervisor had claimed for it and that are ours now.
    pub runs: Vec<FoundRun>,
}

/// An attempt of a survivor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRun {
    /// The row as its claim saw it.
    pub taken: TakenJob,
    /// How long it has run, by the wall clock.
    pub ran_for: Duration,
    /// Somebody asked to cancel the job.
    pub cancel_asked: bool,
}

impl Crew {
    /// A number that no worker has or will have, for [`Survivor::worker`].
    pub fn reserve_worker(&mut self) -> WorkerId {
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        worker
    }

    pub(super) fn on_found(&mut self, now: Now, found: Survivor, out: &mut Vec<Action>) {
        let Survivor { worker, job_type, slot, pid, started_ms, workload, concurrency, runs } =
            found;
        self.is_finding = true;
        let configured = self.settings.types.get(&*job_type).cloned();
        let settings = configured.unwrap_or_else(TypeSettings::of_a_removed_type);
        let runs: Vec<_> =
            runs.into_iter().filter(|run| !self.runs.contains_key(&run.taken.job)).collect();
        let one = Worker {
            job_type: job_type.clone(),
            slot,
            state: WorkerState::Returning,
            pid,
            confinement: "none".into(),
            attempts: runs.iter().map(|run| run.taken.job).collect(),
            started_ms,
            heard: now.mono,
            greeted: true,
            idle_since: now.mono,
            jobs_given: u32::try_from(runs.len()).unwrap_or(u32::MAX),
            end_cause: None,
            out_of_memory: None,
            worn: false,
            forced_by: None,
            dismissed: false,
            away: true,
            was_ready: true,
            probe: false,
            settings: TypeSettings { workload, concurrency, ..settings },
        };
        self.workers.insert(worker, one);
        self.arm_grace(now, worker, BACK_WITHIN);
        if let Some(pid) = pid {
            let attempts = runs.len();
            out.push(Action::Notice(Notice::Found { worker, job_type, pid, attempts }));
        }
        for run in &runs {
            self.begin_run(now, &run.taken, run.ran_for);
        }
        let cancelled: Vec<_> =
            runs.iter().filter(|run| run.cancel_asked).map(|run| run.taken.job).collect();
        self.on_cancel_asked(now, &cancelled, out);
    }

    /// A worker connected again and says what it holds. What it does not hold never reached it
    /// or is settled; what is not ours is stopped.
    pub(super) fn on_back(
        &mut self,
        now: Now,
        worker: WorkerId,
        held: &BTreeSet<(JobId, Attempt)>,
        out: &mut Vec<Action>,
    ) {
        let Some(one) = self.workers.get_mut(&worker) else { return };
        one.heard = now.mono;
        let ours: BTreeSet<_> = one
            .attempts
            .iter()
            .filter_map(|job| self.runs.get(job).map(|run| (*job, run.attempt)))
            .collect();
        for (job, _) in ours.difference(held) {
            let why = "it never reached its worker, or was lost there".to_owned();
            self.set_loss(*job, Verdict::Innocent(why));
            self.run_event(now, *job, RunEvent::WorkerGone, out);
        }
        for (job, attempt) in held.difference(&ours) {
            self.take_in_stray(now, worker, (*job, *attempt), out);
        }
    }

    /// An attempt that its worker holds and whose row is not ours: somebody changed the row, or
    /// its outcome was stored and not confirmed. Until it has ended it takes its room, its job is
    /// not claimed again, and it is stopped with all means; the fence drops what it reports.
    fn take_in_stray(
        &mut self,
        now: Now,
        worker: WorkerId,
        (job, attempt): (JobId, Attempt),
        out: &mut Vec<Action>,
    ) {
        let reason = StopReason::Released;
        let Some(one) = self.workers.get_mut(&worker).filter(|_| !self.runs.contains_key(&job))
        else {
            out.push(Action::Stop { worker, job, attempt, reason });
            return;
        };
        one.attempts.insert(job);
        let taken = TakenJob {
            job,
            attempt,
            job_type: one.job_type.clone(),
            worker,
            failures: 0,
            crash_count: 0,
            attempts_max: None,
            timeout_ms: None,
        };
        self.begin_run(now, &taken, Duration::ZERO);
        self.lost.insert(job);
        self.stop_run(now, job, reason, out);
    }

    /// A found worker is ready again: it hears what it has missed, and gets work as any other.
    pub(super) fn on_returned(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Action>) {
        let Some(one) = self.workers.get_mut(&worker) else { return };
        one.away = false;
        let (jobs, name) = (one.attempts.clone(), one.job_type.clone());
        if !jobs.is_empty() {
            self.arm_silence(now, worker);
            self.worker_event(now, worker, WorkerEvent::Assigned, out);
        }
        for job in jobs {
            let Some(run) = self.runs.get(&job) else { continue };
            if let (RunState::Stopping, Some(reason)) = (run.state, run.stop_reason) {
                out.push(Action::Stop { worker, job, attempt: run.attempt, reason });
            }
        }
        if !self.settings.types.contains_key(&*name) {
            self.dismiss(now, worker, "its type is no longer configured", out);
        }
    }

    /// A found worker cannot work with this supervisor: it is told to end, and what it reports
    /// until then counts.
    pub(super) fn on_outdated(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Action>) {
        let Some(one) = self.workers.get(&worker) else { return };
        let (job_type, why) = (one.job_type.clone(), "it speaks another protocol version");
        out.push(Action::Notice(Notice::Retiring { worker, job_type, why }));
        self.deadlines.disarm(&Timer::Worker(worker));
        self.worker_event(now, worker, WorkerEvent::Terminate, out);
    }
}
