//! While the database cannot be written: outcomes are kept, whoever waits for an answer gets
//! one, and the rest, which may be lost, is dropped, so that memory stays bounded.

use super::{Writer, answer, checkpoint, recheck};
use crate::store::error::{Error, chain};
use crate::store::files::Gone;
use crate::store::op::{Event, Op};
use std::time::{Duration, Instant};

/// How long a client's request waits for somebody else's lock: less than a client waits for
/// its answer. Any other trouble refuses it at once.
const REQUEST_WAIT: Duration = Duration::from_secs(20);

impl Writer {
    /// A write failed, or must not be tried: what is queued waits for its next try.
    pub(super) fn on_trouble(&mut self, error: &Error) {
        if !self.db.conn.is_autocommit()
            && let Err(error) = self.db.batch("ROLLBACK", "roll a group back")
        {
            tracing::warn!(error = chain(&error), "cannot roll a group back, trying again");
        }
        let now = Instant::now();
        let text = chain(error);
        if self.spell.on_trouble(now, &text) {
            self.send(Event::Trouble { text, needs_a_hand: error.needs_a_hand() });
        }
        if error.is_damage() {
            self.spell.halt();
            self.keep_log();
        }
        if let Error::Gone { what, .. } = error {
            self.save_log(*what);
        }
        if error.is_full() {
            self.make_room();
        }
        self.shed(now, error);
    }

    /// Files were made, deleted or moved beside the database: is it still there?
    pub(super) fn look_at_files(&mut self) {
        if !self.spell.is_on()
            && let Err(error) = self.files.check()
        {
            self.on_trouble(&error);
        }
    }

    /// What is not even queued: what may be lost, and requests that can only be refused.
    pub(super) fn turns_away(&self, op: &Op) -> bool {
        let may_be_lost = matches!(op, Op::Progress(_) | Op::Prune { .. });
        (may_be_lost && self.spell.is_on())
            || (answer::is_request(op) && self.spell.halted().is_some())
    }

    pub(super) fn turn_away(&mut self, mut op: Op) {
        let reason = self.spell.halted().unwrap_or_default().to_owned();
        answer::give_up(&mut op, Error::NotStored(reason));
        if let Op::Prune { .. } = op {
            self.send(Event::Pruned(Vec::new()));
        }
    }

    /// Refuses the requests that have waited long enough, and drops what may be lost.
    fn shed(&mut self, now: Instant, error: &Error) {
        let reason = chain(error);
        let in_doubt = self.doubt.as_ref().map_or(0, super::group::Doubt::len);
        let queue = std::mem::take(&mut self.queue);
        for (at, mut queued) in queue.into_iter().enumerate() {
            let is_late = now >= queued.since + REQUEST_WAIT;
            let is_refused = answer::is_request(&queued.op) && (is_late || !error.is_lock());
            if at < in_doubt {
                if is_late && !queued.is_abandoned {
                    answer::give_up(&mut queued.op, Error::Unknown(reason.clone()));
                    queued.is_abandoned = answer::is_request(&queued.op);
                }
                self.queue.push_back(queued);
            } else if is_refused {
                answer::give_up(&mut queued.op, Error::NotStored(reason.clone()));
            } else if self.turns_away(&queued.op) {
                self.turn_away(queued.op);
            } else {
                self.queue.push_back(queued);
            }
        }
    }

    /// The first operations of the queue were certainly not stored: requests among them fail.
    pub(super) fn refuse_undone(&mut self, count: usize) {
        let reason = self.spell.said().unwrap_or_default().to_owned();
        let later = self.queue.split_off(count.min(self.queue.len()));
        for mut queued in std::mem::replace(&mut self.queue, later).into_iter().rev() {
            if answer::is_request(&queued.op) {
                answer::give_up(&mut queued.op, Error::NotStored(reason.clone()));
            } else {
                self.queue.push_front(queued);
            }
        }
    }

    /// Tells whoever asked for something in a doubtful group that nobody knows what came of it.
    pub(super) fn give_up_doubtful(&mut self, reason: &str) {
        let in_doubt = self.doubt.as_ref().map_or(0, super::group::Doubt::len);
        for queued in self.queue.iter_mut().take(in_doubt).filter(|one| !one.is_abandoned) {
            answer::give_up(&mut queued.op, Error::Unknown(reason.to_owned()));
        }
    }

    /// On a full disk the log may still be used again from its beginning, once all of it is in
    /// the database: that needs room only for pages which are new there.
    fn make_room(&mut self) {
        if self.files.check().is_ok()
            && let Err(error) = self.checkpoint_passive()
        {
            tracing::debug!(error = chain(&error), "cannot empty the log of a full disk");
        }
    }

    /// The log and its database lie apart: SQLite would lay our log over any other database of
    /// that name, and lose it with a name of its own. So all of it goes into our database, which
    /// lies somewhere else or nowhere, as long as nobody can have written into the log for
    /// another one.
    fn save_log(&mut self, what: Gone) {
        self.keep_log();
        let is_ours = match what {
            Gone::Database | Gone::Log => true,
            Gone::Replaced => recheck::data_version(&self.db).is_ok_and(|it| it == self.version),
            Gone::LogReplaced => false,
        };
        if self.is_log_saved || !is_ours {
            return;
        }
        match checkpoint::empty(&self.db) {
            Ok(true) => {
                self.is_log_saved = true;
                tracing::info!("the log was put into the database that it belongs to");
            }
            Ok(false) => tracing::warn!("others read the log: it is saved a little later"),
            Err(error) => tracing::warn!(%error, "cannot save what the log holds"),
        }
    }

    /// The file of that name is left alone when this connection closes: it is another's.
    fn keep_log(&self) {
        if let Err(error) = self.db.keep_log_at_close() {
            tracing::warn!(error = chain(&error), "the log may be cut when the supervisor stops");
        }
    }
}
