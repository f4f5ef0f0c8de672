//! Checkpoints of an attempt: sent in order, and waited for or not.

use super::{
    AttemptState, CHECKPOINTS_MAX, Inner, LAST_CHECKPOINT_WAIT, checkpoint_message, released,
};
use shiftboss_protocol::job::Failure;
use std::time::Duration;

impl AttemptState {
    pub(crate) fn checkpoint(&self, data: &[u8]) -> Result<(), Failure> {
        if self.outbox.is_unattached() {
            return Ok(());
        }
        let mut inner = self.lock();
        let number = self.push_checkpoint(&mut inner, data)?;
        loop {
            if inner.is_stale {
                return Err(released("this attempt is no longer the job's, nothing was stored"));
            }
            if inner.checkpoints_recorded >= number {
                return Ok(());
            }
            // Between two supervisors it waits: the next one hears of it.
            if self.outbox.is_closed() {
                return Err(released("the supervisor went before the checkpoint was recorded"));
            }
            let waited = inner.stopped_at.map(|stopped_at| stopped_at.elapsed());
            if waited.is_some_and(|waited| waited >= LAST_CHECKPOINT_WAIT) {
                return Err(released("the attempt must stop, its checkpoint was not recorded"));
            }
            // An attempt that need not stop has all the time that its own timeout leaves it.
            let wait = waited.map_or(Duration::from_secs(3600), |waited| {
                LAST_CHECKPOINT_WAIT.saturating_sub(waited)
            });
            (inner, _) = self
                .changed
                .wait_timeout(inner, wait)
                .expect("nothing panics while it holds an attempt's lock");
        }
    }

    /// Sends a checkpoint without waiting; [`Self::tell`] says who hears of its receipt.
    pub(crate) fn send_checkpoint(&self, data: &[u8]) -> Result<(), Failure> {
        self.push_checkpoint(&mut self.lock(), data).map(drop)
    }

    fn push_checkpoint(&self, inner: &mut Inner, data: &[u8]) -> Result<u64, Failure> {
        if inner.checkpoints.len() >= CHECKPOINTS_MAX {
            return Err(released("too many checkpoints of this attempt wait to be recorded"));
        }
        // Receipts come in the order of the messages, so that a number says which one is meant.
        let number = inner.checkpoints_recorded + inner.checkpoints.len() as u64 + 1;
        self.outbox.send(&checkpoint_message(self.key, data.to_vec()));
        inner.checkpoints.push_back(data.to_vec());
        Ok(number)
    }
}
