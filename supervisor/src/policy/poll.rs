//! The fallback poll: how often the table is looked at when nothing else says that it changed.
//!
//! It starts at the base interval after a random stagger, grows by the factor while polls find
//! nothing, and returns to the base with any sign of work.

use super::random::Random;
use super::settings::PollSettings;
use std::time::Duration;

/// Longest interval while commits of other programs cannot be noticed.
const UNWATCHED_MAX: Duration = Duration::from_secs(1);

/// Shortest interval: a base of zero must not become a busy loop.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The state of the fallback poll.
#[derive(Clone, Debug)]
pub struct Poll {
    settings: PollSettings,
    interval: Duration,
    next: Duration,
    watched: bool,
}

/// What a change of the interval means, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The interval stays what it was.
    Same,
    /// Idle backoff begins: the interval grew above the base.
    BackoffEngaged(Duration),
    /// Idle backoff ends: the interval is the base again.
    BackoffReleased(Duration),
}

impl Poll {
    /// The first poll comes after a random stagger.
    pub fn new(now: Duration, settings: PollSettings, random: &mut Random) -> Self {
        let interval = settings.idle_min.max(INTERVAL_MIN);
        let next = now + interval + random.up_to(settings.stagger_max);
        Self { interval, next, settings, watched: true }
    }

    /// When the next poll is due.
    #[must_use]
    pub const fn next(&self) -> Duration {
        self.next
    }

    /// The interval in force.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// Takes over other settings; the interval starts again at the base.
    pub fn reload(&mut self, now: Duration, settings: PollSettings) {
        self.settings = settings;
        self.interval = self.base();
        self.next = now + self.interval;
    }

    /// Tells whether commits of other programs are noticed: if not, the interval is capped, and
    /// a stagger would keep their jobs waiting.
    pub fn set_watched(&mut self, now: Duration, watched: bool) {
        self.watched = watched;
        self.interval = self.interval.min(self.longest()).max(INTERVAL_MIN);
        if !watched {
            self.next = self.next.min(now + self.interval);
        }
    }

    /// Something happened to the table: back to the base interval.
    pub fn on_work(&mut self, now: Duration) -> Pace {
        let was = self.interval;
        self.interval = self.base();
        self.next = now + self.interval;
        if was > self.interval { Pace::BackoffReleased(self.interval) } else { Pace::Same }
    }

    /// A poll is made now; the next is one interval away.
    pub fn on_poll(&mut self, now: Duration) {
        self.next = now + self.interval;
    }

    /// The poll that was made found nothing: the interval grows.
    pub fn on_empty(&mut self, now: Duration) -> Pace {
        let was = self.interval;
        let grown = was.as_secs_f64() * self.settings.factor;
        let grown = Duration::try_from_secs_f64(grown).unwrap_or(Duration::MAX);
        self.interval = grown.min(self.longest()).max(was);
        self.next = now + self.interval;
        let at_base = was <= self.base();
        if at_base && self.interval > was {
            Pace::BackoffEngaged(self.interval)
        } else {
            Pace::Same
        }
    }

    fn base(&self) -> Duration {
        self.settings.idle_min.min(self.longest()).max(INTERVAL_MIN)
    }

    fn longest(&self) -> Duration {
        if self.watched {
            self.settings.idle_max
        } else {
            self.settings.idle_max.min(UNWATCHED_MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll() -> Poll {
        let settings = PollSettings {
            idle_min: Duration::from_secs(1),
            idle_max: Duration::from_secs(300),
            factor: 2.0,
            stagger_max: Duration::from_secs(5),
        };
        Poll::new(Duration::ZERO, settings, &mut Random::new(1))
    }

    #[test]
    fn the_first_poll_is_staggered_unless_polls_are_all_there_is() {
        let firsts: Vec<Duration> = (0..20)
            .map(|seed| {
                let settings = poll().settings;
                let mut poll = Poll::new(Duration::ZERO, settings, &mut Random::new(seed));
                poll.set_watched(Duration::ZERO, true);
                poll.next()
            })
            .collect();
        let (first, last) = (firsts.iter().min(), firsts.iter().max());
        assert!(first.is_some_and(|at| *at >= Duration::from_secs(1)), "{firsts:?}");
        assert!(last.is_some_and(|at| *at <= Duration::from_secs(6)), "{firsts:?}");
        assert!(last > first.map(|at| *at + Duration::from_secs(2)).as_ref(), "{firsts:?}");
        let mut poll = poll();
        poll.set_watched(Duration::ZERO, false);
        assert!(poll.next() <= UNWATCHED_MAX);
    }

    #[test]
    fn empty_polls_double_the_interval_up_to_five_minutes_and_work_resets_it() {
        let mut poll = poll();
        let mut now = poll.next();
        assert_eq!(poll.on_empty(now), Pace::BackoffEngaged(Duration::from_secs(2)));
        for _ in 0..20 {
            now = poll.next();
            assert_eq!(poll.on_empty(now), Pace::Same);
        }
        assert_eq!(poll.interval(), Duration::from_secs(300));
        assert_eq!(poll.on_work(now), Pace::BackoffReleased(Duration::from_secs(1)));
        assert_eq!(poll.next(), now + Duration::from_secs(1));
    }

    #[test]
    fn without_a_watch_polls_stay_a_second_apart() {
        let mut poll = poll();
        poll.set_watched(Duration::ZERO, false);
        for _ in 0..5 {
            let now = poll.next();
            poll.on_empty(now);
        }
        assert_eq!(poll.interval(), Duration::from_secs(1));
    }
}
