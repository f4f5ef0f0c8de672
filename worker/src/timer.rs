//! The one thread that wakes by the clock: heartbeats, progress that was held back, and the
//! worker's own hold on timeouts. While nothing is held it sleeps without end.

use crate::held::Held;
use shiftboss_protocol::message::HEARTBEAT_SECONDS;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Time between two heartbeats.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(HEARTBEAT_SECONDS);

/// Runs the timer of a worker, for ever.
pub(crate) fn run(held: &Held, alarm: &Alarm) {
    let mut heartbeat_at = None;
    loop {
        let now = Instant::now();
        let next = held.on_timer(now).map(|next| {
            let due = heartbeat_at.is_some_and(|at| at <= now);
            if due {
                held.send_heartbeat();
            }
            let at = heartbeat_at.filter(|_| !due).unwrap_or(now + HEARTBEAT);
            heartbeat_at = Some(at);
            next.map_or(at, |next| next.min(at))
        });
        if next.is_none() {
            heartbeat_at = None;
        }
        alarm.wait(next);
    }
}

/// Wakes the timer earlier than it planned; costs a system call only then.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    state: Mutex<AlarmState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct AlarmState {
    /// The earliest time that was asked for since the timer last woke.
    asked: Option<Instant>,
    /// Set while the timer sleeps: until when, if it knows.
    asleep: Option<Option<Instant>>,
}

impl Alarm {
    /// Makes the timer wake at `at` at the latest.
    pub(crate) fn set(&self, at: Instant) {
        let mut state = self.lock();
        state.asked = Some(state.asked.map_or(at, |asked| asked.min(at)));
        let must_wake = match state.asleep {
            Some(Some(until)) => at < until,
            Some(None) => true,
            None => false,
        };
        if must_wake {
            self.changed.notify_all();
        }
    }

    /// Sleeps until `planned` or an earlier time that is asked for meanwhile. Those who asked
    /// while the timer was awake are heard too.
    fn wait(&self, planned: Option<Instant>) {
        let expectation = "nothing panics while it holds the alarm";
        let mut state = self.lock();
        loop {
            let until = match (planned, state.asked) {
                (Some(planned), Some(asked)) => Some(planned.min(asked)),
                (planned, asked) => planned.or(asked),
            };
            state.asleep = Some(until);
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(state).expect(expectation),
                Some(Duration::ZERO) => break,
                Some(left) => self.changed.wait_timeout(state, left).expect(expectation).0,
            };
        }
        state.asleep = None;
        state.asked = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, AlarmState> {
        self.state.lock().expect("nothing panics while it holds the alarm")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_time_asked_for_while_the_timer_was_awake_is_kept() {
        let alarm = Alarm::default();
        alarm.set(Instant::now());
        alarm.wait(None);
        assert!(alarm.lock().asked.is_none());
    }

    #[test]
    fn a_sleeping_timer_is_woken_for_an_earlier_time() {
        let alarm = Arc::new(Alarm::default());
        let sleeper = {
            let alarm = Arc::clone(&alarm);
            std::thread::spawn(move || alarm.wait(Some(Instant::now() + Duration::from_secs(3600))))
        };
        while alarm.lock().asleep.is_none() {
            std::thread::yield_now();
        }
        alarm.set(Instant::now());
        sleeper.join().expect("the timer woke");
    }
}
