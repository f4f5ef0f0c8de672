//! What the policy is told by the configuration: plain data, already checked.
//!
//! Every duration is at least 0 and every relation (`min <= max`, ...) holds: the configuration
//! refuses everything else, so nothing here can fail.

pub mod require;

use std::collections::BTreeMap;
use std::time::Duration;

/// Everything that the policy takes from the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The fallback poll.
    pub poll: PollSettings,
    /// Most attempts that run at once over all types that count (`counts_in_cap`).
    pub running_max: Option<u32>,
    /// False: no worker is started and nothing is claimed.
    pub workers_enabled: bool,
    /// The job types by name.
    pub types: BTreeMap<String, TypeSettings>,
}

/// The fallback poll of the table: base interval and idle backoff.
#[derive(Clone, Debug, PartialEq)]
pub struct PollSettings {
    /// Base interval, and the interval after work.
    pub idle_min: Duration,
    /// The longest interval that idle backoff reaches.
    pub idle_max: Duration,
    /// What an interval is multiplied with when a poll found nothing.
    pub factor: f64,
    /// Largest random delay of a first poll or of the start of a warm spare.
    pub stagger_max: Duration,
}

/// One job type.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeSettings {
    /// False: its jobs wait, no worker is started.
    pub enabled: bool,
    /// False: it does not count in `running_max` (remote operations that only wait).
    pub counts_in_cap: bool,
    /// Name of the workload that its workers run.
    pub workload: String,
    /// Differs when workers are started with something else that the policy does not look at:
    /// program, environment, roots, tools.
    pub start_mark: u64,
    /// Workers that are always kept.
    pub workers_min: u32,
    /// Most workers at once, at least 1.
    pub workers_max: u32,
    /// Idle workers kept ready besides those that work.
    pub warm: u32,
    /// How long a spare worker stays idle before it is stopped.
    pub idle: Duration,
    /// Attempts at once in one worker, at least 1.
    pub concurrency: u32,
    /// Added to the row's priority when types compete for `running_max`.
    pub priority: i64,
    /// Longest run of one attempt; `None`: without limit.
    pub timeout: Option<Duration>,
    /// Longest time without progress; `None`: without limit.
    pub stall_timeout: Option<Duration>,
    /// Failures after which a job is given up, at least 1.
    pub attempts_max: u32,
    /// Delay before the next attempt of a failed job.
    pub retry: Backoff,
    /// How a worker is stopped.
    pub grace: Grace,
    /// Crashes of its worker after which a job is given up; 0: never.
    pub poison_after: u32,
    /// When workers that die are started again.
    pub restart: RestartSettings,
    /// When healthy workers are replaced.
    pub recycle_after_jobs: u32,
    /// A worker that uses more memory itself than this is replaced, bytes; 0: never.
    pub recycle_above_bytes: u64,
    /// Memory of a worker and its programs together, bytes; `None`: without limit. Judged here only
    /// where the kernel does not enforce it.
    pub memory_bytes_max: Option<u64>,
    /// False: a claim may be undone by power loss, and the same attempt issued twice.
    pub claim_sync: bool,
}

/// Growing delay: `base * factor^n`, at most `max`, then spread by `jitter`.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    /// First delay.
    pub base: Duration,
    /// Longest delay before jitter.
    pub max: Duration,
    /// At least 1.
    pub factor: f64,
    /// Share of the delay that is random, 0 to 1: 0.2 spreads over 0.8 to 1.2 times the delay.
    pub jitter: f64,
}

/// Time allowed for each step of stopping.
#[derive(Clone, Debug, PartialEq)]
pub struct Grace {
    /// For jobs to finish by themselves before SIGTERM.
    pub drain: Duration,
    /// For programs to end after SIGTERM before SIGKILL.
    pub term: Duration,
}

/// Restart of workers that died, and the breaker that stops restarting.
#[derive(Clone, Debug, PartialEq)]
pub struct RestartSettings {
    /// Deaths within `within` that open the breaker, at least 1.
    pub burst: u32,
    /// The window of `burst`.
    pub within: Duration,
    /// Delay before the second restart of a window; the first is immediate.
    pub base: Duration,
    /// Longest delay, and how long the breaker stays open before a probe.
    pub max: Duration,
    /// A worker that was ready this long closes the books on earlier deaths.
    pub healthy_after: Duration,
}

impl TypeSettings {
    /// What holds for the last attempts of a type that a reload removed while they ran: one
    /// attempt, no spares, the documented defaults for the rest.
    #[must_use]
    pub fn of_a_removed_type() -> Self {
        Self {
            enabled: false,
            counts_in_cap: true,
            workload: String::new(),
            start_mark: 0,
            workers_min: 0,
            workers_max: 1,
            warm: 0,
            idle: Duration::from_secs(300),
            concurrency: 1,
            priority: 0,
            timeout: None,
            stall_timeout: None,
            attempts_max: 3,
            retry: Backoff {
                base: Duration::from_secs(1),
                max: Duration::from_secs(60),
                factor: 2.0,
                jitter: 0.2,
            },
            grace: Grace { drain: Duration::from_secs(30), term: Duration::from_secs(10) },
            poison_after: 3,
            restart: RestartSettings {
                burst: 5,
                within: Duration::from_secs(60),
                base: Duration::from_millis(100),
                max: Duration::from_secs(60),
                healthy_after: Duration::from_secs(10),
            },
            recycle_after_jobs: 0,
            recycle_above_bytes: 0,
            memory_bytes_max: None,
            claim_sync: true,
        }
    }
}
