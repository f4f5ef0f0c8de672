//! Workers that outlive their supervisor: found by the next one, taken over, back; and outcomes
//! that were written down meanwhile. As `daemon/fleet/recovery.rs` does it.

use super::ledger::{Claim, Hand};
use super::process::{Key, Order, Pid};
use super::table::Row;
use super::world::{Coming, World};
use shiftboss::policy::claim::{TakenJob, TypeName, WorkerId};
use shiftboss::policy::crew::{FoundRun, Survivor};
use shiftboss::policy::event::{Event, Exit};
use shiftboss::policy::settings::TypeSettings;
use shiftboss_protocol::job::{Attempt, JobId, Usage};
use std::collections::BTreeMap;
use std::time::Duration;

/// Rows that are ours now: of workers that live, and of outcomes that were written down.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    living: Vec<(Pid, Vec<Key>)>,
    written: Vec<Key>,
}

/// An event as the process says it now, whatever it was called when the step was planned.
pub(super) fn readdressed(event: Event, now: WorkerId) -> Event {
    match event {
        Event::WorkerReady { confinement, .. } => Event::WorkerReady { worker: now, confinement },
        Event::WorkerHeard(_) => Event::WorkerHeard(now),
        Event::WorkerBroken { reason, .. } => Event::WorkerBroken { worker: now, reason },
        Event::Progress { job, attempt, .. } => Event::Progress { worker: now, job, attempt },
        Event::Finished { job, attempt, outcome, usage, .. } => {
            Event::Finished { worker: now, job, attempt, outcome, usage }
        }
        other => other,
    }
}

impl World {
    /// Processes that must be gone before anything is given back: all but living workers.
    pub(super) fn leftovers(&self) -> Vec<Pid> {
        let is_left = |one: &super::process::Process| {
            let lives = one.is_alive && one.is_ready && !one.is_killed && !one.is_cut_off;
            let stays = lives && one.orphan_grace_us > 0;
            !one.is_gone && !stays
        };
        self.processes.iter().filter(|(_, one)| is_left(one)).map(|(pid, _)| *pid).collect()
    }

    /// Makes the rows of living workers ours, in one commit, and those of written outcomes.
    pub(super) fn adopt(&mut self) -> Adopted {
        let mut adopted = Adopted::default();
        let life = self.life;
        let living: Vec<Pid> = self.processes.keys().copied().collect();
        let mut mine: BTreeMap<Pid, Vec<Key>> = living.iter().map(|pid| (*pid, vec![])).collect();
        for job in self.table.running.clone() {
            let Some(row) = self.table.rows.get_mut(&job) else { continue };
            let key = (job, Attempt(row.attempt));
            if !row.owner.is_some_and(|owner| self.dead.contains(&owner)) {
                continue;
            }
            let pid = self.table.attempts.get(&key).map_or(0, |one| one.pid);
            if let Some(keys) = mine.get_mut(&pid) {
                keys.push(key);
            } else if self.written.contains_key(&key) {
                adopted.written.push(key);
            } else {
                continue;
            }
            row.owner = Some(life);
        }
        adopted.living = mine.into_iter().collect();
        adopted
    }

    /// Tells the crew of what was adopted.
    pub(super) fn take_over(&mut self, adopted: Adopted) {
        for (pid, keys) in adopted.living {
            self.take_over_worker(pid, &keys);
        }
        let mut by_type = BTreeMap::<TypeName, Vec<Key>>::new();
        for key in adopted.written {
            if let Some(row) = self.table.rows.get(&key.0) {
                by_type.entry(row.job_type.clone()).or_default().push(key);
            }
        }
        for (job_type, keys) in by_type {
            self.store_written(job_type, &keys);
        }
    }

    fn take_over_worker(&mut self, pid: Pid, keys: &[Key]) {
        let life = self.life;
        let Some(shell) = &mut self.shell else { return };
        let worker = shell.crew.reserve_worker();
        let Some(process) = self.processes.get_mut(&pid) else { return };
        (process.life, process.worker) = (life, worker);
        process.away_since_us.get_or_insert(self.now_us);
        let (job_type, concurrency) = (process.job_type.clone(), process.concurrency);
        let slot = 1_000 + pid;
        self.history.count("worker taken over");
        let found = Survivor {
            worker,
            job_type,
            slot,
            pid: Some(pid),
            started_ms: 0,
            workload: "w".to_owned(),
            concurrency,
            runs: self.found_runs(worker, keys),
        };
        self.find(found);
        let outdated = !self.is_quiet && self.dice.chance(20);
        let back_us = self.dice.spread(1_000, 250_000);
        if outdated {
            self.after(back_us, Coming::Arrive(life, Event::WorkerOutdated(worker)));
        } else {
            if let Some(process) = self.processes.get_mut(&pid) {
                process.told_us = process.told_us.max(self.now_us + back_us);
            }
            self.order(pid, Order::Welcome(life));
        }
    }

    fn found_runs(&mut self, worker: WorkerId, keys: &[Key]) -> Vec<FoundRun> {
        let now_ms = self.wall_ms();
        let run = |(job, attempt): &Key| {
            let row: &Row = self.table.rows.get(job)?;
            let taken = TakenJob {
                job: *job,
                attempt: *attempt,
                job_type: row.job_type.clone(),
                worker,
                failures: row.failures,
                crash_count: row.crash_count,
                attempts_max: row.attempts_max,
                timeout_ms: row.timeout_ms,
            };
            let ran_ms = u64::try_from(now_ms.saturating_sub(row.started_ms)).unwrap_or(0);
            let cancel_asked = row.cancel_requested;
            Some(FoundRun { taken, ran_for: Duration::from_millis(ran_ms), cancel_asked })
        };
        keys.iter().filter_map(run).collect()
    }

    /// The shell's own notes of a survivor, then the crew.
    fn find(&mut self, found: Survivor) {
        let Some(shell) = &mut self.shell else { return };
        let configured = shell.settings.types.get(&*found.job_type).cloned();
        let settings = configured.unwrap_or_else(TypeSettings::of_a_removed_type);
        let (workload, concurrency) = (found.workload.clone(), found.concurrency);
        let hand = Hand {
            pid: found.pid,
            job_type: found.job_type.clone(),
            slot: found.slot,
            settings: TypeSettings { workload, concurrency, ..settings.clone() },
            ready_us: None,
            is_told_to_go: false,
            is_dismissed: false,
            may_be_dismissed: false,
            is_kill_ordered: false,
            is_away: true,
            was_found: true,
            heard_us: self.now_us,
        };
        shell.hands.insert(found.worker, hand);
        for FoundRun { taken, cancel_asked, .. } in &found.runs {
            let claim = Claim {
                failures: taken.failures,
                crash_count: taken.crash_count,
                attempts_max: taken.attempts_max,
                is_unwanted: *cancel_asked,
                ..Claim::found(found.worker, taken.job_type.clone(), self.now_us)
            };
            self.ledger.claims.insert((taken.job, taken.attempt), claim);
        }
        self.allow_what_runs();
        self.handle(Event::WorkerFound(found));
    }

    /// The cap bounds what is started; what survives may exceed it.
    fn allow_what_runs(&mut self) {
        let Some(shell) = &mut self.shell else { return };
        if let Some(allowed) = &mut shell.cap_allowed {
            let running = u32::try_from(self.ledger.claims.len()).unwrap_or(u32::MAX);
            *allowed = (*allowed).max(running);
        }
    }

    /// Outcomes without a worker: as if it had said them just before its end.
    fn store_written(&mut self, job_type: TypeName, keys: &[Key]) {
        let Some(shell) = &mut self.shell else { return };
        let worker = shell.crew.reserve_worker();
        let runs = self.found_runs(worker, keys);
        self.history.count("outcome read from disk");
        self.find(Survivor {
            worker,
            job_type,
            slot: 10_000,
            pid: None,
            started_ms: 0,
            workload: String::new(),
            concurrency: u32::try_from(runs.len()).unwrap_or(u32::MAX),
            runs,
        });
        self.say_outcomes(worker, keys);
        self.handle(Event::WorkerExited { worker, exit: Exit::default() });
    }

    fn say_outcomes(&mut self, worker: WorkerId, keys: &[(JobId, Attempt)]) {
        for (job, attempt) in keys.iter().copied() {
            let Some(outcome) = self.written.get(&(job, attempt)).cloned() else { continue };
            let usage = Usage::default();
            self.handle(Event::Finished { worker, job, attempt, outcome, usage });
        }
    }

    /// Outcomes that a worker wrote down before it ended count before its death does.
    pub(super) fn say_written(&mut self, event: &Event) {
        if let Event::WorkerExited { worker, .. } = event {
            let keys = self.ledger.open_of(*worker);
            self.say_outcomes(*worker, &keys);
        }
    }
}
