//! Stopping the supervisor: gently, without limit, in a hurry.

use super::process::Does;
use super::{insert_many, kind, state, world};
use crate::policy::event::{DrainLimit, Event};
use shiftboss_protocol::job::JobState;

#[test]
fn a_drain_with_nothing_to_do_exits_at_once() {
    let mut world = world(kind(1, 1));
    world.run_for(100);
    world.tell(Event::Drain(DrainLimit::Grace));
    assert!(world.exited);
}

#[test]
fn a_drain_lets_running_jobs_finish_and_starts_none() {
    let mut world = world(kind(1, 1));
    let runs = world.insert("a", Does::Succeed(20_000));
    let waits = world.insert("a", Does::Succeed(10));
    world.run_for(1_000);
    world.tell(Event::Drain(DrainLimit::Grace));
    world.run_until("exited", 21_000, |world| world.exited);
    assert_eq!(state(&world, runs), JobState::Succeeded);
    assert_eq!(state(&world, waits), JobState::Available);
}

#[test]
fn a_drain_gives_jobs_back_that_outlast_the_grace() {
    let mut world = world(kind(1, 1));
    let job = world.insert("a", Does::Hang);
    world.run_for(1_000);
    world.tell(Event::Drain(DrainLimit::Grace));
    world.run_until("exited", 31_000, |world| world.exited);
    assert!(world.now_ms() > 30_000);
    let row = &world.table.rows[&job];
    assert_eq!((row.state, row.crash_count, row.failures), (JobState::Available, 0, 0));
}

#[test]
fn a_drain_without_limit_waits_as_long_as_jobs_take() {
    let mut world = world(kind(1, 1));
    let job = world.insert("a", Does::Succeed(7_200_000));
    world.run_for(1_000);
    world.tell(Event::Drain(DrainLimit::Unlimited));
    world.run_until("exited", 7_300_000, |world| world.exited);
    assert_eq!(state(&world, job), JobState::Succeeded);
}

#[test]
fn a_hurry_ends_a_drain_without_limit() {
    let mut world = world(kind(1, 1));
    let job = world.insert("a", Does::Hang);
    world.run_for(1_000);
    world.tell(Event::Drain(DrainLimit::Unlimited));
    world.run_for(1_000);
    world.tell(Event::Hurry);
    world.run_until("exited", 100, |world| world.exited);
    assert_eq!(state(&world, job), JobState::Available);
}

#[test]
fn a_second_hurry_kills() {
    let mut world = world(kind(1, 1));
    world.stubborn = true;
    let job = world.insert("a", Does::Hang);
    world.run_for(1_000);
    world.tell(Event::Hurry);
    world.run_for(1_000);
    assert!(!world.exited);
    world.tell(Event::Hurry);
    world.run_until("exited", 100, |world| world.exited);
    let row = &world.table.rows[&job];
    assert_eq!((row.state, row.crash_count), (JobState::Available, 0));
}

#[test]
fn a_worker_that_ignores_everything_is_killed_after_all_graces() {
    let mut world = world(kind(1, 1));
    world.stubborn = true;
    world.insert("a", Does::Hang);
    world.run_for(1_000);
    world.tell(Event::Drain(DrainLimit::Grace));
    // Silent besides: the missing heartbeat may end it sooner than 30 s + 10 s + margin.
    world.run_until("exited", 60_000, |world| world.exited);
}

#[test]
fn an_idle_worker_that_ignores_a_drain_without_limit_is_killed_too() {
    let mut kind = kind(1, 1);
    kind.workers_min = 1;
    let mut world = world(kind);
    world.stubborn = true;
    world.run_for(10_000);
    world.tell(Event::Drain(DrainLimit::Unlimited));
    world.run_until("exited", 60_000, |world| world.exited);
}

#[test]
fn a_worker_that_stays_after_its_last_job_is_ended() {
    let mut world = world(kind(1, 1));
    world.stays = true;
    let job = world.insert("a", Does::Succeed(100_000));
    world.run_for(1_000);
    world.tell(Event::Drain(DrainLimit::Unlimited));
    world.run_until("exited", 160_000, |world| world.exited);
    assert_eq!(state(&world, job), JobState::Succeeded);
    assert!(world.now_ms() > 130_000);
}

#[test]
fn a_claim_that_arrives_while_draining_goes_back() {
    for moment in 0..40 {
        let mut world = world(kind(2, 2));
        let jobs = insert_many(&mut world, "a", 6, &Does::Succeed(5));
        world.run_for(moment);
        world.tell(Event::Drain(DrainLimit::Grace));
        world.run_until("exited", 5_000, |world| world.exited);
        assert!(world.unmoved().is_empty());
        for job in jobs {
            let row = &world.table.rows[&job];
            assert!(matches!(row.state, JobState::Available | JobState::Succeeded));
            assert_eq!((row.crash_count, row.failures), (0, 0));
        }
    }
}

#[test]
fn a_worker_that_is_starting_is_stopped_by_a_drain() {
    let mut world = world(kind(1, 1));
    world.boots.insert("a".to_owned(), [super::process::Boot::NeverReady].into());
    world.insert("a", Does::Succeed(5));
    world.run_for(10);
    world.tell(Event::Drain(DrainLimit::Unlimited));
    world.run_until("exited", 30_000, |world| world.exited);
}
