//! Runs one program for an attempt: in a cage that shows only what it names, under a launcher
//! that outlives nothing, with its output in bounded log files, stopped by a ladder when the
//! attempt must stop, its usage counted.

pub(crate) mod group;
mod output;
mod place;
mod refusal;
mod session;
mod setting;

use crate::attempt::AttemptContext;
use crate::launcher;
use crate::seal;
pub use place::Place;
use session::Session;
pub(crate) use setting::PATH;
pub(crate) use setting::lacks as cage_lacks;
use shiftboss_protocol::job::{Cause, Failure};
use shiftboss_protocol::message::StopReason;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A program to run.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Program and arguments; a name without slash is looked up in `path`.
    pub argv: Vec<OsString>,
    /// Its whole environment, besides PATH, HOME, TMPDIR, LANG and the `SHIFTBOSS_` names.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory; `None`: the attempt's scratch folder. It is shown to be read unless
    /// it lies in what is shown anyway.
    pub cwd: Option<PathBuf>,
    /// Files and folders that it may read and execute, besides the system's public ones.
    pub read: Vec<Place>,
    /// Files and folders that it may write too, besides the attempt's scratch folder. They must
    /// exist.
    pub write: Vec<Place>,
    /// What it reads on standard input; `None`: nothing (/dev/null).
    pub stdin: Option<Vec<u8>>,
    /// Written to its standard input as the first step of stopping it (`q` for ffmpeg): keeps
    /// standard input open until then. Excludes `stdin`.
    pub stop_word: Option<Vec<u8>>,
    /// How long the stop word may take before SIGTERM.
    pub stop_word_grace: Duration,
    /// Name of the log files, `<attempt>.<log_name>.out` and `.err`; `None`: not logged.
    pub log_name: Option<String>,
    /// Says of which lines of its standard output the log has nothing: numbers that [`Lines`]
    /// reads and no person wants to. `None`: all are logged.
    pub unlogged: Option<fn(&[u8]) -> bool>,
    /// Stops the program when it has run this long, apart from the attempt's own timeout.
    pub timeout: Option<Duration>,
}

/// What a program's output is shown to while it runs, line by line (without the line end).
pub trait Lines: Send {
    /// A line of standard output.
    fn on_stdout(&mut self, line: &[u8]);
    /// A line of standard error.
    fn on_stderr(&mut self, line: &[u8]);
}

/// How a program ended. The whole process tree is dead.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit code, if it ended by itself.
    pub exit_code: Option<i32>,
    /// Signal, if one ended it.
    pub signal: Option<i32>,
    /// Set when we stopped it because the attempt must stop.
    pub stopped: Option<StopReason>,
    /// Set when [`Program::timeout`] stopped it.
    pub timed_out: bool,
    /// From start to exit of the program itself.
    pub wall: Duration,
    /// CPU time of everything that it started, itself included.
    pub cpu: Duration,
    /// The last lines of standard error, at most 40 lines and 8 KiB, lossy UTF-8.
    pub stderr_tail: String,
    /// The same of standard output.
    pub stdout_tail: String,
    /// Which parts of its cage held, see README, "What a job can reach".
    pub confinement: String,
}

/// Runs `program` to its end. CPU time and peak memory are added to the attempt's usage.
///
/// The program sees the system's public files (/usr and its like, a handful of /etc), what
/// [`Program::read`] and [`Program::write`] name, the attempt's scratch folder, a /tmp of its
/// own, and no other process. It reaches the network that its type was given.
///
/// Everything that the program started ends with it: also what put itself into the background,
/// a session of its own included, is killed when the program itself has ended. A log file that
/// cannot be written (a full disk) is noted in the supervisor's log and does not fail the job.
///
/// # Errors
/// A [`Failure`] with cause `FailedStart` (permanent when the program does not exist or is not
/// executable), or when its scratch folder cannot be made.
pub fn run_program(
    context: &AttemptContext,
    program: &Program,
    lines: &mut dyn Lines,
) -> Result<Ended, Failure> {
    if seal::is_on() {
        let message = "this worker is sealed and starts no program: its workload must say that it \
                       does, by Workload::starts_programs";
        return Err(Failure::permanent(Cause::FailedStart, message));
    }
    let group = context.state.group()?;
    let setting = setting::setting(context, program, group.as_deref())?;
    Session::start(context, program, setting, group)?.run(lines)
}

/// Names the worker program that launchers are made of, where the running program is none: in
/// tests of workloads that start programs. A worker needs no call; its own image serves.
///
/// # Errors
/// The file cannot be opened.
pub fn use_launcher(worker: &Path) -> io::Result<()> {
    launcher::image(worker).map(|_| ())
}
