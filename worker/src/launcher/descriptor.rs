//! Descriptors: those that a worker inherits, those that a launcher must not, and the bell
//! that wakes a thread which waits on descriptors.

use rustix::event::{EventfdFlags, eventfd};
use shiftboss_protocol::message::TOKEN_BYTES;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// First descriptor that is not a standard stream.
const FIRST: libc::c_uint = 3;

/// Takes the token out of its pipe and the lock, which is to be kept for life. From then on no
/// descriptor passes to a child: one that kept the lock would hold it after the worker's end.
pub(crate) fn take_inherited(
    token_fd: RawFd,
    lock_fd: RawFd,
) -> io::Result<([u8; TOKEN_BYTES], OwnedFd)> {
    if token_fd == lock_fd {
        return Err(io::Error::other("token and lock are the same descriptor"));
    }
    close_on_exec()?;
    let mut pipe = File::from(take(token_fd)?);
    let lock = take(lock_fd)?;
    let mut token = [0; TOKEN_BYTES];
    pipe.read_exact(&mut token)?;
    Ok((token, lock))
}

fn take(number: RawFd) -> io::Result<OwnedFd> {
    if nix::fcntl::fcntl(borrow(number), nix::fcntl::FcntlArg::F_GETFD).is_err() {
        return Err(io::Error::other(format!("descriptor {number} is not open")));
    }
    // SAFETY: the descriptor is open, it was passed to this process for this use, and nothing
    // else in it has taken it: this runs once, before the process opens anything.
    #[expect(unsafe_code, reason = "an inherited descriptor is only a number")]
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn borrow(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the number is not -1 (the command line allows 3 and more), and is used for one
    // fcntl only, which fails harmlessly when it is not open.
    #[expect(unsafe_code, reason = "whether a number is an open descriptor must be asked")]
    unsafe {
        BorrowedFd::borrow_raw(number)
    }
}

/// Marks every descriptor above the standard streams as one that no program inherits.
pub(super) fn close_on_exec() -> io::Result<()> {
    close_range(libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes everything but the standard streams: a library of the worker may have opened
/// descriptors that pass on.
pub(super) fn close_inherited() -> io::Result<()> {
    close_range(0)
}

fn close_range(flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: the call reads no memory. Callers run it first in their process, when nothing in
    // it owns a descriptor from 3 on.
    #[expect(unsafe_code, reason = "no safe wrapper of close_range exists")]
    let result = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor that becomes readable when it is rung, and stays so.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(crate) fn ring(&self) {
        // A full counter means that it has rung often enough.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
