//! The kernel: the only module of the supervisor that makes system calls.
//!
//! [`cgroup`] divides the host, [`process`] makes, holds and ends processes, [`lock`] says who is
//! alive, [`watch`] notices foreign commits, [`failpoint`] lets tests kill it in bad moments.

pub mod cgroup;
pub mod dirs;
pub mod disk;
pub mod failpoint;
pub mod host;
pub mod ladder;
pub mod lock;
pub mod notify;
pub mod process;
pub mod readiness;
pub mod signals;
pub mod watch;
