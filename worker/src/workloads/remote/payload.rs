//! The payload of an operation: `{"provider": "...", "input": {...}, "output_dir": "..."}`.

use crate::attempt::Job;
use crate::path::{check_write, parse_path};
use crate::workload::parse_payload;
use serde::Deserialize;
use serde_json::Value;
use shiftboss_protocol::job::{Cause, Failure};
use shiftboss_protocol::message::Settings;
use std::path::PathBuf;

/// What a job says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    /// Name of the provider.
    pub(super) provider: String,
    /// What the description's `{input...}` stands for.
    #[serde(default)]
    pub(super) input: Value,
    /// Where files go, absolute; made when its parent exists. Absent: links stay links.
    #[serde(default)]
    pub(super) output_dir: Option<String>,
    /// How their names begin; else with the job's number.
    #[serde(default)]
    pub(super) name: Option<String>,
    /// The id of an operation that was submitted elsewhere: it is polled.
    #[serde(default)]
    pub(super) adopt: Option<String>,
}

/// A folder that may be written, and how names in it begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) dir: PathBuf,
    pub(super) name: String,
}

impl Payload {
    /// Reads it.
    pub(super) fn read(job: &Job) -> Result<Self, Failure> {
        let payload: Self = parse_payload(job)?;
        if payload.adopt.as_ref().is_some_and(|id| id.is_empty() || id.len() > 1_000) {
            let text = "payload field adopt: an operation's id has 1 to 1000 bytes";
            return Err(Failure::permanent(Cause::Payload, text));
        }
        Ok(payload)
    }

    /// Where files go, checked against the type's roots.
    pub(super) fn target(&self, job: &Job, settings: &Settings) -> Result<Option<Target>, Failure> {
        let Some(output_dir) = &self.output_dir else { return Ok(None) };
        let refuse = |text: &str| Err(Failure::permanent(Cause::Payload, text.to_owned()));
        let name = self.name.clone().unwrap_or_else(|| job.id.to_string());
        let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
        if name.is_empty()
            || name.len() > 100
            || name.starts_with('.')
            || !name.chars().all(is_plain)
        {
            return refuse(
                "payload field name: 1 to 100 bytes of letters, digits, \"-\", \"_\", \".\" \
                 and spaces, no dot first",
            );
        }
        let dir = parse_path("output_dir", output_dir)?;
        let dir = check_write(settings, "output_dir", &dir)?;
        match std::fs::create_dir(&dir) {
            Err(error) if !dir.is_dir() => {
                let (dir, parent) = (dir.display(), "it is made when its parent exists");
                return refuse(&format!("payload field output_dir: {dir}: {error}; {parent}"));
            }
            Ok(()) | Err(_) => {}
        }
        Ok(Some(Target { dir, name }))
    }
}
