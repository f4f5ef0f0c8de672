//! The Shiftboss supervisor: claims jobs off an SQLite table and runs them in worker processes.
//!
//! A functional core (`policy`) in an imperative shell: `daemon` takes events and carries out
//! actions, `store` is the only user of SQL, `os` of system calls, `link` of sockets.
//! Read ARCHITECTURE.md first.

pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod link;
pub mod logging;
pub mod os;
pub mod policy;
pub mod selftest;
pub mod store;
