//! What a profile or a job asks for besides sizes: rates of pictures and bits, loudness, an early
//! end.

use super::super::super::ladder;
use super::super::stage::{Stage, Studio, ffmpeg, ffprobe};
use crate::Settings;
use serde_json::{Value, json};
use shiftboss_protocol::job::Cause;
use std::path::{Path, PathBuf};

const FAST: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 12";

fn in_chunks(studio: &Studio) -> Stage {
    Stage { kept: Some(studio.path("kept")), ..Stage::default() }
}

fn path_of(output: &Value) -> PathBuf {
    PathBuf::from(output["path"].as_str().expect("a path is text"))
}

#[test]
fn a_job_takes_from_its_profile_what_it_does_not_say() {
    let studio = Studio::new();
    let film = studio.path("film.mp4");
    ffmpeg(&format!("-f lavfi -i testsrc2=s=256x144:r=25 -t 2 {FAST}"), &film);
    let profile = r#"{"format":"hls","segment_seconds":2,"renditions":[{"name":"144p",
                      "maxrate":"60k","bufsize":"60k"}]}"#;
    let profiles = [("web".to_owned(), profile.to_owned())].into();
    let settings = Settings { profiles, ..Settings::default() };
    let stage = Stage { settings, ..Stage::default() };
    let job = studio.job(&film, &json!({"profile": "web"}));
    let result = ladder::run(&job, &stage).expect("the film is good");
    assert_eq!(studio.outputs(), ["film-hls"]);
    let capped = result["outputs"][0]["bytes"].as_u64().expect("it is a number");
    let job = studio.job(&film, &json!({"profile": "web", "renditions": ["144p"]}));
    let result = ladder::run(&job, &stage).expect("the film is good");
    let free = result["outputs"][0]["bytes"].as_u64().expect("it is a number");
    assert!(capped * 2 < free, "{capped} and {free} bytes");
    let job = studio.job(&film, &json!({"profile": "radio"}));
    let failure = ladder::run(&job, &stage).expect_err("there is none");
    assert!(failure.permanent && failure.cause == Cause::Payload, "{failure:?}");
}

/// Integrated loudness of a file, LUFS.
fn loudness(path: &Path) -> f64 {
    let output = std::process::Command::new("ffmpeg")
        .args(["-nostats", "-i"])
        .arg(path)
        .args(["-map", "0:a", "-af", "ebur128", "-f", "null", "-"])
        .output()
        .expect("ffmpeg is installed on every machine that runs these tests");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let (_, summary) = text.rsplit_once("Summary:").expect("ebur128 sums up");
    let found = summary.lines().find_map(|line| line.trim().strip_prefix("I:"));
    let number = found.and_then(|text| text.trim().strip_suffix("LUFS"));
    number.and_then(|text| text.trim().parse().ok()).expect("it is a number")
}

#[test]
fn sound_is_brought_to_the_loudness_that_was_asked_for() {
    let studio = Studio::new();
    let film = studio.path("quiet.mkv");
    let sound = "-f lavfi -i anoisesrc=r=48000:a=0.05:seed=7:c=pink -ac 2 -c:a flac";
    ffmpeg(&format!("-f lavfi -i testsrc2=s=256x144:r=25 {sound} -t 10 {FAST}"), &film);
    let before = loudness(&film);
    assert!(before < -35.0, "{before}");
    for chunk_seconds in [0, 2] {
        let more = json!({"loudness": -18, "chunk_seconds": chunk_seconds});
        let stage = in_chunks(&studio);
        let result = ladder::run(&studio.job(&film, &more), &stage).expect("the film is good");
        assert_eq!(result["chunks"] != json!(0), chunk_seconds > 0);
        let after = loudness(&path_of(&result["outputs"][0]));
        assert!((after + 18.0).abs() < 0.7, "{before} became {after}");
    }
    // Silence has no loudness, and stays silent.
    let silent = studio.path("silent.mkv");
    let sound = "-f lavfi -i anullsrc=r=48000 -c:a flac";
    ffmpeg(&format!("-f lavfi -i testsrc2=s=256x144:r=25 {sound} -t 2 {FAST}"), &silent);
    let result = studio.run(&silent, &json!({"loudness": -18})).expect("the film is good");
    assert!(loudness(&path_of(&result["outputs"][0])) < -60.0);
}

/// When pictures are shown, seconds.
fn times(path: &Path) -> Vec<String> {
    let mut times = ffprobe("-select_streams v:0 -show_entries packet=pts_time", path);
    times.sort_by(|one, other| {
        let seconds = |text: &str| text.parse::<f64>().expect("every packet has a time");
        seconds(one).total_cmp(&seconds(other))
    });
    times
}

#[test]
fn a_film_with_too_many_pictures_keeps_every_second_in_chunks_too() {
    let studio = Studio::new();
    let film = studio.path("quick.mp4");
    let source = "-f lavfi -i testsrc2=s=256x144:r=60000/1001 -f lavfi -i sine -c:a aac";
    ffmpeg(&format!("{source} -t 10 {FAST} -bf 2"), &film);
    let mut all = Vec::new();
    for chunk_seconds in [0, 2] {
        let more = json!({"frame_rate_max": 30, "chunk_seconds": chunk_seconds,
                          "renditions": ["144p"]});
        let stage = in_chunks(&studio);
        let result = ladder::run(&studio.job(&film, &more), &stage).expect("the film is good");
        assert_eq!(result["chunks"] != json!(0), chunk_seconds > 0, "{result}");
        assert_eq!(
            (&result["outputs"][0]["frames"], &result["warnings"]),
            (&json!(300), &json!([]))
        );
        all.push(times(&path_of(&result["outputs"][0])));
    }
    assert_eq!(all[0], all[1]);
    assert!(all[0][1].starts_with("0.0333") && all[0][299].starts_with("9.97"), "{:?}", all[0]);
}

#[test]
fn a_rate_that_does_not_divide_the_films_gives_new_times_in_one_go() {
    let studio = Studio::new();
    let film = studio.path("film.mp4");
    ffmpeg(&format!("-f lavfi -i testsrc2=s=256x144:r=30 -t 10 {FAST}"), &film);
    let more = json!({"frame_rate_max": 25, "chunk_seconds": 2});
    let stage = in_chunks(&studio);
    let result = ladder::run(&studio.job(&film, &more), &stage).expect("the film is good");
    assert_eq!(result["outputs"][0]["frames"], json!(250), "{result}");
    let reason = result["whole_because"].as_str().expect("it says why");
    assert!(reason.contains("new times"), "{reason}");
}

#[test]
fn a_rendition_that_would_be_larger_than_its_film_ends_the_job_early() {
    let studio = Studio::new();
    let film = studio.path("small.mp4");
    let source = "-f lavfi -i testsrc2=s=256x144:r=25 -t 10";
    ffmpeg(&format!("{source} -c:v libx264 -crf 45 -pix_fmt yuv420p -g 12"), &film);
    let more = json!({"crf": 10, "chunk_seconds": 2, "stop_when_larger": true});
    let stage = in_chunks(&studio);
    let failure = ladder::run(&studio.job(&film, &more), &stage).expect_err("it is larger");
    assert!(failure.permanent && failure.cause == Cause::Limit, "{failure:?}");
    assert!(failure.message.contains("stop_when_larger"), "{}", failure.message);
    let progress = stage.progress.lock().expect("no test panics with it");
    assert!(!progress.iter().any(|(_, note)| note.contains(", chunk 2 of 5")), "{progress:?}");
    assert!(!studio.path("kept").exists());
    drop(progress);
    let short = json!({"crf": 10, "stop_when_larger": true});
    assert!(studio.refuse(&film, &short).contains("stop_when_larger"));
    let film = studio.path("large.mp4");
    ffmpeg(&format!("{source} -c:v libx264 -crf 10 -pix_fmt yuv420p -g 12"), &film);
    let wanted = json!({"crf": 40, "chunk_seconds": 2, "stop_when_larger": true});
    let wanted = studio.job(&film, &wanted);
    let result = ladder::run(&wanted, &in_chunks(&studio)).expect("it is smaller");
    assert_eq!(result["outputs"][0]["frames"], json!(250));
}
