//! Good films of every shape become the right renditions.

use super::stage::{Stage, Studio, ffmpeg, ffprobe, turn};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const SOUND: &str = "-f lavfi -i sine=frequency=440";
const FAST: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";

fn path_of(output: &Value) -> PathBuf {
    PathBuf::from(output["path"].as_str().expect("a path is text"))
}

fn shapes(result: &Value) -> Vec<(String, u64, u64)> {
    let outputs = result["outputs"].as_array().expect("outputs are listed");
    let shape = |output: &Value| {
        let number = |key: &str| output[key].as_u64().expect("it is a number");
        let name = output["rendition"].as_str().expect("it is a name").to_owned();
        (name, number("width"), number("height"))
    };
    outputs.iter().map(shape).collect()
}

fn shape(name: &str, width: u64, height: u64) -> (String, u64, u64) {
    (name.to_owned(), width, height)
}

fn keyframes(path: &Path) -> Vec<String> {
    ffprobe("-select_streams v:0 -skip_frame nokey -show_entries frame=pts_time", path)
}

#[test]
fn a_film_becomes_renditions_with_the_same_keyframes() {
    let studio = Studio::new();
    let film = studio.path("film.mp4");
    ffmpeg(&format!("-f lavfi -i testsrc2=s=1280x720:r=30 {SOUND} -t 5 {FAST} -c:a aac"), &film);
    let stage = Stage::default();
    let job = studio.job(&film, &json!({"renditions": ["720p", "480p", "360p"]}));
    let result = super::super::ladder::run(&job, &stage).expect("the film is good");
    assert_eq!(
        shapes(&result),
        [shape("720p", 1280, 720), shape("480p", 854, 480), shape("360p", 640, 360)]
    );
    assert_eq!(studio.outputs(), ["film-360p.mp4", "film-480p.mp4", "film-720p.mp4"]);
    for output in result["outputs"].as_array().expect("outputs are listed") {
        assert_eq!((&output["frames"], &output["audio"]), (&json!(150), &json!(true)));
        assert_eq!(output["video_codec"], json!("h264"));
        let duration = output["duration_ms"].as_u64().expect("it is a number");
        assert!((4990..5100).contains(&duration), "{duration}");
        let path = path_of(output);
        let bytes = path.metadata().expect("it is there").len();
        assert_eq!(output["bytes"].as_u64(), Some(bytes));
        assert_eq!(keyframes(&path), ["0.000000", "2.000000", "4.000000"]);
        let sound = ffprobe("-select_streams a -show_entries stream=codec_name,channels", &path);
        assert_eq!(sound, ["aac,1"]);
    }
    let progress = stage.progress.lock().expect("no test panics with it");
    let fractions: Vec<f64> = progress.iter().filter_map(|(fraction, _)| *fraction).collect();
    assert!(fractions.is_sorted() && fractions.iter().all(|share| *share < 1.0), "{fractions:?}");
    let has_note = |words: &str| progress.iter().any(|(_, note)| note.contains(words));
    assert!(has_note("fps") && has_note("bit/s") && has_note("eta"), "{progress:?}");
}

#[test]
fn progress_is_about_the_whole_job_and_says_how_large_each_rung_is() {
    let studio = Studio::new();
    let film = studio.path("film.mp4");
    ffmpeg(&format!("-f lavfi -i testsrc2=s=640x360:r=30 {SOUND} -t 12 {FAST} -c:a aac"), &film);
    let mut stage = Stage::default();
    // A limit of CPU time is told to FFmpeg, which must understand it.
    stage.settings.program_cpus_max = 1.0;
    let more = json!({"renditions": ["360p", "240p"], "check": "full", "preset": "slow"});
    super::super::ladder::run(&studio.job(&film, &more), &stage).expect("the film is good");
    let progress = stage.progress.lock().expect("no test panics with it");
    let shares: Vec<f64> = progress.iter().filter_map(|(share, _)| *share).collect();
    assert!(shares.is_sorted() && shares.iter().all(|share| *share < 1.0), "{shares:?}");
    let first_known = progress.iter().position(|(share, _)| share.is_some()).expect("it was known");
    assert!(progress[first_known..].iter().all(|(share, _)| share.is_some()), "{progress:?}");
    // Encoding leaves room for the check, which decodes both outputs.
    let of = |words: &str| -> Vec<f64> {
        let notes = progress.iter().filter(|(_, note)| note.contains(words));
        notes.filter_map(|(share, _)| *share).collect()
    };
    assert!(of("fps").iter().take(1).all(|share| *share < 0.92), "{progress:?}");
    assert!(of("checking 360p: decoding").iter().all(|share| (0.92..0.96).contains(share)));
    assert!(of("checking 240p: decoding").iter().all(|share| *share > 0.959), "{progress:?}");
    let sized = progress.iter().any(|(_, note)| note.contains("(360p ") && note.contains("240p "));
    assert!(sized, "{progress:?}");
}

#[test]
fn a_film_without_audio_stays_silent() {
    let studio = Studio::new();
    let film = studio.path("silent.mkv");
    ffmpeg(&format!("-f lavfi -i testsrc2=s=320x240:r=25 -t 2 {FAST}"), &film);
    let result = studio.encode(&film, &json!({}));
    assert_eq!(shapes(&result), [shape("240p", 320, 240)]);
    assert_eq!(result["outputs"][0]["audio"], json!(false));
    let path = path_of(&result["outputs"][0]);
    assert_eq!(ffprobe("-show_entries stream=codec_type", &path), ["video"]);
}

#[test]
fn a_rotated_film_is_turned_and_measured_by_its_short_side() {
    let studio = Studio::new();
    let (plain, film) = (studio.path("plain.mp4"), studio.path("turned.mp4"));
    ffmpeg(&format!("-f lavfi -i testsrc2=s=640x360:r=30 -t 1 {FAST}"), &plain);
    turn(&plain, 90, "", &film);
    let result = studio.encode(&film, &json!({"renditions": ["720p", "240p"]}));
    assert_eq!(shapes(&result), [shape("240p", 240, 426)]);
    let path = path_of(&result["outputs"][0]);
    assert_eq!(ffprobe("-show_entries stream=width,height", &path), ["240,426"]);
}

#[test]
fn odd_anamorphic_and_ten_bit_films_come_out_even_square_and_eight_bit() {
    let studio = Studio::new();
    for (name, input, codec, expected) in [
        ("odd", "testsrc2=s=321x241:r=30", "-c:v ffv1 -pix_fmt yuv444p", shape("240p", 320, 240)),
        (
            "wide",
            "testsrc2=s=360x288:r=25,setsar=16/11",
            "-c:v libx264 -preset ultrafast",
            shape("288p", 524, 288),
        ),
        (
            "deep",
            "testsrc2=s=320x180:r=24",
            "-c:v libx264 -pix_fmt yuv422p10le",
            shape("180p", 320, 180),
        ),
        ("tiny", "testsrc2=s=34x18:r=24", "-c:v ffv1", shape("18p", 34, 18)),
    ] {
        let film = studio.path(format!("{name}.mkv"));
        ffmpeg(&format!("-f lavfi -i {input} -t 1 {codec}"), &film);
        let result = studio.run(&film, &json!({})).expect(name);
        assert_eq!(shapes(&result), [expected], "{name}");
        let path = path_of(&result["outputs"][0]);
        let facts = ffprobe("-show_entries stream=sample_aspect_ratio,pix_fmt", &path);
        assert_eq!(facts, ["1:1,yuv420p"], "{name}");
    }
}

#[test]
fn an_interlaced_film_is_deinterlaced_frame_by_frame() {
    let studio = Studio::new();
    let film = studio.path("fields.ts");
    let fields = "-vf tinterlace=interleave_top,fieldorder=tff -flags +ildct+ilme -c:v mpeg2video";
    ffmpeg(&format!("-f lavfi -i testsrc2=s=352x288:r=50 -t 2 {fields}"), &film);
    let result = studio.encode(&film, &json!({}));
    assert_eq!(result["input"]["video"]["interlaced"], json!(true));
    let path = path_of(&result["outputs"][0]);
    assert_eq!(ffprobe("-show_entries stream=field_order", &path), ["progressive"]);
    assert_eq!(result["outputs"][0]["frames"], json!(50));
}

#[test]
fn irregular_timing_is_kept_to_the_millisecond() {
    let studio = Studio::new();
    let film = studio.path("irregular.mkv");
    // Runs of frames and gaps, as screen recorders and phones make them.
    let gaps = "select='lt(mod(n,17),5)+eq(mod(n,17),9)'";
    let late = "settb=1/90000,setpts='PTS+0.4*eq(mod(N,3),1)/60/TB'";
    let times = |path: &Path| -> Vec<f64> {
        let times = ffprobe("-select_streams v:0 -show_entries frame=pts_time", path);
        let times: Vec<f64> = times.iter().filter_map(|time| time.parse().ok()).collect();
        times.iter().map(|time| time - times[0]).collect()
    };
    for (filters, irregular) in [(gaps.to_owned(), false), (format!("{gaps},{late}"), true)] {
        let input = format!("-f lavfi -i testsrc2=s=320x240:r=60 {SOUND} -t 4 -vf {filters}");
        ffmpeg(&format!("{input} -fps_mode vfr -enc_time_base 1/90000 {FAST}"), &film);
        let result = studio.encode(&film, &json!({}));
        // Gaps on the clock of the film's rate need no finer clock.
        assert_eq!(result["input"]["video"]["irregular"], json!(irregular));
        let (before, after) = (times(&film), times(&path_of(&result["outputs"][0])));
        assert_eq!(before.len(), after.len());
        assert_eq!(result["outputs"][0]["frames"].as_u64(), Some(86));
        for (before, after) in before.iter().zip(&after) {
            assert!((before - after).abs() < 0.0015, "{before} became {after}");
        }
    }
}

#[test]
fn surround_sound_is_mixed_down_to_stereo() {
    let studio = Studio::new();
    let film = studio.path("surround.mkv");
    let sound = "-f lavfi -i sine -af aformat=channel_layouts=7.1 -c:a flac";
    ffmpeg(&format!("-f lavfi -i testsrc2=s=320x240:r=25 {sound} -t 2 {FAST}"), &film);
    let result = studio.encode(&film, &json!({"audio_bitrate": "96k"}));
    assert_eq!(result["input"]["audio"]["channels"], json!(8));
    let path = path_of(&result["outputs"][0]);
    let sound = ffprobe("-select_streams a -show_entries stream=channels,sample_rate", &path);
    assert_eq!(sound, ["48000,2"]);
}

#[test]
fn names_with_quotes_newlines_and_foreign_bytes_work() {
    use std::os::unix::ffi::OsStrExt;
    let studio = Studio::new();
    let plain = studio.path("plain.mp4");
    ffmpeg(&format!("-f lavfi -i testsrc2=s=160x120:r=25 -t 1 {FAST}"), &plain);
    let strange: [&[u8]; 4] =
        [b"it's \"new\" %d.mp4", b"two\nlines.mp4", b"latin\xe9.mp4", b"-i [0:v];x.mp4"];
    for name in strange {
        let folder = studio.path(std::ffi::OsStr::from_bytes(b"\xffin \"'"));
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        let film = folder.join(std::ffi::OsStr::from_bytes(name));
        std::fs::copy(&plain, &film).expect("the film can be copied");
        let text = crate::workloads::encode::output::names::path_text(&folder.join("out"));
        let result = studio.run(&film, &json!({"output_dir": text})).expect("the film is good");
        let output = result["outputs"][0]["path"].as_str().expect("it is text");
        let path = crate::path::parse_path("path", output).expect("results give whole paths");
        assert!(path.is_file() && path.starts_with(folder.join("out")), "{output}");
    }
}

#[test]
fn the_supplied_film_is_encoded_whole() {
    let Some(film) = super::films::supplied() else { return };
    let studio = Studio::new();
    let result = studio.encode(&film, &json!({"renditions": ["360p", "240p"]}));
    let source = &result["input"];
    for output in result["outputs"].as_array().expect("outputs are listed") {
        assert_eq!(output["frames"], source["frames"], "{result}");
        assert_eq!(output["audio"].as_bool(), Some(!source["audio"].is_null()));
    }
}
