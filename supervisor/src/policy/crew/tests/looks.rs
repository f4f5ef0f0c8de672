//! When the table is looked at: with every reason, and without one never.

use super::process::Does;
use super::world::EPOCH_MS;
use super::{World, all_final, insert_many, is_final, kind, settings, started, state, world};
use crate::policy::event::{Event, Notice};
use crate::policy::poll::Pace;
use crate::policy::why::{RowFacts, why_waiting};
use shiftboss_protocol::job::{JobId, JobState};
use std::time::Duration;

#[test]
fn an_idle_supervisor_looks_only_as_often_as_the_fallback_poll() {
    let mut kind = kind(2, 1);
    (kind.warm, kind.workers_min) = (1, 1);
    let mut world = world(kind);
    insert_many(&mut world, "a", 5, &Does::Succeed(10));
    world.run_for(1_200_000);
    let (looks, events) = (world.takes.len(), world.events);
    world.run_for(3_600_000);
    assert!(world.takes.len() - looks <= 13, "{} looks in an hour", world.takes.len() - looks);
    assert!(world.events - events <= 40, "{} events in an hour", world.events - events);
    let engaged = |it: &&(u64, Notice)| matches!(it.1, Notice::Pace(Pace::BackoffEngaged(_)));
    assert!(world.notices.iter().filter(engaged).count() <= 2);
}

#[test]
fn the_stagger_of_polls_and_spares_delays_no_job_that_is_due() {
    let mut kind = kind(2, 1);
    kind.workers_min = 1;
    let mut settings = settings(&[("a", kind)]);
    settings.poll.stagger_max = Duration::from_secs(5);
    let mut staggered = 0;
    for seed in 0..10 {
        let mut world = World::seeded(settings.clone(), seed);
        let waiting = world.insert_silently("a", vec![Does::Succeed(10)]);
        world.tell(Event::Watched(true));
        world.tell(Event::Started);
        world.run_until("done", 50, |world| is_final(world, waiting));
        let mut idle = World::seeded(settings.clone(), seed);
        idle.tell(Event::Watched(true));
        idle.tell(Event::Started);
        idle.run_for(500);
        staggered += u32::from(idle.spawns.is_empty());
        idle.run_for(5_000);
        assert_eq!(idle.spawns.len(), 1);
    }
    assert!(staggered >= 7, "{staggered}");
}

#[test]
fn a_slot_that_comes_free_is_filled_at_once() {
    let mut world = world(kind(2, 1));
    insert_many(&mut world, "a", 200, &Does::Succeed(10));
    // Each worker needs about 10 ms and four hops of 1 ms for a job.
    world.run_until("all done", 100 * 16 + 100, all_final);
    assert_eq!(world.spawns.len(), 2);
}

#[test]
fn room_that_comes_free_during_a_look_is_not_forgotten() {
    for store_ms in [1, 5, 11, 40] {
        let mut world = world(kind(1, 1));
        world.store_ms = store_ms;
        for _ in 0..20 {
            world.insert("a", Does::Succeed(10));
            world.run_for(7);
        }
        world.run_until("all done", 20 * (10 + 4 * store_ms + 10), all_final);
    }
}

#[test]
fn what_a_look_leaves_is_claimed_when_room_came_free_meanwhile() {
    let mut world = world(kind(1, 1));
    let first = world.insert("a", Does::Succeed(20_000));
    world.run_for(20_015);
    assert_eq!(state(&world, first), JobState::Running);
    world.store_ms = 20;
    let next = world.insert_silently("a", vec![Does::Succeed(10)]);
    world.tell(Event::OwnRows);
    world.run_until("done", 80, |world| is_final(world, next));
}

#[test]
fn spare_workers_that_come_and_go_make_no_looks() {
    let mut kind = kind(3, 1);
    (kind.warm, kind.idle) = (2, Duration::from_secs(30));
    let mut world = world(kind);
    world.run_for(7_000);
    assert_eq!(world.spawns.len(), 2);
    let looks = world.takes.len();
    let (first, second) = (world.spawns[0].1, world.spawns[1].1);
    world.kill(first);
    world.kill(second);
    world.run_for(500);
    assert_eq!(world.spawns.len(), 4);
    assert_eq!(world.takes.len(), looks);
}

#[test]
fn workers_beyond_need_are_retired_after_their_idle_time() {
    let mut kind = kind(3, 1);
    kind.idle = Duration::from_secs(30);
    let mut world = world(kind);
    insert_many(&mut world, "a", 3, &Does::Succeed(100));
    world.run_for(29_000);
    assert_eq!(world.processes.len(), 3);
    world.run_for(2_000);
    assert!(world.processes.is_empty());
    let died = world.notices.iter().any(|(_, it)| matches!(it, Notice::Died { .. }));
    assert!(!died);
}

#[test]
fn a_job_for_later_starts_in_time_and_wakes_nobody_before() {
    let mut world = world(kind(1, 1));
    let due_ms = EPOCH_MS + 7_200_000;
    let job = world.table.insert("a", due_ms, EPOCH_MS);
    world.foreign_commit();
    world.run_for(7_199_000);
    assert_eq!(state(&world, job), JobState::Scheduled);
    assert!(world.takes.len() < 50, "{}", world.takes.len());
    world.run_until("done", 1_100, |world| is_final(world, job));
}

#[test]
fn rows_of_unknown_types_fail_alone() {
    let mut world = world(kind(1, 1));
    let odd = world.insert("nonsense", Does::Succeed(1));
    let fine = world.insert("a", Does::Succeed(1));
    world.run_until("both final", 100, |world| is_final(world, odd) && is_final(world, fine));
    assert_eq!(state(&world, odd), JobState::Failed);
    assert!(world.notices.iter().any(|(_, it)| *it == Notice::UnknownTypes(1)));
}

#[test]
fn a_paused_type_starts_nothing_until_it_is_resumed() {
    let mut world = World::paused(settings(&[("a", kind(1, 1))]), &["a"]);
    world.tell(Event::Started);
    let job = world.insert("a", Does::Succeed(1));
    world.run_for(60_000);
    assert!(world.spawns.is_empty());
    let sentence = why(&world, job);
    assert!(sentence.contains("paused"), "{sentence}");
    world.tell(Event::Resume("a".into()));
    world.run_until("done", 100, |world| is_final(world, job));
    world.tell(Event::Pause("a".into()));
    let job = world.insert("a", Does::Succeed(1));
    world.run_for(60_000);
    assert_eq!(state(&world, job), JobState::Available);
}

#[test]
fn without_a_watch_a_foreign_row_is_found_within_a_second() {
    let mut world = world(kind(1, 1));
    world.tell(Event::Watched(false));
    world.run_for(600_000);
    let job = world.insert_silently("a", vec![Does::Succeed(1)]);
    world.run_until("done", 1_100, |world| is_final(world, job));
}

#[test]
fn workers_that_are_switched_off_make_no_looks_and_no_processes() {
    let mut settings = settings(&[("a", kind(1, 1))]);
    settings.workers_enabled = false;
    settings.types.get_mut("a").expect("just given").workers_min = 1;
    let mut world = started(settings);
    let job = world.insert("a", Does::Succeed(1));
    let events = world.events;
    world.run_for(3_600_000);
    assert!(world.takes.is_empty() && world.spawns.is_empty());
    assert!(world.events - events < 10);
    assert!(why(&world, job).contains("switched off"));
    super::reload::reload(&mut world, |settings| settings.workers_enabled = true);
    world.run_until("done", 100, |world| is_final(world, job));
}

#[test]
fn a_poll_of_no_interval_is_no_busy_loop() {
    let mut settings = settings(&[("a", kind(1, 1))]);
    settings.poll.idle_min = Duration::ZERO;
    settings.poll.idle_max = Duration::ZERO;
    settings.poll.stagger_max = Duration::ZERO;
    let mut world = started(settings);
    world.run_for(10_000);
    assert!(world.takes.len() <= 1_001, "{}", world.takes.len());
}

#[test]
fn a_disabled_type_with_kept_workers_is_no_busy_loop() {
    let mut kind = kind(2, 1);
    (kind.enabled, kind.workers_min, kind.warm) = (false, 1, 1);
    let mut world = world(kind);
    world.run_for(3_600_000);
    assert!(world.events < 100, "{}", world.events);
    assert!(world.spawns.is_empty());
}

fn why(world: &World, job: JobId) -> String {
    let row = &world.table.rows[&job];
    let facts = RowFacts {
        job,
        job_type: row.job_type.clone(),
        state: row.state,
        run_at_ms: row.run_at_ms,
        failures: row.failures,
        owner: None,
    };
    why_waiting(&world.crew, world.now(), &facts).expect("it waits")
}
