//! What a look at the table offers: the room in each worker, groups of suspects to workers of
//! their own, and what must be known of each type.

use super::Crew;
use super::worker::{Worker, WorkerState};
use crate::policy::claim::{Offer, TakeRequest, TypeLook, TypeName, WorkerId};
use crate::policy::settings::TypeSettings;
use crate::policy::time::Now;
use std::collections::BTreeMap;

/// Most waiting jobs counted for one type: enough to know how many workers to start.
const COUNT_MAX: u32 = 1000;

impl Crew {
    pub(super) fn request(&mut self, now: Now) -> TakeRequest {
        let room_total = self.room_total();
        let offers = self.offers(room_total);
        let types = self.looks();
        let avoid = self.suspects.all().union(&self.lost).copied().collect();
        TakeRequest { now_ms: now.unix_ms, offers, room_total, types, avoid }
    }

    fn offers(&mut self, room_total: Option<u32>) -> Vec<Offer> {
        let dedicated = self.dedicate(room_total);
        let reserved = self.reserved();
        let mut offers: Vec<_> = self
            .workers
            .iter()
            .filter(|(id, _)| !reserved.values().any(|one| one == *id))
            .filter(|(_, one)| room_total != Some(0) || !self.is_capped(&one.job_type))
            .map(|(id, one)| (*id, one, self.room_in(*id, one)))
            .filter(|(_, _, room)| *room > 0)
            .map(|(id, one, room)| offer(id, one, room))
            .collect();
        offers.extend(dedicated);
        offers
    }

    /// How many more attempts the worker may be given; a group of suspects fills it.
    pub(super) fn room_in(&self, id: WorkerId, one: &Worker) -> u32 {
        let Some(settings) = self.settings.types.get(&*one.job_type) else { return 0 };
        let Some(book) = self.types.get(&one.job_type) else { return 0 };
        let is_open = one.state.is_open() && settings.enabled && !book.paused;
        let is_current = one.settings.workload == settings.workload;
        if !is_open || !is_current || self.suspects.is_dedicated(id) {
            return 0;
        }
        if self.awaits_survivors(&one.job_type) {
            return 0;
        }
        let used = u32::try_from(one.attempts.len()).unwrap_or(u32::MAX);
        // It was told how many it may hold when it started.
        let most = settings.concurrency.min(one.settings.concurrency);
        let room = most.saturating_sub(used);
        if settings.recycle_after_jobs == 0 {
            return room;
        }
        room.min(settings.recycle_after_jobs.saturating_sub(one.jobs_given))
    }

    /// A worker that is not back yet may hold attempts whose rows somebody changed meanwhile: it
    /// tells of them when it is back, and until then none of these jobs may run a second time.
    pub(super) fn awaits_survivors(&self, name: &str) -> bool {
        let mut workers = self.workers.values();
        workers.any(|one| one.away && *one.job_type == *name)
    }

    /// True when a group of suspects could go to an idle worker now.
    pub(super) fn can_dedicate(&self, name: &TypeName) -> bool {
        let fits = |(id, one): (&WorkerId, &Worker)| {
            one.job_type == *name && one.state == WorkerState::Idle && self.room_in(*id, one) > 0
        };
        self.suspects.groups(name) > 0
            && (self.room_total() != Some(0) || !self.is_capped(name))
            && self.workers.iter().any(fits)
    }

    /// Gives waiting groups of suspects to idle workers, one group each, as far as the cap over
    /// all types goes: what is offered is claimed whole unless it is gone.
    fn dedicate(&mut self, room_total: Option<u32>) -> Vec<Offer> {
        let mut left = room_total.unwrap_or(u32::MAX);
        let idle = self.workers.iter().filter(|(_, one)| one.state == WorkerState::Idle);
        let idle: Vec<_> = idle.map(|(id, _)| *id).collect();
        let mut offers = Vec::new();
        for worker in idle {
            let Some(one) = self.workers.get(&worker) else { continue };
            let capped = self.is_capped(&one.job_type);
            let room = self.room_in(worker, one).min(if capped { left } else { u32::MAX });
            if room == 0 {
                continue;
            }
            let job_type = &one.job_type;
            let Some(group) = self.suspects.hand_over(job_type, worker, room as usize) else {
                continue;
            };
            let size = u32::try_from(group.len()).unwrap_or(u32::MAX);
            if capped {
                left = left.saturating_sub(size);
            }
            offers.push(Offer { only: group, ..offer(worker, one, size) });
        }
        offers
    }

    /// Where groups wait, no worker runs one and none may be started, the least busy worker gets
    /// nothing new until it is idle: else suspects could wait for ever.
    fn reserved(&self) -> BTreeMap<TypeName, WorkerId> {
        let mut reserved = BTreeMap::new();
        for (name, settings) in &self.settings.types {
            if self.suspects.groups(name) == 0 {
                continue;
            }
            let is_mine = |one: &Worker| *one.job_type == **name && one.state.is_live();
            let live = || self.workers.iter().filter(|(_, one)| is_mine(one));
            let is_full = live().count() >= settings.workers_max as usize;
            let least = live().map(|(id, one)| (one.attempts.len(), *id)).min();
            if let Some((_, id)) = least
                && is_full
                && !live().any(|(id, _)| self.suspects.is_dedicated(*id))
            {
                reserved.insert(name.as_str().into(), id);
            }
        }
        reserved
    }

    fn looks(&self) -> BTreeMap<TypeName, TypeLook> {
        let look = |(name, settings): (&String, &TypeSettings)| {
            let book = self.types.get(name.as_str());
            let wanted = settings.enabled && book.is_some_and(|book| !book.paused);
            // Suspects are counted too, and must not hide the others.
            let suspects = u32::try_from(self.suspects.jobs_waiting(name)).unwrap_or(u32::MAX);
            let most = settings.workers_max.saturating_mul(settings.concurrency).min(COUNT_MAX);
            let most = most.saturating_add(suspects);
            let look = TypeLook {
                priority: settings.priority,
                counts_in_total: settings.counts_in_cap,
                count_max: if wanted { most } else { 0 },
                sync: settings.claim_sync,
                running: book.map_or(0, |book| book.running),
            };
            (TypeName::from(name.as_str()), look)
        };
        self.settings.types.iter().map(look).collect()
    }
}

fn offer(worker: WorkerId, one: &Worker, room: u32) -> Offer {
    Offer {
        worker,
        job_type: one.job_type.clone(),
        room,
        pid: one.pid.unwrap_or(0),
        confinement: one.confinement.clone(),
        only: Vec::new(),
    }
}
