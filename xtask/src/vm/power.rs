//! When the power is cut, and what had been told before it was.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The power goes this long after the producers have begun, milliseconds: time for nothing, and
/// for some dozens of jobs under emulation.
const CUT_MS_MIN: u64 = 500;
const CUT_MS_MAX: u64 = 9_000;

/// The cuts of one scenario, and the promises made before them.
#[derive(Debug)]
pub(super) struct Power {
    random: u64,
    acknowledged: Vec<u64>,
    /// The attempt with which a job was seen succeeded.
    done: BTreeMap<u64, u64>,
}

impl Power {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: seed, acknowledged: Vec::new(), done: BTreeMap::new() }
    }

    pub(super) fn next_cut(&mut self) -> Duration {
        Duration::from_millis(CUT_MS_MIN + self.next() % (CUT_MS_MAX - CUT_MS_MIN))
    }

    pub(super) fn acknowledged(&mut self, job: u64) {
        self.acknowledged.push(job);
    }

    pub(super) fn done(&mut self, job: u64, attempt: u64) {
        self.done.entry(job).or_insert(attempt);
    }

    pub(super) fn acked_lines(&self) -> String {
        self.acknowledged.iter().map(|job| format!("{job}\n")).collect()
    }

    pub(super) fn done_lines(&self) -> String {
        self.done.iter().map(|(job, attempt)| format!("{job} {attempt}\n")).collect()
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A seed that nobody chose, short enough to type.
pub(super) fn any_seed() -> u64 {
    RandomState::new().build_hasher().finish() % 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_cuts_again_within_their_bounds() {
        let cuts = |seed| {
            let mut power = Power::new(seed);
            (0..100).map(|_| power.next_cut()).collect::<Vec<_>>()
        };
        assert_eq!(cuts(7), cuts(7));
        assert_ne!(cuts(7), cuts(8));
        let bounds = Duration::from_millis(CUT_MS_MIN)..Duration::from_millis(CUT_MS_MAX);
        assert!(cuts(7).iter().all(|cut| bounds.contains(cut)));
    }

    #[test]
    fn a_job_stays_done_with_the_attempt_that_was_told_first() {
        let mut power = Power::new(1);
        power.done(3, 1);
        power.done(3, 2);
        assert_eq!(power.done_lines(), "3 1\n");
    }
}
