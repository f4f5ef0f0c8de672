//! The thread that hears the supervisor, and looks for the next one when it has gone.
//!
//! One connection is read to its end before the next is made: what a supervisor said before it
//! died counts, and nothing of an old connection is handled after Hello is said again.

use super::life::{Event, Limits};
use super::{chain, read_settings, say, start_thread};
use crate::connection::{self, Connection, Frames, Reader, Writer};
use crate::held::Held;
use crate::runner::Runner;
use shiftboss_protocol::PROTOCOL_VERSION;
use shiftboss_protocol::message::{Hello, Ready, Settings, SupervisorMessage, Welcome};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// The first gap between two tries to connect; the next ones double.
const GAP_MIN: Duration = Duration::from_millis(2);

/// The longest gap: a supervisor that is back is found within it.
const GAP_MAX: Duration = Duration::from_millis(100);

/// The longest gap of a worker that holds nothing, once a quick restart has not come.
const IDLE_GAP_MAX: Duration = Duration::from_millis(500);

/// How long a restart may take to be a quick one.
const QUICK_RESTART: Duration = Duration::from_secs(10);

/// What a worker needs to speak to every supervisor of its life.
pub(super) struct Contact {
    pub(super) socket: PathBuf,
    /// As it was said first; what is held is said anew each time.
    pub(super) hello: Hello,
    pub(super) ready: Ready,
    pub(super) workload: &'static str,
    pub(super) held: Arc<Held>,
    pub(super) runner: Arc<Runner>,
}

/// Why a try to reach the next supervisor did not succeed.
enum Miss {
    /// Perhaps the next one does.
    NotYet,
    /// It is not to be tried again, and why.
    Never(String),
}

/// A connection on which messages are read.
struct Line {
    number: u64,
    reader: Reader,
}

impl Contact {
    /// Starts the threads that speak with the first supervisor and with all later ones.
    pub(super) fn start(self, first: Connection) -> Result<(), String> {
        let (reader, writer) = first.split();
        let number = self.held.outbox.attach(Frames::default());
        let number = number.expect("nobody has closed the outbox of a worker that starts");
        self.start_writer(number, writer)?;
        let held = Arc::clone(&self.held);
        start_thread(&held, "reader", move || self.serve(Line { number, reader }))
    }

    fn start_writer(&self, number: u64, writer: Writer) -> Result<(), String> {
        let outbox = Arc::clone(&self.held.outbox);
        start_thread(&self.held, "writer", move || outbox.write_all(number, &writer))
    }

    /// Hears one supervisor after another, until none is to be looked for any more.
    fn serve(&self, first: Line) {
        let mut line = first;
        while self.hear_out(line) {
            match self.find_next() {
                Some(next) => line = next,
                None => return,
            }
        }
    }

    /// Hears a supervisor until its connection ends. True when a next one is to be looked for.
    fn hear_out(&self, line: Line) -> bool {
        let read = line.reader.read_to_end(|message| self.on_message(message));
        if let Err(error) = &read {
            say(&chain(error));
        }
        let is_fault = read.is_err();
        let limits = self.held.on_lost(line.number);
        let _ = self.held.events.send(Event::Lost { is_fault });
        !is_fault && !limits.orphan_grace.is_zero()
    }

    fn on_message(&self, message: SupervisorMessage) {
        match message {
            SupervisorMessage::Assign { jobs } => {
                let tasks = self.held.admit(jobs);
                self.runner.push(tasks);
            }
            SupervisorMessage::Cancel { job, attempt, reason } => {
                self.held.stop((job, attempt), reason);
            }
            SupervisorMessage::Drain => {
                let _ = self.held.events.send(Event::Drained);
                self.held.leave("the worker drains");
            }
            SupervisorMessage::Recorded { receipts } => self.held.on_recorded(&receipts),
            SupervisorMessage::Welcome(_) => say("a second Welcome came, ignored"),
        }
    }

    /// Tries until a supervisor says Welcome; `None` when it said that it never will. The main
    /// thread decides meanwhile when this has taken too long, and ends the process.
    fn find_next(&self) -> Option<Line> {
        let lost_at = Instant::now();
        say("the supervisor has gone, looking for the next one");
        for tries in 0.. {
            thread::sleep(gap(tries, lost_at.elapsed(), self.held.is_empty()));
            match self.reach_next() {
                Ok(line) => {
                    let waited_ms = lost_at.elapsed().as_millis();
                    say(&format!("found a supervisor again after {waited_ms} ms"));
                    return Some(line);
                }
                Err(Miss::NotYet) => {}
                Err(Miss::Never(sentence)) => {
                    say(&sentence);
                    let _ = self.held.events.send(Event::Refused);
                    return None;
                }
            }
        }
        None
    }

    fn reach_next(&self) -> Result<Line, Miss> {
        let hello = Hello { held: self.held.keys(), ..self.hello.clone() };
        let (connection, welcome) =
            connection::open(&self.socket, hello).map_err(|error| match &error {
                connection::Error::Refused(_) => Miss::Never(chain(&error)),
                // It may be gone again, or not be there yet.
                connection::Error::Connect { .. }
                | connection::Error::Limit(_)
                | connection::Error::Frame(_)
                | connection::Error::NoWelcome
                | connection::Error::Unexpected => Miss::NotYet,
            })?;
        let settings = self.check(&welcome).map_err(Miss::Never)?;
        let limits = Limits::of(&settings);
        let (reader, writer) = connection.split();
        let number = self.held.resume(settings, &self.ready).ok_or(Miss::NotYet)?;
        if let Err(sentence) = self.start_writer(number, writer) {
            // The host is short of threads.
            say(&sentence);
            self.held.on_lost(number);
            return Err(Miss::NotYet);
        }
        let _ = self.held.events.send(Event::Attached(limits));
        Ok(Line { number, reader })
    }

    fn check(&self, welcome: &Welcome) -> Result<Settings, String> {
        let Welcome { protocol, workload, .. } = welcome;
        if *protocol != PROTOCOL_VERSION {
            return Err(super::speaks_another(*protocol));
        }
        if workload != self.workload {
            return Err(format!(
                "the next supervisor wants workload {workload:?}, this worker runs {:?}",
                self.workload
            ));
        }
        read_settings(welcome)
    }
}

/// How long to wait before a try. A worker that holds attempts is quick: each of them may wait
/// for it. One that holds nothing must not use the CPU of a host whose supervisor is away.
fn gap(tries: u32, waited: Duration, is_idle: bool) -> Duration {
    let is_slow = is_idle && waited >= QUICK_RESTART;
    let longest = if is_slow { IDLE_GAP_MAX } else { GAP_MAX };
    GAP_MIN.saturating_mul(2u32.saturating_pow(tries)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_grow_from_a_few_milliseconds_to_a_tenth_of_a_second() {
        let gaps: Vec<_> =
            (0..8).map(|tries| gap(tries, Duration::ZERO, true).as_millis()).collect();
        assert_eq!(gaps, [2, 4, 8, 16, 32, 64, 100, 100]);
        assert_eq!(gap(u32::MAX, Duration::from_secs(3600), false), GAP_MAX);
    }

    #[test]
    fn an_idle_worker_looks_less_often_after_ten_seconds() {
        assert_eq!(gap(1000, Duration::from_secs(9), true), GAP_MAX);
        assert_eq!(gap(1000, Duration::from_secs(10), true), IDLE_GAP_MAX);
    }
}
