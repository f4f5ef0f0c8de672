//! What people ask for: cancel, retry, pause. Every answer says what happened to each job.

use super::enqueue::key_holder;
use super::{During, now_ms};
use crate::store::connection::Db;
use crate::store::error::Error;
use rusqlite::OptionalExtension;
use shiftboss_protocol::control::ActionTaken;
use shiftboss_protocol::job::{JobId, JobState};
use shiftboss_provider::operation::{Record, Resolution};

/// In `meta`: begins the key of a paused type.
const PAUSED: &str = "paused:";

/// What a cancel did.
#[derive(Debug, Default)]
pub(in crate::store) struct Cancelled {
    /// One per id.
    pub(in crate::store) actions: Vec<ActionTaken>,
    /// Running jobs whose owner must stop them: ours.
    pub(in crate::store) ours: Vec<JobId>,
}

/// Cancels waiting jobs at once and marks running ones. `us` is the id of the supervisor that
/// asks, none when there is none.
pub(in crate::store) fn cancel(
    db: &Db,
    us: Option<&str>,
    ids: &[JobId],
) -> Result<Cancelled, Error> {
    let now = now_ms();
    let mut done = Cancelled::default();
    for id in ids {
        let action =
            cancel_one(db, now, us, *id, &mut done.ours).during(db, &format!("cancel job {id}"))?;
        done.actions.push(action);
    }
    Ok(done)
}

fn cancel_one(
    db: &Db,
    now: i64,
    us: Option<&str>,
    id: JobId,
    ours: &mut Vec<JobId>,
) -> rusqlite::Result<ActionTaken> {
    let Some(found) = find(db, id)? else { return Ok(no_such(id)) };
    let (ok, message) = match found.state {
        Some(
            state
            @ (JobState::Blocked | JobState::Scheduled | JobState::Available | JobState::Held),
        ) => {
            db.statement(
                "UPDATE {p}jobs SET state = 'cancelled', finished_at = ?2,
                   cancel_requested_at = coalesce(cancel_requested_at, ?2) WHERE id = ?1",
            )?
            .execute((id.0, now))?;
            (true, format!("job {id} was {state}: cancelled"))
        }
        Some(JobState::Running) => {
            db.statement(
                "UPDATE {p}jobs SET cancel_requested_at = coalesce(cancel_requested_at, ?2)
                 WHERE id = ?1",
            )?
            .execute((id.0, now))?;
            let is_ours = us.is_some() && found.owner.as_deref() == us;
            let asked = if is_ours {
                ours.push(id);
                "asked its worker to stop it"
            } else if us.is_some() {
                "marked for cancellation, which the supervisor that runs it will see"
            } else {
                "marked for cancellation, its supervisor stops it, or gives it up when it starts \
                 again"
            };
            (true, format!("job {id} is running: {asked}"))
        }
        Some(JobState::Cancelled) => (true, format!("job {id} was cancelled before")),
        Some(state @ (JobState::Succeeded | JobState::Failed)) => {
            (false, format!("job {id} has already {state}: nothing to cancel"))
        }
        None => unknown_state(id),
    };
    Ok(ActionTaken { id, ok, message })
}

/// Makes ended and held jobs available again, with failures and crashes forgotten.
pub(in crate::store) fn retry(db: &Db, ids: &[JobId]) -> Result<Vec<ActionTaken>, Error> {
    let now = now_ms();
    ids.iter().map(|id| retry_one(db, now, *id)).collect()
}

fn retry_one(db: &Db, now: i64, id: JobId) -> Result<ActionTaken, Error> {
    let action = format!("retry job {id}");
    let Some(found) = find(db, id).during(db, &action)? else { return Ok(no_such(id)) };
    let (ok, message) = match found.state {
        Some(
            state @ (JobState::Held | JobState::Succeeded | JobState::Failed | JobState::Cancelled),
        ) => {
            let key = found.unique_key.as_deref().filter(|_| state.is_final());
            match key.map(|key| key_holder(db, key)).transpose()?.flatten() {
                Some(other) => (
                    false,
                    format!(
                        "job {id} has the unique key {:?}, and so has the unfinished job {other}: \
                         cancel job {other} or wait for its end",
                        key.unwrap_or_default()
                    ),
                ),
                None => {
                    make_available(db, now, id).during(db, &action)?;
                    (true, format!("job {id} was {state}: available again"))
                }
            }
        }
        Some(JobState::Available) => (true, format!("job {id} is available already")),
        Some(state @ (JobState::Blocked | JobState::Scheduled | JobState::Running)) => {
            (false, format!("job {id} is {state}: only an ended or held job can be retried"))
        }
        None => unknown_state(id),
    };
    Ok(ActionTaken { id, ok, message })
}

/// Writes a person's decision about an operation of unknown fate into its checkpoint, and makes
/// its job available again.
pub(in crate::store) fn resolve(
    db: &Db,
    id: JobId,
    how: &Resolution,
) -> Result<ActionTaken, Error> {
    let action = format!("resolve job {id}");
    let Some(found) = find(db, id).during(db, &action)? else { return Ok(no_such(id)) };
    let refused = |message: String| Ok(ActionTaken { id, ok: false, message });
    match found.state {
        Some(JobState::Held) => {}
        Some(state) => {
            return refused(format!(
                "job {id} is {state}: only a held job has something to decide"
            ));
        }
        None => return refused(unknown_state(id).1),
    }
    let stored: Option<Vec<u8>> = db
        .statement("SELECT checkpoint FROM {p}jobs WHERE id = ?1")
        .and_then(|mut statement| statement.query_row([id.0], |row| row.get(0)))
        .during(db, &action)?;
    let resolved = match Record::resolve(&stored.unwrap_or_default(), how.clone()) {
        Ok(resolved) => resolved,
        Err(why) => return refused(format!("job {id} cannot be resolved: {why}")),
    };
    let write = || {
        db.statement("UPDATE {p}jobs SET checkpoint = ?2 WHERE id = ?1")?.execute((id.0, resolved))
    };
    write().during(db, &action)?;
    make_available(db, now_ms(), id).during(db, &action)?;
    let message = match how {
        Resolution::Adopt(operation) => {
            format!("job {id} goes on as operation {operation}: available again")
        }
        Resolution::Resubmit => format!("job {id} will be submitted again: available again"),
    };
    Ok(ActionTaken { id, ok: true, message })
}

/// `last_error` stays until the next outcome. A checkpoint of a success would only resume at
/// its end; all others are work that need not be done twice.
fn make_available(db: &Db, now: i64, id: JobId) -> rusqlite::Result<usize> {
    db.statement(
        "UPDATE {p}jobs SET state = 'available', run_at = ?2, finished_at = NULL, failures = 0,
           crash_count = 0, cancel_requested_at = NULL, progress = NULL, progress_note = NULL,
           result = NULL, checkpoint = CASE WHEN state = 'succeeded' THEN NULL ELSE checkpoint END
         WHERE id = ?1",
    )?
    .execute((id.0, now))
}

/// Remembers or forgets that a type is paused.
pub(in crate::store) fn pause(db: &Db, job_type: &str, paused: bool) -> Result<(), Error> {
    let key = format!("{PAUSED}{job_type}");
    let write = || {
        if paused {
            let sql = "INSERT INTO {p}meta (key, value) VALUES (?1, '1')
                       ON CONFLICT (key) DO NOTHING";
            db.statement(sql)?.execute([key])
        } else {
            db.statement("DELETE FROM {p}meta WHERE key = ?1")?.execute([key])
        }
    };
    write().map(drop).during(db, &format!("store whether type {job_type:?} is paused"))
}

/// The types that are paused.
pub(in crate::store) fn paused(db: &Db) -> Result<Vec<String>, Error> {
    let read = || {
        // `;` is the character after `:`.
        let sql = "SELECT substr(key, 8) FROM {p}meta WHERE key >= 'paused:' AND key < 'paused;'";
        let mut statement = db.statement(sql)?;
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()
    };
    read().during(db, "read which types are paused")
}

struct Found {
    /// `None`: a word that this version does not know.
    state: Option<JobState>,
    owner: Option<String>,
    unique_key: Option<String>,
}

fn find(db: &Db, id: JobId) -> rusqlite::Result<Option<Found>> {
    db.statement("SELECT state, owner, unique_key FROM {p}jobs WHERE id = ?1")?
        .query_row([id.0], |row| {
            let state: String = row.get(0)?;
            Ok(Found {
                state: JobState::parse(&state),
                owner: row.get(1)?,
                unique_key: row.get(2)?,
            })
        })
        .optional()
}

fn no_such(id: JobId) -> ActionTaken {
    ActionTaken { id, ok: false, message: format!("no such job: {id}") }
}

fn unknown_state(id: JobId) -> (bool, String) {
    (false, format!("job {id} is in a state that this version does not know"))
}
