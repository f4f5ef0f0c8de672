//! Questions on a read-only connection, each in one short transaction of its own.
//!
//! Holds no lock between two calls, so that a reader never keeps the log from being reset. A
//! reader works whether or not a supervisor has the database open.

use super::change::instances::{self, OtherInstance};
use super::connection::Db;
use super::error::Error;
use super::view;
use rusqlite::{OptionalExtension, ToSql};
use serde_json::Value;
use shiftboss_protocol::control::JobFilter;
use shiftboss_protocol::job::{JobId, JobState};
use std::path::Path;

/// Most jobs in one listing.
const LIMIT_MAX: u32 = 10_000;

/// Bytes of text in one listing: a supervisor that answers must stay small.
const LISTING_BYTES_MAX: usize = 32 << 20;

/// A read-only connection; may be sent to another thread, not shared by several.
#[derive(Debug)]
pub struct Reader {
    db: Db,
}

/// How many jobs of one type are in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The type.
    pub job_type: String,
    /// The state: available, scheduled, running or held.
    pub state: JobState,
    /// How many.
    pub count: i64,
}

impl Reader {
    /// Opens the database for reading.
    ///
    /// # Errors
    /// The file cannot be opened, or holds no job table of ours that this program knows.
    pub fn open(path: &Path, prefix: &str) -> Result<Self, Error> {
        Ok(Self { db: Db::open_reader(path, prefix)? })
    }

    /// The jobs that match, newest first, as [`view`] shows them.
    ///
    /// # Errors
    /// What SQLite says, or that the listing would take too much memory.
    pub fn jobs(&self, filter: &JobFilter) -> Result<Vec<Value>, Error> {
        let limit = filter.limit.clamp(1, LIMIT_MAX);
        let sql = listing_sql(&self.db, filter);
        let params: [(&str, &dyn ToSql); 3] = [
            (":state", &filter.state.map(JobState::as_str)),
            (":type", &filter.job_type),
            (":limit", &limit),
        ];
        let mut jobs = Vec::new();
        let mut bytes = 0;
        let mut list = || {
            let mut statement = self.db.conn.prepare_cached(&sql)?;
            let mut rows = statement.query(&params[..])?;
            while let Some(row) = rows.next()?
                && bytes <= LISTING_BYTES_MAX
            {
                bytes += view::text_bytes(row)?;
                jobs.push(view::job(row)?);
            }
            Ok(())
        };
        list().map_err(|e| self.db.error("list jobs", e))?;
        if bytes > LISTING_BYTES_MAX {
            let (count, mib) = (jobs.len(), LISTING_BYTES_MAX >> 20);
            return Err(Error::Refused(format!(
                "the newest {count} of these jobs hold more than {mib} MiB of text: ask for fewer \
                 with --limit"
            )));
        }
        Ok(jobs)
    }

    /// All instances but `us`, with their running jobs.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn other_instances(&self, us: &str) -> Result<Vec<OtherInstance>, Error> {
        instances::others(&self.db, us)
    }

    /// One job; `None` when there is none of that number.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn job(&self, id: JobId) -> Result<Option<Value>, Error> {
        let sql =
            format!("SELECT {} FROM {} WHERE id = ?1", view::SELECT_JOBS, self.db.table("jobs"));
        let read = || self.db.conn.prepare_cached(&sql)?.query_row([id.0], view::job).optional();
        read().map_err(|e| self.db.error(&format!("read job {id}"), e))
    }

    /// The attempts of a job, oldest first.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn attempts(&self, id: JobId) -> Result<Vec<Value>, Error> {
        let sql = format!(
            "SELECT {} FROM {} WHERE job_id = ?1 ORDER BY attempt",
            view::ATTEMPTS.join(", "),
            self.db.table("attempts")
        );
        let read = || {
            let mut statement = self.db.conn.prepare_cached(&sql)?;
            statement.query_map([id.0], view::attempt)?.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|e| self.db.error(&format!("read the attempts of job {id}"), e))
    }

    /// How many jobs wait, run or are held, by type. History is not looked at.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn counts(&self) -> Result<Vec<Count>, Error> {
        let mut counts = Vec::new();
        let unfinished =
            [JobState::Scheduled, JobState::Available, JobState::Running, JobState::Held];
        for state in unfinished {
            // The state stands in the text: a parameter could not choose the partial index.
            let sql = counting_sql(&self.db, state);
            let mut read = || {
                let mut statement = self.db.conn.prepare_cached(&sql)?;
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    let job_type = row.get_ref(0)?.as_bytes()?;
                    counts.push(Count {
                        job_type: String::from_utf8_lossy(job_type).into_owned(),
                        state,
                        count: row.get(1)?,
                    });
                }
                Ok(())
            };
            read().map_err(|e| self.db.error(&format!("count {state} jobs"), e))?;
        }
        Ok(counts)
    }

    /// How many jobs are in each final state. Reads an index over all of history: about a tenth
    /// of a second for a million jobs.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn final_counts(&self) -> Result<Vec<(JobState, i64)>, Error> {
        let mut counts = Vec::new();
        for state in JobState::ALL.into_iter().filter(|state| state.is_final()) {
            let read = || {
                let sql = "SELECT count(*) FROM {p}jobs
                           WHERE state = ?1 AND finished_at IS NOT NULL";
                self.db.statement(sql)?.query_row([state.as_str()], |row| row.get(0))
            };
            let count = read().map_err(|e| self.db.error(&format!("count {state} jobs"), e))?;
            counts.push((state, count));
        }
        Ok(counts)
    }

    /// A number that changes when another connection has committed.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn data_version(&self) -> Result<i64, Error> {
        let read = || self.db.statement("PRAGMA data_version")?.query_row([], |row| row.get(0));
        read().map_err(|e| self.db.error("read data_version", e))
    }
}

pub(super) fn counting_sql(db: &Db, state: JobState) -> String {
    let jobs = db.table("jobs");
    format!("SELECT type, count(*) FROM {jobs} WHERE state = '{state}' GROUP BY type ORDER BY type")
}

/// Newest first, by the cheapest way for each state: unfinished ones and the rarer final ones
/// through their indexes, the rest down the table from its end, which stops at the limit.
pub(super) fn listing_sql(db: &Db, filter: &JobFilter) -> String {
    let jobs = db.table("jobs");
    let by_type = if filter.job_type.is_some() { " AND type = :type" } else { "" };
    let condition = match filter.state {
        None => "TRUE".to_owned(),
        Some(JobState::Succeeded) => "+state = :state".to_owned(),
        Some(JobState::Failed | JobState::Cancelled) => {
            "state = :state AND finished_at IS NOT NULL".to_owned()
        }
        Some(
            state @ (JobState::Blocked
            | JobState::Scheduled
            | JobState::Available
            | JobState::Running
            | JobState::Held),
        ) => format!("state = '{state}'"),
    };
    // The names of unused parameters must stay in the text, or binding them would fail.
    format!(
        "SELECT {} FROM {jobs} WHERE id IN (SELECT id FROM {jobs} WHERE {condition}{by_type} \
         ORDER BY id DESC LIMIT :limit) AND (:state IS NULL OR TRUE) AND (:type IS NULL OR TRUE) \
         ORDER BY id DESC",
        view::SELECT_JOBS
    )
}
