//! Looks at the memory of workers: once a second while programs run whose limit nothing in the
//! kernel enforces, and after a job where grown workers are replaced. Costs nothing else.

use crate::daemon::Daemon;
use crate::daemon::inputs::Input;
use crate::os::cgroup::Controller;
use crate::os::process::memory;
use crate::policy::claim::WorkerId;
use crate::policy::event::{Event, MemoryUsed};
use std::time::{Duration, Instant};

/// Pause between two looks at programs.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the looks stand.
#[derive(Debug, Default)]
pub(super) enum Looking {
    /// No program runs whose memory must be looked at.
    #[default]
    Idle,
    /// The next look is due then.
    At(Instant),
    /// A thread looks.
    UnderWay,
}

impl Looking {
    /// When something must be done.
    pub(super) fn next(&self) -> Option<Instant> {
        match self {
            Self::At(at) => Some(*at),
            Self::Idle | Self::UnderWay => None,
        }
    }
}

impl Daemon {
    /// Attempts were given to this worker.
    pub(in crate::daemon) fn watch_memory(&mut self, worker: WorkerId) {
        if matches!(self.fleet.looking, Looking::Idle) && self.needs_look(worker) {
            self.fleet.looking = Looking::At(Instant::now() + LOOK_EVERY);
        }
    }

    /// True when the worker's type has a limit that nothing else enforces.
    fn needs_look(&self, worker: WorkerId) -> bool {
        let Some(one) = self.fleet.processes.get(&worker) else { return false };
        let job_type = self.config.types.get(&one.job_type);
        job_type.is_some_and(|it| it.limits.memory.is_some())
            && (one.bounds.slot.is_none() || one.bounds.lacks(Controller::Memory))
    }

    pub(in crate::daemon) fn look_at_memory(&mut self) {
        if self.fleet.looking.next().is_none_or(|at| at > Instant::now()) {
            return;
        }
        let busy = self.crew.workers_view().into_iter().filter(|one| !one.attempts.is_empty());
        let due = busy.map(|one| one.id).filter(|id| self.needs_look(*id)).filter_map(|id| {
            let one = self.fleet.processes.get(&id)?;
            let group = one.bounds.slot.as_ref().map(|slot| slot.dir().to_owned());
            Some((id, one.process.pid(), group))
        });
        let due: Vec<_> = due.collect();
        if due.is_empty() {
            self.fleet.looking = Looking::Idle;
            return;
        }
        self.fleet.looking = Looking::UnderWay;
        let inputs = self.inputs.clone();
        let look = move || {
            let used = due.into_iter().map(|(worker, pid, group)| {
                let pids = group.map_or_else(
                    || memory::tree_of(pid),
                    |group| crate::os::cgroup::group::processes(&group),
                );
                let together = pids.into_iter().map(memory::used_by).sum();
                (worker, MemoryUsed { own: memory::resident(pid), together: Some(together) })
            });
            let _ = inputs.send(Input::MemoryUsed(used.collect()));
        };
        // On a thread: the kernel walks all pages of each process, milliseconds per gigabyte.
        if let Err(error) = std::thread::Builder::new().name("memory".to_owned()).spawn(look) {
            tracing::error!(%error, "cannot look at the memory of programs");
            self.fleet.looking = Looking::At(Instant::now() + LOOK_EVERY);
        }
    }

    pub(in crate::daemon) fn on_memory_used(&mut self, looked: Vec<(WorkerId, MemoryUsed)>) {
        self.fleet.looking = Looking::At(Instant::now() + LOOK_EVERY);
        for (worker, used) in looked {
            self.handle(Event::MemoryUsed { worker, used });
        }
    }

    /// An attempt of this worker has ended: has it grown?
    pub(super) fn look_at_worker(&mut self, worker: WorkerId) {
        let Some(one) = self.fleet.processes.get(&worker) else { return };
        let job_type = self.config.types.get(&one.job_type);
        if job_type.is_some_and(|it| it.recycle.above_memory.bytes() > 0) {
            let used = MemoryUsed { own: memory::resident(one.process.pid()), together: None };
            self.handle(Event::MemoryUsed { worker, used });
        }
    }
}
