//! How stale the provider's words are: how much later than wanted operations are polled.

use crate::workload::crowd::Arrivals;
use shiftboss_provider::Moment;
use shiftboss_provider::queue::{Class, Queue, Turn};
use std::time::Duration;

/// People are told at most this often.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Never told again by itself: longer than any wait of the loop.
const NEVER: Duration = Duration::from_secs(3_600);

/// The lag of polls since it was last told.
#[derive(Debug, Default)]
pub(super) struct Lag {
    worst: Duration,
    told_at: Option<Moment>,
    told_ms: u128,
}

impl Lag {
    pub(super) fn note(&mut self, turn: &Turn) {
        if turn.class == Class::Poll {
            self.worst = self.worst.max(turn.lag);
        }
    }

    /// Tells the worst since the last time, of polls that were sent and of those that wait, when
    /// it is time; returns when it is time again, counted from now.
    pub(super) fn tell(&mut self, now: Moment, queue: &mut Queue, arrivals: &Arrivals) -> Duration {
        let next = self.told_at.map_or(now, |at| at + TOLD_EVERY);
        if now < next {
            // What was told is kept right also while nothing else wakes the loop.
            let has_news = self.told_ms > 0 || !self.worst.is_zero();
            return if has_news { next - now } else { NEVER };
        }
        let worst = std::mem::take(&mut self.worst).max(queue.lag(Class::Poll, now));
        let milliseconds = worst.as_millis();
        arrivals.tell_gauges(&[
            ("poll_lag_ms", milliseconds as f64),
            ("waiting", queue.len() as f64),
            ("requests", queue.in_flight() as f64),
        ]);
        self.told_at = Some(now);
        self.told_ms = milliseconds;
        if milliseconds > 0 { TOLD_EVERY } else { NEVER }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftboss_provider::description::Limits;

    #[test]
    fn a_lag_is_told_once_a_second_until_it_is_over() {
        let secs = Duration::from_secs_f64;
        let arrivals = Arrivals::default();
        let mut queue = Queue::new(1);
        let line = queue.add(&Limits::default());
        let mut lag = Lag::default();
        assert_eq!(lag.tell(secs(1.0), &mut queue, &arrivals), NEVER);
        queue.push(line, Class::Poll, 1, secs(2.0));
        queue.push(line, Class::Poll, 2, secs(2.0));
        assert_eq!(lag.tell(secs(3.0), &mut queue, &arrivals), TOLD_EVERY);
        assert_eq!(lag.told_ms, 1_000);
        let turn = queue.pop(secs(3.5)).expect("it is due");
        lag.note(&turn);
        queue.remove(2);
        assert_eq!(lag.tell(secs(3.5), &mut queue, &arrivals), secs(0.5));
        assert_eq!(lag.tell(secs(4.0), &mut queue, &arrivals), TOLD_EVERY);
        assert_eq!(lag.told_ms, 1_500, "of the one that was sent");
        assert_eq!(lag.tell(secs(5.0), &mut queue, &arrivals), NEVER);
        assert_eq!(lag.told_ms, 0);
    }
}
