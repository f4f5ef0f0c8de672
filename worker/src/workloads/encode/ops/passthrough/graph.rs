//! The command line of FFmpeg for a plan. Pure.

use super::super::super::arguments::{self, INPUT_GUARD};
use super::super::super::film::facts::Facts;
use super::super::filters::Look;
use super::payload::{Format, Payload};
use super::plan::Plan;
use std::ffi::OsString;
use std::path::Path;

/// A clock fine enough for every timing that films have.
const FINE_CLOCK: &str = "1/90000";

pub(super) fn command(
    ffmpeg: &Path,
    (input, facts, look): (&Path, &Facts, &Look),
    (plan, payload): (&Plan, &Payload),
    output: &Path,
) -> Vec<OsString> {
    let mut command = arguments::command(ffmpeg);
    command.args(INPUT_GUARD).input(input);
    let (sounds, texts) = (plan.tracks.iter(), plan.subtitles.iter());
    let streams = [plan.video].into_iter().chain(sounds.map(|track| track.stream));
    let streams = streams.chain(texts.map(|text| text.0)).chain(plan.covers.iter().map(|it| it.0));
    for stream in streams {
        command.map(format!("0:{stream}"));
    }
    match plan.encode {
        None => {
            command.args(["-c:v:0", "copy"]);
            if plan.video_codec == "hevc" && payload.format == Format::Mp4 {
                // Players of Apple know no other name for it.
                command.args(["-tag:v:0", "hvc1"]);
            }
        }
        Some(size) => {
            let plain = look.plain(size, "bicubic", look.matrix);
            command.args(["-filter:v:0", &format!("{plain},format=yuv420p")]);
            command.args(["-c:v:0", "libx264", "-preset", payload.preset.as_str()]);
            command.crf(payload.crf.0).fps_mode("vfr");
            command.args([
                "-pix_fmt:v:0",
                "yuv420p",
                "-force_key_frames:v:0",
                "expr:gte(t,n_forced*2)",
            ]);
            if facts.video.irregular {
                command.args(["-enc_time_base:v:0", FINE_CLOCK]);
            }
        }
    }
    for (at, track) in plan.tracks.iter().enumerate() {
        track.arguments(&mut command, at, payload.audio_bitrate.0);
    }
    for (at, (_, _, codec)) in plan.subtitles.iter().enumerate() {
        command.args([format!("-c:s:{at}").as_str(), *codec]);
    }
    for at in 1..=plan.covers.len() {
        command.args([format!("-c:v:{at}").as_str(), "copy"]);
        command.args([format!("-disposition:v:{at}").as_str(), "attached_pic"]);
    }
    command.args(["-map_metadata", "0", "-write_tmcd", "0", "-max_muxing_queue_size", "4096"]);
    if payload.format == Format::Mp4 {
        command.args(["-movflags", "+faststart"]);
    }
    command.format(payload.format.muxer()).output(output);
    arguments::words(command)
}
