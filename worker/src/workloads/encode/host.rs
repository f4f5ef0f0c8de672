//! What an encode needs of its surroundings, so that its tests can run FFmpeg without a
//! supervisor.

use crate::program::{Ended, Lines, Program, run_program};
use crate::{AttemptContext, Failure, Settings, StopReason};
use shiftboss_protocol::job::Cause;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// The work begins anew, so what comes now fills what is left of the progress.
    fn begin_anew(&self) {}
}

/// A host whose progress never goes back, and is never unknown once it was known.
pub(super) struct Steady<'a> {
    host: &'a dyn Host,
    shown: Mutex<Shown>,
}

/// The share that was shown last, and the one at which the work began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Shown {
    begin: f64,
    last: Option<f64>,
}

impl Shown {
    fn next(&mut self, share: Option<f64>) -> Option<f64> {
        let share = share.map(|share| self.begin + (1.0 - self.begin) * share.clamp(0.0, 1.0));
        self.last = match (self.last, share) {
            (Some(last), Some(share)) => Some(last.max(share)),
            (last, share) => share.or(last),
        };
        self.last
    }

    fn begin_anew(&mut self) {
        self.begin = self.last.unwrap_or(0.0);
    }
}

impl<'a> Steady<'a> {
    pub(super) fn new(host: &'a dyn Host) -> Self {
        Self { host, shown: Mutex::default() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Shown) -> T) -> T {
        // Plain numbers: a thread that panicked with them left nothing half done.
        change(&mut self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Host for Steady<'_> {
    fn settings(&self) -> &Settings {
        self.host.settings()
    }

    fn run(&self, program: &Program, lines: &mut dyn Lines) -> Result<Ended, Failure> {
        self.host.run(program, lines)
    }

    fn progress(&self, fraction: Option<f64>, note: &str) {
        let fraction = self.with(|shown| shown.next(fraction));
        self.host.progress(fraction, note);
    }

    fn checkpoint(&self, data: &[u8]) -> Result<(), Failure> {
        self.host.checkpoint(data)
    }

    fn stop_reason(&self) -> Option<StopReason> {
        self.host.stop_reason()
    }

    fn log(&self, text: &str) {
        self.host.log(text);
    }

    fn kept(&self) -> Result<PathBuf, Failure> {
        self.host.kept()
    }

    fn remove_kept(&self) {
        self.host.remove_kept();
    }

    fn begin_anew(&self) {
        self.with(Shown::begin_anew);
    }
}

/// A host that is shown nothing while something else has the word.
pub(super) struct Beside<'a> {
    pub(super) host: &'a dyn Host,
    pub(super) is_silent: &'a AtomicBool,
}

impl Host for Beside<'_> {
    fn settings(&self) -> &Settings {
        self.host.settings()
    }

    fn run(&self, program: &Program, lines: &mut dyn Lines) -> Result<Ended, Failure> {
        self.host.run(program, lines)
    }

    fn progress(&self, fraction: Option<f64>, note: &str) {
        if !self.is_silent.load(Ordering::Relaxed) {
            self.host.progress(fraction, note);
        }
    }

    fn checkpoint(&self, data: &[u8]) -> Result<(), Failure> {
        self.host.checkpoint(data)
    }

    fn stop_reason(&self) -> Option<StopReason> {
        self.host.stop_reason()
    }

    fn log(&self, text: &str) {
        self.host.log(text);
    }

    fn kept(&self) -> Result<PathBuf, Failure> {
        self.host.kept()
    }

    fn remove_kept(&self) {
        self.host.remove_kept();
    }
}

/// How many threads FFmpeg is told to use for each thing that it does: the CPUs that its type may
/// use. `None` without a limit, or with one that is no limit on this host: FFmpeg knows best then.
pub(super) fn threads(settings: &Settings) -> Option<u32> {
    let host = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    threads_of(settings.program_cpus_max, u32::try_from(host).unwrap_or(u32::MAX))
}

fn threads_of(cpus_max: f64, host: u32) -> Option<u32> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let cpus = cpus_max.ceil() as u32;
    (cpus > 0 && cpus < host).then_some(cpus)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_goes_forward_or_stays() {
        let mut shown = Shown::default();
        let shares = [None, Some(0.2), Some(0.1), None, Some(0.5), Some(7.0)];
        let seen = shares.map(|share| shown.next(share));
        assert_eq!(seen, [None, Some(0.2), Some(0.2), Some(0.2), Some(0.5), Some(1.0)]);
    }

    #[test]
    fn work_that_begins_anew_fills_what_is_left() {
        let mut shown = Shown::default();
        shown.next(Some(0.6));
        shown.begin_anew();
        let seen = [Some(0.0), None, Some(0.5), Some(1.0)].map(|share| shown.next(share));
        assert_eq!(seen, [Some(0.6), Some(0.6), Some(0.8), Some(1.0)]);
    }

    #[test]
    fn a_limit_of_cpus_is_rounded_up_to_threads() {
        assert_eq!(threads_of(0.0, 8), None);
        assert_eq!(threads_of(0.3, 8), Some(1));
        assert_eq!(threads_of(2.0, 8), Some(2));
        assert_eq!(threads_of(2.5, 8), Some(3));
        assert_eq!((threads_of(8.0, 8), threads_of(1.0, 1)), (None, None));
    }
}
