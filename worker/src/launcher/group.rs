//! The program's way into the control group of its attempt.

use nix::unistd::{ForkResult, Pid, fork};
use rustix::fs::{Mode, OFlags, open};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `CLONE_INTO_CGROUP` of linux/sched.h, which libc has in a type that is too narrow.
const INTO_CGROUP: u64 = 1 << 33;

/// fork(2) with a child that is born in the group, and so is everything that it starts: killed,
/// counted and limited with it. An empty path means that there is none.
///
/// Moving a process into a group makes the kernel wait for all CPUs when none was moved shortly
/// before, which takes ten milliseconds; being born there does not (clone3(2), since Linux 5.7).
/// Where that is refused, this process itself moves into the group and forks there.
pub(super) fn fork_into(dir: &[u8]) -> io::Result<ForkResult> {
    if dir.is_empty() {
        return plain_fork();
    }
    let dir = Path::new(OsStr::from_bytes(dir));
    match born_in(dir) {
        Ok(forked) => Ok(forked),
        Err(_) => {
            join(dir)?;
            plain_fork()
        }
    }
}

fn born_in(dir: &Path) -> io::Result<ForkResult> {
    let folder = open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    #[expect(unsafe_code, reason = "an all-zero structure of numbers")]
    // SAFETY: every field is a number, for which zero is a value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = u64::from(folder.as_raw_fd().unsigned_abs());
    #[expect(unsafe_code, reason = "no wrapper of clone3 exists")]
    // SAFETY: without CLONE_VM the child runs on a copy of this stack, as after fork(2), and like
    // there it is whole, because this process has one thread.
    let number = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>())
    };
    match i32::try_from(number) {
        Ok(0) => Ok(ForkResult::Child),
        Ok(number) if number > 0 => Ok(ForkResult::Parent { child: Pid::from_raw(number) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn plain_fork() -> io::Result<ForkResult> {
    #[expect(unsafe_code, reason = "the keeper is born into the namespaces by a fork")]
    // SAFETY: this process has one thread, so its child is whole: no lock is held in it.
    Ok(unsafe { fork() }?)
}

fn join(dir: &Path) -> io::Result<()> {
    // 0 is whoever writes it. The file is not made where it does not exist.
    fs::File::options().write(true).open(dir.join("cgroup.procs"))?.write_all(b"0")
}
