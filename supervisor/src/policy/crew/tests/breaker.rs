//! Crash loops: the breaker of one type opens, probes, closes, and leaves other types alone.

use super::process::{Boot, Does};
use super::{insert_many, is_final, kind, settings, started, state, world};
use crate::policy::event::Notice;
use shiftboss_protocol::job::JobState;

fn opened(world: &super::World) -> usize {
    let opened = |it: &&(u64, Notice)| matches!(it.1, Notice::BreakerOpened { .. });
    world.notices.iter().filter(opened).count()
}

#[test]
fn workers_that_cannot_start_open_the_breaker_and_a_healthy_probe_closes_it() {
    let mut world = started(settings(&[("a", kind(1, 1)), ("b", kind(1, 1))]));
    world.boots.insert("a".to_owned(), vec![Boot::Dies(5); 6].into());
    let job = world.insert("a", Does::Succeed(10));
    world.run_for(10_000);
    assert_eq!((opened(&world), world.spawns.len()), (1, 5));
    let other = world.insert("b", Does::Succeed(10));
    world.run_until("b is untouched", 100, |world| is_final(world, other));
    // The first probe dies, the second lives.
    world.run_until("done", 130_000, |world| is_final(world, job));
    assert_eq!(state(&world, job), JobState::Succeeded);
    assert_eq!(opened(&world), 2);
    assert!(world.notices.iter().any(|(_, it)| matches!(it, Notice::BreakerClosed(_))));
    assert_eq!(world.spawns.iter().filter(|(.., name)| name == "a").count(), 7);
}

#[test]
fn five_jobs_that_kill_their_workers_at_once_open_the_breaker_and_end_as_poison() {
    let mut world = world(kind(5, 1));
    let jobs = insert_many(&mut world, "a", 5, &Does::Crash(10));
    world.run_for(5_000);
    assert!(opened(&world) >= 1);
    world.run_until("all are given up", 3_600_000, |world| {
        jobs.iter().all(|job| is_final(world, *job))
    });
    assert!(jobs.iter().all(|job| world.table.rows[job].crash_count == 3));
}

#[test]
fn a_probe_is_tried_also_while_an_old_worker_is_busy_for_hours() {
    let mut world = world(kind(3, 1));
    world.insert("a", Does::Succeed(36_000_000));
    world.run_for(60_000);
    world.boots.insert("a".to_owned(), vec![Boot::Dies(5); 5].into());
    let job = world.insert("a", Does::Succeed(10));
    world.run_for(30_000);
    assert_eq!(opened(&world), 1);
    world.run_until("done", 65_000, |world| is_final(world, job));
}

#[test]
fn a_worker_that_was_a_probe_once_does_not_stand_for_the_next_probe() {
    let mut world = world(kind(3, 1));
    world.boots.insert("a".to_owned(), vec![Boot::Dies(5); 5].into());
    world.insert("a", Does::Succeed(36_000_000));
    world.run_for(100_000);
    assert_eq!(opened(&world), 1);
    world.boots.insert("a".to_owned(), vec![Boot::Dies(5); 5].into());
    let job = world.insert("a", Does::Succeed(10));
    world.run_for(30_000);
    assert_eq!(opened(&world), 2);
    world.run_until("done", 65_000, |world| is_final(world, job));
}

#[test]
fn the_search_for_a_culprit_does_not_open_the_breaker() {
    let mut world = world(kind(2, 1_000));
    world.insert_silently("a", vec![Does::Crash(20)]);
    insert_many(&mut world, "a", 999, &Does::Succeed(30_000));
    world.run_for(600_000);
    assert_eq!(opened(&world), 0);
    assert!(world.table.rows.values().any(|row| row.state == JobState::Failed));
}
