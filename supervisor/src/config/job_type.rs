//! One job type: its sections, its defaults, and what the policy takes from it.

use super::file::section;
use super::unit::{NoLimit, Size, Span, SpanOr};
use crate::policy::settings::{Backoff, Grace, RestartSettings, TypeSettings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shiftboss_protocol::confine;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Types that exist without configuration. Each runs the workload of its name; `keying` is `encode`
/// once more, with priority.
pub(crate) const BUILT_IN: [&str; 5] = ["command", "encode", "keying", "noop", "remote"];

/// The workloads of the worker that comes with us.
pub(crate) const WORKLOADS: [&str; 4] = ["command", "encode", "noop", "remote"];

/// How much further ahead than the type `encode` its double is, with room for rows between.
const KEYING_AHEAD: i64 = 10;

section! {
    /// A job type.
    JobType, JobTypeFile {
        /// False: its jobs wait, no worker is started.
        enabled: bool,
        /// Name of the workload that its workers run.
        workload: String,
        /// Worker program, when it is not the one of the key `worker`.
        worker: Option<PathBuf>,
        /// False: it does not count in `running_max`.
        counts_in_cap: bool,
        /// How many workers there are.
        workers: Workers,
        /// Attempts at once in one worker.
        concurrency: u32,
        /// Added to the row's priority when types compete for `running_max`.
        priority: i64,
        /// Longest run of one attempt, or "none".
        timeout: SpanOr<NoLimit>,
        /// Longest time without progress, or "none".
        stall_timeout: SpanOr<NoLimit>,
        /// How long a worker goes on without a supervisor before it stops its jobs.
        orphan_grace: Span,
        /// Failures after which a job is given up.
        max_attempts: u32,
        /// Delay before the next attempt of a failed job.
        retry: Retry,
        /// Limits of one slot, a worker with its programs.
        limits: Limits,
        /// Whether its work may run where the host cannot confine it in full.
        confine: Confine,
        /// Which network its programs reach.
        network: Network,
        /// Device nodes that its programs may use, such as "/dev/dri/renderD128".
        devices: Vec<PathBuf>,
        /// Folders below which payloads may name files; empty lists: anywhere.
        roots: Roots,
        /// Time allowed for each step of stopping.
        grace: Stopping,
        /// Crashes of its worker after which a job is given up; 0: never.
        poison_after: u32,
        /// When workers that died are started again.
        restart: Restart,
        /// When healthy workers are replaced.
        recycle: Recycle,
        /// False: power loss may undo a claim, and the same attempt is issued twice.
        claim_sync: bool,
        /// Variables that its workers get besides the clean environment.
        env: Variables,
    }
}

section! {
    /// How many workers a type has.
    Workers, WorkersFile {
        /// Always kept.
        min: u32,
        /// Most at once.
        max: u32,
        /// Idle workers kept ready besides those that work.
        warm: u32,
        /// How long a spare stays idle before it is stopped.
        idle: Span,
    }
}

section! {
    /// Growing delay: `base * factor^n`, at most `max`, then spread by `jitter`.
    Retry, RetryFile {
        /// First delay.
        base: Span,
        /// Longest delay before jitter.
        max: Span,
        /// Growth, at least 1.
        factor: f64,
        /// Share of the delay that is random, 0 to 1.
        jitter: f64,
    }
}

section! {
    /// Limits of one slot; what is not set is not limited.
    Limits, LimitsFile {
        /// Memory of the worker and its programs together, at least 16MiB; no swap.
        memory: Option<Size>,
        /// CPU time of all together, in CPUs, such as 2.0.
        cpu: Option<f64>,
        /// Share of CPU time when CPUs are short, 1 to 10000; a slot without has 100.
        cpu_weight: Option<u32>,
        /// Processes and threads of all together, at least `concurrency` + 2.
        pids: Option<u32>,
        /// Open files of one process of a program.
        files: Option<u32>,
        /// Largest file that a program may write.
        file_size: Option<Size>,
        /// Bytes a second that all together read from each disk on which a root or `work_dir` lies.
        io_read: Option<Size>,
        /// The same for writing.
        io_write: Option<Size>,
    }
}

section! {
    /// Folders below which payloads may name files. Empty: anywhere that the supervisor's user
    /// can reach, except the supervisor's own files.
    Roots, RootsFile {
        /// For inputs.
        read: Vec<PathBuf>,
        /// For outputs.
        write: Vec<PathBuf>,
    }
}

section! {
    /// Time allowed for each step of stopping.
    Stopping, StoppingFile {
        /// For jobs to finish by themselves before SIGTERM.
        drain: Span,
        /// For programs to end after SIGTERM before SIGKILL.
        term: Span,
    }
}

section! {
    /// Restart of workers that died, and the breaker that stops restarting.
    Restart, RestartFile {
        /// Deaths within `within` that open the breaker.
        burst: u32,
        /// The window of `burst`.
        within: Span,
        /// Delay before the second restart of a window; the first is immediate.
        base: Span,
        /// Longest delay, and how long the breaker stays open before a probe.
        max: Span,
        /// A worker that was ready this long closes the books on earlier deaths.
        healthy_after: Span,
    }
}

section! {
    /// When healthy workers are replaced.
    Recycle, RecycleFile {
        /// After this many jobs; 0: never.
        after_jobs: u32,
        /// When its own memory is above this after a job; "0B": never.
        above_memory: Size,
    }
}

/// Whether a worker may run where the host cannot enforce its confinement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Confine {
    /// It runs with what there is.
    BestEffort,
    /// It does not run.
    Require,
}

/// Which network the programs of a type reach.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// None.
    None,
    /// The host's.
    Host,
    /// TCP connections to these ports of the host's network.
    Tcp(Vec<u16>),
}

impl From<Confine> for confine::Confine {
    fn from(written: Confine) -> Self {
        match written {
            Confine::BestEffort => Self::BestEffort,
            Confine::Require => Self::Require,
        }
    }
}

impl From<&Network> for confine::Network {
    fn from(written: &Network) -> Self {
        match written {
            Network::None => Self::None,
            Network::Host => Self::Host,
            Network::Tcp(ports) => Self::Tcp(ports.clone()),
        }
    }
}

/// Variables by name. [`fmt::Debug`] hides the values: they may be secrets.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Variables(pub BTreeMap<String, String>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, "hidden"))).finish()
    }
}

impl JobType {
    /// The defaults of the type of this name, of which `written` was written. `keying` takes over
    /// what was written for `encode`: its roots and limits must hold for the same work under
    /// another name too.
    pub(crate) fn of_type(
        name: &str,
        written: &JobTypeFile,
        encode: Option<&Self>,
        cpus: u32,
    ) -> Self {
        let workload = written.workload.as_deref();
        let is_own = written.worker.is_some() || workload.is_some_and(|name| name != "encode");
        match encode {
            Some(encode) if name == "keying" && !is_own => {
                let priority = encode.priority.saturating_add(KEYING_AHEAD);
                Self { priority, ..encode.clone() }
            }
            Some(_) | None => Self::of_workload(workload.unwrap_or(name), cpus),
        }
    }

    /// The defaults of a type that runs `workload`: those of the built-in type of that name, or
    /// cautious ones for a workload that we do not know.
    pub(crate) fn of_workload(workload: &str, cpus: u32) -> Self {
        let mut job_type = Self::plain(workload);
        match workload {
            "command" => job_type.workers.max = cpus.max(1),
            "encode" => job_type.stall_timeout = SpanOr::from_secs(120),
            "noop" => {
                job_type.workers.max = 1;
                job_type.concurrency = 64;
                job_type.timeout = SpanOr::from_secs(60);
                job_type.claim_sync = false;
            }
            "remote" => {
                // One process: a credential's limits hold for all of its operations together.
                job_type.workers.max = 1;
                job_type.concurrency = 10_000;
                // Operations that mostly wait take no place from work that uses the CPU.
                job_type.counts_in_cap = false;
                // A description has its own deadline, and knows since when.
                job_type.timeout = SpanOr::unbounded();
                job_type.network = Network::Tcp(vec![53, 443]);
                // Thousands of operations would wait while a culprit among them is looked for.
                job_type.poison_after = 0;
            }
            _ => {}
        }
        job_type
    }

    fn plain(workload: &str) -> Self {
        Self {
            enabled: true,
            workload: workload.to_owned(),
            worker: None,
            counts_in_cap: true,
            workers: Workers { min: 0, max: 2, warm: 0, idle: Span::from_secs(300) },
            concurrency: 1,
            priority: 0,
            timeout: SpanOr::from_secs(2 * 3_600),
            stall_timeout: SpanOr::unbounded(),
            orphan_grace: Span::from_secs(600),
            max_attempts: 3,
            retry: Retry {
                base: Span::from_secs(1),
                max: Span::from_secs(60),
                factor: 2.0,
                jitter: 0.2,
            },
            limits: Limits {
                memory: None,
                cpu: None,
                cpu_weight: None,
                pids: None,
                files: None,
                file_size: None,
                io_read: None,
                io_write: None,
            },
            confine: Confine::BestEffort,
            network: Network::None,
            devices: Vec::new(),
            roots: Roots { read: Vec::new(), write: Vec::new() },
            grace: Stopping { drain: Span::from_secs(30), term: Span::from_secs(10) },
            poison_after: 3,
            restart: Restart {
                burst: 5,
                within: Span::from_secs(60),
                base: Span::from_millis(100),
                max: Span::from_secs(60),
                healthy_after: Span::from_secs(10),
            },
            recycle: Recycle { after_jobs: 0, above_memory: Size::from_bytes(0) },
            claim_sync: true,
            env: Variables::default(),
        }
    }

    /// What the policy is told about this type.
    #[must_use]
    pub fn settings(&self) -> TypeSettings {
        TypeSettings {
            enabled: self.enabled,
            counts_in_cap: self.counts_in_cap,
            workload: self.workload.clone(),
            start_mark: 0,
            workers_min: self.workers.min,
            workers_max: self.workers.max,
            warm: self.workers.warm,
            idle: self.workers.idle.duration(),
            concurrency: self.concurrency,
            priority: self.priority,
            timeout: self.timeout.duration(),
            stall_timeout: self.stall_timeout.duration(),
            attempts_max: self.max_attempts,
            retry: Backoff {
                base: self.retry.base.duration(),
                max: self.retry.max.duration(),
                factor: self.retry.factor,
                jitter: self.retry.jitter,
            },
            grace: Grace { drain: self.grace.drain.duration(), term: self.grace.term.duration() },
            poison_after: self.poison_after,
            restart: RestartSettings {
                burst: self.restart.burst,
                within: self.restart.within.duration(),
                base: self.restart.base.duration(),
                max: self.restart.max.duration(),
                healthy_after: self.restart.healthy_after.duration(),
            },
            recycle_after_jobs: self.recycle.after_jobs,
            recycle_above_bytes: self.recycle.above_memory.bytes(),
            memory_bytes_max: self.limits.memory.map(Size::bytes),
            claim_sync: self.claim_sync,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_variables_never_reach_a_log() {
        let env = Variables(BTreeMap::from([("API_KEY".to_owned(), "s3cret".to_owned())]));
        let job_type = JobType { env, ..JobType::of_workload("encode", 4) };
        let text = format!("{job_type:?}");
        assert!(text.contains("API_KEY") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn built_in_types_have_the_defaults_of_the_contract() {
        let encode = JobType::of_workload("encode", 4).settings();
        assert_eq!((encode.workers_min, encode.workers_max, encode.concurrency), (0, 2, 1));
        assert_eq!(encode.timeout, Some(std::time::Duration::from_secs(7_200)));
        assert_eq!(encode.stall_timeout, Some(std::time::Duration::from_secs(120)));
        let noop = JobType::of_workload("noop", 4).settings();
        assert_eq!((noop.workers_max, noop.concurrency, noop.claim_sync), (1, 64, false));
        let command = JobType::of_workload("command", 6).settings();
        assert_eq!((command.workers_max, command.stall_timeout), (6, None));
    }
}
