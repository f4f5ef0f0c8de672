//! The ops besides the ladder, on real films with the real FFmpeg.

mod keying;
mod passthrough;
mod stitch;

use super::super::ops;
use super::stage::{Stage, Studio, cut, ffmpeg, ffprobe};
use crate::attempt::Job;
use crate::{Cause, Failure, StopReason};
use serde_json::{Value, json};
use std::path::Path;

const FAST: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";

fn run(studio: &Studio, op: &str, input: &Path, more: &Value) -> Result<Value, Failure> {
    ops::run(&job(studio, op, input, more), &Stage::default())
}

fn job(studio: &Studio, op: &str, input: &Path, more: &Value) -> Job {
    let mut fields = json!({"op": op, "input": input});
    if !matches!(op, "probe" | "verify") {
        fields["output_dir"] = json!(studio.path("out"));
    }
    let more = more.as_object().expect("tests give an object").clone();
    fields.as_object_mut().expect("it is an object").extend(more);
    Job { payload: fields.to_string(), ..studio.job(input, &json!({})) }
}

/// Runs the op, which must fail for good and leave nothing; returns the sentence.
fn refuse(studio: &Studio, op: &str, input: &Path, more: &Value) -> String {
    let failure = run(studio, op, input, more).expect_err("it cannot be done");
    assert!(failure.permanent, "{failure:?}");
    assert_eq!(studio.outputs(), Vec::<String>::new());
    failure.message
}

/// Runs the op until a progress note contains `text`, and stops it: nothing may be left.
fn is_stopped_at(studio: &Studio, job: &Job, text: &'static str, reason: StopReason) {
    let stage = Stage { stop_at: Some((text, reason)), ..Stage::default() };
    let failure = ops::run(job, &stage).expect_err("it was stopped");
    let cause = match reason {
        StopReason::Cancelled => Cause::Cancelled,
        StopReason::Timeout => Cause::Timeout,
        StopReason::Stalled => Cause::Stalled,
        StopReason::Released => Cause::Released,
    };
    assert_eq!(failure.cause, cause, "{failure:?}");
    assert_eq!(studio.outputs(), Vec::<String>::new());
}

/// Runs the op, whose progress may never go back and is never 1 before the end.
fn with_progress(job: &Job) -> (Value, Vec<String>) {
    let stage = Stage::default();
    let told = ops::run(job, &stage).expect("it can be done");
    let progress = stage.progress.lock().expect("no test panics with it");
    let shares: Vec<f64> = progress.iter().filter_map(|(share, _)| *share).collect();
    assert!(shares.is_sorted() && shares.iter().all(|share| *share < 1.0), "{shares:?}");
    let first = progress.iter().position(|(share, _)| share.is_some()).expect("it is told");
    assert!(progress[first..].iter().all(|(share, _)| share.is_some()), "{progress:?}");
    (told, progress.iter().map(|(_, note)| note.clone()).collect())
}

/// The mean of a few pixels at x, y of one frame, red, green, blue and alpha.
fn pixel(film: &Path, decoder: &str, seconds: f64, (x, y): (u32, u32)) -> [u8; 4] {
    let raw = film.with_extension("pixel");
    let filter = format!("crop=4:4:{x}:{y},format=rgba,scale=1:1:flags=area");
    let input = format!("-ss {seconds} {decoder} -i {}", film.display());
    ffmpeg(&format!("{input} -vf {filter} -frames:v 1 -f rawvideo"), &raw);
    let bytes = std::fs::read(&raw).expect("it was made");
    std::fs::remove_file(raw).expect("it is ours");
    bytes.try_into().expect("one pixel has four bytes")
}

fn is_near(one: [u8; 4], other: [u8; 4], distance: u8) -> bool {
    (0..4).all(|at| one[at].abs_diff(other[at]) <= distance)
}

fn film(studio: &Studio, name: &str, seconds: u32) -> std::path::PathBuf {
    let film = studio.path(name);
    let sound = "-f lavfi -i sine=frequency=440";
    let what = format!("-f lavfi -i testsrc2=s=640x360:r=25 {sound} -t {seconds} {FAST} -g 50");
    ffmpeg(&format!("{what} -c:a aac -metadata:s:a:0 language=deu"), &film);
    film
}

#[test]
fn an_op_that_is_not_offered_is_refused_by_name() {
    let studio = Studio::new();
    let failure = run(&studio, "paint", Path::new("/a"), &json!({})).expect_err("not offered");
    assert!(failure.permanent && failure.cause == Cause::Payload);
    assert!(failure.message.contains(r#"op: "paint""#), "{}", failure.message);
    assert!(failure.message.contains(r#""thumbnail" and "verify""#), "{}", failure.message);
}

#[test]
fn probe_says_what_a_file_is() {
    let studio = Studio::new();
    let told = run(&studio, "probe", &film(&studio, "film.mp4", 2), &json!({})).expect("good");
    assert!(told["container"].as_str().expect("text").contains("mp4"), "{told}");
    let (video, sound) = (&told["streams"][0], &told["streams"][1]);
    assert_eq!((&video["kind"], &video["codec"]), (&json!("video"), &json!("h264")));
    assert_eq!((&video["width"], &video["frame_rate"]), (&json!(640), &json!(25.0)));
    assert_eq!((&sound["codec"], &sound["language"]), (&json!("aac"), &json!("deu")));
    assert_eq!(told["film"]["video"]["height"], json!(360));
    let sound = studio.path("sound.flac");
    ffmpeg("-f lavfi -i sine=frequency=440 -t 3", &sound);
    let told = run(&studio, "probe", &sound, &json!({})).expect("sound alone is a file too");
    assert_eq!((&told["film"], &told["duration_ms"]), (&Value::Null, &json!(3000)));
}

#[test]
fn verify_tells_whole_files_from_cut_and_damaged_ones() {
    let studio = Studio::new();
    let verdict = |path: &Path, more: Value| {
        let told = run(&studio, "verify", path, &more).expect("the check can be made");
        (told["verdict"].as_str().expect("text").to_owned(), told)
    };
    for name in ["film.mp4", "film.mkv", "film.ts", "film.avi"] {
        let film = film(&studio, name, 4);
        let (is, told) = verdict(&film, json!({}));
        assert_eq!((is.as_str(), &told["decoded_frames"]), ("good", &json!(100)), "{told}");
        let (is, told) = verdict(&film, json!({"expect": {"duration_ms": 9000}}));
        assert_eq!(is, "damaged", "{told}");
    }
    let short = studio.path("short.mkv");
    cut(&studio.path("film.mkv"), 60, &short);
    let (is, told) = verdict(&short, json!({}));
    assert_eq!(is, "damaged", "{told}");
    assert!(told["reasons"][0].as_str().expect("text").contains("truncated"), "{told}");
    let headless = studio.path("headless.mp4");
    cut(&studio.path("film.mp4"), 60, &headless);
    assert_eq!(verdict(&headless, json!({})).0, "unreadable");
    // Bytes in the middle of the pictures are another's.
    let mut bytes = std::fs::read(studio.path("film.mkv")).expect("it was made");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 3000].fill(0xA5);
    let spoiled = studio.path("spoiled.mkv");
    std::fs::write(&spoiled, &bytes).expect("the folder can be written");
    let (is, told) = verdict(&spoiled, json!({}));
    assert_eq!(is, "damaged", "{told}");
    let text = studio.path("text.mp4");
    std::fs::write(&text, "no film").expect("the folder can be written");
    assert_eq!(verdict(&text, json!({})).0, "unreadable");
    let sound = studio.path("sound.mp3");
    ffmpeg("-f lavfi -i sine=frequency=440 -t 3", &sound);
    assert_eq!(verdict(&sound, json!({})).0, "good");
}

#[test]
fn thumbnails_are_made_checked_and_published_together() {
    let studio = Studio::new();
    let film = film(&studio, "my film.mp4", 12);
    let told = run(&studio, "thumbnail", &film, &json!({})).expect("the film is good");
    let names = ["my film-poster.jpg", "my film-preview.mp4", "my film-sprite.jpg"];
    assert_eq!(studio.outputs(), [&names[..], &["my film-sprite.vtt"]].concat());
    let kinds: Vec<_> = told["outputs"].as_array().expect("listed").iter().collect();
    assert_eq!(kinds.len(), 4, "{told}");
    let size =
        |name: &str| ffprobe("-show_entries stream=width,height", &studio.path("out").join(name));
    assert_eq!(size(names[0]), ["640,360"]);
    assert_eq!(size(names[1]), ["320,180"]);
    // Twelve pictures, one a second: two rows of ten.
    assert_eq!(size(names[2]), ["1600,180"]);
    let index =
        std::fs::read_to_string(studio.path("out/my film-sprite.vtt")).expect("it is there");
    assert_eq!(index.matches("my%20film-sprite.jpg#xywh=").count(), 12, "{index}");
    assert!(index.contains("00:00:11.000 --> 00:00:12.0"), "{index}");
}

#[test]
fn a_film_with_one_keyframe_gets_different_pictures_in_its_sheet() {
    let studio = Studio::new();
    let film = studio.path("film.mp4");
    ffmpeg(&format!("-f lavfi -i testsrc2=s=320x180:r=25 -t 6 {FAST} -g 1000"), &film);
    let told = run(&studio, "thumbnail", &film, &json!({"sprite": {}})).expect("it is good");
    assert_eq!(told["outputs"][0]["tiles"], json!(6), "{told}");
    let tile = |x: u32| {
        let sum = studio.path("sum");
        let sheet = studio.path("out/film-sprite.jpg").display().to_string();
        ffmpeg(&format!("-i {sheet} -vf crop=160:90:{x}:0 -f md5"), &sum);
        std::fs::read_to_string(&sum).expect("it was made")
    };
    assert!(tile(0) != tile(320) && tile(320) != tile(800));
}

#[test]
fn thumbnails_of_turned_short_and_silent_films_are_made_too() {
    let studio = Studio::new();
    let one = studio.path("one.mkv");
    ffmpeg("-f lavfi -i testsrc2=s=321x241:r=25 -frames:v 1 -c:v ffv1 -pix_fmt yuv444p", &one);
    let asked = json!({"poster": {"at": 100, "width": 64}, "preview": {"format": "gif"}});
    let told = run(&studio, "thumbnail", &one, &asked).expect("one frame is a film");
    assert_eq!(told["outputs"][0]["width"], json!(64), "{told}");
    assert_eq!(studio.outputs(), ["one-poster.jpg", "one-preview.gif"]);
    let sound = studio.path("sound.mka");
    ffmpeg("-f lavfi -i sine=frequency=440 -t 1", &sound);
    let failure = run(&studio, "thumbnail", &sound, &json!({})).expect_err("nothing to see");
    assert!(failure.permanent && failure.message.contains("no video stream"), "{failure:?}");
    let text = run(&studio, "thumbnail", Path::new("/nowhere.mp4"), &json!({}));
    assert!(text.expect_err("no such file").message.contains("does not exist"));
}
