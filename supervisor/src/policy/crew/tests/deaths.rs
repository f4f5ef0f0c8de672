//! Workers that die: when they are replaced, and what becomes of their attempts.

use super::process::{Boot, Does};
use super::{all_final, insert_many, is_final, kind, state, world};
use crate::policy::event::Notice;
use shiftboss_protocol::job::{Cause, JobState};

#[test]
fn a_job_runs_as_soon_as_its_worker_is_ready() {
    let mut world = world(kind(1, 1));
    world.run_for(10);
    let job = world.insert("a", Does::Succeed(5));
    world.run_until("done", 60, |world| is_final(world, job));
    assert_eq!(state(&world, job), JobState::Succeeded);
}

#[test]
fn after_the_first_crash_the_job_runs_again_without_delay() {
    let mut world = world(kind(1, 1));
    let job = world.insert_silently("a", vec![Does::Crash(50), Does::Succeed(10)]);
    world.foreign_commit();
    world.run_until("crashed", 200, |world| world.processes.values().any(|one| !one.alive));
    let crashed_at = world.now_ms();
    world.run_until("assigned again", 100, |world| world.assigned.len() == 2);
    assert!(world.now_ms() - crashed_at < 40, "{} ms", world.now_ms() - crashed_at);
    world.run_until("done", 100, |world| is_final(world, job));
    let row = &world.table.rows[&job];
    assert_eq!((row.crash_count, row.failures, row.attempt), (1, 0, 2));
}

#[test]
fn the_replacement_is_spawned_before_the_loss_is_stored() {
    let mut world = world(kind(1, 1));
    world.store_ms = 500;
    world.insert("a", Does::Crash(50));
    world.run_until("two spawns", 5_000, |world| world.spawns.len() == 2);
    let died = world.notices.iter().find(|(_, it)| matches!(it, Notice::Died { .. }));
    assert_eq!(died.map(|(at, _)| *at), Some(world.now_ms()));
}

#[test]
fn a_kill_at_any_moment_loses_nothing() {
    for moment in 0..120 {
        let mut world = world(kind(2, 3));
        let jobs = insert_many(&mut world, "a", 9, &Does::Succeed(20));
        world.run_for(moment);
        for worker in world.processes.keys().copied().collect::<Vec<_>>() {
            world.kill(worker);
        }
        world.run_until("all done", 5_000, all_final);
        world.run_for(1_000);
        assert!(jobs.iter().all(|job| state(&world, *job) == JobState::Succeeded), "at {moment}");
        assert!(world.unmoved().is_empty());
        let crashes = world.table.rows.values().map(|row| row.crash_count).max();
        assert!(crashes <= Some(1), "at {moment}");
    }
}

#[test]
fn a_claim_that_arrives_for_a_dead_worker_goes_back_and_counts_nothing() {
    let mut kind = kind(1, 1);
    kind.workers_min = 1;
    let mut world = world(kind);
    world.run_for(6_000);
    let first = world.spawns[0].1;
    world.store_ms = 10;
    let looks = world.takes.len();
    let job = world.insert("a", Does::Succeed(10));
    world.run_until("the look is under way", 1_000, |world| world.takes.len() > looks);
    world.kill(first);
    world.run_until("done", 1_000, |world| is_final(world, job));
    let row = &world.table.rows[&job];
    assert_eq!((row.attempt, row.crash_count, row.failures), (2, 0, 0));
}

#[test]
fn a_kept_worker_that_dies_idle_is_replaced_at_once_and_then_with_growing_delays() {
    let mut kind = kind(1, 1);
    kind.workers_min = 1;
    let mut world = world(kind);
    world.boots.insert("a".to_owned(), vec![Boot::Dies(5); 4].into());
    world.run_for(10_000);
    let at: Vec<_> = world.spawns.iter().map(|(at, ..)| *at).collect();
    let gaps: Vec<_> = at.windows(2).map(|two| two[1] - two[0]).collect();
    assert_eq!(gaps, [7, 107, 207, 407]);
}

#[test]
fn a_worker_that_cannot_be_spawned_or_does_not_become_ready_is_tried_again() {
    let mut world = world(kind(1, 1));
    world.boots.insert("a".to_owned(), [Boot::FailsToSpawn, Boot::NeverReady].into());
    let job = world.insert("a", Does::Succeed(10));
    world.run_until("done", 62_000, |world| is_final(world, job));
    assert_eq!(world.spawns.len(), 3);
    assert_eq!(world.table.rows[&job].attempt, 1);
}

#[test]
fn a_worker_that_is_not_heard_is_called_late_and_then_killed() {
    let mut world = world(kind(1, 1));
    let job = world.insert_silently("a", vec![Does::Mute(10), Does::Succeed(10)]);
    world.foreign_commit();
    world.run_until("done", 40_000, |world| is_final(world, job));
    assert!(world.now_ms() > 29_000);
    assert!(world.notices.iter().any(|(_, it)| matches!(it, Notice::Late { .. })));
    assert_eq!(world.table.rows[&job].crash_count, 1);
}

#[test]
fn a_worker_that_falls_silent_after_many_heartbeats_is_killed_too() {
    let mut world = world(kind(1, 1));
    let job = world.insert_silently("a", vec![Does::Mute(100_000), Does::Succeed(10)]);
    world.foreign_commit();
    world.run_until("done", 136_000, |world| is_final(world, job));
    assert!(world.now_ms() > 124_000);
}

#[test]
fn a_lost_job_goes_to_a_worker_that_is_ready_without_waiting_for_the_replacement() {
    let mut kind = kind(2, 1);
    (kind.warm, kind.workers_min) = (1, 2);
    let mut world = world(kind);
    world.run_for(6_000);
    let job = world.insert_silently("a", vec![Does::Crash(10), Does::Succeed(10)]);
    world.foreign_commit();
    world.boots.insert("a".to_owned(), [Boot::NeverReady].into());
    world.run_until("done", 60, |world| is_final(world, job));
}

#[test]
fn an_idle_worker_owes_no_heartbeat() {
    let mut kind = kind(1, 1);
    kind.workers_min = 1;
    let mut world = world(kind);
    world.run_for(600_000);
    assert_eq!(world.spawns.len(), 1);
}

#[test]
fn a_broken_worker_is_killed_and_its_job_runs_again() {
    let mut world = world(kind(1, 1));
    let job = world.insert_silently("a", vec![Does::Hang, Does::Succeed(10)]);
    world.foreign_commit();
    world.run_until("assigned", 100, |world| world.assigned.len() == 1);
    let worker = world.assigned[0].1;
    let reason = "frame too large".to_owned();
    world.tell(crate::policy::event::Event::WorkerBroken { worker, reason });
    world.run_until("done", 200, |world| is_final(world, job));
    assert_eq!(world.table.rows[&job].crash_count, 1);
}

#[test]
fn an_outcome_that_was_sent_before_the_death_counts() {
    let mut world = world(kind(1, 2));
    let sent = world.insert_silently("a", vec![Does::Succeed(50)]);
    let culprit = world.insert_silently("a", vec![Does::Crash(51), Does::Succeed(1)]);
    world.foreign_commit();
    world.run_until("all done", 1_000, all_final);
    assert_eq!(world.table.rows[&sent].attempt, 1);
    assert_eq!(world.table.rows[&culprit].crash_count, 1);
    assert_eq!(world.table.rows[&culprit].cause, None::<Cause>);
}

#[test]
fn a_process_that_never_says_hello_goes_soon_and_one_that_did_may_take_a_minute() {
    for (greets, within) in [(false, 9_000..11_000), (true, 60_000..70_000)] {
        let mut world = world(kind(1, 1));
        world.boots.insert("a".to_owned(), [Boot::NeverReady].into());
        world.insert("a", Does::Succeed(10));
        world.run_for(5_000);
        if greets {
            let worker = world.spawns[0].1;
            world.tell(crate::policy::event::Event::WorkerHeard(worker));
        }
        world.run_until("the next", 70_000, |world| world.spawns.len() == 2);
        assert!(within.contains(&world.now_ms()), "{greets}: {}", world.now_ms());
    }
}
