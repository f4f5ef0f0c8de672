//! The simulated policy: a fixed budget of seeds, and proof that broken policies are found.

use shiftboss_tests::simulation::{Report, Sabotage, Wish, play};
use std::collections::BTreeSet;

/// Seeds and steps of each: a few seconds in a debug build. `cargo xtask simulate` plays more.
const SEEDS: std::ops::Range<u64> = 20_261_124..20_261_184;
const STEPS: u64 = 1_500;

/// Seeds within which each breakage must be found.
const FOUND_WITHIN: u64 = 40;

fn wish(seed: u64) -> Wish {
    Wish { seed, steps: STEPS, sabotage: None, keeps_history: false }
}

/// What a run must have seen somewhere: else the simulation has gone tame.
const MUST_BE_SEEN: [&str; 50] = [
    "clock jumped",
    "commit failed",
    "commit in doubt",
    "event CancelAsked",
    "event Deadline",
    "event Drain",
    "event Finished",
    "event Hurry",
    "event Moved",
    "event OwnRows",
    "event Pause",
    "event Progress",
    "event Reload",
    "event RestartWorker",
    "event Resume",
    "event SpawnFailed",
    "event Started",
    "event TableChanged",
    "event Taken",
    "event Watched",
    "event WorkerBack",
    "event WorkerBroken",
    "event WorkerExited",
    "event WorkerFound",
    "event WorkerHeard",
    "event WorkerReady",
    "event WorkerSpawned",
    "job rescued",
    "move Cancel",
    "move Crash",
    "move Fail",
    "move GiveBack",
    "move Hold",
    "move Poison",
    "move Retry",
    "move Succeed",
    "notice BreakerClosed",
    "notice BreakerOpened",
    "notice Late",
    "notice Left",
    "notice Pace",
    "notice RowLost",
    "notice Stale",
    "notice UnknownTypes",
    "operation refused",
    "outcome read from disk",
    "row deleted",
    "stray attempt taken in",
    "supervisor died",
    "supervisor ended",
];

#[test]
fn nothing_that_must_hold_is_broken_and_every_world_comes_to_rest() {
    let mut seen = BTreeSet::new();
    for seed in SEEDS {
        let report = play(&wish(seed));
        seen.extend(report.seen.keys().copied());
        assert_eq!(
            report.violation, None,
            "after {} steps; its timeline: cargo xtask simulate --replay {seed} --steps {STEPS}",
            report.steps
        );
    }
    let unseen: Vec<_> = MUST_BE_SEEN.iter().filter(|what| !seen.contains(*what)).collect();
    assert!(unseen.is_empty(), "never happened: {unseen:?}");
}

#[test]
fn the_same_seed_has_the_same_history_and_another_has_another() {
    let told = |seed| play(&Wish { keeps_history: true, ..wish(seed) });
    let (one, again, other): (Report, Report, Report) = (told(7), told(7), told(8));
    assert!(one.history.len() > 1_000);
    assert_eq!(one.history, again.history);
    assert_eq!((one.hash, one.steps), (again.hash, again.steps));
    assert_ne!(one.hash, other.hash);
    // Telling the history does not change it.
    assert_eq!(play(&wish(7)).hash, one.hash);
}

#[test]
fn every_deliberate_breakage_is_found() {
    let mut missed = Vec::new();
    for kind in Sabotage::ALL {
        let sabotage = Some(kind);
        let finds = |seed: &u64| play(&Wish { sabotage, ..wish(*seed) }).violation.is_some();
        if (1..=FOUND_WITHIN).find(finds).is_none() {
            missed.push(kind);
        }
    }
    assert!(missed.is_empty(), "not found within {FOUND_WITHIN} seeds: {missed:?}");
}
