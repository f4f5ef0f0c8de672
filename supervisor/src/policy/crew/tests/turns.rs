//! The cap over all types, priorities, and turns between types.

use super::process::Does;
use super::{all_final, insert_many, kind, settings, started};
use shiftboss_protocol::job::JobState;

#[test]
fn the_cap_holds_and_types_share_it() {
    let mut settings = settings(&[("a", kind(10, 1)), ("b", kind(10, 1))]);
    settings.running_max = Some(4);
    let mut world = started(settings);
    let many = insert_many(&mut world, "a", 200, &Does::Succeed(50));
    world.run_for(500);
    let few = insert_many(&mut world, "b", 20, &Does::Succeed(50));
    world.run_until("b is done", 1_500, |world| {
        few.iter().all(|job| world.table.rows[job].state == JobState::Succeeded)
    });
    let left = many.iter().filter(|job| world.table.rows[job].state == JobState::Available);
    assert!(left.count() > 100);
    // The world checks at every assignment that no more than 4 run.
    world.run_until("all done", 10_000, all_final);
}

#[test]
fn the_type_with_priority_goes_first_and_rows_by_theirs() {
    let mut keying = kind(1, 1);
    keying.priority = 10;
    let mut settings = settings(&[("a", kind(1, 1)), ("keying", keying)]);
    settings.running_max = Some(1);
    let mut world = started(settings);
    let plain = insert_many(&mut world, "a", 5, &Does::Succeed(50));
    let keyed = insert_many(&mut world, "keying", 5, &Does::Succeed(50));
    world.table.rows.get_mut(&plain[4]).expect("inserted").priority = 5;
    world.run_until("all done", 2_000, all_final);
    let order: Vec<_> = world.assigned.iter().map(|(.., job)| *job).collect();
    let place = |job| order.iter().position(|one| *one == job).expect("all ran");
    // One of the others may have been first while the worker for keying was starting.
    assert!(keyed.iter().filter(|job| place(**job) < 6).count() == 5, "{order:?}");
    assert!(place(plain[4]) < place(plain[1]));
}

#[test]
fn a_type_that_does_not_count_is_not_held_back_by_the_cap() {
    let mut remote = kind(1, 100);
    remote.counts_in_cap = false;
    let mut settings = settings(&[("a", kind(2, 1)), ("remote", remote)]);
    settings.running_max = Some(1);
    let mut world = started(settings);
    insert_many(&mut world, "a", 3, &Does::Succeed(10_000));
    world.run_for(1_000);
    let jobs = insert_many(&mut world, "remote", 50, &Does::Succeed(10));
    world.run_until("remote done", 100, |world| {
        jobs.iter().all(|job| world.table.rows[job].state.is_final())
    });
}

#[test]
fn the_end_of_one_type_s_job_makes_room_for_another_type_at_once() {
    let mut b = kind(1, 1);
    b.workers_min = 1;
    let mut settings = settings(&[("a", kind(1, 1)), ("b", b)]);
    settings.running_max = Some(1);
    let mut world = started(settings);
    let first = insert_many(&mut world, "a", 1, &Does::Succeed(100_000));
    world.run_for(50_000);
    let second = insert_many(&mut world, "b", 1, &Does::Succeed(10));
    world.run_until("a done", 60_000, |world| world.table.rows[&first[0]].state.is_final());
    world.run_until("b done", 20, |world| world.table.rows[&second[0]].state.is_final());
}

#[test]
fn a_cap_of_nothing_starts_nothing_and_wakes_nobody() {
    let mut settings = settings(&[("a", kind(2, 1))]);
    settings.running_max = Some(0);
    let mut world = started(settings);
    insert_many(&mut world, "a", 3, &Does::Succeed(10));
    world.run_for(3_600_000);
    assert!(world.spawns.is_empty() && world.takes.len() < 40);
}
