//! What is wanted and what exists: the next look at the table, the next worker, the next spare
//! that goes. Runs after every event.

use super::deadline::Timer;
use super::worker::{Start, Worker, WorkerState};
use super::{Crew, Stopping, TypeBook};
use crate::policy::claim::{TypeName, WorkerId};
use crate::policy::event::{Action, DrainLimit, Notice};
use crate::policy::restart::Permit;
use crate::policy::settings::TypeSettings;
use crate::policy::time::Now;
use std::time::Duration;

/// What one type needs.
struct Need {
    /// Workers that its jobs fill.
    for_jobs: u32,
    /// Workers that are wanted, with spares and the least number.
    wanted: u32,
    /// Workers that exist and stay.
    live: u32,
    /// Workers that exist: those that are on their way out still use their limits.
    existing: u32,
}

impl Crew {
    pub(super) fn settle(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.stopping == Stopping::No {
            let names: Vec<_> = self.types.keys().cloned().collect();
            for name in &names {
                self.settle_type(now, name, out);
            }
        }
        if self.may_look() && self.look.wanted && !self.look.in_flight {
            self.look.wanted = false;
            self.look.in_flight = true;
            out.push(Action::Take(self.request(now)));
        }
        self.exit_when_empty(out);
    }

    /// True while the table is looked at at all.
    pub(super) fn may_look(&self) -> bool {
        self.stopping == Stopping::No && self.settings.workers_enabled
    }

    /// Room for attempts of this type came up: jobs that wait for it are looked for.
    pub(super) fn room_came_up(&mut self, name: &TypeName) {
        // The look under way did not offer this room: what it leaves must be looked for again.
        self.look.room_came_up |= self.look.in_flight;
        let waiting = self.types.get(name).is_some_and(|book| book.waiting > 0);
        self.look.wanted |= waiting || self.suspects.groups(name) > 0;
    }

    /// An attempt of this type ended: jobs of any type that the cap held back are looked for.
    pub(super) fn room_came_up_in_total(&mut self, name: &TypeName) {
        if self.settings.running_max.is_some() && self.is_capped(name) {
            self.look.room_came_up |= self.look.in_flight;
            self.look.wanted |= self.types.values().any(|book| book.waiting > 0);
        }
    }

    fn settle_type(&mut self, now: Now, name: &TypeName, out: &mut Vec<Action>) {
        let Some(settings) = self.settings.types.get(&**name).cloned() else { return };
        self.replace_outdated(now, name, &settings, out);
        self.shed(now, name, &settings, out);
        let mut need = self.need(now, name, &settings);
        let is_finding = self.is_finding;
        let is_allowed = |need: &Need| need.existing < settings.workers_max && !is_finding;
        while need.live < need.wanted && is_allowed(&need) {
            let why = if need.live < need.for_jobs {
                "jobs wait"
            } else {
                "a worker is to be kept ready (workers.min, workers.warm)"
            };
            let Some(permit) = self.permit(now, name) else { break };
            self.start_worker(now, name, Start { why, permit }, out);
            need.live += 1;
            need.existing += 1;
        }
        if need.live > need.wanted {
            self.retire_spares(now, name, &settings, need.live - need.wanted, out);
        }
        self.look.wanted |= self.can_dedicate(name);
    }

    fn need(&self, now: Now, name: &TypeName, settings: &TypeSettings) -> Need {
        let mut need = Need { for_jobs: 0, wanted: 0, live: 0, existing: 0 };
        let (mut busy, mut room) = (0_u32, 0_u32);
        for (id, one) in self.workers.iter().filter(|(_, one)| one.job_type == *name) {
            need.existing += 1;
            need.live += u32::from(one.state.is_live());
            if one.state == WorkerState::Busy {
                busy += 1;
                room = room.saturating_add(self.room_in(*id, one));
            }
        }
        let Some(book) = self.types.get(name) else { return need };
        if !settings.enabled || !self.settings.workers_enabled {
            return need;
        }
        let for_waiting = if book.paused { 0 } else { self.for_waiting(name, settings, room) };
        need.for_jobs = busy.saturating_add(for_waiting).min(settings.workers_max);
        let is_warm = now.mono >= book.warm_from;
        let (spares, least) = if is_warm { (settings.warm, settings.workers_min) } else { (0, 0) };
        let wanted = need.for_jobs.saturating_add(spares).max(least);
        need.wanted = wanted.min(settings.workers_max);
        need
    }

    /// Workers that the waiting jobs of a type fill, when busy workers have `room` left: one
    /// for each group of suspects, the others together.
    fn for_waiting(&self, name: &TypeName, settings: &TypeSettings, room: u32) -> u32 {
        let waiting = self.types.get(name).map_or(0, |book| book.waiting);
        let count = |jobs: usize| u32::try_from(jobs).unwrap_or(u32::MAX);
        let groups = count(self.suspects.groups(name));
        let suspects = count(self.suspects.jobs_waiting(name));
        let others = self.within_total(settings, waiting.saturating_sub(suspects));
        let unplaced = others.saturating_sub(room).div_ceil(settings.concurrency.max(1));
        self.within_total(settings, groups).saturating_add(unplaced)
    }

    fn within_total(&self, settings: &TypeSettings, waiting: u32) -> u32 {
        match self.room_total() {
            Some(room) if settings.counts_in_cap => waiting.min(room),
            Some(_) | None => waiting,
        }
    }

    pub(super) fn is_capped(&self, name: &str) -> bool {
        self.settings.types.get(name).is_none_or(|one| one.counts_in_cap)
    }

    /// Most further attempts that the cap over all types allows.
    pub(super) fn room_total(&self) -> Option<u32> {
        let max = self.settings.running_max?;
        let running: u32 = self
            .types
            .iter()
            .filter(|(name, _)| self.is_capped(name))
            .map(|(_, book)| book.running)
            .sum();
        Some(max.saturating_sub(running))
    }

    fn permit(&mut self, now: Now, name: &TypeName) -> Option<Permit> {
        let mine = self.workers.values().filter(|one| one.job_type == *name);
        let probes = mine.filter(|one| one.probe).count();
        let book = self.types.get_mut(name)?;
        match book.restart.permit(now.mono, probes) {
            permit @ (Permit::Granted | Permit::Probe) => Some(permit),
            // The end of the probe decides, not a time.
            Permit::NotBefore(at) if at == Duration::MAX => None,
            Permit::NotBefore(at) => {
                self.deadlines.arm(at, Timer::Restart(name.clone()));
                None
            }
        }
    }

    /// When the first spare of a type may be started, if that lies ahead.
    pub(super) fn warm_start(&self) -> Option<Duration> {
        // Compared with the last event, not with the present: a moment that passed since then
        // has not been handled yet.
        let ahead = |(name, book): (&TypeName, &TypeBook)| {
            let settings = self.settings.types.get(&**name)?;
            let spares = settings.enabled && (settings.warm > 0 || settings.workers_min > 0);
            (spares && book.warm_from > self.handled_at).then_some(book.warm_from)
        };
        self.types.iter().filter_map(ahead).min()
    }

    /// Workers of the type that exist, in whatever state.
    pub(super) fn workers_of(&self, name: &TypeName) -> usize {
        self.workers.values().filter(|one| one.job_type == *name).count()
    }

    /// Idle workers that have run as many jobs as they may, or run what is no longer configured,
    /// are replaced.
    fn replace_outdated(
        &mut self,
        now: Now,
        name: &TypeName,
        settings: &TypeSettings,
        out: &mut Vec<Action>,
    ) {
        let limit = settings.recycle_after_jobs;
        let why = |one: &Worker| {
            if one.job_type != *name || one.state != WorkerState::Idle {
                None
            } else if limit > 0 && one.jobs_given >= limit {
                Some("it has run as many jobs as one worker may")
            } else if one.worn {
                Some("it uses more memory than a worker may keep (recycle.above_memory)")
            } else if one.settings.workload != settings.workload
                || one.settings.concurrency != settings.concurrency
                || one.settings.start_mark != settings.start_mark
            {
                Some("its configuration changed")
            } else {
                None
            }
        };
        let due = self.workers.iter().filter_map(|(id, one)| why(one).map(|why| (*id, why)));
        for (worker, why) in due.collect::<Vec<_>>() {
            self.dismiss(now, worker, why, out);
        }
    }

    /// After a reload more workers may exist than the type may have now: the least busy go.
    fn shed(&mut self, now: Now, name: &TypeName, settings: &TypeSettings, out: &mut Vec<Action>) {
        let live = self.workers.iter();
        let live = live.filter(|(_, one)| one.job_type == *name && one.state.is_live());
        let mut load: Vec<_> = live.map(|(id, one)| (one.attempts.len(), *id)).collect();
        load.sort_unstable();
        let surplus = load.len().saturating_sub(settings.workers_max as usize);
        for (_, worker) in load.into_iter().take(surplus) {
            self.dismiss(now, worker, "the type may have fewer workers now", out);
        }
    }

    fn retire_spares(
        &mut self,
        now: Now,
        name: &TypeName,
        settings: &TypeSettings,
        surplus: u32,
        out: &mut Vec<Action>,
    ) {
        let idle: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, one)| one.job_type == *name && one.state == WorkerState::Idle)
            .map(|(id, one)| (one.idle_since + settings.idle, *id))
            .collect();
        let (over, waiting): (Vec<_>, Vec<_>) =
            idle.into_iter().partition(|(at, _)| *at <= now.mono);
        for (_, worker) in over.into_iter().take(surplus as usize) {
            self.dismiss(now, worker, "it was idle for long enough", out);
        }
        for (at, worker) in waiting {
            self.deadlines.arm(at, Timer::Spare(worker));
        }
    }

    /// Tells a worker to go when it has finished what it holds.
    pub(super) fn dismiss(
        &mut self,
        now: Now,
        worker: WorkerId,
        why: &'static str,
        out: &mut Vec<Action>,
    ) {
        let Some(one) = self.workers.get(&worker) else { return };
        let job_type = one.job_type.clone();
        out.push(Action::Notice(Notice::Retiring { worker, job_type, why }));
        self.drain_worker(now, worker, DrainLimit::Unlimited, out);
    }
}
