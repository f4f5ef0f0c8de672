//! System calls of the hostile program, most of them ones that no honest program makes. The only
//! unsafe code of the self-test. What is tried runs in a child of its own ([`in_child`]), so
//! that whatever a call does to its process ends with it.

use super::verdict::Outcome;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// An attempt takes milliseconds; one that hangs is ended and was not made.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);

/// An argument of a system call.
pub(super) enum Arg<'a> {
    Number(i64),
    Text(&'a CStr),
    Bytes(&'a mut [u8]),
}

/// Calls the kernel. The caller names calls that read and write no memory but the buffers that it
/// gives, with the lengths that it gives; none that maps memory or forks.
pub(super) fn call(number: i64, arguments: &mut [Arg<'_>]) -> io::Result<i64> {
    let mut words = [0_i64; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = match argument {
            Arg::Number(number) => *number,
            Arg::Text(text) => text.as_ptr() as i64,
            Arg::Bytes(bytes) => bytes.as_mut_ptr() as i64,
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: pointers are those of live buffers that the caller lends for this call, and the
    // calls touch nothing else (see above).
    #[expect(unsafe_code, reason = "calls that no safe wrapper offers are the purpose")]
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A call with numbers only.
pub(super) fn numbers(number: i64, arguments: &[i64]) -> io::Result<i64> {
    let mut arguments: Vec<Arg<'_>> = arguments.iter().map(|one| Arg::Number(*one)).collect();
    call(number, &mut arguments)
}

/// `clone` with these flags and no stack of its own: a fork, whose child ends at once.
pub(super) fn clone_with(flags: i64) -> io::Result<()> {
    // SAFETY: without CLONE_VM the child has memory of its own; it ends at once.
    #[expect(unsafe_code, reason = "no safe wrapper clones with namespace flags")]
    let result = unsafe {
        let result =
            libc::syscall(libc::SYS_clone, flags | i64::from(libc::SIGCHLD), 0_i64, 0_i64, 0, 0);
        if result == 0 {
            libc::_exit(0);
        }
        result
    };
    reap(result)
}

/// `clone3` with these flags; the child ends at once.
pub(super) fn clone3_with(flags: u64) -> io::Result<()> {
    // The first version of `struct clone_args`: eight words, flags first, exit_signal fifth.
    let mut arguments = [0_u64; 8];
    arguments[0] = flags;
    arguments[4] = u64::from(libc::SIGCHLD.unsigned_abs());
    // SAFETY: the structure lives through the call and has the size that is named; without
    // CLONE_VM the child has memory of its own; it ends at once.
    #[expect(unsafe_code, reason = "no safe wrapper of clone3 exists")]
    let result = unsafe {
        let size = size_of_val(&arguments);
        let result = libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size);
        if result == 0 {
            libc::_exit(0);
        }
        result
    };
    reap(result)
}

fn reap(result: i64) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    let _ = waitpid(Pid::from_raw(i32::try_from(result).unwrap_or(-1)), None);
    Ok(())
}

/// `getpid` by the system call gate of 32-bit programs, whose numbers a filter may forget.
#[cfg(target_arch = "x86_64")]
pub(super) fn getpid_by_int80() -> i64 {
    let answer: i32;
    // SAFETY: the call reads and writes no memory; it changes eax alone (and flags).
    #[expect(unsafe_code, reason = "the gate has no other way in")]
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") 20 => answer);
    }
    i64::from(answer)
}

/// Forks this single-threaded process; the child runs `body` and ends with its answer.
///
/// # Errors
/// No process can be made.
pub(super) fn fork_off(body: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: the hostile program has one thread, so no lock is held by another in the child.
    #[expect(unsafe_code, reason = "what is tried must end with a process of its own")]
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(70);
            // SAFETY: ends this process; nothing here needs a destructor.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Runs an attempt in a child of its own and returns what it saw, or how it ended.
pub(super) fn in_child(attempt: impl FnOnce() -> Outcome) -> Outcome {
    let Ok((read, write)) = pipe() else {
        return Outcome::Unable("no pipe can be made".to_owned());
    };
    let child = fork_off(|| {
        let outcome = attempt();
        let text = serde_json::to_vec(&outcome).unwrap_or_default();
        let _ = File::from(write.try_clone().expect("a descriptor is free")).write_all(&text);
        0
    });
    drop(write);
    let child = match child {
        Ok(child) => child,
        Err(error) => return Outcome::Unable(format!("no process can be made: {error}")),
    };
    let text = read_until_end(File::from(read));
    if text.is_none() {
        let _ = kill(child, Signal::SIGKILL);
    }
    let status = waitpid(child, None);
    match (text, status) {
        (None, _) => Outcome::Unable("it did not end in time".to_owned()),
        (Some(_), Ok(WaitStatus::Signaled(_, signal, _))) => Outcome::Killed(signal as i32),
        (Some(text), _) => serde_json::from_slice(&text)
            .unwrap_or_else(|_| Outcome::Unable("it ended without a word".to_owned())),
    }
}

/// All that comes until the other end is closed; `None` when that takes too long.
fn read_until_end(mut pipe: File) -> Option<Vec<u8>> {
    let deadline = Instant::now() + ATTEMPT_MAX;
    let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.checked_duration_since(Instant::now())?;
        let left = rustix::event::Timespec::try_from(left).ok()?;
        let events = rustix::event::PollFlags::IN;
        let mut waiting = [rustix::event::PollFd::from_borrowed_fd(pipe.as_fd(), events)];
        match rustix::event::poll(&mut waiting, Some(&left)) {
            Ok(0) => return None,
            Ok(_) => match pipe.read(&mut chunk) {
                Ok(0) | Err(_) => return Some(text),
                Ok(count) => text.extend_from_slice(&chunk[..count]),
            },
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// True when the number is an open descriptor of this process.
pub(super) fn is_open(descriptor: i32) -> bool {
    // SAFETY: F_GETFD reads no memory and changes nothing.
    #[expect(unsafe_code, reason = "numbers are asked that may be no descriptors")]
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    flags != -1
}

/// Ignores a signal; some cannot be.
pub(super) fn ignore(signal: i32) {
    // SAFETY: ignoring runs no code of ours on arrival.
    #[expect(unsafe_code, reason = "all 64 signals are tried, named or not")]
    unsafe {
        libc::signal(signal, libc::SIG_IGN);
    }
}

/// Takes anonymous memory and writes to each page of it.
///
/// # Errors
/// The kernel gives no more.
pub(super) fn take_memory(bytes: usize) -> io::Result<()> {
    // SAFETY: a new private mapping at a place that the kernel chooses; it is never given back,
    // and written within its bounds only.
    #[expect(unsafe_code, reason = "an allocator would end the process instead of saying no")]
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let place = libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0);
        if place == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        for page in (0..bytes).step_by(4096) {
            place.cast::<u8>().add(page).write_volatile(1);
        }
    }
    Ok(())
}
