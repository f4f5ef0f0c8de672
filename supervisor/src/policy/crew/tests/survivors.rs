//! Workers that outlived their supervisor.

use super::{kind, settings};
use crate::policy::claim::{Offer, TakeRequest, Taken, TakenJob, WorkerId};
use crate::policy::crew::{Crew, FoundRun, Survivor};
use crate::policy::event::{Action, Event, Exit};
use crate::policy::moves::{FencedMove, Move, Moved};
use crate::policy::time::Now;
use shiftboss_protocol::job::{Attempt, Cause, JobId, Outcome, Usage};
use shiftboss_protocol::message::StopReason;
use std::collections::BTreeSet;
use std::time::Duration;

struct Stand {
    crew: Crew,
    now: Now,
    worker: WorkerId,
    did: Vec<Action>,
}

const OURS: [(JobId, Attempt); 2] = [(JobId(1), Attempt(3)), (JobId(2), Attempt(1))];

impl Stand {
    /// A supervisor that found a worker with two attempts, before its first look.
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl Fn(&mut FoundRun)) -> Self {
        let now = Now { mono: Duration::from_secs(100), unix_ms: 1_700_000_000_000 };
        let mut crew = Crew::new(now, settings(&[("a", kind(1, 4))]), &BTreeSet::new(), 7);
        let worker = crew.reserve_worker();
        let mut stand = Self { crew, now, worker, did: Vec::new() };
        let runs = OURS.map(|(job, attempt)| {
            let taken = TakenJob {
                job,
                attempt,
                job_type: "a".into(),
                worker,
                failures: 0,
                crash_count: 0,
                attempts_max: None,
                timeout_ms: Some(60_000),
            };
            let mut run = FoundRun { taken, ran_for: Duration::from_secs(50), cancel_asked: false };
            change(&mut run);
            run
        });
        stand.tell(Event::WorkerFound(found(worker, runs.to_vec())));
        stand.tell(Event::Started);
        stand
    }

    fn tell(&mut self, event: Event) {
        self.crew.handle(self.now, event, &mut self.did);
    }

    /// The look under way is answered: it left jobs.
    fn more_waits(&mut self) {
        let waiting = [("a".into(), 5)].into();
        self.tell(Event::Taken(Taken { waiting, ..Taken::default() }));
    }

    fn wait(&mut self, seconds: u64) {
        self.now.mono += Duration::from_secs(seconds);
        self.now.unix_ms += i64::try_from(seconds).expect("tests are short") * 1000;
        self.tell(Event::Deadline);
    }

    fn is_back(&mut self, held: &[(JobId, Attempt)]) {
        let (worker, held) = (self.worker, held.iter().copied().collect());
        self.tell(Event::WorkerBack { worker, held });
        self.tell(Event::WorkerReady { worker, confinement: "none".into() });
    }

    fn finish(&mut self, (job, attempt): (JobId, Attempt)) {
        let outcome = Outcome::Succeeded { result: "{}".to_owned() };
        let (worker, usage) = (self.worker, Usage::default());
        self.tell(Event::Finished { worker, job, attempt, outcome, usage });
    }

    fn moves(&self) -> Vec<(JobId, Move)> {
        let to = |one: &FencedMove| (one.job, one.to.clone());
        self.did.iter().filter_map(fenced).map(to).collect()
    }

    /// The latest look at the table.
    fn look(&self) -> &TakeRequest {
        self.did.iter().rev().find_map(look).expect("a look was made")
    }

    fn offers(&self) -> Vec<Offer> {
        self.look().offers.clone()
    }

    fn has(&self, action: &Action) -> bool {
        self.did.contains(action)
    }

    fn spawned(&self) -> bool {
        self.did.iter().any(|action| matches!(action, Action::Spawn { .. }))
    }

    fn state(&self) -> &'static str {
        self.crew.workers_view()[0].state
    }
}

fn found(worker: WorkerId, runs: Vec<FoundRun>) -> Survivor {
    Survivor {
        worker,
        job_type: "a".into(),
        slot: 0,
        pid: Some(99),
        started_ms: 0,
        workload: "noop".to_owned(),
        concurrency: 4,
        runs,
    }
}

fn look(action: &Action) -> Option<&TakeRequest> {
    if let Action::Take(request) = action { Some(request) } else { None }
}

fn fenced(action: &Action) -> Option<&FencedMove> {
    if let Action::Move(one) = action { Some(one) } else { None }
}

#[test]
fn a_worker_that_comes_back_goes_on_and_gets_more() {
    let mut stand = Stand::new();
    assert_eq!(stand.state(), "returning");
    assert_eq!(stand.offers(), [], "nothing is offered to a worker that is away");
    let waiting = [("a".into(), 5)].into();
    stand.tell(Event::Taken(Taken { waiting, ..Taken::default() }));
    assert!(!stand.spawned(), "its place is taken");
    stand.is_back(&OURS);
    assert_eq!(stand.state(), "busy");
    let offers = stand.offers();
    assert_eq!((offers[0].worker, offers[0].room), (stand.worker, 2));
    stand.finish(OURS[0]);
    assert_eq!(stand.moves(), [(JobId(1), Move::Succeed { result: "{}".to_owned() })]);
}

#[test]
fn its_type_gets_nothing_before_it_is_back_or_gone() {
    for comes_back in [true, false] {
        let now = Now { mono: Duration::from_secs(100), unix_ms: 1_700_000_000_000 };
        let mut crew = Crew::new(now, settings(&[("a", kind(2, 4))]), &BTreeSet::new(), 7);
        let worker = crew.reserve_worker();
        let mut stand = Stand { crew, now, worker, did: Vec::new() };
        stand.tell(Event::WorkerFound(found(worker, Vec::new())));
        stand.tell(Event::Started);
        stand.more_waits();
        let spawned = |action: &Action| {
            if let Action::Spawn { worker, .. } = action { Some(*worker) } else { None }
        };
        let fresh = stand.did.iter().find_map(spawned).expect("jobs wait and there is a place");
        let confinement = "none".into();
        stand.tell(Event::WorkerSpawned { worker: fresh, pid: 5 });
        stand.tell(Event::WorkerReady { worker: fresh, confinement });
        stand.more_waits();
        assert_eq!(stand.offers(), [], "the survivor may hold the very jobs that wait");
        if comes_back {
            stand.is_back(&[]);
        } else {
            stand.tell(Event::WorkerExited { worker, exit: Exit::default() });
        }
        stand.more_waits();
        assert!(stand.offers().iter().any(|offer| offer.worker == fresh));
    }
}

#[test]
fn what_it_does_not_hold_goes_back_and_what_is_not_ours_is_stopped() {
    let mut stand = Stand::new();
    let strange = (JobId(9), Attempt(1));
    stand.is_back(&[OURS[1], strange]);
    assert_eq!(stand.moves(), [(JobId(1), Move::GiveBack)]);
    let (worker, reason) = (stand.worker, StopReason::Released);
    let (job, attempt) = strange;
    assert!(stand.has(&Action::Stop { worker, job, attempt, reason }));
    let older = (OURS[1].0, Attempt(7));
    stand.tell(Event::WorkerBack { worker, held: [older].into() });
    let jobs: BTreeSet<_> = stand.moves().into_iter().map(|(job, _)| job).collect();
    assert_eq!(jobs, [OURS[0].0, OURS[1].0, strange.0].into(), "all that it does not hold now");
}

#[test]
fn one_that_stays_away_is_killed_and_nothing_is_counted() {
    let mut stand = Stand::with(|run| run.taken.timeout_ms = None);
    stand.wait(29);
    assert!(!stand.has(&Action::KillWorker(stand.worker)), "the host may be slow");
    stand.wait(2);
    assert!(stand.has(&Action::KillWorker(stand.worker)));
    stand.tell(Event::WorkerExited { worker: stand.worker, exit: Exit::default() });
    assert_eq!(stand.moves(), OURS.map(|(job, _)| (job, Move::GiveBack)));
    assert_eq!(stand.crew.types_view(stand.now)[0].breaker, "closed");
}

#[test]
fn one_that_is_back_and_dies_then_is_judged_like_any_other() {
    let mut stand = Stand::new();
    stand.is_back(&OURS[..1]);
    let exit = Exit { signal: Some(9), ..Exit::default() };
    stand.tell(Event::WorkerExited { worker: stand.worker, exit });
    assert_eq!(stand.moves(), [(JobId(2), Move::GiveBack), (JobId(1), Move::Crash)]);
}

#[test]
fn an_outcome_that_was_written_down_counts_before_the_death() {
    let mut stand = Stand::new();
    stand.finish(OURS[0]);
    stand.tell(Event::WorkerExited { worker: stand.worker, exit: Exit::default() });
    let succeeded = (JobId(1), Move::Succeed { result: "{}".to_owned() });
    assert_eq!(stand.moves(), [succeeded, (JobId(2), Move::GiveBack)]);
    let moved = OURS.map(|(job, attempt)| Moved { job, attempt, stale: false });
    stand.tell(Event::Moved(moved.to_vec()));
    assert!(!stand.did.iter().any(|action| matches!(action, Action::Record { .. })));
}

#[test]
fn a_cancel_from_before_reaches_it_when_it_is_back() {
    let mut stand = Stand::with(|run| run.cancel_asked = run.taken.job == JobId(2));
    let (worker, (job, attempt)) = (stand.worker, OURS[1]);
    let stop = Action::Stop { worker, job, attempt, reason: StopReason::Cancelled };
    stand.did.clear();
    stand.is_back(&OURS);
    assert!(stand.has(&stop));
}

#[test]
fn the_time_that_it_ran_before_counts_for_its_timeout() {
    let mut stand = Stand::new();
    stand.is_back(&OURS);
    stand.wait(9);
    let stopped =
        |stand: &Stand| stand.did.iter().any(|action| matches!(action, Action::Stop { .. }));
    assert!(!stopped(&stand));
    stand.wait(2);
    assert!(stopped(&stand));
    let (job, _) = OURS[0];
    let run = stand.crew.run_view(stand.now, job).expect("it runs");
    assert_eq!(run.running_for, Duration::from_secs(61));
}

#[test]
fn one_of_another_version_is_told_to_end_and_its_last_words_count() {
    let mut stand = Stand::new();
    let worker = stand.worker;
    stand.tell(Event::WorkerOutdated(worker));
    assert!(stand.has(&Action::TerminateWorker(worker)));
    let (job, attempt) = OURS[0];
    let outcome = Outcome::Released { reason: "stopped".to_owned() };
    let usage = Usage::default();
    stand.tell(Event::Finished { worker, job, attempt, outcome, usage });
    stand.tell(Event::WorkerExited { worker, exit: Exit::default() });
    assert_eq!(stand.moves(), OURS.map(|(job, _)| (job, Move::GiveBack)));
    let causes = stand.did.iter().filter_map(fenced).filter_map(|one| one.record.cause);
    assert_eq!(causes.collect::<Vec<_>>(), [Cause::Released; 2]);
}

#[test]
fn an_attempt_that_is_not_ours_takes_its_room_and_its_job_waits_until_it_is_over() {
    let mut stand = Stand::new();
    let strange @ (job, attempt) = (JobId(9), Attempt(1));
    stand.more_waits();
    stand.is_back(&[OURS[0], OURS[1], strange]);
    let offers = stand.offers();
    assert_eq!(offers[0].room, 1, "three of four places are taken");
    assert!(stand.look().avoid.contains(&job), "the job must not run twice");
    // It does not stop: its worker is killed, as for any other attempt.
    stand.wait(25);
    assert!(stand.has(&Action::KillWorker(stand.worker)));
    stand.tell(Event::WorkerExited { worker: stand.worker, exit: Exit::default() });
    assert_eq!(stand.moves().last(), Some(&(job, Move::GiveBack)));
    stand.tell(Event::Moved(vec![Moved { job, attempt, stale: true }]));
    assert!(stand.crew.run_view(stand.now, job).is_none());
}

#[test]
fn a_worker_that_gives_work_back_unasked_gets_nothing_more() {
    let mut stand = Stand::new();
    stand.more_waits();
    stand.is_back(&OURS);
    assert_eq!(stand.offers()[0].room, 2);
    stand.more_waits();
    let (worker, (job, attempt)) = (stand.worker, OURS[0]);
    let outcome = Outcome::Released { reason: "the worker drains".to_owned() };
    stand.tell(Event::Finished { worker, job, attempt, outcome, usage: Usage::default() });
    stand.tell(Event::Moved(vec![Moved { job, attempt, stale: false }]));
    assert!(stand.has(&Action::DrainWorker(worker)));
    assert_eq!(stand.moves(), [(job, Move::GiveBack)]);
    assert_eq!(stand.offers(), []);
}
