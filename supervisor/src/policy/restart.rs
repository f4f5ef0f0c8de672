//! When a worker that died is replaced: at once, after a growing delay, or not before a probe.
//!
//! The first death after a healthy period restarts at once; from the second within the window
//! delays grow; when `burst` deaths of one kind with different culprits fall into the window, the
//! breaker opens. A job that kills one worker after the other counts once there, also while it is
//! searched among others: it ends as poison and must not take its type down with it.

use super::settings::RestartSettings;
use shiftboss_protocol::job::JobId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Deaths of one type's workers, and what follows from them.
#[derive(Clone, Debug, Default)]
pub struct Restart {
    deaths: VecDeque<Death>,
    not_before: Duration,
    breaker: Breaker,
}

#[derive(Clone, Debug)]
struct Death {
    at: Duration,
    blame: Blame,
    ending: Ending,
}

/// Of what kind a death was: the breaker counts each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// There was no process, or it never became ready.
    FailedStart,
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// We ended it, because it was silent or broke the protocol.
    Told,
    /// Nobody knows.
    Unknown,
}

/// Who may have caused a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blame {
    /// This job, which was alone.
    Job(JobId),
    /// One of about `2^n` jobs. A culprit that is searched by halving causes one such death for
    /// each n; several for the same n have several causes.
    OneOf(u32),
    /// No job.
    Nobody,
}

/// Whether workers of a type may be started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Breaker {
    /// They may.
    #[default]
    Closed,
    /// Too many deaths: none until then.
    Open {
        /// When a probe is allowed.
        until: Duration,
        /// What the last one died of.
        cause: String,
    },
    /// One probe may run; its health decides.
    HalfOpen {
        /// What opened it.
        cause: String,
    },
}

/// May a worker be started now?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Yes.
    Granted,
    /// Not before that moment.
    NotBefore(Duration),
    /// Only one, as a probe.
    Probe,
}

impl Restart {
    /// The breaker as it stands.
    #[must_use]
    pub const fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Deaths that count now.
    #[must_use]
    pub fn deaths(&self) -> usize {
        self.deaths.len()
    }

    /// True while starts wait for the delay after a death.
    #[must_use]
    pub fn is_delayed(&self, now: Duration) -> bool {
        self.not_before > now
    }

    /// A worker died. Returns the delay before the next start.
    pub fn on_death(
        &mut self,
        now: Duration,
        settings: &RestartSettings,
        (blame, ending): (Blame, Ending),
        cause: &str,
    ) -> Duration {
        while self.deaths.front().is_some_and(|death| death.at + settings.within < now) {
            self.deaths.pop_front();
        }
        self.deaths.push_back(Death { at: now, blame, ending });
        let probing = matches!(self.breaker, Breaker::HalfOpen { .. });
        let (total, _) = self.count(|_| true);
        let (_, distinct) = self.count(|death| death.ending == ending);
        if probing || distinct >= settings.burst as usize {
            let until = now + settings.max;
            self.breaker = Breaker::Open { until, cause: cause.to_owned() };
            self.not_before = until;
            return settings.max;
        }
        let delay = match total {
            0 | 1 => Duration::ZERO,
            n => settings
                .base
                .saturating_mul(1 << u32::try_from(n - 2).unwrap_or(20).min(20))
                .min(settings.max),
        };
        self.not_before = self.not_before.max(now + delay);
        self.not_before.saturating_sub(now)
    }

    /// Deaths, a search counted once, and the number of different culprits among them.
    fn count(&self, is_counted: impl Fn(&Death) -> bool) -> (usize, usize) {
        let (mut alone, mut nobodys) = (0, 0);
        let mut jobs = BTreeSet::new();
        let mut searches = BTreeMap::<u32, usize>::new();
        for death in self.deaths.iter().filter(|death| is_counted(death)) {
            match death.blame {
                Blame::Job(job) => {
                    alone += 1;
                    jobs.insert(job);
                }
                Blame::Nobody => nobodys += 1,
                Blame::OneOf(n) => *searches.entry(n).or_default() += 1,
            }
        }
        let searches = searches.into_values().max().unwrap_or(0);
        (alone + nobodys + searches, jobs.len() + nobodys + searches)
    }

    /// A worker was ready for `healthy_after`, or finished a job: the books are closed.
    pub fn on_health(&mut self) {
        self.deaths.clear();
        self.not_before = Duration::ZERO;
        self.breaker = Breaker::Closed;
    }

    /// May a worker be started, when `probes` exist that were started as such?
    pub fn permit(&mut self, now: Duration, probes: usize) -> Permit {
        if let Breaker::Open { until, cause } = &self.breaker
            && *until <= now
        {
            self.breaker = Breaker::HalfOpen { cause: cause.clone() };
        }
        match &self.breaker {
            Breaker::Open { until, .. } => Permit::NotBefore(*until),
            Breaker::HalfOpen { .. } if probes > 0 => Permit::NotBefore(Duration::MAX),
            Breaker::HalfOpen { .. } => Permit::Probe,
            Breaker::Closed if self.not_before > now => Permit::NotBefore(self.not_before),
            Breaker::Closed => Permit::Granted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: RestartSettings = RestartSettings {
        burst: 5,
        within: Duration::from_secs(60),
        base: Duration::from_millis(100),
        max: Duration::from_secs(60),
        healthy_after: Duration::from_secs(10),
    };

    const SIGNAL: Ending = Ending::Signal(9);

    #[test]
    fn deaths_of_one_kind_open_the_breaker_and_a_mixture_only_delays() {
        let mut restart = Restart::default();
        let kinds = [SIGNAL, Ending::Code(1), Ending::Told, Ending::FailedStart];
        let mut delay = Duration::ZERO;
        for n in 0..16 {
            let kind = kinds[n % kinds.len()];
            delay = restart.on_death(Duration::ZERO, &SETTINGS, (Blame::Nobody, kind), "mixed");
        }
        assert_eq!(*restart.breaker(), Breaker::Closed);
        assert_eq!(delay, SETTINGS.max);
        restart.on_death(Duration::ZERO, &SETTINGS, (Blame::Nobody, SIGNAL), "crash");
        assert_ne!(*restart.breaker(), Breaker::Closed);
    }

    #[test]
    fn the_first_death_restarts_at_once_and_later_ones_wait_longer() {
        let mut restart = Restart::default();
        let delays: Vec<_> = (0..4)
            .map(|n| {
                restart
                    .on_death(Duration::from_secs(n), &SETTINGS, (Blame::Nobody, SIGNAL), "crash")
                    .as_millis()
            })
            .collect();
        assert_eq!(delays, [0, 100, 200, 400]);
    }

    #[test]
    fn the_fifth_death_opens_the_breaker_and_a_healthy_probe_closes_it() {
        let mut restart = Restart::default();
        for n in 0..5 {
            restart.on_death(Duration::from_secs(n), &SETTINGS, (Blame::Nobody, SIGNAL), "crash");
        }
        let opened = Duration::from_secs(4);
        let until = opened + SETTINGS.max;
        assert_eq!(restart.permit(opened, 0), Permit::NotBefore(until));
        assert_eq!(restart.permit(until, 0), Permit::Probe);
        assert_eq!(restart.permit(until, 1), Permit::NotBefore(Duration::MAX));
        restart.on_health();
        assert_eq!(restart.permit(until, 1), Permit::Granted);
    }

    #[test]
    fn a_probe_that_dies_opens_the_breaker_again() {
        let mut restart = Restart::default();
        for n in 0..5 {
            restart.on_death(Duration::from_secs(n), &SETTINGS, (Blame::Nobody, SIGNAL), "crash");
        }
        let now = Duration::from_secs(200);
        assert_eq!(restart.permit(now, 0), Permit::Probe);
        restart.on_death(now, &SETTINGS, (Blame::Nobody, SIGNAL), "crash");
        assert_eq!(restart.permit(now, 0), Permit::NotBefore(now + SETTINGS.max));
    }

    #[test]
    fn one_job_that_kills_many_workers_does_not_open_the_breaker() {
        let mut restart = Restart::default();
        for n in 0..20 {
            restart.on_death(
                Duration::from_millis(n),
                &SETTINGS,
                (Blame::Job(JobId(7)), SIGNAL),
                "crash",
            );
        }
        assert_eq!(*restart.breaker(), Breaker::Closed);
    }

    #[test]
    fn the_search_for_one_culprit_does_not_open_the_breaker_but_many_culprits_do() {
        let mut restart = Restart::default();
        for n in (0..14).rev() {
            let delay =
                restart.on_death(Duration::ZERO, &SETTINGS, (Blame::OneOf(n), SIGNAL), "crash");
            assert_eq!(delay, Duration::ZERO);
        }
        assert_eq!(*restart.breaker(), Breaker::Closed);
        for _ in 0..4 {
            restart.on_death(Duration::ZERO, &SETTINGS, (Blame::OneOf(9), SIGNAL), "crash");
        }
        assert_ne!(*restart.breaker(), Breaker::Closed);
    }

    #[test]
    fn deaths_outside_the_window_are_forgotten() {
        let mut restart = Restart::default();
        for n in 0..10 {
            let delay = restart.on_death(
                Duration::from_secs(61 * n),
                &SETTINGS,
                (Blame::Nobody, SIGNAL),
                "crash",
            );
            assert_eq!(delay, Duration::ZERO);
        }
    }
}
