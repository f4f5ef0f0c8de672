//! When a failed job runs again: the delay, its spread, and whether it runs again at all.

use super::moves::Move;
use super::random::Random;
use super::settings::{Backoff, TypeSettings};
use super::time::Now;
use shiftboss_protocol::job::Failure;
use std::time::Duration;

/// The delay before try `n + 2` after `n + 1` failures, without jitter: `base * factor^n`, at
/// most `max`. Saturates.
#[must_use]
pub fn delay(backoff: &Backoff, n: u32) -> Duration {
    let power = backoff.factor.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let seconds = backoff.base.as_secs_f64() * power;
    if seconds.is_finite() && seconds < backoff.max.as_secs_f64() {
        Duration::from_secs_f64(seconds)
    } else {
        backoff.max
    }
}

/// [`delay`] spread evenly over `1 - jitter` to `1 + jitter` times itself.
pub fn delay_with_jitter(backoff: &Backoff, n: u32, random: &mut Random) -> Duration {
    let spread = 1.0 + backoff.jitter * (2.0 * random.fraction() - 1.0);
    delay(backoff, n).mul_f64(spread.max(0.0))
}

/// Where a job goes whose attempt failed; `failures` are those before this one, `attempts_max`
/// is the row's own bound where it has one.
pub fn after_failure(
    now: Now,
    settings: &TypeSettings,
    failures: u32,
    attempts_max: Option<u32>,
    failure: &Failure,
    random: &mut Random,
) -> Move {
    let attempts_max = attempts_max.unwrap_or(settings.attempts_max);
    if failure.permanent || failures.saturating_add(1) >= attempts_max {
        return Move::Fail;
    }
    let wait = delay_with_jitter(&settings.retry, failures, random);
    let least = Duration::from_millis(failure.retry_after_ms.unwrap_or(0));
    Move::Retry { run_at_ms: now.unix_ms_after(wait.max(least)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff {
            base: Duration::from_secs(1),
            max: Duration::from_secs(60),
            factor: 1.5,
            jitter: 0.2,
        }
    }

    #[test]
    fn delays_grow_by_the_factor_up_to_the_maximum() {
        assert_eq!(delay(&backoff(), 0), Duration::from_secs(1));
        assert_eq!(delay(&backoff(), 2), Duration::from_millis(2250));
        assert_eq!(delay(&backoff(), 11), Duration::from_secs(60));
        assert_eq!(delay(&backoff(), u32::MAX), Duration::from_secs(60));
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let mut random = Random::new(7);
        for n in 0..1000 {
            let plain = delay(&backoff(), n % 12).as_secs_f64();
            let spread = delay_with_jitter(&backoff(), n % 12, &mut random).as_secs_f64();
            assert!(spread >= 0.799 * plain && spread <= 1.201 * plain, "{spread} of {plain}");
        }
    }
}
