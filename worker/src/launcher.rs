//! The launcher: a small process around each program, so that its tree dies with its attempt.
//!
//! It is the worker's own image executed again: the launcher proper (`inside.rs`) on the host's
//! side, and its child, the keeper (`keeper.rs`), as pid 1 of the program's cage (`cage/`).
//! When the worker or the launcher is gone the keeper dies, and with it all in its pid namespace;
//! where there is none, the launcher kills and reaps. This folder alone calls the kernel unsafely.

mod broker;
mod cage;
mod descriptor;
mod group;
mod inside;
mod keeper;
mod outside;
mod tree;

pub(crate) use cage::{
    Access, CageOrder, Held, Shown, confine_self, ease, is_system, open_without_links,
};

pub(crate) use broker::{Asked, Broker, Errand, check_owner, leave, serve as serve_as_broker};
pub(crate) use descriptor::{Bell, take_inherited};
pub(crate) use inside::serve;
pub(crate) use outside::{Launched, encode, image, remember_image};

use serde::{Deserialize, Serialize};

/// What a launcher is told to run, in raw bytes: names need not be UTF-8. The program's
/// standard streams travel beside it as descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Program and arguments, at least one.
    pub(crate) argv: Vec<Vec<u8>>,
    /// The whole environment.
    pub(crate) env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Working directory.
    pub(crate) cwd: Vec<u8>,
    /// Control group that it puts itself into before anything else; empty: none.
    pub(crate) group: Vec<u8>,
    /// CPU time that one of its processes may use, seconds; 0: without limit.
    pub(crate) cpu_seconds_max: u64,
    /// Open files that each of its processes may have; 0: the launcher's default.
    pub(crate) files_max: u32,
    /// Largest file that it may write, bytes; 0: without limit.
    pub(crate) file_bytes_max: u64,
    /// What it sees and reaches.
    pub(crate) cage: CageOrder,
}

/// What a launcher says once, when every process that it started is dead.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The program never ran.
    NotStarted {
        /// What failed.
        step: Step,
        /// The kernel's reason; 0 when there is none.
        errno: i32,
        /// The reason in words.
        reason: String,
    },
    /// The program ran.
    Ended {
        /// Its exit code, if it ended by itself.
        exit_code: Option<i32>,
        /// The signal that ended it, else.
        signal: Option<i32>,
        /// From its start to its end, milliseconds.
        wall_ms: u64,
        /// CPU time of the whole tree, milliseconds.
        cpu_ms: u64,
        /// Largest resident set of one process of the tree, bytes.
        memory_peak_bytes: u64,
        /// What of the cage held, an `InForce` as text; empty when the keeper was killed
        /// before it could tell.
        confinement: String,
    },
}

/// A step of starting a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Joining its control group.
    Group,
    /// Putting on the cage.
    Confinement,
    /// Showing what the order names, by its place in `CageOrder::shown`.
    Shown(u32),
    /// Showing a device, by its place in `CageOrder::devices`.
    Device(u32),
    /// Going to its working directory.
    WorkingDirectory,
    /// Executing it.
    Program,
}

/// What a worker asks of a running launcher; one byte on the lifeline. Its end means `Kill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// SIGTERM to every process of the tree.
    Terminate,
    /// SIGKILL to every process of the tree, until none is left.
    Kill,
}

impl Request {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Terminate => b'T',
            Self::Kill => b'K',
        }
    }

    /// Any other byte is a fault of the worker, on which the safe answer is to kill.
    const fn from_byte(byte: u8) -> Self {
        if byte == b'T' { Self::Terminate } else { Self::Kill }
    }
}
