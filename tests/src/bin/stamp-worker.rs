//! For measuring: writes the moment at which each attempt starts into `stamps`, among the logs.

use shiftboss_worker::{AttemptContext, Failure, Job, Settings, Workload, run};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

struct Stamp;

impl Workload for Stamp {
    fn name(&self) -> &'static str {
        "stamp"
    }

    fn set_up(&self, _: &Settings) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    fn run(&self, job: &Job, context: &AttemptContext) -> Result<serde_json::Value, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let path = Path::new(&context.settings().logs_dir).join("stamps");
        if let Ok(mut file) = std::fs::File::options().append(true).create(true).open(path) {
            let _ = file.write_all(format!("{} {now}\n", job.id).as_bytes());
        }
        Ok(serde_json::json!({}))
    }
}

fn main() -> std::process::ExitCode {
    run(&[&Stamp])
}
