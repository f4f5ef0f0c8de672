//! Random numbers from a seed that the caller gives: jitter and stagger repeat in a simulation.

use std::time::Duration;

/// The SplitMix64 generator (Steele, Lea, Flood 2014): small, seedable, good enough to spread
/// delays; never used for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator whose whole sequence follows from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, 1.
    pub fn fraction(&mut self) -> f64 {
        // 53 bits are the mantissa of an f64: the division is exact and stays below 1.
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// From 0 up to `max`.
    pub fn up_to(&mut self, max: Duration) -> Duration {
        max.mul_f64(self.fraction())
    }
}
