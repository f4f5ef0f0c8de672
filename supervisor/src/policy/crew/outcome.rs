//! How attempts end: from what a worker reports, or from its loss, to the move that is stored.

use super::Crew;
use super::loss::Verdict;
use super::run::{After, Report, Run};
use crate::policy::event::{Action, Notice};
use crate::policy::moves::{AttemptRecord, FencedMove, Move};
use crate::policy::retry;
use crate::policy::settings::TypeSettings;
use crate::policy::time::Now;
use shiftboss_protocol::job::{Cause, Failure, JobId, Outcome};
use shiftboss_protocol::message::StopReason;

impl Crew {
    pub(super) fn store_outcome(&mut self, now: Now, report: &Report, out: &mut Vec<Action>) {
        let mut record = AttemptRecord { usage: report.usage, ..AttemptRecord::default() };
        let to = match &report.outcome {
            Outcome::Succeeded { result } => {
                self.on_success(report.job, out);
                Move::Succeed { result: result.clone() }
            }
            Outcome::Failed(failure) => self.fail(now, report.job, failure, &mut record, out),
            Outcome::Cancelled => {
                record.cause = Some(Cause::Cancelled);
                record.error = Some("cancelled on request".to_owned());
                Move::Cancel
            }
            Outcome::Held { reason } => {
                record.error = Some(reason.clone());
                Move::Hold
            }
            Outcome::Released { reason } => {
                record.cause = Some(Cause::Released);
                record.error = Some(reason.clone());
                Move::GiveBack
            }
        };
        self.push_move(report.job, to, record, out);
    }

    pub(super) fn store_loss(&mut self, now: Now, job: JobId, out: &mut Vec<Action>) {
        let Some(run) = self.runs.get_mut(&job) else { return };
        let verdict = run.loss.take();
        let verdict = verdict.unwrap_or_else(|| Verdict::Innocent("its worker is gone".to_owned()));
        let mut record = AttemptRecord::default();
        let to = match verdict {
            Verdict::Innocent(what) | Verdict::Stopped(StopReason::Released, what) => {
                record.cause = Some(Cause::Released);
                record.error = Some(what);
                Move::GiveBack
            }
            Verdict::Culprit(cause, what) => self.crash(job, (cause, what), &mut record, out),
            Verdict::OutOfMemory(what) => {
                let failure = Failure::retryable(Cause::OutOfMemory, what);
                self.fail(now, job, &failure, &mut record, out)
            }
            Verdict::Stopped(StopReason::Cancelled, what) => {
                record.cause = Some(Cause::Cancelled);
                record.error = Some(format!("cancelled on request; {what}"));
                Move::Cancel
            }
            Verdict::Stopped(StopReason::Timeout, what) => {
                let failure = Failure::retryable(Cause::Timeout, format!("timed out; {what}"));
                self.fail(now, job, &failure, &mut record, out)
            }
            Verdict::Stopped(StopReason::Stalled, what) => {
                let text = format!("made no progress in time; {what}");
                let failure = Failure::retryable(Cause::Stalled, text);
                self.fail(now, job, &failure, &mut record, out)
            }
        };
        self.push_move(job, to, record, out);
    }

    fn push_move(
        &mut self,
        job: JobId,
        mut to: Move,
        mut record: AttemptRecord,
        out: &mut Vec<Action>,
    ) {
        let Some(run) = self.runs.get_mut(&job) else { return };
        run.after = match to {
            Move::GiveBack | Move::Crash => After::Available,
            Move::Retry { run_at_ms } => After::Scheduled(run_at_ms),
            Move::Succeed { .. } | Move::Fail | Move::Cancel | Move::Hold | Move::Poison => {
                After::Rests
            }
        };
        if run.cancel_asked && run.after != After::Rests {
            // A job that was cancelled while it failed or was taken back must not run again.
            let what = record.error.take().unwrap_or_default();
            record.error = Some(format!("cancelled on request; {what}"));
            record.cause = Some(Cause::Cancelled);
            (to, run.after) = (Move::Cancel, After::Rests);
        }
        let goes_on = run.goes_on();
        if let Some(book) = self.types.get_mut(&run.job_type)
            && goes_on
        {
            // Known before the store says so: its worker can be started meanwhile.
            book.waiting = book.waiting.saturating_add(1);
        }
        out.push(Action::Move(FencedMove { job, attempt: run.attempt, to, record }));
    }

    /// A finished job is the best proof of a healthy worker.
    fn on_success(&mut self, job: JobId, out: &mut Vec<Action>) {
        let Some(name) = self.runs.get(&job).map(|run| run.job_type.clone()) else { return };
        if self.types.get(&name).is_some_and(|book| book.restart.deaths() > 0) {
            self.close_books(&name, out);
        }
    }

    fn fail(
        &mut self,
        now: Now,
        job: JobId,
        failure: &Failure,
        record: &mut AttemptRecord,
        out: &mut Vec<Action>,
    ) -> Move {
        record.cause = Some(failure.cause);
        record.exit_code = failure.exit_code;
        record.signal = failure.signal;
        record.error = Some(failure.message.clone());
        let Some(run) = self.runs.get(&job) else { return Move::GiveBack };
        let settings = self.settings_for(run);
        let random = &mut self.random;
        let to =
            retry::after_failure(now, &settings, run.failures, run.attempts_max, failure, random);
        let (next, retry_in) = if let Move::Retry { run_at_ms } = to {
            ("tries again after a delay", Some(now.until(run_at_ms)))
        } else if failure.permanent {
            ("given up: another attempt would fail the same way", None)
        } else {
            ("given up: its attempts are used up", None)
        };
        out.push(Action::Notice(Notice::AttemptFailed {
            job,
            attempt: run.attempt,
            job_type: run.job_type.clone(),
            what: failure.message.clone(),
            next,
            retry_in,
        }));
        to
    }

    /// A reload may have removed the type while its worker still runs.
    fn settings_for(&self, run: &Run) -> TypeSettings {
        let configured = self.settings.types.get(&*run.job_type);
        let started_with = self.workers.get(&run.worker).map(|one| &one.settings);
        let known = configured.or(started_with).or(run.left_settings.as_ref());
        known.cloned().unwrap_or_else(TypeSettings::of_a_removed_type)
    }

    fn crash(
        &mut self,
        job: JobId,
        (cause, what): (Cause, String),
        record: &mut AttemptRecord,
        out: &mut Vec<Action>,
    ) -> Move {
        let Some(run) = self.runs.get(&job) else { return Move::GiveBack };
        let poison_after = self.settings_for(run).poison_after;
        let crashes = run.crash_count.saturating_add(1);
        let poisoned = poison_after > 0 && crashes >= poison_after;
        let next = if poisoned {
            "given up as poison: it killed its worker too often"
        } else {
            "goes back and is tried again in another worker"
        };
        out.push(Action::Notice(Notice::AttemptFailed {
            job,
            attempt: run.attempt,
            job_type: run.job_type.clone(),
            what: what.clone(),
            next,
            retry_in: None,
        }));
        record.cause = Some(if poisoned { Cause::Poison } else { cause });
        record.error = Some(if poisoned {
            format!("poison: {crashes} workers died while they ran this job alone; {what}")
        } else {
            what
        });
        if poisoned { Move::Poison } else { Move::Crash }
    }
}
