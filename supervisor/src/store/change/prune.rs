//! Deleting what was kept long enough, a small batch at a time.

use super::{During, ROWS_MAX, limit};
use crate::store::connection::Db;
use crate::store::error::Error;
use shiftboss_protocol::job::{JobId, JobState};
use std::time::{Duration, Instant};

/// A batch of large rows ends here, so that its transaction stays short.
const WORK_MAX: Duration = Duration::from_millis(15);

/// Deletes jobs that ended before the time given for their state, with their attempts.
pub(in crate::store) fn prune(db: &Db, before: [(JobState, i64); 3]) -> Result<Vec<JobId>, Error> {
    let started = Instant::now();
    let mut deleted = Vec::new();
    for (state, before_ms) in before {
        let ids = old(db, state, before_ms, ROWS_MAX - deleted.len())
            .during(db, &format!("look for old {state} jobs"))?;
        for id in ids {
            delete(db, id).during(db, &format!("delete job {id}"))?;
            deleted.push(id);
            if started.elapsed() > WORK_MAX {
                return Ok(deleted);
            }
        }
    }
    Ok(deleted)
}

fn old(db: &Db, state: JobState, before_ms: i64, rows_max: usize) -> rusqlite::Result<Vec<JobId>> {
    let mut statement = db.statement(OLD)?;
    let ids = statement
        .query_map((state.as_str(), before_ms, limit(rows_max)), |row| row.get(0).map(JobId))?;
    ids.collect()
}

pub(in crate::store) const OLD: &str = "SELECT id FROM {p}jobs
    WHERE state = ?1 AND finished_at < ?2 ORDER BY finished_at LIMIT ?3";

fn delete(db: &Db, id: JobId) -> rusqlite::Result<()> {
    db.statement("DELETE FROM {p}attempts WHERE job_id = ?1")?.execute([id.0])?;
    db.statement("DELETE FROM {p}jobs WHERE id = ?1")?.execute([id.0])?;
    Ok(())
}
