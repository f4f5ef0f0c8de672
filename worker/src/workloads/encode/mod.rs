//! The `encode` workload: films into renditions with FFmpeg.
//!
//! `ops/` has what a payload may ask for. The largest, `ladder` to MP4, is `ladder.rs` with its
//! steps in order, and `chunks/` for long films. What decides is pure (`film/facts`, `film/scan`,
//! `plan`, `arguments`, `progress`, `classify`); FFmpeg and ffprobe run only through
//! [`crate::program::run_program`].

mod arguments;
mod chunks;
mod classify;
mod film;
mod hls;
mod host;
mod ladder;
mod ops;
mod output;
mod payload;
mod plan;
mod progress;
mod run;
#[cfg(test)]
mod tests;
mod tools;

use crate::attempt::{AttemptContext, Job};
use crate::workload::Workload;
use shiftboss_protocol::job::Failure;
use shiftboss_protocol::message::Settings;

/// Makes renditions and pictures of films, and says what a file is and whether it is whole.
#[derive(Debug, Default)]
pub struct Encode;

impl Workload for Encode {
    fn name(&self) -> &'static str {
        "encode"
    }

    fn starts_programs(&self) -> bool {
        true
    }

    fn set_up(&self, settings: &Settings) -> Result<Vec<String>, String> {
        tools::Tools::find(settings)?.try_out()
    }

    fn run(&self, job: &Job, context: &AttemptContext) -> Result<serde_json::Value, Failure> {
        ops::run(job, context)
    }
}
