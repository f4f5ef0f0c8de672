//! Library for writing Shiftboss workers in Rust.
//!
//! A worker program names its workloads and calls [`run`]. Everything between the supervisor's
//! socket and [`Workload::run`] is here: Hello and Welcome, heartbeats, progress, cancel, drain,
//! outcomes that are kept until they are recorded, and [`program`], which runs a program in a
//! process tree that dies with its attempt.

mod attempt;
mod connection;
mod held;
mod launcher;
mod path;
pub mod program;
mod runner;
mod seal;
mod serve;
mod timer;
mod workload;
pub mod workloads;

pub use attempt::{AttemptContext, Job};
pub use path::{check_read, check_write, parse_path};
pub use serve::run;
pub use shiftboss_protocol::job::{Attempt, Cause, Failure, JobId, Outcome, Usage};
pub use shiftboss_protocol::message::{Settings, StopReason};
pub use workload::{Workload, crowd, parse_payload};
