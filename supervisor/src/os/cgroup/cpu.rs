//! The cpu controller: how much CPU time a group may use, and its share when CPUs are short.

use super::{Error, count, keep};
use std::path::Path;

/// The period over which a limit is enforced, microseconds: the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// The kernel takes no smaller quota.
const QUOTA_US_MIN: u64 = 1_000;

/// Share of a group that must answer while others use all CPUs; others have 100.
pub const WEIGHT_HIGH: u32 = 1_000;

/// Limits the group to so many CPUs' time: 2.0 is two CPUs, or eight used a quarter of the time.
///
/// # Errors
/// When the kernel does not keep what is written.
pub fn limit(dir: &Path, cpus: f64) -> Result<(), Error> {
    keep(dir, "cpu.max", &format!("{} {PERIOD_US}", quota_us(cpus)))
}

/// Sets the group's share among its siblings, from 1 to 10,000.
///
/// # Errors
/// When the kernel does not keep what is written.
pub fn weigh(dir: &Path, weight: u32) -> Result<(), Error> {
    keep(dir, "cpu.weight", &weight.to_string())
}

/// How long the group's processes had to wait because its limit was used up, microseconds,
/// summed over CPUs. `None` without the controller.
#[must_use]
pub fn throttled_us(dir: &Path) -> Option<u64> {
    count(dir, "cpu.stat", "throttled_usec")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the configuration allows 0.01 to 10,000 CPUs; `as` saturates"
)]
fn quota_us(cpus: f64) -> u64 {
    ((cpus * PERIOD_US as f64).round() as u64).max(QUOTA_US_MIN)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fake, text};
    use super::*;

    #[test]
    fn cpus_become_a_quota_of_the_period() {
        for (cpus, expected) in
            [(2.0, "200000"), (0.5, "50000"), (0.001, "1000"), (1.0 / 3.0, "33333")]
        {
            let dir = fake(&[("cpu.max", "max 100000\n")]);
            limit(dir.path(), cpus).expect("it can be written");
            assert!(text(dir.path(), "cpu.max").starts_with(&format!("{expected} 100000")));
        }
    }

    #[test]
    fn throttling_is_read_and_weights_are_kept() {
        let stat = "usage_usec 9\nnr_throttled 4\nthrottled_usec 81234\n";
        let dir = fake(&[("cpu.stat", stat), ("cpu.weight", "100\n")]);
        assert_eq!(throttled_us(dir.path()), Some(81_234));
        weigh(dir.path(), WEIGHT_HIGH).expect("it can be written");
        assert!(text(dir.path(), "cpu.weight").starts_with("1000"));
        assert_eq!(throttled_us(fake(&[("cpu.stat", "usage_usec 9\n")]).path()), None);
    }
}
