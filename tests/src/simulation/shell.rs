//! The supervisor's shell, as `daemon/` is one: an inbox, turns, deadlines; birth and death.

use super::ledger::Hand;
use super::process::Order;
use super::survivors::Adopted;
use super::world::{Coming, World};
use super::writer::{Op, Writer};
use shiftboss::policy::claim::{TakeRequest, WorkerId};
use shiftboss::policy::crew::Crew;
use shiftboss::policy::event::{Action, Event};
use shiftboss::policy::moves::FencedMove;
use shiftboss::policy::settings::Settings;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long a start waits for the processes of a dead supervisor.
const LEFTOVERS_WAIT_US: u64 = 5_000_000;

/// A supervisor process: all of this is lost when it dies.
#[derive(Debug)]
pub(super) struct Shell {
    pub(super) crew: Crew,
    pub(super) life: u32,
    pub(super) born_us: u64,
    pub(super) settings: Settings,
    pub(super) hands: BTreeMap<WorkerId, Hand>,
    pub(super) moves: Vec<FencedMove>,
    pub(super) take: Option<TakeRequest>,
    pub(super) is_looking: bool,
    pub(super) is_draining: bool,
    /// It was told to end; nothing but its last words matter.
    pub(super) has_exited: bool,
    /// It does nothing before.
    pub(super) stalled_until_us: u64,
    pub(super) is_watched: bool,
    pub(super) paused: BTreeSet<String>,
    /// Largest cap in force since fewer attempts than the present one ran.
    pub(super) cap_allowed: Option<u32>,
    /// Looks in a row that nothing asked for and that found nothing, and since when.
    pub(super) empty_looks: (u32, u64),
    inbox: VecDeque<Event>,
    has_turn: bool,
}

impl World {
    /// A supervisor starts: it ends what a dead one left running, gives its rows back, looks.
    pub(super) fn boot(&mut self, since_us: u64) {
        if self.shell.is_some() {
            return;
        }
        let left = self.leftovers();
        for pid in &left {
            self.order(*pid, Order::Kill);
        }
        let is_patient = self.is_quiet || self.now_us - since_us < LEFTOVERS_WAIT_US;
        if !left.is_empty() && is_patient {
            self.after(10_000, Coming::Boot(since_us));
            return;
        }
        self.life += 1;
        self.history.count("supervisor started");
        self.history.mix(u64::from(self.life));
        let (life, settings) = (self.life, self.scene.settings.clone());
        self.note(|| format!("supervisor {life} starts"));
        let seed = self.dice.next();
        let born_us = self.now_us - 1_000;
        let crew = Crew::new(self.now(born_us), settings.clone(), &self.table.paused, seed);
        let is_watched = self.scene.polls && self.is_quiet || !self.dice.chance(100);
        self.shell = Some(Shell {
            crew,
            life,
            born_us,
            cap_allowed: settings.running_max,
            settings,
            hands: BTreeMap::new(),
            moves: Vec::new(),
            take: None,
            is_looking: false,
            is_draining: false,
            has_exited: false,
            stalled_until_us: 0,
            is_watched,
            paused: self.table.paused.clone(),
            empty_looks: (0, 0),
            inbox: VecDeque::new(),
            has_turn: false,
        });
        self.writer = Writer::default();
        let adopted = if left.is_empty() { self.adopt() } else { Adopted::default() };
        if left.is_empty() && !self.dead.is_empty() {
            let dead = self.dead.iter().copied().collect();
            self.queue(Op::Rescue(dead));
        }
        self.handle(Event::Watched(is_watched));
        self.take_over(adopted);
        self.handle(Event::Started);
        self.flush();
    }

    /// kill -9 of the supervisor: what is in memory is lost, what is committed stays.
    pub(super) fn die(&mut self) {
        let Some(shell) = self.shell.take() else { return };
        let life = shell.life;
        self.history.count("supervisor died");
        self.note(|| format!("supervisor {life} dies"));
        self.fuse = None;
        self.writer = Writer::default();
        self.ledger.claims.clear();
        self.ledger.deaths.clear();
        self.dead.insert(life);
        self.processes.retain(|_, one| !one.is_gone);
        for pid in self.processes.keys().copied().collect::<Vec<_>>() {
            self.order(pid, Order::Lost);
        }
        let pause_us = self.dice.spread(1_000, 4_000_000);
        self.after(pause_us, Coming::Boot(self.now_us + pause_us));
    }

    /// Puts an event into the inbox of the supervisor that it is for.
    pub(super) fn arrive(&mut self, life: u32, event: Event) {
        let delay_us = self.dice.spread(1, 200);
        let Some(shell) = self.shell.as_mut().filter(|shell| shell.life == life) else { return };
        shell.inbox.push_back(event);
        if !std::mem::replace(&mut shell.has_turn, true) {
            self.after(delay_us, Coming::Turn(life));
        }
    }

    /// One event of the inbox; what follows is carried out when a batch of them is handled.
    pub(super) fn turn(&mut self, life: u32) {
        let goes_on = self.dice.chance(600);
        let Some(shell) = self.shell.as_mut().filter(|shell| shell.life == life) else { return };
        if shell.stalled_until_us > self.now_us {
            let wait = shell.stalled_until_us - self.now_us;
            self.after(wait, Coming::Turn(life));
            return;
        }
        let Some(event) = shell.inbox.pop_front() else {
            shell.has_turn = false;
            return;
        };
        let has_more = !shell.inbox.is_empty();
        shell.has_turn = has_more;
        if has_more {
            self.after(1, Coming::Turn(life));
        }
        if self.is_heard(&event) {
            self.say_written(&event);
            self.handle(event);
        }
        if !(has_more && goes_on) {
            self.flush();
        }
    }

    /// The shell drops what comes from workers that it does not know, and stale progress.
    fn is_heard(&self, event: &Event) -> bool {
        let Some(shell) = &self.shell else { return false };
        let knows = |worker: &WorkerId| shell.hands.contains_key(worker);
        match event {
            Event::WorkerReady { worker, .. }
            | Event::WorkerHeard(worker)
            | Event::WorkerBroken { worker, .. }
            | Event::WorkerExited { worker, .. }
            | Event::WorkerBack { worker, .. }
            | Event::WorkerOutdated(worker)
            | Event::Finished { worker, .. } => knows(worker),
            Event::Progress { worker, job, attempt } => {
                let run = shell.crew.run_view(self.now(shell.born_us), *job);
                run.is_some_and(|run| run.worker == *worker && run.attempt == *attempt)
            }
            _ => true,
        }
    }

    /// The moment of the crew's next deadline.
    pub(super) fn deadline_us(&self) -> Option<u64> {
        let shell = self.shell.as_ref().filter(|shell| !shell.has_exited)?;
        let at = shell.crew.next_deadline(self.now(shell.born_us))?;
        let at = u64::try_from(at.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
        let at = at.saturating_add(shell.born_us);
        Some(at.max(shell.stalled_until_us).max(self.now_us))
    }

    pub(super) fn on_deadline(&mut self) {
        self.history.mix(self.now_us);
        self.handle(Event::Deadline);
        self.flush();
    }

    /// Asks the crew and carries out what it says, until nothing more follows.
    pub(super) fn handle(&mut self, event: Event) {
        let mut pending = VecDeque::from([event]);
        while let Some(event) = pending.pop_front() {
            let Some(shell) = &self.shell else { return };
            if shell.has_exited {
                return;
            }
            let now = self.now(shell.born_us);
            self.count_event();
            self.note(|| format!("crew <- {}", super::words::of_event(&event)));
            self.history.count(super::words::kind_of(&event));
            let heard = self.saboteur.hears(event.clone());
            let mut actions = Vec::new();
            let Some(shell) = &mut self.shell else { return };
            shell.crew.handle(now, heard, &mut actions);
            let is_stuck = shell.crew.next_deadline(now).is_some_and(|at| at <= now.mono);
            self.saboteur.meddles(&mut actions);
            if is_stuck {
                self.blame("the crew's next deadline is over and was just handled: a busy loop");
            }
            self.before_actions(&event);
            self.check_duties(&event, &actions);
            self.history.mix(actions.len() as u64);
            for action in actions {
                if self.burns_down() {
                    self.die();
                    return;
                }
                self.note(|| format!("crew -> {}", super::words::of_action(&action)));
                self.carry_out(action, &mut pending);
            }
        }
    }

    fn burns_down(&mut self) -> bool {
        let Some(fuse) = &mut self.fuse else { return false };
        *fuse = fuse.saturating_sub(1);
        *fuse == 0
    }

    /// A sign of life.
    pub(super) fn hear(&mut self, worker: WorkerId) {
        let now_us = self.now_us;
        if let Some(hand) = self.shell.as_mut().and_then(|it| it.hands.get_mut(&worker)) {
            hand.heard_us = now_us;
        }
    }

    /// What the shell itself learns from an event.
    fn before_actions(&mut self, event: &Event) {
        let now_us = self.now_us;
        if let Event::WorkerHeard(worker)
        | Event::WorkerReady { worker, .. }
        | Event::WorkerBack { worker, .. }
        | Event::WorkerSpawned { worker, .. }
        | Event::Progress { worker, .. }
        | Event::Finished { worker, .. } = event
        {
            self.hear(*worker);
        }
        let Some(shell) = &mut self.shell else { return };
        match event {
            Event::WorkerReady { worker, .. } => {
                if let Some(hand) = shell.hands.get_mut(worker) {
                    hand.ready_us.get_or_insert(now_us);
                    hand.is_away = false;
                }
            }
            Event::Drain(_) | Event::Hurry => shell.is_draining = true,
            Event::Pause(name) => drop(shell.paused.insert(name.to_string())),
            Event::Resume(name) => drop(shell.paused.remove(&**name)),
            Event::RestartWorker(worker) => {
                if let Some(hand) = shell.hands.get_mut(worker) {
                    hand.may_be_dismissed = true;
                }
            }
            Event::Reload(settings) => {
                shell.cap_allowed = shell.cap_allowed.max(settings.running_max);
                shell.settings = (**settings).clone();
                let types = &shell.settings.types;
                self.ledger.deaths.retain(|name, _| types.contains_key(&**name));
            }
            _ => {}
        }
        let Some(shell) = &mut self.shell else { return };
        if matches!(event, Event::Drain(_) | Event::Hurry | Event::Reload(_)) {
            shell.hands.values_mut().for_each(|hand| hand.may_be_dismissed = true);
        }
    }

    /// Sends what was collected; outcomes go first, so that the next claim shares their commit.
    pub(super) fn flush(&mut self) {
        let Some(shell) = &mut self.shell else { return };
        let (moves, take) = (std::mem::take(&mut shell.moves), shell.take.take());
        if !moves.is_empty() {
            self.queue(Op::Move(moves));
        }
        if let Some(request) = take {
            self.queue(Op::Take(request));
        }
        self.end_if_exited();
    }

    /// The supervisor ended by itself; another one is started after a while.
    fn end_if_exited(&mut self) {
        let Some(shell) = self.shell.as_ref().filter(|shell| shell.has_exited) else { return };
        let life = shell.life;
        self.note(|| format!("supervisor {life} ends"));
        self.history.count("supervisor ended");
        self.check_exit();
        self.commit_all();
        self.shell = None;
        self.writer = Writer::default();
        self.ledger.claims.clear();
        self.ledger.deaths.clear();
        self.dead.insert(life);
        let pause_us = self.dice.spread(1_000, 2_000_000);
        self.after(pause_us, Coming::Boot(self.now_us + pause_us));
    }

    /// Trouble for a look that finds nothing again and again without a reason.
    pub(super) fn count_looks(&mut self, event: &Event) {
        let now_us = self.now_us;
        let Some(shell) = &mut self.shell else { return };
        match event {
            Event::Deadline => {}
            Event::Taken(taken)
                if taken.jobs.is_empty()
                    && taken.promoted == 0
                    && taken.unknown_failed == 0
                    && !taken.more =>
            {
                let (count, since) = shell.empty_looks;
                shell.empty_looks = (count + 1, if count == 0 { now_us } else { since });
                if count >= 6 && now_us - since < 500_000 {
                    self.blame(format!("{count} looks in a row found nothing: a busy loop"));
                }
            }
            _ => shell.empty_looks = (0, now_us),
        }
    }

    pub(super) fn is_action_of_a_closed_shell(&self, action: &Action) -> bool {
        let draining = self.shell.as_ref().is_some_and(|shell| shell.is_draining);
        draining && matches!(action, Action::Take(_) | Action::Spawn { .. })
    }
}
