//! Why the job table could not be opened, read or written.

use super::files::Gone;
use std::path::PathBuf;

/// An error of the store: what was tried, on what, and the remedy where there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of the database does not exist.
    #[error("cannot open database {path}: its folder does not exist, create {folder} first")]
    NoFolder {
        /// The database.
        path: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
    /// SQLite could not open or read the file.
    #[error(
        "cannot open database {path}: the file or its folder does not exist, the disk is \
         read-only, or this user may not read and write it and its -wal and -shm files"
    )]
    CannotOpen {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The file holds something else.
    #[error(
        "cannot open {path}: it is not an SQLite database (or an encrypted one, or a damaged one: \
         then put a backup in its place with `shiftboss db restore FILE`)"
    )]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The file holds a database that contradicts itself.
    #[error(
        "database {path} is damaged ({what}): `shiftboss db check` names the damage, `shiftboss \
         db restore FILE` puts a backup in its place and keeps the damaged file beside it"
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The file that is open is no longer the one that others see.
    #[error("{}", gone(path, *what))]
    Gone {
        /// The database.
        path: PathBuf,
        /// What is there instead.
        what: Gone,
    },
    /// It cannot be found out whether the open file is still the one that others see.
    #[error(
        "cannot look at {path}, so nothing is written: this user must be able to enter its folder"
    )]
    CannotSee {
        /// The database or its log.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The file or its folder cannot be written.
    #[error(
        "cannot write database {path}: the file or its folder is read-only for this user, who \
         must be able to write both (SQLite puts -wal and -shm files beside the database)"
    )]
    ReadOnly {
        /// The database.
        path: PathBuf,
    },
    /// The file system is shared by hosts, whose SQLite libraries cannot see each other's locks.
    #[error(
        "cannot use database {path}: it lies on a network file system ({file_system}), where \
         SQLite's write-ahead log loses data: move it to a local disk"
    )]
    NetworkFileSystem {
        /// The database.
        path: PathBuf,
        /// Name of the file system.
        file_system: String,
    },
    /// Somebody's database in another journal mode.
    #[error(
        "cannot use database {path}: its journal mode is {mode}, not wal: set wal = \"switch\" \
         to have it switched (every program that uses the database is affected, once and for all)"
    )]
    NotWal {
        /// The database.
        path: PathBuf,
        /// The mode found.
        mode: String,
    },
    /// The journal mode could not be changed.
    #[error("cannot switch database {path} to journal mode wal: it stays {mode}")]
    WalRefused {
        /// The database.
        path: PathBuf,
        /// The mode that it kept.
        mode: String,
    },
    /// The tables were made by a later version of this program.
    #[error(
        "cannot use database {path}: its job table has schema version {found}, this program \
         knows versions up to {known}: upgrade shiftboss"
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// The version found.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// A table of that name exists and is not ours.
    #[error(
        "cannot use database {path}: it has a table {table} that is not shiftboss's ({why}): \
         set table_prefix, for example table_prefix = \"shiftboss_\""
    )]
    ForeignTable {
        /// The database.
        path: PathBuf,
        /// The table.
        table: String,
        /// What gave it away.
        why: String,
    },
    /// There is no job table to read.
    #[error("cannot read jobs from {path}: it has no table {table}: has a supervisor used it yet?")]
    NoTable {
        /// The database.
        path: PathBuf,
        /// The table looked for.
        table: String,
    },
    /// The prefix cannot be part of a table name.
    #[error(
        "table_prefix = {prefix:?}: must be empty, or at most 32 of a-z, A-Z, 0-9 and _, not \
         beginning with a digit or sqlite_"
    )]
    BadPrefix {
        /// The prefix.
        prefix: String,
    },
    /// A statement failed.
    #[error("cannot {action} in database {path}")]
    Sql {
        /// What was being done.
        action: String,
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The request itself is at fault; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// The database is in trouble, and somebody waits for an answer; nothing was changed.
    #[error("nothing was stored: {0}")]
    NotStored(String),
    /// A commit failed so that it cannot be read whether it was done.
    #[error("it is not known whether this was stored (`shiftboss jobs` will show it): {0}")]
    Unknown(String),
    /// The writer has ended; nothing was changed.
    #[error("cannot write to the job table: the writer has stopped")]
    Stopped,
}

/// What to do about a database or a log that is not where it was.
fn gone(path: &std::path::Path, what: Gone) -> String {
    let path = path.display();
    match what {
        Gone::Database => format!(
            "database {path} was deleted or moved away while in use: nothing is stored until the \
             same file is back; if it will not come back, restart the supervisor"
        ),
        Gone::Replaced => format!(
            "database {path} was replaced by another file while in use: nothing is stored in \
             either; put the old file back, or restart the supervisor to work with the new one"
        ),
        Gone::Log => format!(
            "the log {path}-wal was deleted or moved away while in use: nothing is stored until \
             the same file is back, or the supervisor is restarted"
        ),
        Gone::LogReplaced => format!(
            "the log {path}-wal was replaced while in use, and another program has written into \
             the new one: nothing is stored; stop all programs that use the database, look at it \
             with `shiftboss db check`, and restart the supervisor"
        ),
    }
}

impl Error {
    /// True when the same request may succeed later: the database is locked, full or broken,
    /// and the request itself is not at fault.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        match self {
            Self::Sql { source, .. } => is_trouble(source),
            Self::CannotOpen { .. }
            | Self::ReadOnly { .. }
            | Self::NotADatabase { .. }
            | Self::Damaged { .. }
            | Self::Gone { .. }
            | Self::CannotSee { .. } => true,
            Self::NoFolder { .. }
            | Self::NetworkFileSystem { .. }
            | Self::NotWal { .. }
            | Self::WalRefused { .. }
            | Self::NewerSchema { .. }
            | Self::ForeignTable { .. }
            | Self::NoTable { .. }
            | Self::BadPrefix { .. }
            | Self::Refused(_)
            | Self::NotStored(_)
            | Self::Unknown(_)
            | Self::Stopped => false,
        }
    }

    /// True when the content of the file is at fault: trying again could only spread the damage.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::NotADatabase { .. } | Self::Damaged { .. })
    }

    /// True when it does not end before a person does something.
    #[must_use]
    pub fn needs_a_hand(&self) -> bool {
        self.is_damage() || matches!(self, Self::Gone { .. })
    }

    /// True when another program holds a lock: that ends by itself, mostly soon.
    pub(super) fn is_lock(&self) -> bool {
        use rusqlite::ErrorCode as Code;
        self.is_code(&[Code::DatabaseBusy, Code::DatabaseLocked])
    }

    /// True when the disk has no room.
    pub(super) fn is_full(&self) -> bool {
        self.is_code(&[rusqlite::ErrorCode::DiskFull])
    }

    fn is_code(&self, codes: &[rusqlite::ErrorCode]) -> bool {
        let Self::Sql { source, .. } = self else { return false };
        source.sqlite_error_code().is_some_and(|code| codes.contains(&code))
    }
}

/// True when the fault lies with the database's surroundings (locked, full, broken disk), so
/// that the same write may succeed later; false when it lies with the write itself.
fn is_trouble(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(
            Code::ConstraintViolation
            | Code::TooBig
            | Code::TypeMismatch
            | Code::ParameterOutOfRange
            | Code::ApiMisuse
            | Code::NotFound
            | Code::AuthorizationForStatementDenied,
        )
        | None => false,
        // A table that somebody dropped reads as `Unknown`: it may come back, the data in hand
        // must not be lost meanwhile.
        Some(_) => true,
    }
}

/// The error with its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // SQLite's own causes say the same again.
        let next = error.to_string();
        if !text.ends_with(&next) && !next.ends_with(text.rsplit(": ").next().unwrap_or(&next)) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
