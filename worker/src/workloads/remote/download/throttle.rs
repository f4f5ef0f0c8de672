//! Bytes per second of all downloads of a provider together.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A pipe that lets so much through: each chunk takes its time, one after the other.
#[derive(Debug)]
pub(in crate::workloads::remote) struct Throttle {
    /// Bytes per second; 0: without limit.
    rate: u64,
    /// When what was taken has gone through.
    free_at: Mutex<Option<Instant>>,
}

impl Throttle {
    pub(in crate::workloads::remote) fn new(rate: u64) -> Self {
        Self { rate, free_at: Mutex::new(None) }
    }

    /// Takes a chunk that has come; nothing more may be read by whoever took it before the moment
    /// that is returned. `None`: at once.
    pub(super) fn take(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let nanos = u128::from(bytes) * 1_000_000_000;
        let nanos = nanos.checked_div(u128::from(self.rate))?;
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let from = free_at.map_or(now, |at| at.max(now));
        let until = from + Duration::from_nanos(nanos);
        *free_at = Some(until);
        Some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_all_downloads_share_the_rate_and_pauses_save_nothing_up() {
        let (throttle, start) = (Throttle::new(1_000), Instant::now());
        let ms = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(throttle.take(500, start), Some(ms(500)));
        // Another download at the same time, and the first again.
        assert_eq!(throttle.take(100, start), Some(ms(600)));
        assert_eq!(throttle.take(100, ms(500)), Some(ms(700)));
        // After a silence of 10 s it is not 10 s faster.
        assert_eq!(throttle.take(1_000, ms(10_700)), Some(ms(11_700)));
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        assert_eq!(Throttle::new(0).take(u64::MAX, Instant::now()), None);
    }
}
