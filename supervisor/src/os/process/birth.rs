//! A child that is born in a control group.
//!
//! A move into one makes the kernel wait for all CPUs when none was made shortly before (9.5 ms on
//! two cores of Linux 6.18; `cgroup_attach_lock`, kernel/cgroup/cgroup.c). A birth does not:
//! clone3(2), CLONE_INTO_CGROUP, since Linux 5.7. Its price is a copy of our page tables, which
//! `posix_spawn` does not make: half a millisecond at the size of a supervisor.

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::process::{Pid, WaitOptions, waitpid};
use std::ffi::{CStr, CString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Exit code of a child that could not execute its program; nobody sees it.
const NOT_EXECUTED: i32 = 127;

/// `CLONE_INTO_CGROUP` of linux/sched.h, which libc has in a type that is too narrow.
const INTO_CGROUP: u64 = 1 << 33;

/// Signals that a process can have handlers for, with those of the C library.
const SIGNAL_MAX: i32 = 64;

/// What the child becomes.
pub(super) struct Plan<'a> {
    pub(super) program: &'a CStr,
    pub(super) args: &'a [CString],
    pub(super) env: &'a [CString],
    /// Copied in this order; none of the first is one of the second.
    pub(super) descriptors: &'a [(RawFd, RawFd)],
}

/// Starts it in the group of this folder, in a session of its own, with default signal handling.
/// `None`: the kernel, or a filter of system calls, refuses such a birth; nothing was started.
///
/// # Errors
/// The program cannot be executed; no process is left behind.
pub(super) fn born_in(group: BorrowedFd<'_>, plan: &Plan<'_>) -> io::Result<Option<Pid>> {
    let (read, low) = io::pipe()?;
    let write = super::spawn::above(low.as_fd()).map_err(io::Error::other)?;
    // Held by us it would keep the pipe from ending.
    drop(low);
    let pointers = |texts: &[CString]| {
        let texts = texts.iter().map(|text| text.as_ptr());
        texts.chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (args, env) = (pointers(plan.args), pointers(plan.env));
    let all = SigSet::all();
    // No handler of ours may run in the child, whose threads are gone.
    let before = all.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let born = clone_into(group);
    if born == 0 {
        let number = become_it(plan, &args, &env);
        say_and_exit(write.as_raw_fd(), number);
    }
    before.thread_set_mask()?;
    drop(write);
    let born = i32::try_from(born).ok().filter(|number| *number > 0);
    let Some(pid) = born.and_then(Pid::from_raw) else { return Ok(None) };
    let mut number = [0; size_of::<i32>()];
    // The end of the pipe without a word: the program has been executed.
    match { read }.read_exact(&mut number) {
        Err(_) => Ok(Some(pid)),
        Ok(()) => {
            let _ = waitpid(Some(pid), WaitOptions::empty());
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes(number)))
        }
    }
}

/// As fork(2): 0 in the child, its number in the parent, -1 when there is none.
fn clone_into(group: BorrowedFd<'_>) -> libc::c_long {
    #[expect(unsafe_code, reason = "an all-zero structure of numbers")]
    // SAFETY: every field is a number, for which zero is a value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    #[expect(unsafe_code, reason = "no wrapper of clone3 exists")]
    // SAFETY: without CLONE_VM the child runs on a copy of this stack, as after fork(2). Like there
    // it has one thread, and until it executes another program it may only make system calls:
    // locks may be held for ever, memory may be in the middle of a change.
    unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>())
    }
}

/// In the child: only system calls. Returns the number of the error when it cannot become it.
fn become_it(plan: &Plan<'_>, args: &[*const libc::c_char], env: &[*const libc::c_char]) -> i32 {
    #[expect(unsafe_code, reason = "only these calls are safe between a fork and an exec")]
    // SAFETY: all calls are async-signal-safe (signal-safety(7)); the arrays end with a null
    // pointer, and their texts live as long as the parent's, whose memory this is a copy of.
    unsafe {
        for (from, to) in plan.descriptors {
            if libc::dup2(*from, *to) < 0 {
                return *libc::__errno_location();
            }
        }
        // Cannot fail: a process that was just born leads no group.
        libc::setsid();
        // Ignored signals would stay ignored over the exec. Some numbers cannot be set.
        for signal in 1..=SIGNAL_MAX {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
        libc::execve(plan.program.as_ptr(), args.as_ptr(), env.as_ptr());
        *libc::__errno_location()
    }
}

fn say_and_exit(to: RawFd, number: i32) -> ! {
    let bytes = number.to_ne_bytes();
    #[expect(unsafe_code, reason = "as above")]
    // SAFETY: both calls are async-signal-safe; the bytes outlive the first.
    unsafe {
        libc::write(to, bytes.as_ptr().cast(), bytes.len());
        libc::_exit(NOT_EXECUTED)
    }
}
