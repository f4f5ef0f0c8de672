//! All that can wake the supervisor, and all that it can do.

use super::claim::{TakeRequest, Taken, TypeName, WorkerId};
use super::crew::Survivor;
use super::moves::{FencedMove, Moved, RunningRow};
use super::poll::Pace;
use super::settings::Settings;
use shiftboss_protocol::job::{Attempt, JobId, Outcome, Usage};
use shiftboss_protocol::message::{Receipt, StopReason};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Everything that can happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The supervisor stands; look at the table for the first time.
    Started,
    /// Commits of other programs are noticed (or are not).
    Watched(bool),
    /// Another program committed; these running rows are still ours.
    TableChanged(Vec<RunningRow>),
    /// We inserted rows ourselves.
    OwnRows,
    /// The answer to [`Action::Take`].
    Taken(Taken),
    /// The answers to [`Action::Move`].
    Moved(Vec<Moved>),
    /// A process exists for this worker.
    WorkerSpawned {
        /// The worker.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
    },
    /// No process could be made for this worker.
    SpawnFailed {
        /// The worker.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// The worker is set up and may get jobs.
    WorkerReady {
        /// The worker.
        worker: WorkerId,
        /// What confines it, for the record.
        confinement: Arc<str>,
    },
    /// Any message came from the worker.
    WorkerHeard(WorkerId),
    /// The worker broke the protocol or lost its connection: it cannot be trusted any more.
    WorkerBroken {
        /// The worker.
        worker: WorkerId,
        /// How.
        reason: String,
    },
    /// A worker that outlived its supervisor lives, and its rows are ours.
    WorkerFound(Survivor),
    /// A worker connected again; it holds these attempts, running or with an outcome.
    WorkerBack {
        /// The worker.
        worker: WorkerId,
        /// What it holds.
        held: BTreeSet<(JobId, Attempt)>,
    },
    /// A worker that came back speaks another version of the protocol.
    WorkerOutdated(WorkerId),
    /// What a worker uses was looked at.
    MemoryUsed {
        /// The worker.
        worker: WorkerId,
        /// How much.
        used: MemoryUsed,
    },
    /// The worker's process has ended and its whole tree is gone.
    WorkerExited {
        /// The worker.
        worker: WorkerId,
        /// How it ended.
        exit: Exit,
    },
    /// An attempt got further.
    Progress {
        /// Who says so.
        worker: WorkerId,
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// An attempt ended.
    Finished {
        /// Who says so.
        worker: WorkerId,
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
        /// How.
        outcome: Outcome,
        /// What it used.
        usage: Usage,
    },
    /// Somebody wants these running jobs stopped.
    CancelAsked(Vec<JobId>),
    /// An operator wants this worker replaced; what it holds has its grace to finish.
    RestartWorker(WorkerId),
    /// Claim no more jobs of this type.
    Pause(TypeName),
    /// Claim them again.
    Resume(TypeName),
    /// Finish what runs, then exit.
    Drain(DrainLimit),
    /// Do not wait for running jobs any longer.
    Hurry,
    /// Another configuration holds from now on.
    Reload(Box<Settings>),
    /// The deadline of `next_deadline` has come, or may have.
    Deadline,
}

/// How long a drain waits for running jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainLimit {
    /// Each type's `grace.drain`.
    Grace,
    /// As long as they take.
    Unlimited,
}

/// How a worker's process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, if it ended by itself.
    pub code: Option<i32>,
    /// Signal, if one ended it.
    pub signal: Option<i32>,
    /// Last words on its standard error, for people.
    pub last_words: String,
    /// Set when the kernel killed it for want of memory: what was exceeded, as the end of a
    /// sentence about the worker.
    pub out_of_memory: Option<String>,
}

/// Memory of a worker, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUsed {
    /// Its own process.
    pub own: u64,
    /// With all its programs; `None` where the kernel enforces the limit, or nobody looked.
    pub together: Option<u64>,
}

/// Everything that the supervisor can do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Look at the table and claim: answered by [`Event::Taken`].
    Take(TakeRequest),
    /// Start a worker: answered by [`Event::WorkerSpawned`] or [`Event::SpawnFailed`].
    Spawn {
        /// Its number.
        worker: WorkerId,
        /// Its type.
        job_type: TypeName,
        /// Its place among the workers of the type, from 0.
        slot: u32,
    },
    /// Give these attempts to the worker.
    Assign {
        /// The worker.
        worker: WorkerId,
        /// The attempts, each with its time limit in milliseconds (0: none).
        jobs: Vec<(JobId, Attempt, u64)>,
    },
    /// Tell the worker to stop an attempt.
    Stop {
        /// The worker.
        worker: WorkerId,
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
        /// Why.
        reason: StopReason,
    },
    /// Tell the worker to finish what it holds and exit.
    DrainWorker(WorkerId),
    /// SIGTERM to the worker.
    TerminateWorker(WorkerId),
    /// SIGKILL to the worker and its whole tree.
    KillWorker(WorkerId),
    /// Move a running job: answered by [`Event::Moved`].
    Move(FencedMove),
    /// Tell the worker what became of its outcomes.
    Record {
        /// The worker.
        worker: WorkerId,
        /// One per outcome.
        receipts: Vec<Receipt>,
    },
    /// Something for the log.
    Notice(Notice),
    /// Nothing is left to do: end the process.
    Exit,
}

/// What the log says of a decision.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The interval of the fallback poll changed.
    Pace(Pace),
    /// A worker is being started, and why.
    Starting {
        /// The worker.
        worker: WorkerId,
        /// Its type.
        job_type: TypeName,
        /// Why.
        why: &'static str,
    },
    /// A worker is told to go, and why.
    Retiring {
        /// The worker.
        worker: WorkerId,
        /// Its type.
        job_type: TypeName,
        /// Why.
        why: &'static str,
    },
    /// A worker that outlived its supervisor is expected to come back.
    Found {
        /// The worker.
        worker: WorkerId,
        /// Its type.
        job_type: TypeName,
        /// Its process.
        pid: u32,
        /// Attempts that its supervisor had claimed for it.
        attempts: usize,
    },
    /// A worker ended as it was told to.
    Left {
        /// The worker.
        worker: WorkerId,
        /// Its type.
        job_type: TypeName,
    },
    /// A worker died.
    Died {
        /// The worker.
        worker: WorkerId,
        /// Its type.
        job_type: TypeName,
        /// What it died of, and what happens to its jobs.
        what: String,
        /// How long its replacement waits.
        restart_in: Duration,
    },
    /// Too many workers of a type died.
    BreakerOpened {
        /// The type.
        job_type: TypeName,
        /// What the last one died of.
        cause: String,
        /// When a probe is started.
        probe_in: Duration,
    },
    /// Workers of the type are healthy again.
    BreakerClosed(TypeName),
    /// An attempt ended without success.
    AttemptFailed {
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
        /// Its type.
        job_type: TypeName,
        /// What happened.
        what: String,
        /// What happens next.
        next: &'static str,
        /// Delay before the next attempt.
        retry_in: Option<Duration>,
    },
    /// An attempt is stopped, and why.
    Stopping {
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
        /// Why.
        reason: StopReason,
    },
    /// An outcome came too late and was dropped.
    Stale {
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// The row of a running job is gone or no longer ours; it is stopped.
    RowLost(JobId),
    /// Rows of unknown types were failed.
    UnknownTypes(u32),
    /// A worker that holds attempts has not been heard for a while.
    Late {
        /// The worker.
        worker: WorkerId,
        /// For how long.
        silent: Duration,
    },
    /// Draining began.
    Draining {
        /// Attempts that still run.
        running: usize,
    },
}
