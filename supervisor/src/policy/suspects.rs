//! Finds the job that kills workers among many that were held together.
//!
//! When a worker that held many attempts dies, none of them is to blame for sure. They are split
//! into two groups, each runs in a worker of its own, and a group whose worker dies again is
//! split again: after log2(n) rounds the culprit is alone, and only then counted.

use super::claim::{TypeName, WorkerId};
use shiftboss_protocol::job::JobId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Groups of suspected jobs, waiting for a worker of their own or in one.
#[derive(Clone, Debug, Default)]
pub struct Suspects {
    waiting: BTreeMap<TypeName, VecDeque<Vec<JobId>>>,
    held: BTreeMap<WorkerId, Group>,
    /// All jobs of `waiting` and `held`.
    all: BTreeSet<JobId>,
    /// Jobs that were in one shared death and went on together: a second one makes suspects.
    noted: BTreeSet<JobId>,
}

#[derive(Clone, Debug)]
struct Group {
    job_type: TypeName,
    jobs: BTreeSet<JobId>,
}

impl Suspects {
    /// These jobs were in `worker` when it died, and go on. With at least two free `places` for
    /// workers they go on in two groups. With fewer one half would have to wait for the other:
    /// then only those go on in groups that were in such a death before, because most deaths
    /// come from outside and must not hold anybody up.
    pub fn on_shared_death(
        &mut self,
        worker: WorkerId,
        job_type: &TypeName,
        jobs: &[JobId],
        places: usize,
    ) {
        let is_known = |job: &JobId| self.all.contains(job) || self.noted.contains(job);
        let (suspected, noted): (Vec<JobId>, Vec<JobId>) =
            jobs.iter().copied().partition(|job| places >= 2 || is_known(job));
        self.on_worker_gone(worker);
        self.noted.extend(noted);
        for job in &suspected {
            self.noted.remove(job);
        }
        let (left, right) = suspected.split_at(suspected.len() / 2);
        for half in [left, right] {
            self.wait(job_type, half.to_vec());
        }
    }

    /// The job killed a worker alone: from now on it runs alone.
    pub fn isolate(&mut self, job_type: &TypeName, job: JobId) {
        self.wait(job_type, vec![job]);
    }

    fn wait(&mut self, job_type: &TypeName, group: Vec<JobId>) {
        if group.is_empty() {
            return;
        }
        self.all.extend(&group);
        self.waiting.entry(job_type.clone()).or_default().push_back(group);
    }

    /// Groups of this type that wait for a worker.
    #[must_use]
    pub fn groups(&self, job_type: &str) -> usize {
        self.waiting.get(job_type).map_or(0, VecDeque::len)
    }

    /// Jobs in the groups of this type that wait for a worker.
    #[must_use]
    pub fn jobs_waiting(&self, job_type: &str) -> usize {
        self.waiting.get(job_type).map_or(0, |groups| groups.iter().map(Vec::len).sum())
    }

    /// Gives the next waiting group of the type to `worker`, as far as `room` (at least 1) goes;
    /// the rest is a group that waits.
    pub fn hand_over(
        &mut self,
        job_type: &TypeName,
        worker: WorkerId,
        room: usize,
    ) -> Option<Vec<JobId>> {
        let groups = self.waiting.get_mut(job_type)?;
        let mut group = groups.pop_front()?;
        if group.len() > room {
            groups.push_front(group.split_off(room));
        }
        if groups.is_empty() {
            self.waiting.remove(job_type);
        }
        let jobs = group.iter().copied().collect();
        self.held.insert(worker, Group { job_type: job_type.clone(), jobs });
        Some(group)
    }

    /// True while `worker` runs a group and may get nothing else.
    #[must_use]
    pub fn is_dedicated(&self, worker: WorkerId) -> bool {
        self.held.contains_key(&worker)
    }

    /// The claim for a group brought `claimed`: the others are no longer available, unless the
    /// claim was cut short (`Rest::Waits`).
    pub fn on_claimed(&mut self, worker: WorkerId, claimed: &BTreeSet<JobId>, rest: Rest) {
        let Some(group) = self.held.get_mut(&worker) else { return };
        let unclaimed: Vec<_> = group.jobs.difference(claimed).copied().collect();
        for job in &unclaimed {
            group.jobs.remove(job);
            self.all.remove(job);
        }
        let job_type = group.job_type.clone();
        if group.jobs.is_empty() {
            self.held.remove(&worker);
        }
        if rest == Rest::Waits {
            self.wait(&job_type, unclaimed);
        }
    }

    /// The worker cannot take the group that it was given: another one does.
    pub fn put_back(&mut self, worker: WorkerId) {
        if let Some(group) = self.held.remove(&worker) {
            self.wait(&group.job_type, group.jobs.into_iter().collect());
        }
    }

    /// The attempt ended without killing its worker: the job is innocent.
    pub fn on_ended(&mut self, worker: WorkerId, job: JobId) {
        self.noted.remove(&job);
        let Some(group) = self.held.get_mut(&worker) else { return };
        if group.jobs.remove(&job) {
            self.all.remove(&job);
        }
        if group.jobs.is_empty() {
            self.held.remove(&worker);
        }
    }

    /// The worker is gone; what it held is no group any more.
    pub fn on_worker_gone(&mut self, worker: WorkerId) {
        for job in self.held.remove(&worker).map(|group| group.jobs).unwrap_or_default() {
            self.all.remove(&job);
        }
    }

    /// All suspects: no ordinary offer may get them.
    #[must_use]
    pub const fn all(&self) -> &BTreeSet<JobId> {
        &self.all
    }
}

/// What becomes of the suspects of a group that a claim did not bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: they were looked for, and are not available.
    IsGone,
    /// They wait for another worker: the claim was cut short.
    Waits,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_culprit_among_ten_thousand_is_alone_after_at_most_fourteen_rounds() {
        let kind: TypeName = "noop".into();
        let culprit = JobId(4321);
        let mut suspects = Suspects::default();
        let mut dead: Vec<JobId> = (0..10_000).map(JobId).collect();
        let (mut rounds, mut next, mut killed) = (0, 0, WorkerId(0));
        while dead.len() > 1 {
            suspects.on_shared_death(killed, &kind, &dead, 2);
            rounds += 1;
            while suspects.groups(&kind) > 0 {
                next += 1;
                let worker = WorkerId(next);
                let group = suspects.hand_over(&kind, worker, 10_000).expect("a group waits");
                if group.contains(&culprit) {
                    (killed, dead) = (worker, group);
                } else {
                    for job in group {
                        suspects.on_ended(worker, job);
                    }
                }
            }
        }
        suspects.on_worker_gone(killed);
        assert_eq!(dead, [culprit]);
        assert!(rounds <= 14, "{rounds}");
        assert!(suspects.all().is_empty());
    }

    #[test]
    fn with_one_place_only_the_second_shared_death_makes_groups() {
        let kind: TypeName = "noop".into();
        let mut suspects = Suspects::default();
        suspects.on_shared_death(WorkerId(1), &kind, &[JobId(1), JobId(2), JobId(3)], 1);
        assert_eq!(suspects.groups(&kind), 0);
        suspects.on_ended(WorkerId(2), JobId(3));
        suspects.on_shared_death(WorkerId(2), &kind, &[JobId(1), JobId(2), JobId(4)], 1);
        assert_eq!(suspects.groups(&kind), 2);
        assert_eq!(suspects.all().iter().map(|job| job.0).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn what_a_claim_leaves_waits_if_it_was_cut_short_and_is_forgotten_if_it_is_gone() {
        let kind: TypeName = "noop".into();
        for (rest, left) in [(Rest::Waits, 3), (Rest::IsGone, 0)] {
            let mut suspects = Suspects::default();
            let jobs: Vec<_> = (0..4).map(JobId).collect();
            suspects.on_shared_death(WorkerId(1), &kind, &jobs, 2);
            suspects.hand_over(&kind, WorkerId(2), 9);
            suspects.hand_over(&kind, WorkerId(3), 9);
            suspects.on_claimed(WorkerId(2), &[JobId(0)].into(), rest);
            suspects.on_claimed(WorkerId(3), &BTreeSet::new(), rest);
            assert!(suspects.is_dedicated(WorkerId(2)) && !suspects.is_dedicated(WorkerId(3)));
            assert_eq!((suspects.jobs_waiting(&kind), suspects.all().len()), (left, left + 1));
        }
    }

    #[test]
    fn a_group_larger_than_the_room_goes_in_parts() {
        let kind: TypeName = "noop".into();
        let mut suspects = Suspects::default();
        let jobs: Vec<_> = (0..10).map(JobId).collect();
        suspects.on_shared_death(WorkerId(1), &kind, &jobs, 2);
        assert_eq!(suspects.hand_over(&kind, WorkerId(2), 2).map(|group| group.len()), Some(2));
        assert_eq!((suspects.groups(&kind), suspects.jobs_waiting(&kind)), (2, 8));
        suspects.put_back(WorkerId(2));
        assert_eq!((suspects.groups(&kind), suspects.jobs_waiting(&kind)), (3, 10));
        assert_eq!(suspects.all().len(), 10);
    }
}
