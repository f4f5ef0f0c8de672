//! The command lines of FFmpeg for joining clips. Pure.

use super::super::super::arguments::{self, INPUT_GUARD};
use super::super::super::film::facts::Facts;
use super::super::super::payload::{AudioBitrate, Crf, Preset};
use super::super::details::Matrix;
use super::super::filters::{Look, seconds};
use super::plan::{Part, Plan, Rate, SAMPLES, within};
use std::ffi::OsString;
use std::path::Path;

/// A clip's last picture is shown again for at most this long: its sound and its rounding may
/// need a little, and a clip that lost more of its pictures must be found.
const FILL_MS: u64 = 300;
/// Distance of keyframes, seconds.
const KEYFRAMES: &str = "expr:gte(t,n_forced*2)";

/// A clip as it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) facts: &'a Facts,
    pub(super) look: &'a Look,
    pub(super) part: Part,
}

/// How what is encoded is encoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quality {
    pub(super) crf: Crf,
    pub(super) preset: Preset,
    pub(super) audio_bitrate: AudioBitrate,
}

/// The clips one after another as they are: `list` names them, `streams` are those that are kept.
pub(super) fn copy(ffmpeg: &Path, list: &Path, streams: &[u32], output: &Path) -> Vec<OsString> {
    let mut command = arguments::command(ffmpeg);
    // The list and what films may be; a clip that is itself a list was refused before.
    for pair in INPUT_GUARD.chunks(2) {
        match pair {
            ["-format_whitelist", films] => {
                command.args(["-format_whitelist", &format!("concat,{films}")]);
            }
            pair => {
                command.args(pair);
            }
        }
    }
    command.args(["-safe", "1"]).format("concat").input(list);
    for stream in streams {
        command.map(format!("0:{stream}"));
    }
    command.args(["-c", "copy"]);
    arguments::no_more_streams(&mut command);
    command.args(["-movflags", "+faststart"]).format("mp4").output(output);
    arguments::words(command)
}

/// The list for [`copy`]: names of our own, which hold nothing that a payload chose, and how long
/// each clip is until the next one begins, microseconds.
pub(super) fn list(clips: &[(String, i64)]) -> String {
    let mut text = "ffconcat version 1.0\n".to_owned();
    for (name, length_us) in clips {
        let (whole, rest) = (length_us / 1_000_000, length_us % 1_000_000);
        text.push_str(&format!("file {name}\nduration {whole}.{rest:06}\n"));
    }
    text
}

/// All clips in one size, rate, matrix and kind of sound.
pub(super) fn encode(
    ffmpeg: &Path,
    sources: &[Source<'_>],
    (plan, quality): (&Plan, Quality),
    output: &Path,
) -> Vec<OsString> {
    let mut command = arguments::command(ffmpeg);
    for source in sources {
        let Part { from_us, length_us } = source.part;
        if from_us > 0 {
            command.args(["-ss", &exact(from_us)]);
        }
        // A little more than is needed: what is too much is cut by frames and samples.
        command.args(["-t", &exact(length_us + 500_000)]);
        if sources.len() > 8 {
            // Each keeps pictures for every thread, and all are open at once.
            command.args(["-threads", "1"]);
        }
        command.args(INPUT_GUARD).input(source.path);
    }
    command.filter_complex(graph(sources, plan)).map("[v]");
    if plan.sound {
        command.map("[a]");
    }
    let Quality { crf, preset, audio_bitrate } = quality;
    command.codec_video("libx264").preset(preset.as_str()).crf(crf.0).pix_fmt("yuv420p");
    command.args(["-force_key_frames", KEYFRAMES, "-x264-params", "open-gop=0"]);
    command.fps_mode("cfr").args(["-r", &plan.rate.text()]);
    if plan.sound {
        command.codec_audio("aac").args(["-b:a", &audio_bitrate.0.to_string()]);
    }
    arguments::no_more_streams(&mut command);
    command.args(["-movflags", "+faststart"]).format("mp4").output(output);
    arguments::words(command)
}

fn graph(sources: &[Source<'_>], plan: &Plan) -> String {
    let matrix = if plan.size.1 >= 720 { Matrix::Bt709 } else { Matrix::Bt601 };
    let mut graph = String::new();
    for (at, source) in sources.iter().enumerate() {
        graph.push_str(&pictures(at, source, plan, matrix));
        if plan.sound {
            graph.push_str(&sound(at, source, plan));
        }
    }
    let count = sources.len();
    match (count, plan.fade) {
        (1, _) => {
            graph.push_str("[v0]null[v]");
            graph.push_str(if plan.sound { ";[a0]anull[a]" } else { "" });
        }
        (_, 0) => {
            for at in 0..count {
                graph.push_str(&format!("[v{at}]"));
                graph.push_str(&if plan.sound { format!("[a{at}]") } else { String::new() });
            }
            let (has, out) = if plan.sound { (1, "[v][a]") } else { (0, "[v]") };
            graph.push_str(&format!("concat=n={count}:v=1:a={has}{out}"));
        }
        (_, fade) => {
            faded(&mut graph, ("v", "x"), count, &|at| {
                let begin = exact_us(plan.rate, plan.begin(at));
                let length = exact_us(plan.rate, fade);
                format!("xfade=transition=fade:duration={length}:offset={begin}")
            });
            if plan.sound {
                graph.push(';');
                let samples = plan.rate.length(fade, SAMPLES);
                faded(&mut graph, ("a", "y"), count, &|_| format!("acrossfade=ns={samples}"));
            }
        }
    }
    graph
}

/// A chain: the first two, that and the third, and so on.
fn faded(
    graph: &mut String,
    (from, between): (&str, &str),
    count: usize,
    filter: &dyn Fn(usize) -> String,
) {
    let mut before = format!("{from}0");
    for at in 1..count {
        let (end, after) =
            if at + 1 == count { ("", from.to_owned()) } else { (";", format!("{between}{at}")) };
        graph.push_str(&format!("[{before}][{from}{at}]{}[{after}]{end}", filter(at)));
        before = after;
    }
}

/// The pictures of a clip: at the output's times from its very begin, exactly as many as planned.
fn pictures(at: usize, source: &Source<'_>, plan: &Plan, matrix: Matrix) -> String {
    let (rate, (width, height)) = (plan.rate.text(), plan.size);
    let size = within((source.facts.video.width, source.facts.video.height), plan.size);
    let plain = source.look.plain(size, "bicubic", matrix);
    let (frames, stream) = (plan.frames[at], source.facts.video.stream);
    format!(
        "[{at}:{stream}]{plain},pad={width}:{height}:(ow-iw)/2:(oh-ih)/2,\
         fps={rate}:start_time=0,tpad=stop_mode=clone:stop_duration={},trim=end_frame={frames},\
         setpts=PTS-STARTPTS,format=yuv420p,setparams=range=tv:colorspace={}[v{at}];",
        seconds(FILL_MS),
        matrix.tag()
    )
}

/// The sound of a clip beside its pictures, or silence: exactly as long as they are.
fn sound(at: usize, source: &Source<'_>, plan: &Plan) -> String {
    let samples = plan.rate.length(plan.frames[at], SAMPLES);
    let end = format!("atrim=end_sample={samples},asetpts=N/SR/TB[a{at}];");
    match source.facts.audio {
        Some(audio) => format!(
            "[{at}:{}]aresample={SAMPLES}:async=1:first_pts=0,aformat=sample_fmts=fltp:\
             channel_layouts=stereo,apad,{end}",
            audio.stream
        ),
        None => format!("anullsrc=r={SAMPLES}:cl=stereo,aformat=sample_fmts=fltp,{end}"),
    }
}

fn exact(us: i64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

fn exact_us(rate: Rate, frames: u64) -> String {
    exact(i64::try_from(rate.length(frames, 1_000_000)).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_holds_nothing_but_our_names_and_lengths() {
        let clips = [("clip-0".to_owned(), 2_000_000), ("clip-1".to_owned(), 3_021_333)];
        assert_eq!(
            list(&clips),
            "ffconcat version 1.0\nfile clip-0\nduration 2.000000\nfile clip-1\n\
             duration 3.021333\n"
        );
    }

    #[test]
    fn a_copy_may_open_the_list_and_films_and_nothing_else() {
        let argv = copy(Path::new("/ffmpeg"), Path::new("/l"), &[0, 1], Path::new("/o"));
        let words: Vec<String> =
            argv.into_iter().map(|word| word.into_string().expect("ASCII")).collect();
        let after = |key: &str| {
            let at = words.iter().position(|word| word == key).expect(key);
            words[at + 1].clone()
        };
        assert_eq!(after("-protocol_whitelist"), "file");
        assert!(after("-format_whitelist").starts_with("concat,mov,"));
        assert!(!after("-format_whitelist").contains("hls"));
        assert_eq!(after("-safe"), "1");
    }

    #[test]
    fn fades_are_a_chain() {
        let mut graph = String::new();
        faded(&mut graph, ("v", "x"), 3, &|at| format!("fade{at}"));
        assert_eq!(graph, "[v0][v1]fade1[x1];[x1][v2]fade2[v]");
    }
}
