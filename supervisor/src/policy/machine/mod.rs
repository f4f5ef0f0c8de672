//! The two state machines, and their tables for ARCHITECTURE.md.

pub mod run;
pub mod table;
pub mod worker;
