//! What must hold at every step, whatever happened: limits, fences, restarts, no orphans.

use super::ledger::{Hand, Kind, Phase};
use super::process::{Key, Pid};
use super::world::World;
use shiftboss::policy::claim::{TakeRequest, WorkerId};
use shiftboss::policy::event::Exit;
use shiftboss::policy::moves::{FencedMove, Move, Moved};
use shiftboss_protocol::message::StopReason;
use std::time::Duration;

/// The policy calls a worker dead after 30 s; what comes at that very moment is handled first.
const SILENT_MAX_US: u64 = 30_001_000;

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl World {
    /// After every step: the table is in order, and every running row has somebody who runs it.
    pub(super) fn check_state(&mut self) {
        if let Some(wrong) = self.table.wrong.take() {
            self.blame(wrong);
        }
        self.check_silence();
        let Some(shell) = &self.shell else { return };
        let life = shell.life;
        let mut orphan = None;
        for job in &self.table.running {
            let Some(row) = self.table.rows.get(job) else { continue };
            let key = (*job, shiftboss_protocol::job::Attempt(row.attempt));
            let owner = row.owner.unwrap_or(0);
            let is_known = if owner == life {
                self.ledger.claims.contains_key(&key)
            } else {
                self.dead.contains(&owner)
            };
            if !is_known {
                orphan = Some((key, owner));
            }
        }
        if let Some(((job, attempt), owner)) = orphan {
            self.blame(format!(
                "job {job} attempt {attempt} is running under supervisor {owner}, and nobody runs \
                 it or will give it back"
            ));
        }
    }

    /// A worker that holds attempts and says nothing is killed after a while.
    fn check_silence(&mut self) {
        let Some(shell) = &self.shell else { return };
        let now_us = self.now_us;
        let is_mute = |(worker, hand): &(&WorkerId, &Hand)| {
            let is_silent = now_us > hand.heard_us + SILENT_MAX_US && !hand.is_kill_ordered;
            is_silent && !hand.is_away && !self.ledger.open_of(**worker).is_empty()
        };
        let mute = shell.hands.iter().find(is_mute).map(|(worker, _)| *worker);
        if let Some(worker) = mute.filter(|_| now_us > shell.stalled_until_us) {
            self.blame(format!("worker {worker} holds attempts, says nothing, and is not killed"));
        }
    }

    /// A worker starts attempts: no other process may run anything of these jobs.
    pub(super) fn check_assigned(&mut self, pid: Pid, keys: &[Key]) {
        for (job, attempt) in keys {
            // Somebody took the row of an attempt that outlived its supervisor: his own doing.
            let is_tainted = self.tainted.contains(job);
            let runs = |(other, process): (&Pid, &super::process::Process)| {
                if is_tainted && process.born != self.life {
                    return None;
                }
                let mut programs = process.programs.iter();
                let mine = programs.find(|(id, _)| id == job);
                mine.map(|(_, running)| (*other, *running))
            };
            if let Some((other, running)) = self.processes.iter().find_map(runs) {
                self.blame(format!(
                    "job {job} runs twice: attempt {attempt} starts in process {pid} while \
                     attempt {running} runs in process {other}"
                ));
            }
        }
    }

    /// Programs have started in a process: the limits hold, seen from the processes.
    pub(super) fn check_programs(&mut self, pid: Pid) {
        let Some(process) = self.processes.get(&pid) else { return };
        // What a survivor holds beyond our rows is not known before it is back; and never, where
        // somebody took the row of an attempt and another one of its job runs already.
        let is_known = |key: &&Key| self.ledger.claims.get(*key).is_some_and(|one| !one.is_stray);
        let count = process.programs.iter().filter(is_known).count();
        let most = process.concurrency as usize;
        if count > most {
            self.blame(format!("process {pid} runs {count} attempts, it may run {most}"));
        }
        let Some(shell) = &mut self.shell else { return };
        let Some(allowed) = shell.cap_allowed else { return };
        let types = &self.scene.settings.types;
        let counts = |name: &str| types.get(name).is_none_or(|one| one.counts_in_cap);
        let mine = self.processes.values();
        let mine = mine.filter(|one| one.life == shell.life && counts(&one.job_type));
        let is_known = |key: &&Key| self.ledger.claims.get(*key).is_some_and(|one| !one.is_stray);
        let running: usize = mine.map(|one| one.programs.iter().filter(is_known).count()).sum();
        // What is claimed and not decided counts too: it may be on its way to a process.
        let open = self.ledger.claims.values();
        let open = open.filter(|one| one.phase != Phase::Moved && counts(&one.job_type)).count();
        let is_settled = shell.settings.running_max.is_some_and(|max| open <= max as usize);
        if is_settled && shell.take.is_none() && !shell.is_looking {
            shell.cap_allowed = shell.settings.running_max;
        }
        if running > allowed as usize {
            self.blame(format!("{running} attempts run at once, the cap is {allowed}"));
        }
    }

    pub(super) fn check_spawn(&mut self, worker: WorkerId, job_type: &str, slot: u32) {
        let Some(shell) = &self.shell else { return };
        let settings = shell.settings.types.get(job_type);
        let mine = shell.hands.values().filter(|hand| &*hand.job_type == job_type);
        let (count, same_slot) = (mine.clone().count(), mine.clone().any(|one| one.slot == slot));
        let most = settings.map_or(0, |one| one.workers_max as usize);
        let enabled = settings.is_some_and(|one| one.enabled) && shell.settings.workers_enabled;
        if shell.hands.contains_key(&worker) {
            self.blame(format!("worker {worker} is started twice"));
        } else if same_slot {
            self.blame(format!("slot {slot} of {job_type} is used twice"));
        } else if count >= most {
            self.blame(format!(
                "worker {} of {job_type} is started, it may have {most}",
                count + 1
            ));
        } else if !enabled {
            self.blame(format!("a worker of {job_type} is started, which is switched off"));
        }
        self.close_books(job_type);
        let now_us = self.now_us;
        let not_before = self.ledger.deaths.get(job_type).map_or(0, |one| one.not_before_us);
        if now_us < not_before {
            self.blame(format!(
                "a worker of {job_type} is started {} ms too early after the deaths before it",
                (not_before - now_us).div_ceil(1_000)
            ));
        }
    }

    /// Deaths are forgotten when a worker of the type has been well for long enough.
    fn close_books(&mut self, job_type: &str) {
        let Some(shell) = &self.shell else { return };
        let now_us = self.now_us;
        let is_healthy = shell.hands.values().filter(|one| &*one.job_type == job_type).any(|one| {
            let healthy_after = micros(one.settings.restart.healthy_after);
            one.ready_us.is_some_and(|at| at + healthy_after <= now_us)
        });
        if is_healthy && let Some(deaths) = self.ledger.deaths.get_mut(job_type) {
            deaths.forget();
        }
    }

    /// A worker is gone: a death that nobody can be blamed for counts.
    pub(super) fn note_death(&mut self, worker: WorkerId, exit: Option<&Exit>) {
        let Some(hand) = self.hand(worker).cloned() else { return };
        self.close_books(&hand.job_type);
        let mut claims = self.ledger.claims.values();
        let may_be_forced = claims.any(|one| one.worker == worker && one.stop.is_some());
        let is_empty = self.ledger.open_of(worker).is_empty();
        if is_empty && !hand.may_be_dismissed && !may_be_forced && !hand.is_away {
            let deaths = self.ledger.deaths.entry(hand.job_type.clone()).or_default();
            let kind = Kind {
                was_ready: hand.ready_us.is_some(),
                was_killed: hand.is_kill_ordered,
                code: exit.and_then(|exit| exit.code),
                signal: exit.and_then(|exit| exit.signal),
            };
            deaths.add(self.now_us, kind, &hand.settings);
        }
    }

    pub(super) fn check_request(&mut self, request: &TakeRequest) {
        let Some(shell) = &self.shell else { return };
        let mut wrong = Vec::new();
        if shell.is_looking {
            wrong.push("a second look while one is under way".to_owned());
        }
        if !shell.settings.workers_enabled {
            wrong.push("a look while all workers are switched off".to_owned());
        }
        for offer in &request.offers {
            let worker = offer.worker;
            let Some(hand) = shell.hands.get(&worker) else {
                wrong.push(format!("an offer of worker {worker}, which does not exist"));
                continue;
            };
            let name = &*offer.job_type;
            let enabled = shell.settings.types.get(name).is_some_and(|one| one.enabled);
            if hand.ready_us.is_none() || hand.is_told_to_go {
                wrong.push(format!("an offer of worker {worker}, which is not open"));
            }
            if !enabled || shell.paused.contains(name) {
                wrong.push(format!("an offer of worker {worker} of {name}, which is paused"));
            }
            let used = self.ledger.open_of(worker).len();
            let room = hand.settings.concurrency as usize;
            if offer.room == 0 || used + offer.room as usize > room {
                wrong.push(format!(
                    "worker {worker} holds {used} attempts of {room} and is offered with room for \
                     {}",
                    offer.room
                ));
            }
        }
        for what in wrong {
            self.blame(what);
        }
    }

    pub(super) fn check_assign(&mut self, worker: WorkerId, key: Key) {
        let (job, attempt) = key;
        let claim = self.ledger.claims.get(&key);
        let is_mine =
            claim.is_some_and(|one| one.worker == worker && one.phase == Phase::Committed);
        let is_open =
            self.hand(worker).is_some_and(|hand| hand.ready_us.is_some() && !hand.is_told_to_go);
        if !is_mine {
            let phase = claim.map(|one| one.phase);
            self.blame(format!(
                "job {job} attempt {attempt} is given to worker {worker}; its claim is {phase:?}"
            ));
        } else if !is_open {
            self.blame(format!("job {job} is given to worker {worker}, which is not open"));
        }
    }

    pub(super) fn check_stop(&mut self, worker: WorkerId, key: Key, reason: StopReason) {
        let (job, attempt) = key;
        let claim = self.ledger.claims.get(&key).cloned();
        // What a worker that is back is told, it may have been told before.
        if self.hand(worker).is_some_and(|hand| hand.was_found) {
            return;
        }
        let Some(claim) = claim.filter(|one| one.worker == worker) else {
            self.blame(format!("job {job} attempt {attempt} is stopped in a worker without it"));
            return;
        };
        let ran_us = self.now_us - claim.assigned_us;
        if reason == StopReason::Timeout && ran_us < claim.limit_us {
            self.blame(format!("job {job} is timed out {} us early", claim.limit_us - ran_us));
        }
        if claim.stop.is_some() {
            self.blame(format!("job {job} attempt {attempt} is told to stop a second time"));
        }
    }

    /// An attempt has had its time, its grace, and more: it must be over.
    pub(super) fn check_overdue(&mut self, life: u32, (job, attempt): Key) {
        let lives = self.shell.as_ref().is_some_and(|shell| shell.life == life);
        let claim = self.ledger.claims.get(&(job, attempt));
        let since = claim.filter(|one| one.phase == Phase::Running).map(|one| one.assigned_us);
        let limit = claim.map_or(0, |one| one.limit_us);
        if lives && let Some(since) = since
            // It may have been issued again under this number.
            && self.now_us - since > limit + 60_000_000
        {
            let (ran, limit) = ((self.now_us - since) / 1_000_000, limit / 1_000);
            self.blame(format!(
                "job {job} attempt {attempt} has run for {ran} s, its limit is {limit} ms"
            ));
        }
    }

    /// A success in the table is one that really happened, and no other.
    pub(super) fn check_success(&mut self, one: &FencedMove, answer: &Moved) {
        let key = (one.job, one.attempt);
        let is_success = matches!(one.to, Move::Succeed { .. });
        if is_success && !answer.stale && !self.succeeded.contains(&key) {
            self.blame(format!("job {} attempt {} never succeeded", one.job, one.attempt));
        }
    }

    /// The supervisor ends: nothing of it may be left.
    pub(super) fn check_exit(&mut self) {
        let Some(shell) = &self.shell else { return };
        let (hands, drained) = (shell.hands.len(), shell.is_draining);
        // One that was given back before it started is not waited for: its row is given back by
        // the writer's last commit, or by the next start.
        let claims = self.ledger.claims.values().filter(|one| one.was_given).count();
        if !drained {
            self.blame("it ends without having been told to");
        } else if hands > 0 {
            self.blame(format!("it ends while {hands} workers exist"));
        } else if claims > 0 {
            self.blame(format!("it ends while {claims} attempts are not settled"));
        }
    }
}
