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
        (write("one-byte.mp4", b"\0"), "cannot be used"),
        (write("random.mp4", &random(100_000)), "cannot be used"),
        (write("random.mkv", &random(3)), "cannot be used"),
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

/// Bytes without meaning, always the same ones.
fn random(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn a_film_of_one_frame_is_a_film() {
    let studio = Studio::new();
    for (name, sound) in [("one.mp4", ""), ("one.mkv", "-f lavfi -i sine -t 0.04 -c:a aac")] {
        let film = studio.path(name);
        let codec = "-c:v libx264 -pix_fmt yuv420p -frames:v 1";
        ffmpeg(&format!("-f lavfi -i testsrc2=s=320x240:r=25 {sound} {codec}"), &film);
        for check in ["quick", "full"] {
            let result = studio.run(&film, &json!({"check": check})).expect(name);
            let output = &result["outputs"][0];
            assert_eq!(
                (&output["frames"], &output["check"]["decoded_frames"]),
                (&json!(1), &json!(1))
            );
        }
    }
}

/// The bytes after the last place of `words`.
fn after<'a>(bytes: &'a mut [u8], words: &[u8]) -> &'a mut [u8] {
    let at = bytes.windows(words.len()).rposition(|window| window == words);
    let at = at.expect("the header is there") + words.len();
    &mut bytes[at..]
}

#[test]
fn a_film_that_declares_ten_hours_and_holds_two_seconds_is_no_film_of_ten_hours() {
    let studio = Studio::new();
    let codec = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";
    let source = &format!("-f lavfi -i testsrc2=s=160x120:r=25 -t 2 {codec}");
    let write = |name: &str, bytes: &[u8]| {
        let path = studio.path(name);
        std::fs::write(&path, bytes).expect("the folder can be written");
        path
    };
    // Matroska: its length is a number of milliseconds.
    let plain = studio.path("plain.mkv");
    ffmpeg(source, &plain);
    let mut bytes = std::fs::read(&plain).expect("it was made");
    after(&mut bytes, &[0x44, 0x89, 0x88])[..8].copy_from_slice(&36_000_000_f64.to_be_bytes());
    let sentence = studio.refuse(&write("long.mkv", &bytes), &json!({}));
    assert!(sentence.contains("is truncated: it declares 36000.00 s"), "{sentence}");
    // MP4: only the headers of film and track lie, all 50 frames that they count are there.
    let plain = studio.path("plain.mp4");
    ffmpeg(source, &plain);
    let mut bytes = std::fs::read(&plain).expect("it was made");
    after(&mut bytes, b"mvhd")[16..20].copy_from_slice(&36_000_000_u32.to_be_bytes());
    after(&mut bytes, b"tkhd")[20..24].copy_from_slice(&36_000_000_u32.to_be_bytes());
    let result = studio.encode(&write("headers.mp4", &bytes), &json!({}));
    let length = |result: &serde_json::Value| result["outputs"][0]["duration_ms"].as_u64();
    assert!(length(&result).is_some_and(|ms| (1990..2100).contains(&ms)), "{result}");
    // Each of 50 frames is shown for 720 s: an odd film, but one, of ten hours and few bytes.
    let slow = studio.path("slow.mp4");
    let rare = "-vf setpts=N*720/TB -fps_mode vfr -enc_time_base 1/1000";
    ffmpeg(&format!("-f lavfi -i testsrc2=s=160x120:r=25 {rare} -frames:v 50 {codec}"), &slow);
    let result = studio.run(&slow, &json!({})).expect("it is an odd film, but one");
    assert_eq!(result["outputs"][0]["frames"], json!(50));
    assert!(length(&result).is_some_and(|ms| ms > 35_000_000), "{result}");
}

#[test]
fn a_picture_that_is_shown_for_long_is_a_film() {
    let studio = Studio::new();
    let film = studio.path("slides.mkv");
    let slides = "-f lavfi -i testsrc2=s=160x120:r=1/30 -f lavfi -i sine -t 60";
    ffmpeg(
        &format!("{slides} -frames:v 2 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac"),
        &film,
    );
    let result = studio.encode(&film, &json!({"check": "full"}));
    assert_eq!(result["outputs"][0]["frames"], json!(2));
}

#[test]
fn pictures_that_do_not_fit_into_memory_end_with_a_cause() {
    let studio = Studio::new();
    let film = studio.path("huge.mkv");
    // 144 million pixels from some kilobytes.
    let source = "-f lavfi -i color=red:s=12000x12000:r=1 -frames:v 1";
    ffmpeg(&format!("{source} -c:v mjpeg -pix_fmt yuvj420p -q:v 31"), &film);
    // FFmpeg alone has the limit: 300 MB hold no such picture and its copies.
    let poor = studio.path("poor-ffmpeg");
    std::fs::write(&poor, "#!/bin/bash\nulimit -v 300000\nexec ffmpeg \"$@\"\n")
        .expect("the folder can be written");
    std::fs::set_permissions(&poor, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("the file is ours");
    let mut stage = super::stage::Stage::default();
    stage.settings.ffmpeg = poor.display().to_string();
    let job = studio.job(&film, &json!({"renditions": ["144p"]}));
    let failure = super::super::ladder::run(&job, &stage).expect_err("it does not fit");
    let words = failure.message.as_str();
    assert!(!failure.permanent && words.contains("memory ran out"), "{failure:?}");
    assert_eq!(studio.outputs(), Vec::<String>::new());
    // FFmpeg itself takes no pictures of 16384 x 16384.
    let (small, film) = (studio.path("small.mkv"), studio.path("larger.mkv"));
    ffmpeg("-f lavfi -i testsrc2=s=320x320:r=1 -t 3 -c:v mjpeg -pix_fmt yuvj420p", &small);
    let mut bytes = std::fs::read(&small).expect("it was made");
    let sides: [(&[u8], &[u8]); 3] = [
        (&[0xFF, 0xC0, 0, 17, 8, 1, 64, 1, 64], &[0xFF, 0xC0, 0, 17, 8, 64, 0, 64, 0]),
        (&[0xB0, 0x82, 1, 64], &[0xB0, 0x82, 64, 0]),
        (&[0xBA, 0x82, 1, 64], &[0xBA, 0x82, 64, 0]),
    ];
    for (from, to) in sides {
        let places: Vec<usize> =
            (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
        assert!(!places.is_empty(), "{from:x?}");
        places.iter().for_each(|at| bytes[*at..at + to.len()].copy_from_slice(to));
    }
    std::fs::write(&film, bytes).expect("the folder can be written");
    let sentence = studio.refuse(&film, &json!({}));
    assert!(sentence.contains("larger than FFmpeg can decode"), "{sentence}");
}
