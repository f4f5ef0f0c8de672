//! What the hostile program is told: where the baits are, and what it is to do. It lies in the
//! job's own input, the one thing that reaches a program in every kind of job.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What one hostile job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    /// Every attempt of the table, one after another.
    Attempts,
    /// Writes far more than a log may hold.
    Flood,
    /// Ends well, and leaves behind a process that has cut every tie.
    Outlive,
    /// Ignores every signal, with children that do the same, and never ends.
    Stubborn,
    /// Replaces its output with a link to a secret (`encode` only).
    FalseOutput,
    /// Starts processes without end, under a bound of its own.
    ForkBomb,
    /// Takes memory without end, under a bound of its own.
    MemoryBomb,
    /// The same through files in memory.
    TmpfsBomb,
    /// Reads and writes files until the page cache is larger than the limit: must live.
    CacheBomb,
}

/// A process that the hostile program has no business with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Victim {
    /// As the host sees it.
    pub(super) pid: i32,
    /// When it started, clock ticks since boot: tells it from one of the same number inside.
    pub(super) started: u64,
}

/// Everything that the hostile program knows. No bait's content is in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// A random word in the name of everything that the program makes.
    pub(super) token: String,
    /// What to do.
    pub(super) phase: Phase,
    /// This plan's own file: the job's input.
    pub(super) own_input: PathBuf,
    /// Input of another job, readable for everybody as far as its mode goes.
    pub(super) other_input: PathBuf,
    /// A folder that belongs to no job.
    pub(super) outside: PathBuf,
    /// Scratch folder of the sibling job.
    pub(super) sibling_scratch: PathBuf,
    /// A copy of `id` with the setuid bit, in the input folder.
    pub(super) setuid_copy: PathBuf,
    /// The job's output folder.
    pub(super) output: PathBuf,
    /// The job table.
    pub(super) database: PathBuf,
    /// The configuration file, if there is one.
    pub(super) config: Option<PathBuf>,
    /// Scratch, outcomes, logs.
    pub(super) work_dir: PathBuf,
    /// Sockets, locks, records.
    pub(super) runtime_dir: PathBuf,
    /// A socket of another service, open for everybody.
    pub(super) foreign_socket: PathBuf,
    /// Name of an abstract socket on the host.
    pub(super) abstract_name: String,
    /// TCP on 127.0.0.1, for plain connections.
    pub(super) tcp_port: u16,
    /// The same, for multipath TCP.
    pub(super) multipath_port: u16,
    /// The same, for data in the first packet.
    pub(super) fast_open_port: u16,
    /// UDP on 127.0.0.1.
    pub(super) udp_port: u16,
    /// TCP on ::1.
    pub(super) tcp6_port: Option<u16>,
    /// Key of a piece of System V memory on the host.
    pub(super) memory_key: i32,
    /// Where the host mounts the second cgroup hierarchy.
    pub(super) cgroup_root: Option<PathBuf>,
    /// When the host's pid 1 started, if that can be seen: it is left alone.
    pub(super) host_init_started: Option<u64>,
    /// The supervisor.
    pub(super) supervisor: Victim,
    /// A worker.
    pub(super) worker: Victim,
    /// The program of a job that has nothing to do with this one.
    pub(super) sibling: Victim,
    /// Open files that a process may have.
    pub(super) files_max: u64,
    /// Largest file that it may write, bytes; 0: no limit.
    pub(super) file_bytes_max: u64,
    /// Bytes to write when it floods.
    pub(super) flood_bytes: u64,
}
