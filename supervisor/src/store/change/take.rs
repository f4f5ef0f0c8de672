//! One look at the table: what is due becomes available, what fits is claimed.
//!
//! Which rows are claimed is the policy's choice ([`choose`]); here they are found and moved.
//! All bounds are per look: what is left over is said by [`Taken::more`].

use super::moves::apply_one;
use super::{During, ROWS_MAX, bounded, limit, saturated};
use crate::policy::claim::{
    Candidate, Offer, TakeRequest, Taken, TakenJob, TypeName, WorkerId, choose,
};
use crate::store::connection::Db;
use crate::store::error::Error;
use crate::store::op::{AttemptRecord, FencedMove, Move, Parcel};
use rusqlite::OptionalExtension;
use shiftboss_protocol::job::{Attempt, Cause, JobId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Claiming rows with large payloads ends here, so that the transaction stays short.
const WORK_MAX: Duration = Duration::from_millis(15);

/// What a look would write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Writes {
    /// Nothing: it needs no write transaction.
    Nothing,
    /// Rows whose loss by a power cut is harmless.
    Unsynced,
    /// Claims that must be on disk before they are acted on.
    Synced,
}

/// What [`take`] would write, found by reading alone: the common poll writes nothing.
pub(in crate::store) fn foresee(db: &Db, request: &TakeRequest) -> Result<Writes, Error> {
    let look = || -> rusqlite::Result<Writes> {
        let any = request.offers.iter().any(|offer| is_synced(request, &offer.job_type));
        let due = next_due(db)?.is_some_and(|due| due <= request.now_ms);
        if due && any {
            return Ok(Writes::Synced);
        }
        let candidates = candidates(db, request)?;
        let chosen: BTreeSet<JobId> =
            choose(request, &candidates).into_iter().map(|(job, _)| job).collect();
        let mut chosen = candidates.iter().filter(|one| chosen.contains(&one.job)).peekable();
        let claims = chosen.peek().is_some();
        if chosen.any(|one| is_synced(request, &one.job_type)) {
            return Ok(Writes::Synced);
        }
        let writes = due || claims || unknown_type(db, request)?.is_some();
        Ok(if writes { Writes::Unsynced } else { Writes::Nothing })
    };
    look().during(db, "look for due jobs")
}

/// What a look may have to sync, when the table cannot be asked first.
pub(in crate::store) fn may_sync(request: &TakeRequest) -> bool {
    request.offers.iter().any(|offer| is_synced(request, &offer.job_type))
}

fn is_synced(request: &TakeRequest, job_type: &str) -> bool {
    request.types.get(job_type).is_none_or(|look| look.sync)
}

/// Takes a look, on behalf of the instance `us`.
pub(in crate::store) fn take(
    db: &Db,
    us: &str,
    request: &TakeRequest,
) -> Result<(Taken, Vec<Parcel>), Error> {
    let started = Instant::now();
    let (mut taken, mut parcels) = (Taken::default(), Vec::new());
    promote(db, request, &mut taken).during(db, "make due jobs available")?;
    fail_unknown(db, request, &mut taken).during(db, "fail jobs of unknown types")?;
    let candidates = candidates(db, request).during(db, "look for available jobs")?;
    let mut chosen = choose(request, &candidates);
    let named: usize = request.offers.iter().map(|offer| offer.only.len()).sum();
    taken.more |= named > ROWS_MAX || chosen.len() > ROWS_MAX;
    chosen.truncate(ROWS_MAX);
    // Read here, not taken from the request: an outcome stored a moment ago in this very
    // commit must not end after its successor has started.
    let started_at = super::now_ms();
    for (job, worker) in chosen {
        // One at least: else a look that takes long by itself would be cut short for ever.
        if started.elapsed() > WORK_MAX && !taken.jobs.is_empty() {
            taken.more = true;
            break;
        }
        let Some(offer) = request.offers.iter().find(|offer| offer.worker == worker) else {
            continue;
        };
        let claimed = claim(db, started_at, us, (job, offer));
        match claimed.during(db, &format!("claim job {job}"))? {
            Some((job, parcel)) => {
                taken.jobs.push(job);
                parcels.push(parcel);
            }
            // It failed in its claim, and others may wait for the room that it was chosen for.
            None => taken.more = true,
        }
    }
    report(db, request, &mut taken).during(db, "count waiting jobs")?;
    Ok((taken, parcels))
}

/// The answer to a look that writes nothing.
pub(in crate::store) fn look(db: &Db, request: &TakeRequest) -> Result<Taken, Error> {
    let mut taken = Taken::default();
    report(db, request, &mut taken).during(db, "count waiting jobs")?;
    Ok(taken)
}

fn promote(db: &Db, request: &TakeRequest, taken: &mut Taken) -> rusqlite::Result<()> {
    let promoted = db.statement(PROMOTE)?.execute((request.now_ms, limit(ROWS_MAX)))?;
    taken.promoted = u32::try_from(promoted).unwrap_or(u32::MAX);
    taken.more |= promoted == ROWS_MAX;
    Ok(())
}

pub(in crate::store) const PROMOTE: &str = "UPDATE {p}jobs SET state = 'available' WHERE id IN
    (SELECT id FROM {p}jobs WHERE state = 'scheduled' AND run_at <= ?1 ORDER BY run_at LIMIT ?2)";

/// A configured type is needed to run a job, so a row without one can only fail, and does so at
/// once and alone.
fn fail_unknown(db: &Db, request: &TakeRequest, taken: &mut Taken) -> rusqlite::Result<()> {
    let mut left = ROWS_MAX;
    while let Some(name) = unknown_type(db, request)? {
        if left == 0 {
            taken.more = true;
            break;
        }
        let known: Vec<&str> = request.types.keys().map(|name| &**name).collect();
        let shown = String::from_utf8_lossy(&name);
        let error = format!(
            "unknown type {:?}: the configured types are {}",
            bounded(&shown, 200),
            bounded(&known.join(", "), 2000)
        );
        let failed =
            db.statement(FAIL_UNKNOWN)?.execute((&name, limit(left), request.now_ms, error))?;
        left -= failed.min(left);
    }
    taken.unknown_failed = u32::try_from(ROWS_MAX - left).unwrap_or(u32::MAX);
    Ok(())
}

pub(in crate::store) const FAIL_UNKNOWN: &str = "UPDATE {p}jobs
    SET state = 'failed', finished_at = ?3, last_error = ?4
    WHERE id IN (SELECT id FROM {p}jobs
      WHERE state = 'available' AND type = CAST(?1 AS TEXT) LIMIT ?2)";

/// The first type with available rows that is not configured, as its bytes: text that another
/// program stored need not be UTF-8. One seek per distinct type, not one step per row.
fn unknown_type(db: &Db, request: &TakeRequest) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut after = Vec::new();
    loop {
        let next = db
            .statement(NEXT_TYPE)?
            .query_row([&after], |row| Ok(row.get_ref(0)?.as_bytes()?.to_vec()))
            .optional()?;
        let Some(name) = next else { return Ok(None) };
        let is_known =
            std::str::from_utf8(&name).is_ok_and(|name| request.types.contains_key(name));
        if !is_known {
            return Ok(Some(name));
        }
        after = name;
    }
}

pub(in crate::store) const NEXT_TYPE: &str = "SELECT type FROM {p}jobs
    WHERE state = 'available' AND type > CAST(?1 AS TEXT) ORDER BY type LIMIT 1";

/// Rows that the offers could take: the best of each offered type, and the named suspects, of
/// those no more than can be claimed at once.
fn candidates(db: &Db, request: &TakeRequest) -> rusqlite::Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    let mut suspects = BTreeSet::new();
    let mut room = BTreeMap::<&TypeName, usize>::new();
    for offer in &request.offers {
        if offer.only.is_empty() {
            let room = room.entry(&offer.job_type).or_default();
            *room = room.saturating_add(offer.room as usize);
        }
        for job in &offer.only {
            if suspects.len() < ROWS_MAX && suspects.insert(*job) {
                candidates.extend(suspect(db, *job, &offer.job_type)?);
            }
        }
    }
    for (job_type, room) in room {
        let total = match (request.room_total, request.types.get(job_type)) {
            (Some(total), Some(look)) if look.counts_in_total => total as usize,
            (Some(_) | None, Some(_) | None) => usize::MAX,
        };
        // One more than can be claimed tells that something is left.
        let room = room.min(total).min(ROWS_MAX + 1);
        if room == 0 {
            continue;
        }
        let rows_max = limit(room + request.avoid.len() + suspects.len());
        let mut statement = db.statement(CANDIDATES)?;
        let mut rows = statement.query((&**job_type, rows_max))?;
        while let Some(row) = rows.next()? {
            let job = JobId(row.get(0)?);
            if !suspects.contains(&job) {
                candidates.push(Candidate {
                    job,
                    job_type: job_type.clone(),
                    priority: row.get(1)?,
                    run_at_ms: row.get::<_, Option<i64>>(2)?.unwrap_or(0),
                });
            }
        }
    }
    Ok(candidates)
}

pub(in crate::store) const CANDIDATES: &str = "SELECT id, priority, run_at FROM {p}jobs
    WHERE state = 'available' AND type = ?1 ORDER BY priority DESC, run_at, id LIMIT ?2";

fn suspect(db: &Db, job: JobId, job_type: &TypeName) -> rusqlite::Result<Option<Candidate>> {
    db.statement(
        "SELECT priority, coalesce(run_at, 0) FROM {p}jobs
         WHERE id = ?1 AND state = 'available' AND type = ?2",
    )?
    .query_row((job.0, &**job_type), |row| {
        Ok(Candidate {
            job,
            job_type: job_type.clone(),
            priority: row.get(0)?,
            run_at_ms: row.get(1)?,
        })
    })
    .optional()
}

/// A claimed row, as it was before.
struct Claimed {
    job: TakenJob,
    payload: Vec<u8>,
    checkpoint: Option<Vec<u8>>,
}

/// Claims one row; `None` when it cannot be given to a worker.
fn claim(
    db: &Db,
    now: i64,
    us: &str,
    (job, offer): (JobId, &Offer),
) -> rusqlite::Result<Option<(TakenJob, Parcel)>> {
    let Some(claimed) = mark_running(db, now, us, (job, offer))? else { return Ok(None) };
    begin_attempt(db, now, us, &claimed.job, offer)?;
    let Claimed { job, payload, checkpoint } = claimed;
    match String::from_utf8(payload) {
        Ok(payload) => Ok(Some((job, Parcel { payload, checkpoint }))),
        Err(error) => {
            refuse_payload(db, now, us, &job, &error)?;
            Ok(None)
        }
    }
}

/// The attempt goes on from the attempts rows too: a row that was deleted and inserted again
/// under its number must not repeat the fence of an attempt that may still run.
fn mark_running(
    db: &Db,
    now: i64,
    us: &str,
    (job, offer): (JobId, &Offer),
) -> rusqlite::Result<Option<Claimed>> {
    let mut statement = db.statement(
        "UPDATE {p}jobs SET state = 'running', owner = ?2, started_at = ?3,
           attempt = 1 + max(attempt,
             coalesce((SELECT max(attempt) FROM {p}attempts WHERE job_id = ?1), 0)),
           cancel_requested_at = NULL, progress = NULL, progress_note = NULL
         WHERE id = ?1 AND state = 'available'
         RETURNING attempt, failures, crash_count, max_attempts, timeout_ms, payload, checkpoint",
    )?;
    statement
        .query_row((job.0, us, now), |row| {
            let timeout_ms: Option<i64> = row.get(4)?;
            let job = TakenJob {
                job,
                attempt: Attempt(saturated(row.get(0)?)),
                job_type: offer.job_type.clone(),
                worker: WorkerId(offer.worker.0),
                failures: saturated(row.get(1)?),
                crash_count: saturated(row.get(2)?),
                attempts_max: row.get::<_, Option<i64>>(3)?.map(saturated),
                timeout_ms: timeout_ms.and_then(|ms| u64::try_from(ms).ok()),
            };
            let payload = row.get_ref(5)?.as_bytes()?.to_vec();
            Ok(Claimed { job, payload, checkpoint: row.get(6)? })
        })
        .optional()
}

fn begin_attempt(
    db: &Db,
    now: i64,
    us: &str,
    job: &TakenJob,
    offer: &Offer,
) -> rusqlite::Result<()> {
    db.statement(
        "INSERT INTO {p}attempts (job_id, attempt, instance, worker, pid, started_at, confinement)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((
        job.job.0,
        job.attempt.0,
        us,
        offer.worker.to_string(),
        offer.pid,
        now,
        &*offer.confinement,
    ))?;
    Ok(())
}

fn refuse_payload(
    db: &Db,
    now: i64,
    us: &str,
    job: &TakenJob,
    error: &std::string::FromUtf8Error,
) -> rusqlite::Result<()> {
    let record = AttemptRecord {
        cause: Some(Cause::Payload),
        error: Some(format!("payload: is not valid UTF-8 ({})", error.utf8_error())),
        ..AttemptRecord::default()
    };
    let fail = FencedMove { job: job.job, attempt: job.attempt, to: Move::Fail, record };
    apply_one(db, now, us, &fail).map(drop)
}

/// What is left: waiting jobs by type, and when the next one is due.
fn report(db: &Db, request: &TakeRequest, taken: &mut Taken) -> rusqlite::Result<()> {
    for (name, look) in request.types.iter().filter(|(_, look)| look.count_max > 0) {
        let waiting = db
            .statement(WAITING)?
            .query_row((&**name, look.count_max), |row| row.get::<_, u32>(0))?;
        if waiting > 0 {
            taken.waiting.insert(name.clone(), waiting);
        }
    }
    taken.next_due_ms = next_due(db)?;
    Ok(())
}

pub(in crate::store) const WAITING: &str = "SELECT count(*) FROM
    (SELECT 1 FROM {p}jobs WHERE state = 'available' AND type = ?1 LIMIT ?2)";

fn next_due(db: &Db) -> rusqlite::Result<Option<i64>> {
    db.statement(NEXT_DUE)?.query_row([], |row| row.get(0)).optional()
}

pub(in crate::store) const NEXT_DUE: &str = "SELECT run_at FROM {p}jobs
    WHERE state = 'scheduled' AND run_at IS NOT NULL ORDER BY run_at LIMIT 1";
