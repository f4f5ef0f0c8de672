//! When to ask whether another program has committed.
//!
//! A touch of the `-wal` file is seen before the commit is visible, and one change may hide
//! another: so `data_version` is asked again until two seconds after the last touch, at even gaps
//! for as long as a commit's sync takes and then at doubling ones; a change restarts the gaps
//! without ending them (66 of 150 commits were missed otherwise).

use super::Writer;
use crate::store::change::instances;
use crate::store::connection::Db;
use crate::store::error::Error;
use crate::store::op::Event;
use std::time::{Duration, Instant};

const GAP_MIN: Duration = Duration::from_micros(200);
/// Gaps do not grow before: a synced commit is visible by then, and a gap that has doubled already
/// would add its length to the time that a row waits.
const EVEN: Duration = Duration::from_micros(1_600);
const GAP_MAX: Duration = Duration::from_millis(50);
const WATCH: Duration = Duration::from_secs(2);
/// Reading our running rows may take at most one part in this many of the thread's time.
const REST: u32 = 4;

/// The times of the checks; pure, the caller brings the time.
#[derive(Debug, Default)]
pub(super) struct Recheck {
    schedule: Option<Schedule>,
    /// No check before this, lest a storm of commits occupies the thread.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Schedule {
    next: Instant,
    gap: Duration,
    even_until: Instant,
    until: Instant,
}

impl Recheck {
    /// The log was touched: check at once, and for a while.
    pub(super) fn touched(&mut self, now: Instant) {
        let (even_until, until) = (now + EVEN, now + WATCH);
        self.schedule = Some(Schedule { next: now, gap: GAP_MIN, even_until, until });
    }

    /// When the next check is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let next = self.schedule.as_ref()?.next;
        Some(self.not_before.map_or(next, |not_before| next.max(not_before)))
    }

    fn may_check(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|not_before| not_before <= now)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.next().is_some_and(|next| next <= now)
    }

    fn on_unchanged(&mut self, now: Instant) {
        let Some(schedule) = &mut self.schedule else { return };
        if now >= schedule.until {
            self.schedule = None;
        } else {
            schedule.next = (now + schedule.gap).min(schedule.until);
            if now >= schedule.even_until {
                schedule.gap = (schedule.gap * 2).min(GAP_MAX);
            }
        }
    }

    /// The change was reported, which took `cost`.
    fn on_changed(&mut self, now: Instant, cost: Duration) {
        self.not_before = Some(now + cost * REST);
        if let Some(schedule) = &mut self.schedule {
            schedule.gap = GAP_MIN;
            schedule.even_until = now + EVEN;
        }
        self.on_unchanged(now);
    }
}

impl Writer {
    /// Checks when a check is due.
    pub(super) fn recheck(&mut self, now: Instant) {
        if self.recheck.is_due(now) {
            if self.spell.halted().is_some() {
                // Damaged rows may not decide what is stopped.
                return self.recheck = Recheck::default();
            }
            match self.report_change() {
                Ok(false) => self.recheck.on_unchanged(now),
                Ok(true) => self.recheck.on_changed(Instant::now(), now.elapsed()),
                // The rows are read again at the next check.
                Err(error) if error.is_damage() => self.on_trouble(&error),
                Err(error) => {
                    self.recheck.on_unchanged(now);
                    tracing::debug!(%error, "cannot ask for changes by others, asking again");
                }
            }
        }
    }

    /// Looks once, out of turn: foreign commits show here too when the log is not watched.
    pub(super) fn recheck_after_group(&mut self) {
        let now = Instant::now();
        if !self.recheck.may_check(now) {
            // Only delayed: without a touch nobody else would look.
            if self.recheck.schedule.is_none() {
                self.recheck.touched(now);
            }
            return;
        }
        if self.report_change().unwrap_or(false) {
            self.recheck.on_changed(Instant::now(), now.elapsed());
        }
    }

    /// Says that another program has committed, if one has since the last time.
    fn report_change(&mut self) -> Result<bool, Error> {
        let version = data_version(&self.db)?;
        if version == self.version {
            return Ok(false);
        }
        let running = instances::running(&self.db, &self.us)?;
        self.version = version;
        self.send(Event::Changed { running });
        Ok(true)
    }
}

/// Changes when another connection has committed (or checkpointed, which is harmless).
pub(super) fn data_version(db: &Db) -> Result<i64, Error> {
    let read = || db.statement("PRAGMA data_version")?.query_row([], |row| row.get(0));
    read().map_err(|e| db.error("read data_version", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gaps_are_even_then_double_and_end_two_seconds_after_the_last_touch() {
        let mut recheck = Recheck::default();
        let start = Instant::now();
        recheck.touched(start);
        let mut checks = Vec::new();
        while let Some(next) = recheck.next() {
            checks.push(next - start);
            recheck.on_unchanged(next);
        }
        let gaps: Vec<_> = checks.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(checks[0], Duration::ZERO);
        assert_eq!(gaps[..9], [GAP_MIN; 9]);
        assert_eq!(gaps[9..11], [GAP_MIN * 2, GAP_MIN * 4]);
        assert_eq!(gaps.iter().max(), Some(&GAP_MAX));
        assert_eq!(checks.last(), Some(&WATCH));
    }

    #[test]
    fn a_change_restarts_the_gaps_and_does_not_end_them() {
        let mut recheck = Recheck::default();
        let start = Instant::now();
        recheck.touched(start);
        for _ in 0..12 {
            let now = recheck.next().expect("two seconds are not over");
            recheck.on_unchanged(now);
        }
        let now = recheck.next().expect("two seconds are not over");
        recheck.on_changed(now, Duration::ZERO);
        assert_eq!(recheck.next(), Some(now + GAP_MIN));
    }

    #[test]
    fn a_storm_of_changes_leaves_time_for_other_work() {
        let mut recheck = Recheck::default();
        let start = Instant::now();
        recheck.touched(start);
        recheck.on_changed(start, Duration::from_millis(3));
        recheck.touched(start);
        assert_eq!(recheck.next(), Some(start + Duration::from_millis(12)));
    }
}
