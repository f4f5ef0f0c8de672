//! All workers and attempts of this supervisor, and every decision about them.
//!
//! [`Crew::handle`] takes one event; then [`Crew::settle`](demand) looks at what is wanted and
//! what exists. `worker.rs`, `survivor.rs` and `run.rs` hold what lives, `loss.rs` what a death
//! means, `memory.rs` who uses too much, `outcome.rs` how attempts end, `offer.rs` what a claim is
//! made for, `deadline.rs` all timers, `view.rs` what listings show.

mod deadline;
mod demand;
mod loss;
mod memory;
mod offer;
mod outcome;
mod run;
mod survivor;
#[cfg(test)]
mod tests;
mod view;
mod worker;

pub use memory::in_units;
pub use survivor::{FoundRun, Survivor};
pub use view::{RunView, StatusView, TypeView, WorkerView};

use super::claim::{Taken, TypeName, WorkerId};
use super::event::{Action, DrainLimit, Event, Notice};
use super::machine::worker::WorkerEvent;
use super::poll::{Pace, Poll};
use super::random::Random;
use super::restart::Restart;
use super::settings::Settings;
use super::suspects::{Rest, Suspects};
use super::time::Now;
use deadline::Deadlines;
use run::Run;
use shiftboss_protocol::job::JobId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use worker::Worker;

/// Everything that the supervisor knows and decides.
#[derive(Debug)]
pub struct Crew {
    settings: Settings,
    random: Random,
    types: BTreeMap<TypeName, TypeBook>,
    workers: BTreeMap<WorkerId, Worker>,
    /// Workers of a supervisor before us are being found: no slot is free for certain.
    is_finding: bool,
    runs: BTreeMap<JobId, Run>,
    /// Types that an operator paused, configured or not.
    paused: BTreeSet<String>,
    suspects: Suspects,
    /// Jobs whose row is no longer ours while their attempt still runs.
    lost: BTreeSet<JobId>,
    deadlines: Deadlines,
    poll: Poll,
    look: Look,
    next_due_ms: Option<i64>,
    stopping: Stopping,
    next_worker: u64,
    /// Time of the last event.
    handled_at: Duration,
}

/// What is known of one type besides its settings.
#[derive(Debug, Default)]
struct TypeBook {
    paused: bool,
    /// Available jobs that the last look left, counted up to a bound.
    waiting: u32,
    restart: Restart,
    /// When spares and the least number of workers may first be started: a random stagger, so
    /// that many supervisors that boot together do not start everything at once.
    warm_from: Duration,
    /// Attempts that run now.
    running: u32,
}

/// Whether a look at the table is wanted or under way.
#[derive(Debug, Default)]
struct Look {
    in_flight: bool,
    wanted: bool,
    /// The look under way was asked for by the fallback poll alone.
    by_poll: bool,
    /// Room came up that the look under way did not offer.
    room_came_up: bool,
}

/// How far the supervisor is in stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    No,
    Draining,
    Hurrying,
    Exited,
}

impl Crew {
    /// A crew without workers. `paused` are the types that an operator paused earlier.
    #[must_use]
    pub fn new(now: Now, settings: Settings, paused: &BTreeSet<String>, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let poll = Poll::new(now.mono, settings.poll.clone(), &mut random);
        let mut crew = Self {
            types: BTreeMap::new(),
            workers: BTreeMap::new(),
            is_finding: false,
            runs: BTreeMap::new(),
            paused: paused.clone(),
            suspects: Suspects::default(),
            lost: BTreeSet::new(),
            deadlines: Deadlines::default(),
            poll,
            look: Look::default(),
            next_due_ms: None,
            stopping: Stopping::No,
            next_worker: 1,
            handled_at: now.mono,
            settings,
            random,
        };
        crew.open_books(now);
        crew
    }

    /// Takes one event and appends what follows from it.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Action>) {
        self.handled_at = now.mono;
        match event {
            Event::Started => {
                self.is_finding = false;
                self.want_look();
            }
            Event::Watched(watched) => self.poll.set_watched(now.mono, watched),
            Event::TableChanged(rows) => self.on_table_changed(now, &rows, out),
            Event::OwnRows => self.on_work(now, out),
            Event::Taken(taken) => self.on_taken(now, taken, out),
            Event::Moved(moved) => self.on_moved(&moved, out),
            Event::WorkerSpawned { worker, pid } => self.on_spawned(now, worker, pid),
            Event::SpawnFailed { worker, reason } => {
                self.on_spawn_failed(now, worker, &reason, out);
            }
            Event::WorkerReady { worker, confinement } => {
                self.on_ready(now, worker, confinement, out);
            }
            Event::WorkerHeard(worker) => self.on_heard(now, worker),
            Event::WorkerBroken { worker, reason } => self.on_broken(now, worker, reason, out),
            Event::WorkerFound(found) => self.on_found(now, found, out),
            Event::WorkerBack { worker, held } => self.on_back(now, worker, &held, out),
            Event::WorkerOutdated(worker) => self.on_outdated(now, worker, out),
            Event::MemoryUsed { worker, used } => self.on_memory_used(now, worker, used, out),
            Event::WorkerExited { worker, exit } => self.on_exited(now, worker, &exit, out),
            Event::Progress { worker, job, attempt } => self.on_progress(now, worker, job, attempt),
            Event::Finished { worker, job, attempt, outcome, usage } => {
                self.on_finished(now, run::Report { worker, job, attempt, outcome, usage }, out);
            }
            Event::CancelAsked(jobs) => self.on_cancel_asked(now, &jobs, out),
            Event::RestartWorker(worker) => self.on_restart_asked(now, worker, out),
            Event::Pause(name) => self.set_paused(&name, Pausing::Pause),
            Event::Resume(name) => self.set_paused(&name, Pausing::Resume),
            Event::Drain(limit) => self.on_drain(now, limit, out),
            Event::Hurry => self.on_hurry(now, out),
            Event::Reload(settings) => self.on_reload(now, *settings, out),
            Event::Deadline => {}
        }
        self.fire_deadlines(now, out);
        self.settle(now, out);
    }

    fn on_table_changed(
        &mut self,
        now: Now,
        rows: &[super::moves::RunningRow],
        out: &mut Vec<Action>,
    ) {
        self.review_rows(now, rows, out);
        self.on_work(now, out);
    }

    /// Something may be there to claim: look, and poll at the base interval again.
    fn on_work(&mut self, now: Now, out: &mut Vec<Action>) {
        self.want_look();
        let pace = self.poll.on_work(now.mono);
        self.note_pace(pace, out);
    }

    fn on_taken(&mut self, now: Now, taken: Taken, out: &mut Vec<Action>) {
        let found = !taken.jobs.is_empty() || taken.promoted > 0 || taken.unknown_failed > 0;
        let by_poll = std::mem::take(&mut self.look.by_poll);
        self.look.in_flight = false;
        let room_came_up = std::mem::take(&mut self.look.room_came_up);
        let left = taken.waiting.values().any(|waiting| *waiting > 0);
        self.look.wanted |= taken.more || (room_came_up && left);
        if found {
            let pace = self.poll.on_work(now.mono);
            self.note_pace(pace, out);
        } else if by_poll {
            let pace = self.poll.on_empty(now.mono);
            self.note_pace(pace, out);
        }
        for (name, book) in &mut self.types {
            book.waiting = taken.waiting.get(name).copied().unwrap_or(0);
        }
        self.next_due_ms = taken.next_due_ms;
        if taken.unknown_failed > 0 {
            out.push(Action::Notice(Notice::UnknownTypes(taken.unknown_failed)));
        }
        let rest = if taken.more { Rest::Waits } else { Rest::IsGone };
        self.on_claimed(now, &taken.jobs, rest, out);
    }

    fn note_pace(&self, pace: Pace, out: &mut Vec<Action>) {
        match pace {
            Pace::Same => {}
            Pace::BackoffEngaged(_) | Pace::BackoffReleased(_) => {
                out.push(Action::Notice(Notice::Pace(pace)));
            }
        }
    }

    fn want_look(&mut self) {
        self.look.wanted = true;
    }

    fn set_paused(&mut self, name: &TypeName, pausing: Pausing) {
        match pausing {
            Pausing::Pause => self.paused.insert(name.to_string()),
            Pausing::Resume => self.paused.remove(&**name),
        };
        if let Some(book) = self.types.get_mut(name) {
            book.paused = pausing == Pausing::Pause;
        }
        self.want_look();
    }

    fn on_drain(&mut self, now: Now, limit: DrainLimit, out: &mut Vec<Action>) {
        if self.stopping != Stopping::No {
            return;
        }
        self.stopping = Stopping::Draining;
        out.push(Action::Notice(Notice::Draining { running: self.runs.len() }));
        for worker in self.worker_ids() {
            self.drain_worker(now, worker, limit, out);
        }
    }

    fn on_hurry(&mut self, now: Now, out: &mut Vec<Action>) {
        let event = match self.stopping {
            Stopping::Hurrying | Stopping::Exited => WorkerEvent::Kill,
            Stopping::No | Stopping::Draining => WorkerEvent::Terminate,
        };
        if self.stopping != Stopping::Exited {
            self.stopping = Stopping::Hurrying;
        }
        for worker in self.worker_ids() {
            self.worker_event(now, worker, event, out);
        }
    }

    fn on_reload(&mut self, now: Now, settings: Settings, out: &mut Vec<Action>) {
        self.poll.reload(now.mono, settings.poll.clone());
        self.settings = settings;
        self.open_books(now);
        let gone: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, one)| !self.settings.types.contains_key(&*one.job_type))
            .filter(|(_, one)| one.state.is_live())
            .map(|(id, _)| *id)
            .collect();
        for worker in gone {
            self.dismiss(now, worker, "its type is no longer configured", out);
        }
        self.want_look();
    }

    fn on_restart_asked(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Action>) {
        let Some(one) = self.workers.get(&worker) else { return };
        let (job_type, why) = (one.job_type.clone(), "an operator asked for it");
        out.push(Action::Notice(Notice::Retiring { worker, job_type, why }));
        self.drain_worker(now, worker, DrainLimit::Grace, out);
    }

    /// A book for every configured type; books of types that are gone stay while they are used.
    fn open_books(&mut self, now: Now) {
        for name in self.settings.types.keys() {
            if !self.types.contains_key(name.as_str()) {
                let stagger = self.random.up_to(self.settings.poll.stagger_max);
                let warm_from = now.mono + stagger;
                let paused = self.paused.contains(name);
                let book = TypeBook { warm_from, paused, ..TypeBook::default() };
                self.types.insert(name.as_str().into(), book);
            }
        }
        for (name, book) in &mut self.types {
            // A claim that was under way may have opened the book of a removed type again.
            book.paused = self.paused.contains(&**name);
        }
        let settings = &self.settings;
        self.types.retain(|name, book| settings.types.contains_key(&**name) || book.running > 0);
    }

    fn worker_ids(&self) -> Vec<WorkerId> {
        self.workers.keys().copied().collect()
    }

    fn on_moved(&mut self, moved: &[super::moves::Moved], out: &mut Vec<Action>) {
        let mut receipts = BTreeMap::<WorkerId, Vec<_>>::new();
        for one in moved {
            let Some(run) = self.runs.get(&one.job) else { continue };
            if run.attempt != one.attempt {
                continue;
            }
            if one.stale {
                let notice = Notice::Stale { job: one.job, attempt: one.attempt };
                out.push(Action::Notice(notice));
            }
            let worker = run.worker;
            receipts.entry(worker).or_default().extend(self.run_stored(one));
        }
        for (worker, receipts) in receipts {
            if self.workers.contains_key(&worker) {
                out.push(Action::Record { worker, receipts });
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pausing {
    Pause,
    Resume,
}
