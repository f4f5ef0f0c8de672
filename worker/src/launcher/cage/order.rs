//! What a launcher is told about the cage, in plain data.

use serde::{Deserialize, Serialize};
use shiftboss_protocol::confine::Network;

/// The cage that a program gets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CageOrder {
    /// What it sees besides the system's public files.
    pub(crate) shown: Vec<Shown>,
    /// Which network it reaches.
    pub(crate) network: Network,
    /// Device nodes that it may use, absolute paths.
    pub(crate) devices: Vec<Vec<u8>>,
    /// How many processes and threads it may have at once; 0: the launcher's default.
    pub(crate) processes_max: u32,
    /// True: what this host cannot put on is a reason not to start the program.
    pub(crate) is_required: bool,
    /// Walls that a test wants to be missing; none in a release build.
    pub(crate) lacks: Vec<String>,
}

/// A file or folder that a program sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// Where the program sees it, an absolute path.
    pub(crate) path: Vec<u8>,
    /// What it is: a path without links, at which the worker found the next two.
    pub(crate) real: Vec<u8>,
    /// `st_dev` of what the worker has checked.
    pub(crate) device: u64,
    /// Its `st_ino`.
    pub(crate) inode: u64,
    /// What the program may do with it.
    pub(crate) access: Access,
}

/// What a program may do with what it sees. The later one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Access {
    /// Read, and connect to the sockets in it.
    Connect,
    /// Read and execute.
    Read,
    /// Also write, make and remove.
    Write,
}
