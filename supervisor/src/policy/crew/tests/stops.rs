//! Attempts that are stopped: cancelled, out of time, stalled, or no longer ours.

use super::process::{Does, Order};
use super::{is_final, kind, state, world};
use crate::policy::event::{Event, Notice};
use crate::policy::moves::Move;
use shiftboss_protocol::job::{Attempt, Cause, Failure, JobId, JobState, Outcome, Usage};
use shiftboss_protocol::message::StopReason;
use std::time::Duration;

#[test]
fn a_cancel_at_any_moment_ends_the_job() {
    for moment in 0..60 {
        let mut world = world(kind(1, 2));
        let fails = Does::Fail(10, Failure::retryable(Cause::Error, "no"));
        let jobs = [
            world.insert("a", Does::Succeed(10)),
            world.insert("a", Does::Hang),
            world.insert("a", fails),
        ];
        world.run_for(moment);
        for job in jobs {
            world.cancel(job);
        }
        world.run_until("final", 1_000, |world| jobs.iter().all(|job| is_final(world, *job)));
        world.run_for(5_000);
        assert_eq!(state(&world, jobs[1]), JobState::Cancelled, "at {moment}");
        assert_eq!(state(&world, jobs[2]), JobState::Cancelled, "at {moment}");
        assert!(world.unmoved().is_empty());
    }
}

#[test]
fn a_cancel_counts_also_while_the_attempt_is_stopped_for_its_timeout() {
    let mut kind = kind(1, 1);
    kind.timeout = Some(Duration::from_secs(1));
    let mut world = world(kind);
    let job = world.insert("a", Does::IgnoreStop);
    world.run_until("told to stop", 2_000, |world| {
        world.orders.iter().any(|(_, _, it)| matches!(it, Order::Stop(..)))
    });
    world.cancel(job);
    world.run_until("final", 60_000, |world| is_final(world, job));
    assert_eq!(world.moves.last().map(|it| &it.to), Some(&Move::Cancel));
}

#[test]
fn an_attempt_that_runs_too_long_fails_and_is_tried_again() {
    let mut kind = kind(1, 1);
    kind.timeout = Some(Duration::from_secs(5));
    kind.attempts_max = 2;
    let mut world = world(kind);
    let job = world.insert("a", Does::Hang);
    world.run_until("final", 20_000, |world| is_final(world, job));
    let row = &world.table.rows[&job];
    assert_eq!((row.state, row.failures, row.attempt), (JobState::Failed, 2, 2));
    assert_eq!((row.cause, row.crash_count), (Some(Cause::Timeout), 0));
    assert_eq!(world.spawns.len(), 1);
}

#[test]
fn the_timeout_of_the_row_goes_before_that_of_the_type() {
    let mut world = world(kind(1, 1));
    let job = world.insert_silently("a", vec![Does::Hang]);
    world.table.rows.get_mut(&job).expect("just inserted").timeout_ms = Some(700);
    world.table.rows.get_mut(&job).expect("just inserted").attempts_max = Some(1);
    world.foreign_commit();
    world.run_until("final", 1_000, |world| is_final(world, job));
    assert_eq!(world.table.rows[&job].cause, Some(Cause::Timeout));
}

#[test]
fn an_attempt_without_progress_is_stalled_and_one_with_progress_is_not() {
    let mut kind = kind(2, 1);
    kind.stall_timeout = Some(Duration::from_secs(12));
    kind.attempts_max = 1;
    let mut world = world(kind);
    let stalled = world.insert("a", Does::Hang);
    let slow = world.insert("a", Does::Succeed(60_000));
    world.run_until("final", 13_000, |world| is_final(world, stalled));
    assert_eq!(world.table.rows[&stalled].cause, Some(Cause::Stalled));
    world.run_until("final", 60_000, |world| is_final(world, slow));
    assert_eq!(state(&world, slow), JobState::Succeeded);
}

#[test]
fn an_attempt_that_ignores_its_stop_loses_its_worker_and_its_neighbour_nothing() {
    let mut world = world(kind(1, 2));
    let deaf = world.insert("a", Does::IgnoreStop);
    let neighbour = world.insert("a", Does::Succeed(60_000));
    world.run_until("both run", 1_000, |world| world.assigned.len() == 2);
    world.cancel(deaf);
    world.run_until("cancelled", 21_000, |world| is_final(world, deaf));
    assert_eq!(state(&world, deaf), JobState::Cancelled);
    world.run_until("runs again", 100, |world| world.assigned.len() == 3);
    assert_eq!(world.table.rows[&neighbour].crash_count, 0);
}

#[test]
fn a_row_that_is_gone_stops_its_attempt() {
    let mut world = world(kind(1, 1));
    let job = world.insert("a", Does::Hang);
    world.run_until("runs", 1_000, |world| world.assigned.len() == 1);
    world.table.rows.remove(&job);
    world.foreign_commit();
    let next = world.insert("a", Does::Succeed(10));
    world.run_until("next done", 1_000, |world| is_final(world, next));
    assert!(world.notices.iter().any(|(_, it)| *it == Notice::RowLost(job)));
    assert!(world.notices.iter().any(|(_, it)| matches!(it, Notice::Stale { .. })));
}

#[test]
fn a_row_that_somebody_made_available_again_does_not_run_twice() {
    let mut world = world(kind(2, 2));
    let job = world.insert_silently("a", vec![Does::IgnoreStop, Does::Succeed(10)]);
    world.plans.insert(job, vec![Does::IgnoreStop, Does::IgnoreStop, Does::Succeed(10)]);
    world.foreign_commit();
    world.run_until("runs", 1_000, |world| world.assigned.len() == 1);
    world.table.rows.get_mut(&job).expect("it runs").state = JobState::Available;
    world.tell(Event::OwnRows);
    world.run_until("claimed again", 100, |world| world.table.rows[&job].attempt == 2);
    let took = world.takes.len();
    world.run_for(10_000);
    assert!(world.takes.len() < took + 10, "the row is not claimed again and again");
    world.run_until("final", 30_000, |world| is_final(world, job));
    assert_eq!(state(&world, job), JobState::Succeeded);
    assert_eq!(world.table.rows[&job].attempt, 3);
}

#[test]
fn an_outcome_of_an_attempt_that_is_not_ours_is_answered_as_stale() {
    let mut world = world(kind(1, 1));
    let job = world.insert("a", Does::Hang);
    world.run_until("runs", 1_000, |world| world.assigned.len() == 1);
    let worker = world.assigned[0].1;
    let (outcome, usage) = (Outcome::Cancelled, Usage::default());
    world.tell(Event::Finished { worker, job, attempt: Attempt(9), outcome, usage });
    let answer = Order::Forget(job, Attempt(9));
    assert!(world.orders.iter().any(|(_, _, it)| *it == answer));
    assert_eq!(state(&world, job), JobState::Running);
}

#[test]
fn a_failure_is_retried_after_its_backoff_and_not_before_its_own_wish() {
    let mut world = world(kind(1, 1));
    let mut slow = Failure::retryable(Cause::Error, "busy");
    slow.retry_after_ms = Some(30_000);
    let plain = Failure::retryable(Cause::Error, "no");
    let job = world
        .insert_silently("a", vec![Does::Fail(1, plain), Does::Fail(1, slow), Does::Succeed(1)]);
    world.foreign_commit();
    world.run_until("done", 40_000, |world| is_final(world, job));
    let at: Vec<_> = world.assigned.iter().map(|(at, ..)| *at).collect();
    assert!((800..1_300).contains(&(at[1] - at[0])), "{at:?}");
    assert!((30_000..30_100).contains(&(at[2] - at[1])), "{at:?}");
    assert_eq!(world.table.rows[&job].failures, 2);
}

#[test]
fn permanent_failures_and_unknown_outcomes_are_not_retried() {
    let mut world = world(kind(1, 3));
    let failure = Failure::permanent(Cause::Payload, "not JSON");
    let bad = world.insert("a", Does::Fail(5, failure));
    let held = world.insert("a", Does::Hold(5));
    world.run_for(120_000);
    assert_eq!((state(&world, bad), state(&world, held)), (JobState::Failed, JobState::Held));
    assert_eq!(world.assigned.len(), 2);
}

#[test]
fn a_stop_of_a_job_that_is_not_ours_does_nothing() {
    let mut world = world(kind(1, 1));
    world.tell(Event::CancelAsked(vec![JobId(77)]));
    world.run_for(100);
    assert!(world.moves.is_empty());
    let reason = StopReason::Cancelled;
    assert!(
        !world
            .orders
            .iter()
            .any(|(_, _, it)| matches!(it, Order::Stop(_, _, why) if *why == reason))
    );
}

#[test]
fn a_shared_death_cancels_what_was_asked_to_be_cancelled() {
    let mut world = world(kind(1, 2));
    let one = world.insert("a", Does::IgnoreStop);
    let other = world.insert_silently("a", vec![Does::Hang, Does::Succeed(10)]);
    world.foreign_commit();
    world.run_until("both run", 1_000, |world| world.assigned.len() == 2);
    world.cancel(one);
    world.run_for(10);
    world.kill(world.assigned[0].1);
    world.run_until("final", 1_000, |world| is_final(world, one) && is_final(world, other));
    assert!(world.moves.iter().any(|it| it.job == one && it.to == Move::Cancel));
    assert!(world.moves.iter().any(|it| it.job == other && it.to == Move::GiveBack));
}
