//! When an operation is looked at again: a delay that grows, spread so that operations which
//! were submitted together do not stay together.

use std::time::Duration;

/// Growing delay: `first`, then `min * factor^n` up to `max`, each spread by `jitter`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Before the first look.
    pub first: Duration,
    /// Before the second one.
    pub min: Duration,
    /// The longest delay, before jitter.
    pub max: Duration,
    /// Growth, from 1 to 10.
    pub factor: f64,
    /// Share of the delay by which it may be shorter or longer, 0 to 0.5.
    pub jitter: f64,
}

impl Pace {
    /// The delay before look `look` (from 0) of the operation that `seed` belongs to.
    #[must_use]
    pub fn delay(&self, look: u32, seed: u64) -> Duration {
        spread(self.base(look), self.jitter, chance(seed, look))
    }

    /// The delay without jitter.
    #[must_use]
    pub fn base(&self, look: u32) -> Duration {
        let Some(grown) = look.checked_sub(1) else { return self.first };
        // More than 2^10 steps have reached any maximum, and powi takes a small exponent.
        let power = i32::try_from(grown.min(1 << 10)).unwrap_or(i32::MAX);
        let seconds = self.min.as_secs_f64() * self.factor.powi(power);
        if seconds >= self.max.as_secs_f64() { self.max } else { Duration::from_secs_f64(seconds) }
    }
}

/// `delay` made shorter or longer by up to `jitter` of it; `chance` is from 0 to 1.
fn spread(delay: Duration, jitter: f64, chance: f64) -> Duration {
    delay.mul_f64((1.0 - jitter + 2.0 * jitter * chance).max(0.0))
}

/// A number from 0 to 1 that looks random and is always the same for the same arguments.
#[must_use]
pub fn chance(seed: u64, step: u32) -> f64 {
    // SplitMix64: a full period, and neighbouring seeds share nothing.
    let mut word =
        seed.wrapping_add(u64::from(step).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let bits = u32::try_from((word ^ (word >> 31)) >> 32).unwrap_or(u32::MAX);
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PACE: Pace = Pace {
        first: Duration::from_secs(5),
        min: Duration::from_secs(1),
        max: Duration::from_secs(60),
        factor: 1.5,
        jitter: 0.1,
    };

    #[test]
    fn a_delay_grows_by_its_factor_up_to_its_end() {
        let looks: Vec<_> = (0..4).map(|look| PACE.base(look).as_millis()).collect();
        assert_eq!(looks, [5_000, 1_000, 1_500, 2_250]);
        assert_eq!(PACE.base(12).as_secs(), 60);
        assert_eq!(PACE.base(u32::MAX).as_secs(), 60);
    }

    #[test]
    fn operations_that_begin_together_do_not_stay_together() {
        let mut delays: Vec<_> = (0..1_000).map(|seed| PACE.delay(20, seed).as_millis()).collect();
        delays.sort_unstable();
        assert!(delays[0] < 54_500 && delays[999] > 65_500, "{} {}", delays[0], delays[999]);
        delays.dedup();
        assert!(delays.len() > 900, "{}", delays.len());
    }

    proptest! {
        #[test]
        fn a_delay_stays_within_its_spread(look: u32, seed: u64) {
            let (base, delay) = (PACE.base(look), PACE.delay(look, seed));
            let (base, delay) = (base.as_secs_f64(), delay.as_secs_f64());
            prop_assert!(delay >= base * 0.899 && delay <= base * 1.101, "{base} {delay}");
        }
    }
}
