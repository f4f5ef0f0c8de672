//! Lives of workers, as sequences of events.

use super::*;

const GRACE: Duration = Duration::from_secs(600);

fn limits(orphan_grace: Duration) -> Limits {
    Limits { orphan_grace, stop_wait: Duration::from_secs(70) }
}

/// A life and its clock.
struct World {
    life: Life,
    now: Instant,
}

fn world() -> World {
    World { life: Life::new(limits(GRACE)), now: Instant::now() }
}

impl World {
    fn on(&mut self, event: Event) -> Step {
        self.now += Duration::from_secs(1);
        self.life.on(self.now, event)
    }

    fn lose(&mut self) -> Step {
        self.on(Event::Lost { is_fault: false })
    }

    fn attach(&mut self) -> Step {
        self.on(Event::Attached(limits(GRACE)))
    }

    /// Lets the deadline pass, and says how far away it was.
    fn pass(&mut self) -> (Duration, Step) {
        let deadline = self.life.deadline().expect("a deadline");
        let before = deadline - Duration::from_millis(1);
        assert_eq!(self.life.on_deadline(before.max(self.now)), Step::Wait, "too early");
        let waited = deadline.saturating_duration_since(self.now);
        self.now = self.now.max(deadline);
        (waited, self.life.on_deadline(self.now))
    }
}

fn is_stop(step: Step) -> bool {
    matches!(step, Step::Stop(_))
}

fn is_abandon(step: Step) -> bool {
    matches!(step, Step::Abandon(_))
}

#[test]
fn a_worker_with_a_supervisor_waits_for_ever() {
    let mut world = world();
    assert_eq!(world.life.deadline(), None);
    assert_eq!(world.life.on_deadline(world.now), Step::Wait);
    world.lose();
    assert_eq!(world.attach(), Step::Wait);
    assert_eq!(world.life.deadline(), None);
}

#[test]
fn an_orphan_stops_after_its_grace_and_leaves_as_soon_as_it_can() {
    let mut world = world();
    assert_eq!(world.lose(), Step::Wait);
    let (waited, step) = world.pass();
    assert_eq!(waited, GRACE);
    assert!(is_stop(step));
    assert_eq!(world.on(Event::Ended), Step::Exit(End::Success));
}

#[test]
fn the_grace_counts_from_the_last_supervisor() {
    let mut world = world();
    world.lose();
    world.now += GRACE - Duration::from_secs(5);
    world.attach();
    world.lose();
    assert_eq!(world.pass().0, GRACE);
}

#[test]
fn a_later_supervisor_may_change_the_grace() {
    let mut world = world();
    world.lose();
    world.on(Event::Attached(limits(Duration::from_secs(7))));
    world.lose();
    assert_eq!(world.pass().0, Duration::from_secs(7));
    let mut world = self::world();
    world.lose();
    world.on(Event::Attached(limits(Duration::ZERO)));
    assert!(is_abandon(world.lose()));
}

#[test]
fn without_a_grace_the_loss_is_the_end() {
    let mut world = world();
    world.life = Life::new(limits(Duration::ZERO));
    assert!(is_abandon(world.lose()));
    assert_eq!(world.on(Event::Ended), Step::Exit(End::Success));
}

#[test]
fn attempts_that_do_not_stop_are_left_behind() {
    let mut world = world();
    world.lose();
    world.pass();
    assert_eq!(world.pass(), (Duration::from_secs(70), Step::Exit(End::Success)));
}

#[test]
fn a_supervisor_that_comes_back_while_an_orphan_stops_gets_its_outcomes() {
    let mut world = world();
    world.lose();
    world.pass();
    assert_eq!(world.attach(), Step::Wait);
    assert_eq!(world.on(Event::Ended), Step::Wait);
    assert_eq!(world.on(Event::Settled), Step::Exit(End::Success));
    let mut world = self::world();
    world.lose();
    world.pass();
    world.attach();
    world.on(Event::Ended);
    // It is lost once more: nothing is left to wait for.
    assert_eq!(world.lose(), Step::Exit(End::Success));
}

#[test]
fn a_terminated_worker_waits_a_little_for_receipts_with_and_without_a_supervisor() {
    for is_orphan in [false, true] {
        let mut world = world();
        if is_orphan {
            world.lose();
        }
        assert!(is_stop(world.on(Event::Terminated)));
        assert_eq!(world.on(Event::Ended), Step::Wait);
        assert_eq!(world.pass(), (RECEIPTS_WAIT, Step::Exit(End::Success)));
    }
}

#[test]
fn a_worker_that_is_terminated_before_and_after_the_loss_leaves_by_the_first() {
    let mut world = world();
    world.on(Event::Terminated);
    world.lose();
    world.on(Event::Terminated);
    let (waited, step) = world.pass();
    assert_eq!(waited, Duration::from_secs(68));
    assert_eq!(step, Step::Exit(End::Success));
}

#[test]
fn a_drain_waits_without_end_for_jobs_and_receipts() {
    let mut world = world();
    world.on(Event::Drained);
    assert_eq!(world.life.deadline(), None);
    assert_eq!(world.on(Event::Ended), Step::Wait);
    assert_eq!(world.life.deadline(), None);
    assert_eq!(world.on(Event::Settled), Step::Exit(End::Success));
}

#[test]
fn a_drained_orphan_finishes_within_its_grace() {
    let mut world = world();
    world.on(Event::Drained);
    world.lose();
    assert_eq!(world.life.deadline(), Some(world.now + GRACE));
    world.on(Event::Ended);
    assert_eq!(world.pass(), (RECEIPTS_WAIT, Step::Exit(End::Success)));
    let mut world = self::world();
    world.on(Event::Drained);
    world.lose();
    assert!(is_stop(world.pass().1));
}

#[test]
fn a_drained_worker_that_loses_its_supervisor_at_the_end_waits_for_the_next_a_little() {
    let mut world = world();
    world.on(Event::Drained);
    world.on(Event::Ended);
    world.now += Duration::from_secs(60);
    assert_eq!(world.lose(), Step::Wait);
    assert_eq!(world.life.deadline(), Some(world.now + RECEIPTS_WAIT));
    world.attach();
    assert_eq!(world.life.deadline(), None);
}

#[test]
fn sigterm_hurries_a_drain_that_waits_for_receipts() {
    let mut world = world();
    world.on(Event::Drained);
    world.on(Event::Ended);
    world.now += Duration::from_secs(60);
    world.on(Event::Terminated);
    assert_eq!(world.pass(), (RECEIPTS_WAIT, Step::Exit(End::Success)));
}

#[test]
fn a_refusal_and_a_fault_end_the_worker_with_a_failure() {
    for event in [Event::Refused, Event::Lost { is_fault: true }] {
        let mut world = world();
        world.lose();
        assert!(is_abandon(world.on(event)));
        assert_eq!(world.on(Event::Ended), Step::Exit(End::Failure));
        let mut world = self::world();
        world.on(event);
        assert_eq!(world.on(Event::Settled), Step::Exit(End::Failure));
    }
}

#[test]
fn a_refused_worker_that_had_ended_already_leaves_at_its_deadline() {
    let mut world = world();
    world.on(Event::Terminated);
    world.on(Event::Ended);
    world.lose();
    assert!(is_abandon(world.on(Event::Refused)));
    assert_eq!(world.pass().1, Step::Exit(End::Failure));
}

#[test]
fn a_broken_worker_ends_at_once() {
    assert_eq!(world().on(Event::Broken), Step::Exit(End::Fault));
}
