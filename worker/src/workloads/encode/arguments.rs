//! The command line of FFmpeg for a plan.
//!
//! ffmpeg-sidecar builds it, with its downloads left out and never as the runner: that would
//! leave FFmpeg behind when this process dies.

use super::codec::arguments as codec;
use super::loudness::{self, Measured};
use super::plan::{KEYFRAME_SECONDS, Plan, Rung, Thin};
use ffmpeg_sidecar::command::FfmpegCommand;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Containers of films.
macro_rules! films {
    () => {
        "mov,matroska,webm,mpegts,mpeg,mpegvideo,avi,flv,live_flv,asf,mxf,ogg,nut,wtv,rm,dv,gxf,\
         ivf,h264,hevc,obu,av1,m4v,vc1,yuv4mpegpipe,gif,apng"
    };
}

/// What both tools are told about a film. Containers that lead to other files (playlists,
/// concat lists, image sequences) or that make a picture of any text file are left out, and
/// so is every protocol but plain files.
pub(super) const INPUT_GUARD: &[&str] = &[
    "-protocol_whitelist",
    "file",
    "-format_whitelist",
    films!(),
    "-probesize",
    "20000000",
    "-analyzeduration",
    "10000000",
];

/// The same for a file that may hold sound alone.
pub(super) const MEDIA_GUARD: &[&str] = &[
    "-protocol_whitelist",
    "file",
    "-format_whitelist",
    concat!(films!(), ",mp3,wav,w64,flac,aac,aiff,caf,ac3,eac3,amr,ape,tta,wv,au"),
    "-probesize",
    "20000000",
    "-analyzeduration",
    "10000000",
];

/// A clock fine enough for every timing that films have; the usual one of MPEG.
const FINE_CLOCK: &str = "1/90000";

/// The whole command, program first: one decode, one output per rung. `staged` has one path
/// per rung.
pub(super) fn ladder(
    ffmpeg: &Path,
    input: &Path,
    plan: &Plan,
    (staged, measured): (&[PathBuf], &[Option<Measured>]),
) -> Vec<OsString> {
    let mut command = command(ffmpeg);
    codec::device(&mut command, plan.encoder, plan.device.as_deref());
    filter_threads(&mut command, plan);
    command.args(threads(plan)).args(INPUT_GUARD).input(input);
    command.filter_complex(filter_graph(plan, ""));
    let keyframes = format!("expr:gte(t,n_forced*{KEYFRAME_SECONDS})");
    for (at, (rung, path)) in plan.rungs.iter().zip(staged).enumerate() {
        command.map(format!("[v{at}]"));
        video(&mut command, plan, rung, &keyframes);
        beside(&mut command, plan, measured);
        no_more_streams(&mut command);
        command.args(["-movflags", "+faststart"]);
        command.format("mp4").output(path);
    }
    words(command)
}

/// Threads of a decoder or an encoder, which follow as the next file.
pub(super) fn threads(plan: &Plan) -> Vec<String> {
    let threads = plan.threads.map(|threads| ["-threads".to_owned(), threads.to_string()]);
    threads.into_iter().flatten().collect()
}

/// Threads of the filters between them.
pub(super) fn filter_threads(command: &mut FfmpegCommand, plan: &Plan) {
    if let Some(threads) = plan.threads {
        let threads = threads.to_string();
        command.args(["-filter_threads", &threads, "-filter_complex_threads", &threads]);
    }
}

/// What every command begins with.
pub(super) fn command(ffmpeg: &Path) -> FfmpegCommand {
    let mut command = FfmpegCommand::new_with_path(ffmpeg);
    // No -nostdin: `q` on standard input is the first step of stopping it. -y because a
    // question on standard input would never be answered.
    command.hide_banner().overwrite();
    command.args(["-nostats", "-loglevel", "level+warning"]);
    command.args(["-progress", "pipe:1", "-stats_period", "0.5"]);
    command
}

/// The command with its program as the first word.
pub(super) fn words(mut command: FfmpegCommand) -> Vec<OsString> {
    let program = command.as_inner().get_program().to_owned();
    let arguments = command.get_args().map(ToOwned::to_owned);
    std::iter::once(program).chain(arguments).collect()
}

/// All rungs are cut from the same decoded frames, so their frames and keyframes are the same.
/// Sizes are given in full: they hold when the film changes its size on the way. `cut` comes
/// after the only filter that looks at neighbours.
pub(super) fn filter_graph(plan: &Plan, cut: &str) -> String {
    let mut graph = format!("[0:{}]", plan.video_stream);
    graph.push_str(plan.treatment.among_neighbours());
    graph.push_str(cut);
    match plan.thin {
        Some(Thin::Every(count)) => graph.push_str(&format!("select='not(mod(n,{count}))',")),
        Some(Thin::Resample(rate)) => graph.push_str(&format!("fps=fps={rate},")),
        None => {}
    }
    graph.push_str(&plan.treatment.alone());
    let written = write!(graph, "split={}", plan.rungs.len());
    written.expect("writing to a String cannot fail");
    (0..plan.rungs.len()).for_each(|at| graph.push_str(&format!("[s{at}]")));
    for (at, rung) in plan.rungs.iter().enumerate() {
        let (width, height) = (rung.width, rung.height);
        graph.push_str(&format!(
            ";[s{at}]scale={width}:{height}:flags=bicubic,setsar=1,{}[v{at}]",
            codec::hand_over(plan.encoder)
        ));
    }
    graph
}

/// How the pictures of a rung are encoded.
pub(super) fn video(command: &mut FfmpegCommand, plan: &Plan, rung: &Rung, keyframes: &str) {
    codec::encoder(command, plan, rung);
    command.args(threads(plan));
    command.args(["-force_key_frames", keyframes]);
    // Frames keep their times, none is made up. With irregular times the clock of the average
    // rate would be too coarse and drop frames that follow each other closely.
    command.fps_mode("vfr");
    if plan.irregular {
        command.args(["-enc_time_base:v", FINE_CLOCK]);
    }
}

/// What an output holds beside its pictures. Languages and who is the default are taken over by
/// FFmpeg, because every track is mapped by itself. `measured` has the loudness of each audio
/// track, where that is to be changed.
pub(super) fn beside(command: &mut FfmpegCommand, plan: &Plan, measured: &[Option<Measured>]) {
    for (at, audio) in plan.audio.iter().enumerate() {
        command.map(format!("0:{}", audio.stream));
        command.args([&format!("-b:a:{at}"), &audio.bitrate.to_string()]);
        command.args([&format!("-ac:a:{at}"), &audio.channels.to_string()]);
        // Gaps in a track are filled with silence instead of letting it run ahead, and mixing
        // down leaves room for all channels at once.
        let mut filter = "aresample=async=1:rematrix_maxval=1".to_owned();
        if let (Some(target), Some(Some(measured))) = (plan.loudness, measured.get(at)) {
            filter.push_str(&loudness::second_pass(target, audio.channels, measured));
        }
        command.args([&format!("-filter:a:{at}"), &filter]);
    }
    if !plan.audio.is_empty() {
        command.codec_audio("aac").args(["-ar", "48000"]);
    }
    for stream in &plan.subtitles {
        command.map(format!("0:{stream}"));
    }
    if !plan.subtitles.is_empty() {
        command.args(["-c:s", "mov_text"]);
    }
}

/// Chapters and timecodes would each add a stream.
pub(super) fn no_more_streams(command: &mut FfmpegCommand) {
    command.args(["-map_chapters", "-1", "-write_tmcd", "0", "-max_muxing_queue_size", "4096"]);
}

#[cfg(test)]
mod tests {
    use super::super::codec::trial::Chosen;
    use super::super::codec::{Encoder, X264};
    use super::super::film::facts::Facts;
    use super::super::plan;
    use super::*;

    #[test]
    fn every_encoder_gets_pictures_and_a_peak_in_its_own_words() {
        for name in shiftboss_protocol::media::ENCODERS {
            let encoder = Encoder::named(name).expect("it is known");
            let arguments = arguments_of(encoder, r#","renditions":["720p"]"#, |_| {});
            assert_eq!(after(&arguments, "-c:v"), [name]);
            assert_eq!(
                (after(&arguments, "-maxrate").len(), after(&arguments, "-bufsize").len()),
                (1, 1)
            );
            let graph = after(&arguments, "-filter_complex")[0];
            let is_uploaded = name.ends_with("vaapi") || name.ends_with("qsv");
            assert_eq!(graph.contains("hwupload"), is_uploaded, "{graph}");
            let devices = after(&arguments, "-init_hw_device");
            assert_eq!(devices.contains(&"vaapi=va:/dev/dri/x"), is_uploaded, "{devices:?}");
            assert_eq!(
                after(&arguments, "-tag:v").len(),
                usize::from(name.contains("265") || name.contains("hevc"))
            );
        }
    }

    #[test]
    fn a_film_with_too_many_pictures_is_thinned_before_it_is_split() {
        let graph_at = |rate| {
            let change = |facts: &mut Facts| facts.video.rate = Some(rate);
            let more = r#","frame_rate_max":30,"renditions":["720p"]"#;
            after(&arguments_of(X264, more, change), "-filter_complex")[0].to_owned()
        };
        assert!(graph_at(60.0).starts_with("[0:0]select='not(mod(n,2))',split=1"));
        assert!(graph_at(36.0).starts_with("[0:0]fps=fps=30,split=1"));
        assert!(graph_at(25.0).starts_with("[0:0]split=1"));
    }

    fn arguments(change: impl Fn(&mut Facts)) -> Vec<String> {
        arguments_of(X264, "", change)
    }

    fn arguments_of(encoder: Encoder, more: &str, change: impl Fn(&mut Facts)) -> Vec<String> {
        arguments_on(None, (encoder, more), change)
    }

    fn arguments_on(
        threads: Option<u32>,
        (encoder, more): (Encoder, &str),
        change: impl Fn(&mut Facts),
    ) -> Vec<String> {
        let mut facts = Facts::for_test();
        change(&mut facts);
        let payload = format!(r#"{{"op":"ladder","input":"/a","output_dir":"/b"{more}}}"#);
        let ladder_payload = serde_json::from_str(&payload).expect("the payload is valid");
        let chosen = Chosen { encoder, device: Some("/dev/dri/x".into()) };
        let plan = plan::plan(&facts, &ladder_payload, &chosen).expect("the film can be planned");
        let plan = Plan { threads, ..plan };
        let staged: Vec<PathBuf> = plan.rungs.iter().map(|r| PathBuf::from(&r.name)).collect();
        let all = ladder(Path::new("/usr/bin/ffmpeg"), Path::new("/a"), &plan, (&staged, &[]));
        all.into_iter().map(|arg| arg.into_string().expect("the test is ASCII")).collect()
    }

    fn after<'a>(arguments: &'a [String], key: &str) -> Vec<&'a str> {
        let pairs = arguments.windows(2).filter(|pair| pair[0] == key);
        pairs.map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn one_decode_feeds_every_output() {
        let arguments = arguments(|_| {});
        assert_eq!(arguments[0], "/usr/bin/ffmpeg");
        assert_eq!(after(&arguments, "-i"), ["/a"]);
        assert_eq!(after(&arguments, "-map"), ["[v0]", "0:1", "[v1]", "0:1", "[v2]", "0:1"]);
        assert_eq!(
            after(&arguments, "-filter_complex"),
            ["[0:0]split=3[s0][s1][s2];\
              [s0]scale=1920:1080:flags=bicubic,setsar=1,format=yuv420p[v0];\
              [s1]scale=1280:720:flags=bicubic,setsar=1,format=yuv420p[v1];\
              [s2]scale=854:480:flags=bicubic,setsar=1,format=yuv420p[v2]"]
        );
        assert_eq!(after(&arguments, "-progress"), ["pipe:1"]);
        assert!(!arguments.contains(&"-nostdin".to_owned()));
        assert!(!arguments.contains(&"-enc_time_base:v".to_owned()));
    }

    #[test]
    fn threads_are_told_to_the_decoder_the_filters_and_every_encoder() {
        let plain = arguments(|_| {});
        assert_eq!(after(&plain, "-threads"), Vec::<&str>::new());
        let all = arguments_on(Some(3), (X264, ""), |_| {});
        assert_eq!(after(&all, "-threads"), ["3"; 4]);
        assert_eq!(after(&all, "-filter_complex_threads"), ["3"]);
        let position = |words: &str| all.iter().position(|word| word == words);
        assert!(position("-threads") < position("-i"));
    }

    #[test]
    fn a_silent_film_maps_no_audio() {
        let arguments = arguments(|facts| facts.streams.clear());
        assert_eq!(after(&arguments, "-map"), ["[v0]", "[v1]", "[v2]"]);
        assert!(!arguments.contains(&"-c:a".to_owned()));
    }

    #[test]
    fn surround_becomes_stereo_and_mono_stays_mono() {
        let with = |channels| {
            arguments(move |facts| {
                facts.streams[0].channels = channels;
            })
        };
        assert_eq!(after(&with(8), "-ac:a:0"), ["2", "2", "2"]);
        assert_eq!(after(&with(1), "-ac:a:0"), ["1", "1", "1"]);
    }

    #[test]
    fn interlaced_and_irregular_films_get_their_treatment() {
        let arguments = arguments(|facts| {
            facts.video.interlaced = true;
            facts.video.irregular = true;
        });
        assert!(after(&arguments, "-filter_complex")[0].starts_with("[0:0]bwdif="));
        assert_eq!(after(&arguments, "-enc_time_base:v"), [FINE_CLOCK; 3]);
    }
}
