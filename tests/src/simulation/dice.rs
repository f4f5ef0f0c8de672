//! Chance from one seed: the same seed throws the same numbers for ever.

use std::time::Duration;

/// The SplitMix64 generator, as in the policy; its own copy, so that a change there does not
/// change the histories here.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, `bound`; 0 for a bound of 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// From `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True so many times in a thousand.
    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// From `low` to `high`, every order of magnitude as likely as the next: most waits are
    /// short, some are very long.
    pub(super) fn spread(&mut self, low: u64, high: u64) -> u64 {
        let (from, to) = (u64::from(low.max(1).ilog2()), u64::from(high.max(1).ilog2()));
        let power = self.between(from, to);
        self.between(1 << power, (2 << power) - 1).clamp(low, high)
    }

    /// [`Dice::spread`] in milliseconds.
    pub(super) fn wait(&mut self, low_ms: u64, high_ms: u64) -> Duration {
        Duration::from_millis(self.spread(low_ms, high_ms))
    }

    /// One of them; `None` when there are none.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = self.below(from.len() as u64);
        from.get(usize::try_from(at).unwrap_or(0)).copied()
    }
}
