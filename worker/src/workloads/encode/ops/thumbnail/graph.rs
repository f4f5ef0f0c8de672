//! The command line of FFmpeg for each kind of picture.

use super::super::super::arguments::{self, INPUT_GUARD};
use super::super::super::film::facts::Facts;
use super::super::filters::{Look, seconds};
use super::payload::Format;
use super::plan::{PosterWork, PreviewWork, SpriteWork, Work};
use ffmpeg_sidecar::command::FfmpegCommand;
use std::ffi::OsString;
use std::path::Path;

/// From so many frames the most typical one becomes the poster: not a black or a blended one.
const CANDIDATES: u32 = 48;
/// From this distance of pictures on only keyframes are decoded, milliseconds.
const KEYFRAMES_FROM_MS: u64 = 4000;
/// Frames per second of a preview.
const PREVIEW_RATE: u32 = 15;
const GIF_RATE: u32 = 10;

pub(super) fn command(
    ffmpeg: &Path,
    input: &Path,
    of: (&Facts, &Look),
    work: &Work,
    output: &Path,
) -> Vec<OsString> {
    let mut command = arguments::command(ffmpeg);
    match work {
        Work::Poster(poster) => self::poster(&mut command, input, of, poster),
        Work::Sprite(sprite) => self::sprite(&mut command, input, of, sprite),
        Work::Preview(preview) => self::preview(&mut command, input, of, preview),
    }
    command.output(output);
    arguments::words(command)
}

fn poster(
    command: &mut FfmpegCommand,
    input: &Path,
    (facts, look): (&Facts, &Look),
    poster: &PosterWork,
) {
    command.args(["-ss", &seconds(poster.at_ms)]).args(INPUT_GUARD).input(input);
    let (before, scale) = (look.neighbours, look.scaled(poster.size));
    picture(command, facts, &format!("{before}thumbnail=n={CANDIDATES},{scale},format=yuvj420p"));
}

/// Where the pictures lie as far apart as keyframes usually do, these are enough: decoding all of
/// a long film would take minutes. Between two keyframes the earlier one is shown again, and after
/// the end the last one.
fn sprite(
    command: &mut FfmpegCommand,
    input: &Path,
    (facts, look): (&Facts, &Look),
    sprite: &SpriteWork,
) {
    if sprite.interval_ms >= KEYFRAMES_FROM_MS {
        command.args(["-skip_frame", "nokey"]);
    }
    command.args(INPUT_GUARD).input(input);
    let (before, scale) = (look.neighbours, look.scaled(sprite.tile));
    let (interval, columns, rows) = (sprite.interval_ms, sprite.columns, sprite.rows());
    picture(
        command,
        facts,
        &format!(
            "{before}fps=1000/{interval}:start_time=0:round=up,tpad=stop=-1:stop_mode=clone,\
             {scale},format=yuvj420p,tile={columns}x{rows}"
        ),
    );
}

fn picture(command: &mut FfmpegCommand, facts: &Facts, filter: &str) {
    command.map(format!("0:{}", facts.video.stream));
    command.args(["-vf", filter, "-frames:v", "1", "-q:v", "3", "-f", "mjpeg"]);
}

fn preview(
    command: &mut FfmpegCommand,
    input: &Path,
    (facts, look): (&Facts, &Look),
    preview: &PreviewWork,
) {
    let (before, scale) = (look.neighbours, look.scaled(preview.size));
    let rate = match preview.format {
        Format::Mp4 => PREVIEW_RATE,
        Format::Gif => GIF_RATE,
    };
    let mut graph = String::new();
    for (at, start) in preview.starts_ms.iter().enumerate() {
        let clip = seconds(preview.clip_ms);
        command.args(["-ss", &seconds(*start), "-t", &clip]).args(INPUT_GUARD).input(input);
        let stream = facts.video.stream;
        graph.push_str(&format!("[{at}:{stream}]{before}fps={rate}:round=up,{scale}[c{at}];"));
    }
    (0..preview.starts_ms.len()).for_each(|at| graph.push_str(&format!("[c{at}]")));
    graph.push_str(&format!("concat=n={}:v=1:a=0", preview.starts_ms.len()));
    match preview.format {
        Format::Mp4 => {
            graph.push_str(",format=yuv420p[v]");
            command.filter_complex(graph).map("[v]");
            command.codec_video("libx264").preset("veryfast").crf(28);
            arguments::no_more_streams(command);
            command.args(["-movflags", "+faststart"]).format("mp4");
        }
        Format::Gif => {
            graph.push_str(",split[a][b];[a]palettegen[p];[b][p]paletteuse[v]");
            command.filter_complex(graph).map("[v]").format("gif");
        }
    }
}
