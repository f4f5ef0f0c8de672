//! A handful of frames of a film, made small, as raw pixels: what decisions about its picture
//! are made of.

use super::super::arguments::{self, INPUT_GUARD};
use super::super::host::Host;
use super::super::output::delivery::Note;
use super::super::output::publish::{Staging, io_failure};
use super::super::run::{self as run_ffmpeg, Files};
use super::super::tools::Tools;
use super::filters::seconds;
use shiftboss_protocol::job::Failure;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Width and height of a sample, pixels.
pub(super) const SIDE: u32 = 160;
/// Where samples are taken, shares of the film in percent.
const MOMENTS: [u64; 5] = [0, 20, 40, 60, 80];
/// The most bytes that samples have: three planes of each moment.
const BYTES_MAX: u64 = SIDE as u64 * SIDE as u64 * 3 * MOMENTS.len() as u64;

/// What is sampled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) input: &'a Path,
    pub(super) stream: u32,
    pub(super) length_ms: u64,
    /// A decoder that must be used instead of FFmpeg's choice.
    pub(super) decoder: Option<&'static str>,
}

/// Makes the samples. `filter` ends with the pixel format; the size is cared for here.
///
/// # Errors
/// The [`Failure`] of FFmpeg's run.
pub(super) fn take(
    host: &dyn Host,
    tools: &Tools,
    (subject, filter): (Subject<'_>, &str),
    staging: &Staging,
) -> Result<Vec<u8>, Failure> {
    let note = Note::new(staging, "samples");
    let argv = command(&tools.ffmpeg, subject, filter, note.path());
    let files = Files::of(subject.input, staging.path());
    run_ffmpeg::ffmpeg(host, files, argv, &mut |_| {})?;
    let failed = |error| io_failure("cannot read", note.path(), &error);
    let mut bytes = Vec::new();
    let file = File::open(note.path()).map_err(failed)?;
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn command(ffmpeg: &Path, subject: Subject<'_>, filter: &str, output: &Path) -> Vec<OsString> {
    let mut command = arguments::command(ffmpeg);
    let mut graph = String::new();
    for (at, share) in MOMENTS.iter().enumerate() {
        command.args(["-ss", &seconds(subject.length_ms.saturating_mul(*share) / 100)]);
        if let Some(decoder) = subject.decoder {
            command.codec_video(decoder);
        }
        command.args(INPUT_GUARD).input(subject.input);
        let stream = subject.stream;
        graph.push_str(&format!(
            "[{at}:{stream}]trim=end_frame=1,{filter},setpts=PTS-STARTPTS[s{at}];"
        ));
    }
    (0..MOMENTS.len()).for_each(|at| graph.push_str(&format!("[s{at}]")));
    graph.push_str(&format!("concat=n={}:v=1:a=0[v]", MOMENTS.len()));
    command.filter_complex(graph).map("[v]");
    command.args(["-fps_mode", "passthrough"]).format("rawvideo").output(output);
    arguments::words(command)
}
