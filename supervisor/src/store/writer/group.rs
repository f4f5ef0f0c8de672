//! Group commit: what is queued shares a transaction, each operation in a savepoint.
//!
//! Nothing leaves the queue before its commit is certain. An operation that fails by itself
//! fails alone; a database in trouble rolls the group back and the same group is tried again.

use super::{Answer, Queued, Writer};
use crate::os::failpoint::{self, Place};
use crate::store::change::take::{self, Writes};
use crate::store::error::Error;
use crate::store::op::{Event, Op};
use rusqlite::OptionalExtension;
use std::time::{Duration, Instant};

/// No operation is added to a transaction that has worked for this long.
const WORK_MAX: Duration = Duration::from_millis(20);
/// Most operations in one transaction.
const OPS_MAX: usize = 1024;

/// The answers of the operations at the head of the queue.
type Answers = Vec<Result<Answer, Error>>;

/// A group whose COMMIT failed after it may have landed: it is looked up before anything else.
pub(super) struct Doubt {
    answers: Answers,
    changes: u64,
}

impl Doubt {
    /// How many operations at the head of the queue it concerns.
    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }
}

impl Writer {
    /// Commits operations from the head of the queue, and answers them.
    pub(super) fn commit_group(&mut self) {
        match self.try_group() {
            Ok((answers, changes)) => self.on_committed(answers, changes),
            Err(error) => self.on_trouble(&error),
        }
    }

    fn on_committed(&mut self, answers: Answers, changes: u64) {
        let now = Instant::now();
        if let Some(spell) = self.spell.on_success(now) {
            let spell_ms = u64::try_from(spell.as_millis()).unwrap_or(u64::MAX);
            self.send(Event::TroubleOver(spell_ms));
            self.is_log_saved = false;
        }
        if changes > 0 {
            self.checkpoints.on_commit(now, changes);
        }
        let done: Vec<Queued> = self.queue.drain(..answers.len()).collect();
        for (queued, answer) in done.into_iter().zip(answers) {
            self.deliver(queued, answer);
        }
        self.recheck_after_group();
    }

    fn try_group(&mut self) -> Result<(Answers, u64), Error> {
        if !self.db.conn.is_autocommit() {
            self.db.batch("ROLLBACK", "roll a group back")?;
        }
        self.files.check()?;
        if let Some(doubt) = self.doubt.take()
            && let Some(landed) = self.resolve(doubt)?
        {
            return Ok(landed);
        }
        let size = self.queue.len().min(OPS_MAX);
        // Only something written and synced proves that a trouble is over.
        let proves = self.spell.is_on();
        if proves {
            self.set_synced(true)?;
        } else if let [Queued { op: Op::Take(request), .. }] = self.queue.make_contiguous() {
            match take::foresee(&self.db, request) {
                Ok(Writes::Nothing) => {
                    let taken = take::look(&self.db, request)?;
                    return Ok((vec![Ok(Answer::found(taken))], 0));
                }
                Ok(Writes::Unsynced) => self.set_synced(false)?,
                Ok(Writes::Synced) => self.set_synced(true)?,
                Err(error) if error.is_trouble() => return Err(error),
                Err(error) => return Ok((vec![Err(error)], 0)),
            }
        } else {
            let synced = self.queue.iter().take(size).any(|queued| needs_sync(&queued.op));
            self.set_synced(synced)?;
        }
        self.execute("BEGIN IMMEDIATE")?;
        let changes = self.db.conn.total_changes();
        let answers = self.run_ops(size)?;
        if self.db.conn.is_autocommit() {
            // The one operation of the group failed by itself and was rolled back.
            return Ok((answers, 0));
        }
        let changes = self.db.conn.total_changes() - changes;
        if changes > 0 || proves {
            self.mark_group()?;
            failpoint::reach(Place::Commit);
        }
        self.commit(answers, changes)
    }

    /// Sets `synchronous`, which SQLite allows outside of transactions only.
    fn set_synced(&mut self, synced: bool) -> Result<(), Error> {
        if self.is_synced != Some(synced) {
            self.db.pragma("synchronous", if synced { "FULL" } else { "NORMAL" })?;
            self.is_synced = Some(synced);
        }
        Ok(())
    }

    fn run_ops(&self, size: usize) -> Result<Answers, Error> {
        let started = Instant::now();
        let mut answers = Vec::new();
        for queued in self.queue.iter().take(size) {
            let answer = if size == 1 { self.run_alone(queued) } else { self.run_one(queued) };
            answers.push(answer?);
            if started.elapsed() > WORK_MAX {
                break;
            }
        }
        Ok(answers)
    }

    /// The inner error is the operation's own; the outer one concerns the whole group.
    fn run_alone(&self, queued: &Queued) -> Result<Result<Answer, Error>, Error> {
        match Answer::work_out(&self.db, &self.us, queued) {
            Err(error) if error.is_trouble() => Err(error),
            Err(error) => {
                if !self.db.conn.is_autocommit() {
                    self.execute("ROLLBACK")?;
                }
                Ok(Err(error))
            }
            Ok(answer) => Ok(Ok(answer)),
        }
    }

    fn run_one(&self, queued: &Queued) -> Result<Result<Answer, Error>, Error> {
        self.execute("SAVEPOINT op")?;
        let answer = Answer::work_out(&self.db, &self.us, queued);
        if let Err(error) = answer {
            // Some errors end the transaction itself: then the group's earlier operations are
            // gone too.
            if error.is_trouble() || self.db.conn.is_autocommit() {
                return Err(error);
            }
            self.execute("ROLLBACK TO op")?;
            self.execute("RELEASE op")?;
            return Ok(Err(error));
        }
        self.execute("RELEASE op")?;
        Ok(answer)
    }

    /// Numbers the group inside its own transaction, so that it can be looked up.
    fn mark_group(&mut self) -> Result<(), Error> {
        self.group += 1;
        let write = || {
            let sql = "INSERT INTO {p}meta (key, value) VALUES ('commit:' || ?1, ?2)
                       ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            self.db.statement(sql)?.execute((&self.us, self.group.to_string()))
        };
        write().map(drop).map_err(|e| self.db.error("number a group", e))
    }

    fn commit(&mut self, answers: Answers, changes: u64) -> Result<(Answers, u64), Error> {
        // Looked at again before anything is acknowledged: what was committed into a file that
        // nobody else can see is stored only if that file comes back.
        match self.commit_once().and_then(|()| self.files.check()) {
            Ok(()) => Ok((answers, changes)),
            Err(error) => {
                // A transaction that is still open certainly did not land.
                if self.db.conn.is_autocommit() && changes > 0 {
                    self.doubt = Some(Doubt { answers, changes });
                }
                Err(error)
            }
        }
    }

    fn commit_once(&mut self) -> Result<(), Error> {
        self.execute("COMMIT")?;
        #[cfg(test)]
        if let Some(happens) = self.after_commit.take() {
            happens().map_err(|e| self.db.error("COMMIT", e))?;
        }
        Ok(())
    }

    /// Reads whether a doubtful group landed: if it did, its answers hold; if not, requests are
    /// refused, and the other operations are still queued.
    fn resolve(&mut self, doubt: Doubt) -> Result<Option<(Answers, u64)>, Error> {
        let read = || {
            self.db
                .statement("SELECT value FROM {p}meta WHERE key = 'commit:' || ?1")?
                .query_row([&self.us], |row| row.get::<_, String>(0))
                .optional()
        };
        match read() {
            Ok(number) if number.as_deref() == Some(&self.group.to_string()) => {
                Ok(Some((doubt.answers, doubt.changes)))
            }
            Ok(_) => {
                self.refuse_undone(doubt.len());
                Ok(None)
            }
            Err(error) => {
                self.doubt = Some(doubt);
                Err(self.db.error("read whether a group was committed", error))
            }
        }
    }

    fn execute(&self, sql: &'static str) -> Result<(), Error> {
        let run = || self.db.statement(sql)?.execute([]);
        run().map(drop).map_err(|e| self.db.error(sql, e))
    }
}

/// True when power loss after the answer must not undo the operation.
fn needs_sync(op: &Op) -> bool {
    match op {
        Op::Enqueue(..)
        | Op::Move(_)
        | Op::Checkpoint { .. }
        | Op::Cancel(..)
        | Op::Retry(..)
        | Op::Resolve(..)
        | Op::Adopt(..)
        | Op::Pause { .. } => true,
        Op::Take(request) => take::may_sync(request),
        // Undone, they are done again. `Touched` and `Stop` are never queued.
        Op::Progress(_)
        | Op::Confined { .. }
        | Op::Rescue(..)
        | Op::Prune { .. }
        | Op::Touched
        | Op::Stop => false,
    }
}
