//! Jobs, attempts, outcomes: the words that the table, the wire and the policy share.
//!
//! The spelling of [`JobState`] and [`Cause`] is stored in the job table and read by outside
//! scripts: a change is a change of contract.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The number of a row of the job table. Never used twice, also after deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub i64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many times a job has been claimed, from 1. Never goes back: it is the fence of every
/// write that moves a running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt(pub u32);

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a job stands. Who moves it on is said at each state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for other jobs. Ended by the supervisor when they are done.
    Blocked,
    /// Waits for its `run_at`: delayed, or between two attempts. Ended by the supervisor's clock.
    Scheduled,
    /// May start now. Ended by a claim.
    Available,
    /// Claimed by one attempt of one supervisor. Ended by that attempt's outcome or its death.
    Running,
    /// Its outcome is unknown and a person must decide. Ended by retry, cancel or resolve.
    Held,
    /// Done. Final; a manual retry makes it available again.
    Succeeded,
    /// Given up. Final; a manual retry makes it available again.
    Failed,
    /// Stopped on request. Final; a manual retry makes it available again.
    Cancelled,
}

impl JobState {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 8] = [
        Self::Blocked,
        Self::Scheduled,
        Self::Available,
        Self::Running,
        Self::Held,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word stored in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Scheduled => "scheduled",
            Self::Available => "available",
            Self::Running => "running",
            Self::Held => "held",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of that word, if there is one.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// True when nothing but a manual retry moves the job on.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
            Self::Blocked | Self::Scheduled | Self::Available | Self::Running | Self::Held => false,
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why an attempt ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// The workload or its program reported an error.
    Error,
    /// The payload is not JSON or does not fit the type. Never retried.
    Payload,
    /// The program could not be started.
    FailedStart,
    /// The program ended with a code other than 0.
    ExitCode,
    /// The program was ended by a signal that we did not send.
    Signal,
    /// The kernel counted an out-of-memory kill.
    OutOfMemory,
    /// A resource limit ended it (CPU time, file size, processes).
    Limit,
    /// A forbidden system call ended it.
    ForbiddenSyscall,
    /// It ran longer than its timeout.
    Timeout,
    /// It made no progress for its stall timeout.
    Stalled,
    /// Somebody asked for it to be stopped.
    Cancelled,
    /// Its worker died.
    Crash,
    /// It killed its worker too often.
    Poison,
    /// No configured type has this name.
    UnknownType,
    /// The supervisor took it back: shutdown, hand-over, a lost worker that was not its fault.
    Released,
}

impl Cause {
    /// All causes.
    pub const ALL: [Self; 15] = [
        Self::Error,
        Self::Payload,
        Self::FailedStart,
        Self::ExitCode,
        Self::Signal,
        Self::OutOfMemory,
        Self::Limit,
        Self::ForbiddenSyscall,
        Self::Timeout,
        Self::Stalled,
        Self::Cancelled,
        Self::Crash,
        Self::Poison,
        Self::UnknownType,
        Self::Released,
    ];

    /// The word stored in `attempts.cause`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Payload => "payload",
            Self::FailedStart => "failed_start",
            Self::ExitCode => "exit_code",
            Self::Signal => "signal",
            Self::OutOfMemory => "out_of_memory",
            Self::Limit => "limit",
            Self::ForbiddenSyscall => "forbidden_syscall",
            Self::Timeout => "timeout",
            Self::Stalled => "stalled",
            Self::Cancelled => "cancelled",
            Self::Crash => "crash",
            Self::Poison => "poison",
            Self::UnknownType => "unknown_type",
            Self::Released => "released",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why an attempt failed, as the workload reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// True when another attempt would fail the same way: the job is not retried.
    pub permanent: bool,
    /// The least time before the next attempt, milliseconds, when the workload knows it.
    pub retry_after_ms: Option<u64>,
    /// What kind of failure it was.
    pub cause: Cause,
    /// One or more sentences for the person who reads `last_error`.
    pub message: String,
    /// Exit code of the program, if one ended by itself.
    pub exit_code: Option<i32>,
    /// Signal that ended the program, if one did.
    pub signal: Option<i32>,
}

impl Failure {
    /// A failure that another attempt may not meet.
    #[must_use]
    pub fn retryable(cause: Cause, message: impl Into<String>) -> Self {
        Self {
            permanent: false,
            retry_after_ms: None,
            cause,
            message: message.into(),
            exit_code: None,
            signal: None,
        }
    }

    /// A failure that every other attempt would meet too.
    #[must_use]
    pub fn permanent(cause: Cause, message: impl Into<String>) -> Self {
        Self { permanent: true, ..Self::retryable(cause, message) }
    }
}

/// How an attempt ended, as its worker reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done; `result` is a JSON value.
    Succeeded {
        /// JSON text, at most [`crate::frame::TEXT_BYTES_MAX`] bytes.
        result: String,
    },
    /// Not done.
    Failed(Failure),
    /// Stopped because the job was cancelled; the whole process tree is dead.
    Cancelled,
    /// Whether it was done is unknown, and trying again could do harm: a person must decide.
    Held {
        /// What is unknown, for that person.
        reason: String,
    },
    /// Stopped through no fault of the job (drain, shutdown): it goes back, nothing is counted.
    Released {
        /// Why.
        reason: String,
    },
}

/// What an attempt used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of the attempt's programs, user and system, milliseconds.
    pub cpu_ms: Option<u64>,
    /// Largest resident set of one of its programs, bytes.
    pub memory_peak_bytes: Option<u64>,
}
