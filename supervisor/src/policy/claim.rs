//! Which available jobs are claimed, and for which workers: data of a claim, and the choice.
//!
//! The store reads candidates, asks [`choose`], and claims what it says in the same
//! transaction. Order: priority of the type plus the row's, then due time, then id; when types
//! compete for a total, those with equal priority take turns.

use shiftboss_protocol::job::JobId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Number of a worker within this supervisor, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

impl std::fmt::Display for WorkerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Name of a job type, cheap to clone.
pub type TypeName = Arc<str>;

/// Room for attempts in one ready worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The worker.
    pub worker: WorkerId,
    /// Its type.
    pub job_type: TypeName,
    /// How many more attempts it takes, at least 1.
    pub room: u32,
    /// Its process id, stored with the attempt.
    pub pid: u32,
    /// The confinement that it reported, stored with the attempt.
    pub confinement: Arc<str>,
    /// When not empty: only these jobs, suspected of having killed a worker together.
    pub only: Vec<JobId>,
}

/// What the store must know of a type to look for its jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeLook {
    /// Added to a row's priority when types compete.
    pub priority: i64,
    /// True: counts in [`TakeRequest::room_total`].
    pub counts_in_total: bool,
    /// How many waiting jobs to count at most; 0: do not count.
    pub count_max: u32,
    /// False: a power cut may undo the claim (`claim_sync = false`).
    pub sync: bool,
    /// Attempts of this type that run now, for turns between types.
    pub running: u32,
}

/// One look at the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakeRequest {
    /// Wall clock, unix milliseconds: what is due by now becomes available.
    pub now_ms: i64,
    /// Room, by worker.
    pub offers: Vec<Offer>,
    /// Most jobs claimed in all, of the types that count; `None`: no bound.
    pub room_total: Option<u32>,
    /// Every configured type; a row of any other is failed at once.
    pub types: BTreeMap<TypeName, TypeLook>,
    /// Jobs that no offer without `only` may get.
    pub avoid: BTreeSet<JobId>,
}

/// A claimed job, as far as the policy is concerned; its payload travels beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenJob {
    /// The row.
    pub job: JobId,
    /// The attempt that the claim began.
    pub attempt: shiftboss_protocol::job::Attempt,
    /// Its type.
    pub job_type: TypeName,
    /// The worker that it was claimed for.
    pub worker: WorkerId,
    /// Failures so far.
    pub failures: u32,
    /// Crashes so far.
    pub crash_count: u32,
    /// The row's own bound of failures.
    pub attempts_max: Option<u32>,
    /// The row's own timeout, milliseconds.
    pub timeout_ms: Option<u64>,
}

/// What a look at the table brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Claimed jobs.
    pub jobs: Vec<TakenJob>,
    /// Available jobs left, by type, counted up to [`TypeLook::count_max`].
    pub waiting: BTreeMap<TypeName, u32>,
    /// Earliest `run_at` of a scheduled job, unix milliseconds.
    pub next_due_ms: Option<i64>,
    /// Scheduled jobs that became available.
    pub promoted: u32,
    /// Rows of unknown types that were failed.
    pub unknown_failed: u32,
    /// True: a bound of work per transaction was reached, look again at once.
    pub more: bool,
}

/// An available row that may be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The row.
    pub job: JobId,
    /// Its type.
    pub job_type: TypeName,
    /// The row's priority.
    pub priority: i64,
    /// The row's due time, unix milliseconds.
    pub run_at_ms: i64,
}

/// Which candidates are claimed, and for which worker. Every offer's room and the total hold;
/// suspects go only to the offers that name them.
#[must_use]
pub fn choose(request: &TakeRequest, candidates: &[Candidate]) -> Vec<(JobId, WorkerId)> {
    let mut choice = Choice {
        request,
        left: request.room_total.unwrap_or(u32::MAX),
        chosen: Vec::new(),
        taken: BTreeSet::new(),
    };
    choice.dedicated(candidates);
    choice.ordinary(candidates);
    choice.chosen
}

struct Choice<'a> {
    request: &'a TakeRequest,
    left: u32,
    chosen: Vec<(JobId, WorkerId)>,
    taken: BTreeSet<JobId>,
}

/// The candidates of one type, best first, and the room that its workers have.
struct Lane<'a> {
    look: &'a TypeLook,
    heads: std::collections::VecDeque<&'a Candidate>,
    room: Vec<(u32, WorkerId)>,
    running: u32,
}

impl<'a> Choice<'a> {
    fn dedicated(&mut self, candidates: &[Candidate]) {
        for offer in self.request.offers.iter().filter(|offer| !offer.only.is_empty()) {
            let only: BTreeSet<_> = offer.only.iter().copied().collect();
            let counts = self.counts(&offer.job_type);
            let mut room = offer.room;
            for candidate in candidates {
                let free = room > 0 && (!counts || self.left > 0);
                if free && only.contains(&candidate.job) && self.taken.insert(candidate.job) {
                    self.take(candidate.job, offer.worker, counts);
                    room -= 1;
                }
            }
        }
    }

    fn ordinary(&mut self, candidates: &'a [Candidate]) {
        let mut lanes = self.lanes(candidates);
        loop {
            let open = self.left > 0;
            let best = lanes
                .iter_mut()
                .filter(|lane| open || !lane.look.counts_in_total)
                .filter(|lane| !lane.room.is_empty())
                .filter_map(|lane| lane.heads.front().copied().map(|head| (rank(lane, head), lane)))
                .min_by_key(|(rank, _)| *rank);
            let Some((_, lane)) = best else { return };
            let Some(head) = lane.heads.pop_front() else { return };
            let counts = lane.look.counts_in_total;
            lane.running += 1;
            let worker = lane.next_worker();
            self.take(head.job, worker, counts);
        }
    }

    fn lanes(&self, candidates: &'a [Candidate]) -> Vec<Lane<'a>> {
        let mut lanes = BTreeMap::<&str, Lane<'a>>::new();
        for offer in self.request.offers.iter().filter(|offer| offer.only.is_empty()) {
            let Some(look) = self.request.types.get(&offer.job_type) else { continue };
            let lane = lanes.entry(&offer.job_type).or_insert_with(|| Lane {
                look,
                heads: std::collections::VecDeque::new(),
                room: Vec::new(),
                running: look.running,
            });
            if offer.room > 0 {
                lane.room.push((offer.room, offer.worker));
            }
        }
        for candidate in candidates {
            let free = !self.taken.contains(&candidate.job);
            if free
                && !self.request.avoid.contains(&candidate.job)
                && let Some(lane) = lanes.get_mut(&*candidate.job_type)
            {
                lane.heads.push_back(candidate);
            }
        }
        for lane in lanes.values_mut() {
            let order = |one: &&Candidate| (-i128::from(one.priority), one.run_at_ms, one.job);
            lane.heads.make_contiguous().sort_by_key(order);
        }
        lanes.into_values().collect()
    }

    fn counts(&self, job_type: &str) -> bool {
        self.request.types.get(job_type).is_none_or(|look| look.counts_in_total)
    }

    fn take(&mut self, job: JobId, worker: WorkerId, counts: bool) {
        self.chosen.push((job, worker));
        if counts {
            self.left = self.left.saturating_sub(1);
        }
    }
}

impl Lane<'_> {
    /// The worker with the most room, so that many attempts spread over the processes.
    fn next_worker(&mut self) -> WorkerId {
        let (at, _) = self
            .room
            .iter()
            .enumerate()
            .max_by_key(|(at, (room, _))| (*room, std::cmp::Reverse(*at)))
            .expect("a lane without room is not chosen from");
        let (room, worker) = &mut self.room[at];
        let worker = *worker;
        *room -= 1;
        if *room == 0 {
            self.room.swap_remove(at);
        }
        worker
    }
}

/// Smaller is better: priority first, then turns between types, then due time, then id.
fn rank(lane: &Lane<'_>, head: &Candidate) -> (i128, u32, i64, JobId) {
    let priority = i128::from(lane.look.priority) + i128::from(head.priority);
    (-priority, lane.running, head.run_at_ms, head.job)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(priority: i64) -> TypeLook {
        TypeLook { priority, counts_in_total: true, count_max: 1, sync: true, running: 0 }
    }

    fn offer(worker: u64, job_type: &str, room: u32) -> Offer {
        Offer {
            worker: WorkerId(worker),
            job_type: job_type.into(),
            room,
            pid: 1,
            confinement: "none".into(),
            only: Vec::new(),
        }
    }

    fn candidate(job: i64, job_type: &str, priority: i64, run_at_ms: i64) -> Candidate {
        Candidate { job: JobId(job), job_type: job_type.into(), priority, run_at_ms }
    }

    fn request(offers: Vec<Offer>, room_total: Option<u32>) -> TakeRequest {
        let types = offers.iter().map(|offer| (offer.job_type.clone(), look(0))).collect();
        TakeRequest { offers, room_total, types, ..TakeRequest::default() }
    }

    fn jobs(chosen: &[(JobId, WorkerId)]) -> Vec<i64> {
        chosen.iter().map(|(job, _)| job.0).collect()
    }

    #[test]
    fn priority_then_due_time_then_id() {
        let request = request(vec![offer(1, "a", 3)], None);
        let candidates = [
            candidate(1, "a", 0, 50),
            candidate(2, "a", 0, 10),
            candidate(3, "a", 5, 90),
            candidate(4, "a", 0, 10),
        ];
        assert_eq!(jobs(&choose(&request, &candidates)), [3, 2, 4]);
    }

    #[test]
    fn types_take_turns_when_the_total_binds() {
        let request = request(vec![offer(1, "a", 9), offer(2, "b", 9)], Some(4));
        let mut candidates: Vec<_> = (1..=9).map(|id| candidate(id, "a", 0, 0)).collect();
        candidates.extend((10..=19).map(|id| candidate(id, "b", 0, 100)));
        assert_eq!(jobs(&choose(&request, &candidates)), [1, 10, 2, 11]);
    }

    #[test]
    fn a_type_with_priority_goes_first() {
        let mut request = request(vec![offer(1, "a", 9), offer(2, "keying", 9)], Some(2));
        request.types.insert("keying".into(), look(10));
        let candidates =
            [candidate(1, "a", 0, 0), candidate(2, "keying", 0, 5), candidate(3, "keying", 0, 6)];
        assert_eq!(jobs(&choose(&request, &candidates)), [2, 3]);
    }

    #[test]
    fn attempts_spread_over_the_workers_with_most_room() {
        let request = request(vec![offer(1, "a", 2), offer(2, "a", 3)], None);
        let candidates: Vec<_> = (1..=9).map(|id| candidate(id, "a", 0, 0)).collect();
        let chosen = choose(&request, &candidates);
        let of = |worker| chosen.iter().filter(|(_, one)| one.0 == worker).count();
        assert_eq!((of(1), of(2)), (2, 3));
    }

    #[test]
    fn suspects_go_only_to_the_worker_that_names_them() {
        let dedicated = Offer { only: vec![JobId(1), JobId(2)], ..offer(1, "a", 9) };
        let mut request = request(vec![dedicated, offer(2, "a", 9)], None);
        request.avoid = [1, 2, 3].map(JobId).into();
        let candidates: Vec<_> = (1..=4).map(|id| candidate(id, "a", 0, 0)).collect();
        let chosen = choose(&request, &candidates);
        let expected = [(1, 1), (2, 1), (4, 2)].map(|(job, worker)| (JobId(job), WorkerId(worker)));
        assert_eq!(chosen, expected);
    }
}
