//! The writer thread: operations in order, committed in groups, kept while commits fail.

use super::ledger::{Claim, Phase};
use super::sabotage::Sabotage;
use super::table::Row;
use super::world::{Coming, World};
use shiftboss::policy::claim::{TakeRequest, Taken, TypeName};
use shiftboss::policy::event::Event;
use shiftboss::policy::moves::{AttemptRecord, FencedMove, Move, Moved};
use shiftboss_protocol::job::{Attempt, JobId};
use std::collections::VecDeque;

const GAP_MIN_US: u64 = 10_000;
const GAP_MAX_US: u64 = 1_000_000;
/// When a move that was refused by itself is tried again.
const REFUSED_WAIT_US: u64 = 1_000_000;
/// Rows that one part of a rescue gives back: small, so that other operations come in between.
const RESCUE_MAX: usize = 3;

#[derive(Clone, Debug)]
pub(super) enum Op {
    Take(TakeRequest),
    Move(Vec<FencedMove>),
    Cancel(Vec<JobId>),
    Retry(Vec<JobId>),
    Enqueue(Vec<Row>),
    Rescue(Vec<u32>),
    Pause(TypeName, bool),
}

#[derive(Debug, Default)]
pub(super) struct Writer {
    queue: VecDeque<Op>,
    is_awake: bool,
    /// Answers of a group that was committed while its COMMIT said that it failed.
    doubt: Option<Vec<Event>>,
    pub(super) trouble_until_us: u64,
    gap_us: u64,
    /// Others committed what was not reported yet.
    pub(super) is_dirty: bool,
    has_recheck: bool,
}

impl World {
    pub(super) fn queue(&mut self, op: Op) {
        let Some(shell) = &self.shell else { return };
        let life = shell.life;
        let slow = self.dice.chance(30);
        let delay_us = self.dice.spread(100, if slow { 300_000 } else { 2_000 });
        self.writer.queue.push_back(op);
        if !std::mem::replace(&mut self.writer.is_awake, true) {
            self.after(delay_us, Coming::Commit(life));
        }
    }

    /// Another program committed.
    pub(super) fn foreign_commit(&mut self) {
        let delay_us = self.dice.spread(200, 50_000);
        let Some(shell) = &self.shell else { return };
        self.writer.is_dirty = true;
        if shell.is_watched && !std::mem::replace(&mut self.writer.has_recheck, true) {
            let life = shell.life;
            self.after(delay_us, Coming::Recheck(life));
        }
    }

    pub(super) fn recheck(&mut self, life: u32) {
        if self.shell.as_ref().is_none_or(|shell| shell.life != life) {
            return;
        }
        self.writer.has_recheck = false;
        self.report_change(life);
    }

    fn report_change(&mut self, life: u32) {
        if std::mem::take(&mut self.writer.is_dirty) {
            let rows = self.table.running_of(life);
            self.arrive(life, Event::TableChanged(rows));
        }
    }

    /// A supervisor that ends lets its writer commit what is queued.
    pub(super) fn commit_all(&mut self) {
        while self.writer.trouble_until_us <= self.now_us && !self.writer.queue.is_empty() {
            self.work();
        }
    }

    pub(super) fn commit(&mut self, life: u32) {
        if self.shell.as_ref().is_none_or(|shell| shell.life != life) {
            return;
        }
        let fails = !self.is_quiet && self.dice.chance(self.scene.rates.bad_commit);
        if fails || self.writer.trouble_until_us > self.now_us {
            if self.writer.doubt.is_none() && self.dice.chance(200) {
                let events = self.work();
                self.writer.doubt = Some(events);
                self.history.count("commit in doubt");
            }
            let gap_us = (self.writer.gap_us * 2).clamp(GAP_MIN_US, GAP_MAX_US);
            self.writer.gap_us = gap_us;
            self.history.count("commit failed");
            self.note(|| format!("a commit fails, again in {} ms", gap_us / 1_000));
            self.after(gap_us, Coming::Commit(life));
            return;
        }
        self.writer.gap_us = 0;
        let events = match self.writer.doubt.take() {
            Some(events) => events,
            None => self.work(),
        };
        self.note(|| format!("committed, {} answers", events.len()));
        for event in events {
            self.arrive(life, event);
        }
        self.report_change(life);
        self.writer.is_awake = !self.writer.queue.is_empty();
        if self.writer.is_awake {
            let delay_us = self.dice.spread(100, 2_000);
            self.after(delay_us, Coming::Commit(life));
        }
    }

    /// A group: some operations at the head of the queue, in order.
    fn work(&mut self) -> Vec<Event> {
        let size = self.dice.between(1, self.writer.queue.len().max(1) as u64);
        let mut events = Vec::new();
        for _ in 0..size {
            let Some(op) = self.writer.queue.pop_front() else { break };
            let refused = !self.is_quiet && self.dice.chance(self.scene.rates.refused);
            if refused {
                self.refuse(op, &mut events);
            } else {
                self.work_out(op, &mut events);
            }
        }
        events
    }

    fn work_out(&mut self, op: Op, events: &mut Vec<Event>) {
        let (life, now_ms) = (self.life, self.wall_ms());
        match op {
            Op::Take(request) => events.push(Event::Taken(self.take(&request))),
            Op::Move(moves) => {
                let fence = !self.saboteur.is(Sabotage::IgnoreFence);
                let moved = moves.iter().map(|one| self.table.apply(one, life, now_ms, fence));
                let moved: Vec<Moved> = moved.collect();
                for (one, answer) in moves.iter().zip(&moved) {
                    self.check_success(one, answer);
                }
                events.push(Event::Moved(moved));
            }
            Op::Cancel(jobs) => {
                let ours = jobs.iter().filter_map(|job| self.table.cancel(*job, life));
                let ours: Vec<JobId> = ours.collect();
                if !ours.is_empty() {
                    events.push(Event::CancelAsked(ours));
                }
            }
            Op::Retry(jobs) => {
                let mut any = false;
                for job in jobs {
                    any |= self.table.retry(job, now_ms);
                }
                if any {
                    events.push(Event::OwnRows);
                }
            }
            Op::Enqueue(rows) => {
                for row in rows {
                    self.table.insert(row, now_ms);
                }
                events.push(Event::OwnRows);
            }
            Op::Rescue(dead) => self.rescue(dead, events),
            Op::Pause(name, true) => {
                self.table.paused.insert(name.to_string());
                events.push(Event::Pause(name));
            }
            Op::Pause(name, false) => {
                self.table.paused.remove(&*name);
                events.push(Event::Resume(name));
            }
        }
    }

    fn take(&mut self, request: &TakeRequest) -> Taken {
        let cut_short = self.dice.chance(100);
        let claims_max = if cut_short { self.dice.between(0, 3) } else { 500 };
        let claims_max = usize::try_from(claims_max).unwrap_or(usize::MAX);
        let taken = self.table.take(request, self.life, self.wall_ms(), claims_max);
        for one in &taken.jobs {
            let key = (one.job, one.attempt);
            let claim = Claim {
                worker: one.worker,
                job_type: one.job_type.clone(),
                phase: Phase::Committed,
                was_given: false,
                is_stray: false,
                is_unwanted: false,
                is_reported: false,
                stop: None,
                failures: one.failures,
                crash_count: one.crash_count,
                attempts_max: one.attempts_max,
                limit_us: 0,
                assigned_us: self.now_us,
            };
            self.history.count("job claimed");
            self.note(|| format!("job {} is claimed, attempt {}", one.job, one.attempt));
            if let Some(earlier) = self.ledger.claims.insert(key, claim) {
                let phase = earlier.phase;
                self.blame(format!(
                    "job {} attempt {} is issued twice: the first is {phase:?}",
                    one.job, one.attempt
                ));
            }
        }
        taken
    }

    /// Gives back what dead supervisors left running, a few rows at a time.
    fn rescue(&mut self, dead: Vec<u32>, events: &mut Vec<Event>) {
        let now_ms = self.wall_ms();
        let owned = |job: &JobId| {
            let row = self.table.rows.get(job)?;
            let owner = row.owner.filter(|owner| dead.contains(owner))?;
            Some((*job, Attempt(row.attempt), owner))
        };
        let rows: Vec<_> = self.table.running.iter().filter_map(owned).take(RESCUE_MAX).collect();
        let is_last = rows.len() < RESCUE_MAX;
        for (job, attempt, owner) in rows {
            let record = AttemptRecord::default();
            let give_back = FencedMove { job, attempt, to: Move::GiveBack, record };
            self.note(|| format!("job {job} attempt {attempt} of supervisor {owner} is rescued"));
            self.history.count("job rescued");
            self.table.apply(&give_back, owner, now_ms, true);
        }
        if is_last {
            self.dead.retain(|life| !dead.contains(life));
            events.push(Event::OwnRows);
        } else {
            self.writer.queue.push_back(Op::Rescue(dead));
        }
    }

    /// The table refuses the operation itself.
    fn refuse(&mut self, op: Op, events: &mut Vec<Event>) {
        self.history.count("operation refused");
        match op {
            Op::Take(_) => events.push(Event::Taken(Taken::default())),
            Op::Move(moves) if moves.len() > 1 => {
                for one in moves.into_iter().rev() {
                    self.writer.queue.push_front(Op::Move(vec![one]));
                }
            }
            Op::Move(moves) => {
                for one in moves {
                    self.after(REFUSED_WAIT_US, Coming::Requeue(self.life, one));
                }
            }
            // A rescue that is refused is told in the log; here it is simply not refused.
            Op::Rescue(dead) => self.rescue(dead, events),
            Op::Cancel(_) | Op::Retry(_) | Op::Enqueue(_) | Op::Pause(..) => {}
        }
    }

    pub(super) fn requeue(&mut self, life: u32, one: FencedMove) {
        if self.shell.as_ref().is_some_and(|shell| shell.life == life) {
            self.queue(Op::Move(vec![one]));
        }
    }
}
