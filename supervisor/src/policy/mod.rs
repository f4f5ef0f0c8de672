//! Decisions: what to do now. Pure: no I/O, no clock, no threads, no logging, no entropy.
//!
//! [`crew::Crew`] takes an [`event::Event`] and says which [`event::Action`]s follow; time and
//! a random seed come in as arguments. So years of crashes can be simulated in seconds. The
//! lints below are the fence: what they forbid is listed with reasons in clippy.toml.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)]
#![deny(clippy::wildcard_enum_match_arm)]

pub mod claim;
pub mod crew;
pub mod event;
pub mod machine;
pub mod moves;
pub mod poll;
pub mod random;
pub mod restart;
pub mod retry;
pub mod settings;
pub mod suspects;
pub mod time;
pub mod why;
