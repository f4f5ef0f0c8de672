//! A deterministic simulation of the policy: a table, a writer, workers, people and misfortune
//! around the real [`shiftboss::policy::crew::Crew`], everything from one seed.
//!
//! [`play`] runs one seed: a number of steps in which anything may go wrong, then a quiet end in
//! which all must come to rest. After every step it is checked what must always hold.

mod dice;
mod duties;
mod history;
mod ledger;
mod limits;
mod orders;
mod outside;
mod process;
mod rest;
mod sabotage;
mod scene;
mod shell;
mod stored;
mod survivors;
mod table;
mod words;
mod world;
mod writer;

pub use sabotage::Sabotage;

use history::History;
use sabotage::Saboteur;
use std::collections::BTreeMap;
use std::time::Duration;
use world::{Coming, World};

/// What is to be played.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Everything follows from it.
    pub seed: u64,
    /// Steps before the quiet end.
    pub steps: u64,
    /// How the policy is broken on purpose.
    pub sabotage: Option<Sabotage>,
    /// True: keep a readable timeline.
    pub keeps_history: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed that was played.
    pub seed: u64,
    /// Steps, the quiet end among them.
    pub steps: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// The same for the same history.
    pub hash: u64,
    /// How often what happened.
    pub seen: BTreeMap<&'static str, u64>,
    /// What must not be, if it was: the run ended there.
    pub violation: Option<String>,
    /// The timeline, when it was wished for.
    pub history: Vec<String>,
}

/// Plays one seed.
#[must_use]
pub fn play(wish: &Wish) -> Report {
    let history = History { keeps: wish.keeps_history, ..History::default() };
    let mut world = World::new(wish.seed, Saboteur::new(wish.sabotage), history);
    let scene = format!("{:?}", world.scene);
    world.note(|| format!("seed {}: {scene}", wish.seed));
    world.after(0, Coming::Boot(1_000_000));
    world.after(1, Coming::Deed);
    while world.steps < wish.steps && world.violation.is_none() {
        if !world.advance(u64::MAX) {
            world.blame("nothing is to come any more");
        }
    }
    if world.violation.is_none() {
        world.settle();
    }
    Report {
        seed: wish.seed,
        steps: world.steps,
        simulated: Duration::from_micros(world.now_us),
        hash: world.history.hash,
        seen: world.history.seen,
        violation: world.violation,
        history: world.history.lines,
    }
}

/// Looks for a shorter run of the same seed that fails too: fewer steps before the quiet end.
/// The first `steps` of a seed are the same in every run.
#[must_use]
pub fn shrink(wish: &Wish, failed: &Report) -> (Wish, Report) {
    let mut best = (Wish { steps: wish.steps.min(failed.steps), ..*wish }, failed.clone());
    let mut eighths = 1;
    while eighths < 8 {
        let steps = best.0.steps * eighths / 8;
        let report = play(&Wish { steps, ..*wish });
        if report.violation.is_some() && steps < best.0.steps && report.steps < best.1.steps {
            best = (Wish { steps, ..*wish }, report);
            eighths = 1;
        } else {
            eighths += 1;
        }
    }
    best
}
