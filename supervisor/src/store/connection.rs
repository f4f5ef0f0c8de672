//! Opening connections, with everything that must be set on each of them.
//!
//! The database file is never opened, copied or hashed by other means in this process: closing
//! any descriptor of it would drop SQLite's POSIX locks, and a later COMMIT could be lost while
//! it returns success.

use super::error::Error;
use super::schema;
use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the opening of a database waits for somebody else's lock.
const OPEN_WAIT: Duration = Duration::from_secs(20);
/// Between two tries to switch a new database to its log.
const SWITCH_AGAIN: Duration = Duration::from_millis(5);
/// How long a reader waits for a lock; readers wait only while a log is recovered.
const READ_WAIT: Duration = Duration::from_secs(2);
/// A database up to this size is read for damage when the supervisor starts: some 20 ms.
const CHECKED_BYTES_MAX: i64 = 16 << 20;
/// Statements kept prepared by a connection.
const STATEMENTS_MAX: usize = 64;
/// Above this, in bytes, the log is cut back after a checkpoint.
pub(super) const WAL_BYTES_MAX: i64 = 64 << 20;

/// Which database, and how far it may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// The database file; made when it is missing and its folder exists.
    pub path: PathBuf,
    /// Begins the name of each of our tables, indexes and triggers.
    pub prefix: String,
    /// What to do about a database that is not in WAL mode.
    pub wal: WalPolicy,
    /// Name of the network file system that it lies on, unless that was forced.
    pub network_fs: Option<String>,
}

/// What to do about a database that holds something and is not in WAL mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalPolicy {
    /// Refuse it.
    Require,
    /// Switch it (`wal = "switch"`).
    Switch,
}

/// A connection that knows the names of our tables.
#[derive(Debug)]
pub(super) struct Db {
    pub(super) conn: Connection,
    pub(super) path: PathBuf,
    prefix: String,
    /// Statements with the prefix put in, by their templates.
    texts: RefCell<HashMap<&'static str, Arc<str>>>,
}

impl Db {
    /// Opens for writing, makes or migrates the tables.
    pub(super) fn open_writer(options: &OpenOptions) -> Result<Self, Error> {
        schema::check_prefix(&options.prefix)?;
        refuse_place(options)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Self::open(&options.path, &options.prefix, flags, OPEN_WAIT)?;
        db.ensure_wal(options.wal)?;
        db.set_pragmas()?;
        schema::migrate(&db)?;
        Ok(db)
    }

    /// Opens for reading; the tables must exist.
    pub(super) fn open_reader(path: &Path, prefix: &str) -> Result<Self, Error> {
        schema::check_prefix(prefix)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Self::open(path, prefix, flags, READ_WAIT)?;
        db.keep_log_at_close()?;
        db.pragma("query_only", true)?;
        db.pragma("cache_size", -2048)?;
        db.pragma("temp_store", 2)?;
        if schema::version(&db)? == 0 {
            return Err(Error::NoTable { path: db.path.clone(), table: db.table("jobs") });
        }
        Ok(db)
    }

    fn open(path: &Path, prefix: &str, flags: OpenFlags, wait: Duration) -> Result<Self, Error> {
        let conn = Connection::open_with_flags(path, flags)
            .map_err(|e| explain("open the file", path, e))?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        let db = Self {
            conn,
            path: path.to_owned(),
            prefix: prefix.to_owned(),
            texts: RefCell::default(),
        };
        // First of all: every later pragma may meet a lock.
        db.wait_for_locks(wait)?;
        // Without this SQLite parses a statement again whenever a bound value might have let it
        // use another partial index: measured, that made a claim five times as slow.
        db.conn
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
            .map_err(|e| db.error("keep query plans stable", e))?;
        Ok(db)
    }

    /// How long a statement waits for a lock before it fails as busy.
    pub(super) fn wait_for_locks(&self, wait: Duration) -> Result<(), Error> {
        self.conn.busy_timeout(wait).map_err(|e| self.error("set busy_timeout", e))
    }

    /// Closing this connection leaves the log as it is, and where it is.
    pub(super) fn keep_log_at_close(&self) -> Result<(), Error> {
        self.conn
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .map(drop)
            .map_err(|e| self.error("keep the log at the close", e))
    }

    /// Reads a small database for damage; reading a large one would hold up the start.
    pub(super) fn refuse_damage(&self) -> Result<(), Error> {
        let number = |sql: &str| {
            let read = self.conn.query_row(sql, [], |row| row.get::<_, i64>(0));
            read.map_err(|e| self.error(sql, e))
        };
        let bytes = number("PRAGMA page_count")?.saturating_mul(number("PRAGMA page_size")?);
        if bytes > CHECKED_BYTES_MAX {
            return Ok(());
        }
        match self.text_pragma("PRAGMA quick_check(1)")? {
            what if what == "ok" => Ok(()),
            what => Err(Error::Damaged { path: self.path.clone(), what }),
        }
    }

    fn ensure_wal(&self, policy: WalPolicy) -> Result<(), Error> {
        let mode = self.text_pragma("PRAGMA journal_mode")?;
        let readonly = self.conn.is_readonly("main");
        if readonly.map_err(|e| self.error("ask whether it is read-only", e))? {
            return Err(Error::ReadOnly { path: self.path.clone() });
        }
        if mode == "wal" {
            return Ok(());
        }
        let is_empty = "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)";
        let is_empty = self.conn.query_row(is_empty, [], |row| row.get(0));
        let is_empty: bool = is_empty.map_err(|e| self.error("read the schema", e))?;
        if !is_empty && policy == WalPolicy::Require {
            // Another supervisor may have made it between the two questions.
            let mode = self.text_pragma("PRAGMA journal_mode")?;
            if mode == "wal" {
                return Ok(());
            }
            return Err(Error::NotWal { path: self.path.clone(), mode });
        }
        // The answer is read back: what cannot be set is not an error to SQLite.
        match self.switch_to_wal()? {
            mode if mode == "wal" => Ok(()),
            mode => Err(Error::WalRefused { path: self.path.clone(), mode }),
        }
    }

    /// Two programs may make one database at once. SQLite does not wait for a lock that it holds
    /// a part of (sqlite3_busy_handler: it could be a deadlock), which this switch does, so it
    /// is tried again here, as long as any other statement would have waited.
    fn switch_to_wal(&self) -> Result<String, Error> {
        let sql = "PRAGMA journal_mode = wal";
        let end = Instant::now() + OPEN_WAIT;
        loop {
            match self.conn.query_row(sql, [], |row| row.get(0)) {
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                        && Instant::now() < end =>
                {
                    std::thread::sleep(SWITCH_AGAIN);
                }
                other => return other.map_err(|e| self.error(sql, e)),
            }
        }
    }

    fn set_pragmas(&self) -> Result<(), Error> {
        self.pragma("synchronous", "FULL")?;
        self.pragma("foreign_keys", true)?;
        self.pragma("cache_size", -4096)?;
        self.pragma("temp_store", 2)?;
        self.pragma("journal_size_limit", WAL_BYTES_MAX)
    }

    /// Sets a pragma; whatever it answers is passed over.
    pub(super) fn pragma(&self, name: &str, value: impl rusqlite::ToSql) -> Result<(), Error> {
        self.conn
            .pragma_update(None, name, value)
            .map_err(|e| self.error(&format!("set pragma {name}"), e))
    }

    fn text_pragma(&self, sql: &str) -> Result<String, Error> {
        self.conn.query_row(sql, [], |row| row.get(0)).map_err(|e| self.error(sql, e))
    }

    /// Runs statements of which none returns rows.
    pub(super) fn batch(&self, sql: &str, action: &str) -> Result<(), Error> {
        self.conn.execute_batch(sql).map_err(|e| self.error(action, e))
    }

    /// The full name of one of our tables.
    pub(super) fn table(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Puts the prefix where the text says `{p}`.
    pub(super) fn prefixed(&self, template: &str) -> String {
        template.replace("{p}", &self.prefix)
    }

    /// The prepared statement of a template, kept for the next time.
    pub(super) fn statement(
        &self,
        template: &'static str,
    ) -> rusqlite::Result<CachedStatement<'_>> {
        let mut texts = self.texts.borrow_mut();
        let text = texts.entry(template).or_insert_with(|| self.prefixed(template).into());
        self.conn.prepare_cached(text)
    }

    /// The error of a statement, with what it was for.
    pub(super) fn error(&self, action: &str, source: rusqlite::Error) -> Error {
        explain(action, &self.path, source)
    }
}

fn refuse_place(options: &OpenOptions) -> Result<(), Error> {
    let path = options.path.clone();
    if let Some(file_system) = options.network_fs.clone() {
        return Err(Error::NetworkFileSystem { path, file_system });
    }
    let folder = options.path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.is_dir() => {
            Err(Error::NoFolder { path, folder: folder.to_owned() })
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn explain(action: &str, path: &Path, source: rusqlite::Error) -> Error {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => Error::NotADatabase { path, source },
        Some(ErrorCode::DatabaseCorrupt) => Error::Damaged { path, what: source.to_string() },
        Some(ErrorCode::CannotOpen) => Error::CannotOpen { path, source },
        Some(ErrorCode::ReadOnly) => Error::ReadOnly { path },
        Some(_) | None => Error::Sql { action: action.to_owned(), path, source },
    }
}
