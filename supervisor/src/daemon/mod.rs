//! The daemon: takes what happens, asks the policy, carries out what it says.
//!
//! The only place that knows all its neighbours. One loop on one thread: it waits for an event
//! or the policy's deadline, then drains what else has come, so that outcomes which arrive
//! together are stored in one commit. [`start`] is the order of starting, [`fleet`] the worker
//! processes, [`carry`] the actions, [`calls`] what clients ask.

mod calls;
mod carry;
mod fleet;
mod inputs;
mod live;
mod neighbours;
mod queries;
mod retention;
mod service;
mod start;
mod tell;
mod upgrade;

pub use start::Error;

use crate::clock::Clock;
use crate::config::{Config, LoadOptions, Warning};
use crate::link::control::Call;
use crate::link::worker::FromWorker;
use crate::os::ladder::{self, Rung};
use crate::os::readiness::Readiness;
use crate::os::watch::Watch;
use crate::policy::crew::Crew;
use crate::policy::event::{Action, Event};
use crate::policy::moves::FencedMove;
use crate::store::op::{Op, Parcel};
use crate::store::writer::StoreHandle;
use fleet::Fleet;
use fleet::recovery::Recovery;
use inputs::{Input, Trouble};
use live::Live;
use neighbours::Neighbours;
use queries::Queries;
use retention::Retention;
use shiftboss_protocol::job::JobId;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Runs the supervisor until it is told to stop and everything is settled.
///
/// # Errors
/// When it cannot start, or could not store everything; each error says what to do about it.
pub fn run(config: Config, warnings: Vec<Warning>, options: LoadOptions) -> Result<(), Error> {
    for warning in &warnings {
        tracing::warn!("{}", warning.text);
    }
    // First, while there is one thread: it forks.
    let ladder = ladder::probe();
    config.check_host(&ladder)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(Error::Runtime)?;
    let leaving = runtime.block_on(async {
        let (mut daemon, sources) = start::start(config, options, ladder).await?;
        daemon.serve(sources).await;
        Ok::<_, Error>((daemon.leaving, daemon.unstored))
    })?;
    match leaving {
        (Leaving::Stop, Some(trouble)) => Err(Error::Unstored(trouble)),
        (Leaving::Stop, None) | (Leaving::HandOver, _) => Ok(()),
        (Leaving::Upgrade, _) => {
            // Sockets and the lock end with the runtime and the daemon, before the successor.
            drop(runtime);
            let (program, args) = upgrade::successor().map_err(Error::Successor)?;
            Err(Error::Successor(crate::os::process::facts::replace_program(&program, &args)))
        }
    }
}

/// How the supervisor leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// With all its workers.
    Stop,
    /// At once; the workers go on and wait for the next supervisor.
    HandOver,
    /// As [`Self::HandOver`], and its own process becomes the next supervisor.
    Upgrade,
}

/// Where events come from.
struct Sources {
    inputs: mpsc::UnboundedReceiver<Input>,
    workers: mpsc::Receiver<FromWorker>,
    calls: mpsc::Receiver<Call>,
    watch: Option<(Readiness, Watch)>,
}

/// Events handled before their consequences are carried out.
const DRAIN_MAX: usize = 256;

struct Daemon {
    config: Config,
    options: LoadOptions,
    /// What this host offers, found out once at the start.
    ladder: Vec<Rung>,
    clock: Clock,
    crew: Crew,
    store: StoreHandle,
    store_thread: Option<std::thread::JoinHandle<()>>,
    queries: Queries,
    retention: Retention,
    manager: service::Manager,
    inputs: mpsc::UnboundedSender<Input>,
    fleet: Fleet,
    /// What a supervisor before us left, until it is taken over.
    recovery: Option<Recovery>,
    neighbours: Neighbours,
    live: Live,
    /// Payloads of claimed jobs on their way to their workers.
    parcels: HashMap<JobId, Parcel>,
    /// Events that follow from actions, handled before anything new.
    pending: VecDeque<Event>,
    moves: Vec<FencedMove>,
    started_ms: i64,
    instance: String,
    watched: bool,
    trouble: Option<Trouble>,
    stops: u32,
    exiting: bool,
    leaving: Leaving,
    /// The trouble that the supervisor ends with.
    unstored: Option<String>,
    /// Held for as long as this instance lives.
    _lock: crate::os::lock::Held,
}

impl Daemon {
    async fn serve(&mut self, mut sources: Sources) {
        // First: a worker that was started before would get the slot of one that lives.
        if let Some(recovery) = self.recovery.take() {
            self.take_over(recovery);
        }
        self.handle(Event::Watched(self.watched));
        self.handle(Event::Started);
        self.sweep_scratch();
        self.sweep_kept();
        self.sweep_outcomes();
        self.flush();
        self.manager.ready();
        self.tell_manager();
        while !self.exiting {
            self.wait(&mut sources).await;
            for _ in 0..DRAIN_MAX {
                if !self.take_one(&mut sources) {
                    break;
                }
            }
            self.on_deadlines();
            self.flush();
            self.tell_manager();
        }
        // Answers that were given in the last turn go out.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        self.finish();
    }

    /// Waits until something happens, and handles it.
    async fn wait(&mut self, sources: &mut Sources) {
        let deadline = self.next_deadline();
        tokio::select! {
            biased;
            Some(input) = sources.inputs.recv() => self.on_input(input),
            Some(message) = sources.workers.recv() => self.on_worker(message),
            Some(call) = sources.calls.recv() => self.on_call(call),
            touched = touched(sources.watch.as_mut()) => self.on_touched(touched, sources),
            () = sleep_until(deadline) => {}
        }
    }

    /// Handles one more thing that has already come.
    fn take_one(&mut self, sources: &mut Sources) -> bool {
        if let Ok(input) = sources.inputs.try_recv() {
            self.on_input(input);
        } else if let Ok(message) = sources.workers.try_recv() {
            self.on_worker(message);
        } else if let Ok(call) = sources.calls.try_recv() {
            self.on_call(call);
        } else {
            return false;
        }
        true
    }

    fn on_touched(&mut self, touched: std::io::Result<bool>, sources: &mut Sources) {
        match touched {
            Ok(true) => self.store.send(Op::Touched),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(
                    %error,
                    "commits of other programs are not noticed any more; the table is polled at \
                     least once a second instead"
                );
                sources.watch = None;
                self.watched = false;
                self.handle(Event::Watched(false));
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let policy = self.crew.next_deadline(self.clock.now()).map(|at| self.clock.instant(at));
        let later = Some(self.retention.next().min(self.neighbours.next()));
        let give_up = self.give_up_at();
        let sign = self.manager.next();
        let all = [policy, self.fleet.next_look(), self.live.next_store(), later, give_up, sign];
        all.into_iter().flatten().min()
    }

    fn on_deadlines(&mut self) {
        let now = self.clock.now();
        if self.crew.next_deadline(now).is_some_and(|at| at <= now.mono) {
            self.handle(Event::Deadline);
        }
        self.look_after_dying();
        self.look_at_memory();
        self.prune_when_due();
        self.look_at_neighbours();
        self.give_up_when_due();
        if let Some(rows) = self.live.take_due(Instant::now()) {
            self.store.send(Op::Progress(rows));
        }
    }

    /// Asks the policy and carries out what it says, until nothing more follows.
    fn handle(&mut self, event: Event) {
        self.pending.push_back(event);
        let mut actions = Vec::new();
        while let Some(event) = self.pending.pop_front() {
            self.crew.handle(self.clock.now(), event, &mut actions);
            for action in actions.drain(..) {
                self.carry_out(action);
            }
        }
    }

    /// Sends what was collected; outcomes go first, so that the next claim shares their commit.
    fn flush(&mut self) {
        if !self.moves.is_empty() {
            self.store.send(Op::Move(std::mem::take(&mut self.moves)));
        }
        self.flush_take();
        self.serve_watchers();
    }

    fn finish(&mut self) {
        self.tell_manager_the_end();
        self.note_unstored();
        self.store.send(Op::Stop);
        if let Some(thread) = self.store_thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread panicked; what it had committed is safe");
        }
        match self.leaving {
            Leaving::Stop => {
                start::remove_sockets(&self.config);
                self.fleet.dismantle();
                tracing::info!(instance = self.instance, "stopped");
            }
            // The sockets stay: the next supervisor replaces them.
            Leaving::HandOver | Leaving::Upgrade => {
                let workers = self.fleet.count();
                tracing::info!(
                    instance = self.instance,
                    workers,
                    "handed over: the workers go on, the next supervisor takes them over"
                );
            }
        }
    }
}

async fn touched(watch: Option<&mut (Readiness, Watch)>) -> std::io::Result<bool> {
    let Some((ready, watch)) = watch else { return std::future::pending().await };
    // Emptied until nothing is left, so no event can hide behind the readiness taken here.
    ready.wait().await?;
    watch.take()
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// How long a start or a stop step may take before it is told that it takes long.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the policy wants done, in the log's words: see [`tell`].
fn note(action: &Action) {
    tell::trace(action);
}
