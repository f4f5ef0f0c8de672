//! Clips become one film: by copy where they are alike, else brought to one shape, exactly as long
//! as they are together.

use super::super::stage::{Stage, Studio, cut, ffmpeg, ffprobe};
use super::{is_near, is_stopped_at, pixel, with_progress};
use crate::attempt::Job;
use crate::{Failure, StopReason};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const RED: [u8; 4] = [0xC0, 0x20, 0x20, 0xFF];
const BLUE: [u8; 4] = [0x20, 0x20, 0xC0, 0xFF];

/// A film of one colour: its size and rate, its sound, and how it is encoded.
fn clip(
    studio: &Studio,
    name: &str,
    color: &str,
    (source, sound, codec): (&str, &str, &str),
) -> PathBuf {
    let film = studio.path(name);
    let sound = if sound.is_empty() { String::new() } else { format!("-f lavfi -i {sound}") };
    let fast = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";
    ffmpeg(&format!("-f lavfi -i color={color}:{source} {sound} -t 2 {fast} {codec}"), &film);
    film
}

fn red(studio: &Studio, name: &str) -> PathBuf {
    clip(studio, name, "0xC02020", ("s=320x180:r=25", "sine", "-c:a aac"))
}

fn blue(studio: &Studio, name: &str) -> PathBuf {
    clip(studio, name, "0x2020C0", ("s=320x180:r=25", "sine=frequency=880", "-c:a aac"))
}

fn job(studio: &Studio, clips: &Value, more: &Value) -> Job {
    let mut payload = json!({"op": "stitch", "inputs": clips, "output_dir": studio.path("out"),
        "preset": "ultrafast"});
    let more = more.as_object().expect("tests give an object").clone();
    payload.as_object_mut().expect("it is an object").extend(more);
    Job { payload: payload.to_string(), ..studio.job(Path::new("/"), &json!({})) }
}

fn stitch(studio: &Studio, clips: &Value, more: &Value) -> Result<Value, Failure> {
    super::ops::run(&job(studio, clips, more), &Stage::default())
}

fn path_of(told: &Value) -> PathBuf {
    PathBuf::from(told["outputs"][0]["path"].as_str().expect("a path is text"))
}

/// Frames that can really be decoded, and samples per channel.
fn decoded(path: &Path) -> (usize, usize) {
    let frames =
        ffprobe("-select_streams v -count_frames -show_entries stream=nb_read_frames", path);
    let samples = ffprobe("-select_streams a -show_entries frame=nb_samples", path);
    let samples = samples.iter().filter_map(|line| line.split(',').next()?.parse::<usize>().ok());
    (frames[0].parse().expect("a number"), samples.sum())
}

#[test]
fn clips_that_are_alike_are_joined_by_copy_whatever_they_are_called() {
    let studio = Studio::new();
    // What a list of FFmpeg would read as something else.
    let one = red(&studio, "it's \\ a 'clip'\n%00\nfile x.mp4");
    let two = blue(&studio, "blue.mp4");
    let (told, notes) = with_progress(&job(&studio, &json!([one, two, one]), &json!({})));
    assert_eq!(
        (&told["method"], &told["because"]),
        (&json!("copy"), &json!("all clips are alike"))
    );
    assert_eq!(studio.outputs().len(), 1, "{:?}", studio.outputs());
    let path = studio.path("plain.mp4");
    std::fs::copy(path_of(&told), &path).expect("it is there");
    assert_eq!(decoded(&path).0, 150);
    for (seconds, color) in [(1.0, RED), (3.0, BLUE), (5.0, RED)] {
        assert!(is_near(pixel(&path, "", seconds, (9, 9)), color, 8), "{seconds}");
    }
    let length = told["outputs"][0]["duration_ms"].as_u64().expect("a number");
    assert!((6000..6200).contains(&length), "{told}");
    assert!(notes.iter().any(|note| note.starts_with("joining")), "{notes:?}");
}

#[test]
fn clips_that_differ_are_brought_to_one_shape_and_say_why() {
    let studio = Studio::new();
    let one = red(&studio, "red.mp4");
    // Another shape, rate and container, without sound, in another colour matrix.
    let silent = clip(&studio, "silent.mkv", "0x2020C0", ("s=201x301:r=10", "", "-c:v ffv1"));
    let surround = "anoisesrc=r=44100:a=0.1,aformat=channel_layouts=5.1";
    let third = clip(&studio, "third.ts", "0xC02020", ("s=160x90:r=30", surround, "-c:a ac3"));
    let told = stitch(&studio, &json!([one, silent, third]), &json!({})).expect("possible");
    assert_eq!(told["method"], json!("normalised"));
    let because = told["because"].as_str().expect("a reason");
    assert!(because.contains("clip 2 has 1 streams"), "{because}");
    let output = &told["outputs"][0];
    // The largest clip, made even, and the fastest.
    assert_eq!((&output["width"], &output["height"]), (&json!(200), &json!(300)), "{told}");
    let path = path_of(&told);
    let (frames, samples) = decoded(&path);
    assert_eq!(frames, 180);
    assert!((6 * 48_000..6 * 48_000 + 3000).contains(&samples), "{samples}");
    // The first clip lies across: black above and below.
    assert!(is_near(pixel(&path, "", 1.0, (100, 150)), RED, 8));
    assert!(is_near(pixel(&path, "", 1.0, (100, 10)), [0, 0, 0, 255], 8));
    assert!(is_near(pixel(&path, "", 3.0, (100, 10)), BLUE, 8));
    assert!(is_near(pixel(&path, "", 5.0, (100, 150)), RED, 8));
    let sound = ffprobe("-select_streams a -show_entries stream=sample_rate,channels", &path);
    assert_eq!(sound, ["48000,2"]);
}

#[test]
fn cross_fades_mix_pictures_and_sound_and_shorten_the_film_exactly() {
    let studio = Studio::new();
    let (one, two) = (red(&studio, "red.mp4"), blue(&studio, "blue.mp4"));
    let clips = json!([one, two, one, two]);
    let told = stitch(&studio, &clips, &json!({"crossfade": 0.8})).expect("possible");
    assert_eq!(told["because"], json!("cross-fades are asked for"));
    let path = path_of(&told);
    let (frames, samples) = decoded(&path);
    assert_eq!(frames, 4 * 50 - 3 * 20);
    let planned = frames * 48_000 / 25;
    assert!((planned..planned + 3000).contains(&samples), "{samples}, {planned}");
    assert!(is_near(pixel(&path, "", 1.0, (9, 9)), RED, 8));
    // Half of each in the middle of a fade: from 1.2 to 2.0 s, and from 2.4 to 3.2 s.
    for middle in [1.6, 2.8, 4.0] {
        let mixed = pixel(&path, "", middle, (9, 9));
        assert!(is_near(mixed, [0x70, 0x20, 0x70, 0xFF], 24), "{middle}: {mixed:?}");
    }
    assert!(is_near(pixel(&path, "", 2.2, (9, 9)), BLUE, 8));
    let failure = stitch(&studio, &clips, &json!({"crossfade": 1.5})).expect_err("too long");
    assert!(failure.permanent && failure.message.contains("crossfade"), "{failure:?}");
}

#[test]
fn parts_are_taken_to_the_frame_in_the_order_that_is_asked_for() {
    let studio = Studio::new();
    // Its picture says how late it is: darker and darker.
    let late = studio.path("late.mp4");
    let source = "-f lavfi -i color=black:s=64x64:r=25 -f lavfi -i sine -t 4";
    let filter = "geq=lum='16+N*2':cb=128:cr=128";
    ffmpeg(&format!("{source} -vf {filter} -c:v libx264 -g 30 -pix_fmt yuv420p -c:a aac"), &late);
    let clips = json!([
        {"input": late, "in": 3.0}, {"input": late, "in": 1.0, "out": 1.52}, {"input": late, "out": 0.04}
    ]);
    let told = stitch(&studio, &clips, &json!({"crf": 1})).expect("possible");
    let path = path_of(&told);
    assert_eq!(decoded(&path).0, 25 + 13 + 1);
    let luma = |frame: u32| {
        let grey =
            pixel(&path, "", f64::from(frame) / 25.0 - 0.01_f64.min(f64::from(frame)), (9, 9))[0];
        f64::from(grey) * 219.0 / 255.0 + 16.0
    };
    for (frame, of_film) in [(0, 75), (24, 99), (25, 25), (37, 37), (38, 0)] {
        let (found, planned) = (luma(frame), 16.0 + 2.0 * f64::from(of_film));
        assert!((found - planned).abs() < 1.9, "frame {frame}: {found}, {planned}");
    }
    for (clip, words) in [
        (json!({"input": late, "in": 4.5}), "inputs[0].in"),
        (json!({"input": late, "out": 7}), "inputs[0].out"),
    ] {
        let failure = stitch(&studio, &json!([clip]), &json!({})).expect_err(words);
        assert!(failure.permanent && failure.message.contains(words), "{failure:?}");
    }
}

#[test]
fn sound_that_begins_late_or_ends_early_stays_beside_its_pictures() {
    let studio = Studio::new();
    let late = studio.path("late.mkv");
    let pictures = "-f lavfi -i color=0xC02020:s=64x64:r=25";
    let codec = "-c:v libx264 -preset ultrafast -c:a aac";
    ffmpeg(&format!("{pictures} -itsoffset 0.6 -f lavfi -t 0.5 -i sine -t 2 {codec}"), &late);
    let two = clip(&studio, "two.mkv", "0x2020C0", ("s=64x64:r=25", "sine", "-c:a aac"));
    let told = stitch(&studio, &json!([late, two]), &json!({"rate": 25})).expect("possible");
    let path = path_of(&told);
    let level = |from: f64, to: f64| {
        let log = studio.path("level.txt");
        let filter = format!("atrim={from}:{to},astats=metadata=1:reset=0,ametadata=print");
        let key = "lavfi.astats.Overall.RMS_level";
        let input = path.display();
        ffmpeg(
            &format!("-i {input} -af {filter}:key={key}:file={} -f null", log.display()),
            Path::new("-"),
        );
        let text = std::fs::read_to_string(&log).expect("it was written");
        let last = text.lines().rev().find_map(|line| line.strip_prefix(&format!("{key}=")));
        last.map_or(-200.0, |level| level.parse().unwrap_or(-200.0))
    };
    for (from, to, is_loud) in
        [(0.05, 0.5, false), (0.65, 1.0, true), (1.2, 1.9, false), (2.1, 3.9, true)]
    {
        let level: f64 = level(from, to);
        assert_eq!(level > -40.0, is_loud, "{from} to {to}: {level} dB");
    }
}

#[test]
fn as_many_clips_as_may_be_are_joined() {
    let studio = Studio::new();
    let small = ("s=32x32:r=25", "sine", "-frames:v 5 -shortest -c:a aac");
    let (one, two) =
        (clip(&studio, "a.mp4", "0xC02020", small), clip(&studio, "b.mp4", "0x2020C0", small));
    let clips: Vec<&PathBuf> = (0..64).map(|at| if at % 2 == 0 { &one } else { &two }).collect();
    let told = stitch(&studio, &json!(clips), &json!({"rate": 25})).expect("possible");
    assert_eq!((&told["method"], decoded(&path_of(&told)).0), (&json!("normalised"), 320));
    let told = stitch(&studio, &json!(clips), &json!({})).expect("possible");
    assert_eq!((&told["method"], decoded(&path_of(&told)).0), (&json!("copy"), 320), "{told}");
}

#[test]
fn clips_that_are_bad_are_named_by_their_number() {
    let studio = Studio::new();
    let good = red(&studio, "red.mp4");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(studio.path(name), bytes).expect("the folder can be written");
        studio.path(name)
    };
    let noise: Vec<u8> =
        (0..4000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let sound = studio.path("sound.m4a");
    ffmpeg("-f lavfi -i sine -t 1 -c:a aac", &sound);
    let part = studio.path("part.mkv");
    cut(&clip(&studio, "whole.mkv", "red", ("s=320x180:r=25", "sine", "")), 60, &part);
    for (bad, words) in [
        (write("empty.mp4", b""), "is empty"),
        (write("byte.mp4", b"x"), "cannot be used"),
        (write("text.mp4", b"no film\n"), "cannot be used"),
        (write("noise.mp4", &noise), "cannot be used"),
        (write("list.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n"), "cannot be used"),
        (write("list.m3u8", b"#EXTM3U\n#EXTINF:5,\n/etc/passwd\n"), "cannot be used"),
        (studio.path("missing.mp4"), "does not exist"),
        (sound, "has no video stream"),
        (part, "is truncated"),
    ] {
        let failure = stitch(&studio, &json!([good, bad, good]), &json!({})).expect_err(words);
        let sentence = failure.message;
        assert!(failure.permanent && sentence.contains(words), "{}: {sentence}", bad.display());
        assert!(sentence.contains("inputs[1]"), "{sentence}");
        assert_eq!(studio.outputs(), Vec::<String>::new());
    }
}

#[test]
fn a_stopped_attempt_leaves_nothing() {
    let studio = Studio::new();
    let (one, two) = (red(&studio, "red.mp4"), blue(&studio, "blue.mp4"));
    let (copy, faded) = (json!({}), json!({"crossfade": 0.4}));
    for (more, text, reason) in [
        (&copy, "checking clip 2", StopReason::Cancelled),
        (&copy, "joining", StopReason::Timeout),
        (&faded, "stitching", StopReason::Stalled),
        (&faded, "checking the output", StopReason::Released),
    ] {
        is_stopped_at(&studio, &job(&studio, &json!([one, two]), more), text, reason);
    }
}
