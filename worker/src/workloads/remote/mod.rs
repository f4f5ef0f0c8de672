//! The `remote` workload: operations at AI providers, thousands of them in one process.
//!
//! What an operation does next is decided in `shiftboss_provider`, which is pure; here are its
//! effects: `engine.rs` is the one loop, `send.rs` speaks HTTP, `guard.rs` says which addresses
//! may be reached, `download.rs` writes files, `rates.rs` remembers what was sent for the next
//! process, `providers.rs` and `secrets.rs` are read at set-up, before the seal.

mod credential;
mod download;
mod engine;
mod entry;
mod guard;
mod lag;
mod payload;
mod providers;
mod rates;
mod secrets;
mod send;

use crate::attempt::{AttemptContext, Job};
use crate::workload::Workload;
use crate::workload::crowd::{Arrivals, Crowd};
use providers::Providers;
use shiftboss_protocol::job::{Cause, Failure};
use shiftboss_protocol::message::Settings;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Runs operations at providers.
#[derive(Debug, Default)]
pub struct Remote {
    providers: OnceLock<Arc<Providers>>,
}

impl Workload for Remote {
    fn name(&self) -> &'static str {
        "remote"
    }

    fn set_up(&self, settings: &Settings) -> Result<Vec<String>, String> {
        let folder = Some(&settings.providers_dir).filter(|folder| !folder.is_empty());
        let mut providers =
            Providers::read(folder.map(Path::new), &|name| std::env::var(name).ok())?;
        let scratch = Some(&settings.scratch_dir).filter(|folder| !folder.is_empty());
        providers.rates_dir = scratch.map(|folder| Path::new(folder).join("rates"));
        providers.start_broker()?;
        let abilities = providers.told();
        let _ = self.providers.set(Arc::new(providers));
        Ok(abilities)
    }

    fn run(&self, _job: &Job, _context: &AttemptContext) -> Result<serde_json::Value, Failure> {
        Err(Failure::permanent(
            Cause::Error,
            "operations are looked after together, not one by one",
        ))
    }

    fn threads(&self, _concurrency: u32) -> u32 {
        1
    }

    fn crowd(&self) -> Option<&dyn Crowd> {
        Some(self)
    }
}

impl Crowd for Remote {
    fn keep(&self, arrivals: &Arrivals) {
        let providers = self.providers.get().expect("set_up comes before the crowd");
        engine::keep(Arc::clone(providers), arrivals);
    }
}
