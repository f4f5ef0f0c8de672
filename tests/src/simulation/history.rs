//! What happened, as a readable timeline when somebody wants to read it, as a hash always.

use std::collections::BTreeMap;
use std::fmt::Write;

#[derive(Debug, Default)]
pub(super) struct History {
    /// Lines are written only for a replay: they cost more than the run itself.
    pub(super) keeps: bool,
    pub(super) lines: Vec<String>,
    pub(super) hash: u64,
    /// How often what happened, for coverage.
    pub(super) seen: BTreeMap<&'static str, u64>,
}

impl History {
    pub(super) fn note(&mut self, at_us: u64, text: impl FnOnce() -> String) {
        if !self.keeps {
            return;
        }
        let mut line = String::new();
        let _ = write!(line, "{:>7}.{:06} s  {}", at_us / 1_000_000, at_us % 1_000_000, text());
        self.lines.push(line);
    }

    /// Adds a number to the hash of the history (FNV-1a, by words).
    pub(super) fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }
}
