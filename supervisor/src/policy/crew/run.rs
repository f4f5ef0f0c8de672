//! Attempts that are ours: from the claim to the stored outcome.

use super::Crew;
use super::deadline::Timer;
use super::loss::Verdict;
use crate::policy::claim::{TakenJob, TypeName, WorkerId};
use crate::policy::event::{Action, Notice};
use crate::policy::machine::run::{RunEvent, RunOrder, RunState};
use crate::policy::machine::worker::{WorkerEvent, WorkerState};
use crate::policy::moves::{AttemptRecord, FencedMove, Move, Moved, RunningRow};
use crate::policy::settings::TypeSettings;
use crate::policy::suspects::Rest;
use crate::policy::time::Now;
use shiftboss_protocol::job::{Attempt, Cause, JobId, Outcome, Usage};
use shiftboss_protocol::message::{Receipt, ReceiptOf, StopReason};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a worker needs beyond its programs' grace to report an attempt that it stopped: ffmpeg
/// gets up to 5 s to end its file, then SIGTERM and the type's grace.
pub(super) const STOP_MARGIN: Duration = Duration::from_secs(10);

/// One attempt.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) attempt: Attempt,
    pub(super) job_type: TypeName,
    pub(super) worker: WorkerId,
    pub(super) state: RunState,
    pub(super) failures: u32,
    pub(super) crash_count: u32,
    pub(super) attempts_max: Option<u32>,
    pub(super) stall_timeout: Option<Duration>,
    pub(super) started_at: Duration,
    /// How long it had run with the supervisor before us.
    pub(super) ran_before: Duration,
    pub(super) progress_at: Duration,
    pub(super) stop_reason: Option<StopReason>,
    pub(super) loss: Option<Verdict>,
    /// What its worker was started with, kept when that is gone and its type not configured.
    pub(super) left_settings: Option<TypeSettings>,
    /// Somebody wants the job cancelled, whatever it is being stopped for.
    pub(super) cancel_asked: bool,
    /// What the move that ends it makes of the row.
    pub(super) after: After,
}

/// What a row is after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Final, held, or not decided yet.
    Rests,
    /// Available.
    Available,
    /// Scheduled, unix milliseconds.
    Scheduled(i64),
}

impl Run {
    /// True when the job is available again after this attempt.
    pub(super) fn goes_on(&self) -> bool {
        self.after == After::Available
    }
}

/// What a worker said of an attempt that ended.
pub(super) struct Report {
    pub(super) worker: WorkerId,
    pub(super) job: JobId,
    pub(super) attempt: Attempt,
    pub(super) outcome: Outcome,
    pub(super) usage: Usage,
}

impl RunState {
    /// True while how it ends is still open.
    pub(super) const fn is_undecided(self) -> bool {
        match self {
            Self::Running | Self::Stopping | Self::Forcing => true,
            Self::Ending | Self::Over => false,
        }
    }
}

impl Crew {
    /// Attempts that a claim brought: each goes to the worker that it was claimed for, or back
    /// when that worker is no longer there to take it.
    pub(super) fn on_claimed(
        &mut self,
        now: Now,
        jobs: &[TakenJob],
        rest: Rest,
        out: &mut Vec<Action>,
    ) {
        let mut batches = BTreeMap::<WorkerId, Vec<(JobId, Attempt, u64)>>::new();
        for taken in jobs {
            if self.runs.contains_key(&taken.job) {
                self.refuse_second(now, taken, out);
                continue;
            }
            let open = self.workers.get(&taken.worker).is_some_and(|one| one.state.is_open());
            let limit = self.begin_run(now, taken, Duration::ZERO);
            if open {
                let row = (taken.job, taken.attempt, limit);
                batches.entry(taken.worker).or_default().push(row);
            } else {
                let why = "its worker went away before it started".to_owned();
                self.set_loss(taken.job, Verdict::Innocent(why));
                self.run_event(now, taken.job, RunEvent::WorkerGone, out);
            }
        }
        self.settle_suspects(&batches, rest);
        for (worker, jobs) in batches {
            let one = self.workers.get_mut(&worker).expect("checked when the batch was made");
            let was_empty = one.attempts.is_empty();
            if was_empty {
                one.heard = now.mono;
            }
            one.attempts.extend(jobs.iter().map(|(job, ..)| *job));
            one.jobs_given = one.jobs_given.saturating_add(u32::try_from(jobs.len()).unwrap_or(0));
            self.deadlines.disarm(&Timer::Spare(worker));
            if was_empty {
                self.arm_silence(now, worker);
            }
            self.worker_event(now, worker, WorkerEvent::Assigned, out);
            out.push(Action::Assign { worker, jobs });
        }
    }

    /// Somebody made the row of a running attempt available, and it was claimed again: the old
    /// attempt must end before the job may run once more.
    fn refuse_second(&mut self, now: Now, taken: &TakenJob, out: &mut Vec<Action>) {
        let record = AttemptRecord {
            cause: Some(Cause::Released),
            error: Some("an earlier attempt of this job has not ended yet".to_owned()),
            ..AttemptRecord::default()
        };
        let (job, attempt) = (taken.job, taken.attempt);
        out.push(Action::Move(FencedMove { job, attempt, to: Move::GiveBack, record }));
        self.lose_row(now, job, out);
    }

    /// The row is not ours any more: its attempt is stopped, and until that is over the job is
    /// not claimed again.
    fn lose_row(&mut self, now: Now, job: JobId, out: &mut Vec<Action>) {
        if self.lost.insert(job) {
            out.push(Action::Notice(Notice::RowLost(job)));
            self.stop_run(now, job, StopReason::Cancelled, out);
        }
    }

    /// Suspects that their dedicated claim did not bring are no suspects any more.
    fn settle_suspects(
        &mut self,
        batches: &BTreeMap<WorkerId, Vec<(JobId, Attempt, u64)>>,
        rest: Rest,
    ) {
        let dedicated: Vec<_> =
            self.workers.keys().copied().filter(|id| self.suspects.is_dedicated(*id)).collect();
        for worker in dedicated {
            let Some(one) = self.workers.get(&worker) else { continue };
            if one.attempts.is_empty() && !one.state.is_open() {
                self.suspects.put_back(worker);
                continue;
            }
            let mut claimed = one.attempts.clone();
            if let Some(batch) = batches.get(&worker) {
                claimed.extend(batch.iter().map(|(job, ..)| *job));
            }
            self.suspects.on_claimed(worker, &claimed, rest);
        }
    }

    /// Opens the books of an attempt that has run for a while already when its supervisor before
    /// us started it; returns its time limit in milliseconds, 0 for none.
    pub(super) fn begin_run(&mut self, now: Now, taken: &TakenJob, ran_for: Duration) -> u64 {
        let settings = self.settings.types.get(&*taken.job_type);
        let timeout = taken
            .timeout_ms
            .map(Duration::from_millis)
            .or_else(|| settings.and_then(|one| one.timeout));
        let stall_timeout = settings.and_then(|one| one.stall_timeout);
        if let Some(limit) = timeout {
            let left = limit.saturating_sub(ran_for);
            self.deadlines.arm(now.mono.saturating_add(left), Timer::Timeout(taken.job));
        }
        if let Some(limit) = stall_timeout {
            self.deadlines.arm(now.mono.saturating_add(limit), Timer::Stall(taken.job));
        }
        let run = Run {
            attempt: taken.attempt,
            job_type: taken.job_type.clone(),
            worker: taken.worker,
            state: RunState::Running,
            failures: taken.failures,
            crash_count: taken.crash_count,
            attempts_max: taken.attempts_max,
            stall_timeout,
            started_at: now.mono,
            ran_before: ran_for,
            progress_at: now.mono,
            stop_reason: None,
            loss: None,
            left_settings: None,
            cancel_asked: false,
            after: After::Rests,
        };
        self.runs.insert(taken.job, run);
        // A reload may have dropped the book of a removed type while its claim was under way.
        self.types.entry(taken.job_type.clone()).or_default().running += 1;
        timeout.map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1))
    }

    pub(super) fn on_progress(&mut self, now: Now, worker: WorkerId, job: JobId, attempt: Attempt) {
        self.on_heard(now, worker);
        if let Some(run) = self.runs.get_mut(&job)
            && run.attempt == attempt
            && run.worker == worker
        {
            run.progress_at = now.mono;
        }
    }

    pub(super) fn on_finished(&mut self, now: Now, report: Report, out: &mut Vec<Action>) {
        self.on_heard(now, report.worker);
        let ours = self
            .runs
            .get(&report.job)
            .is_some_and(|run| run.attempt == report.attempt && run.worker == report.worker);
        if !ours {
            // Answered all the same: else the worker would keep the outcome for ever.
            let (job, attempt) = (report.job, report.attempt);
            out.push(Action::Notice(Notice::Stale { job, attempt }));
            let receipt = Receipt { job, attempt, of: ReceiptOf::Outcome, stale: true };
            out.push(Action::Record { worker: report.worker, receipts: vec![receipt] });
            return;
        }
        let order = self.step_run(report.job, RunEvent::Finished);
        if order == RunOrder::StoreOutcome {
            self.store_outcome(now, &report, out);
            self.suspects.on_ended(report.worker, report.job);
            self.let_go_if_leaving(now, &report, out);
            self.release(now, report.job, report.worker, out);
        }
    }

    /// A worker that gives work back unasked is on its way out: somebody else told it to end, or
    /// a supervisor before us told it to drain. It would give back everything, again and again.
    fn let_go_if_leaving(&mut self, now: Now, report: &Report, out: &mut Vec<Action>) {
        let asked = self.runs.get(&report.job).is_none_or(|run| run.stop_reason.is_some());
        let open = self.workers.get(&report.worker).is_some_and(|one| one.state.is_open());
        if matches!(report.outcome, Outcome::Released { .. }) && !asked && open {
            self.dismiss(now, report.worker, "it gives its work back", out);
        }
    }

    /// Feeds the attempt's state machine and does what it orders, except for reports.
    pub(super) fn run_event(
        &mut self,
        now: Now,
        job: JobId,
        event: RunEvent,
        out: &mut Vec<Action>,
    ) {
        let order = self.step_run(job, event);
        let Some(run) = self.runs.get(&job) else { return };
        let (worker, attempt) = (run.worker, run.attempt);
        match order {
            RunOrder::Nothing | RunOrder::StoreOutcome | RunOrder::Forget => {}
            RunOrder::Stop => {
                let reason = run.stop_reason.unwrap_or(StopReason::Cancelled);
                let grace = self.workers.get(&worker).map(|one| one.settings.grace.term);
                let at = now.mono + grace.unwrap_or_default() + STOP_MARGIN;
                self.deadlines.arm(at, Timer::Stop(job));
                out.push(Action::Notice(Notice::Stopping { job, attempt, reason }));
                out.push(Action::Stop { worker, job, attempt, reason });
            }
            RunOrder::KillWorker => {
                if let Some(one) = self.workers.get_mut(&worker) {
                    one.forced_by.get_or_insert(job);
                }
                self.worker_event(now, worker, WorkerEvent::Kill, out);
            }
            RunOrder::StoreLoss => {
                self.store_loss(now, job, out);
                self.release(now, job, worker, out);
            }
        }
    }

    fn step_run(&mut self, job: JobId, event: RunEvent) -> RunOrder {
        let Some(run) = self.runs.get_mut(&job) else { return RunOrder::Nothing };
        let (state, order) = run.state.on(event);
        run.state = state;
        order
    }

    pub(super) fn set_loss(&mut self, job: JobId, verdict: Verdict) {
        if let Some(run) = self.runs.get_mut(&job) {
            run.loss = Some(verdict);
        }
    }

    /// The attempt is decided: its timers and its place in the worker are free.
    fn release(&mut self, now: Now, job: JobId, worker: WorkerId, out: &mut Vec<Action>) {
        for timer in [Timer::Timeout(job), Timer::Stall(job), Timer::Stop(job)] {
            self.deadlines.disarm(&timer);
        }
        let Some(job_type) = self.runs.get(&job).map(|run| run.job_type.clone()) else { return };
        if let Some(book) = self.types.get_mut(&job_type) {
            book.running = book.running.saturating_sub(1);
        }
        if let Some(one) = self.workers.get_mut(&worker)
            && one.attempts.remove(&job)
            && one.attempts.is_empty()
        {
            one.idle_since = now.mono;
            let draining = one.state == WorkerState::Draining;
            self.deadlines.disarm(&Timer::Silence(worker));
            self.worker_event(now, worker, WorkerEvent::Emptied, out);
            if draining {
                self.arm_drain(now, worker);
            }
        }
        if self.workers.get(&worker).is_some_and(|one| self.room_in(worker, one) > 0) {
            self.room_came_up(&job_type);
        }
        self.room_came_up_in_total(&job_type);
    }

    pub(super) fn on_cancel_asked(&mut self, now: Now, jobs: &[JobId], out: &mut Vec<Action>) {
        for job in jobs {
            if let Some(run) = self.runs.get_mut(job) {
                run.cancel_asked = true;
            }
            self.stop_run(now, *job, StopReason::Cancelled, out);
        }
    }

    pub(super) fn stop_run(
        &mut self,
        now: Now,
        job: JobId,
        reason: StopReason,
        out: &mut Vec<Action>,
    ) {
        let Some(run) = self.runs.get_mut(&job) else { return };
        run.stop_reason.get_or_insert(reason);
        self.run_event(now, job, RunEvent::StopAsked, out);
    }

    /// Compares our running attempts with the rows that another program's commit left us.
    pub(super) fn review_rows(&mut self, now: Now, rows: &[RunningRow], out: &mut Vec<Action>) {
        let rows: BTreeMap<JobId, &RunningRow> = rows.iter().map(|row| (row.job, row)).collect();
        let mut lost = Vec::new();
        let mut cancelled = Vec::new();
        for (job, run) in self.runs.iter().filter(|(_, run)| run.state.is_undecided()) {
            match rows.get(job) {
                Some(row) if row.attempt == run.attempt => {
                    if row.cancel_requested && !run.cancel_asked {
                        cancelled.push(*job);
                    }
                }
                Some(_) | None => lost.push(*job),
            }
        }
        self.on_cancel_asked(now, &cancelled, out);
        for job in lost {
            self.lose_row(now, job, out);
        }
    }

    /// The store answered: the attempt is over. Returns what its worker is told.
    pub(super) fn run_stored(&mut self, moved: &Moved) -> Option<Receipt> {
        if self.step_run(moved.job, RunEvent::Stored) != RunOrder::Forget {
            return None;
        }
        let run = self.runs.remove(&moved.job)?;
        if self.lost.remove(&moved.job) {
            self.want_look();
        }
        match run.after {
            After::Available if !moved.stale => self.want_look(),
            After::Scheduled(at) if !moved.stale => {
                self.next_due_ms = Some(self.next_due_ms.map_or(at, |due| due.min(at)));
            }
            After::Rests | After::Available | After::Scheduled(_) => {}
        }
        let Moved { job, attempt, stale } = *moved;
        Some(Receipt { job, attempt, of: ReceiptOf::Outcome, stale })
    }
}
