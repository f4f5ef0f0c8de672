//! Workers: from being asked for to being gone.

use super::deadline::Timer;
use super::{Crew, Stopping};
use crate::policy::claim::{TypeName, WorkerId};
use crate::policy::event::{Action, DrainLimit, Exit, Notice};
use crate::policy::machine::run::RunEvent;
pub(super) use crate::policy::machine::worker::WorkerState;
use crate::policy::machine::worker::{WorkerEvent, WorkerOrder};
use crate::policy::restart::{Breaker, Permit};
use crate::policy::settings::TypeSettings;
use crate::policy::time::Now;
use shiftboss_protocol::job::JobId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A process must say Hello this soon: nothing comes before that but its start.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// ... and be Ready this soon after it: a workload may try its codecs or load a model first.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// One worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) job_type: TypeName,
    pub(super) slot: u32,
    pub(super) state: WorkerState,
    pub(super) pid: Option<u32>,
    pub(super) confinement: Arc<str>,
    pub(super) attempts: BTreeSet<JobId>,
    pub(super) started_ms: i64,
    pub(super) heard: Duration,
    /// It has said Hello.
    pub(super) greeted: bool,
    pub(super) idle_since: Duration,
    pub(super) jobs_given: u32,
    /// Set when something other than the operator ends it: then its death is a death.
    pub(super) end_cause: Option<String>,
    /// What it and its programs exceeded, when that ended it.
    pub(super) out_of_memory: Option<String>,
    /// It has grown so much that it is replaced when it is idle.
    pub(super) worn: bool,
    /// Its attempt that did not stop: the others it holds are innocent.
    pub(super) forced_by: Option<JobId>,
    /// It was told to go (retired, recycled, drained): its exit is no death.
    pub(super) dismissed: bool,
    /// It outlived its supervisor and is not back yet: nobody saw what it dies of.
    pub(super) away: bool,
    /// It said Ready once, to us or to a supervisor before us.
    pub(super) was_ready: bool,
    /// It was started to see whether workers of its type live again.
    pub(super) probe: bool,
    /// Its type's settings when it started; a reload may have taken them away.
    pub(super) settings: TypeSettings,
}

/// Why a worker is started, and on what terms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) why: &'static str,
    pub(super) permit: Permit,
}

impl Crew {
    pub(super) fn start_worker(
        &mut self,
        now: Now,
        job_type: &TypeName,
        start: Start,
        out: &mut Vec<Action>,
    ) {
        let Some(settings) = self.settings.types.get(&**job_type).cloned() else { return };
        let worker = self.reserve_worker();
        let slot = self.free_slot(job_type);
        let one = Worker {
            job_type: job_type.clone(),
            slot,
            state: WorkerState::Starting,
            pid: None,
            confinement: "none".into(),
            attempts: BTreeSet::new(),
            started_ms: now.unix_ms,
            heard: now.mono,
            greeted: false,
            idle_since: now.mono,
            jobs_given: 0,
            end_cause: None,
            out_of_memory: None,
            worn: false,
            forced_by: None,
            dismissed: false,
            away: false,
            was_ready: false,
            probe: start.permit == Permit::Probe,
            settings,
        };
        let why = start.why;
        self.workers.insert(worker, one);
        self.arm_grace(now, worker, HELLO_WITHIN);
        out.push(Action::Notice(Notice::Starting { worker, job_type: job_type.clone(), why }));
        out.push(Action::Spawn { worker, job_type: job_type.clone(), slot });
    }

    /// The smallest number that no worker of the type has.
    fn free_slot(&self, job_type: &TypeName) -> u32 {
        let used: BTreeSet<_> = self
            .workers
            .values()
            .filter(|worker| worker.job_type == *job_type)
            .map(|worker| worker.slot)
            .collect();
        (0..).find(|slot| !used.contains(slot)).expect("workers are fewer than u32 has numbers")
    }

    pub(super) fn on_spawned(&mut self, now: Now, worker: WorkerId, pid: u32) {
        if let Some(one) = self.workers.get_mut(&worker) {
            one.pid = Some(pid);
            one.heard = now.mono;
        }
    }

    pub(super) fn on_spawn_failed(
        &mut self,
        now: Now,
        worker: WorkerId,
        reason: &str,
        out: &mut Vec<Action>,
    ) {
        if let Some(one) = self.workers.get_mut(&worker) {
            one.end_cause = Some(reason.to_owned());
        }
        self.on_exited(now, worker, &Exit::default(), out);
    }

    pub(super) fn on_ready(
        &mut self,
        now: Now,
        worker: WorkerId,
        confinement: Arc<str>,
        out: &mut Vec<Action>,
    ) {
        let Some(one) = self.workers.get_mut(&worker) else { return };
        one.heard = now.mono;
        // It may have been told to go meanwhile; a worker that connected again is ready already.
        if !matches!(one.state, WorkerState::Starting | WorkerState::Returning) {
            one.away = false;
            return;
        }
        let is_back = one.away;
        one.was_ready = true;
        one.idle_since = now.mono;
        one.confinement = confinement;
        let job_type = one.job_type.clone();
        let healthy = now.mono + one.settings.restart.healthy_after;
        self.deadlines.arm(healthy, Timer::Health(worker));
        self.worker_event(now, worker, WorkerEvent::Ready, out);
        if is_back {
            self.on_returned(now, worker, out);
        }
        self.room_came_up(&job_type);
    }

    pub(super) fn on_heard(&mut self, now: Now, worker: WorkerId) {
        let Some(one) = self.workers.get_mut(&worker) else { return };
        one.heard = now.mono;
        if one.state == WorkerState::Starting && !one.greeted {
            one.greeted = true;
            self.arm_grace(now, worker, READY_WITHIN);
        }
    }

    pub(super) fn on_broken(
        &mut self,
        now: Now,
        worker: WorkerId,
        reason: String,
        out: &mut Vec<Action>,
    ) {
        let Some(one) = self.workers.get_mut(&worker) else { return };
        // A worker that was told to go closes its connection before it exits.
        if one.dismissed && one.attempts.is_empty() {
            return;
        }
        one.end_cause.get_or_insert(reason);
        self.worker_event(now, worker, WorkerEvent::Kill, out);
    }

    /// The worker lived long enough that earlier deaths of its type are forgotten.
    pub(super) fn on_healthy(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        let Some(name) = self.workers.get(&worker).map(|one| one.job_type.clone()) else { return };
        self.close_books(&name, out);
    }

    pub(super) fn close_books(&mut self, name: &TypeName, out: &mut Vec<Action>) {
        let Some(book) = self.types.get_mut(name) else { return };
        let was_closed = *book.restart.breaker() == Breaker::Closed;
        book.restart.on_health();
        for one in self.workers.values_mut().filter(|one| one.job_type == *name) {
            one.probe = false;
        }
        self.deadlines.disarm(&Timer::Restart(name.clone()));
        if !was_closed {
            out.push(Action::Notice(Notice::BreakerClosed(name.clone())));
        }
    }

    /// Tells a worker to go. What it holds may take as long as `limit` says; when it holds
    /// nothing, its grace counts in any case.
    pub(super) fn drain_worker(
        &mut self,
        now: Now,
        worker: WorkerId,
        limit: DrainLimit,
        out: &mut Vec<Action>,
    ) {
        self.worker_event(now, worker, WorkerEvent::Drain, out);
        let Some(one) = self.workers.get(&worker) else { return };
        let timed = limit == DrainLimit::Grace || one.attempts.is_empty();
        if timed && one.state == WorkerState::Draining {
            self.arm_drain(now, worker);
        }
    }

    /// Gives a draining worker its grace, unless that runs already.
    pub(super) fn arm_drain(&mut self, now: Now, worker: WorkerId) {
        if !self.deadlines.is_set(&Timer::Worker(worker)) {
            let grace = self.type_settings_of(worker).grace.drain;
            self.arm_grace(now, worker, grace);
        }
    }

    /// Feeds the worker's state machine and does what it orders.
    pub(super) fn worker_event(
        &mut self,
        now: Now,
        worker: WorkerId,
        event: WorkerEvent,
        out: &mut Vec<Action>,
    ) {
        let Some(one) = self.workers.get_mut(&worker) else { return };
        let was = one.state;
        let (state, order) = was.on(event);
        one.state = state;
        if matches!(event, WorkerEvent::Drain | WorkerEvent::Terminate) {
            one.dismissed = true;
        }
        if state != was || order != WorkerOrder::Nothing {
            self.arm_step(now, worker);
        }
        match order {
            WorkerOrder::Nothing => {}
            WorkerOrder::Drain => out.push(Action::DrainWorker(worker)),
            WorkerOrder::Terminate => out.push(Action::TerminateWorker(worker)),
            WorkerOrder::Kill => out.push(Action::KillWorker(worker)),
        }
    }

    /// The process and its tree are gone: its attempts get what follows, the type's books too.
    pub(super) fn on_exited(
        &mut self,
        now: Now,
        worker: WorkerId,
        exit: &Exit,
        out: &mut Vec<Action>,
    ) {
        self.worker_event(now, worker, WorkerEvent::Exited, out);
        let Some(one) = self.workers.remove(&worker) else { return };
        if one.away {
            // Its type was offered nothing until now.
            self.want_look();
        }
        for timer in [Timer::Worker(worker), Timer::Silence(worker), Timer::Health(worker)] {
            self.deadlines.disarm(&timer);
        }
        self.deadlines.disarm(&Timer::Spare(worker));
        let loss = self.judge(&one, worker, exit);
        self.note_exit(now, worker, &one, &loss, out);
        let is_configured = self.settings.types.contains_key(&*one.job_type);
        for job in &one.attempts {
            if let Some(run) = self.runs.get_mut(job) {
                run.loss = Some(loss.verdict_on(*job, run));
                run.left_settings = (!is_configured).then(|| one.settings.clone());
            }
        }
        for job in &one.attempts {
            self.run_event(now, *job, RunEvent::WorkerGone, out);
        }
        self.suspect(worker, &one, &loss);
    }

    pub(super) fn type_settings_of(&self, worker: WorkerId) -> &TypeSettings {
        // Asked only with ids of workers that exist.
        &self.workers.get(&worker).expect("the worker exists").settings
    }

    /// True when nothing runs, nothing is being stored, and the supervisor was told to end.
    pub(super) fn exit_when_empty(&mut self, out: &mut Vec<Action>) {
        let stopping = matches!(self.stopping, Stopping::Draining | Stopping::Hurrying);
        if stopping && self.workers.is_empty() && self.runs.is_empty() && !self.look.in_flight {
            self.stopping = Stopping::Exited;
            out.push(Action::Exit);
        }
    }
}
