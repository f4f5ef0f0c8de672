//! What is known of every claimed attempt, from the claim's commit to the answer to its move:
//! kept by the world, from what passes between the crew and its surroundings.

use super::process::{Key, Pid};
use shiftboss::policy::claim::{TypeName, WorkerId};
use shiftboss::policy::settings::TypeSettings;
use shiftboss_protocol::job::JobId;
use shiftboss_protocol::message::StopReason;
use std::collections::{BTreeMap, VecDeque};

/// How far an attempt of the living supervisor has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Claimed in the table; the crew does not know yet.
    Committed,
    /// The crew knows, and has not decided how it ends.
    Running,
    /// How it ends is decided, and is being stored.
    Moved,
}

#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) worker: WorkerId,
    pub(super) job_type: TypeName,
    pub(super) phase: Phase,
    /// It was given to its worker.
    pub(super) was_given: bool,
    /// Its row is not ours: its worker was found with it.
    pub(super) is_stray: bool,
    /// Its worker reported how it ended.
    pub(super) is_reported: bool,
    /// Somebody wants its job cancelled: it must not run again.
    pub(super) is_unwanted: bool,
    /// Its worker was told to stop it.
    pub(super) stop: Option<StopReason>,
    pub(super) failures: u32,
    pub(super) crash_count: u32,
    pub(super) attempts_max: Option<u32>,
    pub(super) limit_us: u64,
    pub(super) assigned_us: u64,
}

impl Claim {
    /// An attempt that a supervisor before this one gave to its worker.
    pub(super) fn found(worker: WorkerId, job_type: TypeName, now_us: u64) -> Self {
        Self {
            worker,
            job_type,
            phase: Phase::Running,
            was_given: true,
            is_stray: false,
            is_unwanted: false,
            is_reported: false,
            stop: None,
            failures: 0,
            crash_count: 0,
            attempts_max: None,
            limit_us: 0,
            assigned_us: now_us,
        }
    }
}

/// A worker of the living supervisor, as far as its shell knows it.
#[derive(Clone, Debug)]
pub(super) struct Hand {
    pub(super) pid: Option<Pid>,
    pub(super) job_type: TypeName,
    pub(super) slot: u32,
    /// Its type's settings when it was started.
    pub(super) settings: TypeSettings,
    pub(super) ready_us: Option<u64>,
    /// The crew told it to go: it may get nothing more.
    pub(super) is_told_to_go: bool,
    /// It was told to drain or to end: its end is no death.
    pub(super) is_dismissed: bool,
    /// The crew may count its end as no death, for reasons that do not show.
    pub(super) may_be_dismissed: bool,
    pub(super) is_kill_ordered: bool,
    /// It outlived its supervisor and is not back.
    pub(super) is_away: bool,
    /// When the shell last heard it, or gave it its first attempt.
    pub(super) heard_us: u64,
    /// It was taken over from another supervisor.
    pub(super) was_found: bool,
}

/// Of what kind a death was, at least as finely told as the crew tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) was_ready: bool,
    pub(super) was_killed: bool,
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
}

/// Deaths of workers that held nothing, since workers of the type were last known to be well: a
/// lower bound of what the crew must count, kept apart from its own books.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    at_us: VecDeque<(u64, Kind)>,
    /// No worker may be started before.
    pub(super) not_before_us: u64,
    /// Until then the breaker is open, and a death less does not count.
    shut_until_us: u64,
}

impl Deaths {
    pub(super) fn add(&mut self, now_us: u64, kind: Kind, settings: &TypeSettings) {
        let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(0);
        let restart = &settings.restart;
        let within = micros(restart.within);
        while self.at_us.front().is_some_and(|(at, _)| at + within < now_us) {
            self.at_us.pop_front();
        }
        self.at_us.push_back((now_us, kind));
        let alike = self.at_us.iter().filter(|(_, other)| *other == kind).count();
        let wait = if alike >= restart.burst as usize {
            self.shut_until_us = now_us + micros(restart.max);
            micros(restart.max)
        } else if self.at_us.len() >= 2 && now_us > self.shut_until_us {
            micros(restart.base.min(restart.max))
        } else {
            0
        };
        self.not_before_us = self.not_before_us.max(now_us + wait);
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) claims: BTreeMap<Key, Claim>,
    pub(super) deaths: BTreeMap<TypeName, Deaths>,
    /// How often each job was given back in which second.
    pub(super) given_back: BTreeMap<JobId, (u64, u32)>,
    /// Accepted rows that somebody deleted again.
    pub(super) deleted: u64,
}

impl Ledger {
    /// The attempts of a worker whose end is open.
    pub(super) fn open_of(&self, worker: WorkerId) -> Vec<Key> {
        let open = self.claims.iter();
        open.filter(|(_, one)| one.worker == worker && one.phase == Phase::Running)
            .map(|(key, _)| *key)
            .collect()
    }
}
