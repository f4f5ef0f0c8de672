//! The launcher process itself: single-threaded, on the host's side of the cage. It holds its
//! end of the lifeline, kills the keeper and so the cage when that ends, and ends last.

use super::cage::{self, Held};
use super::keeper::Said;
use super::{Order, Report, Request, Step, descriptor, group, keeper, tree};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeValLike;
use nix::unistd::ForkResult;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{
    self, DumpableBehavior, Pid, WaitStatus, getpid, kill_process, set_child_subreaper,
    set_dumpable_behavior,
};
use shiftboss_protocol::confine::Wall;
use shiftboss_protocol::frame;
use std::fs;
use std::io::{self, IoSliceMut, PipeReader, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Instant;

/// Programs yield to the supervisor and its workers.
pub(super) const NICE: i32 = 10;

/// `main` of a launcher.
pub(crate) fn serve() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            let _ = writeln!(io::stderr(), "shiftboss-launcher: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    // First, while nothing here owns a descriptor.
    descriptor::close_inherited()?;
    let mut lifeline = take_lifeline()?;
    // Fails only for a session leader, which is what this is to become.
    if process::setsid().is_ok() {
        // Where the kernel schedules sessions as groups (autogroup), nice counts only within one,
        // so the session itself must yield. Where it refuses, there is nice alone.
        let _ = fs::write("/proc/self/autogroup", NICE.to_string());
    }
    set_child_subreaper(Some(getpid()))?;
    let (order, streams) = receive_order(&mut lifeline)?;
    // Blocked before the keeper exists, so that its death cannot be missed.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let mut held = Held::new(order.cage.lacks.clone());
    // Before the process becomes undumpable: /proc/self then belongs to root, and the maps of
    // a user namespace are written there.
    cage::enter_before_fork(&mut held);
    // A program of the same user could read and trace its launcher and keeper otherwise.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let (said, saying) = io::pipe()?;
    let at = Instant::now();
    let forked = match group::fork_into(&order.group) {
        Ok(forked) => forked,
        Err(error) => {
            let (step, errno) = (Step::Group, error.raw_os_error().unwrap_or(0));
            let reason = error.to_string();
            let _ = frame::write(&mut lifeline, &Report::NotStarted { step, errno, reason });
            return Ok(());
        }
    };
    match forked {
        ForkResult::Child => {
            // Its end would be seen by nobody while the keeper held it too.
            drop((lifeline, said));
            keeper::keep(order, streams, held, saying)
        }
        ForkResult::Parent { child } => {
            // What the program's streams say must end with the program.
            drop((order, streams, saying));
            let pid = Pid::from_raw(child.as_raw()).expect("a child has a number above 0");
            let keeper = Keeper { pid, at, has_own_pids: held.has(Wall::PidNs), said };
            let deaths =
                SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
            let report = watch(&mut lifeline, &deaths, keeper);
            // A worker that is gone reads no report; its tree is dead all the same.
            let _ = lifeline.set_nonblocking(false);
            let _ = frame::write(&mut lifeline, &report);
            Ok(())
        }
    }
}

/// The launcher's child.
struct Keeper {
    pid: Pid,
    at: Instant,
    /// It is pid 1 of its namespace.
    has_own_pids: bool,
    /// Its report comes here.
    said: PipeReader,
}

/// The lifeline comes as standard input, the one place where any parent can put it.
fn take_lifeline() -> io::Result<UnixStream> {
    let lifeline = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
    Ok(UnixStream::from(lifeline))
}

fn receive_order(lifeline: &mut UnixStream) -> io::Result<(Order, [OwnedFd; 3])> {
    let mut chunk = vec![0; 64 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut chunk)];
    let received = recvmsg(&*lifeline, &mut slices, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let mut streams = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            streams.extend(descriptors);
        }
    }
    let streams = streams.try_into().map_err(|_| io::Error::other("three streams are needed"))?;
    let mut bytes = chunk[..received.bytes].to_vec();
    loop {
        if let Some(order) = frame::take(&mut bytes).map_err(io::Error::other)? {
            return Ok((order, streams));
        }
        match lifeline.read(&mut chunk)? {
            0 => return Err(io::Error::other("the worker ended before its order was complete")),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}

/// Waits for the end of the keeper, or for being told to end it; then ends everything.
fn watch(lifeline: &mut UnixStream, deaths: &SignalFd, mut keeper: Keeper) -> Report {
    let _ = lifeline.set_nonblocking(true);
    loop {
        let mut has_ended = false;
        tree::reap(&mut |pid, _: WaitStatus| has_ended |= pid == keeper.pid);
        if has_ended || wait_for_kill(lifeline, deaths, &keeper) {
            break;
        }
    }
    // In a pid namespace all is dead when its pid 1 was reaped.
    tree::kill_all(deaths, |_, _| {});
    let mut said = Vec::new();
    // All that could write into this pipe is dead: this ends.
    let _ = keeper.said.read_to_end(&mut said);
    // Where it says nothing it was killed, by this process or another, and its program with it.
    let wall_ms = u64::try_from(keeper.at.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (mut exit_code, mut signal, mut wall_ms) = (None, Some(libc::SIGKILL), wall_ms);
    let mut confinement = String::new();
    while let Ok(Some(word)) = frame::take(&mut said) {
        match word {
            Said::Holds(holds) => confinement = holds,
            Said::Report(report @ Report::NotStarted { .. }) => return report,
            Said::Report(Report::Ended { exit_code: code, signal: by, wall_ms: wall, .. }) => {
                (exit_code, signal, wall_ms) = (code, by, wall);
            }
        }
    }
    let (cpu_ms, memory_peak_bytes) = usage();
    Report::Ended { exit_code, signal, wall_ms, cpu_ms, memory_peak_bytes, confinement }
}

/// Sleeps until a child dies or the worker asks something. True: everything must end now.
fn wait_for_kill(lifeline: &mut UnixStream, deaths: &SignalFd, keeper: &Keeper) -> bool {
    let mut waiting = [PollFd::new(&*lifeline, PollFlags::IN), PollFd::new(deaths, PollFlags::IN)];
    // An interrupted wait looks at both all the same.
    let _ = poll(&mut waiting, None);
    while let Ok(Some(signal)) = deaths.read_signal() {
        if i32::try_from(signal.ssi_signo) == Ok(libc::SIGTERM) {
            return true;
        }
    }
    let mut requests = [0; 16];
    match lifeline.read(&mut requests) {
        Ok(0) => true,
        Ok(count) => requests[..count].iter().any(|byte| match Request::from_byte(*byte) {
            Request::Kill => true,
            Request::Terminate => {
                terminate(keeper);
                false
            }
        }),
        Err(error) => {
            !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        }
    }
}

/// SIGTERM to every process of the tree. Pid 1 of a namespace reaches all of it at once.
fn terminate(keeper: &Keeper) {
    if keeper.has_own_pids {
        // It is our child and was not waited for, so the number is still its own.
        let _ = kill_process(keeper.pid, process::Signal::TERM);
    } else {
        tree::signal_all(process::Signal::TERM);
    }
}

/// CPU time (milliseconds) and largest resident set (bytes) of everything that was reaped.
fn usage() -> (u64, u64) {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return (0, 0) };
    let cpu = (usage.user_time() + usage.system_time()).num_milliseconds();
    let peak_kib = u64::try_from(usage.max_rss()).unwrap_or(0);
    (u64::try_from(cpu).unwrap_or(0), peak_kib.saturating_mul(1024))
}
