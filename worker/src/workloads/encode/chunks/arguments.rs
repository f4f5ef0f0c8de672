//! FFmpeg's command lines for a chunk, for the audio of the whole film, and for the joining.
//!
//! All of them keep the film's own times (`-copyts`), less the same origin, and all files have
//! a clock of microseconds in their headers: so every file says exactly where it belongs.

use super::super::arguments::{
    INPUT_GUARD, beside, command, filter_graph, filter_threads, no_more_streams, threads, video,
    words,
};
use super::super::codec::arguments as codec;
use super::super::loudness::Measured;
use super::super::plan::Plan;
use super::cut::{Chunk, Cuts};
use ffmpeg_sidecar::command::FfmpegCommand;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The default of 1/1000 would round where a file begins.
const EXACT_START: [&str; 2] = ["-movie_timescale", "1000000"];

/// One decode of a chunk, one output per rung.
pub(crate) fn chunk(
    ffmpeg: &Path,
    input: &Path,
    (plan, cuts, chunk): (&Plan, &Cuts, &Chunk),
    outputs: &[PathBuf],
) -> Vec<OsString> {
    let mut command = command(ffmpeg);
    codec::device(&mut command, plan.encoder, plan.device.as_deref());
    command.arg("-copyts");
    if let Some(seek_us) = chunk.seek_us {
        // Not accurate: what is decoded before the chunk is dropped below, by time.
        command.args(["-noaccurate_seek", "-seek_timestamp", "1", "-ss", &seconds(seek_us)]);
    }
    filter_threads(&mut command, plan);
    command.args(threads(plan));
    film(&mut command, input, cuts);
    command.filter_complex(filter_graph(plan, &trim(chunk)));
    let keyframes = keyframes(chunk);
    for (at, (rung, path)) in plan.rungs.iter().zip(outputs).enumerate() {
        command.map(format!("[v{at}]"));
        video(&mut command, plan, rung, &keyframes);
        no_more_streams(&mut command);
        command.args(EXACT_START).format("mp4").output(path);
    }
    words(command)
}

/// The audio tracks and subtitles of the whole film, without pictures.
pub(crate) fn sound(
    ffmpeg: &Path,
    input: &Path,
    (plan, measured, cuts): (&Plan, &[Option<Measured>], &Cuts),
    output: &Path,
) -> Vec<OsString> {
    let mut command = command(ffmpeg);
    command.arg("-copyts");
    film(&mut command, input, cuts);
    beside(&mut command, plan, measured);
    no_more_streams(&mut command);
    command.args(EXACT_START).format("mp4").output(output);
    words(command)
}

/// The chunks of a `list` one after another, with the audio, nothing encoded again. The first
/// picture is shown at `start_us`.
pub(crate) fn join(
    ffmpeg: &Path,
    (list, start_us): (&Path, i64),
    sound: Option<&Path>,
    output: &Path,
) -> Vec<OsString> {
    let mut command = command(ffmpeg);
    command.args(["-copyts", "-itsoffset", &seconds(start_us)]);
    // The chunks have one set-up, or the first has that of all: nothing needs to be converted.
    command.args(["-protocol_whitelist", "file", "-format_whitelist", "concat,mov"]);
    command.args(["-auto_convert", "0"]).format("concat").input(list);
    if let Some(sound) = sound {
        command.args(["-protocol_whitelist", "file", "-format_whitelist", "mov"]).input(sound);
    }
    command.map("0:v");
    if sound.is_some() {
        command.map("1");
    }
    command.args(["-c", "copy"]);
    no_more_streams(&mut command);
    command.args(["-movflags", "+faststart"]).format("mp4").output(output);
    words(command)
}

/// The list that `join` reads: the files of chunks, relative to it, each with how long it lasts
/// until the next one begins.
pub(crate) fn list(files: &[String], starts_us: &[i64]) -> String {
    let mut text = "ffconcat version 1.0\n".to_owned();
    for (at, (file, start_us)) in files.iter().zip(starts_us).enumerate() {
        text.push_str(&format!("file {file}\n"));
        if let Some(next_us) = starts_us.get(at + 1) {
            text.push_str(&format!("duration {}\n", seconds(next_us - start_us)));
        }
    }
    text
}

fn film(command: &mut FfmpegCommand, input: &Path, cuts: &Cuts) {
    command.args(INPUT_GUARD).args(["-itsoffset", &seconds(-cuts.origin_us)]).input(input);
}

fn trim(chunk: &Chunk) -> String {
    let from = chunk.from_us.map(|from| format!("start={}", seconds(from)));
    let to = chunk.to_us.map(|to| format!("end={}", seconds(to)));
    let bounds: Vec<String> = from.into_iter().chain(to).collect();
    if bounds.is_empty() { String::new() } else { format!("trim={},", bounds.join(":")) }
}

/// By number instead of by time: numbers are not rounded.
fn keyframes(chunk: &Chunk) -> String {
    let numbers: Vec<String> = chunk.keyframes.iter().map(|at| format!("eq(n,{at})")).collect();
    format!("expr:{}", numbers.join("+"))
}

/// Microseconds as FFmpeg reads them.
fn seconds(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    let us = us.unsigned_abs();
    format!("{sign}{}.{:06}", us / 1_000_000, us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_to_the_microsecond() {
        assert_eq!(seconds(9_983_333), "9.983333");
        assert_eq!(seconds(-1_480_001), "-1.480001");
        assert_eq!(seconds(-7), "-0.000007");
    }

    #[test]
    fn the_list_says_when_each_chunk_ends() {
        let files = ["chunk-00000/720p.mp4", "chunk-00001/720p.mp4"].map(str::to_owned);
        assert_eq!(
            list(&files, &[33_367, 2_035_367]),
            "ffconcat version 1.0\nfile chunk-00000/720p.mp4\nduration 2.002000\n\
             file chunk-00001/720p.mp4\n"
        );
    }

    #[test]
    fn a_chunk_is_selected_by_time_and_its_keyframes_by_number() {
        let chunk = Chunk {
            first: 300,
            frames: 300,
            keyframes: vec![0, 60],
            seek_us: Some(8_500_000),
            from_us: Some(9_983_333),
            to_us: Some(19_983_333),
        };
        assert_eq!(trim(&chunk), "trim=start=9.983333:end=19.983333,");
        assert_eq!(keyframes(&chunk), "expr:eq(n,0)+eq(n,60)");
    }
}
