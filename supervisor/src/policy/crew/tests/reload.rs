//! Another configuration while jobs run; replacement of workers that are still well.

use super::process::{Does, Order};
use super::{World, all_final, insert_many, is_final, kind, settings, started, state, world};
use crate::policy::event::Event;
use crate::policy::moves::Move;
use crate::policy::settings::Settings;
use shiftboss_protocol::job::JobState;
use std::time::Duration;

/// Changes the settings as a reload does.
pub(super) fn reload(world: &mut World, change: impl FnOnce(&mut Settings)) {
    let mut settings = world.settings.clone();
    change(&mut settings);
    // The world checks limits against these; what still runs may exceed lowered ones.
    world.settings = settings.clone();
    world.tell(Event::Reload(Box::new(settings)));
}

#[test]
fn jobs_of_a_removed_type_finish_and_their_worker_goes() {
    let mut world = started(settings(&[("a", kind(1, 1)), ("b", kind(1, 1))]));
    let runs = world.insert("b", Does::Succeed(120_000));
    world.run_for(1_000);
    reload(&mut world, |settings| drop(settings.types.remove("b")));
    world.run_until("done", 121_000, |world| is_final(world, runs));
    assert_eq!(state(&world, runs), JobState::Succeeded);
    world.run_until("gone", 100, |world| world.processes.is_empty());
    let unknown = world.insert("b", Does::Succeed(1));
    world.run_until("failed", 100, |world| is_final(world, unknown));
    reload(&mut world, |settings| drop(settings.types.insert("b".to_owned(), kind(1, 1))));
    let again = world.insert("b", Does::Succeed(1));
    world.run_until("done", 100, |world| is_final(world, again));
    assert_eq!(state(&world, again), JobState::Succeeded);
}

#[test]
fn a_type_that_is_removed_while_its_claim_is_under_way_loses_nothing() {
    for moment in 0..40 {
        let mut world = started(settings(&[("a", kind(1, 1)), ("b", kind(2, 2))]));
        world.store_ms = 6;
        let jobs = insert_many(&mut world, "b", 4, &Does::Succeed(9));
        world.run_for(moment);
        reload(&mut world, |settings| drop(settings.types.remove("b")));
        world.run_for(20);
        reload(&mut world, |settings| drop(settings.types.insert("b".to_owned(), kind(2, 2))));
        world.run_until("done", 2_000, |world| jobs.iter().all(|job| is_final(world, *job)));
        world.run_for(1_000);
        assert!(world.unmoved().is_empty());
        assert_eq!(world.crew.types["b"].running, 0);
    }
}

#[test]
fn fewer_workers_are_kept_after_a_reload_also_under_load() {
    let mut world = world(kind(4, 1));
    insert_many(&mut world, "a", 400, &Does::Succeed(100));
    world.run_for(1_000);
    assert_eq!(world.processes.len(), 4);
    reload(&mut world, |settings| {
        settings.types.get_mut("a").expect("it exists").workers_max = 1;
    });
    world.run_for(200);
    assert_eq!(world.processes.len(), 1);
    reload(&mut world, |settings| {
        settings.types.get_mut("a").expect("it exists").workers_max = 3;
    });
    world.run_for(200);
    assert_eq!(world.processes.len(), 3);
    world.run_until("all done", 60_000, all_final);
    assert!(world.table.rows.values().all(|row| row.attempt == 1));
}

#[test]
fn a_worker_is_not_given_more_than_it_was_told_to_hold() {
    let mut world = world(kind(1, 1));
    world.insert("a", Does::Succeed(1_000));
    world.run_for(100);
    insert_many(&mut world, "a", 5, &Does::Succeed(10));
    reload(&mut world, |settings| {
        settings.types.get_mut("a").expect("it exists").concurrency = 10;
    });
    world.run_for(500);
    assert_eq!(world.assigned.len(), 1);
    world.run_until("a new worker takes them", 1_500, |world| world.assigned.len() == 6);
    assert_eq!(world.spawns.len(), 2);
    world.run_until("all done", 100, all_final);
}

#[test]
fn a_worker_is_replaced_after_as_many_jobs_as_it_may_run() {
    let mut kind = kind(1, 4);
    kind.recycle_after_jobs = 10;
    let mut world = world(kind);
    insert_many(&mut world, "a", 95, &Does::Succeed(10));
    world.run_until("all done", 10_000, all_final);
    assert_eq!(world.spawns.len(), 10);
    assert!(world.table.rows.values().all(|row| row.attempt == 1 && row.crash_count == 0));
}

#[test]
fn a_worker_that_an_operator_restarts_is_no_crash() {
    let mut kind = kind(1, 1);
    kind.workers_min = 1;
    let mut world = world(kind);
    let job = world.insert("a", Does::Succeed(2_000));
    world.run_until("runs", 1_000, |world| world.assigned.len() == 1);
    world.tell(Event::RestartWorker(world.assigned[0].1));
    world.run_until("done", 3_000, |world| is_final(world, job));
    world.run_for(6_000);
    assert_eq!(world.spawns.len(), 2);
    assert_eq!(world.table.rows[&job].attempt, 1);
    assert!(!world.orders.iter().any(|(_, _, it)| *it == Order::Kill));
}

#[test]
fn a_pause_survives_the_removal_of_its_type() {
    let mut world = started(settings(&[("a", kind(1, 1)), ("b", kind(1, 1))]));
    world.tell(Event::Pause("b".into()));
    reload(&mut world, |settings| drop(settings.types.remove("b")));
    reload(&mut world, |settings| drop(settings.types.insert("b".to_owned(), kind(1, 1))));
    let job = world.insert("b", Does::Succeed(1));
    world.run_for(10_000);
    assert_eq!(state(&world, job), JobState::Available);
}

#[test]
fn a_worker_that_was_started_with_something_else_is_replaced_when_it_is_idle() {
    let mut kind = kind(1, 1);
    kind.workers_min = 1;
    let mut world = world(kind);
    let runs = world.insert("a", Does::Succeed(2_000));
    world.run_until("runs", 1_000, |world| world.assigned.len() == 1);
    reload(&mut world, |settings| settings.types.get_mut("a").expect("it exists").start_mark = 7);
    let next = world.insert("a", Does::Succeed(10));
    world.run_until("both done", 9_000, |world| is_final(world, runs) && is_final(world, next));
    assert_eq!(world.table.rows[&runs].attempt, 1);
    assert_eq!(world.spawns.len(), 2);
    assert_ne!(world.assigned[0].1, world.assigned[1].1);
}

#[test]
fn a_job_whose_worker_dies_after_its_type_was_removed_ends_by_the_rules_it_started_with() {
    let mut kind = kind(1, 1);
    (kind.attempts_max, kind.timeout) = (1, Some(Duration::from_secs(2)));
    let mut world = started(settings(&[("a", kind), ("b", super::kind(1, 1))]));
    let job = world.insert("a", Does::IgnoreStop);
    world.run_until("runs", 1_000, |world| world.assigned.len() == 1);
    reload(&mut world, |settings| drop(settings.types.remove("a")));
    world.run_until("over", 60_000, |world| is_final(world, job));
    let ends: Vec<_> = world.moves.iter().map(|one| one.to.clone()).collect();
    assert_eq!(ends, [Move::Fail]);
}

#[test]
fn a_pause_survives_a_removal_while_a_claim_is_under_way() {
    let mut kept = kind(1, 1);
    kept.workers_min = 1;
    let mut world = started(settings(&[("a", kind(1, 1)), ("b", kept.clone())]));
    world.run_for(10_000);
    world.store_ms = 50;
    world.insert("b", Does::Succeed(1));
    world.run_for(60);
    // The claim that is under way opens the books of the type again, after the pause.
    reload(&mut world, |settings| drop(settings.types.remove("b")));
    world.tell(Event::Pause("b".into()));
    world.run_for(60);
    reload(&mut world, |settings| drop(settings.types.insert("b".to_owned(), kept)));
    world.run_for(200);
    let job = world.insert("b", Does::Succeed(1));
    world.run_for(10_000);
    assert_eq!(state(&world, job), JobState::Available);
}
