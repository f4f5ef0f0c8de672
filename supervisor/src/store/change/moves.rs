//! Moves of running jobs, each behind its fence, and what running jobs report meanwhile.
//!
//! The fence is `(id, attempt, owner)` of a row in state running. A move that finds it broken
//! changes no job; one that finds its attempt closed with the same outcome was stored before.

use super::{During, ERROR_BYTES_MAX, bounded, now_ms};
use crate::store::connection::Db;
use crate::store::error::Error;
use crate::store::op::{AttemptRecord, FencedMove, Move, Moved, ProgressRow};
use rusqlite::OptionalExtension;
use shiftboss_protocol::confine::TEXT_BYTES_MAX;
use shiftboss_protocol::job::{Attempt, Cause, JobId};

/// Longest note of a progress report, in bytes.
const NOTE_BYTES_MAX: usize = 1 << 10;

/// What a move writes.
struct Target<'a> {
    state: &'static str,
    outcome: &'static str,
    cause: Option<Cause>,
    run_at_ms: Option<i64>,
    failures: u32,
    crashes: u32,
    result: Option<&'a str>,
    progress: Option<f64>,
    /// True: the job would run again, unless somebody asked to cancel it meanwhile.
    yields_to_cancel: bool,
}

/// Moves running jobs of this owner.
pub(in crate::store) fn apply(
    db: &Db,
    owner: &str,
    moves: &[FencedMove],
) -> Result<Vec<Moved>, Error> {
    let now = now_ms();
    moves
        .iter()
        .map(|one| {
            let stale = !apply_one(db, now, owner, one).during(
                db,
                &format!("store the outcome of job {}, attempt {}", one.job, one.attempt),
            )?;
            Ok(Moved { job: one.job, attempt: one.attempt, stale })
        })
        .collect()
}

/// Moves one job; false when the fence did not hold.
pub(super) fn apply_one(
    db: &Db,
    now: i64,
    owner: &str,
    one: &FencedMove,
) -> rusqlite::Result<bool> {
    let target = target(&one.to, now);
    let error = one.record.error.as_deref().map(|text| bounded(text, ERROR_BYTES_MAX));
    let last_error = match one.to {
        Move::Succeed { .. } | Move::GiveBack => None,
        Move::Retry { .. }
        | Move::Fail
        | Move::Cancel
        | Move::Hold
        | Move::Crash
        | Move::Poison => error.as_deref(),
    };
    let mut statement = db.statement(
        "UPDATE {p}jobs SET
           state = CASE WHEN ?4 AND cancel_requested_at IS NOT NULL THEN 'cancelled' ELSE ?5 END,
           finished_at = CASE WHEN ?5 IN ('succeeded', 'failed', 'cancelled')
             OR ?4 AND cancel_requested_at IS NOT NULL THEN ?6 END,
           owner = NULL, run_at = coalesce(?7, run_at), failures = failures + ?8,
           crash_count = crash_count + ?9, result = coalesce(?10, result),
           progress = coalesce(?11, progress),
           last_error = CASE WHEN ?5 = 'succeeded' THEN NULL ELSE coalesce(?12, last_error) END
         WHERE id = ?1 AND state = 'running' AND attempt = ?2 AND owner = ?3
         RETURNING state = 'cancelled'",
    )?;
    let moved: Option<bool> = statement
        .query_row(
            (
                one.job.0,
                one.attempt.0,
                owner,
                target.yields_to_cancel,
                target.state,
                now,
                target.run_at_ms,
                target.failures,
                target.crashes,
                target.result,
                target.progress,
                last_error,
            ),
            |row| row.get(0),
        )
        .optional()?;
    match moved {
        Some(is_cancelled) => {
            let outcome = if is_cancelled { "cancelled" } else { target.outcome };
            close_attempt(db, now, one, (outcome, target.cause, error.as_deref()))?;
            Ok(true)
        }
        None if was_stored(db, one, &target)? => Ok(true),
        None => settle_stale(db, now, one, (target.outcome, target.cause, error.as_deref())),
    }
}

/// Latest progress; rows whose fence is broken are passed over.
pub(in crate::store) fn progress(db: &Db, owner: &str, rows: &[ProgressRow]) -> Result<(), Error> {
    let write = || {
        let mut statement = db.statement(
            "UPDATE {p}jobs SET progress = coalesce(?4, progress), progress_note = ?5
             WHERE id = ?1 AND state = 'running' AND attempt = ?2 AND owner = ?3",
        )?;
        for row in rows {
            let fraction =
                row.fraction.filter(|one| one.is_finite()).map(|one| one.clamp(0.0, 1.0));
            let note = bounded(&row.note, NOTE_BYTES_MAX);
            statement.execute((row.job.0, row.attempt.0, owner, fraction, note))?;
        }
        Ok(())
    };
    write().during(db, "store progress")
}

/// What confines the programs of an attempt; nothing happens when its fence is broken.
pub(in crate::store) fn confined(
    db: &Db,
    owner: &str,
    (job, attempt): (JobId, Attempt),
    confinement: &str,
) -> Result<(), Error> {
    let write = || {
        let mut statement = db.statement(
            "UPDATE {p}attempts SET confinement = ?4
             WHERE job_id = ?1 AND attempt = ?2 AND EXISTS (SELECT 1 FROM {p}jobs
               WHERE id = ?1 AND state = 'running' AND attempt = ?2 AND owner = ?3)",
        )?;
        let text = bounded(confinement, TEXT_BYTES_MAX);
        statement.execute((job.0, attempt.0, owner, text)).map(drop)
    };
    write().during(db, "store the confinement of an attempt")
}

/// Stores a checkpoint; false when the fence did not hold.
pub(in crate::store) fn checkpoint(
    db: &Db,
    owner: &str,
    (job, attempt): (JobId, Attempt),
    data: &[u8],
) -> Result<bool, Error> {
    let write = || {
        db.statement(
            "UPDATE {p}jobs SET checkpoint = ?4
             WHERE id = ?1 AND state = 'running' AND attempt = ?2 AND owner = ?3",
        )?
        .execute((job.0, attempt.0, owner, data))
    };
    let changed = write().during(db, &format!("store the checkpoint of job {job}"))?;
    Ok(changed == 1)
}

fn target(to: &Move, now: i64) -> Target<'_> {
    let plain = |state, outcome, cause| Target {
        state,
        outcome,
        cause,
        run_at_ms: None,
        failures: 0,
        crashes: 0,
        result: None,
        progress: None,
        yields_to_cancel: false,
    };
    match to {
        Move::Succeed { result } => Target {
            result: Some(result),
            progress: Some(1.0),
            ..plain("succeeded", "succeeded", None)
        },
        Move::Retry { run_at_ms } => Target {
            run_at_ms: Some(*run_at_ms),
            failures: 1,
            yields_to_cancel: true,
            ..plain(if *run_at_ms > now { "scheduled" } else { "available" }, "failed", None)
        },
        Move::Fail => Target { failures: 1, ..plain("failed", "failed", None) },
        Move::Cancel => plain("cancelled", "cancelled", Some(Cause::Cancelled)),
        Move::Hold => plain("held", "held", None),
        Move::GiveBack => Target {
            yields_to_cancel: true,
            ..plain("available", "released", Some(Cause::Released))
        },
        Move::Crash => Target {
            crashes: 1,
            yields_to_cancel: true,
            ..plain("available", "crashed", Some(Cause::Crash))
        },
        Move::Poison => Target { crashes: 1, ..plain("failed", "crashed", Some(Cause::Poison)) },
    }
}

type Ending<'a> = (&'static str, Option<Cause>, Option<&'a str>);

/// Closes the attempts row; changes nothing when it is closed already.
fn close_attempt(
    db: &Db,
    now: i64,
    one: &FencedMove,
    (outcome, cause, error): Ending<'_>,
) -> rusqlite::Result<usize> {
    let AttemptRecord { cause: own, exit_code, signal, usage, throttled_ms, error: _ } =
        &one.record;
    let cause = own.or(cause).map(Cause::as_str);
    let signed = |number: Option<u64>| number.map(|one| i64::try_from(one).unwrap_or(i64::MAX));
    db.statement(
        "UPDATE {p}attempts SET ended_at = ?3, outcome = ?4, cause = ?5, exit_code = ?6,
           signal = ?7, cpu_ms = ?8, memory_peak = ?9, error = ?10, throttled_ms = ?11
         WHERE job_id = ?1 AND attempt = ?2 AND ended_at IS NULL",
    )?
    .execute((
        one.job.0,
        one.attempt.0,
        now,
        outcome,
        cause,
        exit_code,
        signal,
        signed(usage.cpu_ms),
        signed(usage.memory_peak_bytes),
        error,
        signed(*throttled_ms),
    ))
}

/// True when this very move was committed before, and only its acknowledgement was lost.
fn was_stored(db: &Db, one: &FencedMove, target: &Target<'_>) -> rusqlite::Result<bool> {
    let outcome = db
        .statement("SELECT outcome FROM {p}attempts WHERE job_id = ?1 AND attempt = ?2")?
        .query_row((one.job.0, one.attempt.0), |row| row.get::<_, Option<String>>(0))
        .optional()?
        .flatten();
    let is_same =
        |word: &str| word == target.outcome || target.yields_to_cancel && word == "cancelled";
    Ok(outcome.is_some_and(|word| is_same(&word)))
}

/// The job went elsewhere under its attempt (deleted, or changed by hand): no attempts row may
/// stay open, and none may outlive its job. One that a later supervisor adopted is left alone.
fn settle_stale(db: &Db, now: i64, one: &FencedMove, ending: Ending<'_>) -> rusqlite::Result<bool> {
    let found = db
        .statement("SELECT state = 'running' AND attempt = ?2 FROM {p}jobs WHERE id = ?1")?
        .query_row((one.job.0, one.attempt.0), |row| row.get::<_, bool>(0))
        .optional()?;
    match found {
        Some(true) => {}
        Some(false) => {
            close_attempt(db, now, one, ending)?;
        }
        None => {
            db.statement("DELETE FROM {p}attempts WHERE job_id = ?1")?.execute([one.job.0])?;
        }
    }
    Ok(false)
}
