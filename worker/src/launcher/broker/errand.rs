//! One run of a command: with a clean environment and none of our descriptors, bounded in time and
//! output. When it is over nothing of it is left, whatever it has forked off.

use super::process::has_term;
use super::{Errand, Reply};
use crate::launcher::{descriptor, tree};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    self, Pid, WaitStatus, geteuid, getpid, getppid, set_parent_process_death_signal,
};
use shiftboss_provider::token::custody::{Facts, judge};
use std::fs;
use std::io::{self, PipeReader, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The kernel, short of memory, takes the command before the worker.
const OOM_SCORE_ADJ: &str = "500";

/// End of standard error that is looked at, bytes.
const COMPLAINT_BYTES_MAX: usize = 4 << 10;

/// Reads of a pipe before others have their turn: whoever writes all the time is bounded too.
const READS_MAX: usize = 32;

/// What came of a run.
pub(super) enum Ran {
    /// It has ended, and this is the answer.
    Ended(Reply),
    /// The worker has ended meanwhile.
    Alone,
}

/// Runs a command and waits for its end, that of the worker, and its time.
///
/// # Errors
/// The kernel refuses a pipe.
pub(super) fn run(errand: &Errand, worker: &UnixStream, news: &SignalFd) -> io::Result<Ran> {
    let refused = |why: String| Ran::Ended(Reply::Refused { why, complaint: Vec::new() });
    if let Err(why) = check_owner(Path::new(&errand.argv[0])) {
        return Ok(refused(format!("is not run: {why}")));
    }
    let (stdout, their_stdout) = io::pipe()?;
    let (stderr, their_stderr) = io::pipe()?;
    let mut command = Command::new(&errand.argv[0]);
    command.args(&errand.argv[1..]).env_clear().envs(errand.env.iter().map(|(k, v)| (k, v)));
    command.stdin(Stdio::null()).stdout(their_stdout).stderr(their_stderr).process_group(0);
    let broker = getpid();
    // SAFETY: this process has one thread, so its child is whole: no lock is held in it.
    #[expect(unsafe_code, reason = "the command's own attributes are set between fork and exec")]
    unsafe {
        command.pre_exec(move || prepare(broker));
    }
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(refused(format!("cannot be started: {error}"))),
    };
    // Its own ends of the pipes: what the command says ends with it.
    drop(command);
    let main = Pid::from_child(&child);
    let _ = fs::write(format!("/proc/{}/oom_score_adj", child.id()), OOM_SCORE_ADJ);
    let mut pipes = Pipes::new(stdout, stderr, errand.output_bytes_max)?;
    let watched = watch(errand, (main, worker, news), &mut pipes);
    // Also after its regular end: it may have left others behind, and they hold the pipes.
    tree::kill_all(news, |_, _| {});
    let status = match watched {
        Watched::Alone => return Ok(Ran::Alone),
        Watched::Over(why) => {
            return Ok(Ran::Ended(Reply::Refused { why, complaint: pipes.complaint() }));
        }
        Watched::Ended(status) => status,
    };
    pipes.drain();
    let why = match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) if pipes.is_too_much() => pipes.too_much(),
        (Some(0), _) => return Ok(Ran::Ended(Reply::Printed(pipes.printed))),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in a way that the kernel does not tell".to_owned(),
    };
    Ok(Ran::Ended(Reply::Refused { why, complaint: pipes.complaint() }))
}

/// Runs in the command's process before it is executed.
fn prepare(broker: Pid) -> io::Result<()> {
    // A broker that is killed itself takes its command along.
    set_parent_process_death_signal(Some(process::Signal::KILL))?;
    if getppid() != Some(broker) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    SigSet::all().thread_unblock()?;
    // The standard library closes what it opens; this is for what nobody thought of.
    descriptor::close_on_exec()
}

enum Watched {
    /// The command itself has ended; what it has forked off may live.
    Ended(WaitStatus),
    /// It has had its time, or has printed too much.
    Over(String),
    /// The worker is gone.
    Alone,
}

fn watch(
    errand: &Errand,
    (main, worker, news): (Pid, &UnixStream, &SignalFd),
    pipes: &mut Pipes,
) -> Watched {
    let time = Duration::from_millis(errand.timeout_ms);
    let deadline = Instant::now() + time;
    loop {
        // Emptied before children are looked at, so that a death after it ends the wait.
        if has_term(news) {
            return Watched::Alone;
        }
        let mut ended = None;
        tree::reap(&mut |pid, status| {
            if pid == main {
                ended = Some(status);
            }
        });
        pipes.drain();
        if let Some(status) = ended {
            return Watched::Ended(status);
        }
        if pipes.is_too_much() {
            return Watched::Over(pipes.too_much());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Watched::Over(format!("had not ended after {:.0} s", time.as_secs_f64()));
        }
        let left =
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        // Not for its words: the next number waits until this run is over.
        let mut waiting =
            vec![PollFd::new(worker, PollFlags::RDHUP), PollFd::new(news, PollFlags::IN)];
        waiting.extend(pipes.open().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        // An interrupted wait looks at all of them all the same.
        let _ = poll(&mut waiting, Some(&left));
        if waiting[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
            return Watched::Alone;
        }
    }
}

/// What a command writes.
struct Pipes {
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
    printed: Vec<u8>,
    printed_max: usize,
    complained: Vec<u8>,
}

impl Pipes {
    fn new(stdout: PipeReader, stderr: PipeReader, printed_max: usize) -> io::Result<Self> {
        for pipe in [&stdout, &stderr] {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let (stdout, stderr) = (Some(stdout), Some(stderr));
        Ok(Self { stdout, stderr, printed: Vec::new(), printed_max, complained: Vec::new() })
    }

    fn open(&self) -> impl Iterator<Item = &PipeReader> {
        self.stdout.iter().chain(&self.stderr)
    }

    /// Reads what is there, up to a bound.
    fn drain(&mut self) {
        let most = self.printed_max;
        read_some(&mut self.stdout, &mut self.printed, |printed| printed.len() <= most);
        read_some(&mut self.stderr, &mut self.complained, |complained| {
            let excess = complained.len().saturating_sub(COMPLAINT_BYTES_MAX);
            complained.drain(..excess);
            true
        });
    }

    fn is_too_much(&self) -> bool {
        self.printed.len() > self.printed_max
    }

    fn too_much(&self) -> String {
        format!("printed more than {} bytes", self.printed_max)
    }

    fn complaint(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.complained)
    }
}

/// Reads while `goes_on` with what is there; closes a pipe that has ended.
fn read_some(
    pipe: &mut Option<PipeReader>,
    into: &mut Vec<u8>,
    goes_on: impl Fn(&mut Vec<u8>) -> bool,
) {
    let mut chunk = [0; 8 << 10];
    for _ in 0..READS_MAX {
        let Some(open) = pipe else { return };
        match open.read(&mut chunk) {
            Ok(0) => *pipe = None,
            Ok(count) => {
                into.extend_from_slice(&chunk[..count]);
                if !goes_on(into) {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => *pipe = None,
        }
    }
}

/// Checks that nobody but root and this user can change what lies at `path`, or put something else
/// in its place: what it says is done with this user's rights.
///
/// # Errors
/// A sentence that names what is wrong, and where.
pub(crate) fn check_owner(path: &Path) -> Result<(), String> {
    let told = |error: io::Error| format!("{}: {error}", path.display());
    let real = path.canonicalize().map_err(told)?;
    if !real.metadata().map_err(told)?.is_file() {
        return Err(format!("{} is no regular file", path.display()));
    }
    let ways = path.ancestors().skip(1).chain(real.ancestors());
    for place in ways.filter(|place| !place.as_os_str().is_empty()) {
        let facts = place.metadata().map_err(told)?;
        let is_folder = facts.is_dir();
        let facts = Facts { owner: facts.uid(), mode: facts.mode(), is_folder };
        judge(&place.display().to_string(), facts, geteuid().as_raw())?;
    }
    Ok(())
}
