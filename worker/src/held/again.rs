//! Between two supervisors: what changes when one has gone, and what the next one is told.

use super::Held;
use crate::attempt::{Key, Paused};
use crate::connection::Frames;
use crate::serve::life::Limits;
use shiftboss_protocol::message::{Ready, Settings, WorkerMessage};
use std::sync::Arc;

impl Held {
    /// The connection has ended. From here on outcomes go to disk, also those that have been
    /// told and not been recorded. Says what the supervisor that has gone allowed.
    pub(crate) fn on_lost(&self, connection: u64) -> Limits {
        self.outbox.detach(connection);
        let mut entries = self.lock();
        entries.is_orphaned = true;
        if !entries.by_key.is_empty() {
            self.outcomes.wake();
        }
        Limits::of(&entries.settings)
    }

    /// What Hello says is held. Nothing is added to it before there is a supervisor again, and
    /// nothing taken away.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.lock().by_key.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    /// Takes a supervisor that has said Welcome: says Ready and everything that it has not
    /// heard, before anything new. Returns the number of the connection; `None` when the worker
    /// has given up.
    ///
    /// Every attempt is paused meanwhile, so that each thing is said once: here, or by the
    /// attempt itself after this.
    pub(crate) fn resume(&self, settings: Settings, ready: &Ready) -> Option<u64> {
        let mut entries = self.lock();
        let mut sorted: Vec<_> = entries.by_key.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| **key);
        let mut held: Vec<_> = sorted
            .into_iter()
            .map(|(_, entry)| (entry.state.pause(), entry.finished.as_ref()))
            .collect();
        let frames = say_again(&settings.owner, ready, &mut held);
        let connection = self.outbox.attach(frames)?;
        drop(held);
        entries.is_orphaned = false;
        entries.settings = Arc::new(settings);
        Some(connection)
    }
}

fn say_again(
    owner: &str,
    ready: &Ready,
    held: &mut [(Paused<'_>, Option<&WorkerMessage>)],
) -> Frames {
    let mut frames = Frames::default();
    frames.push(&WorkerMessage::Ready(ready.clone()));
    for (attempt, _) in &mut *held {
        attempt.adopt(owner);
        attempt.say_launchers(&mut frames);
        attempt.say_confinement(&mut frames);
    }
    for (attempt, finished) in &*held {
        if let Some(finished) = finished {
            // A checkpoint that was waited for in vain may be worth most when the attempt was
            // stopped; nothing is said of an attempt after its end.
            attempt.say_checkpoints(&mut frames);
            frames.push(finished);
        }
    }
    for (attempt, _) in held.iter_mut().filter(|(_, finished)| finished.is_none()) {
        attempt.say_checkpoints(&mut frames);
        attempt.say_progress(&mut frames);
    }
    frames
}
