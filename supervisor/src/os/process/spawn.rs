//! Starts worker processes, and holds what proves which process is which: its pidfd.
//!
//! Where there is no control group to be born in (`birth.rs`) posix_spawn is used: it does not copy
//! the parent's page tables (glibc runs it on CLONE_VM | CLONE_VFORK) and takes 0.2 milliseconds.

use super::birth::{self, Plan};
use nix::fcntl::{FcntlArg, fcntl};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use std::ffi::{CString, NulError};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where a worker finds its token.
pub const TOKEN_FD: i32 = 3;

/// Where a worker finds the lock that it holds for life.
pub const LOCK_FD: i32 = 4;

/// Descriptors that are passed on are first moved above those that they become.
const ABOVE: i32 = 16;

/// What a worker process is started with.
#[derive(Debug)]
pub struct Command<'a> {
    /// Absolute path of the program.
    pub program: &'a Path,
    /// Its arguments after the name.
    pub args: &'a [String],
    /// Its whole environment, `NAME=value`.
    pub env: &'a [String],
    /// Written to the pipe that becomes [`TOKEN_FD`].
    pub token: &'a [u8],
    /// Becomes [`LOCK_FD`].
    pub lock: BorrowedFd<'a>,
    /// Becomes standard output and standard error.
    pub output: BorrowedFd<'a>,
    /// The folder of the control group that it is to be born in.
    pub group: Option<BorrowedFd<'a>>,
}

/// A process that was started.
#[derive(Debug)]
pub struct Started {
    /// It.
    pub process: Process,
    /// It was born in the group that was asked for.
    pub is_in_group: bool,
}

/// Why no process was started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program cannot be run.
    #[error("cannot start worker program {0}")]
    Program(PathBuf, #[source] io::Error),
    /// A step before that failed.
    #[error("cannot {0} for a worker")]
    Prepare(&'static str, #[source] io::Error),
    /// An argument or variable holds a zero byte.
    #[error("cannot start a worker: a zero byte in its arguments or environment")]
    ZeroByte(#[from] NulError),
}

/// A process whose pidfd is held: whatever its number means later, this is it.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Exit code, if it ended by itself.
    pub code: Option<i32>,
    /// Signal, if one ended it.
    pub signal: Option<i32>,
}

/// Starts a worker in a session of its own with default signal handling and only the
/// descriptors that [`Command`] names.
///
/// # Errors
/// Any [`Error`]; no process is left behind.
pub fn spawn(command: &Command<'_>) -> Result<Started, Error> {
    let token = token_pipe(command.token)?;
    let (token, lock, output) =
        (above(token.as_fd())?, above(command.lock)?, above(command.output)?);
    let null = File::open("/dev/null").map_err(|error| Error::Prepare("open /dev/null", error))?;
    let null = above(null.as_fd())?;
    let descriptors =
        [(&null, 0), (&output, 1), (&output, 2), (&token, TOKEN_FD), (&lock, LOCK_FD)]
            .map(|(from, to)| (from.as_raw_fd(), to));
    let program = CString::new(command.program.as_os_str().as_encoded_bytes())?;
    let mut args = vec![program.clone()];
    for arg in command.args {
        args.push(CString::new(arg.as_str())?);
    }
    let env: Result<Vec<_>, _> = command.env.iter().map(|one| CString::new(one.as_str())).collect();
    let (program, env) = (program.as_c_str(), env?);
    let plan = Plan { program, args: &args, env: &env, descriptors: &descriptors };
    let failed = |error| Error::Program(command.program.to_owned(), error);
    let born = match command.group {
        Some(group) => birth::born_in(group, &plan).map_err(failed)?,
        None => None,
    };
    let is_in_group = born.is_some();
    let pid = match born {
        Some(pid) => pid,
        None => posix(&plan, command.program)?,
    };
    // The child has not been waited for, so its number is still its own.
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)
        .map_err(|error| Error::Prepare("open a pidfd", error.into()))?;
    Ok(Started { process: Process { pid, pidfd }, is_in_group })
}

fn posix(plan: &Plan<'_>, program: &Path) -> Result<Pid, Error> {
    let prepare = |what| move |error: nix::Error| Error::Prepare(what, error.into());
    let mut actions = PosixSpawnFileActions::init().map_err(prepare("make file actions"))?;
    for (from, to) in plan.descriptors {
        actions.add_dup2(*from, *to).map_err(prepare("pass descriptors"))?;
    }
    let mut attributes = PosixSpawnAttr::init().map_err(prepare("make attributes"))?;
    // nix does not name SETSID; glibc has it since 2.26.
    let flags = PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
        | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
        | PosixSpawnFlags::from_bits_retain(libc::POSIX_SPAWN_SETSID.into());
    attributes.set_flags(flags).map_err(prepare("set spawn flags"))?;
    // Rust ignores SIGPIPE, and ignored signals stay ignored over exec.
    attributes.set_sigdefault(&SigSet::all()).map_err(prepare("reset signals"))?;
    attributes.set_sigmask(&SigSet::empty()).map_err(prepare("reset the signal mask"))?;
    let pid = posix_spawn(plan.program, &actions, &attributes, plan.args, plan.env)
        .map_err(|error| Error::Program(program.to_owned(), error.into()))?;
    Ok(Pid::from_raw(pid.as_raw()).expect("a child has a number above 0"))
}

/// Marks every descriptor above standard error as closed on exec: what whoever started the
/// supervisor left open is not passed on to workers. Later descriptors are opened that way.
///
/// # Errors
/// When the kernel is older than 5.11.
pub fn keep_descriptors_private() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    #[expect(unsafe_code, reason = "neither nix nor rustix has close_range")]
    // SAFETY: only flags of descriptors change; none is closed.
    let result = unsafe { libc::close_range(3, u32::MAX, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A pipe that already holds the token, so that nobody has to wait for anybody.
fn token_pipe(token: &[u8]) -> Result<OwnedFd, Error> {
    let failed = |error: rustix::io::Errno| Error::Prepare("make the token pipe", error.into());
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
    rustix::io::write(&write, token).map_err(failed)?;
    Ok(read)
}

pub(super) fn above(fd: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(ABOVE))
        .map_err(|error| Error::Prepare("duplicate a descriptor", error.into()))?;
    #[expect(unsafe_code, reason = "nix returns the new descriptor as a bare number")]
    // SAFETY: F_DUPFD_CLOEXEC has just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

impl Process {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// A process that a supervisor before us started, held already. `None`: no such number.
    #[must_use]
    pub fn held(pid: u32, pidfd: OwnedFd) -> Option<Self> {
        Some(Self { pid: Pid::from_raw(i32::try_from(pid).ok()?)?, pidfd })
    }

    /// Readable when the process has ended.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn exit_notice(&self) -> io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }

    /// SIGTERM. A process that has ended already is no error.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGKILL. A process that has ended already is no error.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // The only possible failure is ESRCH: it has ended, which is what was wanted.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }

    /// How it ended, once it has; it is gone from the process table afterwards. One that is not
    /// our child is reaped by somebody else, and the kernel may not tell how it ended.
    #[must_use]
    pub fn reap(&self) -> Option<Ended> {
        let wait = WaitId::PidFd(self.pidfd.as_fd());
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match rustix::process::waitid(wait, options) {
            Ok(Some(status)) => {
                Some(Ended { code: status.exit_status(), signal: status.terminating_signal() })
            }
            Ok(None) => None,
            Err(_) => super::facts::exit_of(self.pidfd.as_fd()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(program: &str, args: &[&str]) -> (String, u32) {
        let (text, pid, is_in_group) = run_in(program, args, None);
        assert!(!is_in_group);
        (text, pid)
    }

    fn run_in(program: &str, args: &[&str], group: Option<&Path>) -> (String, u32, bool) {
        let group = group.map(|dir| File::open(dir).expect("it is a folder"));
        keep_descriptors_private().expect("the kernel is new enough");
        let dir = tempfile::tempdir().expect("a folder can be made");
        let out = File::create(dir.path().join("out")).expect("a file can be made");
        let lock = File::create(dir.path().join("lock")).expect("a file can be made");
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let Started { process, is_in_group } = spawn(&Command {
            program: Path::new(program),
            args: &args,
            env: &["PATH=/usr/bin:/bin".to_owned()],
            token: b"secret",
            lock: lock.as_fd(),
            output: out.as_fd(),
            group: group.as_ref().map(AsFd::as_fd),
        })
        .expect("the program can be started");
        let notice = process.exit_notice().expect("a descriptor can be duplicated");
        let mut poll = [rustix::event::PollFd::new(&notice, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut poll, None).expect("the child ends");
        let ended = process.reap().expect("it has ended");
        assert_eq!(ended, Ended { code: Some(0), signal: None });
        let text = std::fs::read_to_string(dir.path().join("out")).expect("it wrote");
        (text, process.pid(), is_in_group)
    }

    /// A group of this test's own; `None` where none can be made.
    fn leaf() -> Option<PathBuf> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
        let leaf = Path::new(mount.split(' ').nth(1)?).join(own);
        let leaf = leaf.join(format!("shiftboss-birth-{}", std::process::id()));
        std::fs::create_dir(&leaf).ok().map(|()| leaf)
    }

    #[test]
    fn a_worker_is_born_in_its_group_and_else_as_it_was_before() {
        let Some(leaf) = leaf() else { return };
        let (text, _, is_in_group) = run_in("/bin/cat", &["/proc/self/cgroup"], Some(&leaf));
        let name = leaf.file_name().expect("it has one").to_string_lossy().into_owned();
        assert!(is_in_group && text.contains(&name), "{text}");
        let (text, pid, _) =
            run_in("/bin/sh", &["-c", "cat <&3; echo; ps -o sid= -p $$"], Some(&leaf));
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(lines, ["secret", &pid.to_string()]);
        let (text, ..) = run_in("/bin/ls", &["/proc/self/fd"], Some(&leaf));
        assert_eq!(text.split_whitespace().collect::<String>(), "012345");
        let script = "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status | sort -u -k2";
        let (text, ..) = run_in("/bin/sh", &["-c", script], Some(&leaf));
        assert_eq!(text.lines().next(), Some("SigBlk:\t0000000000000000"), "{text}");
        let error = try_missing(Some(&leaf));
        assert_eq!(error.to_string(), "cannot start worker program /nonexistent/worker");
        std::fs::remove_dir(&leaf).expect("nothing is left in it");
    }

    #[test]
    fn where_the_kernel_knows_no_such_group_a_worker_is_started_all_the_same() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let (text, _, is_in_group) = run_in("/bin/echo", &["here"], Some(dir.path()));
        assert_eq!((text.as_str(), is_in_group), ("here\n", false));
    }

    #[test]
    fn a_child_gets_token_lock_and_output_and_nothing_else() {
        let (text, _) = run("/bin/ls", &["/proc/self/fd"]);
        // The fifth is the folder that ls reads.
        assert_eq!(text.split_whitespace().collect::<String>(), "012345");
        let (text, pid) = run("/bin/sh", &["-c", "cat <&3; echo; ps -o sid= -p $$"]);
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(lines, ["secret", &pid.to_string()]);
    }

    fn try_missing(group: Option<&Path>) -> Error {
        let null = File::open("/dev/null").expect("it exists");
        let group = group.map(|dir| File::open(dir).expect("it is a folder"));
        spawn(&Command {
            program: Path::new("/nonexistent/worker"),
            args: &[],
            env: &[],
            token: b"",
            lock: null.as_fd(),
            output: null.as_fd(),
            group: group.as_ref().map(AsFd::as_fd),
        })
        .expect_err("there is no such program")
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error_that_names_it() {
        let error = try_missing(None);
        assert_eq!(error.to_string(), "cannot start worker program /nonexistent/worker");
    }
}
