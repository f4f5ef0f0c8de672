//! New jobs from our own clients.

use super::{During, bounded};
use crate::store::connection::Db;
use crate::store::error::Error;
use rusqlite::OptionalExtension;
use shiftboss_protocol::control::NewJob;
use shiftboss_protocol::job::JobId;

/// Inserts jobs, all or none.
///
/// # Errors
/// [`Error::Refused`] names the job that the table refused, and why.
pub(in crate::store) fn enqueue(db: &Db, jobs: &[NewJob]) -> Result<Vec<JobId>, Error> {
    jobs.iter()
        .enumerate()
        .map(|(index, job)| {
            insert(db, job)
                .map_err(|e| refusal(db, job, e, &format!("{} of {}", index + 1, jobs.len())))
        })
        .collect()
}

fn insert(db: &Db, job: &NewJob) -> rusqlite::Result<JobId> {
    // A column that is left out gets the table's default, one that is NULL does not.
    let mut statement = db.statement(
        "INSERT INTO {p}jobs
           (type, payload, priority, run_at, max_attempts, timeout_ms, unique_key, tags)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let payload = if job.payload.is_empty() { "{}" } else { &job.payload };
    let timeout_ms = job.timeout_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
    statement
        .insert((
            &job.job_type,
            payload,
            job.priority,
            job.run_at,
            job.max_attempts,
            timeout_ms,
            &job.unique_key,
            &job.tags,
        ))
        .map(JobId)
}

fn refusal(db: &Db, job: &NewJob, error: rusqlite::Error, place: &str) -> Error {
    let failed = db.error("insert a job", error);
    if failed.is_trouble() {
        return failed;
    }
    let name = bounded(&job.job_type, 100);
    let holder = job.unique_key.as_deref().map(|key| key_holder(db, key)).transpose();
    let why = match (holder, &job.unique_key) {
        (Ok(Some(Some(other))), Some(key)) => {
            format!("the unfinished job {other} has the unique key {key:?}")
        }
        _ if job.job_type.is_empty() => "its type is empty".to_owned(),
        _ if job.max_attempts == Some(0) => "max_attempts = 0: must be at least 1".to_owned(),
        _ if job.timeout_ms == Some(0) => "timeout_ms = 0: must be at least 1".to_owned(),
        _ => crate::store::error::chain(&failed),
    };
    Error::Refused(format!("cannot insert job {place} (type {name:?}): {why}"))
}

/// The unfinished job that has this unique key.
pub(super) fn key_holder(db: &Db, key: &str) -> Result<Option<JobId>, Error> {
    let holder = || {
        let sql = "SELECT id FROM {p}jobs WHERE unique_key = ?1 AND finished_at IS NULL";
        db.statement(sql)?.query_row([key], |row| row.get(0).map(JobId)).optional()
    };
    holder().during(db, "look for a unique key")
}
