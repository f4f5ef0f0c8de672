//! What a client (the command line) and the supervisor say on the control socket.
//!
//! One request, then one answer; [`Request::Watch`] is answered by a stream of
//! [`Response::Job`] that ends when every watched job is final. Objects travel as JSON text,
//! in the form that `--json` prints.

use crate::job::{JobId, JobState};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where an opened connection starts: the client says it first, the supervisor answers in kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// [`crate::PROTOCOL_VERSION`] of the speaker.
    pub protocol: u32,
    /// Its program version, for people.
    pub program: String,
}

/// A job to be inserted. [`fmt::Debug`] hides the payload: it may hold secrets.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewJob {
    /// Its type.
    pub job_type: String,
    /// JSON text.
    pub payload: String,
    /// The larger runs first.
    pub priority: i64,
    /// Unix milliseconds before which it does not start.
    pub run_at: Option<i64>,
    /// Failures before it is given up; `None`: the type's.
    pub max_attempts: Option<u32>,
    /// Longest run of one attempt, milliseconds; `None`: the type's.
    pub timeout_ms: Option<u64>,
    /// At most one unfinished job has this key.
    pub unique_key: Option<String>,
    /// Free text for people and filters.
    pub tags: Option<String>,
}

impl fmt::Debug for NewJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = format_args!("{} bytes", self.payload.len());
        f.debug_struct("NewJob")
            .field("job_type", &self.job_type)
            .field("payload", &payload)
            .field("unique_key", &self.unique_key)
            .finish_non_exhaustive()
    }
}

/// Which jobs a listing shows, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFilter {
    /// Only this state.
    pub state: Option<JobState>,
    /// Only this type.
    pub job_type: Option<String>,
    /// At most this many, 1 to 10,000.
    pub limit: u32,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Insert jobs, durable before the answer [`Response::Submitted`]; all or none.
    Submit(Vec<NewJob>),
    /// [`Response::Json`]: an array of jobs.
    Jobs(JobFilter),
    /// [`Response::Json`]: one job with its attempts and `why_waiting`.
    Job(JobId),
    /// A stream of [`Response::Job`], one at once and one per change, until all are final;
    /// then [`Response::Done`].
    Watch(Vec<JobId>),
    /// [`Response::Actions`], one per id.
    Cancel(Vec<JobId>),
    /// [`Response::Actions`], one per id.
    Retry(Vec<JobId>),
    /// [`Response::Json`]: one object about the supervisor.
    Status,
    /// [`Response::Json`]: an array of workers.
    Workers,
    /// [`Response::Json`]: an array of types.
    Types,
    /// Claim no more jobs of this type until resumed; survives a restart.
    Pause(String),
    /// Claim jobs of this type again.
    Resume(String),
    /// Finish what runs, claim nothing, then stop.
    Drain,
    /// Read the configuration again; [`Response::Json`]: what was taken over and what was not.
    Reload,
    /// Become the program that lies where the supervisor's lay; the workers go on.
    Upgrade,
    /// [`Response::Actions`], one: decides about a held provider operation.
    Resolve {
        /// The job.
        job: JobId,
        /// The provider has it under this id; `None`: it has it not, and it is submitted again.
        operation: Option<String>,
    },
}

/// What was done about one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionTaken {
    /// The job.
    pub id: JobId,
    /// True when it was done or had been done before.
    pub ok: bool,
    /// What happened, or why not and what to do.
    pub message: String,
}

/// What the supervisor answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The new ids, in the order of the request.
    Submitted(Vec<JobId>),
    /// JSON text.
    Json(String),
    /// JSON text of one watched job (its row, with `live` progress).
    Job(String),
    /// One per requested id.
    Actions(Vec<ActionTaken>),
    /// Done; nothing more to say.
    Done,
    /// Not done, and why.
    Refused(String),
    /// The begin of a text that does not fit one frame; the rest follows, the last piece as
    /// [`Response::Json`] or [`Response::Job`].
    Part(String),
}
