//! An encoder that is lost on the way costs no attempt, and not the chunks that it has made where
//! those of the next one fit them.

use super::super::super::ladder;
use super::super::stage::{Stage, Studio, ffprobe};
use super::codecs::{film, in_chunks};
use crate::Settings;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program in the place of FFmpeg that has an encoder `h264_nvenc`: made of libx264 with these
/// settings of x264 (`a=b:c=d`), and gone after two runs with what drivers say when their sessions
/// have run out (quoted, not recorded).
pub(super) fn stand_in(studio: &Studio, settings: &str) -> PathBuf {
    let path = studio.path("ffmpeg-with-a-gpu");
    let runs = studio.path("runs");
    let script = format!(
        "#!/bin/sh\n\
         case \" $* \" in *' h264_nvenc '*) ;; *) exec ffmpeg \"$@\" ;; esac\n\
         case \" $* \" in *' lavfi '*) exit 0 ;; esac\n\
         echo run >> {runs}\n\
         if [ $(wc -l < {runs}) -gt 2 ]; then\n\
         echo '[h264_nvenc @ 0x1] [error] OpenEncodeSessionEx failed: out of memory (10): (no \
         details)' >&2\nexit 1\nfi\n\
         skip=0\n\
         for word do\n\
         shift\n\
         if [ $skip = 1 ]; then skip=0; continue; fi\n\
         case $word in\n\
         -tune|-rc|-cq|-b:v|-forced-idr|-no-scenecut|-strict_gop) skip=1; continue ;;\n\
         h264_nvenc) set -- \"$@\" libx264 -x264-params; word=open-gop=0:{settings} ;;\n\
         p[1-7]) word=ultrafast ;;\n\
         esac\n\
         set -- \"$@\" \"$word\"\n\
         done\n\
         exec ffmpeg \"$@\"\n",
        runs = runs.display()
    );
    std::fs::write(&path, script).expect("it is ours");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("it is ours");
    path
}

/// How often its encoder was started.
pub(super) fn runs(studio: &Studio) -> usize {
    std::fs::read_to_string(studio.path("runs")).map_or(0, |text| text.lines().count())
}

fn with(ffmpeg: &Path) -> Settings {
    Settings { ffmpeg: ffmpeg.display().to_string(), ..Settings::default() }
}

/// Five chunks, of which the hardware makes two.
fn payload() -> Value {
    json!({"codecs": ["h264_nvenc", "libx264"], "chunk_seconds": 2, "renditions": ["144p"]})
}

/// Decodes a film to its end, beside the one that it was made of: errors, and how alike they are.
fn beside(output: &Path, film: &Path) -> (String, f64) {
    let ran = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "level+info", "-i"])
        .arg(output)
        .arg("-i")
        .arg(film)
        .args(["-lavfi", "[0:v][1:v]ssim", "-f", "null", "-"])
        .output()
        .expect("ffmpeg is installed on every machine that runs these tests");
    let text = String::from_utf8_lossy(&ran.stderr).into_owned();
    let errors = text.lines().filter(|line| line.contains("[error]") || line.contains("[fatal]"));
    let errors = errors.collect::<Vec<_>>().join("\n");
    let alike = text.split("All:").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    (errors, alike.unwrap_or(0.0))
}

/// It has 250 pictures, 40 ms apart, each like that of its film.
fn is_whole(output: &Path, film: &Path) {
    let entries = "-select_streams v:0 -show_entries packet=pts_time";
    let mut times: Vec<f64> =
        ffprobe(entries, output).iter().filter_map(|time| time.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    assert_eq!(times.len(), 250);
    let uneven = times.windows(2).position(|pair| (pair[1] - pair[0] - 0.04).abs() > 0.000_1);
    assert_eq!(uneven, None, "{times:?}");
    let frames = "-select_streams v:0 -count_frames -show_entries stream=nb_read_frames";
    assert_eq!(ffprobe(frames, output).first().map(String::as_str), Some("250"));
    let (errors, alike) = beside(output, film);
    assert_eq!(errors, "");
    // Pictures of another chunk, or of another set-up, come below 0.5.
    assert!(alike > 0.9, "{alike}");
}

#[test]
fn an_encoder_that_is_lost_on_the_way_costs_no_attempt() {
    let studio = Studio::new();
    let film = film(&studio, 10);
    let program = stand_in(&studio, "");
    let settings = Settings { ffmpeg: program.display().to_string(), ..Settings::default() };
    let stage = Stage { settings, ..in_chunks(&studio) };
    let more = json!({"codecs": ["h264_nvenc", "libx264"], "chunk_seconds": 2,
                      "renditions": ["144p"]});
    let result = ladder::run(&studio.job(&film, &more), &stage).expect("the next takes over");
    assert_eq!(runs(&studio), 3);
    assert_eq!(result["encoder"], json!("libx264"));
    let reason = result["encoders_refused"][0]["reason"].as_str().expect("it says why");
    assert!(reason.contains("OpenEncodeSessionEx failed"), "{reason}");
    assert_eq!((&result["chunks"], &result["resumed"]), (&json!(5), &json!(0)));
    assert_eq!(result["outputs"][0]["frames"], json!(250));
    let logged = stage.logged.lock().expect("no test panics with it");
    assert!(logged.iter().any(|line| line.contains("the next is tried")), "{logged:?}");
}

#[test]
fn chunks_are_gone_on_with_by_the_encoder_that_made_them() {
    let studio = Studio::new();
    let film = film(&studio, 10);
    let more = payload();
    let program = stand_in(&studio, "bframes=3:cabac=1");
    let stop_at = Some((", chunk 4 of 5", crate::StopReason::Released));
    let stage = Stage { settings: with(&program), stop_at, ..in_chunks(&studio) };
    ladder::run(&studio.job(&film, &more), &stage).expect_err("it was stopped");
    // The hardware is back, and would begin anew.
    std::fs::remove_file(studio.path("runs")).expect("it is ours");
    let stage = Stage { settings: with(&program), ..in_chunks(&studio) };
    let result = ladder::run(&studio.job(&film, &more), &stage).expect("the film is good");
    assert_eq!((&result["encoder"], runs(&studio)), (&json!("libx264"), 0));
    assert_eq!(result["resumed"], json!(3));
    assert_eq!(result["chunks_by"], json!({"h264_nvenc": 2, "libx264": 3}));
    is_whole(&studio.path("out/film-144p.mp4"), &film);
}

#[test]
fn chunks_of_a_lost_encoder_are_kept_whatever_its_streams_are_like() {
    for (settings, preset) in [
        // High profile with pictures out of their order, then a plain stream.
        ("cabac=1:8x8dct=1:bframes=3:ref=3", "ultrafast"),
        // The other way round: the next encoder decodes ahead of what is there.
        ("bframes=0:cabac=0", "fast"),
    ] {
        let studio = Studio::new();
        let film = film(&studio, 10);
        let program = stand_in(&studio, settings);
        let stage = Stage { settings: with(&program), ..in_chunks(&studio) };
        let mut more = payload();
        more["preset"] = json!(preset);
        let result = ladder::run(&studio.job(&film, &more), &stage).expect("the next goes on");
        assert_eq!(result["chunks_by"], json!({"h264_nvenc": 2, "libx264": 3}), "{result}");
        assert_eq!((&result["chunks"], &result["resumed"]), (&json!(5), &json!(0)));
        assert_eq!(result["outputs"][0]["check"]["kind"], json!("full"));
        assert_eq!(result["warnings"], json!([]));
        let notes = result["notes"].to_string();
        assert!(notes.contains("2 by h264_nvenc, 3 by libx264"), "{notes}");
        is_whole(&studio.path("out/film-144p.mp4"), &film);
        let progress = stage.progress.lock().expect("no test panics with it");
        let encoded = |number: usize| {
            let note = format!(", chunk {number} of 5");
            progress.iter().any(|(_, shown)| shown.contains(&note))
        };
        assert_eq!([1, 2, 3, 4, 5].map(encoded), [true; 5]);
        let shares: Vec<f64> = progress.iter().filter_map(|(share, _)| *share).collect();
        assert!(shares.is_sorted(), "{shares:?}");
        let sounds = progress.iter().filter(|(_, note)| note.contains("looking for chunk 1 "));
        assert_eq!(sounds.count(), 2, "both encoders looked for what was there");
    }
}

#[test]
fn segments_of_two_encoders_are_one_rendition() {
    let studio = Studio::new();
    let film = film(&studio, 10);
    let program = stand_in(&studio, "cabac=1:8x8dct=1:bframes=3");
    let stage = Stage { settings: with(&program), ..in_chunks(&studio) };
    let mut more = payload();
    (more["format"], more["segment_seconds"]) = (json!("hls"), json!(2));
    let result = ladder::run(&studio.job(&film, &more), &stage).expect("the next goes on");
    assert_eq!(result["chunks_by"], json!({"h264_nvenc": 2, "libx264": 3}), "{result}");
    let playlist = studio.path("out/film-hls/144p.m3u8");
    let text = std::fs::read_to_string(&playlist).expect("it was made");
    assert!(!text.contains("DISCONTINUITY"), "{text}");
    assert_eq!((text.matches("#EXT-X-MAP").count(), text.matches("#EXTINF").count()), (1, 5));
    let master = std::fs::read_to_string(studio.path("out/film-hls/master.m3u8"));
    // The profile of who can decode both.
    let master = master.expect("it was made");
    assert!(master.contains("CODECS=\"avc1.6400"), "{master}");
    is_whole(&playlist, &film);
}

#[test]
fn chunks_that_do_not_fit_those_of_the_next_encoder_are_made_anew() {
    let studio = Studio::new();
    let film = film(&studio, 10);
    // Its parameter sets have the number that the next encoder gives its own.
    let program = stand_in(&studio, "bframes=0:sps-id=1:cabac=1");
    let stage = Stage { settings: with(&program), ..in_chunks(&studio) };
    let result = ladder::run(&studio.job(&film, &payload()), &stage).expect("the next takes over");
    assert_eq!(result["chunks_by"], json!({"libx264": 5}), "{result}");
    let notes = result["notes"].to_string();
    assert!(notes.contains("2 chunks of h264_nvenc were made anew"), "{notes}");
    assert!(notes.contains("both use parameter set 1"), "{notes}");
    assert_eq!(result["outputs"][0]["check"]["kind"], json!("quick"));
    is_whole(&studio.path("out/film-144p.mp4"), &film);
    let progress = stage.progress.lock().expect("no test panics with it");
    let shares: Vec<f64> = progress.iter().filter_map(|(share, _)| *share).collect();
    assert!(shares.is_sorted(), "{shares:?}");
}

#[test]
fn a_job_that_only_hardware_may_do_is_tried_again_when_that_was_lost() {
    let studio = Studio::new();
    let film = film(&studio, 10);
    let program = stand_in(&studio, "");
    let settings = Settings { ffmpeg: program.display().to_string(), ..Settings::default() };
    let stage = Stage { settings, ..in_chunks(&studio) };
    let more = json!({"codecs": ["h264_nvenc"], "chunk_seconds": 2, "renditions": ["144p"]});
    let failure = ladder::run(&studio.job(&film, &more), &stage).expect_err("it was lost");
    assert!(!failure.permanent && failure.message.contains("out of memory"), "{failure:?}");
    assert!(studio.path("kept/chunk-00001").is_dir());
}
