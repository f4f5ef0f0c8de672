//! Random worlds: what must always hold is checked by the world at every step; here also that
//! every world comes to rest, and that nothing stays behind.

use super::process::{Boot, Does};
use super::{World, all_final, kind, settings, started};
use crate::policy::claim::WorkerId;
use crate::policy::event::{DrainLimit, Event};
use crate::policy::settings::TypeSettings;
use proptest::prelude::*;
use shiftboss_protocol::job::{Cause, Failure, JobId, JobState};
use std::time::Duration;

#[derive(Clone, Debug)]
enum Deed {
    Insert(bool, Does),
    Later(bool, u16),
    Row(u8, RowDeed),
    Worker(u8, WorkerDeed),
    Pause(bool),
    Resume(bool),
    Store(u8),
    Shrink(u8),
    Boots(Vec<Boot>),
    Stubborn(bool),
}

#[derive(Clone, Copy, Debug)]
enum RowDeed {
    Cancel,
    Delete,
    /// Somebody sets a running row back by hand.
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum WorkerDeed {
    Kill,
    Restart,
    Break,
}

fn does() -> impl Strategy<Value = Does> {
    let failure = prop_oneof![
        Just(Failure::retryable(Cause::Error, "no")),
        Just(Failure::permanent(Cause::Payload, "bad")),
    ];
    prop_oneof![
        6 => (0..3_000_u64).prop_map(Does::Succeed),
        2 => (0..500_u64, failure).prop_map(|(ms, failure)| Does::Fail(ms, failure)),
        2 => (0..2_000_u64).prop_map(Does::Crash),
        1 => Just(Does::Hang),
        1 => Just(Does::IgnoreStop),
        1 => (0..500_u64).prop_map(Does::Mute),
        1 => (0..500_u64).prop_map(Does::Hold),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let boot = prop_oneof![
        2 => (1..200_u64).prop_map(Boot::Ready),
        1 => Just(Boot::FailsToSpawn),
        1 => (1..100_u64).prop_map(Boot::Dies),
    ];
    let row = prop_oneof![
        2 => Just(RowDeed::Cancel),
        1 => Just(RowDeed::Delete),
        1 => Just(RowDeed::Reopen),
    ];
    let worker = prop_oneof![
        3 => Just(WorkerDeed::Kill),
        1 => Just(WorkerDeed::Restart),
        1 => Just(WorkerDeed::Break),
    ];
    prop_oneof![
        12 => (any::<bool>(), does()).prop_map(|(b, does)| Deed::Insert(b, does)),
        2 => (any::<bool>(), any::<u16>()).prop_map(|(b, ms)| Deed::Later(b, ms)),
        4 => (any::<u8>(), row).prop_map(|(n, deed)| Deed::Row(n, deed)),
        5 => (any::<u8>(), worker).prop_map(|(n, deed)| Deed::Worker(n, deed)),
        1 => any::<bool>().prop_map(Deed::Pause),
        1 => any::<bool>().prop_map(Deed::Resume),
        1 => (1..60_u8).prop_map(Deed::Store),
        1 => (1..4_u8).prop_map(Deed::Shrink),
        1 => prop::collection::vec(boot, 0..4).prop_map(Deed::Boots),
        1 => any::<bool>().prop_map(Deed::Stubborn),
    ]
}

#[derive(Clone, Debug)]
struct Plan {
    a: TypeSettings,
    b: TypeSettings,
    cap: Option<u32>,
    claims_max: usize,
    deeds: Vec<(u16, Deed)>,
}

fn one_kind() -> impl Strategy<Value = TypeSettings> {
    (1..4_u32, 1..6_u32, 0..2_u32, 0..2_u32, 0..12_u32, any::<bool>()).prop_map(
        |(workers, concurrency, min, warm, recycle, counts)| TypeSettings {
            workers_min: min.min(workers),
            warm,
            counts_in_cap: counts,
            recycle_after_jobs: if recycle > 6 { 0 } else { recycle },
            idle: Duration::from_secs(20),
            timeout: Some(Duration::from_secs(15)),
            ..kind(workers, concurrency)
        },
    )
}

fn plan() -> impl Strategy<Value = Plan> {
    let cap = prop_oneof![Just(None), (1..6_u32).prop_map(Some)];
    let claims_max = prop_oneof![Just(usize::MAX), 1..4_usize];
    let deeds = prop::collection::vec((0..700_u16, deed()), 1..80);
    (one_kind(), one_kind(), cap, claims_max, deeds)
        .prop_map(|(a, b, cap, claims_max, deeds)| Plan { a, b, cap, claims_max, deeds })
}

fn name(of_b: bool) -> &'static str {
    if of_b { "b" } else { "a" }
}

fn some_worker(world: &World, n: u8) -> Option<WorkerId> {
    let count = world.processes.len();
    world.processes.keys().nth(usize::from(n) % count.max(1)).copied()
}

fn some_job(world: &World, n: u8) -> Option<JobId> {
    let count = world.table.rows.len();
    world.table.rows.keys().nth(usize::from(n) % count.max(1)).copied()
}

fn on_row(world: &mut World, deed: RowDeed, job: JobId) {
    match deed {
        RowDeed::Cancel => world.cancel(job),
        RowDeed::Delete => drop(world.table.rows.remove(&job)),
        RowDeed::Reopen => {
            let row = world.table.rows.get_mut(&job).expect("it was just seen");
            if row.state == JobState::Running {
                row.state = JobState::Available;
            }
        }
    }
    world.foreign_commit();
}

fn on_worker(world: &mut World, deed: WorkerDeed, worker: WorkerId) {
    match deed {
        WorkerDeed::Kill => world.kill(worker),
        WorkerDeed::Restart => world.tell(Event::RestartWorker(worker)),
        WorkerDeed::Break => {
            world.tell(Event::WorkerBroken { worker, reason: "odd frame".to_owned() });
        }
    }
}

fn carry_out(world: &mut World, deed: &Deed) {
    match deed {
        Deed::Insert(of_b, does) => drop(world.insert(name(*of_b), does.clone())),
        Deed::Later(of_b, ms) => {
            let now_ms = world.now().unix_ms;
            world.table.insert(name(*of_b), now_ms + i64::from(*ms), now_ms);
            world.foreign_commit();
        }
        Deed::Row(n, deed) => {
            if let Some(job) = some_job(world, *n) {
                on_row(world, *deed, job);
            }
        }
        Deed::Worker(n, deed) => {
            if let Some(worker) = some_worker(world, *n) {
                on_worker(world, *deed, worker);
            }
        }
        Deed::Pause(of_b) => world.tell(Event::Pause(name(*of_b).into())),
        Deed::Resume(of_b) => world.tell(Event::Resume(name(*of_b).into())),
        Deed::Store(ms) => world.store_ms = u64::from(*ms),
        Deed::Shrink(workers) => super::reload::reload(world, |settings| {
            let a = settings.types.get_mut("a").expect("it stays");
            // Never below what runs: the world measures against the newest settings.
            a.workers_max = a.workers_max.max(u32::from(*workers));
            a.concurrency = u32::from(*workers);
        }),
        Deed::Boots(boots) => {
            world.boots.insert("a".to_owned(), boots.clone().into());
        }
        Deed::Stubborn(stubborn) => world.stubborn = *stubborn,
    }
}

/// The random part is over: nothing new goes wrong, and all jobs must end.
fn heal(world: &mut World) {
    world.boots.clear();
    world.stubborn = false;
    world.store_ms = 1;
    world.tell(Event::Resume("a".into()));
    world.tell(Event::Resume("b".into()));
    // Two hours, and three times the 60 s of an open breaker for each job that may be poison.
    let within_ms = 7_200_000 + 3 * 60_000 * world.table.rows.len() as u64;
    world.run_until("at rest", within_ms, all_final);
}

fn check_rest(world: &mut World) {
    world.run_for(1_200_000);
    assert!(world.unmoved().is_empty(), "{:?}", world.unmoved());
    assert!(world.crew.runs.is_empty() && world.crew.lost.is_empty());
    assert!(world.crew.suspects.all().is_empty());
    assert!(world.crew.types.values().all(|book| book.running == 0));
    assert!(!world.is_anything_coming());
    let timers = world.crew.deadlines.count();
    let bound = 2 * world.processes.len() + world.crew.types.len();
    assert!(timers <= bound, "{timers} timers are left: {:?}", world.crew);
    let (events, looks) = (world.events, world.takes.len());
    world.run_for(600_000);
    assert_eq!((world.events - events, world.takes.len() - looks), (0, 0), "not at rest");
}

fn play(plan: &Plan) -> World {
    let mut settings = settings(&[("a", plan.a.clone()), ("b", plan.b.clone())]);
    settings.running_max = plan.cap;
    // No poll comes to the rescue: every wake-up must have its own reason.
    settings.poll.idle_min = Duration::from_secs(100_000_000);
    settings.poll.idle_max = settings.poll.idle_min;
    let mut world = started(settings);
    world.table.claims_max = plan.claims_max;
    for (wait_ms, deed) in &plan.deeds {
        world.run_for(u64::from(*wait_ms));
        carry_out(&mut world, deed);
    }
    world
}

/// Whatever happens, a drain with grace ends within the sum of all graces, and a hurry sooner.
fn check_exit(world: &mut World, hurry_after_ms: Option<u16>) {
    let limit = if hurry_after_ms.is_some() { DrainLimit::Unlimited } else { DrainLimit::Grace };
    world.tell(Event::Drain(limit));
    if let Some(ms) = hurry_after_ms {
        world.run_for(u64::from(ms));
        world.tell(Event::Hurry);
    }
    world.run_until("exited", 60_000, |world| world.exited);
    assert!(world.unmoved().is_empty(), "{:?}", world.unmoved());
    let running = world.table.rows.values().filter(|row| row.state == JobState::Running);
    assert_eq!(running.count(), 0);
}

fn config(cases: u32, seed: u64) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(seed),
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(200, 20_260_722))]

    #[test]
    fn every_world_comes_to_rest_and_leaves_nothing_behind(plan in plan()) {
        let mut world = play(&plan);
        heal(&mut world);
        check_rest(&mut world);
    }

    #[test]
    fn every_world_can_be_drained(plan in plan(), hurry in prop::option::of(0..5_000_u16)) {
        check_exit(&mut play(&plan), hurry);
    }
}
