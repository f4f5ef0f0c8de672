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
