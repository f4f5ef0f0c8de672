//! One run of FFmpeg for an op, with its progress as a share of the job that never goes back.

use super::super::host::Host;
use super::super::progress::Meter;
use super::super::run::{self, Files, Ran};
use shiftboss_protocol::job::Failure;
use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

/// What is shown of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a> {
    /// Such as `keying`: the note begins with it.
    pub(super) word: &'a str,
    /// The file that is made.
    pub(super) output: &'a Path,
    pub(super) expected_us: Option<u64>,
    /// Where the share begins: what was shown before.
    pub(super) from: f64,
}

/// Runs `argv` on its first input in `files` and on `more`. Returns also the share that was shown
/// last.
///
/// # Errors
/// As [`run::ffmpeg`].
pub(super) fn ffmpeg(
    host: &dyn Host,
    files: (Files<'_>, &[&Path]),
    argv: Vec<OsString>,
    shown: Shown<'_>,
) -> (Result<Ran, Failure>, f64) {
    let (began, mut meter) = (Instant::now(), Meter::new(shown.expected_us));
    let mut furthest = shown.from;
    let ran = run::ffmpeg_on(host, files, argv, &mut |block| {
        let bytes = run::bytes_of([shown.output]);
        let (fraction, note) = meter.report(began.elapsed(), block, bytes);
        furthest = furthest.max(fraction.unwrap_or(0.0));
        host.progress(Some(furthest), &format!("{}, {note}", shown.word));
    });
    (ran, furthest)
}
