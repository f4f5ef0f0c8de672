//! Screens are keyed: what is transparent afterwards, what is shown instead, and what is refused.

use super::super::stage::{Stage, Studio, ffmpeg, ffprobe};
use super::{is_near, is_stopped_at, job, pixel, refuse, run, with_progress};
use crate::StopReason;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const FAST: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";
const SOUND: &str = "-f lavfi -i sine=frequency=440";
const RED: [u8; 4] = [0xC0, 0x40, 0x20, 0xFF];

/// A red box that moves before a screen of this colour, with noise.
fn screen(studio: &Studio, name: &str, color: &str, codec: &str) -> PathBuf {
    let film = studio.path(name);
    let inputs = format!(
        "-f lavfi -i color={color}:s=320x180:r=25 -f lavfi -i color=0xC04020:s=80x100:r=25 {SOUND}"
    );
    let graph = "[0][1]overlay=x=60+60*t:y=80[v]";
    let maps = "-map [v] -map 2 -t 2";
    ffmpeg(&format!("{inputs} -filter_complex {graph} {maps} {codec} -c:a aac"), &film);
    film
}

fn output(told: &Value) -> PathBuf {
    PathBuf::from(told["outputs"][0]["path"].as_str().expect("a path is text"))
}

fn streams(path: &Path) -> Vec<String> {
    ffprobe("-show_entries stream=codec_name", path)
}

#[test]
fn a_screen_is_found_and_becomes_transparent_in_webm() {
    let studio = Studio::new();
    let film = screen(&studio, "actor.mp4", "0x00B140", FAST);
    let (told, notes) = with_progress(&job(&studio, "keying", &film, &json!({})));
    assert_eq!(studio.outputs(), ["actor-keyed.webm"]);
    let (key, made) = (&told["key"], &told["outputs"][0]);
    assert_eq!((&key["found_in_border"], &key["despill"]), (&json!(true), &json!("green")));
    assert_eq!((&made["frames"], &made["width"]), (&json!(50), &json!(320)), "{told}");
    let clear = made["alpha"]["transparent"].as_f64().expect("a share");
    assert!((0.8..0.9).contains(&clear), "{told}");
    assert_eq!(made["alpha"]["transparent_corners"], json!(4));
    let path = output(&told);
    assert_eq!(streams(&path), ["vp9", "opus"]);
    let [.., corner] = pixel(&path, "-c:v libvpx-vp9", 1.0, (4, 4));
    assert!(corner <= 4, "{corner}");
    // The box has moved by half of the film.
    let actor = pixel(&path, "-c:v libvpx-vp9", 1.0, (150, 120));
    assert!(is_near(actor, RED, 16), "{actor:?}");
    assert!(notes.iter().any(|note| note.starts_with("keying, ")), "{notes:?}");
}

#[test]
fn the_grain_of_a_screen_costs_nothing_once_it_is_transparent() {
    let studio = Studio::new();
    let mut sizes = [0, 0];
    for (size, grain) in sizes.iter_mut().zip(["", ",noise=alls=14:allf=t"]) {
        let film = studio.path("grain.mp4");
        let screen = format!("color=0x00B140:s=320x180:r=25{grain}");
        let inputs = format!("-f lavfi -i {screen} -f lavfi -i color=0xC04020:s=80x100:r=25");
        let graph = "-filter_complex [0][1]overlay=x=60+60*t:y=40";
        ffmpeg(&format!("{inputs} {graph} -t 2 {FAST} -crf 12"), &film);
        let told = run(&studio, "keying", &film, &json!({})).expect("it can be keyed");
        assert!(
            told["outputs"][0]["alpha"]["transparent"].as_f64().is_some_and(|share| share > 0.8)
        );
        let path = output(&told);
        *size = path.metadata().expect("it is there").len();
        // The box is from 120 to 200, and is what it was up to its edge.
        for place in [(124, 90), (160, 90), (193, 90)] {
            let actor = pixel(&path, "-c:v libvpx-vp9", 1.0, place);
            assert!(is_near(actor, RED, 24), "{place:?}: {actor:?}");
        }
    }
    // What is left of it lies around the box; all of it would be a hundred times as much.
    assert!(sizes[1] < 20 * sizes[0], "{sizes:?}");
}

#[test]
fn prores_keeps_transparency_and_the_sound_as_it_is() {
    let studio = Studio::new();
    let film = screen(&studio, "actor.mp4", "0x0047BB", FAST);
    let asked = json!({"format": "mov", "color": "#0047BB"});
    let told = run(&studio, "keying", &film, &asked).expect("it can be keyed");
    assert_eq!(told["key"]["despill"], json!("blue"), "{told}");
    let path = output(&told);
    assert_eq!(streams(&path), ["prores", "aac"]);
    let audio = told["outputs"][0]["audio"][0]["because"].as_str().expect("a reason");
    assert!(audio.starts_with("copied"), "{audio}");
    let [.., corner] = pixel(&path, "", 1.0, (4, 4));
    assert!(corner <= 4, "{corner}");
    assert!(is_near(pixel(&path, "", 1.0, (150, 120)), RED, 16));
}

#[test]
fn a_background_shows_where_the_screen_was_whatever_its_size_and_length() {
    let studio = Studio::new();
    let film = screen(&studio, "actor.mp4", "0x00B140", FAST);
    let (picture, photo) = (studio.path("behind.png"), studio.path("behind.jpg"));
    ffmpeg("-f lavfi -i color=0x2040A0:s=500x500 -frames:v 1", &picture);
    ffmpeg("-f lavfi -i color=0x2040A0:s=64x200 -frames:v 1", &photo);
    let short = studio.path("behind.mp4");
    ffmpeg(&format!("-f lavfi -i color=0x2040A0:s=200x90:r=10 {SOUND} -t 0.7 {FAST}"), &short);
    for behind in [picture, photo, short] {
        let asked = json!({"background": behind});
        let told = run(&studio, "keying", &film, &asked).expect("it can be composed");
        assert_eq!(studio.outputs(), ["actor-composed.mp4"]);
        let path = output(&told);
        assert_eq!(streams(&path), ["h264", "aac"]);
        assert_eq!(told["outputs"][0]["frames"], json!(50), "{told}");
        for seconds in [0.0, 1.0, 1.9] {
            let corner = pixel(&path, "", seconds, (4, 4));
            assert!(is_near(corner, [0x20, 0x40, 0xA0, 0xFF], 8), "{behind:?}: {corner:?}");
        }
        let actor = pixel(&path, "", 1.0, (150, 120));
        assert!(is_near(actor, RED, 16), "{behind:?}: {actor:?}");
    }
}

#[test]
fn high_definition_silent_odd_irregular_and_single_pictures_are_keyed_too() {
    let studio = Studio::new();
    let make = |name: &str, source: &str, codec: &str| {
        let film = studio.path(name);
        // FFmpeg would turn the colours into the matrix of small films.
        let (more, codec) = codec.split_once('|').unwrap_or(("", codec));
        let actor = "drawbox=x=iw/3:y=ih/3:w=iw/3:h=ih/3:c=0xC04020:t=fill";
        ffmpeg(&format!("-f lavfi -i color=0x00B140:{source} -vf {actor}{more} {codec}"), &film);
        film
    };
    let matrix = ",format=gbrp,scale=out_color_matrix=bt709:out_range=pc,format=yuv444p|";
    let hd = format!("{matrix} -c:v ffv1 -colorspace bt709 -color_range pc");
    let gaps = ",settb=1/1000,setpts=PTS+mod(N\\,3)*7|";
    let gaps = format!("{gaps} -fps_mode passthrough -enc_time_base 1/1000 {FAST}");
    for (film, frames) in [
        (make("hd.mkv", "s=160x90:r=5 -t 1", &hd), 5),
        (make("odd.mkv", "s=321x181:r=10 -t 1", "-c:v ffv1 -pix_fmt yuv444p10le"), 10),
        (make("rgb.mkv", "s=128x72:r=10 -t 1", "-c:v ffv1 -pix_fmt bgr0"), 10),
        (make("gaps.mkv", "s=128x72:r=30 -t 1", &gaps), 30),
        (make("one.mkv", "s=128x72:r=25 -frames:v 1", "-c:v ffv1"), 1),
    ] {
        let told = run(&studio, "keying", &film, &json!({})).expect("it can be keyed");
        let (key, made) = (&told["key"]["color"], &told["outputs"][0]);
        assert_eq!(made["frames"], json!(frames), "{told}");
        let path = output(&told);
        let size = (made["width"].as_u64(), made["height"].as_u64());
        let (width, height) = (size.0.expect("a number") as u32, size.1.expect("a number") as u32);
        let actor = pixel(&path, "-c:v libvpx-vp9", 0.0, (width / 2, height / 2));
        assert!(is_near(actor, RED, 12), "{film:?} {key}: {actor:?}");
        assert!(pixel(&path, "-c:v libvpx-vp9", 0.0, (2, 2))[3] <= 4, "{film:?}");
    }
}

#[test]
fn what_cannot_be_keyed_is_refused_with_the_reason() {
    let studio = Studio::new();
    let film = screen(&studio, "actor.mp4", "0x00B140", FAST);
    let motley = studio.path("motley.mp4");
    ffmpeg(&format!("-f lavfi -i testsrc=s=320x180:r=25 -t 1 {FAST}"), &motley);
    let write = |name: &str, text: &str| {
        std::fs::write(studio.path(name), text).expect("the folder can be written");
        studio.path(name)
    };
    let empty = write("empty.png", "");
    let picture = write("cut.png", "\u{89}PNG\r\n");
    let list = write("list.m3u8", "#EXTM3U\n#EXTINF:5,\n/etc/passwd\n");
    let concat = write("concat.mp4", "ffconcat version 1.0\nfile /etc/passwd\n");
    for (input, asked, words) in [
        (&motley, json!({}), "no colour dominates its border"),
        (&film, json!({"color": "blue"}), "nothing of it becomes transparent"),
        (&film, json!({"color": "#00B140", "tolerance": 0.6}), "all of it becomes transparent"),
        (&film, json!({"format": "mp4"}), "keeps no transparency"),
        (&film, json!({"background": empty}), "the background cannot be used"),
        (&film, json!({"background": picture}), "background"),
        (&film, json!({"background": list}), "the background cannot be used"),
        (&film, json!({"background": "/nowhere.png"}), "does not exist"),
        (&concat, json!({}), "cannot be used"),
        (&empty, json!({}), "is empty"),
    ] {
        let sentence = refuse(&studio, "keying", input, &asked);
        assert!(sentence.contains(words), "{asked}: {sentence}");
        assert!(!sentence.contains("root:"), "{sentence}");
    }
}

#[test]
fn a_stopped_attempt_leaves_nothing_and_the_next_one_finishes_what_was_stored() {
    let studio = Studio::new();
    let film = screen(&studio, "actor.mp4", "0x00B140", FAST);
    let mut job = job(&studio, "keying", &film, &json!({}));
    for (text, reason) in [
        ("looking for the colour", StopReason::Timeout),
        ("trying the key", StopReason::Released),
        ("keying, ", StopReason::Cancelled),
        ("checking the output", StopReason::Stalled),
    ] {
        is_stopped_at(&studio, &job, text, reason);
    }
    let stage = Stage::default();
    let told = super::ops::run(&job, &stage).expect("it can be keyed");
    std::fs::create_dir(studio.path("out/.shiftboss-7-1")).expect("the folder is ours");
    let staged = studio.path("out/.shiftboss-7-1/actor-keyed.webm");
    std::fs::rename(studio.path("out/actor-keyed.webm"), staged).expect("it is there");
    std::fs::remove_file(film).expect("it is ours");
    job.checkpoint = stage.checkpoint.lock().expect("no test panics with it").clone();
    job.attempt = shiftboss_protocol::job::Attempt(2);
    assert_eq!(super::ops::run(&job, &Stage::default()).expect("a rename was missing"), told);
    assert_eq!(studio.outputs(), ["actor-keyed.webm"]);
}
