//! Supervisors that use this table: ours, others that live, and dead ones whose jobs come back.
//!
//! Whether one is alive is not known here: its lock file says so, and the caller asks.

use super::moves::apply_one;
use super::{During, ROWS_MAX, limit, now_ms, saturated};
use crate::store::connection::Db;
use crate::store::error::Error;
use crate::store::op::{Adoption, AttemptRecord, FencedMove, Move, RunningRow};
use rusqlite::{OptionalExtension, Row};
use shiftboss_protocol::job::{Attempt, JobId};

/// A row of `instances`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceRow {
    /// New at every start: the `owner` of what it claims.
    pub id: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Host name.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// Its program version.
    pub version: String,
    /// Unix milliseconds.
    pub started_at_ms: i64,
}

/// Another instance, and what it has in state running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherInstance {
    /// Its id.
    pub id: String,
    /// Its row; `None` when only its running jobs are left.
    pub row: Option<InstanceRow>,
    /// Its running jobs.
    pub running: Vec<OwnedJob>,
}

/// A running job of another instance, with what is needed to adopt it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedJob {
    /// The row.
    pub job: JobId,
    /// Its attempt.
    pub attempt: Attempt,
    /// The instance that it belongs to.
    pub owner: String,
    /// `attempts.instance`: the one that claimed it, before others took it over.
    pub instance: Option<String>,
    /// Its type.
    pub job_type: String,
    /// Failures so far.
    pub failures: u32,
    /// Crashes so far.
    pub crash_count: u32,
    /// The row's own bound of failures.
    pub attempts_max: Option<u32>,
    /// The row's own timeout, milliseconds.
    pub timeout_ms: Option<u64>,
    /// Start of the attempt, unix milliseconds.
    pub started_at_ms: i64,
    /// True: somebody set `cancel_requested_at`.
    pub cancel_requested: bool,
    /// `attempts.worker`.
    pub worker: Option<String>,
    /// `attempts.pid`.
    pub pid: Option<u32>,
}

/// Stores our row.
pub(in crate::store) fn insert(db: &Db, row: &InstanceRow) -> Result<(), Error> {
    let write = || {
        db.statement(
            "INSERT INTO {p}instances (id, boot_id, host, pid, version, started_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute((
            &row.id,
            &row.boot_id,
            &row.host,
            row.pid,
            &row.version,
            row.started_at_ms,
        ))
    };
    write().map(drop).during(db, &format!("register instance {}", row.id))
}

/// All instances but `us`, with their running jobs.
pub(in crate::store) fn others(db: &Db, us: &str) -> Result<Vec<OtherInstance>, Error> {
    let read = || {
        let mut statement = db.statement(
            "SELECT id FROM {p}instances WHERE id <> ?1
             UNION SELECT owner FROM {p}jobs WHERE state = 'running' AND owner <> ?1
             ORDER BY 1",
        )?;
        let ids = statement.query_map([us], |row| row.get(0))?;
        ids.map(|id| other(db, id?)).collect::<rusqlite::Result<_>>()
    };
    read().during(db, "list instances")
}

fn other(db: &Db, id: String) -> rusqlite::Result<OtherInstance> {
    let row = db
        .statement(
            "SELECT boot_id, host, pid, version, started_at FROM {p}instances WHERE id = ?1",
        )?
        .query_row([&id], |row| {
            Ok(InstanceRow {
                id: id.clone(),
                boot_id: row.get(0)?,
                host: row.get(1)?,
                pid: saturated(row.get(2)?),
                version: row.get(3)?,
                started_at_ms: row.get(4)?,
            })
        })
        .optional()?;
    let mut statement = db.statement(
        "SELECT jobs.id, jobs.attempt, jobs.type, jobs.failures, jobs.crash_count,
           jobs.max_attempts, jobs.timeout_ms, coalesce(jobs.started_at, 0),
           jobs.cancel_requested_at IS NOT NULL, attempts.worker, attempts.pid,
           attempts.instance, jobs.owner
         FROM {p}jobs AS jobs LEFT JOIN {p}attempts AS attempts
           ON attempts.job_id = jobs.id AND attempts.attempt = jobs.attempt
         WHERE jobs.state = 'running' AND jobs.owner = ?1",
    )?;
    let running = statement.query_map([&id], owned_job)?.collect::<Result<_, _>>()?;
    drop(statement);
    Ok(OtherInstance { id, row, running })
}

fn owned_job(row: &Row<'_>) -> rusqlite::Result<OwnedJob> {
    let timeout_ms: Option<i64> = row.get(6)?;
    Ok(OwnedJob {
        job: JobId(row.get(0)?),
        attempt: Attempt(saturated(row.get(1)?)),
        owner: row.get(12)?,
        instance: row.get(11)?,
        job_type: String::from_utf8_lossy(row.get_ref(2)?.as_bytes()?).into_owned(),
        failures: saturated(row.get(3)?),
        crash_count: saturated(row.get(4)?),
        attempts_max: row.get::<_, Option<i64>>(5)?.map(saturated),
        timeout_ms: timeout_ms.and_then(|ms| u64::try_from(ms).ok()),
        started_at_ms: row.get(7)?,
        cancel_requested: row.get(8)?,
        worker: row.get(9)?,
        pid: row.get::<_, Option<i64>>(10)?.map(saturated),
    })
}

/// The running jobs of this owner, read from an index alone.
pub(in crate::store) fn running(db: &Db, owner: &str) -> Result<Vec<RunningRow>, Error> {
    let read = || {
        let mut statement = db.statement(RUNNING)?;
        let rows = statement.query_map([owner], |row| {
            Ok(RunningRow {
                job: JobId(row.get(0)?),
                attempt: Attempt(saturated(row.get(1)?)),
                cancel_requested: row.get(2)?,
            })
        })?;
        rows.collect::<rusqlite::Result<_>>()
    };
    read().during(db, "read our running jobs")
}

pub(in crate::store) const RUNNING: &str = "SELECT id, attempt, cancel_requested_at IS NOT NULL
    FROM {p}jobs WHERE state = 'running' AND owner = ?1";

/// Makes running jobs of another instance ours; one answer per job, false when its fence did
/// not hold.
pub(in crate::store) fn adopt(
    db: &Db,
    us: &str,
    adoptions: &[Adoption],
) -> Result<Vec<bool>, Error> {
    let write = || {
        let mut statement = db.statement(
            "UPDATE {p}jobs SET owner = ?4
             WHERE id = ?1 AND state = 'running' AND attempt = ?2 AND owner = ?3",
        )?;
        let adopt = |one: &Adoption| {
            let changed = statement.execute((one.job.0, one.attempt.0, &one.owner, us))?;
            Ok(changed == 1)
        };
        adoptions.iter().map(adopt).collect::<rusqlite::Result<_>>()
    };
    write().during(db, "adopt running jobs")
}

/// Gives back a batch of running jobs of dead instances, nothing counted. Fewer than
/// [`ROWS_MAX`] means that none is left: then the rows of the dead are deleted too.
pub(in crate::store) fn rescue(db: &Db, dead: &[String]) -> Result<usize, Error> {
    let now = now_ms();
    let mut rescued = 0;
    for owner in dead {
        let action = format!("take back the jobs of instance {owner}");
        for (job, attempt) in owned_by(db, owner, ROWS_MAX - rescued).during(db, &action)? {
            let record = AttemptRecord {
                error: Some("its supervisor died".to_owned()),
                ..AttemptRecord::default()
            };
            let give_back = FencedMove { job, attempt, to: Move::GiveBack, record };
            if apply_one(db, now, owner, &give_back).during(db, &action)? {
                rescued += 1;
            }
        }
        if rescued >= ROWS_MAX {
            return Ok(rescued);
        }
        forget(db, owner).during(db, &action)?;
    }
    Ok(rescued)
}

fn owned_by(db: &Db, owner: &str, rows_max: usize) -> rusqlite::Result<Vec<(JobId, Attempt)>> {
    let mut statement = db.statement(
        "SELECT id, attempt FROM {p}jobs WHERE state = 'running' AND owner = ?1 LIMIT ?2",
    )?;
    let rows = statement.query_map((owner, limit(rows_max)), |row| {
        Ok((JobId(row.get(0)?), Attempt(saturated(row.get(1)?))))
    })?;
    rows.collect()
}

fn forget(db: &Db, owner: &str) -> rusqlite::Result<()> {
    db.statement("DELETE FROM {p}meta WHERE key = 'commit:' || ?1")?.execute([owner])?;
    db.statement("DELETE FROM {p}instances WHERE id = ?1")?.execute([owner])?;
    Ok(())
}
