//! The keeper: pid 1 of the cage. It puts the cage on itself, starts the program, reaps what
//! the program leaves, and ends with it, and the kernel then ends all that is in its namespace.
//!
//! The program has its user id, so it may own nothing of worth: it cannot be read or traced, its
//! environment is empty, and it holds no descriptor but the pipe for its report.

use super::cage::{self, Held, Refusal, Walls};
use super::inside::NICE;
use super::{Order, Report, Step, descriptor, tree};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::process::{
    self, DumpableBehavior, Pid, Resource, Rlimit, getpid, getppid, getpriority_process,
    set_dumpable_behavior, set_parent_process_death_signal, setpriority_process, setrlimit, umask,
};
use serde::{Deserialize, Serialize};
use shiftboss_protocol::confine::Wall;
use shiftboss_protocol::frame;
use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// The kernel, short of memory, takes a program before the worker, which lives to tell.
const OOM_SCORE_ADJ: &str = "500";

/// Open files that a program gets without asking, and the most that it can ask for.
const FILES: (u64, u64) = (1024, 65_536);

/// From SIGXCPU to SIGKILL for a program that has used up its CPU time, seconds of that.
const CPU_GRACE_SECONDS: u64 = 5;

/// Errors of a step between fork and exec come as one number. From here on it is the number of
/// a step of the cage and not of the program's own start.
const CAGE_ERRORS: i32 = 1 << 16;

/// What a keeper says to its launcher, in this order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// Which parts of the cage hold, before the program is started.
    Holds(String),
    /// The program has ended, or never ran. The launcher adds what it counts and was told.
    Report(Report),
}

/// `main` of a keeper.
pub(super) fn keep(
    order: Order,
    streams: [OwnedFd; 3],
    held: Held,
    mut saying: PipeWriter,
) -> io::Result<()> {
    let ended = run(order, streams, held, &mut saying);
    let report = ended.unwrap_or_else(|Refusal { step, error }| {
        let errno = error.raw_os_error().unwrap_or(0);
        Report::NotStarted { step, errno, reason: error.to_string() }
    });
    frame::write(&mut saying, &Said::Report(report)).map_err(io::Error::other)
}

fn run(
    mut order: Order,
    streams: [OwnedFd; 3],
    mut held: Held,
    saying: &mut PipeWriter,
) -> Result<Report, Refusal> {
    let confined = |error: io::Error| Refusal { step: Step::Confinement, error };
    end_with_launcher(saying).map_err(confined)?;
    prefer_as_victim().map_err(confined)?;
    let walls = cage::put_on(&order.cage, &mut held)?;
    // From here on nothing of the host is in sight, standard streams included.
    leave_streams().map_err(confined)?;
    limit(&order, &mut held);
    held.settle(&order.cage)?;
    // SIGCHLD and SIGTERM are blocked since before the fork.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    let news = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|error| confined(error.into()))?;
    // Now, because a keeper that is killed later says nothing.
    let holds = Said::Holds(held.in_force().to_string());
    frame::write(saying, &holds).map_err(|error| confined(io::Error::other(error)))?;
    let argv = std::mem::take(&mut order.argv);
    let program = start(order, argv, streams, walls)?;
    // Asked twice: what pid 1 of a namespace does to all processes is done to the host's else.
    let is_first = held.has(Wall::PidNs) && getpid().as_raw_nonzero().get() == 1;
    let (exit_code, signal) = wait(&news, program.pid, is_first);
    Ok(Report::Ended {
        exit_code,
        signal,
        wall_ms: u64::try_from(program.at.elapsed().as_millis()).unwrap_or(u64::MAX),
        cpu_ms: 0,
        memory_peak_bytes: 0,
        confinement: String::new(),
    })
}

/// A launcher that is killed itself can do nothing more, so the kernel does it. The launcher
/// has one thread, so this cannot fire early. Asked for after the last change of credentials
/// that could clear it.
fn end_with_launcher(saying: &PipeWriter) -> io::Result<()> {
    set_parent_process_death_signal(Some(process::Signal::KILL))?;
    // From within a pid namespace the parent has no number: whether it lives still is told by
    // its end of the pipe.
    let mut end = [PollFd::new(saying, PollFlags::empty())];
    poll(&mut end, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if end[0].revents().contains(PollFlags::ERR) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

/// The file belongs to root while this process cannot be traced, so it can for that long. There
/// is no program yet that could use the moment.
fn prefer_as_victim() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Standard error is the worker's log, which is not the program's to see.
fn leave_streams() -> io::Result<()> {
    let null = fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

/// Limits of this process, which the program inherits: the keeper itself writes no file and
/// holds few descriptors from here on.
fn limit(order: &Order, held: &mut Held) {
    // Results are not to be changed by strangers, whatever the supervisor was started with.
    let mask = umask(Mode::from_raw_mode(0o022));
    umask(mask | Mode::from_raw_mode(0o022));
    // The kernel counts them per user and user namespace: without one of its own the program
    // would be refused processes that others have. It does not bind root.
    let counts_alone = held.has(Wall::UserNs);
    held.put(Wall::Rlimits, || {
        limit_resources(order)?;
        if counts_alone { limit_processes(order.cage.processes_max) } else { Ok(()) }
    });
}

fn limit_processes(max: u32) -> io::Result<()> {
    if max == 0 {
        return Ok(());
    }
    let allowed = process::getrlimit(Resource::Nproc).maximum.unwrap_or(u64::MAX);
    let limit = Some(allowed.min(u64::from(max)));
    Ok(setrlimit(Resource::Nproc, Rlimit { current: limit, maximum: limit })?)
}

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

struct Started {
    pid: Pid,
    at: Instant,
}

fn start(
    order: Order,
    argv: Vec<Vec<u8>>,
    streams: [OwnedFd; 3],
    mut walls: Walls,
) -> Result<Started, Refusal> {
    let cwd = PathBuf::from(OsString::from_vec(order.cwd));
    // Asked apart, because execution reports a missing folder like a missing program.
    std::env::set_current_dir(&cwd)
        .map_err(|error| Refusal { step: Step::WorkingDirectory, error })?;
    let mut argv = argv.into_iter().map(OsString::from_vec);
    let program = argv.next().unwrap_or_default();
    let mut command = Command::new(&program);
    command.args(argv).env_clear();
    for (name, value) in order.env {
        command.env(OsString::from_vec(name), OsString::from_vec(value));
    }
    let [stdin, stdout, stderr] = streams.map(Stdio::from);
    command.stdin(stdin).stdout(stdout).stderr(stderr).process_group(0);
    let keeper = getpid();
    // SAFETY: this process has one thread, so its child is whole: no lock is held in it.
    #[expect(unsafe_code, reason = "the program's own attributes are set between fork and exec")]
    unsafe {
        command.pre_exec(move || prepare(keeper, &mut walls));
    }
    let at = Instant::now();
    let child = command.spawn().map_err(|error| match error.raw_os_error() {
        Some(number) if number >= CAGE_ERRORS => Refusal {
            step: Step::Confinement,
            error: io::Error::from_raw_os_error(number - CAGE_ERRORS),
        },
        _ => Refusal { step: Step::Program, error },
    })?;
    // The keeper's own copies of the streams end with `command`, and its hold on the folder.
    let _ = std::env::set_current_dir("/");
    Ok(Started { pid: Pid::from_child(&child), at })
}

/// Runs in the program's process before it is executed.
fn prepare(keeper: Pid, walls: &mut Walls) -> io::Result<()> {
    // Where there is no pid namespace: a keeper that is killed takes its program along.
    set_parent_process_death_signal(Some(process::Signal::KILL))?;
    if getppid() != Some(keeper) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // Who yields more already must not yield less: without a capability the kernel says EACCES.
    if getpriority_process(None)? < NICE {
        setpriority_process(None, NICE)?;
    }
    SigSet::all().thread_unblock()?;
    // The standard library closes what it opens; this is for what nobody thought of.
    descriptor::close_on_exec()?;
    walls.close().map_err(|error| {
        let number = error.raw_os_error().unwrap_or(libc::EPERM);
        io::Error::from_raw_os_error(CAGE_ERRORS + number)
    })
}

/// Reaps until the program itself has ended. What it leaves behind ends with this process, or
/// is killed by the launcher.
fn wait(news: &SignalFd, program: Pid, is_first: bool) -> (Option<i32>, Option<i32>) {
    loop {
        let mut ended = None;
        tree::reap(&mut |pid, status| {
            if pid == program {
                ended = Some(status);
            }
        });
        if let Some(status) = ended {
            return (status.exit_status(), status.terminating_signal());
        }
        let _ = poll(&mut [PollFd::new(news, PollFlags::IN)], None);
        while let Ok(Some(signal)) = news.read_signal() {
            if i32::try_from(signal.ssi_signo) == Ok(libc::SIGTERM) && is_first {
                // All but this process itself, in one call that no fork can outrun.
                let _ = kill(nix::unistd::Pid::from_raw(-1), Signal::SIGTERM);
            }
        }
    }
}
