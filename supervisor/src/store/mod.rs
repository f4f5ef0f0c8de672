//! The job table: the only module that sees SQL.
//!
//! [`writer`] owns the one write connection on a thread of its own and commits what is queued
//! in groups; [`reader`] answers questions on read-only connections; [`direct`] serves a command
//! line that finds no supervisor. Start at [`op`].

pub mod op;
pub mod writer;

pub mod care;
pub mod direct;
pub mod reader;

mod change;
mod connection;
mod error;
mod files;
mod schema;
mod view;

#[cfg(test)]
mod tests;

pub use change::instances::{InstanceRow, OtherInstance, OwnedJob};
pub use connection::{OpenOptions, WalPolicy};
pub use error::Error;
pub use files::Gone;
pub use schema::{VERSION as SCHEMA_VERSION, check_prefix};

/// Version of the SQLite library in this program.
#[must_use]
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}
