//! The broker process itself: single-threaded, and bound to its worker. It ends when the worker's
//! end of the socket does, or with the worker, and everything that it started ends before it.

use super::errand::{self, Ran};
use super::ration::Ration;
use super::{Ask, Errand, Orders, Reply};
use crate::launcher::{cage, descriptor, tree};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    self, DumpableBehavior, Resource, Rlimit, getpid, set_child_subreaper, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use shiftboss_protocol::frame;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Instant;

/// Bytes of a worker's word that is not complete yet; an [`Ask`] and its length have 8.
const PENDING_BYTES_MAX: usize = 64;

/// `main` of a broker.
pub(crate) fn serve() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            let _ = writeln!(io::stderr(), "shiftboss-broker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    // First, while nothing here owns a descriptor.
    descriptor::close_inherited()?;
    let mut worker = take_worker()?;
    let Some(Orders(errands)) = frame::read(&mut worker).map_err(io::Error::other)? else {
        return Ok(());
    };
    let _ = process::setsid();
    // What a command leaves behind becomes a child of this process, which kills it.
    set_child_subreaper(Some(getpid()))?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    // A dump would hold tokens.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    cage::strip()?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // The socket's end says the same unless somebody else holds a copy. SIGTERM and not SIGKILL:
    // there may be something to kill first. After the last change of credentials, which could
    // clear it.
    set_parent_process_death_signal(Some(process::Signal::TERM))?;
    std::env::set_current_dir("/")?;
    let news = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    worker.set_nonblocking(true)?;
    let result = attend(&mut worker, &news, &errands);
    tree::kill_all(&news, |_, _| {});
    result
}

/// The socket comes as standard input, the one place where any parent can put it.
fn take_worker() -> io::Result<UnixStream> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
    Ok(UnixStream::from(socket))
}

/// Answers until the worker is gone. Anything but a number that is known ends it.
fn attend(worker: &mut UnixStream, news: &SignalFd, errands: &[Errand]) -> io::Result<()> {
    let mut ration = Ration::new(Instant::now());
    let mut pending = Vec::new();
    loop {
        let Some(Ask(number)) = hear(worker, news, &mut pending)? else { return Ok(()) };
        let at = usize::try_from(number).map_err(io::Error::other)?;
        let errand = errands.get(at).ok_or_else(|| {
            io::Error::other(format!("the worker asks for command {number}: there is none"))
        })?;
        let reply = if ration.take(Instant::now()) {
            match errand::run(errand, worker, news)? {
                Ran::Ended(reply) => reply,
                Ran::Alone => return Ok(()),
            }
        } else {
            let why = "was asked for too often".to_owned();
            Reply::Refused { why, complaint: Vec::new() }
        };
        if !say(worker, news, &reply)? {
            return Ok(());
        }
    }
}

/// The next word of the worker; `None` when it is gone.
fn hear(
    worker: &mut UnixStream,
    news: &SignalFd,
    pending: &mut Vec<u8>,
) -> io::Result<Option<Ask>> {
    let mut chunk = [0; PENDING_BYTES_MAX];
    loop {
        if let Some(ask) = frame::take(pending).map_err(io::Error::other)? {
            return Ok(Some(ask));
        }
        if pending.len() >= PENDING_BYTES_MAX {
            return Err(io::Error::other("the worker says what is no number of a command"));
        }
        if wait(worker, news, PollFlags::IN) {
            return Ok(None);
        }
        match worker.read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(count) => pending.extend_from_slice(&chunk[..count]),
            Err(error) if is_for_later(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes an answer. False: the worker is gone.
fn say(worker: &mut UnixStream, news: &SignalFd, reply: &Reply) -> io::Result<bool> {
    let bytes = frame::encode(reply).map_err(io::Error::other)?;
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        match io::Write::write(worker, rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if is_for_later(&error) => {
                if wait(worker, news, PollFlags::OUT) {
                    return Ok(false);
                }
            }
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Sleeps until the socket is ready or a signal comes. True: this process is to end.
fn wait(worker: &UnixStream, news: &SignalFd, ready: PollFlags) -> bool {
    let mut waiting = [PollFd::new(worker, ready), PollFd::new(news, PollFlags::IN)];
    // An interrupted wait looks at both all the same.
    let _ = poll(&mut waiting, None);
    has_term(news)
}

/// Empties the signals; true when SIGTERM is among them.
pub(super) fn has_term(news: &SignalFd) -> bool {
    let mut has_term = false;
    while let Ok(Some(signal)) = news.read_signal() {
        has_term |= i32::try_from(signal.ssi_signo) == Ok(libc::SIGTERM);
    }
    has_term
}
