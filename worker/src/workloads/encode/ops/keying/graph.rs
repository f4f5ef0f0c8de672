//! The command lines of FFmpeg for keying. Pure.

use super::super::super::arguments::{self, INPUT_GUARD};
use super::super::super::film::facts::Facts;
use super::super::super::payload::{AudioBitrate, Crf, Preset};
use super::super::details::Matrix;
use super::super::filters::Look;
use super::super::sound::Track;
use super::key::Key;
use super::payload::Format;
use ffmpeg_sidecar::command::FfmpegCommand;
use std::ffi::OsString;
use std::path::Path;

/// A clock fine enough for every timing that films have.
const FINE_CLOCK: &str = "1/90000";
/// Constant rate factor of VP9 without a word from the payload: hardly to be told from the film.
const VP9_CRF: u32 = 24;
/// Longest distance of keyframes, frames: players seek to them.
const KEYFRAMES: &str = "120";

/// A film and how it is keyed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keying<'a> {
    pub(super) input: &'a Path,
    pub(super) facts: &'a Facts,
    pub(super) look: &'a Look,
    pub(super) key: &'a Key,
    /// Of the output, even.
    pub(super) size: (u32, u32),
    pub(super) format: Format,
    pub(super) crf: Option<Crf>,
    pub(super) preset: Preset,
    /// The tracks of sound that are kept.
    pub(super) tracks: &'a [Track],
}

/// What is shown where the colour was.
#[derive(Clone, Copy, Debug)]
pub(super) enum Background<'a> {
    /// One picture; FFmpeg's reader of its kind.
    Still(&'a Path, &'static str),
    /// Shown again and again until the film ends.
    Film(&'a Path, &'a Facts, &'a Look),
}

impl<'a> Background<'a> {
    pub(super) fn path(self) -> &'a Path {
        match self {
            Self::Still(path, _) | Self::Film(path, _, _) => path,
        }
    }
}

/// The film with its colour made transparent, without taking light off. Begins with luma of 16 to
/// 235, so that the key's numbers mean the same for every film.
pub(super) fn keyed(keying: &Keying<'_>) -> String {
    let plain = keying.look.plain(keying.size, "bicubic", keying.look.matrix);
    format!("{plain},format={},{}", deep(keying), chroma_key(keying.key))
}

/// Small pictures of the film, for finding the colour of its border: pixels are taken as they are.
pub(super) fn bordered(look: &Look, side: u32) -> String {
    format!("{},format=yuv444p", look.plain((side, side), "neighbor", look.matrix))
}

/// Small pictures of nothing but the transparency.
pub(super) fn alpha(before: &str, side: u32) -> String {
    format!("{before}format=yuva444p,alphaextract,scale={side}:{side}:flags=neighbor,format=gray")
}

fn deep(keying: &Keying<'_>) -> &'static str {
    if keying.look.is_deep && keying.format == Format::Mov { "yuva444p10le" } else { "yuva444p" }
}

/// The colour goes in as the film stores it: as RGB the filter would turn it into another matrix.
fn chroma_key(key: &Key) -> String {
    let [luma, blue, red] = key.color.0;
    let (tolerance, softness) = (key.tolerance, key.softness);
    format!("chromakey=0x{luma:02X}{blue:02X}{red:02X}:{tolerance:.4}:{softness:.4}:yuv=1")
}

/// With a comma before it. The filter knows RGB only, so both ways are told their matrix.
fn despill(key: &Key, matrix: Matrix) -> String {
    let (word, Some(spill)) = (matrix.word(), key.despill) else { return String::new() };
    format!(
        ",scale=in_color_matrix={word}:in_range=tv:out_range=pc,format=rgba,despill=type={},\
         scale=in_range=pc:out_color_matrix={word}:out_range=tv",
        spill.word()
    )
}

/// The whole command.
pub(super) fn command(
    ffmpeg: &Path,
    keying: &Keying<'_>,
    background: Option<Background<'_>>,
    output: &Path,
) -> Vec<OsString> {
    let mut command = arguments::command(ffmpeg);
    command.args(INPUT_GUARD).input(keying.input);
    let graph = match background {
        None => transparent(keying),
        Some(background) => {
            shown(&mut command, background);
            composed(keying, background)
        }
    };
    command.filter_complex(graph).map("[v]");
    for track in keying.tracks {
        command.map(format!("0:{}", track.stream));
    }
    video(&mut command, keying);
    for (at, track) in keying.tracks.iter().enumerate() {
        track.arguments(&mut command, at, AudioBitrate::default().0);
    }
    arguments::no_more_streams(&mut command);
    match keying.format {
        Format::Webm => command.format("webm"),
        Format::Mov => command.format("mov"),
        Format::Mp4 => command.args(["-movflags", "+faststart"]).format("mp4"),
    };
    command.output(output);
    arguments::words(command)
}

/// What is never seen costs as much as the rest: the grain of a screen was 96 % of a film, and half
/// of its time. It becomes a blur of itself, a little away from all that is seen, whose edges stay
/// what they are. Pixels are `yuva444p`.
const CALM: &str = "format=yuva444p,split=3[o][b][a];[b]avgblur=16:planes=7[calm];\
    [a]lut=c3='if(gt(val,0),255,0)',dilation,dilation,shuffleplanes=3:3:3:3[seen];\
    [calm][o][seen]maskedmerge=planes=7";

fn transparent(keying: &Keying<'_>) -> String {
    let matrix = keying.look.matrix;
    let pixels = match keying.format {
        Format::Webm => format!("{CALM},format=yuva420p"),
        // Whoever works on with this may want all of it.
        Format::Mov | Format::Mp4 => "format=yuva444p10le".to_owned(),
    };
    format!(
        "[0:{}]{}{},{pixels},{}[v]",
        keying.facts.video.stream,
        keyed(keying),
        despill(keying.key, matrix),
        tags(matrix)
    )
}

fn shown(command: &mut FfmpegCommand, background: Background<'_>) {
    match background {
        Background::Still(path, reader) => {
            command.args(["-protocol_whitelist", "file"]).format(reader).input(path);
        }
        Background::Film(path, _, _) => {
            command.args(["-stream_loop", "-1"]).args(INPUT_GUARD).input(path);
        }
    }
}

/// The background is laid over the film and the keyed film over that: so every frame is the
/// film's, at its time, and the output ends with the film.
fn composed(keying: &Keying<'_>, background: Background<'_>) -> String {
    let (matrix, (width, height)) = (keying.look.matrix, keying.size);
    let cover = format!(
        "scale={width}:{height}:force_original_aspect_ratio=increase:flags=bicubic\
         :out_color_matrix={}:out_range=tv",
        matrix.word()
    );
    let crop = format!("crop={width}:{height},setsar=1,setpts=PTS-STARTPTS,format=yuv444p[b]");
    let (below, ends) = match background {
        Background::Still(_, _) => (format!("[1:v:0]{cover},{crop}"), "eof_action=repeat"),
        Background::Film(_, facts, look) => {
            let plain = look.plain((facts.video.width, facts.video.height), "bicubic", matrix);
            let below = format!("{plain},{cover}:in_color_matrix={}:in_range=tv", matrix.word());
            (format!("[1:{}]{below},{crop}", facts.video.stream), "shortest=1")
        }
    };
    format!(
        "[0:{}]split[f][k];[k]{}{},format=yuva444p[above];{below};\
         [f]{},format=yuv444p[film];[film][b]overlay={ends}:format=yuv444[under];\
         [under][above]overlay=format=yuv444,format=yuv420p,{}[v]",
        keying.facts.video.stream,
        keyed(keying),
        despill(keying.key, matrix),
        keying.look.plain(keying.size, "bicubic", matrix),
        tags(matrix)
    )
}

fn tags(matrix: Matrix) -> String {
    format!("setparams=range=tv:colorspace={}", matrix.tag())
}

fn video(command: &mut FfmpegCommand, keying: &Keying<'_>) {
    match keying.format {
        Format::Webm => {
            let crf = keying.crf.map_or(VP9_CRF, |crf| crf.0);
            command.codec_video("libvpx-vp9").pix_fmt("yuva420p");
            command.args(["-b:v", "0"]).crf(crf);
            // Frames that are never shown cannot have transparency beside them.
            command.args(["-auto-alt-ref", "0", "-row-mt", "1", "-g", KEYFRAMES]);
            command.args(["-deadline", "good", "-cpu-used", "4"]);
        }
        Format::Mov => {
            command.codec_video("prores_ks").pix_fmt("yuva444p10le");
            command.args(["-profile:v", "4444", "-alpha_bits", "16", "-vendor", "apl0"]);
        }
        Format::Mp4 => {
            let crf = keying.crf.unwrap_or_default().0;
            command.codec_video("libx264").preset(keying.preset.as_str()).crf(crf);
            command.pix_fmt("yuv420p").args(["-g", KEYFRAMES]);
        }
    }
    command.fps_mode("vfr");
    if keying.facts.video.irregular && keying.format != Format::Webm {
        command.args(["-enc_time_base:v", FINE_CLOCK]);
    }
}
