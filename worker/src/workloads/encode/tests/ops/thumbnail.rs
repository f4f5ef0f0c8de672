//! Posters, sheets with their index, and previews: made together, checked, and of the whole film.

use super::super::stage::{Studio, ffmpeg, ffprobe};
use super::{FAST, film, is_near, is_stopped_at, job, pixel, refuse, run, with_progress};
use crate::StopReason;
use serde_json::json;
use std::path::Path;

#[test]
fn thumbnails_are_made_checked_and_published_together() {
    let studio = Studio::new();
    let film = film(&studio, "my film.mp4", 12);
    let (told, notes) = with_progress(&job(&studio, "thumbnail", &film, &json!({})));
    for what in ["making the poster", "making the sprite, ", "making the preview, "] {
        assert!(notes.iter().any(|note| note.starts_with(what)), "{what}: {notes:?}");
    }
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

#[test]
fn a_stopped_attempt_leaves_nothing() {
    let studio = Studio::new();
    let film = film(&studio, "film.mp4", 4);
    let job = job(&studio, "thumbnail", &film, &json!({}));
    for (text, reason) in [
        ("making the poster", StopReason::Stalled),
        ("making the sprite", StopReason::Cancelled),
        ("making the preview", StopReason::Timeout),
    ] {
        is_stopped_at(&studio, &job, text, reason);
    }
}

#[test]
fn a_film_that_ends_before_its_time_gets_no_sheet_of_it() {
    let studio = Studio::new();
    let whole = film(&studio, "film.mkv", 4);
    let mut bytes = std::fs::read(&whole).expect("it was made");
    // Ten hours by its header: the float after the EBML name of its length, 0x4489.
    let at = bytes.windows(3).position(|three| three == [0x44, 0x89, 0x88]).expect("a length");
    bytes[at + 3..at + 11].copy_from_slice(&36_000_000.0_f64.to_be_bytes());
    let liar = studio.path("liar.mkv");
    std::fs::write(&liar, bytes).expect("the folder can be written");
    let sentence = refuse(&studio, "thumbnail", &liar, &json!({}));
    assert!(sentence.contains("is truncated: it declares 36000.00 s"), "{sentence}");
    // One frame of it can be shown all the same.
    let told = run(&studio, "thumbnail", &liar, &json!({"poster": {}})).expect("it has frames");
    assert_eq!(told["outputs"][0]["at_ms"], json!(0), "{told}");
}

#[test]
fn a_sheet_shows_each_moment_at_its_place() {
    let studio = Studio::new();
    let film = studio.path("film.mp4");
    // Red for three seconds, then blue.
    let inputs = "-f lavfi -t 3 -i color=0xC02020:s=320x180:r=25 \
                  -f lavfi -t 3 -i color=0x2020C0:s=320x180:r=25";
    ffmpeg(&format!("{inputs} -filter_complex concat {FAST}"), &film);
    let asked = json!({"sprite": {"columns": 3, "rows": 3, "width": 64}});
    let told = run(&studio, "thumbnail", &film, &asked).expect("it is good");
    assert_eq!((&told["outputs"][0]["tiles"], &told["outputs"][0]["rows"]), (&json!(6), &json!(2)));
    let sheet = studio.path("out/film-sprite.jpg");
    for (x, y, color) in [
        (20, 10, [0xC0, 0x20, 0x20, 0xFF]),
        (150, 10, [0xC0, 0x20, 0x20, 0xFF]),
        (20, 50, [0x20, 0x20, 0xC0, 0xFF]),
        (150, 50, [0x20, 0x20, 0xC0, 0xFF]),
    ] {
        let found = pixel(&sheet, "", 0.0, (x, y));
        assert!(is_near(found, color, 12), "{x},{y}: {found:?}");
    }
}
