//! FFmpeg's command line for one rendition of HLS.

use super::super::arguments::{command, words};
use std::ffi::OsString;
use std::path::Path;

/// The muxer cuts at the first keyframe from a multiple of the length on: a keyframe whose time
/// was rounded down must not be missed. Adds up to less than a keyframe's distance in 10,000
/// segments.
const EARLY_SECONDS: f64 = 0.000_1;

/// Where a segment begins, when its first picture is not decoded where its predecessor ended.
/// Neither is right for every film in every version of FFmpeg; no source says so: seen in the
/// segments of 5.1.9 and 9.0.2.
#[derive(Clone, Copy, Debug)]
pub(super) enum Begins {
    /// At the picture's own time. Wrong in 5.1 where the pictures' order becomes simpler at the
    /// seam of two encoders.
    Told,
    /// Where the last picture of the segment before ends. Wrong where pictures come irregularly.
    Joined,
}

/// What is asked of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packing<'a> {
    /// An MP4 file of ours.
    pub(super) source: &'a Path,
    /// The stream that is taken, such as `a:0`.
    pub(super) stream: &'a str,
    /// The first packet's time is above 0.
    pub(super) is_late: bool,
    /// How the muxer finds the time of a segment's first picture.
    pub(super) begins: Begins,
    /// What playlist and segments are called.
    pub(super) name: &'a str,
    /// Least length of a segment; a multiple of the distance of keyframes.
    pub(super) seconds: u32,
}

/// Copies one stream into segments, in the folder that FFmpeg runs in: a folder's own name could
/// hold the `%d` that stands for a number.
///
/// All times stay what they are, so that renditions fit each other. What is decoded before time
/// 0 (sound, and pictures that others are made of) is hidden by an edit list, as CMAF has it; a
/// begin after 0 is in the times themselves, as an edit list cannot say it to browsers.
pub(super) fn pack(ffmpeg: &Path, packing: Packing<'_>) -> Vec<OsString> {
    let Packing { source, stream, is_late, begins, name, seconds } = packing;
    let mut command = command(ffmpeg);
    command.arg("-copyts").args(["-protocol_whitelist", "file", "-format_whitelist", "mov"]);
    command.input(source.as_os_str());
    command.map(format!("0:{stream}")).args(["-c", "copy"]);
    command.args(["-map_metadata", "-1", "-map_chapters", "-1"]);
    command.args(["-avoid_negative_ts", "disabled"]).format("hls");
    command.args(["-hls_time", &format!("{}", f64::from(seconds) - EARLY_SECONDS)]);
    command.args(["-hls_playlist_type", "vod"]);
    command.args(["-hls_segment_type", "fmp4", "-hls_flags", "independent_segments"]);
    // The muxer moves the first picture to make an index true that HLS has no need of (`sidx`).
    let flags = match (is_late, begins) {
        (true, Begins::Told) => Some("+frag_discont+skip_sidx"),
        (true, Begins::Joined) => Some("+frag_discont"),
        (false, Begins::Told) => Some("+skip_sidx"),
        (false, Begins::Joined) => None,
    };
    if let Some(flags) = flags {
        command.args(["-hls_segment_options", &format!("movflags={flags}")]);
    }
    command.args(["-hls_fmp4_init_filename", &format!("{name}-init.mp4")]);
    command.args(["-hls_segment_filename", &format!("{name}-%05d.m4s")]);
    command.output(format!("{name}.m3u8"));
    words(command)
}
