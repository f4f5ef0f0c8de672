//! The `noop` workload: ends at once. For measuring and for trying things out.

use crate::attempt::{AttemptContext, Job};
use crate::workload::Workload;
use serde_json::Value;
use shiftboss_protocol::job::Failure;
use shiftboss_protocol::message::Settings;

/// Does nothing and succeeds with `{}`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noop;

impl Workload for Noop {
    fn name(&self) -> &'static str {
        "noop"
    }

    fn set_up(&self, _settings: &Settings) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    fn run(&self, _job: &Job, _context: &AttemptContext) -> Result<Value, Failure> {
        Ok(Value::Object(serde_json::Map::new()))
    }

    fn threads(&self, _concurrency: u32) -> u32 {
        1
    }
}
