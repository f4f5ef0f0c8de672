//! Changes without a supervisor: for a command line that finds none.
//!
//! Each call is one synced transaction on a connection of its own. A supervisor that runs all
//! the same sees it like any other program's commit.

use super::change::{enqueue, requests};
use super::connection::{Db, OpenOptions};
use super::error::Error;
use shiftboss_protocol::control::{ActionTaken, NewJob};
use shiftboss_protocol::job::JobId;
use shiftboss_provider::operation::Resolution;

/// A connection for single changes.
#[derive(Debug)]
pub struct Direct {
    db: Db,
}

impl Direct {
    /// Opens the database, and makes the tables when it has none.
    ///
    /// # Errors
    /// The database cannot be opened, or is refused with its remedy.
    pub fn open(options: &OpenOptions) -> Result<Self, Error> {
        Ok(Self { db: Db::open_writer(options)? })
    }

    /// Inserts jobs, all or none; they are on disk before this returns.
    ///
    /// # Errors
    /// [`Error::Refused`] names the job that the table refused; else what SQLite says.
    pub fn enqueue(&self, jobs: &[NewJob]) -> Result<Vec<JobId>, Error> {
        self.write("insert jobs", |db| enqueue::enqueue(db, jobs))
    }

    /// Cancels waiting jobs; running ones are marked, for their supervisor to see.
    ///
    /// # Errors
    /// What SQLite says; a job that cannot be cancelled is told in its answer.
    pub fn cancel(&self, ids: &[JobId]) -> Result<Vec<ActionTaken>, Error> {
        self.write("cancel jobs", |db| Ok(requests::cancel(db, None, ids)?.actions))
    }

    /// Makes ended and held jobs available again.
    ///
    /// # Errors
    /// What SQLite says; a job that cannot be retried is told in its answer.
    pub fn retry(&self, ids: &[JobId]) -> Result<Vec<ActionTaken>, Error> {
        self.write("retry jobs", |db| requests::retry(db, ids))
    }

    /// Writes a person's decision about a held operation, and makes its job available again.
    ///
    /// # Errors
    /// What SQLite says; a job that cannot be resolved is told in its answer.
    pub fn resolve(&self, id: JobId, how: &Resolution) -> Result<Vec<ActionTaken>, Error> {
        self.write("resolve a job", |db| Ok(vec![requests::resolve(db, id, how)?]))
    }

    fn write<T>(
        &self,
        action: &str,
        change: impl FnOnce(&Db) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.db.batch("BEGIN IMMEDIATE", action)?;
        let done = change(&self.db).and_then(|answer| {
            self.db.batch("COMMIT", action)?;
            Ok(answer)
        });
        if done.is_err() && !self.db.conn.is_autocommit() {
            self.db.batch("ROLLBACK", action)?;
        }
        done
    }
}
