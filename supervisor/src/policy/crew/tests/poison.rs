//! Jobs that kill their workers: found among many, counted alone, given up.

use super::process::Does;
use super::reload::reload;
use super::{all_final, insert_many, is_final, kind, settings, started, state, world};
use crate::policy::event::Notice;
use crate::policy::moves::Move;
use shiftboss_protocol::job::{Cause, JobId, JobState};

#[test]
fn a_job_that_kills_three_workers_alone_is_poison() {
    let mut world = world(kind(1, 1));
    let job = world.insert("a", Does::Crash(10));
    world.run_until("done", 5_000, |world| is_final(world, job));
    let row = &world.table.rows[&job];
    assert_eq!((row.state, row.crash_count, row.cause), (JobState::Failed, 3, Some(Cause::Poison)));
}

fn culprit_among(count: usize, workers: u32, culprit_after_ms: u64, within_ms: u64) {
    let mut world = world(kind(workers, 10_000));
    let culprit = world.insert_silently("a", vec![Does::Crash(culprit_after_ms)]);
    let innocent = insert_many(&mut world, "a", count - 1, &Does::Succeed(200));
    world.run_until("all done", within_ms, all_final);
    assert_eq!(state(&world, culprit), JobState::Failed);
    assert_eq!(world.table.rows[&culprit].crash_count, 3);
    for job in innocent {
        let row = &world.table.rows[&job];
        assert_eq!((row.state, row.crash_count), (JobState::Succeeded, 0));
    }
    world.run_for(1_000);
    assert!(world.crew.suspects.all().is_empty());
    // One search, and once it is found the culprit is alone at each further try.
    let died = world.notices.iter().filter(|(_, it)| matches!(it, Notice::Died { .. })).count();
    assert!(died <= count.ilog2() as usize + 5, "{died} workers died");
}

#[test]
fn one_culprit_among_ten_thousand_takes_no_innocent_along() {
    culprit_among(10_000, 2, 50, 60_000);
}

#[test]
fn one_culprit_is_found_with_a_single_worker_too() {
    culprit_among(300, 1, 50, 60_000);
    culprit_among(2, 1, 50, 60_000);
    culprit_among(3, 3, 50, 60_000);
}

#[test]
fn two_culprits_and_long_innocents_end_as_they_should() {
    let mut world = world(kind(3, 50));
    let innocent = insert_many(&mut world, "a", 60, &Does::Succeed(4_000));
    let culprits = insert_many(&mut world, "a", 2, &Does::Crash(1_500));
    world.run_until("all done", 1_200_000, all_final);
    assert!(culprits.iter().all(|job| state(&world, *job) == JobState::Failed));
    for job in innocent {
        let row = &world.table.rows[&job];
        assert_eq!((row.state, row.crash_count), (JobState::Succeeded, 0));
    }
}

#[test]
fn a_kill_from_outside_brings_all_attempts_of_the_only_worker_back_at_once() {
    let mut world = world(kind(1, 1_000));
    insert_many(&mut world, "a", 500, &Does::Succeed(60_000));
    world.run_until("all run", 1_000, |world| world.assigned.len() == 500);
    world.kill(world.assigned[0].1);
    world.run_until("all run again", 100, |world| world.assigned.len() == 1_000);
    let late = world.insert("a", Does::Succeed(10));
    world.run_until("a new job is not held up", 100, |world| is_final(world, late));
}

#[test]
fn suspects_that_are_cancelled_or_deleted_hold_nobody_up() {
    let mut world = world(kind(2, 100));
    let jobs = insert_many(&mut world, "a", 20, &Does::Hang);
    world.run_until("all run", 1_000, |world| world.assigned.len() == 20);
    world.plans.extend(jobs.iter().map(|job| (*job, vec![Does::Succeed(100)])));
    world.store_ms = 30;
    world.kill(world.assigned[0].1);
    world.run_for(5);
    for job in &jobs[..9] {
        world.cancel(*job);
    }
    for job in &jobs[10..] {
        world.table.rows.remove(job);
    }
    world.foreign_commit();
    world.run_until("all done", 5_000, all_final);
    let late = world.insert("a", Does::Succeed(10));
    world.run_until("a new job runs", 1_000, |world| is_final(world, late));
    assert!(world.crew.suspects.all().is_empty());
}

#[test]
fn a_group_is_claimed_in_parts_when_the_cap_or_the_store_cuts_it_short() {
    for (cap, claims_max) in [(Some(7), usize::MAX), (None, 7), (Some(5), 3)] {
        let mut settings = settings(&[("a", kind(2, 100))]);
        settings.running_max = cap;
        let mut world = started(settings);
        world.table.claims_max = claims_max;
        let culprit = world.insert_silently("a", vec![Does::Crash(50)]);
        let innocent = insert_many(&mut world, "a", 40, &Does::Succeed(70));
        world.run_until("all done", 60_000, all_final);
        assert_eq!(state(&world, culprit), JobState::Failed);
        let crashes = |job: &JobId| world.table.rows[job].crash_count;
        assert!(innocent.iter().all(|job| crashes(job) == 0));
    }
}

#[test]
fn suspects_of_an_uncapped_type_run_while_the_cap_is_reached() {
    let mut remote = kind(2, 100);
    remote.counts_in_cap = false;
    let mut settings = settings(&[("a", kind(2, 1)), ("remote", remote)]);
    settings.running_max = Some(1);
    let mut world = started(settings);
    world.insert("a", Does::Succeed(3_600_000));
    world.insert_silently("remote", vec![Does::Crash(50)]);
    let innocent = insert_many(&mut world, "remote", 20, &Does::Succeed(70));
    world
        .run_until("remote done", 30_000, |world| innocent.iter().all(|job| is_final(world, *job)));
}

#[test]
fn a_group_whose_worker_dies_before_its_claim_arrives_stays_a_group() {
    let mut world = world(kind(2, 100));
    world.store_ms = 20;
    insert_many(&mut world, "a", 20, &Does::Succeed(1_000));
    world.run_until("all run", 1_000, |world| world.assigned.len() == 20);
    world.kill(world.assigned[0].1);
    world.run_until("a group is offered", 1_000, |world| !world.dedicated.is_empty());
    world.kill(world.dedicated[0]);
    world.run_for(10);
    assert_eq!(world.crew.suspects.all().len(), 20);
    world.run_until("all done", 10_000, all_final);
    assert!(world.table.rows.values().all(|row| row.crash_count == 0));
}

#[test]
fn a_group_that_is_gone_makes_way_for_the_next_at_once() {
    let mut world = world(kind(2, 100));
    insert_many(&mut world, "a", 8, &Does::Succeed(100_000));
    world.run_until("all run", 1_000, |world| world.assigned.len() == 8);
    world.kill(world.assigned[0].1);
    world.run_until("both groups run", 1_000, |world| world.assigned.len() == 16);
    let worker = world.assigned[8].1;
    let group: Vec<_> = world.processes[&worker].held.keys().copied().collect();
    for job in &group[..2] {
        world.table.rows.remove(job);
    }
    world.kill(worker);
    world.run_until("the others run again", 100, |world| world.assigned.len() == 18);
}

#[test]
fn suspects_that_a_short_claim_left_stay_suspects() {
    let mut world = world(kind(2, 100));
    insert_many(&mut world, "a", 20, &Does::Succeed(1_000));
    world.run_until("all run", 1_000, |world| world.assigned.len() == 20);
    world.table.claims_max = 3;
    world.kill(world.assigned[0].1);
    world.run_until("some run again", 1_000, |world| world.assigned.len() > 20);
    assert_eq!(world.crew.suspects.all().len(), 20);
    world.run_until("all done", 10_000, all_final);
}

#[test]
fn a_culprit_that_was_found_takes_no_further_attempt_along() {
    let mut world = world(kind(2, 100));
    let culprit = world.insert_silently("a", vec![Does::Crash(50)]);
    insert_many(&mut world, "a", 15, &Does::Succeed(300));
    while world.table.rows[&culprit].crash_count == 0 {
        world.insert("a", Does::Succeed(300));
        world.run_for(20);
    }
    let moves = world.moves.len();
    while !is_final(&world, culprit) {
        world.insert("a", Does::Succeed(300));
        world.run_for(20);
    }
    let lost = world.moves[moves..].iter().filter(|it| it.to == Move::GiveBack).count();
    assert_eq!((lost, world.table.rows[&culprit].crash_count), (0, 3));
}

#[test]
fn suspects_that_the_cap_holds_back_make_no_looks() {
    let mut a = kind(3, 100);
    a.warm = 1;
    let mut b = kind(1, 100);
    b.priority = 9;
    let mut settings = settings(&[("a", a), ("b", b)]);
    settings.running_max = Some(2);
    let mut world = started(settings);
    world.run_for(6_000);
    insert_many(&mut world, "a", 2, &Does::Succeed(100_000));
    world.run_until("a runs", 1_000, |world| world.assigned.len() == 2);
    insert_many(&mut world, "b", 2, &Does::Succeed(300_000));
    world.run_for(1_000);
    reload(&mut world, |settings| settings.running_max = Some(4));
    world.run_until("b runs", 1_000, |world| world.assigned.len() == 4);
    world.run_for(100);
    let worker = world.assigned[0].1;
    world.kill(worker);
    reload(&mut world, |settings| settings.running_max = Some(2));
    world.settings.running_max = None;
    let looks = world.takes.len();
    world.run_for(60_000);
    assert!(world.takes.len() - looks < 20, "{}", world.takes.len() - looks);
    assert!(!world.crew.suspects.all().is_empty());
    world.run_until("all done", 400_000, all_final);
}

#[test]
fn suspects_get_the_last_worker_though_others_would_fill_it_for_ever() {
    let mut world = world(kind(2, 2));
    insert_many(&mut world, "a", 2_000, &Does::Succeed(100));
    world.run_until("both are full", 1_000, |world| world.assigned.len() >= 4);
    // With one free place the first death leaves them together, the second makes groups.
    world.kill(world.assigned[0].1);
    world.run_until("both are full again", 50, |world| world.assigned.len() == 6);
    let worker = world.assigned[5].1;
    let jobs = [world.assigned[4].2, world.assigned[5].2];
    world.kill(worker);
    world.run_until("dead", 100, |world| !world.crew.suspects.all().is_empty());
    reload(&mut world, |settings| drop(settings.types.insert("a".to_owned(), kind(1, 2))));
    world.settings.types.insert("a".to_owned(), kind(2, 2));
    world.run_until("suspects done", 2_000, |world| jobs.iter().all(|job| is_final(world, *job)));
}

#[test]
fn workers_that_are_all_busy_make_room_for_suspects() {
    let mut world = world(kind(2, 2));
    insert_many(&mut world, "a", 40, &Does::Succeed(100));
    world.insert_silently("a", vec![Does::Crash(30)]);
    insert_many(&mut world, "a", 40, &Does::Succeed(100));
    world.run_until("all done", 30_000, all_final);
    assert_eq!(world.table.rows.values().filter(|row| row.crash_count > 0).count(), 1);
}

#[test]
fn the_search_survives_a_reload_that_shrinks_the_workers() {
    let mut world = world(kind(2, 100));
    world.insert_silently("a", vec![Does::Crash(40)]);
    insert_many(&mut world, "a", 50, &Does::Succeed(300));
    world.run_for(100);
    reload(&mut world, |settings| {
        settings.types.insert("a".to_owned(), kind(2, 3));
    });
    world.run_until("all done", 60_000, all_final);
    let failed = world.table.rows.values().filter(|row| row.state == JobState::Failed);
    assert_eq!(failed.count(), 1);
}
