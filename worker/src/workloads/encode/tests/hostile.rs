//! Films that are cut, damaged or none at all fail with a sentence that says so, and leave
//! nothing behind.

use super::stage::{Studio, cut, ffmpeg};
use serde_json::json;
use std::path::PathBuf;

fn film(studio: &Studio, name: &str) -> PathBuf {
    let film = studio.path(name);
    let source = "-f lavfi -i testsrc2=s=320x240:r=30 -f lavfi -i sine -t 8";
    let codecs = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac";
    let container = if name.ends_with("mp4") { "-movflags +faststart" } else { "" };
    ffmpeg(&format!("{source} {codecs} {container}"), &film);
    film
}

#[test]
fn truncated_films_are_refused_and_whole_ones_are_not() {
    let studio = Studio::new();
    for container in ["mp4", "mkv"] {
        let whole = film(&studio, &format!("whole.{container}"));
        for percent in [60, 90] {
            let part = studio.path(format!("part.{container}"));
            cut(&whole, percent, &part);
            let sentence = studio.refuse(&part, &json!({}));
            assert!(sentence.contains("is truncated: it declares 8."), "{sentence}");
        }
    }
    for container in ["mp4", "mkv", "ts", "avi"] {
        let whole = film(&studio, &format!("whole.{container}"));
        studio.run(&whole, &json!({"expect": {"duration_ms": 8000}})).expect(container);
    }
}

#[test]
fn a_truncated_avi_is_refused() {
    let studio = Studio::new();
    let (whole, part) = (film(&studio, "whole.avi"), studio.path("part.avi"));
    cut(&whole, 60, &part);
    let sentence = studio.refuse(&part, &json!({}));
    assert!(sentence.contains("is truncated"), "{sentence}");
}

#[test]
fn a_truncated_fragmented_mp4_is_refused() {
    let studio = Studio::new();
    let (whole, part) = (studio.path("whole.mp4"), studio.path("part.mp4"));
    let plain = film(&studio, "plain.mp4");
    let fragments = "-c copy -movflags frag_keyframe+empty_moov";
    ffmpeg(&format!("-i {} {fragments}", plain.display()), &whole);
    studio.run(&whole, &json!({})).expect("the whole film is good");
    std::fs::remove_dir_all(studio.path("out")).expect("the outputs are there");
    cut(&whole, 60, &part);
    let sentence = studio.refuse(&part, &json!({}));
    assert!(sentence.contains("is truncated"), "{sentence}");
}

#[test]
fn an_mp4_whose_index_is_cut_off_is_called_truncated() {
    let studio = Studio::new();
    let (whole, part) = (studio.path("whole.mp4"), studio.path("part.mp4"));
    let plain = film(&studio, "plain.mp4");
    ffmpeg(&format!("-i {} -c copy", plain.display()), &whole);
    cut(&whole, 60, &part);
    let sentence = studio.refuse(&part, &json!({}));
    assert!(sentence.contains("truncated") && sentence.contains("moov"), "{sentence}");
}

#[test]
fn a_truncated_transport_stream_is_found_by_what_was_expected() {
    let studio = Studio::new();
    let (whole, part) = (film(&studio, "whole.ts"), studio.path("part.ts"));
    cut(&whole, 60, &part);
    let sentence = studio.refuse(&part, &json!({"expect": {"duration_ms": 8000}}));
    assert!(sentence.contains("is truncated: 8.00 s were expected"), "{sentence}");
    let result = studio.encode(&part, &json!({}));
    assert!(result["outputs"][0]["frames"].as_u64().is_some_and(|frames| frames < 150));
}

#[test]
fn what_is_no_film_is_refused_with_a_sentence() {
    let studio = Studio::new();
    let write = |name: &str, bytes: &[u8]| {
        let path = studio.path(name);
        std::fs::write(&path, bytes).expect("the folder can be written");
        path
    };
    let sound = studio.path("sound.mp4");
    ffmpeg("-f lavfi -i sine -t 1 -c:a aac", &sound);
    for (path, words) in [
        (write("empty.mp4", b""), "is empty"),
        (write("text.txt", b"just some text\nand more\n"), "cannot be used"),
        (write("text.mp4", b"just some text\nand more\n"), "cannot be used"),
        (write("list.m3u8", b"#EXTM3U\n#EXTINF:5,\n/etc/passwd\n"), "cannot be used"),
        (write("list.txt", b"ffconcat version 1.0\nfile /etc/passwd\n"), "cannot be used"),
        (sound, "has no video stream"),
        (studio.path("missing.mp4"), "does not exist"),
        (studio.path(""), "is not a regular file"),
    ] {
        let sentence = studio.refuse(&path, &json!({}));
        assert!(sentence.contains(words), "{}: {sentence}", path.display());
    }
}

#[test]
fn a_film_with_a_broken_middle_is_refused_but_a_scratch_is_borne() {
    let studio = Studio::new();
    let whole = film(&studio, "whole.mp4");
    let bytes = std::fs::read(&whole).expect("the film was made");
    let scratched = |from: usize, to: usize| {
        let mut bytes = bytes.clone();
        let range = bytes.len() * from / 100..bytes.len() * to / 100;
        bytes[range].iter_mut().for_each(|byte| *byte = 0xff);
        let path = studio.path("scratched.mp4");
        std::fs::write(&path, bytes).expect("the folder can be written");
        path
    };
    let sentence = studio.refuse(&scratched(40, 80), &json!({}));
    assert!(sentence.contains("damaged"), "{sentence}");
    let result = studio.encode(&scratched(50, 51), &json!({}));
    let warnings = result["warnings"].to_string();
    assert!(warnings.contains("ffmpeg reported"), "{warnings}");
}

#[test]
fn cover_art_beside_sound_is_no_film() {
    let studio = Studio::new();
    let (cover, sound) = (studio.path("cover.png"), studio.path("song.m4a"));
    ffmpeg("-f lavfi -i testsrc2=s=64x64 -frames:v 1", &cover);
    let art = format!("-i {} -map 0 -map 1 -c:v copy -disposition:v attached_pic", cover.display());
    ffmpeg(&format!("-f lavfi -t 1 -i sine {art}"), &sound);
    assert!(studio.refuse(&sound, &json!({})).contains("has no video stream"));
}
