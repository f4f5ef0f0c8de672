//! Scenarios of the crew in a simulated world: names say what must happen.

mod breaker;
mod chance;
mod deaths;
mod drain;
mod looks;
mod poison;
mod process;
mod reload;
mod stops;
mod survivors;
mod table;
mod turns;
mod world;

use crate::policy::settings::{PollSettings, Settings, TypeSettings};
use process::Does;
use shiftboss_protocol::job::{JobId, JobState};
use std::time::Duration;
use world::World;

/// One type with these limits and the documented defaults.
fn kind(workers_max: u32, concurrency: u32) -> TypeSettings {
    TypeSettings {
        enabled: true,
        workload: "noop".to_owned(),
        workers_max,
        concurrency,
        ..TypeSettings::of_a_removed_type()
    }
}

fn settings(types: &[(&str, TypeSettings)]) -> Settings {
    Settings {
        poll: PollSettings {
            idle_min: Duration::from_secs(1),
            idle_max: Duration::from_secs(300),
            factor: 2.0,
            stagger_max: Duration::from_secs(5),
        },
        running_max: None,
        workers_enabled: true,
        types: types.iter().map(|(name, one)| ((*name).to_owned(), one.clone())).collect(),
    }
}

/// A started world with the type `a`.
fn world(one: TypeSettings) -> World {
    started(settings(&[("a", one)]))
}

fn started(settings: Settings) -> World {
    let mut world = World::new(settings);
    world.tell(crate::policy::event::Event::Started);
    world
}

fn state(world: &World, job: JobId) -> JobState {
    world.table.rows.get(&job).expect("the row exists").state
}

fn is_final(world: &World, job: JobId) -> bool {
    state(world, job).is_final()
}

fn all_final(world: &World) -> bool {
    world.table.rows.values().all(|row| row.state.is_final() || row.state == JobState::Held)
}

/// Inserts `count` rows in one foreign commit.
fn insert_many(world: &mut World, job_type: &str, count: usize, does: &Does) -> Vec<JobId> {
    let jobs = (0..count).map(|_| world.insert_silently(job_type, vec![does.clone()])).collect();
    world.foreign_commit();
    jobs
}
