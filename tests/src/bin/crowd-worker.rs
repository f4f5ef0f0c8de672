//! A worker for many attempts at once: `"wait"` takes a moment, `"die"` ends the whole process.

use shiftboss_worker::{AttemptContext, Failure, Job, Settings, Workload, parse_payload, run};
use std::time::Duration;

struct Crowd;

impl Workload for Crowd {
    fn name(&self) -> &'static str {
        "crowd"
    }

    fn set_up(&self, _: &Settings) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    /// Of ten thousand that are held most wait for a thread.
    fn threads(&self, concurrency: u32) -> u32 {
        concurrency.min(256)
    }

    fn run(&self, job: &Job, context: &AttemptContext) -> Result<serde_json::Value, Failure> {
        let what: String = parse_payload(job)?;
        if what == "die" {
            // Long enough for the others to be here too.
            let _ = context.wait_for_stop(Duration::from_millis(300));
            std::process::abort();
        }
        let _ = context.wait_for_stop(Duration::from_millis(600));
        Ok(serde_json::json!({}))
    }
}

fn main() -> std::process::ExitCode {
    run(&[&Crowd])
}
