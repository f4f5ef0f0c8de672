//! Films move into another container with as little encoded as possible, and every stream's
//! fate is told.

use super::super::stage::{Studio, ffmpeg, ffprobe, turn};
use super::{is_stopped_at, job, refuse, run, with_progress};
use crate::StopReason;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const FAST: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";
const SOURCE: &str = "-f lavfi -i testsrc2=s=320x180:r=25 -f lavfi -i sine -t 2";

fn film(studio: &Studio, name: &str, codecs: &str) -> PathBuf {
    let film = studio.path(name);
    ffmpeg(&format!("{SOURCE} {codecs}"), &film);
    film
}

fn path_of(told: &Value) -> PathBuf {
    PathBuf::from(told["outputs"][0]["path"].as_str().expect("a path is text"))
}

/// What became of each stream of the input.
fn actions(told: &Value) -> Vec<String> {
    let streams = told["streams"].as_array().expect("they are listed");
    let text = |one: &Value, key: &str| one[key].as_str().expect("text").to_owned();
    streams.iter().map(|one| format!("{} {}", text(one, "kind"), text(one, "action"))).collect()
}

/// Hashes of all packets of a stream.
fn packets(path: &Path, stream: &str) -> Vec<String> {
    let entries = format!("-select_streams {stream} -show_data_hash MD5");
    ffprobe(&format!("{entries} -show_entries packet=data_hash"), path)
}

#[test]
fn a_film_that_fits_is_moved_without_a_changed_bit() {
    let studio = Studio::new();
    let film = film(&studio, "film.mkv", &format!("{FAST} -bf 2 -c:a aac -metadata title=Hello"));
    let (told, notes) = with_progress(&job(&studio, "passthrough", &film, &json!({})));
    assert_eq!(studio.outputs(), ["film-passthrough.mp4"]);
    assert_eq!(actions(&told), ["video copied", "audio copied"]);
    let because = told["streams"][0]["because"].as_str().expect("a reason");
    assert_eq!(because, "it is h264 yuv420p 320x180, which fits");
    let path = path_of(&told);
    for stream in ["v:0", "a:0"] {
        let (before, after) = (packets(&film, stream), packets(&path, stream));
        assert!(before.len() > 40 && before == after, "{stream}");
    }
    assert_eq!(ffprobe("-show_entries format_tags=title", &path), ["Hello"]);
    // The index comes first, so that players need not read the file to its end.
    let bytes = std::fs::read(&path).expect("it is there");
    let place = |name: &[u8]| bytes.windows(4).position(|four| four == name).expect("an MP4");
    assert!(place(b"moov") < place(b"mdat"));
    assert!(notes.iter().any(|note| note.starts_with("copying")), "{notes:?}");
}

#[test]
fn only_streams_that_do_not_fit_are_encoded() {
    let studio = Studio::new();
    let sound = film(&studio, "sound.mkv", &format!("{FAST} -c:a libvorbis"));
    let told = run(&studio, "passthrough", &sound, &json!({})).expect("possible");
    assert_eq!(actions(&told), ["video copied", "audio encoded"]);
    let path = path_of(&told);
    assert_eq!(packets(&sound, "v:0"), packets(&path, "v:0"));
    assert_eq!(ffprobe("-show_entries stream=codec_name", &path), ["h264", "aac"]);
    let picture = film(&studio, "picture.avi", "-c:v mpeg4 -c:a mp3");
    let told = run(&studio, "passthrough", &picture, &json!({})).expect("possible");
    assert_eq!(actions(&told), ["video encoded", "audio copied"]);
    assert_eq!(told["streams"][0]["because"], json!("mpeg4 is none of h264"));
    assert_eq!(packets(&picture, "a:0"), packets(&path_of(&told), "a:0"));
    assert_eq!(told["outputs"][0]["frames"], json!(50));
    // The same film, asked for in a smaller size, and in Matroska.
    let small = json!({"short_side_max": 144, "format": "mkv"});
    let told = run(&studio, "passthrough", &sound, &small).expect("possible");
    assert_eq!(actions(&told), ["video encoded", "audio copied"]);
    let (width, height) = (&told["outputs"][0]["width"], &told["outputs"][0]["height"]);
    assert_eq!((width, height), (&json!(256), &json!(144)));
}

#[test]
fn subtitles_covers_chapters_and_second_films_each_get_their_answer() {
    let studio = Studio::new();
    let write = |name: &str, text: &str| {
        std::fs::write(studio.path(name), text).expect("the folder can be written");
        studio.path(name).display().to_string()
    };
    let texts = write("texts.srt", "1\n00:00:00,200 --> 00:00:01,500\nHello\n");
    let chapters = ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=900\ntitle=One\n\
                    [CHAPTER]\nTIMEBASE=1/1000\nSTART=900\nEND=2000\ntitle=Two\n";
    let chapters = write("chapters.txt", chapters);
    let font = write("font.ttf", "no font");
    let all = studio.path("all.mkv");
    let maps = "-map 0 -map 1 -map 1 -map 2 -map 0 -map_metadata 3";
    let codecs = format!("{FAST} -c:a aac -c:s srt -metadata:s:a:1 language=deu");
    let attached = format!("-attach {font} -metadata:s:t mimetype=font/ttf");
    let inputs = format!("{SOURCE} -i {texts} -i {chapters}");
    let inputs = inputs.replace(" -t 2", "");
    ffmpeg(&format!("{inputs} -t 2 {maps} {codecs} {attached}"), &all);
    let told = run(&studio, "passthrough", &all, &json!({})).expect("possible");
    assert_eq!(
        actions(&told),
        [
            "video copied",
            "audio copied",
            "audio copied",
            "subtitle converted",
            "video dropped",
            "data dropped",
        ]
    );
    let path = path_of(&told);
    let kinds = ffprobe("-show_entries stream=codec_name", &path);
    assert_eq!(kinds[..4], ["h264", "aac", "aac", "mov_text"]);
    assert_eq!(ffprobe("-show_entries chapter_tags=title", &path), ["One", "Two"]);
    let languages = ffprobe("-select_streams a:1 -show_entries stream_tags=language", &path);
    assert_eq!(languages, ["deu"]);

    let (cover, covered) = (studio.path("cover.png"), studio.path("covered.mp4"));
    ffmpeg("-f lavfi -i testsrc2=s=64x64 -frames:v 1", &cover);
    let art = format!("-map 0 -map 1 -map 2 {FAST} -c:v:1 copy -disposition:v:1 attached_pic");
    let inputs = SOURCE.replace(" -t 2", "");
    ffmpeg(&format!("{inputs} -i {} -t 2 {art} -c:a aac", cover.display()), &covered);
    let told = run(&studio, "passthrough", &covered, &json!({})).expect("possible");
    assert_eq!(actions(&told), ["video copied", "audio copied", "cover copied"], "{told}");
}

#[test]
fn what_cannot_be_copied_after_all_is_encoded_with_the_reason() {
    let studio = Studio::new();
    // AVI with pictures that are shown in another order than they are stored has no times.
    let timeless = film(&studio, "timeless.avi", "-c:v libx264 -preset ultrafast -bf 2 -c:a mp3");
    // MP4 does not take MP3 of so few samples: known only once FFmpeg refuses.
    let rough = film(&studio, "rough.mkv", &format!("{FAST} -c:a mp3 -ar 8000"));
    for (film, fate, words) in [
        (timeless, ["video encoded", "audio copied"], "50 of its pictures have no time"),
        (rough, ["video copied", "audio encoded"], "copying did not work: ffmpeg ended"),
    ] {
        let told = run(&studio, "passthrough", &film, &json!({})).expect("possible");
        assert_eq!(actions(&told), fate, "{told}");
        let streams = told["streams"].as_array().expect("a list");
        let encoded = streams.iter().find(|stream| stream["action"] == "encoded");
        let because = encoded.expect("one is")["because"].as_str().expect("a reason");
        assert!(because.starts_with(words), "{because}");
        let frames = "-select_streams v -count_frames -show_entries stream=nb_read_frames";
        assert_eq!(ffprobe(frames, &path_of(&told)), ["50"]);
    }
}

#[test]
fn of_what_cannot_be_copied_only_that_stream_is_encoded() {
    let studio = Studio::new();
    let film = film(&studio, "film.mkv", &format!("{FAST} -c:a aac"));
    for (refused, fate) in [
        ("*' -c:v:0 copy '*", ["video encoded", "audio copied"]),
        ("*' -c:a:0 copy '*", ["video copied", "audio encoded"]),
        ("*' -c:v:0 copy '*|*' -c:a:0 copy '*", ["video encoded", "audio encoded"]),
    ] {
        // A container that takes none of these as they are.
        let strict = studio.path("strict-ffmpeg");
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in {refused})\necho '[mp4 @ 0x1] [error] no such' >&2\n\
             exit 1 ;; esac\nexec ffmpeg \"$@\"\n"
        );
        std::fs::write(&strict, script).expect("the folder can be written");
        std::fs::set_permissions(&strict, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("the file is ours");
        let mut stage = super::Stage::default();
        stage.settings.ffmpeg = strict.display().to_string();
        let job = job(&studio, "passthrough", &film, &json!({}));
        let told = super::ops::run(&job, &stage).expect("possible");
        assert_eq!(actions(&told), fate, "{told}");
        let progress = stage.progress.lock().expect("no test panics with it");
        let shares: Vec<f64> = progress.iter().filter_map(|(share, _)| *share).collect();
        assert!(shares.is_sorted(), "{shares:?}");
    }
}

#[test]
fn a_film_that_begins_between_two_keyframes_keeps_what_can_be_shown() {
    let studio = Studio::new();
    let (whole, begun) = (studio.path("whole.ts"), studio.path("begun.ts"));
    ffmpeg(&format!("{SOURCE} {FAST} -bf 2 -g 25 -c:a aac"), &whole);
    ffmpeg(&format!("-ss 0.4 -i {} -c copy", whole.display()), &begun);
    let told = run(&studio, "passthrough", &begun, &json!({})).expect("possible");
    assert_eq!(actions(&told), ["video copied", "audio copied"], "{told}");
    assert!(told["outputs"][0]["frames"].as_u64().is_some_and(|frames| frames >= 25), "{told}");
}

#[test]
fn turned_films_stay_turned() {
    let studio = Studio::new();
    let (plain, turned) = (film(&studio, "plain.mp4", FAST), studio.path("turned.mp4"));
    turn(&plain, 90, "", &turned);
    for (format, action) in [("mp4", "copied"), ("mkv", "encoded")] {
        let asked = json!({"format": format});
        let told = run(&studio, "passthrough", &turned, &asked).expect("possible");
        assert_eq!(told["streams"][0]["action"], json!(action), "{told}");
        let (width, height) = (&told["outputs"][0]["width"], &told["outputs"][0]["height"]);
        assert_eq!((width, height), (&json!(180), &json!(320)), "{format}");
    }
}

#[test]
fn a_length_that_is_a_lie_is_refused() {
    let studio = Studio::new();
    let film = film(&studio, "film.mkv", &format!("{FAST} -c:a aac"));
    // Ten hours by the header of a film of two seconds: the float after its EBML name, 0x4489.
    let mut bytes = std::fs::read(&film).expect("it was made");
    let at = bytes.windows(3).position(|three| three == [0x44, 0x89, 0x88]).expect("a length");
    bytes[at + 3..at + 11].copy_from_slice(&36_000_000.0_f64.to_be_bytes());
    let liar = studio.path("liar.mkv");
    std::fs::write(&liar, bytes).expect("the folder can be written");
    for (op, more) in [("passthrough", json!({})), ("keying", json!({"color": "green"}))] {
        let sentence = refuse(&studio, op, &liar, &more);
        assert!(sentence.contains("is truncated: it declares 36000.00 s"), "{op}: {sentence}");
    }
    let clips = json!({"inputs": [film, liar]});
    let mut job = job(&studio, "stitch", &film, &clips);
    job.payload =
        job.payload.replacen(&format!("\"input\":{:?},", film.display().to_string()), "", 1);
    let failure = super::ops::run(&job, &super::Stage::default()).expect_err("a lie");
    assert!(failure.message.contains("inputs[1]") && failure.message.contains("is truncated"));
}

#[test]
fn what_is_no_film_is_refused_and_one_frame_is_a_film() {
    let studio = Studio::new();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(studio.path(name), bytes).expect("the folder can be written");
        studio.path(name)
    };
    let sound = studio.path("sound.m4a");
    ffmpeg("-f lavfi -i sine -t 1 -c:a aac", &sound);
    for (path, words) in [
        (write("empty.mp4", b""), "is empty"),
        (write("byte.mp4", b"x"), "cannot be used"),
        (write("text.mp4", b"no film\n"), "cannot be used"),
        (write("list.m3u8", b"#EXTM3U\n#EXTINF:5,\n/etc/passwd\n"), "cannot be used"),
        (write("list.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n"), "cannot be used"),
        (sound, "audio only"),
        (studio.path("missing.mp4"), "does not exist"),
    ] {
        let sentence = refuse(&studio, "passthrough", &path, &json!({}));
        assert!(sentence.contains(words), "{}: {sentence}", path.display());
    }
    let one = studio.path("one.mkv");
    ffmpeg(&format!("-f lavfi -i testsrc2=s=320x180:r=25 -frames:v 1 {FAST}"), &one);
    let told = run(&studio, "passthrough", &one, &json!({})).expect("one frame is a film");
    assert_eq!(
        (actions(&told), &told["outputs"][0]["frames"]),
        (vec!["video copied".to_owned()], &json!(1))
    );
}

#[test]
fn a_stopped_attempt_leaves_nothing() {
    let studio = Studio::new();
    let film = film(&studio, "film.mkv", &format!("{FAST} -c:a aac"));
    for (more, text, reason) in [
        (json!({}), "copying", StopReason::Cancelled),
        (json!({"short_side_max": 144}), "encoding", StopReason::Stalled),
        (json!({}), "checking the output", StopReason::Released),
    ] {
        is_stopped_at(&studio, &job(&studio, "passthrough", &film, &more), text, reason);
    }
}
