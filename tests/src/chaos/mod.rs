//! A run with real processes in which everything dies, stops, fills up and is locked at random,
//! and a checker that afterwards reads only what is on disk.
//!
//! [`drive`] plays it, [`check`] judges it; they share the words of [`journal`] and no code of
//! Shiftboss. One seed decides what is tried when, as far as real processes allow.

pub mod check;
pub mod drive;
pub mod journal;
pub mod random;

mod evidence;
mod faults;
mod mix;
mod posts;
mod produce;
mod victims;

pub use drive::{Plan, Report, run};
