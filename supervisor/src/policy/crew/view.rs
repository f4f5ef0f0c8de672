//! What listings show of the crew: plain copies, taken at one moment.

use super::{Crew, Stopping};
use crate::policy::claim::WorkerId;
use crate::policy::restart::Breaker;
use crate::policy::time::Now;
use shiftboss_protocol::job::{Attempt, JobId};
use std::time::Duration;

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Its number.
    pub id: WorkerId,
    /// Its type.
    pub job_type: String,
    /// Its place among the workers of the type.
    pub slot: u32,
    /// Its process, once there is one.
    pub pid: Option<u32>,
    /// The word of its state.
    pub state: &'static str,
    /// The attempts that it holds.
    pub attempts: Vec<(JobId, Attempt)>,
    /// Unix milliseconds.
    pub started_at_ms: i64,
}

/// One type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeView {
    /// Its name.
    pub name: String,
    /// `ready`, `paused`, `disabled` or `broken`.
    pub state: &'static str,
    /// Workers that exist.
    pub workers: u32,
    /// Most workers.
    pub workers_max: u32,
    /// Attempts that run.
    pub running: u32,
    /// Most attempts at once.
    pub running_max: u32,
    /// `closed`, or why it is not, for people.
    pub breaker: String,
}

/// One attempt that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunView {
    /// The attempt.
    pub attempt: Attempt,
    /// Its worker.
    pub worker: WorkerId,
    /// How long it has run.
    pub running_for: Duration,
    /// True while it is being stopped.
    pub stopping: bool,
    /// True once how it ended is decided: what its worker says of it no longer counts.
    pub ended: bool,
}

/// The supervisor as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusView {
    /// `running`, `draining`, or `disabled` when workers are switched off.
    pub state: &'static str,
    /// Workers that exist.
    pub workers: usize,
    /// Attempts that run.
    pub running: usize,
    /// The cap over all types.
    pub running_max: Option<u32>,
    /// The interval of the fallback poll in force.
    pub poll_interval: Duration,
}

impl Crew {
    /// All workers, by number.
    #[must_use]
    pub fn workers_view(&self) -> Vec<WorkerView> {
        let view = |(id, one): (&WorkerId, &super::worker::Worker)| WorkerView {
            id: *id,
            job_type: one.job_type.to_string(),
            slot: one.slot,
            pid: one.pid,
            state: one.state.as_str(),
            attempts: one
                .attempts
                .iter()
                .filter_map(|job| self.runs.get(job).map(|run| (*job, run.attempt)))
                .collect(),
            started_at_ms: one.started_ms,
        };
        self.workers.iter().map(view).collect()
    }

    /// All types, by name.
    #[must_use]
    pub fn types_view(&self, now: Now) -> Vec<TypeView> {
        let mut views = Vec::new();
        for (name, settings) in &self.settings.types {
            let Some(book) = self.types.get(name.as_str()) else { continue };
            let mine = self.workers.values().filter(|one| *one.job_type == **name);
            let breaker = breaker_text(book.restart.breaker(), now.mono);
            let state = if !settings.enabled || !self.settings.workers_enabled {
                "disabled"
            } else if book.paused {
                "paused"
            } else if breaker == "closed" {
                "ready"
            } else {
                "broken"
            };
            views.push(TypeView {
                name: name.clone(),
                state,
                workers: u32::try_from(mine.count()).unwrap_or(u32::MAX),
                workers_max: settings.workers_max,
                running: book.running,
                running_max: settings.workers_max.saturating_mul(settings.concurrency),
                breaker,
            });
        }
        views
    }

    /// The attempt of `job` that is ours, if there is one.
    #[must_use]
    pub fn run_view(&self, now: Now, job: JobId) -> Option<RunView> {
        self.runs.get(&job).map(|run| RunView {
            attempt: run.attempt,
            worker: run.worker,
            running_for: run.ran_before + now.mono.saturating_sub(run.started_at),
            stopping: run.stop_reason.is_some(),
            ended: !run.state.is_undecided(),
        })
    }

    /// The supervisor as a whole.
    #[must_use]
    pub fn status_view(&self) -> StatusView {
        let state = match self.stopping {
            Stopping::Draining | Stopping::Hurrying | Stopping::Exited => "draining",
            Stopping::No if !self.settings.workers_enabled => "disabled",
            Stopping::No => "running",
        };
        StatusView {
            state,
            workers: self.workers.len(),
            running: self.runs.len(),
            running_max: self.settings.running_max,
            poll_interval: self.poll.interval(),
        }
    }
}

/// The breaker in words.
pub(crate) fn breaker_text(breaker: &Breaker, now: Duration) -> String {
    match breaker {
        Breaker::Closed => "closed".to_owned(),
        Breaker::Open { until, cause } => {
            let seconds = until.saturating_sub(now).as_secs();
            format!("open, a probe starts in {seconds} s; {cause}")
        }
        Breaker::HalfOpen { cause } => format!("half-open, a probe is being tried; {cause}"),
    }
}

impl Crew {
    /// Why an available job of this type is not claimed, for people.
    pub(crate) fn why_available(&self, now: Now, job: JobId, job_type: &str) -> String {
        let Some(settings) = self.settings.types.get(job_type) else {
            let known: Vec<_> = self.settings.types.keys().map(String::as_str).collect();
            return format!(
                "no type {job_type} is configured (types are {}): it is about to be failed",
                known.join(", ")
            );
        };
        let Some(book) = self.types.get(job_type) else {
            return format!("type {job_type} is being set up");
        };
        if self.stopping != Stopping::No {
            return "the supervisor is draining and starts no jobs".to_owned();
        }
        if !self.settings.workers_enabled {
            return "all workers are switched off by DISABLE_BACKGROUND_WORKERS or \
                    workers_enabled = false"
                .to_owned();
        }
        if !settings.enabled {
            return format!("type {job_type} is switched off: types.{job_type}.enabled = false");
        }
        if book.paused {
            return format!("type {job_type} is paused; `shiftboss resume {job_type}` goes on");
        }
        let breaker = breaker_text(book.restart.breaker(), now.mono);
        if breaker != "closed" {
            return format!("workers of type {job_type} died too often: breaker {breaker}");
        }
        if self.suspects.all().contains(&job) {
            return "a worker died while it ran this job and others: it waits for a worker of its \
                    own, so that the culprit is found"
                .to_owned();
        }
        if let (Some(0), true, Some(max)) =
            (self.room_total(), settings.counts_in_cap, self.settings.running_max)
        {
            return format!("{max} jobs run already, the cap over all types (running_max)");
        }
        let most = settings.workers_max.saturating_mul(settings.concurrency);
        if book.running >= most {
            return format!("{most} jobs of type {job_type} run already, its cap");
        }
        if book.restart.is_delayed(now.mono) && self.workers_of(&job_type.into()) == 0 {
            return format!("workers of type {job_type} died, the next one is started soon");
        }
        if self.awaits_survivors(job_type) {
            return format!(
                "a worker of type {job_type} has outlived its supervisor: what it holds is asked \
                 before more is started"
            );
        }
        let starting = self.workers.values().any(|one| {
            *one.job_type == *job_type
                && one.state == crate::policy::machine::worker::WorkerState::Starting
        });
        if starting {
            return format!("a worker of type {job_type} is starting");
        }
        "it is about to be claimed".to_owned()
    }
}
