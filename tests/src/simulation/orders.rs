//! Carrying out what the crew says.

use super::ledger::{Claim, Hand, Phase};
use super::outside::Nature;
use super::process::{Does, Key, Order, Process, Step, signalled};
use super::world::{Coming, World};
use shiftboss::policy::claim::{TypeName, WorkerId};
use shiftboss::policy::event::{Action, Event};
use shiftboss::policy::moves::{FencedMove, Move};
use shiftboss_protocol::job::{Attempt, Cause, Failure, JobId, Outcome, Usage};
use shiftboss_protocol::message::{Receipt, ReceiptOf};
use std::collections::VecDeque;

/// Beyond its grace, what the end of an attempt may take: the margin of a stop (10 s), a kill of
/// a process that is in an uninterruptible sleep, a supervisor that stands still.
const OVERDUE_US: u64 = 60_000_000;

/// Times that a job may be given back in one second.
const GIVEN_BACK_MAX: u32 = 20;

impl World {
    pub(super) fn carry_out(&mut self, action: Action, pending: &mut VecDeque<Event>) {
        if self.is_action_of_a_closed_shell(&action) {
            self.blame(format!("{} while draining", super::words::of_action(&action)));
        }
        match action {
            Action::Take(request) => {
                self.check_request(&request);
                if let Some(shell) = &mut self.shell {
                    shell.is_looking = true;
                    shell.take = Some(request);
                }
            }
            Action::Spawn { worker, job_type, slot } => {
                pending.push_back(self.spawn(worker, job_type, slot));
            }
            Action::Assign { worker, jobs } => self.assign(worker, &jobs, pending),
            Action::Stop { worker, job, attempt, reason } => {
                self.check_stop(worker, (job, attempt), reason);
                if let Some(claim) = self.ledger.claims.get_mut(&(job, attempt)) {
                    claim.stop = Some(reason);
                }
                self.order_worker(worker, Order::Stop((job, attempt), reason));
            }
            Action::DrainWorker(worker) => self.dismiss(worker, Order::Drain),
            Action::TerminateWorker(worker) => self.dismiss(worker, Order::Terminate),
            Action::KillWorker(worker) => self.kill_worker(worker),
            Action::Move(one) => self.send_move(one),
            Action::Record { worker, receipts } => {
                let outcomes = receipts.iter().filter(|one| one.of == ReceiptOf::Outcome);
                let keys = outcomes.map(|one: &Receipt| (one.job, one.attempt)).collect();
                self.order_worker(worker, Order::Recorded(keys));
            }
            Action::Notice(notice) => self.history.count(super::words::notice(&notice)),
            Action::Exit => {
                if let Some(shell) = &mut self.shell {
                    shell.has_exited = true;
                }
            }
        }
    }

    fn send_move(&mut self, one: FencedMove) {
        self.history.count(super::words::of_move(&one.to));
        if one.to == Move::GiveBack {
            self.count_give_back(one.job);
        }
        if let Some(claim) = self.ledger.claims.get_mut(&(one.job, one.attempt)) {
            claim.phase = Phase::Moved;
        }
        if let Some(shell) = &mut self.shell {
            shell.moves.push(one);
        }
    }

    /// A job that is given back many times in a second is one that nobody gets done.
    fn count_give_back(&mut self, job: JobId) {
        let second = self.now_us / 1_000_000;
        let counted = self.ledger.given_back.entry(job).or_insert((second, 0));
        *counted = if counted.0 == second { (second, counted.1 + 1) } else { (second, 1) };
        if counted.1 > GIVEN_BACK_MAX {
            self.blame(format!("job {job} is given back again and again in second {second}"));
        }
    }

    /// Orders to a worker that has ended already go nowhere.
    fn order_worker(&mut self, worker: WorkerId, order: Order) {
        let hand = self.shell.as_ref().and_then(|shell| shell.hands.get(&worker));
        if let Some(pid) = hand.and_then(|hand| hand.pid) {
            self.order(pid, order);
        }
    }

    fn dismiss(&mut self, worker: WorkerId, order: Order) {
        match self.shell.as_mut().and_then(|shell| shell.hands.get_mut(&worker)) {
            Some(hand) => {
                hand.is_told_to_go = true;
                hand.is_dismissed = true;
                hand.may_be_dismissed = true;
            }
            None => self.blame(format!("worker {worker} is told to go and does not exist")),
        }
        self.order_worker(worker, order);
    }

    fn kill_worker(&mut self, worker: WorkerId) {
        match self.shell.as_mut().and_then(|shell| shell.hands.get_mut(&worker)) {
            Some(hand) => (hand.is_told_to_go, hand.is_kill_ordered) = (true, true),
            None => self.blame(format!("worker {worker} is killed and does not exist")),
        }
        self.order_worker(worker, Order::Kill);
    }

    fn spawn(&mut self, worker: WorkerId, job_type: TypeName, slot: u32) -> Event {
        self.check_spawn(worker, &job_type, slot);
        let failed = |reason: &str| Event::SpawnFailed { worker, reason: reason.to_owned() };
        let Some(shell) = &mut self.shell else { return failed("no supervisor") };
        let Some(settings) = shell.settings.types.get(&*job_type).cloned() else {
            return failed("no such type");
        };
        let (life, concurrency) = (shell.life, settings.concurrency);
        let mut hand = Hand {
            pid: None,
            job_type: job_type.clone(),
            slot,
            settings,
            ready_us: None,
            is_told_to_go: false,
            is_dismissed: false,
            may_be_dismissed: false,
            is_kill_ordered: false,
            is_away: false,
            was_found: false,
            heard_us: self.now_us,
        };
        let starts_badly = !self.is_quiet && self.dice.chance(self.scene.rates.bad_start);
        let way = self.dice.below(4);
        let fails = starts_badly && way == 0;
        if !fails {
            self.next_pid += 1;
            hand.pid = Some(self.next_pid);
        }
        shell.hands.insert(worker, hand);
        if fails {
            return failed("no such file");
        }
        let pid = self.next_pid;
        let mut process = Process::new(life, worker, job_type, concurrency);
        let rates = self.scene.rates.clone();
        if !self.is_quiet {
            process.is_stubborn = self.dice.chance(rates.stubborn / 2);
            process.stays = self.dice.chance(rates.stubborn);
        }
        let slow = !self.is_quiet && self.dice.chance(rates.uninterruptible);
        process.dies_in_us = if slow {
            self.dice.spread(1_000_000, 12_000_000)
        } else {
            self.dice.spread(20, 3_000)
        };
        process.orphan_grace_us = self.scene.orphan_grace_us;
        self.processes.insert(pid, process);
        let ready_us = self.dice.spread(1_000, 300_000);
        match way {
            1 if starts_badly => self.after(ready_us, Coming::Step(pid, Step::Die(signalled(6)))),
            // Never ready.
            2 if starts_badly => {}
            // Not long after it said Ready.
            3 if starts_badly => {
                self.after(ready_us, Coming::Step(pid, Step::Ready));
                self.after(ready_us * 2, Coming::Step(pid, Step::Die(signalled(6))));
            }
            _ => self.after(ready_us, Coming::Step(pid, Step::Ready)),
        }
        Event::WorkerSpawned { worker, pid }
    }

    fn assign(
        &mut self,
        worker: WorkerId,
        jobs: &[(JobId, Attempt, u64)],
        pending: &mut VecDeque<Event>,
    ) {
        let mut orders = Vec::new();
        for (job, attempt, limit_ms) in jobs {
            let key = (*job, *attempt);
            self.check_assign(worker, key);
            if self.ledger.open_of(worker).is_empty() {
                self.hear(worker);
            }
            let Some(claim) = self.ledger.claims.get_mut(&key) else { continue };
            claim.phase = Phase::Running;
            claim.was_given = true;
            claim.limit_us = limit_ms * 1_000;
            claim.assigned_us = self.now_us;
            let claim: Claim = claim.clone();
            let grace_us = self
                .hand(worker)
                .map_or(0, |hand| u64::try_from(hand.settings.grace.term.as_micros()).unwrap_or(0));
            if *limit_ms > 0 {
                let wait = claim.limit_us + grace_us + OVERDUE_US;
                self.after(wait, Coming::Overdue(self.life, key));
            }
            if !self.is_quiet && self.dice.chance(self.scene.rates.odd / 50) {
                // Its payload fits no frame: it fails in the shell.
                let failure = Failure::permanent(Cause::Payload, "payload is too large");
                let (job, attempt, usage) = (*job, *attempt, Usage::default());
                let outcome = Outcome::Failed(failure);
                pending.push_back(Event::Finished { worker, job, attempt, outcome, usage });
                continue;
            }
            let does = self.what_it_does(key, &claim);
            orders.push((key, *limit_ms, does));
        }
        if !orders.is_empty() {
            self.order_worker(worker, Order::Assign(orders));
        }
    }

    pub(super) fn hand(&self, worker: WorkerId) -> Option<&Hand> {
        self.shell.as_ref()?.hands.get(&worker)
    }

    fn what_it_does(&mut self, (job, _): Key, claim: &Claim) -> Does {
        let after_us = if self.is_quiet || self.dice.chance(900) {
            self.dice.spread(100, 2_000_000)
        } else {
            self.dice.spread(2_000_000, 45_000_000)
        };
        let success = Does::End(after_us, Outcome::Succeeded { result: "{}".to_owned() });
        let nature = self.natures.get(&job).copied().unwrap_or(Nature::Good);
        let poison = self.hand(claim.worker).map_or(0, |hand| hand.settings.poison_after);
        match nature {
            Nature::Culprit if !self.is_quiet || poison > 0 => return Does::Crash(after_us / 8),
            Nature::Bad => {
                let failure = Failure::permanent(Cause::Payload, "no film");
                return Does::End(after_us, Outcome::Failed(failure));
            }
            Nature::Flaky if self.dice.chance(600) => {
                let mut failure = Failure::retryable(Cause::ExitCode, "exit code 1");
                failure.retry_after_ms = self.dice.chance(100).then_some(1_500);
                return Does::End(after_us, Outcome::Failed(failure));
            }
            Nature::Good | Nature::Flaky | Nature::Culprit => {}
        }
        if self.is_quiet || !self.dice.chance(self.scene.rates.odd) {
            return success;
        }
        match self.dice.below(12) {
            0 => Does::Hang,
            1 => Does::Deaf,
            2 => Does::Mute(after_us),
            3 => Does::Forget(after_us),
            4 => Does::Twice(after_us),
            5 => Does::Lie(after_us),
            6 => Does::Breach(after_us),
            7 => Does::Crash(after_us),
            8 => Does::End(after_us, Outcome::Held { reason: "unknown".to_owned() }),
            9 => Does::End(after_us, Outcome::Released { reason: "its own wish".to_owned() }),
            10 => Does::End(after_us, Outcome::Cancelled),
            _ => success,
        }
    }
}
