//! Worker processes: what an attempt does in one, how one answers its supervisor, and how it and
//! its programs end.

use super::dice::Dice;
use shiftboss::policy::claim::{TypeName, WorkerId};
use shiftboss::policy::event::{Event, Exit};
use shiftboss_protocol::job::{Attempt, Cause, Failure, JobId, Outcome, Usage};
use shiftboss_protocol::message::StopReason;
use std::collections::{BTreeMap, BTreeSet};

/// Number of a process, over all lives of the supervisor.
pub(super) type Pid = u32;
pub(super) type Key = (JobId, Attempt);

const HEARTBEAT_US: u64 = 5_000_000;
/// How long a worker that was told to end waits for its receipts.
const RECEIPTS_WAIT_US: u64 = 5_000_000;
/// When it has not stopped by then, it ends with what still runs.
const STOP_WAIT_US: u64 = 60_000_000;

/// What an attempt does in its worker; times in microseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Does {
    /// It ends in this way after a while.
    End(u64, Outcome),
    /// It kills its worker.
    Crash(u64),
    /// It never ends and makes no progress, but stops when it is told to.
    Hang,
    /// It never ends, and does not stop when it is told to.
    Deaf,
    /// It stops its whole worker from saying or hearing anything.
    Mute(u64),
    /// It succeeds, and the worker loses the outcome.
    Forget(u64),
    /// It succeeds, and the worker says so twice.
    Twice(u64),
    /// It succeeds, after the worker has told tales about attempts that it never had.
    Lie(u64),
    /// The worker says something that is no message.
    Breach(u64),
}

/// What a process is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Order {
    Assign(Vec<(Key, u64, Does)>),
    Stop(Key, StopReason),
    Drain,
    Terminate,
    Kill,
    Recorded(Vec<Key>),
    /// Its supervisor has gone.
    Lost,
    /// The supervisor of this life welcomes it.
    Welcome(u32),
    /// It was without a supervisor for too long.
    GiveUp,
}

/// What a process does by itself later.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Ready,
    Say(Event),
    Act(Key, Does),
    Stopped(Key, StopReason),
    OwnTimeout(Key),
    Beat,
    MustGo,
    GiveUp,
    Die(Exit),
    /// Nothing of it is left.
    TreeGone(Exit),
}

/// An order and its answer in steps, each after its delay in microseconds.
pub(super) type Steps = Vec<(u64, Step)>;

#[derive(Debug)]
pub(super) struct Process {
    /// The supervisor that started it.
    pub(super) life: u32,
    pub(super) worker: WorkerId,
    pub(super) job_type: TypeName,
    pub(super) concurrency: u32,
    pub(super) is_ready: bool,
    pub(super) is_alive: bool,
    pub(super) is_killed: bool,
    /// Nothing of it is left, and that is known.
    pub(super) is_gone: bool,
    /// Ignores everything but SIGKILL.
    pub(super) is_stubborn: bool,
    /// Does its jobs, but does not go when it is told to drain.
    pub(super) stays: bool,
    /// SIGKILL takes this long.
    pub(super) dies_in_us: u64,
    /// Does nothing before.
    pub(super) frozen_until_us: u64,
    pub(super) held: BTreeMap<Key, Does>,
    /// Attempts of which programs are alive, the worker may be dead meanwhile.
    pub(super) programs: BTreeSet<Key>,
    /// Outcomes without a receipt.
    pub(super) unrecorded: BTreeMap<Key, Outcome>,
    /// It has no supervisor and looks for the next one: the time since which it does.
    pub(super) away_since_us: Option<u64>,
    /// How long it goes on without a supervisor, microseconds; 0: not at all.
    pub(super) orphan_grace_us: u64,
    /// The supervisor that spawned it.
    pub(super) born: u32,
    /// Nothing it says is heard any more.
    pub(super) is_cut_off: bool,
    /// Times of the last message in each direction: a socket keeps the order.
    pub(super) said_us: u64,
    pub(super) told_us: u64,
    is_leaving: bool,
    is_terminated: bool,
    is_lost: bool,
    beats: bool,
}

impl Process {
    pub(super) fn new(life: u32, worker: WorkerId, job_type: TypeName, concurrency: u32) -> Self {
        Self {
            life,
            worker,
            job_type,
            concurrency,
            is_ready: false,
            is_alive: true,
            is_killed: false,
            is_gone: false,
            is_stubborn: false,
            stays: false,
            dies_in_us: 200,
            frozen_until_us: 0,
            held: BTreeMap::new(),
            programs: BTreeSet::new(),
            unrecorded: BTreeMap::new(),
            away_since_us: None,
            orphan_grace_us: 0,
            born: life,
            is_cut_off: false,
            said_us: 0,
            told_us: 0,
            is_leaving: false,
            is_terminated: false,
            is_lost: false,
            beats: false,
        }
    }

    pub(super) fn obey(&mut self, order: Order, dice: &mut Dice) -> Steps {
        let mut steps = Steps::new();
        if order == Order::Kill {
            if !std::mem::replace(&mut self.is_killed, true) {
                steps.push((self.dies_in_us, Step::Die(signalled(9))));
            }
            return steps;
        }
        if !self.is_alive || self.is_stubborn {
            return steps;
        }
        match order {
            Order::Assign(jobs) => {
                for (key, limit_ms, does) in jobs {
                    self.admit(key, limit_ms, does, &mut steps);
                }
            }
            Order::Stop(key, reason) => self.stop(key, reason, dice, &mut steps),
            Order::Drain => self.is_leaving = true,
            Order::Welcome(life) => {
                if life == self.life && self.away_since_us.is_some() {
                    self.say_again(&mut steps);
                }
            }
            Order::GiveUp if self.away_since_us.is_none() => {}
            Order::Lost if self.can_wait() => {
                steps.push((self.orphan_grace_us, Step::GiveUp));
            }
            Order::Terminate | Order::Lost | Order::GiveUp if !self.is_ready => {
                steps.push((dice.spread(50, 2_000), Step::Die(signalled(15))));
                return steps;
            }
            Order::Terminate | Order::Lost | Order::GiveUp => {
                self.is_leaving = true;
                self.is_terminated = true;
                self.is_lost |= matches!(order, Order::Lost | Order::GiveUp);
                steps.push((STOP_WAIT_US, Step::MustGo));
                for key in self.held.keys().copied().collect::<Vec<_>>() {
                    self.stop(key, StopReason::Released, dice, &mut steps);
                }
            }
            Order::Recorded(keys) => {
                for key in keys {
                    self.unrecorded.remove(&key);
                }
            }
            Order::Kill => {}
        }
        self.leave(&mut steps);
        steps
    }

    /// It goes on without a supervisor; one that broke the protocol is not welcome any more.
    fn can_wait(&self) -> bool {
        self.is_ready && !self.is_cut_off && self.orphan_grace_us > 0 && !self.is_lost
    }

    /// It says to its next supervisor who it is, and what no supervisor has recorded.
    fn say_again(&mut self, steps: &mut Steps) {
        self.away_since_us = None;
        let worker = self.worker;
        let held = self.held.keys().chain(self.unrecorded.keys()).copied().collect();
        steps.push((0, Step::Say(Event::WorkerBack { worker, held })));
        let confinement = "none".into();
        steps.push((0, Step::Say(Event::WorkerReady { worker, confinement })));
        for (key, outcome) in &self.unrecorded {
            steps.push((0, self.finished(*key, outcome.clone())));
        }
    }

    fn admit(&mut self, key: Key, limit_ms: u64, does: Does, steps: &mut Steps) {
        if self.is_leaving {
            let reason = "the worker drains".to_owned();
            self.end(key, Outcome::Released { reason }, steps);
            return;
        }
        match does {
            Does::End(us, _)
            | Does::Crash(us)
            | Does::Mute(us)
            | Does::Forget(us)
            | Does::Twice(us)
            | Does::Lie(us)
            | Does::Breach(us) => steps.push((us, Step::Act(key, does.clone()))),
            Does::Hang | Does::Deaf => {}
        }
        if limit_ms > 0 {
            steps.push((limit_ms * 1_000, Step::OwnTimeout(key)));
        }
        self.held.insert(key, does);
        self.programs.insert(key);
        if !std::mem::replace(&mut self.beats, true) {
            steps.push((HEARTBEAT_US, Step::Beat));
        }
    }

    fn stop(&self, key: Key, reason: StopReason, dice: &mut Dice, steps: &mut Steps) {
        if self.held.get(&key).is_some_and(|does| *does != Does::Deaf) {
            steps.push((dice.spread(50, 300_000), Step::Stopped(key, reason)));
        }
    }

    /// What it does now that the time of a step has come.
    pub(super) fn act(&mut self, step: Step, dice: &mut Dice) -> Steps {
        let mut steps = Steps::new();
        if !self.is_alive {
            return steps;
        }
        match step {
            Step::Act(key, does) if self.held.contains_key(&key) => {
                self.fulfil(key, does, dice, &mut steps);
            }
            Step::Stopped(key, reason) if self.held.contains_key(&key) => {
                self.end(key, stopped(reason), &mut steps);
            }
            Step::OwnTimeout(key) => self.stop(key, StopReason::Timeout, dice, &mut steps),
            Step::Beat => self.beat(&mut steps),
            Step::MustGo => {
                steps.push((0, Step::Die(Exit { code: Some(0), ..Exit::default() })));
                return steps;
            }
            Step::Ready => {
                self.is_ready = true;
                let confinement = "none".into();
                let ready = Event::WorkerReady { worker: self.worker, confinement };
                steps.push((0, Step::Say(ready)));
            }
            Step::Act(..) | Step::Stopped(..) => {}
            // The world's own.
            Step::Say(_) | Step::GiveUp | Step::Die(_) | Step::TreeGone(_) => {}
        }
        self.leave(&mut steps);
        steps
    }

    fn fulfil(&mut self, key: Key, does: Does, dice: &mut Dice, steps: &mut Steps) {
        let done = || Outcome::Succeeded { result: "{}".to_owned() };
        match does {
            Does::End(_, outcome) => self.end(key, outcome, steps),
            Does::Crash(_) => steps.push((0, Step::Die(signalled(11)))),
            Does::Mute(_) => self.frozen_until_us = u64::MAX,
            Does::Forget(_) => {
                // It goes on saying that it lives; only a time limit ends this.
                self.programs.remove(&key);
                self.held.remove(&key);
                self.beats = true;
            }
            Does::Twice(_) => {
                self.end(key, done(), steps);
                let (job, attempt) = key;
                let outcome = Outcome::Failed(Failure::retryable(Cause::Error, "again"));
                steps.push((dice.spread(1, 50_000), self.finished((job, attempt), outcome)));
            }
            Does::Lie(_) => {
                let (job, attempt) = key;
                for other in [
                    (job, Attempt(attempt.0 + 1)),
                    (job, Attempt(attempt.0.saturating_sub(1))),
                    (JobId(-1), attempt),
                ] {
                    steps.push((0, self.finished(other, done())));
                }
                self.end(key, done(), steps);
            }
            // Nobody listens, so nothing can be broken.
            Does::Breach(_) if self.away_since_us.is_some() => self.end(key, done(), steps),
            Does::Breach(_) => {
                let reason = "it broke the protocol".to_owned();
                let worker = self.worker;
                steps.push((0, Step::Say(Event::WorkerBroken { worker, reason })));
            }
            Does::Hang | Does::Deaf => {}
        }
    }

    fn beat(&mut self, steps: &mut Steps) {
        self.beats = !self.held.is_empty() || !self.unrecorded.is_empty();
        if !self.beats {
            return;
        }
        let worker = self.worker;
        steps.push((0, Step::Say(Event::WorkerHeard(worker))));
        steps.push((HEARTBEAT_US, Step::Beat));
        for ((job, attempt), does) in &self.held {
            if !matches!(does, Does::Hang | Does::Deaf) {
                let (job, attempt) = (*job, *attempt);
                steps.push((0, Step::Say(Event::Progress { worker, job, attempt })));
            }
        }
    }

    /// Its programs have ended, and it says how.
    fn end(&mut self, key: Key, outcome: Outcome, steps: &mut Steps) {
        self.programs.remove(&key);
        self.held.remove(&key);
        self.unrecorded.insert(key, outcome.clone());
        let finished = self.finished(key, outcome);
        steps.push((0, finished));
    }

    fn finished(&self, (job, attempt): Key, outcome: Outcome) -> Step {
        let usage = Usage::default();
        Step::Say(Event::Finished { worker: self.worker, job, attempt, outcome, usage })
    }

    /// A worker that leaves exits when it holds nothing and every outcome has its receipt.
    fn leave(&mut self, steps: &mut Steps) {
        let waits = self.stays && !self.is_terminated;
        if !self.is_leaving || waits || !self.held.is_empty() {
            return;
        }
        let exit = Exit { code: Some(0), ..Exit::default() };
        if self.unrecorded.is_empty() || self.is_lost {
            steps.push((200, Step::Die(exit)));
        } else if self.is_terminated || self.away_since_us.is_some() {
            steps.push((RECEIPTS_WAIT_US, Step::MustGo));
        }
    }
}

pub(super) fn signalled(signal: i32) -> Exit {
    Exit { signal: Some(signal), ..Exit::default() }
}

fn stopped(reason: StopReason) -> Outcome {
    match reason {
        StopReason::Cancelled => Outcome::Cancelled,
        StopReason::Timeout => Outcome::Failed(Failure::retryable(Cause::Timeout, "timed out")),
        StopReason::Stalled => Outcome::Failed(Failure::retryable(Cause::Stalled, "stalled")),
        StopReason::Released => Outcome::Released { reason: "released".to_owned() },
    }
}
