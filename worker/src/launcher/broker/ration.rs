//! How often a worker that has been taken over can have commands run. An honest one asks far less
//! often (`shiftboss_provider::token::purse`).

use std::time::{Duration, Instant};

/// Runs at once after a long rest.
const RUNS_MAX: u32 = 20;

/// One more may be run after each of these.
const RUN_EVERY: Duration = Duration::from_secs(1);

/// Runs that are left.
#[derive(Debug)]
pub(super) struct Ration {
    left: u32,
    /// When the last one was added.
    at: Instant,
}

impl Ration {
    pub(super) const fn new(now: Instant) -> Self {
        Self { left: RUNS_MAX, at: now }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let periods = now.saturating_duration_since(self.at).as_secs() / RUN_EVERY.as_secs();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        self.at += RUN_EVERY * periods;
        self.left = self.left.saturating_add(periods).min(RUNS_MAX);
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_all_the_time_is_served_once_a_second() {
        let start = Instant::now();
        let mut ration = Ration::new(start);
        let served = (0..10_000).filter(|tick| ration.take(start + Duration::from_millis(*tick)));
        assert_eq!(served.count(), 20 + 9);
        assert!(ration.take(start + Duration::from_secs(86_400 * 365)));
    }
}
