//! The outside: programs that insert, people with an SQL prompt, operators, and misfortune.

use super::process::{Order, Pid};
use super::table::{By, Row};
use super::world::{Coming, World};
use super::writer::Op;
use shiftboss::policy::claim::TypeName;
use shiftboss::policy::event::{DrainLimit, Event};
use shiftboss_protocol::job::{JobId, JobState};

/// How a job behaves, in every attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    Good,
    /// It fails most of the time.
    Flaky,
    /// It fails for good.
    Bad,
    /// It kills its worker.
    Culprit,
}

/// Rows that wait beyond which nothing is inserted, and final rows that are kept.
const WAITING_MAX: usize = 60;
const FINAL_MAX: usize = 60;

impl World {
    /// One deed, and when the next one follows.
    pub(super) fn do_a_deed(&mut self) {
        if self.is_quiet {
            return;
        }
        let pause_us = self.dice.spread(100, self.scene.rates.pause_us);
        self.after(pause_us, Coming::Deed);
        let dice = self.dice.below(1000);
        let (attack, operator) = (self.scene.rates.attack, self.scene.rates.operator);
        if dice < attack {
            self.attack();
        } else if dice < attack + operator {
            self.operate();
        } else if dice < 800 {
            self.insert_some();
        } else {
            self.change_a_row();
        }
        self.table.prune(FINAL_MAX);
    }

    fn some_job(&mut self, is_meant: impl Fn(&Row) -> bool) -> Option<JobId> {
        let meant = self.table.rows.iter().filter(|(_, row)| is_meant(row));
        let jobs: Vec<JobId> = meant.map(|(job, _)| *job).collect();
        self.dice.pick(&jobs)
    }

    fn some_process(&mut self) -> Option<Pid> {
        let pids: Vec<Pid> =
            self.processes.iter().filter(|(_, one)| one.is_alive).map(|(pid, _)| *pid).collect();
        self.dice.pick(&pids)
    }

    fn a_row(&mut self) -> Row {
        let names: Vec<&str> = self.scene.settings.types.keys().map(String::as_str).collect();
        let name =
            if self.dice.chance(20) { "unknown" } else { self.dice.pick(&names).unwrap_or("noop") };
        let job_type = TypeName::from(name);
        let delayed = self.dice.chance(150);
        let wait = if delayed { self.dice.spread(1, 600_000) } else { 0 };
        let timeout_ms = self.dice.chance(150).then(|| self.dice.spread(200, 20_000));
        Row {
            job_type,
            state: JobState::Available,
            priority: i64::try_from(self.dice.below(3)).unwrap_or(0),
            run_at_ms: self.wall_ms() + i64::try_from(wait).unwrap_or(0),
            attempt: 0,
            failures: 0,
            crash_count: 0,
            attempts_max: self.dice.chance(150).then_some(2),
            timeout_ms,
            unique_key: self.dice.chance(150).then(|| self.dice.below(4)),
            owner: None,
            started_ms: 0,
            cancel_requested: false,
            is_unreadable: self.dice.chance(10),
        }
    }

    fn insert_some(&mut self) {
        let open = self.table.rows.values().filter(|row| !row.state.is_final()).count();
        if open > WAITING_MAX {
            return;
        }
        let count = self.dice.spread(1, 12);
        let rows: Vec<Row> = (0..count).map(|_| self.a_row()).collect();
        if self.dice.chance(200) && self.shell.is_some() {
            self.queue(Op::Enqueue(rows));
            return;
        }
        let now_ms = self.wall_ms();
        for row in rows {
            // `INSERT OR REPLACE` deletes the row that has the key, running or not.
            let replaces = row.unique_key.is_some() && self.dice.chance(300);
            let holder = row.unique_key.and_then(|key| self.table.key_holder(key));
            if let Some(holder) = holder.filter(|_| replaces) {
                self.note(|| format!("job {holder} is replaced"));
                self.delete(holder);
            }
            if let Some(job) = self.table.insert(row, now_ms) {
                let nature = self.a_nature();
                self.natures.insert(job, nature);
                self.note(|| format!("job {job} is inserted, {nature:?}"));
            }
        }
        self.foreign_commit();
    }

    fn a_nature(&mut self) -> Nature {
        match self.dice.below(100) {
            0..80 => Nature::Good,
            80..90 => Nature::Flaky,
            90..94 => Nature::Bad,
            _ => Nature::Culprit,
        }
    }

    fn delete(&mut self, job: JobId) -> Option<Row> {
        let row = self.table.delete(job)?;
        self.history.count("row deleted");
        if !row.state.is_final() {
            self.ledger.deleted += 1;
        }
        Some(row)
    }

    /// What people do to a row, by SQL or by the socket.
    fn change_a_row(&mut self) {
        let life = self.shell.as_ref().map_or(0, |shell| shell.life);
        let ours = |row: &Row| row.owner.is_none_or(|owner| owner == life);
        let running = |row: &Row| row.state == JobState::Running && ours(row);
        let now_ms = self.wall_ms();
        match self.dice.below(10) {
            0..3 => {
                let Some(job) = self.some_job(running) else { return };
                if let Some(row) = self.table.rows.get_mut(&job) {
                    row.cancel_requested = true;
                }
                self.note(|| format!("job {job} gets cancel_requested_at"));
            }
            3..6 => {
                let Some(job) = self.some_job(|row| !row.state.is_final()) else { return };
                self.note(|| format!("a client cancels job {job}"));
                self.queue(Op::Cancel(vec![job]));
                return;
            }
            6 => {
                let Some(job) = self.some_job(ours) else { return };
                self.note(|| format!("job {job} is deleted"));
                self.delete(job);
            }
            7 => {
                // Deleted and inserted again under its number.
                let Some(job) = self.some_job(ours) else { return };
                let Some(row) = self.delete(job) else { return };
                let row = Row {
                    attempt: 0,
                    failures: 0,
                    crash_count: 0,
                    owner: None,
                    cancel_requested: false,
                    run_at_ms: now_ms,
                    unique_key: None,
                    ..row
                };
                self.tainted.insert(job);
                self.note(|| format!("job {job} is deleted and inserted again"));
                self.table.insert_as(job, row, now_ms);
            }
            8 => {
                let Some(job) = self.some_job(running) else { return };
                self.tainted.insert(job);
                self.note(|| format!("job {job} is set back by hand"));
                self.table.change(job, JobState::Available, By::Hand);
            }
            _ => {
                let is_over = |row: &Row| row.state.is_final() || row.state == JobState::Held;
                let Some(job) = self.some_job(is_over) else { return };
                self.note(|| format!("a client retries job {job}"));
                self.queue(Op::Retry(vec![job]));
                return;
            }
        }
        self.foreign_commit();
    }

    /// Misfortune.
    fn attack(&mut self) {
        let seconds = self.dice.spread(10_000, 20_000_000);
        match self.dice.below(12) {
            0..4 => {
                let Some(pid) = self.some_process() else { return };
                self.note(|| format!("somebody kills process {pid}"));
                self.order(pid, Order::Kill);
            }
            4 => {
                let Some(pid) = self.some_process() else { return };
                self.note(|| format!("somebody terminates process {pid}"));
                self.order(pid, Order::Terminate);
            }
            5 | 6 => {
                let Some(pid) = self.some_process() else { return };
                self.note(|| format!("process {pid} stands still for {} ms", seconds / 1_000));
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.frozen_until_us = process.frozen_until_us.max(self.now_us + seconds);
                }
            }
            7 => self.fuse = Some(self.dice.spread(1, 200)),
            8 => self.die(),
            9 => {
                let shell = self.shell.as_mut();
                if let Some(shell) = shell {
                    shell.stalled_until_us = self.now_us + seconds / 4;
                }
                self.note(|| format!("the supervisor stands still for {} ms", seconds / 4_000));
            }
            10 => {
                self.writer.trouble_until_us = self.now_us + seconds;
                self.note(|| format!("the database is in trouble for {} ms", seconds / 1_000));
            }
            _ => self.jump(),
        }
    }

    /// The wall clock jumps, an hour at most, and never further than two.
    fn jump(&mut self) {
        let by = i64::try_from(self.dice.spread(1_000, 3_600_000)).unwrap_or(0);
        let by = if self.dice.chance(500) { by } else { -by };
        self.jump_ms = (self.jump_ms + by).clamp(-7_200_000, 7_200_000);
        self.history.count("clock jumped");
        let jump = self.jump_ms;
        self.note(|| format!("the wall clock jumps by {by} ms, to {jump} ms from the truth"));
    }

    fn operate(&mut self) {
        let names: Vec<TypeName> =
            self.scene.settings.types.keys().map(|name| name.as_str().into()).collect();
        let at = usize::try_from(self.dice.below(names.len() as u64)).unwrap_or(0);
        let Some(name) = names.get(at).cloned() else { return };
        let event = match self.dice.below(10) {
            0 | 1 => {
                self.queue(Op::Pause(name, true));
                return;
            }
            2..4 => {
                self.queue(Op::Pause(name, false));
                return;
            }
            4 | 5 => {
                let settings = self.scene.redrawn(&mut self.dice);
                Event::Reload(Box::new(settings))
            }
            6 => Event::Reload(Box::new(self.scene.settings.clone())),
            7 => {
                let Some(shell) = &self.shell else { return };
                let workers: Vec<_> = shell.hands.keys().copied().collect();
                let Some(worker) = self.dice.pick(&workers) else { return };
                Event::RestartWorker(worker)
            }
            8 if self.dice.chance(500) => Event::Hurry,
            8 => {
                if let Some(shell) = &mut self.shell {
                    shell.is_watched = false;
                }
                Event::Watched(false)
            }
            _ => Event::Drain(if self.dice.chance(700) {
                DrainLimit::Grace
            } else {
                DrainLimit::Unlimited
            }),
        };
        self.arrive(self.life, event);
    }
}
