//! What a run is played with: settings of the types, and how often what goes wrong. All of it
//! follows from the seed.

use super::dice::Dice;
use shiftboss::policy::settings::{
    Backoff, Grace, PollSettings, RestartSettings, Settings, TypeSettings,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// The configured types.
pub(super) const NAMES: [&str; 4] = ["encode", "noop", "poll", "render"];

/// A poll that never comes: every wake-up needs a reason of its own.
const NEVER: Duration = Duration::from_secs(100_000_000);

/// What goes wrong how often, so many times in a thousand occasions.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    /// An attempt does something odd.
    pub(super) odd: u64,
    /// A worker does not start well.
    pub(super) bad_start: u64,
    /// A worker ignores what it is told.
    pub(super) stubborn: u64,
    /// A commit fails.
    pub(super) bad_commit: u64,
    /// The table refuses an operation itself.
    pub(super) refused: u64,
    /// A deed of the outside is an attack on a process.
    pub(super) attack: u64,
    /// A deed of the outside is an order of an operator.
    pub(super) operator: u64,
    /// A process survives SIGKILL for seconds.
    pub(super) uninterruptible: u64,
    /// Longest pause between two deeds, microseconds.
    pub(super) pause_us: u64,
}

/// The fixed part of a run.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) settings: Settings,
    pub(super) rates: Rates,
    /// How long workers go on without a supervisor, microseconds.
    pub(super) orphan_grace_us: u64,
    /// False: no fallback poll helps.
    pub(super) polls: bool,
}

impl Scene {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let polls = dice.chance(600);
        let calm = dice.chance(250);
        let rate = |dice: &mut Dice, most: u64| if calm { 0 } else { dice.below(most + 1) };
        let rates = Rates {
            odd: rate(dice, 300),
            bad_start: rate(dice, 250),
            stubborn: rate(dice, 120),
            bad_commit: rate(dice, 150),
            refused: if polls { rate(dice, 20) } else { 0 },
            attack: rate(dice, 200),
            operator: rate(dice, 120),
            uninterruptible: rate(dice, 60),
            pause_us: dice.spread(20_000, 3_000_000),
        };
        let count = usize::try_from(dice.between(1, NAMES.len() as u64)).unwrap_or(1);
        let types: BTreeMap<_, _> =
            NAMES.iter().take(count).map(|name| ((*name).to_owned(), one_type(dice))).collect();
        let idle_max = if polls { dice.wait(60_000, 300_000) } else { NEVER };
        let settings = Settings {
            poll: PollSettings {
                idle_min: if polls { dice.wait(500, 4_000) } else { NEVER },
                idle_max,
                factor: 2.0,
                stagger_max: dice.wait(1, 5_000),
            },
            running_max: dice.chance(500).then(|| number(dice, 1, 6)),
            workers_enabled: true,
            types,
        };
        let orphan_grace_us = dice.pick(&[0, 1_500_000, 600_000_000, 600_000_000]).unwrap_or(0);
        Self { settings, rates, orphan_grace_us, polls }
    }

    /// Other settings, as a reload may bring them; what decides the fate of a job stays.
    pub(super) fn redrawn(&self, dice: &mut Dice) -> Settings {
        let mut settings = self.settings.clone();
        for one in settings.types.values_mut() {
            if dice.chance(400) {
                one.workers_max = number(dice, 1, 3);
                one.workers_min = one.workers_min.min(one.workers_max);
            }
            if dice.chance(300) {
                one.concurrency = number(dice, 1, 6);
            }
            one.enabled = !dice.chance(120);
            if dice.chance(200) {
                one.workload.push('x');
            }
        }
        settings.workers_enabled = !dice.chance(60);
        if settings.running_max.is_some() {
            settings.running_max = Some(number(dice, 1, 6));
        }
        if dice.chance(100) && settings.types.len() > 1 {
            settings.types.pop_last();
        }
        settings
    }
}

fn number(dice: &mut Dice, low: u64, high: u64) -> u32 {
    u32::try_from(dice.between(low, high)).unwrap_or(1)
}

fn one_type(dice: &mut Dice) -> TypeSettings {
    let workers_max = number(dice, 1, 3);
    let timeout = dice.chance(800).then(|| dice.wait(2_000, 30_000));
    let stalls = timeout.is_none() || dice.chance(300);
    TypeSettings {
        enabled: true,
        counts_in_cap: !dice.chance(200),
        workload: "w".to_owned(),
        workers_min: if dice.chance(200) { 1 } else { 0 },
        workers_max,
        warm: if dice.chance(200) { 1 } else { 0 },
        idle: dice.wait(500, 20_000),
        concurrency: dice.pick(&[1, 1, 2, 3, 8]).unwrap_or(1),
        priority: i64::from(number(dice, 0, 2)),
        timeout,
        stall_timeout: stalls.then(|| dice.wait(12_000, 40_000)),
        attempts_max: number(dice, 1, 4),
        retry: Backoff {
            base: dice.wait(5, 2_000),
            max: Duration::from_secs(10),
            factor: 2.0,
            jitter: 0.2,
        },
        grace: Grace { drain: dice.wait(50, 5_000), term: dice.wait(50, 3_000) },
        poison_after: number(dice, 0, 4),
        restart: RestartSettings {
            burst: number(dice, 1, 5),
            within: dice.wait(2_000, 60_000),
            base: dice.wait(20, 200),
            max: dice.wait(500, 20_000),
            healthy_after: dice.wait(300, 5_000),
        },
        recycle_after_jobs: if dice.chance(200) { number(dice, 1, 6) } else { 0 },
        recycle_above_bytes: 0,
        memory_bytes_max: None,
        claim_sync: true,
        start_mark: 0,
    }
}
