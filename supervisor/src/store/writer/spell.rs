//! A spell of trouble: the database cannot be written, and what is queued waits.
//!
//! Pure: the caller brings the time. Retries come at growing gaps; the trouble is said when it
//! begins, when it becomes another, and again every ten seconds.

use std::time::{Duration, Instant};

const GAP_MIN: Duration = Duration::from_millis(10);
const GAP_MAX: Duration = Duration::from_secs(1);
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// The state of the trouble; no spell by default.
#[derive(Debug, Default)]
pub(super) struct Spell {
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    since: Instant,
    said: Instant,
    text: String,
    gap: Duration,
    /// `None`: never, the database is damaged.
    retry_at: Option<Instant>,
}

impl Spell {
    /// True while the last write failed.
    pub(super) fn is_on(&self) -> bool {
        self.current.is_some()
    }

    /// What is wrong, during a spell.
    pub(super) fn said(&self) -> Option<&str> {
        self.current.as_ref().map(|current| current.text.as_str())
    }

    /// What is wrong, when no write may ever be tried again.
    pub(super) fn halted(&self) -> Option<&str> {
        let current = self.current.as_ref()?;
        current.retry_at.is_none().then_some(&current.text)
    }

    /// True when a write may be tried.
    pub(super) fn allows(&self, now: Instant) -> bool {
        match &self.current {
            None => true,
            Some(current) => current.retry_at.is_some_and(|at| at <= now),
        }
    }

    /// When the next write may be tried, during a spell.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.current.as_ref()?.retry_at
    }

    /// A write failed; true when that should be said.
    pub(super) fn on_trouble(&mut self, now: Instant, text: &str) -> bool {
        let text = text.to_owned();
        let Some(current) = &mut self.current else {
            let retry_at = Some(now + GAP_MIN);
            self.current = Some(Current { since: now, said: now, text, gap: GAP_MIN, retry_at });
            return true;
        };
        if current.retry_at.is_some() {
            current.gap = (current.gap * 2).min(GAP_MAX);
            current.retry_at = Some(now + current.gap);
        }
        let says = current.text != text || now.duration_since(current.said) >= SAY_AGAIN;
        if says {
            current.said = now;
            current.text = text;
        }
        says
    }

    /// No write is tried any more, whatever happens.
    pub(super) fn halt(&mut self) {
        if let Some(current) = &mut self.current {
            current.retry_at = None;
        }
    }

    /// A write succeeded; the length of the spell that this ended.
    pub(super) fn on_success(&mut self, now: Instant) -> Option<Duration> {
        self.current.take().map(|current| now.duration_since(current.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_said_once_and_again_every_ten_seconds() {
        let mut spell = Spell::default();
        let start = Instant::now();
        assert!(spell.allows(start) && spell.on_trouble(start, "locked"));
        let mut now = start;
        let mut said = 0;
        for _ in 0..25 {
            now = spell.retry_at().expect("a spell is on");
            said += u32::from(spell.on_trouble(now, "locked"));
        }
        assert_eq!(spell.retry_at(), Some(now + GAP_MAX));
        assert_eq!(said, (now - start).as_secs() as u32 / 10);
        assert!(spell.on_trouble(now, "full"), "it is another trouble");
        assert_eq!(spell.on_success(now), Some(now - start));
        assert_eq!(spell.on_success(now), None);
    }

    #[test]
    fn after_damage_nothing_is_tried_again() {
        let mut spell = Spell::default();
        let start = Instant::now();
        spell.on_trouble(start, "damaged");
        assert_eq!(spell.halted(), None);
        spell.halt();
        spell.on_trouble(start, "damaged");
        assert_eq!(spell.halted(), Some("damaged"));
        assert!(!spell.allows(start + Duration::from_secs(3600)));
        assert_eq!(spell.retry_at(), None);
    }
}
