//! What a worker and its supervisor say to each other, in order: Hello, Welcome, Ready, then
//! jobs until Drain.
//!
//! [`Hello`] and [`Welcome`] are frozen: their bytes are golden, so that every version can
//! read every other's and say in a sentence why it does not go on. Variants are only ever
//! added at the end: their index is the tag on the wire.

use crate::confine::{Confine, Network};
use crate::job::{Attempt, JobId, Outcome, Usage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bytes of the token that proves to the supervisor which spawn a worker comes from.
pub const TOKEN_BYTES: usize = 32;

/// Seconds between two heartbeats of a worker that holds attempts.
pub const HEARTBEAT_SECONDS: u64 = 5;

/// [`Settings::orphan_grace_ms`] where the supervisor says nothing about it.
const ORPHAN_GRACE_MS: u64 = 600_000;

/// The first message of a worker. Frozen layout.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`] of the worker.
    pub protocol: u32,
    /// The job type that it was spawned for.
    pub job_type: String,
    /// What it read from the inherited pipe.
    pub token: [u8; TOKEN_BYTES],
    /// Attempts that it still holds (after a reconnection).
    pub held: Vec<(JobId, Attempt)>,
    /// Version of the worker's program, for people.
    pub program: String,
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("protocol", &self.protocol)
            .field("job_type", &self.job_type)
            .field("token", &"hidden")
            .field("held", &self.held)
            .field("program", &self.program)
            .finish()
    }
}

/// The supervisor's answer to Hello. Frozen layout: what a workload needs beyond it travels
/// as JSON in `settings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`crate::PROTOCOL_VERSION`] of the supervisor.
    pub protocol: u32,
    /// Empty when the worker is accepted; else the sentence that says why it must stop.
    pub refused: String,
    /// Name of the workload that the worker must run.
    pub workload: String,
    /// How many attempts it may be given at once.
    pub concurrency: u32,
    /// [`Settings`] as JSON text.
    pub settings: String,
}

/// What a worker is told besides the frozen part of [`Welcome`], as JSON: unknown keys are
/// ignored, missing ones have defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Number of this worker within its supervisor.
    pub worker: u64,
    /// Id of the supervisor's instance: the `owner` of the rows that it runs.
    pub owner: String,
    /// Folder in which each attempt has a scratch folder `<job>-<attempt>`, absolute path.
    pub scratch_dir: String,
    /// Folder in which each job has a folder `<job>` with its attempts' logs, absolute path.
    pub logs_dir: String,
    /// How long a program may take to end after SIGTERM, milliseconds.
    pub term_grace_ms: u64,
    /// Largest log file of one stream of one attempt before it is rotated, bytes.
    pub log_bytes_max: u64,
    /// Folders below which payloads may name inputs; empty: anywhere.
    pub read_roots: Vec<String>,
    /// Folders below which payloads may name outputs; empty: anywhere.
    pub write_roots: Vec<String>,
    /// Files and folders that no payload may name: database, work and runtime directory.
    pub forbidden: Vec<String>,
    /// Path of ffmpeg; empty: looked up in PATH.
    pub ffmpeg: String,
    /// Path of ffprobe; empty: looked up in PATH.
    pub ffprobe: String,
    /// How long the worker goes on when its supervisor has gone, milliseconds; 0: it stops its
    /// attempts at once.
    pub orphan_grace_ms: u64,
    /// Folder in which the worker keeps outcomes that it can tell nobody, as
    /// [`crate::stored::StoredOutcome`] files; absolute path. Empty: it keeps them in memory only.
    pub outcomes_dir: String,
    /// Open files that each process of a program may have; 0: what the worker itself may have.
    pub program_files_max: u32,
    /// Largest file that a program may write, bytes; 0: without limit.
    pub program_file_bytes_max: u64,
    /// Control group of this worker's slot, absolute path: each attempt that starts programs makes
    /// `job-<place>` in it for them. Empty: there are no control groups.
    pub cgroup_slot: String,
    /// Processes and threads that a program may have together with whatever else its user has in
    /// the same user namespace; 0: without limit. The second wall: it does not bind root.
    pub program_processes_max: u32,
    /// CPUs whose time the programs of one worker may use together; 0: all of the host's.
    pub program_cpus_max: f64,
    /// Whether work may run where its confinement cannot be had in full.
    pub confine: Confine,
    /// Which network the worker and its programs reach.
    pub network: Network,
    /// Device nodes that they may use, absolute paths.
    pub devices: Vec<String>,
    /// Folder with descriptions of providers, absolute path. Empty: only the shipped ones exist.
    pub providers_dir: String,
    /// Profiles of ladders by name: each the fields of a payload, as JSON text.
    pub profiles: BTreeMap<String, String>,
    /// Folder in which sessions of hardware encoders are counted, absolute path. Empty: they are
    /// not counted.
    pub sessions_dir: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            worker: 0,
            owner: String::new(),
            scratch_dir: String::new(),
            logs_dir: String::new(),
            term_grace_ms: 0,
            log_bytes_max: 0,
            read_roots: Vec::new(),
            write_roots: Vec::new(),
            forbidden: Vec::new(),
            ffmpeg: String::new(),
            ffprobe: String::new(),
            orphan_grace_ms: ORPHAN_GRACE_MS,
            outcomes_dir: String::new(),
            program_files_max: 0,
            program_file_bytes_max: 0,
            cgroup_slot: String::new(),
            program_processes_max: 0,
            program_cpus_max: 0.0,
            confine: Confine::default(),
            network: Network::default(),
            devices: Vec::new(),
            providers_dir: String::new(),
            profiles: BTreeMap::new(),
            sessions_dir: String::new(),
        }
    }
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WorkerMessage {
    /// First message on every connection.
    Hello(Hello),
    /// Set up and confined: it may get jobs.
    Ready(Ready),
    /// Still alive; sent every [`HEARTBEAT_SECONDS`] while it holds attempts.
    Heartbeat,
    /// How far an attempt is.
    Progress {
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
        /// From 0 to 1, when it can be known.
        fraction: Option<f64>,
        /// Short text for people, such as `48.2 fps, 2.1 Mbit/s, speed 2.0x, eta 12s`.
        note: String,
    },
    /// State that the next attempt gets back. Not durable before its [`Receipt`].
    Checkpoint {
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
        /// At most [`crate::frame::TEXT_BYTES_MAX`] bytes.
        data: Vec<u8>,
    },
    /// The launcher of an attempt's program exists.
    Started {
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
        /// Process id of the launcher, as the supervisor's pid namespace sees it.
        launcher_pid: u32,
    },
    /// An attempt ended; its whole process tree is dead. Kept by the worker until its receipt.
    Finished {
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
        /// How it ended.
        outcome: Outcome,
        /// What it used.
        usage: Usage,
    },
    /// A line for the supervisor's log.
    Log {
        /// How much it matters.
        level: LogLevel,
        /// The job that it is about, if any.
        job: Option<JobId>,
        /// The line.
        text: String,
    },
    /// What confines the programs of an attempt: what held around each of them, as
    /// [`crate::confine::InForce`] tells it. Said again when one had less.
    Confined {
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
        /// For the record; a reader takes at most [`crate::confine::TEXT_BYTES_MAX`] bytes of it.
        confinement: String,
    },
    /// How the worker as a whole is doing, for people; each value takes the place of the one
    /// before. May be lost.
    Gauges(Vec<Gauge>),
}

/// One number about a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gauge {
    /// What it is, with its unit, such as `poll_lag_ms`; a reader takes at most
    /// [`GAUGE_NAME_BYTES_MAX`] bytes of lower-case letters, digits and `_`.
    pub name: String,
    /// The number; a reader takes finite ones.
    pub value: f64,
}

/// Gauges of one worker that a reader keeps.
pub const GAUGES_MAX: usize = 16;

/// Longest name of a gauge, bytes.
pub const GAUGE_NAME_BYTES_MAX: usize = 40;

/// What a worker can do, said when it may get jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The confinement that is really in force, for people: `none` when there is none.
    pub confinement: String,
    /// What the workload found at set-up, for example the codecs that passed a trial.
    pub abilities: Vec<String>,
}

/// Weight of a [`WorkerMessage::Log`] line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogLevel {
    /// For somebody who looks for a fault.
    Debug,
    /// For the record.
    Info,
    /// Somebody should look.
    Warn,
}

/// What the supervisor says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SupervisorMessage {
    /// Answer to Hello.
    Welcome(Welcome),
    /// Run these, each in its own attempt.
    Assign {
        /// At least one.
        jobs: Vec<Assignment>,
    },
    /// Stop this attempt, say Finished when its tree is dead.
    Cancel {
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
        /// Why; decides the outcome that the worker reports.
        reason: StopReason,
    },
    /// Finish what you hold, take nothing new, then exit 0.
    Drain,
    /// These outcomes and checkpoints are settled; the worker may forget them.
    Recorded {
        /// At least one.
        receipts: Vec<Receipt>,
    },
}

/// One attempt to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The job.
    pub job: JobId,
    /// Its attempt.
    pub attempt: Attempt,
    /// JSON text of the row, unchecked.
    pub payload: String,
    /// What an earlier attempt stored.
    pub checkpoint: Option<Vec<u8>>,
    /// How long it may run, milliseconds; 0: without limit.
    pub timeout_ms: u64,
}

/// Why an attempt is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StopReason {
    /// Somebody cancelled the job: report `Cancelled`.
    Cancelled,
    /// It ran too long: report a failure with cause `Timeout`.
    Timeout,
    /// It made no progress: report a failure with cause `Stalled`.
    Stalled,
    /// The supervisor needs it back: report `Released`.
    Released,
}

/// The fate of a [`WorkerMessage::Finished`] or [`WorkerMessage::Checkpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The job.
    pub job: JobId,
    /// Its attempt.
    pub attempt: Attempt,
    /// Which of the two.
    pub of: ReceiptOf,
    /// True when the attempt was no longer the job's: nothing was stored, and never will be.
    pub stale: bool,
}

/// What a [`Receipt`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceiptOf {
    /// The outcome.
    Outcome,
    /// A checkpoint.
    Checkpoint,
}
