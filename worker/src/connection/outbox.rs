//! What waits to be written to the supervisor, gathered from many threads into few writes.
//!
//! It outlives its connections: while there is none, what is said is dropped, because those who
//! must be heard say it again to the next supervisor.

use super::Writer;
use shiftboss_protocol::frame;
use shiftboss_protocol::message::WorkerMessage;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Log lines are dropped while more than this waits to be written, bytes.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Never blocks those who send: a thread per connection writes, and what is said during a write
/// goes out together with the next.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: Vec<u8>,
    is_writing: bool,
    contact: Contact,
    /// The number of the latest connection: a thread that still writes to an older one must
    /// touch nothing here.
    connection: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Contact {
    /// Between two supervisors. Ended by the next one, or by giving up.
    #[default]
    Detached,
    /// A connection takes what is said. Ended by its loss.
    Attached,
    /// No supervisor will come any more.
    Closed,
    /// There never was one: for tests of workloads.
    Unattached,
}

/// Messages that are said together.
#[derive(Debug, Default)]
pub(crate) struct Frames(Vec<u8>);

impl Frames {
    pub(crate) fn push(&mut self, message: &WorkerMessage) {
        self.0.extend_from_slice(&encode(message));
    }
}

fn encode(message: &WorkerMessage) -> Vec<u8> {
    frame::encode(message).expect("every part of a message is bounded")
}

impl Outbox {
    /// An outbox without a supervisor: it takes everything and keeps nothing.
    pub(crate) fn unattached() -> Self {
        let waiting = Waiting { contact: Contact::Unattached, ..Waiting::default() };
        Self { waiting: Mutex::new(waiting), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds the outbox")
    }

    pub(crate) fn send(&self, message: &WorkerMessage) {
        self.push(message, usize::MAX);
    }

    /// Sends what may be lost: it is dropped while too much waits.
    pub(crate) fn send_unless_full(&self, message: &WorkerMessage) {
        self.push(message, WAITING_BYTES_MAX);
    }

    fn push(&self, message: &WorkerMessage, waiting_bytes_max: usize) {
        let frame = encode(message);
        let mut waiting = self.lock();
        if waiting.contact != Contact::Attached || waiting.frames.len() > waiting_bytes_max {
            return;
        }
        let was_empty = waiting.frames.is_empty();
        waiting.frames.extend_from_slice(&frame);
        let must_wake = was_empty && !waiting.is_writing;
        drop(waiting);
        if must_wake {
            self.changed.notify_all();
        }
    }

    /// Opens for a new connection, on which `first` is said before anything else. Returns its
    /// number; `None` when nobody is to be spoken to any more.
    pub(crate) fn attach(&self, first: Frames) -> Option<u64> {
        let Frames(frames) = first;
        let mut waiting = self.lock();
        if waiting.contact == Contact::Closed {
            return None;
        }
        let connection = waiting.connection + 1;
        *waiting = Waiting { frames, is_writing: false, contact: Contact::Attached, connection };
        Some(connection)
    }

    /// A connection has ended: what was not written is dropped.
    pub(crate) fn detach(&self, connection: u64) {
        let mut waiting = self.lock();
        if waiting.connection == connection && waiting.contact == Contact::Attached {
            waiting.contact = Contact::Detached;
            waiting.is_writing = false;
            waiting.frames = Vec::new();
        }
        drop(waiting);
        self.changed.notify_all();
    }

    /// Writes until this connection has ended or fails.
    pub(crate) fn write_all(&self, connection: u64, writer: &Writer) {
        let mut frames = Vec::new();
        loop {
            let mut waiting = self.lock();
            while waiting.takes(connection) && waiting.frames.is_empty() {
                waiting.is_writing = false;
                self.changed.notify_all();
                waiting = self.wait(waiting, Duration::MAX);
            }
            if !waiting.takes(connection) {
                return;
            }
            frames.clear();
            std::mem::swap(&mut frames, &mut waiting.frames);
            waiting.is_writing = true;
            drop(waiting);
            // The reader sees the end of the connection too and tells what it means.
            if writer.write(&frames).is_err() {
                self.detach(connection);
                return;
            }
            if frames.capacity() > WAITING_BYTES_MAX {
                frames = Vec::new();
            }
        }
    }

    fn wait<'a>(
        &self,
        waiting: MutexGuard<'a, Waiting>,
        timeout: Duration,
    ) -> MutexGuard<'a, Waiting> {
        let lock = "nothing panics while it holds the outbox";
        if timeout == Duration::MAX {
            return self.changed.wait(waiting).expect(lock);
        }
        self.changed.wait_timeout(waiting, timeout).expect(lock).0
    }

    /// Waits until everything is written, at most `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) {
        let end = Instant::now() + timeout;
        let mut waiting = self.lock();
        while waiting.is_writing || !waiting.frames.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            waiting = self.wait(waiting, left);
        }
    }

    /// Nobody will be spoken to any more.
    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        waiting.contact = Contact::Closed;
        waiting.is_writing = false;
        waiting.frames = Vec::new();
        drop(waiting);
        self.changed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().contact == Contact::Closed
    }

    pub(crate) fn is_unattached(&self) -> bool {
        self.lock().contact == Contact::Unattached
    }
}

impl Waiting {
    fn takes(&self, connection: u64) -> bool {
        self.contact == Contact::Attached && self.connection == connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached() -> Outbox {
        let outbox = Outbox::default();
        assert_eq!(outbox.attach(Frames::default()), Some(1));
        outbox
    }

    #[test]
    fn what_may_be_lost_is_dropped_when_the_supervisor_does_not_read() {
        let outbox = attached();
        for _ in 0..4 {
            outbox.lock().frames.resize(WAITING_BYTES_MAX + 1, 0);
            outbox.send_unless_full(&WorkerMessage::Heartbeat);
        }
        assert_eq!(outbox.lock().frames.len(), WAITING_BYTES_MAX + 1);
        outbox.send(&WorkerMessage::Heartbeat);
        assert!(outbox.lock().frames.len() > WAITING_BYTES_MAX + 1);
    }

    #[test]
    fn a_closed_outbox_takes_nothing_and_holds_nobody_up() {
        let outbox = attached();
        outbox.send(&WorkerMessage::Heartbeat);
        outbox.close();
        outbox.send(&WorkerMessage::Heartbeat);
        assert!(outbox.lock().frames.is_empty());
        outbox.flush(Duration::from_secs(3600));
        assert_eq!(outbox.attach(Frames::default()), None);
    }

    #[test]
    fn a_new_connection_starts_with_what_it_was_given_and_nothing_of_the_old() {
        let outbox = attached();
        outbox.send(&WorkerMessage::Heartbeat);
        outbox.detach(1);
        outbox.send(&WorkerMessage::Heartbeat);
        assert!(outbox.lock().frames.is_empty());
        let mut first = Frames::default();
        first.push(&WorkerMessage::Heartbeat);
        assert_eq!(outbox.attach(first), Some(2));
        assert_eq!(outbox.lock().frames, encode(&WorkerMessage::Heartbeat));
    }

    #[test]
    fn a_late_end_of_an_old_connection_does_not_end_the_new_one() {
        let outbox = attached();
        outbox.detach(1);
        outbox.attach(Frames::default());
        outbox.detach(1);
        outbox.send(&WorkerMessage::Heartbeat);
        assert!(!outbox.lock().frames.is_empty());
    }
}
