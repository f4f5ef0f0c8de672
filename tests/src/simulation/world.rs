//! The world around the crew: virtual time, what is to come, and one step after the other. The
//! supervisor's shell is in `shell.rs`, its writer in `writer.rs`, what it is told to do in
//! `orders.rs`, the outside in `outside.rs`, what must hold in `duties.rs` and `limits.rs`.

use super::dice::Dice;
use super::history::History;
use super::ledger::Ledger;
use super::outside::Nature;
use super::process::{Key, Order, Pid, Process, Step, Steps};
use super::sabotage::Saboteur;
use super::scene::Scene;
use super::shell::Shell;
use super::table::Table;
use super::writer::Writer;
use shiftboss::policy::event::Event;
use shiftboss::policy::moves::FencedMove;
use shiftboss::policy::time::Now;
use shiftboss_protocol::job::JobId;
use shiftboss_protocol::job::Outcome;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Wall clock at the start, unix milliseconds.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// Crew events in one simulated second that no honest history needs.
const EVENTS_A_SECOND_MAX: u32 = 20_000;

/// What is to come; `u32` is the life of the supervisor that it is for.
#[derive(Debug)]
pub(super) enum Coming {
    Deed,
    Commit(u32),
    /// A move that the table refused is tried again.
    Requeue(u32, FencedMove),
    /// A re-check sees what others committed.
    Recheck(u32),
    Turn(u32),
    Arrive(u32, Event),
    Order(Pid, Order),
    Step(Pid, Step),
    /// A stopped process goes on.
    Thaw(Pid),
    /// The supervisor starts again; the time since which it waits for old processes.
    Boot(u64),
    /// The attempt must be over by now.
    Overdue(u32, Key),
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) scene: Scene,
    pub(super) now_us: u64,
    /// How far the wall clock has jumped.
    pub(super) jump_ms: i64,
    pub(super) table: Table,
    pub(super) writer: Writer,
    pub(super) processes: BTreeMap<Pid, Process>,
    pub(super) next_pid: Pid,
    pub(super) shell: Option<Shell>,
    /// The supervisor that lives, or lived last.
    pub(super) life: u32,
    /// Lives whose rows are not given back yet.
    pub(super) dead: BTreeSet<u32>,
    /// Actions until the supervisor dies.
    pub(super) fuse: Option<u64>,
    pub(super) ledger: Ledger,
    pub(super) natures: BTreeMap<JobId, Nature>,
    /// Outcomes that workers without a supervisor wrote to disk.
    pub(super) written: BTreeMap<Key, Outcome>,
    /// Jobs whose running rows people changed by hand.
    pub(super) tainted: BTreeSet<JobId>,
    /// Attempts whose program really succeeded.
    pub(super) succeeded: BTreeSet<Key>,
    pub(super) history: History,
    pub(super) saboteur: Saboteur,
    pub(super) violation: Option<String>,
    /// Nothing new goes wrong any more.
    pub(super) is_quiet: bool,
    pub(super) steps: u64,
    pub(super) crew_events: u64,
    second: (u64, u32),
    agenda: BTreeMap<(u64, u64), Coming>,
    /// What waits for stopped processes.
    frozen: BTreeMap<Pid, Vec<Coming>>,
    sequence: u64,
}

impl World {
    pub(super) fn new(seed: u64, saboteur: Saboteur, history: History) -> Self {
        let mut dice = Dice::new(seed);
        let scene = Scene::draw(&mut dice);
        Self {
            dice,
            scene,
            now_us: 1_000_000,
            jump_ms: 0,
            table: Table::default(),
            writer: Writer::default(),
            processes: BTreeMap::new(),
            next_pid: 0,
            shell: None,
            life: 0,
            dead: BTreeSet::new(),
            fuse: None,
            ledger: Ledger::default(),
            natures: BTreeMap::new(),
            written: BTreeMap::new(),
            tainted: BTreeSet::new(),
            succeeded: BTreeSet::new(),
            history,
            saboteur,
            violation: None,
            is_quiet: false,
            steps: 0,
            crew_events: 0,
            second: (0, 0),
            agenda: BTreeMap::new(),
            frozen: BTreeMap::new(),
            sequence: 0,
        }
    }

    pub(super) fn wall_ms(&self) -> i64 {
        let ms = i64::try_from(self.now_us / 1_000).unwrap_or(i64::MAX);
        EPOCH_MS.saturating_add(ms).saturating_add(self.jump_ms)
    }

    /// Both clocks as the supervisor that was born then reads them.
    pub(super) fn now(&self, born_us: u64) -> Now {
        Now { mono: Duration::from_micros(self.now_us - born_us), unix_ms: self.wall_ms() }
    }

    /// Writes down what must not be; the first one counts.
    pub(super) fn blame(&mut self, what: impl Into<String>) {
        if self.violation.is_none() {
            let what = what.into();
            self.history.note(self.now_us, || format!("VIOLATION: {what}"));
            self.violation = Some(what);
        }
    }

    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        self.history.note(self.now_us, text);
    }

    pub(super) fn after(&mut self, delay_us: u64, what: Coming) {
        self.sequence += 1;
        self.agenda.insert((self.now_us.saturating_add(delay_us), self.sequence), what);
    }

    /// Lets the next thing happen; false when nothing happens before `limit_us`.
    pub(super) fn advance(&mut self, limit_us: u64) -> bool {
        let next = self.agenda.keys().next().map(|(at, _)| *at);
        let deadline = self.deadline_us();
        let Some(at) = [next, deadline].into_iter().flatten().min().filter(|at| *at <= limit_us)
        else {
            return false;
        };
        self.now_us = self.now_us.max(at);
        if next == Some(at) {
            if let Some((_, what)) = self.agenda.pop_first() {
                self.happen(what);
            }
        } else {
            self.on_deadline();
        }
        self.steps += 1;
        self.check_state();
        true
    }

    fn happen(&mut self, what: Coming) {
        self.history.mix(self.now_us);
        match what {
            Coming::Deed => self.do_a_deed(),
            Coming::Commit(life) => self.commit(life),
            Coming::Requeue(life, one) => self.requeue(life, one),
            Coming::Recheck(life) => self.recheck(life),
            Coming::Turn(life) => self.turn(life),
            Coming::Arrive(life, event) => self.arrive(life, event),
            Coming::Order(pid, order) => self.order_comes(pid, order),
            Coming::Step(pid, step) => self.step_comes(pid, step),
            Coming::Thaw(pid) => self.thaw(pid),
            Coming::Boot(since_us) => self.boot(since_us),
            Coming::Overdue(life, key) => self.check_overdue(life, key),
        }
    }

    fn order_comes(&mut self, pid: Pid, order: Order) {
        if self.processes.get(&pid).is_none_or(|process| !process.is_alive) {
            return;
        }
        if order != Order::Kill && self.is_frozen(pid) {
            self.thaw_then(pid, Coming::Order(pid, order));
            return;
        }
        if order == Order::Lost
            && let Some(process) = self.processes.get_mut(&pid)
        {
            process.away_since_us.get_or_insert(self.now_us);
        }
        if let Order::Assign(jobs) = &order {
            let keys: Vec<Key> = jobs.iter().map(|(key, ..)| *key).collect();
            self.check_assigned(pid, &keys);
        }
        self.note(|| format!("process {pid} hears {order:?}"));
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let steps = process.obey(order, &mut self.dice);
        self.check_programs(pid);
        self.follow(pid, steps);
    }

    /// True while a process does nothing, or has not caught up with what came meanwhile.
    fn is_frozen(&self, pid: Pid) -> bool {
        let until = self.processes.get(&pid).map_or(0, |process| process.frozen_until_us);
        until > self.now_us || self.frozen.contains_key(&pid)
    }

    /// Orders and steps of a stopped process wait, in order; for one that never goes on they are
    /// lost.
    fn thaw_then(&mut self, pid: Pid, what: Coming) {
        let Some(process) = self.processes.get(&pid) else { return };
        if process.frozen_until_us == u64::MAX {
            return;
        }
        let wait_us = process.frozen_until_us.saturating_sub(self.now_us);
        let queue = self.frozen.entry(pid).or_default();
        queue.push(what);
        if queue.len() == 1 {
            self.after(wait_us, Coming::Thaw(pid));
        }
    }

    fn thaw(&mut self, pid: Pid) {
        let until_us = self.processes.get(&pid).map_or(0, |process| process.frozen_until_us);
        if until_us > self.now_us && until_us != u64::MAX {
            self.after(until_us - self.now_us, Coming::Thaw(pid));
            return;
        }
        for what in self.frozen.remove(&pid).unwrap_or_default() {
            self.happen(what);
        }
    }

    fn step_comes(&mut self, pid: Pid, step: Step) {
        let is_frozen = self.is_frozen(pid);
        let Some(process) = self.processes.get_mut(&pid) else { return };
        match step {
            Step::Die(exit) => self.on_death(pid, exit),
            Step::TreeGone(exit) => self.on_tree_gone(pid, exit),
            _ if is_frozen => {
                self.thaw_then(pid, Coming::Step(pid, step));
            }
            Step::GiveUp => {
                let grace_us = process.orphan_grace_us;
                let is_over = |since| self.now_us >= since + grace_us;
                if process.away_since_us.is_some_and(is_over) {
                    self.order_comes(pid, Order::GiveUp);
                }
            }
            Step::Say(event) => {
                if process.is_alive {
                    self.say(pid, event);
                }
            }
            Step::Ready
            | Step::Act(..)
            | Step::Stopped(..)
            | Step::OwnTimeout(_)
            | Step::Beat
            | Step::MustGo => {
                let steps = process.act(step, &mut self.dice);
                self.follow(pid, steps);
            }
        }
    }

    /// What a process does at once is done now, the rest later.
    pub(super) fn follow(&mut self, pid: Pid, steps: Steps) {
        for (delay_us, step) in steps {
            if delay_us == 0 {
                self.step_comes(pid, step);
            } else {
                self.after(delay_us, Coming::Step(pid, step));
            }
        }
    }

    /// A message on its way to the supervisor: the socket keeps the order.
    fn say(&mut self, pid: Pid, event: Event) {
        if let Event::Finished { job, attempt, .. } = &event {
            self.note_success((*job, *attempt), &event);
        }
        let delay_us = self.dice.spread(10, 2_000);
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if process.is_cut_off {
            return;
        }
        if process.away_since_us.is_some() {
            return;
        }
        let event = super::survivors::readdressed(event, process.worker);
        let is_breach = matches!(event, Event::WorkerBroken { .. });
        process.is_cut_off = is_breach;
        let at = (self.now_us + delay_us).max(process.said_us + 1);
        process.said_us = at;
        let life = process.life;
        self.after(at - self.now_us, Coming::Arrive(life, event));
        if is_breach {
            self.order(pid, Order::Lost);
        }
    }

    /// An order on its way to a process: kept in order too, but for signals.
    pub(super) fn order(&mut self, pid: Pid, order: Order) {
        let delay_us = self.dice.spread(10, 2_000);
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if matches!(order, Order::Kill | Order::Terminate) {
            self.after(20, Coming::Order(pid, order));
            return;
        }
        let is_contact = matches!(order, Order::Lost | Order::Welcome(_));
        if (process.is_cut_off || process.away_since_us.is_some()) && !is_contact {
            return;
        }
        let at = (self.now_us + delay_us).max(process.told_us + 1);
        process.told_us = at;
        self.after(at - self.now_us, Coming::Order(pid, order));
    }

    fn on_death(&mut self, pid: Pid, exit: shiftboss::policy::event::Exit) {
        let linger_us =
            if self.dice.chance(50) { 2_000_000 } else { self.dice.spread(100, 200_000) };
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if !process.is_alive {
            return;
        }
        process.is_alive = false;
        let is_clean = exit.code == Some(0);
        if process.away_since_us.is_some() && (is_clean || self.dice.chance(700)) {
            self.written.extend(process.unrecorded.clone());
        }
        let has_programs = !process.programs.is_empty();
        let (life, worker, said_us) = (process.life, process.worker, process.said_us);
        self.history.count("worker process ended");
        self.note(|| format!("process {pid} ends: {exit:?}"));
        if self.saboteur.is(super::sabotage::Sabotage::ReportExitEarly) {
            let wait = said_us.saturating_sub(self.now_us) + 50;
            let exit = exit.clone();
            self.after(wait, Coming::Arrive(life, Event::WorkerExited { worker, exit }));
        }
        let wait = if has_programs { linger_us } else { 50 };
        self.after(wait, Coming::Step(pid, Step::TreeGone(exit)));
    }

    fn on_tree_gone(&mut self, pid: Pid, exit: shiftboss::policy::event::Exit) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.programs.clear();
        process.held.clear();
        process.is_gone = true;
        let (life, worker, said_us) = (process.life, process.worker, process.said_us);
        let is_early = self.saboteur.is(super::sabotage::Sabotage::ReportExitEarly);
        if self.shell.as_ref().is_none_or(|shell| shell.life != life) {
            self.processes.remove(&pid);
        } else if !is_early {
            let wait = said_us.saturating_sub(self.now_us) + 50;
            self.after(wait, Coming::Arrive(life, Event::WorkerExited { worker, exit }));
        }
    }

    fn note_success(&mut self, key: Key, event: &Event) {
        let is_success =
            matches!(event, Event::Finished { outcome: Outcome::Succeeded { .. }, .. });
        if is_success {
            self.succeeded.insert(key);
        }
    }

    /// Crew events are counted: an honest supervisor has a bounded number in a second.
    pub(super) fn count_event(&mut self) {
        self.crew_events += 1;
        let second = self.now_us / 1_000_000;
        self.second =
            if self.second.0 == second { (second, self.second.1 + 1) } else { (second, 1) };
        if self.second.1 > EVENTS_A_SECOND_MAX {
            self.blame(format!("a busy loop: {} events in second {second}", self.second.1));
        }
    }
}
