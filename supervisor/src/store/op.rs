//! What the writer thread is asked to do, and what it reports.

use crate::policy::claim::{TakeRequest, Taken};
pub use crate::policy::moves::{AttemptRecord, FencedMove, Move, Moved, RunningRow};
use shiftboss_protocol::control::{ActionTaken, NewJob};
use shiftboss_protocol::job::{Attempt, JobId};
use shiftboss_provider::operation::Resolution;

/// Called once with the answer, on the writer thread, after the commit. Must not block.
pub type Reply<T> = Box<dyn FnOnce(Result<T, super::Error>) + Send>;

/// Something to do in the next group commit.
pub enum Op {
    /// Insert jobs, all or none, durable before the reply.
    Enqueue(Vec<NewJob>, Reply<Vec<JobId>>),
    /// Look for work and claim it: answered by [`Event::Taken`].
    Take(TakeRequest),
    /// Move running jobs, each behind its fence: answered by [`Event::Moved`].
    Move(Vec<FencedMove>),
    /// Latest progress of running jobs; not synced, may be lost by a crash.
    Progress(Vec<ProgressRow>),
    /// What confines the programs of a running attempt; not synced.
    Confined {
        /// The job.
        job: JobId,
        /// Its attempt: the fence.
        attempt: Attempt,
        /// As [`shiftboss_protocol::confine::InForce`] tells it.
        confinement: String,
    },
    /// Store a checkpoint behind its fence, durable: answered by [`Event::CheckpointStored`].
    Checkpoint {
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
        /// The workload's own bytes.
        data: Vec<u8>,
    },
    /// Cancel: waiting rows at once, running rows get `cancel_requested_at` and are named in
    /// [`Event::CancelRequested`].
    Cancel(Vec<JobId>, Reply<Vec<ActionTaken>>),
    /// Make final or held rows available again, with failures and crashes forgotten.
    Retry(Vec<JobId>, Reply<Vec<ActionTaken>>),
    /// Write a person's decision into the checkpoint of a held operation, and make it available.
    Resolve(JobId, Resolution, Reply<Vec<ActionTaken>>),
    /// Make running jobs of another instance ours, each behind its fence: true for those that
    /// became ours. Their outcomes are then moved like any other.
    Adopt(Vec<Adoption>, Reply<Vec<bool>>),
    /// Give back all running jobs of these dead instances, nothing counted, and forget the
    /// instances: how many jobs. Runs in batches, between which other operations are served.
    Rescue(Vec<String>, Reply<u64>),
    /// Remember whether a type is paused.
    Pause {
        /// The type.
        job_type: String,
        /// The new state.
        paused: bool,
        /// Durable.
        reply: Reply<()>,
    },
    /// The `-wal` file was touched by somebody: re-check `data_version` with doubling gaps.
    Touched,
    /// Delete final rows that ended before these times (unix milliseconds), a small batch;
    /// answered by [`Event::Pruned`].
    Prune {
        /// For succeeded jobs.
        succeeded_before: i64,
        /// For failed jobs.
        failed_before: i64,
        /// For cancelled jobs.
        cancelled_before: i64,
    },
    /// Commit what is queued, checkpoint the log, end the thread.
    Stop,
}

impl std::fmt::Debug for Op {
    /// The kind alone: payloads may be large or secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Enqueue(..) => "Enqueue",
            Self::Take(_) => "Take",
            Self::Move(_) => "Move",
            Self::Progress(_) => "Progress",
            Self::Confined { .. } => "Confined",
            Self::Checkpoint { .. } => "Checkpoint",
            Self::Cancel(..) => "Cancel",
            Self::Retry(..) => "Retry",
            Self::Resolve(..) => "Resolve",
            Self::Adopt(..) => "Adopt",
            Self::Rescue(..) => "Rescue",
            Self::Pause { .. } => "Pause",
            Self::Touched => "Touched",
            Self::Prune { .. } => "Prune",
            Self::Stop => "Stop",
        })
    }
}

/// What the writer reports, in commit order.
#[derive(Debug)]
pub enum Event {
    /// Answer to [`Op::Take`]; the payloads lie beside the jobs, in the same order.
    Taken(Taken, Vec<Parcel>),
    /// Answer to [`Op::Move`], in its order.
    Moved(Vec<Moved>),
    /// Answer to [`Op::Checkpoint`].
    CheckpointStored {
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
        /// True: the fence did not hold, nothing was stored.
        stale: bool,
    },
    /// Our own writer inserted or released rows that may start now or later (enqueue, retry,
    /// rescue).
    OwnRows,
    /// Another program committed; `running` are the rows that are still ours.
    Changed {
        /// Rows in state running whose owner we are.
        running: Vec<RunningRow>,
    },
    /// A client asked to cancel these running jobs.
    CancelRequested(Vec<JobId>),
    /// Rows were deleted; the log folders of these jobs may go. Empty: nothing left to prune.
    Pruned(Vec<JobId>),
    /// The database cannot be written for the moment (locked, full, ...); what must not be lost
    /// is kept and tried again. Said when it begins and when it changes, and again every 10 s.
    Trouble {
        /// What is wrong, and the remedy.
        text: String,
        /// It does not end before a person does something.
        needs_a_hand: bool,
    },
    /// The spell is over, after this many milliseconds.
    TroubleOver(u64),
}

/// A running job to be adopted, valid only while it is still that owner's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The job.
    pub job: JobId,
    /// Its attempt.
    pub attempt: Attempt,
    /// Id of the dead instance.
    pub owner: String,
}

/// Progress of a running job.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgressRow {
    /// The job.
    pub job: JobId,
    /// Its attempt: the fence.
    pub attempt: Attempt,
    /// 0 to 1.
    pub fraction: Option<f64>,
    /// For people.
    pub note: String,
}

/// What a claimed job carries past the policy to its worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parcel {
    /// JSON text, unchecked.
    pub payload: String,
    /// What an earlier attempt stored.
    pub checkpoint: Option<Vec<u8>>,
}
