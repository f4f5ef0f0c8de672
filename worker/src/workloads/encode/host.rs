//! What an encode needs of its surroundings, so that its tests can run FFmpeg without a
//! supervisor.

use crate::program::{Ended, Lines, Program, run_program};
use crate::{AttemptContext, Failure, Settings, StopReason};
use shiftboss_protocol::job::Cause;
use std::path::PathBuf;

/// An attempt's way to programs and to its supervisor.
pub(super) trait Host: Sync {
    fn settings(&self) -> &Settings;
    fn run(&self, program: &Program, lines: &mut dyn Lines) -> Result<Ended, Failure>;
    fn progress(&self, fraction: Option<f64>, note: &str);
    fn checkpoint(&self, data: &[u8]) -> Result<(), Failure>;
    fn stop_reason(&self) -> Option<StopReason>;
    fn log(&self, text: &str);
    /// The folder that outlives the attempt.
    fn kept(&self) -> Result<PathBuf, Failure>;
    fn remove_kept(&self);
}

impl Host for AttemptContext {
    fn settings(&self) -> &Settings {
        AttemptContext::settings(self)
    }

    fn run(&self, program: &Program, lines: &mut dyn Lines) -> Result<Ended, Failure> {
        run_program(self, program, lines)
    }

    fn progress(&self, fraction: Option<f64>, note: &str) {
        AttemptContext::progress(self, fraction, note);
    }

    fn checkpoint(&self, data: &[u8]) -> Result<(), Failure> {
        AttemptContext::checkpoint(self, data)
    }

    fn stop_reason(&self) -> Option<StopReason> {
        AttemptContext::stop_reason(self)
    }

    fn log(&self, text: &str) {
        AttemptContext::log(self, text);
    }

    fn kept(&self) -> Result<PathBuf, Failure> {
        AttemptContext::kept(self)
    }

    fn remove_kept(&self) {
        AttemptContext::remove_kept(self);
    }
}

/// The failure of an attempt that was told to stop. The reason decides the outcome; FFmpeg's
/// exit code does not: after `q` it is 0, with a short file.
pub(super) fn stopped(reason: StopReason) -> Failure {
    let (cause, why) = match reason {
        StopReason::Cancelled => (Cause::Cancelled, "the job was cancelled"),
        StopReason::Timeout => (Cause::Timeout, "it ran too long"),
        StopReason::Stalled => (Cause::Stalled, "it made no progress"),
        StopReason::Released => (Cause::Released, "the supervisor took the job back"),
    };
    Failure::retryable(cause, format!("the encode was stopped: {why}"))
}

/// Between two steps: goes on only when nobody said stop.
pub(super) fn go_on(host: &dyn Host) -> Result<(), Failure> {
    host.stop_reason().map_or(Ok(()), |reason| Err(stopped(reason)))
}
