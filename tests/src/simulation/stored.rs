//! What the writer's operations do to the table: looks with their claims, and fenced moves. A
//! copy of `store/change/take.rs` and `moves.rs` in plain data; the choice itself is the
//! policy's own `claim::choose`.

use super::table::{AttemptRow, By, Row, Table};
use shiftboss::policy::claim::{
    Candidate, Offer, TakeRequest, Taken, TakenJob, TypeName, WorkerId, choose,
};
use shiftboss::policy::moves::{FencedMove, Move, Moved};
use shiftboss_protocol::job::{Attempt, JobId, JobState};
use std::collections::{BTreeMap, BTreeSet};

impl Table {
    /// One look, cut off after `claims_max` claims.
    pub(super) fn take(
        &mut self,
        request: &TakeRequest,
        us: u32,
        now_ms: i64,
        claims_max: usize,
    ) -> Taken {
        let mut taken = Taken::default();
        self.promote(request, &mut taken);
        self.fail_unknown(request, &mut taken);
        let candidates = self.candidates(request);
        let mut chosen = choose(request, &candidates);
        taken.more |= chosen.len() > claims_max;
        chosen.truncate(claims_max);
        for (job, worker) in chosen {
            let Some(offer) = request.offers.iter().find(|offer| offer.worker == worker) else {
                self.wrong.get_or_insert(format!("job {job} is chosen for no offer"));
                continue;
            };
            match self.claim(job, offer, us, now_ms) {
                Some(job) => taken.jobs.push(job),
                None => taken.more = true,
            }
        }
        self.report(request, &mut taken);
        taken
    }

    fn promote(&mut self, request: &TakeRequest, taken: &mut Taken) {
        let is_due =
            |row: &Row| row.state == JobState::Scheduled && row.run_at_ms <= request.now_ms;
        let due = self.rows.iter().filter(|(_, row)| is_due(row));
        for job in due.map(|(job, _)| *job).collect::<Vec<_>>() {
            self.change(job, JobState::Available, By::Clock);
            taken.promoted += 1;
        }
    }

    fn fail_unknown(&mut self, request: &TakeRequest, taken: &mut Taken) {
        let is_unknown = |row: &Row| {
            row.state == JobState::Available && !request.types.contains_key(&row.job_type)
        };
        let unknown = self.rows.iter().filter(|(_, row)| is_unknown(row));
        for job in unknown.map(|(job, _)| *job).collect::<Vec<_>>() {
            self.change(job, JobState::Failed, By::UnknownType);
            taken.unknown_failed += 1;
        }
    }

    fn candidates(&self, request: &TakeRequest) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let mut suspects = BTreeSet::new();
        let mut room = BTreeMap::<&TypeName, usize>::new();
        for offer in &request.offers {
            if offer.only.is_empty() {
                *room.entry(&offer.job_type).or_default() += offer.room as usize;
            }
            for job in offer.only.iter().filter(|job| suspects.insert(**job)) {
                let row = self.rows.get(job).filter(|row| {
                    row.state == JobState::Available && row.job_type == offer.job_type
                });
                candidates.extend(row.map(|row| candidate(*job, row)));
            }
        }
        for (job_type, room) in room {
            let total = match (request.room_total, request.types.get(job_type)) {
                (Some(total), Some(look)) if look.counts_in_total => total as usize,
                (Some(_) | None, Some(_) | None) => usize::MAX,
            };
            let room = room.min(total);
            if room == 0 {
                continue;
            }
            let is_mine = |row: &Row| row.state == JobState::Available && row.job_type == *job_type;
            let mine = self.rows.iter().filter(|(_, row)| is_mine(row));
            let mut mine: Vec<_> = mine.map(|(job, row)| candidate(*job, row)).collect();
            mine.sort_by_key(|one| (std::cmp::Reverse(one.priority), one.run_at_ms, one.job));
            mine.truncate(room + request.avoid.len() + suspects.len());
            mine.retain(|one| !suspects.contains(&one.job));
            candidates.extend(mine);
        }
        candidates
    }

    fn claim(&mut self, job: JobId, offer: &Offer, us: u32, now_ms: i64) -> Option<TakenJob> {
        let attempt = 1 + self.last_attempt(job).max(self.rows.get(&job)?.attempt);
        self.change(job, JobState::Running, By::Claim);
        let row = self.rows.get_mut(&job)?;
        (row.attempt, row.owner, row.cancel_requested) = (attempt, Some(us), false);
        row.started_ms = now_ms;
        let taken = TakenJob {
            job,
            attempt: Attempt(attempt),
            job_type: offer.job_type.clone(),
            worker: WorkerId(offer.worker.0),
            failures: row.failures,
            crash_count: row.crash_count,
            attempts_max: row.attempts_max,
            timeout_ms: row.timeout_ms,
        };
        let is_unreadable = row.is_unreadable;
        let pid = offer.pid;
        self.attempts.insert((job, Attempt(attempt)), AttemptRow { pid, ending: None });
        if is_unreadable {
            self.change(job, JobState::Failed, By::Move(Attempt(attempt), us));
            self.close((job, Attempt(attempt)), "failed");
            return None;
        }
        Some(taken)
    }

    fn report(&self, request: &TakeRequest, taken: &mut Taken) {
        for row in self.rows.values() {
            match row.state {
                JobState::Available => {
                    let Some(look) = request.types.get(&row.job_type) else { continue };
                    if look.count_max > 0 {
                        let count = taken.waiting.entry(row.job_type.clone()).or_default();
                        *count = (*count + 1).min(look.count_max);
                    }
                }
                JobState::Scheduled => {
                    let at = row.run_at_ms;
                    taken.next_due_ms = Some(taken.next_due_ms.map_or(at, |due| due.min(at)));
                }
                JobState::Blocked
                | JobState::Running
                | JobState::Held
                | JobState::Succeeded
                | JobState::Failed
                | JobState::Cancelled => {}
            }
        }
    }

    /// Moves a running job of `owner`; a `fence` of false is a store that does not look.
    pub(super) fn apply(
        &mut self,
        one: &FencedMove,
        owner: u32,
        now_ms: i64,
        fence: bool,
    ) -> Moved {
        let key @ (job, attempt) = (one.job, one.attempt);
        let (mut to, outcome, yields) = target(&one.to, now_ms);
        let Some(row) = self.rows.get_mut(&job) else {
            let stale = !self.was_stored(key, outcome, yields);
            if stale {
                self.forget_attempts(job);
            }
            return Moved { job, attempt, stale };
        };
        let is_running = row.state == JobState::Running;
        let holds = is_running && row.attempt == attempt.0 && row.owner == Some(owner);
        if !holds && fence {
            let elsewhere = !(is_running && row.attempt == attempt.0);
            let stale = !self.was_stored(key, outcome, yields);
            if stale && elsewhere {
                self.close(key, outcome);
            }
            return Moved { job, attempt, stale };
        }
        match one.to {
            Move::Retry { run_at_ms } => {
                row.failures += 1;
                row.run_at_ms = run_at_ms;
            }
            Move::Fail => row.failures += 1,
            Move::Crash | Move::Poison => row.crash_count += 1,
            Move::Succeed { .. } | Move::Cancel | Move::Hold | Move::GiveBack => {}
        }
        let cancelled = yields && row.cancel_requested;
        if cancelled {
            to = JobState::Cancelled;
        }
        self.change(job, to, By::Move(attempt, owner));
        self.close(key, if cancelled { "cancelled" } else { outcome });
        Moved { job, attempt, stale: false }
    }

    fn close(&mut self, key: (JobId, Attempt), outcome: &'static str) {
        if let Some(row) = self.attempts.get_mut(&key) {
            row.ending.get_or_insert(outcome);
        }
    }

    fn was_stored(&self, key: (JobId, Attempt), outcome: &str, yields: bool) -> bool {
        let ending = self.attempts.get(&key).and_then(|row| row.ending);
        ending.is_some_and(|word| word == outcome || yields && word == "cancelled")
    }
}

fn candidate(job: JobId, row: &Row) -> Candidate {
    Candidate {
        job,
        job_type: row.job_type.clone(),
        priority: row.priority,
        run_at_ms: row.run_at_ms,
    }
}

/// The state that a move leads to, the word of its attempt, and whether it yields to a cancel.
fn target(to: &Move, now_ms: i64) -> (JobState, &'static str, bool) {
    match to {
        Move::Succeed { .. } => (JobState::Succeeded, "succeeded", false),
        Move::Retry { run_at_ms } if *run_at_ms > now_ms => (JobState::Scheduled, "failed", true),
        Move::Retry { .. } => (JobState::Available, "failed", true),
        Move::Fail => (JobState::Failed, "failed", false),
        Move::Cancel => (JobState::Cancelled, "cancelled", false),
        Move::Hold => (JobState::Held, "held", false),
        Move::GiveBack => (JobState::Available, "released", true),
        Move::Crash => (JobState::Available, "crashed", true),
        Move::Poison => (JobState::Failed, "crashed", false),
    }
}
