//! A small world around the crew: virtual time, a table, processes; it carries actions out and
//! checks at every step what must always hold.

use super::process::{Boot, Does, Order, Process, Step};
use super::table::Table;
use crate::policy::claim::{TakeRequest, WorkerId};
use crate::policy::crew::Crew;
use crate::policy::event::{Action, Event, Notice};
use crate::policy::moves::FencedMove;
use crate::policy::settings::Settings;
use crate::policy::time::Now;
use shiftboss_protocol::job::{Attempt, JobId, JobState};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Wall clock at the start, unix milliseconds.
pub(super) const EPOCH_MS: i64 = 1_700_000_000_000;

#[derive(Debug)]
enum Coming {
    /// The store does its next thing.
    Store,
    Order(WorkerId, Order),
    Step(WorkerId, Step),
}

#[derive(Debug)]
enum StoreOp {
    Take(TakeRequest),
    Move(Vec<FencedMove>),
    Tell(Event),
    Changed,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) crew: Crew,
    pub(super) settings: Settings,
    pub(super) table: Table,
    pub(super) processes: BTreeMap<WorkerId, Process>,
    pub(super) plans: BTreeMap<JobId, Vec<Does>>,
    pub(super) boots: BTreeMap<String, VecDeque<Boot>>,
    pub(super) notices: Vec<(u64, Notice)>,
    pub(super) spawns: Vec<(u64, WorkerId, String)>,
    pub(super) takes: Vec<u64>,
    pub(super) assigned: Vec<(u64, WorkerId, JobId)>,
    pub(super) moves: Vec<FencedMove>,
    pub(super) orders: Vec<(u64, WorkerId, Order)>,
    pub(super) exited: bool,
    /// Events handled, deadlines too.
    pub(super) events: u64,
    pub(super) store_ms: u64,
    /// Workers that start from now on ignore everything but SIGKILL.
    pub(super) stubborn: bool,
    /// Workers that start from now on do not go when they are told to.
    pub(super) stays: bool,
    /// Workers that were offered a group of suspects.
    pub(super) dedicated: Vec<WorkerId>,
    now_ms: u64,
    seq: u64,
    coming: BTreeMap<(u64, u64), Coming>,
    ops: VecDeque<StoreOp>,
    claimed: BTreeMap<(JobId, Attempt), WorkerId>,
    moved: BTreeSet<(JobId, Attempt)>,
    same_instant: (u64, u32),
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        Self::paused(settings, &[])
    }

    pub(super) fn seeded(settings: Settings, seed: u64) -> Self {
        let now = Now { mono: Duration::ZERO, unix_ms: EPOCH_MS };
        let crew = Crew::new(now, settings.clone(), &BTreeSet::new(), seed);
        Self { crew, ..Self::new(settings) }
    }

    pub(super) fn paused(settings: Settings, paused: &[&str]) -> Self {
        let paused = paused.iter().map(|name| (*name).to_owned()).collect();
        let now = Now { mono: Duration::ZERO, unix_ms: EPOCH_MS };
        Self {
            crew: Crew::new(now, settings.clone(), &paused, 7),
            settings,
            table: Table::new(),
            processes: BTreeMap::new(),
            plans: BTreeMap::new(),
            boots: BTreeMap::new(),
            notices: Vec::new(),
            spawns: Vec::new(),
            takes: Vec::new(),
            assigned: Vec::new(),
            moves: Vec::new(),
            orders: Vec::new(),
            exited: false,
            events: 0,
            store_ms: 1,
            stubborn: false,
            stays: false,
            dedicated: Vec::new(),
            now_ms: 0,
            seq: 0,
            coming: BTreeMap::new(),
            ops: VecDeque::new(),
            claimed: BTreeMap::new(),
            moved: BTreeSet::new(),
            same_instant: (0, 0),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    pub(super) fn now(&self) -> Now {
        let unix_ms = EPOCH_MS + i64::try_from(self.now_ms).expect("tests are short");
        Now { mono: Duration::from_millis(self.now_ms), unix_ms }
    }

    /// Inserts a due row that the supervisor is not told of yet.
    pub(super) fn insert_silently(&mut self, job_type: &str, plan: Vec<Does>) -> JobId {
        let now_ms = self.now().unix_ms;
        let job = self.table.insert(job_type, now_ms, now_ms);
        self.plans.insert(job, plan);
        job
    }

    /// Another program inserts a due row.
    pub(super) fn insert(&mut self, job_type: &str, does: Does) -> JobId {
        let job = self.insert_silently(job_type, vec![does]);
        self.foreign_commit();
        job
    }

    /// Another program committed something.
    pub(super) fn foreign_commit(&mut self) {
        self.queue(StoreOp::Changed);
    }

    /// A client cancels.
    pub(super) fn cancel(&mut self, job: JobId) {
        let Some(row) = self.table.rows.get_mut(&job) else { return };
        match row.state {
            JobState::Running => {
                row.cancel_requested = true;
                self.queue(StoreOp::Tell(Event::CancelAsked(vec![job])));
            }
            JobState::Available | JobState::Scheduled | JobState::Held | JobState::Blocked => {
                row.state = JobState::Cancelled;
            }
            JobState::Succeeded | JobState::Failed | JobState::Cancelled => {}
        }
    }

    /// SIGKILL from outside.
    pub(super) fn kill(&mut self, worker: WorkerId) {
        self.coming(0, Coming::Order(worker, Order::Kill));
    }

    pub(super) fn tell(&mut self, event: Event) {
        assert!(!self.exited || !matches!(event, Event::Deadline), "a deadline after the exit");
        self.events += 1;
        if self.same_instant.0 == self.now_ms {
            self.same_instant.1 += 1;
        } else {
            self.same_instant = (self.now_ms, 1);
        }
        assert!(self.same_instant.1 < 30_000, "a busy loop at {} ms: {event:?}", self.now_ms);
        let mut out = Vec::new();
        self.crew.handle(self.now(), event, &mut out);
        let mut moves = Vec::new();
        for action in out {
            if let Action::Move(one) = action {
                assert!(
                    self.claimed.contains_key(&(one.job, one.attempt)),
                    "a move of what was never claimed"
                );
                assert!(
                    self.moved.insert((one.job, one.attempt)),
                    "a second move of job {} attempt {}",
                    one.job,
                    one.attempt
                );
                self.moves.push(one.clone());
                moves.push(one);
                continue;
            }
            if !moves.is_empty() {
                self.queue(StoreOp::Move(std::mem::take(&mut moves)));
            }
            self.carry_out(action);
        }
        if !moves.is_empty() {
            self.queue(StoreOp::Move(moves));
        }
    }

    fn carry_out(&mut self, action: Action) {
        let now_ms = self.now_ms;
        match action {
            Action::Take(request) => {
                self.check_request(&request);
                self.takes.push(now_ms);
                self.queue(StoreOp::Take(request));
            }
            Action::Spawn { worker, job_type, slot: _ } => self.spawn(worker, &job_type),
            Action::Assign { worker, jobs } => self.assign(worker, &jobs),
            Action::Stop { worker, job, attempt, reason } => {
                self.order(worker, Order::Stop(job, attempt, reason));
            }
            Action::DrainWorker(worker) => self.dismiss(worker, Order::Drain),
            Action::TerminateWorker(worker) => self.dismiss(worker, Order::Terminate),
            Action::KillWorker(worker) => self.dismiss(worker, Order::Kill),
            Action::Record { worker, receipts } => {
                for one in receipts {
                    self.order(worker, Order::Forget(one.job, one.attempt));
                }
            }
            Action::Notice(notice) => self.notices.push((now_ms, notice)),
            Action::Move(_) => {}
            Action::Exit => self.exited = true,
        }
    }

    fn check_request(&mut self, request: &TakeRequest) {
        assert!(self.crew.suspects.all().is_subset(&request.avoid), "suspects are for anybody");
        for offer in &request.offers {
            if !offer.only.is_empty() {
                self.dedicated.push(offer.worker);
            }
            let process = self.processes.get(&offer.worker).expect("offered workers exist");
            assert!(process.ready_known && !process.told_to_go, "an offer of a closed worker");
            assert!(offer.room > 0 && offer.room <= process.room, "an offer beyond the room");
        }
    }

    fn spawn(&mut self, worker: WorkerId, job_type: &str) {
        self.spawns.push((self.now_ms, worker, job_type.to_owned()));
        let settings = self.settings.types.get(job_type).expect("only configured types");
        let (room, most) = (settings.concurrency, settings.workers_max);
        let mut process = Process::new(job_type, room);
        (process.stubborn, process.stays) = (self.stubborn, self.stays);
        assert!(self.processes.insert(worker, process).is_none(), "a worker id is used twice");
        let mine = self.processes.values().filter(|one| one.job_type == job_type).count();
        assert!(mine <= most as usize, "more than {most} workers of {job_type}");
        let boot = self.boots.get_mut(job_type).and_then(VecDeque::pop_front);
        let spawned = Event::WorkerSpawned { worker, pid: 1000 };
        match boot.unwrap_or(Boot::Ready(20)) {
            Boot::Ready(ms) => {
                self.step(worker, 2, Step::Tell(spawned));
                let confinement = "none".into();
                self.step(worker, ms, Step::Tell(Event::WorkerReady { worker, confinement }));
            }
            Boot::FailsToSpawn => {
                let reason = "no such file".to_owned();
                self.step(worker, 2, Step::Tell(Event::SpawnFailed { worker, reason }));
            }
            Boot::Dies(ms) => {
                self.step(worker, 2, Step::Tell(spawned));
                let exit = crate::policy::event::Exit { code: Some(1), ..Default::default() };
                self.step(worker, ms, Step::Die(exit));
            }
            Boot::NeverReady => self.step(worker, 2, Step::Tell(spawned)),
        }
    }

    fn assign(&mut self, worker: WorkerId, jobs: &[(JobId, Attempt, u64)]) {
        let process = self.processes.get(&worker).expect("only existing workers get attempts");
        assert!(process.ready_known && !process.told_to_go, "an attempt for a closed worker");
        for (job, attempt, _) in jobs {
            assert_eq!(self.claimed.get(&(*job, *attempt)), Some(&worker), "claimed for another");
            self.assigned.push((self.now_ms, worker, *job));
        }
        let jobs = jobs.iter().map(|(job, attempt, _)| (*job, *attempt)).collect();
        self.order(worker, Order::Assign(jobs));
    }

    fn dismiss(&mut self, worker: WorkerId, order: Order) {
        if let Some(process) = self.processes.get_mut(&worker) {
            process.told_to_go = true;
        }
        self.order(worker, order);
    }

    fn order(&mut self, worker: WorkerId, order: Order) {
        self.orders.push((self.now_ms, worker, order.clone()));
        self.coming(1, Coming::Order(worker, order));
    }

    fn step(&mut self, worker: WorkerId, delay_ms: u64, step: Step) {
        self.coming(delay_ms, Coming::Step(worker, step));
    }

    fn queue(&mut self, op: StoreOp) {
        self.ops.push_back(op);
        self.coming(self.store_ms, Coming::Store);
    }

    fn coming(&mut self, delay_ms: u64, what: Coming) {
        self.seq += 1;
        self.coming.insert((self.now_ms + delay_ms, self.seq), what);
    }

    fn happen(&mut self, what: Coming) {
        match what {
            Coming::Store => self.store_works(),
            Coming::Order(worker, order) => {
                if let Order::Assign(jobs) = &order {
                    self.check_single(worker, jobs);
                }
                let plans = &self.plans;
                let plan = |job, attempt| plan(plans, job, attempt);
                let Some(process) = self.processes.get_mut(&worker) else { return };
                let steps = process.obey(worker, order, &plan);
                self.check_room(worker);
                self.steps(worker, steps);
            }
            Coming::Step(worker, step) => self.step_comes(worker, step),
        }
    }

    fn steps(&mut self, worker: WorkerId, steps: Vec<(u64, Step)>) {
        for (delay_ms, step) in steps {
            self.step(worker, delay_ms, step);
        }
    }

    fn step_comes(&mut self, worker: WorkerId, step: Step) {
        let plans = &self.plans;
        let plan = |job, attempt| plan(plans, job, attempt);
        let Some(process) = self.processes.get_mut(&worker) else { return };
        match step {
            Step::Act(job, attempt) => {
                let does = plan(job, attempt);
                let steps = process.act(worker, job, attempt, does);
                self.steps(worker, steps);
            }
            Step::Beat => {
                let steps = process.beat(worker, &plan);
                self.steps(worker, steps);
            }
            Step::Die(exit) => {
                if process.alive {
                    process.alive = false;
                    process.held.clear();
                    self.step(worker, 2, Step::Tell(Event::WorkerExited { worker, exit }));
                }
            }
            Step::Tell(event) => {
                if matches!(event, Event::WorkerReady { .. }) {
                    if !process.alive {
                        return;
                    }
                    process.ready_known = true;
                }
                if matches!(event, Event::WorkerExited { .. } | Event::SpawnFailed { .. }) {
                    self.processes.remove(&worker);
                }
                self.tell(event);
            }
        }
    }

    fn store_works(&mut self) {
        let event = match self.ops.pop_front().expect("one op for each appointment") {
            StoreOp::Take(request) => {
                let taken = self.table.take(&request);
                for one in &taken.jobs {
                    self.claimed.insert((one.job, one.attempt), one.worker);
                }
                Event::Taken(taken)
            }
            StoreOp::Move(moves) => {
                Event::Moved(moves.iter().map(|one| self.table.apply(one)).collect())
            }
            StoreOp::Tell(event) => event,
            StoreOp::Changed => Event::TableChanged(self.table.running()),
        };
        self.tell(event);
    }

    fn check_single(&self, worker: WorkerId, jobs: &[(JobId, Attempt)]) {
        for (job, _) in jobs {
            let elsewhere = self
                .processes
                .iter()
                .any(|(id, one)| *id != worker && one.alive && one.held.contains_key(job));
            assert!(!elsewhere, "job {job} runs twice");
        }
    }

    fn check_room(&self, worker: WorkerId) {
        let Some(process) = self.processes.get(&worker) else { return };
        assert!(process.held.len() <= process.room as usize, "more attempts than room");
        if let Some(max) = self.settings.running_max {
            let counts =
                |name: &str| self.settings.types.get(name).is_none_or(|it| it.counts_in_cap);
            let running = self.processes.values().filter(|one| counts(&one.job_type));
            let running: usize = running.map(|one| one.held.len()).sum();
            assert!(running <= max as usize, "{running} attempts run, the cap is {max}");
        }
    }

    /// Lets the next thing happen; false when nothing happens before `limit_ms`.
    fn advance(&mut self, limit_ms: u64) -> bool {
        let deadline = if self.exited { None } else { self.crew.next_deadline(self.now()) };
        let deadline = deadline.map(|at| {
            let ms = at.as_nanos().div_ceil(1_000_000);
            u64::try_from(ms).unwrap_or(u64::MAX).max(self.now_ms)
        });
        let next = self.coming.keys().next().map(|(at, _)| *at);
        let at = [deadline, next].into_iter().flatten().min();
        let Some(at) = at.filter(|at| *at <= limit_ms) else { return false };
        self.now_ms = at;
        if next == Some(at) {
            let (_, what) = self.coming.pop_first().expect("it was just seen");
            self.happen(what);
        } else {
            self.tell(Event::Deadline);
        }
        true
    }

    pub(super) fn run_for(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.advance(end) {}
        self.now_ms = end;
    }

    pub(super) fn run_until(&mut self, what: &str, within_ms: u64, done: impl Fn(&Self) -> bool) {
        let end = self.now_ms + within_ms;
        while !done(self) {
            assert!(self.advance(end), "not {what} within {within_ms} ms: {:?}", self.crew);
        }
    }

    pub(super) fn unmoved(&self) -> Vec<(JobId, Attempt)> {
        self.claimed.keys().filter(|key| !self.moved.contains(key)).copied().collect()
    }

    /// True while the processes or the store still have something to do.
    pub(super) fn is_anything_coming(&self) -> bool {
        !self.coming.is_empty()
    }
}

fn plan(plans: &BTreeMap<JobId, Vec<Does>>, job: JobId, attempt: Attempt) -> Does {
    let Some(plan) = plans.get(&job) else { return Does::Succeed(10) };
    let at = (attempt.0.max(1) as usize - 1).min(plan.len().max(1) - 1);
    plan.get(at).cloned().unwrap_or(Does::Succeed(10))
}
