//! The two clocks, read by the caller and passed in.

use std::time::Duration;

/// One moment on both clocks. Deadlines use `mono`; what is stored or shown uses `unix_ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Time since some fixed moment of this process; never goes back, does not count suspend.
    pub mono: Duration,
    /// Wall clock, unix milliseconds; may jump.
    pub unix_ms: i64,
}

impl Now {
    /// The wall clock after `wait`, saturating.
    #[must_use]
    pub fn unix_ms_after(self, wait: Duration) -> i64 {
        self.unix_ms.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
    }

    /// How long until the wall clock shows `unix_ms`, if it runs evenly; zero when it is past.
    #[must_use]
    pub fn until(self, unix_ms: i64) -> Duration {
        let wait = unix_ms.saturating_sub(self.unix_ms);
        Duration::from_millis(u64::try_from(wait).unwrap_or(0))
    }
}

/// How far the wall clock may run ahead of the monotonic one between two looks. Time servers slew
/// by at most half a millisecond a second (adjtimex(2)), which makes 1.8 s an hour; the rest is
/// room for a clock that was stepped after a bad start, and for a machine that slept a little.
pub const AHEAD_MAX: Duration = Duration::from_secs(600);

/// Compares the two clocks from look to look.
#[derive(Clone, Copy, Debug)]
pub struct ClockGuard {
    last: Now,
}

impl ClockGuard {
    /// Trusts the clock as it is now: nothing earlier is known.
    #[must_use]
    pub fn start(now: Now) -> Self {
        Self { last: now }
    }

    /// By how much the wall clock has run ahead since the last look, if by more than
    /// [`AHEAD_MAX`]: what looks old then may be young, and nothing must be deleted at this look.
    /// The next one trusts the clock again if it has run evenly meanwhile: a machine that was
    /// suspended, or whose clock was set right, is right to be believed then, and a clock that
    /// was set wrong has had that long to be corrected. A clock that went back makes things
    /// younger, which deletes nothing.
    pub fn look(&mut self, now: Now) -> Option<Duration> {
        let last = std::mem::replace(&mut self.last, now);
        let wall = last.until(now.unix_ms);
        let ahead = wall.saturating_sub(now.mono.saturating_sub(last.mono));
        (ahead > AHEAD_MAX).then_some(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(mono: Duration, wall: Duration) -> Now {
        let unix_ms = 1_700_000_000_000 + i64::try_from(wall.as_millis()).expect("small");
        Now { mono, unix_ms }
    }

    #[test]
    fn clocks_that_run_evenly_are_trusted() {
        let mut guard = ClockGuard::start(at(HOUR, HOUR));
        for hour in 2..1000 {
            let slewed = HOUR * hour + Duration::from_secs(2 * u64::from(hour));
            assert_eq!(guard.look(at(HOUR * hour, slewed)), None);
        }
    }

    #[test]
    fn a_jump_ahead_is_believed_one_even_look_later() {
        let mut guard = ClockGuard::start(at(HOUR, HOUR));
        let years = HOUR * 24 * 365 * 10;
        assert_eq!(guard.look(at(2 * HOUR, 2 * HOUR + years)), Some(years));
        assert_eq!(guard.look(at(3 * HOUR, 3 * HOUR + years)), None);
    }

    #[test]
    fn a_jump_ahead_that_is_taken_back_deletes_nothing() {
        let mut guard = ClockGuard::start(at(HOUR, HOUR));
        let years = HOUR * 24 * 365 * 10;
        assert!(guard.look(at(2 * HOUR, 2 * HOUR + years)).is_some());
        assert_eq!(guard.look(at(3 * HOUR, 3 * HOUR)), None);
    }

    #[test]
    fn a_clock_that_goes_back_is_no_reason_to_wait() {
        let mut guard = ClockGuard::start(at(HOUR, 100 * HOUR));
        assert_eq!(guard.look(at(2 * HOUR, HOUR)), None);
        assert_eq!(guard.look(at(2 * HOUR, HOUR)), None);
    }

    #[test]
    fn batches_in_quick_succession_see_a_jump_too() {
        let mut guard = ClockGuard::start(at(HOUR, HOUR));
        let soon = Duration::from_millis(100);
        let jump = AHEAD_MAX + soon;
        assert_eq!(guard.look(at(HOUR + soon, HOUR + soon + jump)), Some(jump));
    }
}
