//! How a running job moves on: what the policy decides and the store carries out behind the
//! fence of `(job, attempt, owner)`.

use shiftboss_protocol::job::{Attempt, Cause, JobId, Usage};

/// A move of a running job, valid only while `(job, attempt)` is ours and running.
#[derive(Clone, Debug, PartialEq)]
pub struct FencedMove {
    /// The job.
    pub job: JobId,
    /// Its attempt: the fence.
    pub attempt: Attempt,
    /// Where it goes.
    pub to: Move,
    /// What the attempts row records.
    pub record: AttemptRecord,
}

/// Where a running job goes. One that would run again (retry, give-back, crash) although
/// somebody asked to cancel it meanwhile becomes cancelled instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Final, with its result (JSON text).
    Succeed {
        /// JSON text.
        result: String,
    },
    /// Counted as a failure; runs again at `run_at_ms`.
    Retry {
        /// Unix milliseconds.
        run_at_ms: i64,
    },
    /// Counted as a failure; final.
    Fail,
    /// Final.
    Cancel,
    /// A person decides.
    Hold,
    /// Available again, nothing counted.
    GiveBack,
    /// Available again, counted as a crash.
    Crash,
    /// Counted as a crash; final.
    Poison,
}

/// What an attempts row records at its end. `error` also becomes the job's `last_error`,
/// except for a success (where `last_error` is cleared) and a give-back (where it is kept).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttemptRecord {
    /// Cause of a failure.
    pub cause: Option<Cause>,
    /// Exit code of its program.
    pub exit_code: Option<i32>,
    /// Signal that ended its program.
    pub signal: Option<i32>,
    /// What it used.
    pub usage: Usage,
    /// How long its programs had to wait because their CPU limit was used up, milliseconds; filled
    /// in by whoever carries the move out, since nothing is decided by it.
    pub throttled_ms: Option<u64>,
    /// For people.
    pub error: Option<String>,
}

/// The fate of a [`FencedMove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The job.
    pub job: JobId,
    /// Its attempt.
    pub attempt: Attempt,
    /// True: the fence did not hold, nothing was changed.
    pub stale: bool,
}

/// A row in state running whose owner we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningRow {
    /// The job.
    pub job: JobId,
    /// Its attempt.
    pub attempt: Attempt,
    /// True: somebody set `cancel_requested_at`.
    pub cancel_requested: bool,
}
