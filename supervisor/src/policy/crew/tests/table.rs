//! The job table in memory: claims through `claim::choose`, moves behind the fence.

use crate::policy::claim::{self, Candidate, TakeRequest, Taken, TakenJob, WorkerId};
use crate::policy::moves::{FencedMove, Move, Moved, RunningRow};
use shiftboss_protocol::job::{Attempt, Cause, JobId, JobState};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) job_type: String,
    pub(super) priority: i64,
    pub(super) state: JobState,
    pub(super) run_at_ms: i64,
    pub(super) attempt: u32,
    pub(super) failures: u32,
    pub(super) crash_count: u32,
    pub(super) attempts_max: Option<u32>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) cancel_requested: bool,
    pub(super) cause: Option<Cause>,
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) rows: BTreeMap<JobId, Row>,
    next: i64,
    /// Most claims in one transaction.
    pub(super) claims_max: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { rows: BTreeMap::new(), next: 1, claims_max: usize::MAX }
    }

    pub(super) fn insert(&mut self, job_type: &str, run_at_ms: i64, now_ms: i64) -> JobId {
        let id = JobId(self.next);
        self.next += 1;
        let is_due = run_at_ms <= now_ms;
        let row = Row {
            job_type: job_type.to_owned(),
            priority: 0,
            state: if is_due { JobState::Available } else { JobState::Scheduled },
            run_at_ms,
            attempt: 0,
            failures: 0,
            crash_count: 0,
            attempts_max: None,
            timeout_ms: None,
            cancel_requested: false,
            cause: None,
        };
        self.rows.insert(id, row);
        id
    }

    pub(super) fn take(&mut self, request: &TakeRequest) -> Taken {
        let mut taken = Taken::default();
        for row in self.rows.values_mut() {
            if row.state == JobState::Scheduled && row.run_at_ms <= request.now_ms {
                row.state = JobState::Available;
                taken.promoted += 1;
            }
            let is_known = request.types.contains_key(&*row.job_type);
            if row.state == JobState::Available && !is_known {
                row.state = JobState::Failed;
                row.cause = Some(Cause::UnknownType);
                taken.unknown_failed += 1;
            }
        }
        let available = self.rows.iter().filter(|(_, row)| row.state == JobState::Available);
        let candidates: Vec<_> = available
            .map(|(id, row)| Candidate {
                job: *id,
                job_type: row.job_type.as_str().into(),
                priority: row.priority,
                run_at_ms: row.run_at_ms,
            })
            .collect();
        let mut chosen = claim::choose(request, &candidates);
        taken.more = chosen.len() > self.claims_max;
        chosen.truncate(self.claims_max);
        taken.jobs = chosen.into_iter().map(|(job, worker)| self.claim(job, worker)).collect();
        self.count(request, &mut taken);
        taken
    }

    fn claim(&mut self, job: JobId, worker: WorkerId) -> TakenJob {
        let row = self.rows.get_mut(&job).expect("candidates are rows");
        row.state = JobState::Running;
        row.attempt += 1;
        TakenJob {
            job,
            attempt: Attempt(row.attempt),
            job_type: row.job_type.as_str().into(),
            worker,
            failures: row.failures,
            crash_count: row.crash_count,
            attempts_max: row.attempts_max,
            timeout_ms: row.timeout_ms,
        }
    }

    fn count(&self, request: &TakeRequest, taken: &mut Taken) {
        for row in self.rows.values() {
            if row.state == JobState::Available
                && let Some(look) = request.types.get(&*row.job_type)
            {
                let count = taken.waiting.entry(row.job_type.as_str().into()).or_default();
                *count = (*count + 1).min(look.count_max);
            }
        }
        let scheduled = self.rows.values().filter(|row| row.state == JobState::Scheduled);
        taken.next_due_ms = scheduled.map(|row| row.run_at_ms).min();
    }

    pub(super) fn apply(&mut self, one: &FencedMove) -> Moved {
        let (job, attempt) = (one.job, one.attempt);
        let row = self
            .rows
            .get_mut(&job)
            .filter(|row| row.state == JobState::Running && row.attempt == attempt.0);
        let Some(row) = row else { return Moved { job, attempt, stale: true } };
        row.cause = one.record.cause;
        match &one.to {
            Move::Succeed { .. } => row.state = JobState::Succeeded,
            Move::Cancel => row.state = JobState::Cancelled,
            Move::Hold => row.state = JobState::Held,
            Move::Fail => {
                row.failures += 1;
                row.state = JobState::Failed;
            }
            Move::Poison => {
                row.crash_count += 1;
                row.state = JobState::Failed;
            }
            Move::Retry { run_at_ms } => {
                row.failures += 1;
                row.run_at_ms = *run_at_ms;
                row.state = JobState::Scheduled;
            }
            Move::GiveBack => row.state = JobState::Available,
            Move::Crash => {
                row.crash_count += 1;
                row.state = JobState::Available;
            }
        }
        // The store's part of a cancel that came while the outcome was being stored.
        if row.cancel_requested && !row.state.is_final() && row.state != JobState::Held {
            row.state = JobState::Cancelled;
        }
        Moved { job, attempt, stale: false }
    }

    pub(super) fn running(&self) -> Vec<RunningRow> {
        let running = self.rows.iter().filter(|(_, row)| row.state == JobState::Running);
        running
            .map(|(job, row)| RunningRow {
                job: *job,
                attempt: Attempt(row.attempt),
                cancel_requested: row.cancel_requested,
            })
            .collect()
    }
}
