//! The broker: a small process beside a sealed worker that runs the few commands which print
//! tokens. The worker starts it before it seals itself, and can then say one thing only: the
//! number of a command. What the commands are was said once, by the operator's files.
//!
//! It is the worker's own image executed again (`broker/process.rs`): it shares neither memory nor
//! secrets nor descriptors with the worker, whose end is `broker/link.rs`.

mod errand;
mod link;
mod process;
mod ration;

pub(crate) use errand::check_owner;
pub(crate) use link::{Asked, Broker, leave};
pub(crate) use process::serve;

use serde::{Deserialize, Serialize};

/// What a broker is told once, by a worker that is not sealed yet: the commands, by number.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Orders(pub(crate) Vec<Errand>);

/// A command that prints a token. Its environment may hold secrets, so it shows none of it.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Errand {
    /// The program, an absolute path, and its arguments.
    pub(crate) argv: Vec<String>,
    /// Its whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// How long it may take, milliseconds.
    pub(crate) timeout_ms: u64,
    /// The most that it may print, bytes.
    pub(crate) output_bytes_max: usize,
}

impl std::fmt::Debug for Errand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Errand").field("program", &self.argv.first()).finish_non_exhaustive()
    }
}

/// What a worker asks: to run the command of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ask(u32);

/// What it is answered.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
enum Reply {
    /// The command has ended with code 0 and printed this.
    Printed(Vec<u8>),
    /// It did not, for this reason; and what it wrote last on standard error.
    Refused { why: String, complaint: Vec<u8> },
}
