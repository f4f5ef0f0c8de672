//! The breaker of one host: after failures in a row it is left alone, then asked by one probe.

use crate::Moment;
use std::time::Duration;

/// Failures in a row that open it.
pub const FAILURES_MAX: u32 = 5;

/// The first pause; each failed probe doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Whether a host is asked.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    failures: u32,
    /// Set while it is open; a probe is due from then on.
    probe_at: Option<Moment>,
    /// A probe is under way, since then.
    is_probing: bool,
}

impl Breaker {
    /// When the host may be asked, if it is later than `now`; [`Moment::MAX`] while a probe is
    /// under way.
    #[must_use]
    pub fn wait_until(&self, now: Moment) -> Option<Moment> {
        match self.probe_at {
            None => None,
            Some(_) if self.is_probing => Some(Moment::MAX),
            Some(at) => (at > now).then_some(at),
        }
    }

    /// A request is sent.
    pub fn sent(&mut self) {
        self.is_probing = self.probe_at.is_some();
    }

    /// It was answered by something that works, whatever it said.
    pub fn worked(&mut self) {
        *self = Self::default();
    }

    /// It was not answered, or by an error of the server.
    pub fn failed(&mut self, now: Moment) {
        self.failures = self.failures.saturating_add(1);
        // Late failures of requests that were sent before it opened prolong nothing.
        if self.failures >= FAILURES_MAX && (self.probe_at.is_none() || self.is_probing) {
            let doublings = (self.failures - FAILURES_MAX).min(6);
            self.probe_at = Some(now + (PAUSE_MIN * 2_u32.pow(doublings)).min(PAUSE_MAX));
        }
        self.is_probing = false;
    }

    /// The request ended without telling anything of the host.
    pub fn gave_up(&mut self) {
        self.is_probing = false;
    }

    /// True while the host is left alone.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.probe_at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_fails_is_left_alone_and_asked_by_one_probe() {
        let mut breaker = Breaker::default();
        let mut now = Duration::from_secs(10);
        for _ in 1..FAILURES_MAX {
            breaker.failed(now);
            assert_eq!(breaker.wait_until(now), None);
        }
        breaker.failed(now);
        assert_eq!(breaker.wait_until(now), Some(Duration::from_secs(11)));
        now = Duration::from_secs(11);
        assert_eq!(breaker.wait_until(now), None);
        breaker.sent();
        assert_eq!(breaker.wait_until(now), Some(Moment::MAX), "one probe at a time");
        breaker.failed(now);
        assert_eq!(breaker.wait_until(now), Some(Duration::from_secs(13)), "the pause has doubled");
        now = Duration::from_secs(13);
        breaker.sent();
        breaker.worked();
        assert_eq!(breaker.wait_until(now), None);
    }

    #[test]
    fn one_answer_that_works_forgets_the_failures() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            for _ in 1..FAILURES_MAX {
                breaker.failed(Duration::ZERO);
            }
            breaker.worked();
        }
        assert!(!breaker.is_open());
    }
}
