//! The job table: rows, attempts, and what programs and people do to them, as `store/` does it.
//!
//! Every change of state goes through [`Table::change`], which knows the legal edges and writes
//! down the first illegal one: so the table itself notices when somebody ignores the fence.

use shiftboss::policy::claim::TypeName;
use shiftboss::policy::moves::RunningRow;
use shiftboss_protocol::job::{Attempt, JobId, JobState};
use std::collections::{BTreeMap, BTreeSet};

/// One row of `jobs`.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) job_type: TypeName,
    pub(super) state: JobState,
    pub(super) priority: i64,
    pub(super) run_at_ms: i64,
    pub(super) attempt: u32,
    pub(super) failures: u32,
    pub(super) crash_count: u32,
    pub(super) attempts_max: Option<u32>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) unique_key: Option<u64>,
    /// The life of the supervisor that runs it.
    pub(super) owner: Option<u32>,
    pub(super) started_ms: i64,
    pub(super) cancel_requested: bool,
    /// Its payload is no UTF-8: it fails in the claim itself.
    pub(super) is_unreadable: bool,
}

/// One row of `attempts`: the process that it was claimed for, and how it ended, once it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttemptRow {
    pub(super) pid: u32,
    pub(super) ending: Option<&'static str>,
}

/// Who changes the state of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Clock,
    UnknownType,
    Claim,
    /// A move of this attempt by this life.
    Move(Attempt, u32),
    Cancel,
    Retry,
    /// Somebody with an SQL prompt.
    Hand,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: BTreeMap<JobId, Row>,
    pub(super) attempts: BTreeMap<(JobId, Attempt), AttemptRow>,
    pub(super) paused: BTreeSet<String>,
    /// Rows in state running.
    pub(super) running: BTreeSet<JobId>,
    /// The first change that nobody may make.
    pub(super) wrong: Option<String>,
    pub(super) inserted: u64,
    next: i64,
}

impl Table {
    /// Inserts a row as the trigger leaves it. `None`: its key is in use.
    pub(super) fn insert(&mut self, row: Row, now_ms: i64) -> Option<JobId> {
        if row.unique_key.is_some_and(|key| self.key_holder(key).is_some()) {
            return None;
        }
        self.next += 1;
        let id = JobId(self.next);
        self.insert_as(id, row, now_ms);
        Some(id)
    }

    /// Inserts a row under a number of the writer's choice.
    pub(super) fn insert_as(&mut self, id: JobId, mut row: Row, now_ms: i64) {
        row.state = if row.run_at_ms > now_ms { JobState::Scheduled } else { JobState::Available };
        self.inserted += 1;
        self.rows.insert(id, row);
    }

    /// The unfinished row that has the key.
    pub(super) fn key_holder(&self, key: u64) -> Option<JobId> {
        let holds = |row: &Row| row.unique_key == Some(key) && !row.state.is_final();
        self.rows.iter().find(|(_, row)| holds(row)).map(|(id, _)| *id)
    }

    pub(super) fn delete(&mut self, job: JobId) -> Option<Row> {
        self.running.remove(&job);
        self.rows.remove(&job)
    }

    /// Moves a row to a state, behind the check of its edge.
    pub(super) fn change(&mut self, job: JobId, to: JobState, by: By) {
        use JobState as S;
        let Some(row) = self.rows.get_mut(&job) else {
            self.wrong.get_or_insert(format!("job {job} is changed by {by:?} and does not exist"));
            return;
        };
        let from = row.state;
        let legal = match by {
            By::Clock => (from, to) == (S::Scheduled, S::Available),
            By::UnknownType => (from, to) == (S::Available, S::Failed),
            By::Claim => (from, to) == (S::Available, S::Running),
            By::Move(attempt, life) => {
                from == S::Running && row.attempt == attempt.0 && row.owner == Some(life)
            }
            By::Cancel => {
                matches!(from, S::Scheduled | S::Available | S::Held) && to == S::Cancelled
            }
            By::Retry => (from == S::Held || from.is_final()) && to == S::Available,
            By::Hand => (from, to) == (S::Running, S::Available),
        };
        if !legal {
            let owner = row.owner;
            let attempt = row.attempt;
            self.wrong.get_or_insert(format!(
                "job {job} goes from {from} to {to} by {by:?}; the row is at attempt {attempt}, \
                 owner {owner:?}"
            ));
        }
        row.state = to;
        if to == S::Running {
            self.running.insert(job);
        } else {
            row.owner = None;
            self.running.remove(&job);
        }
    }

    /// `shiftboss cancel`: returns the running job if the supervisor `us` must stop it.
    pub(super) fn cancel(&mut self, job: JobId, us: u32) -> Option<JobId> {
        let row = self.rows.get_mut(&job)?;
        match row.state {
            JobState::Running => {
                row.cancel_requested = true;
                (row.owner == Some(us)).then_some(job)
            }
            JobState::Blocked | JobState::Scheduled | JobState::Available | JobState::Held => {
                row.cancel_requested = true;
                self.change(job, JobState::Cancelled, By::Cancel);
                None
            }
            JobState::Succeeded | JobState::Failed | JobState::Cancelled => None,
        }
    }

    /// `shiftboss retry`: true when the row is available now.
    pub(super) fn retry(&mut self, job: JobId, now_ms: i64) -> bool {
        let Some(row) = self.rows.get(&job) else { return false };
        match row.state {
            JobState::Available => return true,
            JobState::Held | JobState::Succeeded | JobState::Failed | JobState::Cancelled => {}
            JobState::Blocked | JobState::Scheduled | JobState::Running => return false,
        }
        let key = row.unique_key.filter(|_| row.state.is_final());
        if key.is_some_and(|key| self.key_holder(key).is_some()) {
            return false;
        }
        self.change(job, JobState::Available, By::Retry);
        if let Some(row) = self.rows.get_mut(&job) {
            (row.failures, row.crash_count, row.cancel_requested) = (0, 0, false);
            row.run_at_ms = now_ms;
        }
        true
    }

    /// The running rows of this life, as a re-check reads them.
    pub(super) fn running_of(&self, life: u32) -> Vec<RunningRow> {
        let rows = self.running.iter().filter_map(|job| Some((*job, self.rows.get(job)?)));
        rows.filter(|(_, row)| row.owner == Some(life))
            .map(|(job, row)| RunningRow {
                job,
                attempt: Attempt(row.attempt),
                cancel_requested: row.cancel_requested,
            })
            .collect()
    }

    /// Deletes final rows beyond a number, oldest first, with their attempts.
    pub(super) fn prune(&mut self, keep: usize) {
        let finals = self.rows.iter().filter(|(_, row)| row.state.is_final());
        let finals: Vec<JobId> = finals.map(|(id, _)| *id).collect();
        for job in finals.iter().take(finals.len().saturating_sub(keep)) {
            self.rows.remove(job);
            self.forget_attempts(*job);
        }
    }

    pub(super) fn forget_attempts(&mut self, job: JobId) {
        let range = (job, Attempt(0))..=(job, Attempt(u32::MAX));
        let keys: Vec<_> = self.attempts.range(range).map(|(key, _)| *key).collect();
        for key in keys {
            self.attempts.remove(&key);
        }
    }

    pub(super) fn last_attempt(&self, job: JobId) -> u32 {
        let range = (job, Attempt(0))..=(job, Attempt(u32::MAX));
        self.attempts.range(range).next_back().map_or(0, |((_, attempt), _)| attempt.0)
    }
}
