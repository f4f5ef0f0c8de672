//! Encoders are chosen by trying them, as long as their sessions last.

use super::super::super::codec::{Encoder, sessions};
use super::super::super::ladder;
use super::super::films::skip;
use super::super::stage::{Stage, Studio, ffmpeg, ffprobe};
use super::lost::{runs, stand_in};
use crate::Settings;
use serde_json::{Value, json};
use shiftboss_protocol::job::Cause;
use std::path::PathBuf;

const FAST: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 12";

pub(super) fn in_chunks(studio: &Studio) -> Stage {
    Stage { kept: Some(studio.path("kept")), ..Stage::default() }
}

/// A film of this many seconds.
pub(super) fn film(studio: &Studio, seconds: u32) -> PathBuf {
    let film = studio.path("film.mp4");
    let source = "-f lavfi -i testsrc2=s=256x144:r=25 -f lavfi -i sine";
    ffmpeg(&format!("{source} -t {seconds} {FAST} -c:a aac"), &film);
    film
}

/// This FFmpeg was built with the encoder.
fn is_built_in(encoder: &str) -> bool {
    let help = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-h", &format!("encoder={encoder}")])
        .output()
        .expect("ffmpeg is installed on every machine that runs these tests");
    String::from_utf8_lossy(&help.stdout).contains("Encoder ")
}

#[test]
fn software_encoders_make_the_same_film_in_chunks_and_as_hls() {
    for (encoder, codec, mark) in [
        ("libx265", "hevc", "hvc1.1."),
        ("libvpx-vp9", "vp9", "vp09.00."),
        ("libsvtav1", "av1", "av01.0."),
    ] {
        if !is_built_in(encoder) {
            skip(&format!("this FFmpeg has no {encoder}"));
            continue;
        }
        let studio = Studio::new();
        let film = film(&studio, 9);
        let more = json!({"codecs": [encoder], "chunk_seconds": 2, "format": "hls", "crf": 40,
                          "segment_seconds": 4, "renditions": ["144p"]});
        let stage = in_chunks(&studio);
        let result = ladder::run(&studio.job(&film, &more), &stage).expect(encoder);
        assert_eq!(result["encoder"], json!(encoder));
        assert_eq!((&result["chunks"], &result["warnings"]), (&json!(5), &json!([])), "{encoder}");
        assert_eq!(result["outputs"][0]["frames"], json!(225));
        let folder = studio.path("out/film-hls");
        let master = std::fs::read_to_string(folder.join("master.m3u8")).expect("it was made");
        assert!(master.contains(&format!("CODECS=\"{mark}")), "{master}");
        let entries = "-select_streams v -count_frames -show_entries \
                       stream=codec_name,nb_read_frames";
        let found = ffprobe(entries, &folder.join("144p.m3u8"));
        assert_eq!(found[0], format!("{codec},225"));
    }
}

#[test]
fn a_listed_encoder_that_does_not_work_gives_way_to_the_next() {
    let studio = Studio::new();
    let film = film(&studio, 2);
    let listed = ["h264_nvenc", "h264_vaapi", "h264_qsv", "libx264"];
    let result = studio.run(&film, &json!({"codecs": listed})).expect("libx264 works");
    let refused = result["encoders_refused"].as_array().expect("they are listed");
    // Where hardware works it is used; what came before it is named with its reason.
    let used = listed.iter().position(|name| result["encoder"] == json!(name));
    assert_eq!(Some(refused.len()), used, "{result}");
    for refused in refused {
        assert!(refused["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{result}");
    }
    assert_eq!(result["outputs"][0]["frames"], json!(50));
}

#[test]
fn a_list_without_a_working_encoder_fails_for_good_and_says_why() {
    let studio = Studio::new();
    let film = film(&studio, 2);
    let stage = Stage::default();
    let job = studio.job(&film, &json!({"codecs": ["h264_vaapi"]}));
    let Err(failure) = ladder::run(&job, &stage) else {
        return skip("the first device of this machine encodes");
    };
    assert!(failure.permanent && failure.cause == Cause::FailedStart, "{failure:?}");
    assert!(failure.message.contains("h264_vaapi: "), "{}", failure.message);
    assert!(failure.message.contains("libx264"), "{}", failure.message);
    assert_eq!(studio.outputs(), Vec::<String>::new());
}

#[test]
fn hardware_whose_sessions_are_all_in_use_gives_way() {
    let studio = Studio::new();
    let film = film(&studio, 2);
    let program = stand_in(&studio, "");
    let sessions_dir = studio.path("sessions").display().to_string();
    let settings = Settings {
        ffmpeg: program.display().to_string(),
        sessions_dir: sessions_dir.clone(),
        ..Settings::default()
    };
    let stage = Stage { settings, ..Stage::default() };
    let nvenc = Encoder::named("h264_nvenc").expect("it is known");
    let places = sessions::Places { devices: &[], folder: &sessions_dir };
    let others = sessions::take(places, nvenc, 7).expect("none is held");
    let job = |rungs: &[&str]| {
        studio.job(&film, &json!({"codecs": ["h264_nvenc", "libx264"], "renditions": rungs}))
    };
    let result = ladder::run(&job(&["144p", "146p"]), &stage).expect("one rung has a session");
    assert_eq!((&result["encoder"], runs(&studio)), (&json!("h264_nvenc"), 1));
    let more = sessions::take(places, nvenc, 1).expect("it was given back");
    let result = ladder::run(&job(&["144p"]), &stage).expect("libx264 works");
    assert_eq!((&result["encoder"], runs(&studio)), (&json!("libx264"), 1));
    let reason = result["encoders_refused"][0]["reason"].as_str().expect("it says why");
    assert!(reason.contains("0 of 8 are free"), "{reason}");
    drop((others, more));
}

/// Runs only where a GPU is: the arguments for hardware are proved by nothing else.
#[test]
fn a_machine_with_a_gpu_encodes_with_it() {
    let studio = Studio::new();
    let film = film(&studio, 9);
    let nodes = std::fs::read_dir("/dev/dri").into_iter().flatten().flatten();
    let devices: Vec<String> = nodes
        .map(|node| node.path().display().to_string())
        .filter(|path| path.contains("renderD"))
        .collect();
    for encoder in ["h264_nvenc", "h264_vaapi", "h264_qsv"] {
        let settings = Settings { devices: devices.clone(), ..Settings::default() };
        let stage = Stage { settings, ..in_chunks(&studio) };
        let more = json!({"codecs": [encoder], "chunk_seconds": 2, "output_dir":
                          studio.path(encoder), "renditions": ["144p"], "preset": "fast"});
        match ladder::run(&studio.job(&film, &more), &stage) {
            Err(failure) if failure.cause == Cause::FailedStart => {
                skip(&format!("no GPU for {encoder}: {}", failure.message));
            }
            result => {
                let result: Value = result.expect("its trial passed");
                assert_eq!(result["outputs"][0]["frames"], json!(225), "{result}");
            }
        }
    }
}
