//! The launcher process itself: single-threaded, holds nothing but its end of the lifeline.

use super::{Order, Report, Request, Step, descriptor, group, tree};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeValLike;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{
    self, DumpableBehavior, Pid, Resource, Rlimit, WaitStatus, getpid, getppid,
    set_child_subreaper, set_dumpable_behavior, set_parent_process_death_signal,
    setpriority_process, setrlimit,
};
use shiftboss_protocol::frame;
use std::ffi::OsString;
use std::fs;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// Programs yield to the supervisor and its workers.
const NICE: i32 = 10;

/// The kernel, short of memory, takes a program before the worker, which lives to tell.
const OOM_SCORE_ADJ: &str = "500";

/// Open files that a program gets without asking, and the most that it can ask for.
const FILES: (u64, u64) = (1024, 65_536);

/// From SIGXCPU to SIGKILL for a program that has used up its CPU time, seconds of that.
const CPU_GRACE_SECONDS: u64 = 5;

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
    // Before the process becomes undumpable: /proc/self then belongs to root.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    // Fails only for a session leader, which is what this is to become.
    if process::setsid().is_ok() {
        // Where the kernel schedules sessions as groups (autogroup), nice counts only within one,
        // so the session itself must yield. Where it refuses, there is nice alone.
        let _ = fs::write("/proc/self/autogroup", NICE.to_string());
    }
    // A program of the same user could read and trace its launcher otherwise.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_child_subreaper(Some(getpid()))?;
    let (order, streams) = receive_order(&mut lifeline)?;
    if let Err(error) = group::join(&order.group) {
        let errno = error.raw_os_error().unwrap_or(0);
        let _ = frame::write(&mut lifeline, &Report::NotStarted { step: Step::Group, errno });
        return Ok(());
    }
    limit_resources(&order)?;
    // Blocked before the program exists, so that its death cannot be missed.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let deaths = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let report = match start(order, streams) {
        Err((step, error)) => Report::NotStarted { step, errno: error.raw_os_error().unwrap_or(0) },
        Ok(program) => watch(&mut lifeline, &deaths, program),
    };
    // A worker that is gone reads no report; its tree is dead all the same.
    let _ = lifeline.set_nonblocking(false);
    let _ = frame::write(&mut lifeline, &report);
    Ok(())
}

/// The lifeline comes as standard input, the one place where any parent can put it.
fn take_lifeline() -> io::Result<UnixStream> {
    let lifeline = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
    Ok(UnixStream::from(lifeline))
}

/// Limits of this process, which the program inherits: the launcher itself writes no file and
/// holds few descriptors.
fn limit_resources(order: &Order) -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let allowed = process::getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let (current, maximum) = match u64::from(order.files_max) {
        0 => (allowed.min(FILES.0), allowed.min(FILES.1)),
        // Not above what this process may have: the promise is an upper bound.
        files => (allowed.min(files), allowed.min(files)),
    };
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: Some(maximum) })?;
    if order.file_bytes_max > 0 {
        let allowed = process::getrlimit(Resource::Fsize).maximum.unwrap_or(u64::MAX);
        let limit = Some(allowed.min(order.file_bytes_max));
        setrlimit(Resource::Fsize, Rlimit { current: limit, maximum: limit })?;
    }
    if order.cpu_seconds_max > 0 {
        let allowed = process::getrlimit(Resource::Cpu).maximum.unwrap_or(u64::MAX);
        let limit = allowed.min(order.cpu_seconds_max);
        // SIGXCPU tells what it was; a program that ignores it is killed a little later.
        let maximum = allowed.min(limit.saturating_add(CPU_GRACE_SECONDS));
        setrlimit(Resource::Cpu, Rlimit { current: Some(limit), maximum: Some(maximum) })?;
    }
    Ok(())
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

struct Started {
    pid: Pid,
    at: Instant,
}

fn start(order: Order, streams: [OwnedFd; 3]) -> Result<Started, (Step, io::Error)> {
    let cwd = PathBuf::from(OsString::from_vec(order.cwd));
    // Asked apart, because execution reports a missing folder like a missing program.
    std::env::set_current_dir(&cwd).map_err(|error| (Step::WorkingDirectory, error))?;
    let mut argv = order.argv.into_iter().map(OsString::from_vec);
    let program = argv.next().unwrap_or_default();
    let mut command = Command::new(&program);
    command.args(argv).env_clear();
    for (name, value) in order.env {
        command.env(OsString::from_vec(name), OsString::from_vec(value));
    }
    let [stdin, stdout, stderr] = streams.map(Stdio::from);
    command.stdin(stdin).stdout(stdout).stderr(stderr).process_group(0);
    let launcher = getpid();
    // SAFETY: between fork and exec only system calls are made, nothing is allocated or locked.
    #[expect(unsafe_code, reason = "the program's own attributes are set between fork and exec")]
    unsafe {
        command.pre_exec(move || prepare(launcher));
    }
    let at = Instant::now();
    let child = command.spawn().map_err(|error| (Step::Program, error))?;
    // Back to normal here, where the kernel lets us: the launcher must act at once.
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    // The launcher's own copies of the streams end with `command`, and its hold on the folder.
    let _ = std::env::set_current_dir("/");
    Ok(Started { pid: Pid::from_child(&child), at })
}

/// Runs in the program's process before it is executed.
fn prepare(launcher: Pid) -> io::Result<()> {
    // A launcher that is killed itself can do nothing more, so the kernel does it. The launcher
    // has one thread, so this cannot fire early.
    set_parent_process_death_signal(Some(process::Signal::KILL))?;
    if getppid() != Some(launcher) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    setpriority_process(None, NICE)?;
    SigSet::all().thread_unblock()?;
    Ok(())
}

/// Waits for the end of the program, or for being told to end it; then ends everything.
fn watch(lifeline: &mut UnixStream, deaths: &SignalFd, program: Started) -> Report {
    let mut ended = None;
    let mut on_death = |pid: Pid, status: WaitStatus| {
        if pid == program.pid {
            ended = Some((status, program.at.elapsed()));
        }
        pid == program.pid
    };
    let _ = lifeline.set_nonblocking(true);
    loop {
        let mut has_ended = false;
        tree::reap(&mut |pid, status| has_ended |= on_death(pid, status));
        if has_ended || wait_for_kill(lifeline, deaths) {
            break;
        }
    }
    tree::kill_all(deaths, |pid, status| {
        on_death(pid, status);
    });
    let (status, wall) =
        ended.map_or((None, program.at.elapsed()), |(status, wall)| (Some(status), wall));
    let (cpu_ms, memory_peak_bytes) = usage();
    Report::Ended {
        exit_code: status.and_then(|status| status.exit_status()),
        signal: status.and_then(|status| status.terminating_signal()),
        wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        cpu_ms,
        memory_peak_bytes,
    }
}

/// Sleeps until a child dies or the worker asks something. True: everything must end now.
fn wait_for_kill(lifeline: &mut UnixStream, deaths: &SignalFd) -> bool {
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
                tree::signal_all(process::Signal::TERM);
                false
            }
        }),
        Err(error) => {
            !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        }
    }
}

/// CPU time (milliseconds) and largest resident set (bytes) of everything that was reaped.
fn usage() -> (u64, u64) {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return (0, 0) };
    let cpu = (usage.user_time() + usage.system_time()).num_milliseconds();
    let peak_kib = u64::try_from(usage.max_rss()).unwrap_or(0);
    (u64::try_from(cpu).unwrap_or(0), peak_kib.saturating_mul(1024))
}
