//! When the log goes into the database: this connection does it by itself, so that no commit
//! that somebody waits for pays for it.

use super::Writer;
use crate::os::failpoint::{self, Place};
use crate::store::connection::{Db, WAL_BYTES_MAX};
use crate::store::error::{Error, chain};
use std::time::{Duration, Instant};

/// A writer that was idle for this long after writes checkpoints once.
const IDLE: Duration = Duration::from_secs(1);
/// Under load, checkpoints come after this many commits or changed rows.
const COMMITS_MAX: u32 = 1000;
const CHANGES_MAX: u64 = 8192;
/// How long a TRUNCATE waits for readers; PASSIVE waits for nobody.
const TRUNCATE_WAIT: Duration = Duration::from_millis(50);

/// What was written since the last checkpoint.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    due: Option<Instant>,
    commits: u32,
    changes: u64,
}

impl Checkpoints {
    /// When the next checkpoint is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A group was committed that changed so many rows.
    pub(super) fn on_commit(&mut self, now: Instant, changes: u64) {
        self.commits += 1;
        self.changes += changes;
        let is_loaded = self.commits >= COMMITS_MAX || self.changes >= CHANGES_MAX;
        self.due = Some(if is_loaded { now } else { now + IDLE });
    }
}

impl Writer {
    /// Checkpoints when it is due.
    pub(super) fn checkpoint(&mut self, now: Instant) {
        if self.checkpoints.due.is_none_or(|due| due > now) {
            return;
        }
        if self.spell.is_on() {
            self.checkpoints.due = Some(now + IDLE);
            return;
        }
        self.checkpoints = Checkpoints::default();
        if let Err(error) = self.files.check() {
            return self.on_trouble(&error);
        }
        failpoint::reach_around(Place::Checkpoint);
        match self.checkpoint_passive() {
            Ok(pages) if pages * self.page_bytes() > WAL_BYTES_MAX => self.truncate(),
            Ok(_) => {}
            Err(error) if error.is_damage() => self.on_trouble(&error),
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(reason, "cannot checkpoint the log, trying again after a write");
            }
        }
    }

    /// Puts into the database what nobody holds up; the pages in the log.
    pub(super) fn checkpoint_passive(&self) -> Result<i64, Error> {
        let pages = run(&self.db, "PRAGMA wal_checkpoint(PASSIVE)");
        pages.map_err(|e| self.db.error("checkpoint the log", e))
    }

    /// The last checkpoint before the connection closes, if all is where it was.
    pub(super) fn checkpoint_last(&self) {
        if self.spell.halted().is_none() && self.files.check().is_ok() {
            self.truncate();
        }
    }

    fn truncate(&self) {
        let waited = self.db.wait_for_locks(TRUNCATE_WAIT);
        let done = run(&self.db, "PRAGMA wal_checkpoint(TRUNCATE)");
        let restored = self.db.wait_for_locks(super::LOCK_WAIT);
        if let Err(error) = done {
            tracing::debug!(%error, "cannot cut the log back while others read it");
        }
        for error in [waited, restored].into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "cannot set the time to wait for locks");
        }
    }

    fn page_bytes(&self) -> i64 {
        let size = self.db.conn.pragma_query_value(None, "page_size", |row| row.get(0));
        size.unwrap_or(4096)
    }
}

/// Puts all of the log into the database; false when others read or write.
pub(super) fn empty(db: &Db) -> rusqlite::Result<bool> {
    let busy = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    Ok(db.statement("PRAGMA wal_checkpoint(TRUNCATE)")?.query_row([], busy)? == 0)
}

/// Runs a checkpoint; the pages in the log.
fn run(db: &Db, sql: &'static str) -> rusqlite::Result<i64> {
    db.statement(sql)?.query_row([], |row| row.get(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_writer_checkpoints_once_after_a_second() {
        let mut checkpoints = Checkpoints::default();
        let start = Instant::now();
        checkpoints.on_commit(start, 1);
        let later = start + Duration::from_millis(900);
        checkpoints.on_commit(later, 1);
        assert_eq!(checkpoints.due(), Some(later + IDLE));
        for _ in 0..COMMITS_MAX {
            checkpoints.on_commit(later, 1);
        }
        assert_eq!(checkpoints.due(), Some(later));
    }
}
