//! Ladders as HLS: every film gives playlists that players can trust, whatever happened on the
//! way.

use super::super::super::ladder;
use super::super::stage::{Stage, Studio, ffmpeg, ffprobe};
use crate::StopReason;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const SOUND: &str = "-f lavfi -i sine=frequency=440";
const FAST: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 12";

fn in_chunks(studio: &Studio) -> Stage {
    Stage { kept: Some(studio.path("kept")), ..Stage::default() }
}

fn hls(more: Value) -> Value {
    let mut fields = json!({"format": "hls", "segment_seconds": 4, "renditions": ["144p", "180p"]});
    let more = more.as_object().expect("tests give an object").clone();
    fields.as_object_mut().expect("it is an object").extend(more);
    fields
}

/// A film of ten seconds, five chunks of two.
fn film(studio: &Studio) -> PathBuf {
    let film = studio.path("film.mp4");
    let source = "-f lavfi -i testsrc2=s=320x180:r=30000/1001";
    ffmpeg(&format!("{source} {SOUND} -t 10 {FAST} -c:a aac"), &film);
    film
}

/// Every file of a folder.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("it was made");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let named = paths.map(|path| {
        let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
        (name, std::fs::read(path).expect("it is a file"))
    });
    named.collect()
}

fn text(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).expect("it was made")
}

fn lines_with(text: &str, words: &str) -> Vec<String> {
    text.lines().filter(|line| line.starts_with(words)).map(str::to_owned).collect()
}

/// When the packets of a kind are shown, seconds, sorted.
fn times(path: &Path, stream: &str) -> Vec<f64> {
    let entries = format!("-select_streams {stream} -show_entries packet=pts_time");
    let mut times: Vec<f64> =
        ffprobe(&entries, path).iter().filter_map(|time| time.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    times
}

#[test]
fn a_film_becomes_playlists_whose_segments_begin_together() {
    let studio = Studio::new();
    let film = film(&studio);
    let result = studio.run(&film, &hls(json!({}))).expect("the film is good");
    assert_eq!(studio.outputs(), ["film-hls"]);
    let folder = studio.path("out/film-hls");
    assert_eq!(result["hls"]["master"], json!(folder.join("master.m3u8")));
    assert_eq!(result["hls"]["segments"], json!(3));
    assert_eq!(result["outputs"][0]["path"], json!(folder.join("144p.m3u8")));
    assert_eq!(result["outputs"][1]["frames"], json!(300));

    let (small, large) = (text(&folder, "144p.m3u8"), text(&folder, "180p.m3u8"));
    let durations = lines_with(&small, "#EXTINF");
    assert_eq!(durations, ["#EXTINF:4.004000,", "#EXTINF:4.004000,", "#EXTINF:2.002000,"]);
    assert_eq!(durations, lines_with(&large, "#EXTINF"));
    for playlist in [&small, &large] {
        for line in ["#EXT-X-PLAYLIST-TYPE:VOD", "#EXT-X-INDEPENDENT-SEGMENTS", "#EXT-X-ENDLIST"] {
            assert!(playlist.contains(line), "{playlist}");
        }
    }
    let master = text(&folder, "master.m3u8");
    let rungs = lines_with(&master, "#EXT-X-STREAM-INF");
    assert_eq!(rungs.len(), 2, "{master}");
    for (rung, size) in rungs.iter().zip(["320x180", "256x144"]) {
        assert!(rung.contains(&format!("RESOLUTION={size},FRAME-RATE=29.970")), "{rung}");
        assert!(rung.contains("CODECS=\"avc1.42c0") && rung.contains(",mp4a.40.2\""), "{rung}");
        let (_, peak) = rung.split_once(":BANDWIDTH=").expect("it is there");
        let peak: u64 =
            peak.split(',').next().and_then(|peak| peak.parse().ok()).expect("a number");
        assert!((50_000..2_000_000).contains(&peak), "{rung}");
    }
    // The init segment alone makes a segment whole for a player that begins there.
    let files = contents(&folder);
    for at in 0..3 {
        let alone = studio.path(format!("alone{at}.mp4"));
        let segment = &files[&format!("180p-{at:05}.m4s")];
        let whole = [files["180p-init.mp4"].as_slice(), segment].concat();
        std::fs::write(&alone, whole).expect("it is ours");
        let first = ffprobe("-read_intervals %+#1 -show_entries frame=key_frame,pict_type", &alone);
        assert_eq!(first, ["1,I"]);
    }
    let decoded = "-count_frames -select_streams v -show_entries stream=nb_read_frames";
    assert_eq!(ffprobe(decoded, &folder.join("180p.m3u8"))[0], "300");
    let sound = times(&folder.join("audio.m3u8"), "a");
    assert!((10.0 - sound[sound.len() - 1] - 0.0213).abs() < 0.03, "{sound:?}");
}

#[test]
fn a_stopped_film_goes_on_without_a_trace_in_its_playlists() {
    let studio = Studio::new();
    let film = film(&studio);
    let fields = hls(json!({"chunk_seconds": 2}));
    let stage = in_chunks(&studio);
    ladder::run(&studio.job(&film, &fields), &stage).expect("the film is good");
    let uninterrupted = contents(&studio.path("out/film-hls"));
    std::fs::remove_dir_all(studio.path("out")).expect("it is ours");

    for (at, resumed) in [(", chunk 2 of 5", 1), (", chunk 4 of 5", 3)] {
        let stop_at = Some((at, StopReason::Stalled));
        let stage = Stage { stop_at, ..in_chunks(&studio) };
        ladder::run(&studio.job(&film, &fields), &stage).expect_err("it was stopped");
        assert_eq!(studio.outputs(), Vec::<String>::new());
        // It may have been stopped before it was checked.
        let kept = format!("kept/chunk-{:05}", resumed - 1);
        let unchecked = studio.path(format!("{kept}.unchecked"));
        assert!(studio.path(kept).is_dir() || unchecked.is_dir());
    }
    let stage = in_chunks(&studio);
    let result = ladder::run(&studio.job(&film, &fields), &stage).expect("the film is good");
    assert_eq!((&result["chunks"], &result["resumed"]), (&json!(5), &json!(3)));
    let folder = studio.path("out/film-hls");
    let resumed = contents(&folder);
    assert_eq!(uninterrupted.keys().collect::<Vec<_>>(), resumed.keys().collect::<Vec<_>>());
    for (name, bytes) in &uninterrupted {
        assert!(!bytes.windows(13).any(|words| words == b"DISCONTINUITY"), "{name}");
        // Encoders with threads do not give the same bytes twice; playlists tell times.
        if name.ends_with(".m3u8") && name != "master.m3u8" {
            assert_eq!(*bytes, resumed[name], "{name}");
        }
    }
    let times = times(&folder.join("180p.m3u8"), "v");
    assert_eq!(times.len(), 300);
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.into_iter().all(|gap| (gap - 1001.0 / 30_000.0).abs() < 0.000_1));
}

#[test]
fn pictures_and_sound_of_every_film_stay_where_they_are() {
    let studio = Studio::new();
    let source = "-f lavfi -i testsrc2=s=320x180:r=25";
    let gaps = "select='lt(mod(n,17),5)+eq(mod(n,17),9)',settb=1/90000,\
                setpts='PTS+0.4*eq(mod(N,3),1)/60/TB'";
    let irregular = format!("-vf {gaps} -fps_mode vfr -enc_time_base 1/90000");
    let pauses = "-vf select='lt(mod(t,2),1.2)' -fps_mode vfr";
    for (name, arguments) in [
        ("plain.mp4", format!("{source} {SOUND} -t 5 {FAST} -bf 2 -c:a aac")),
        ("late-sound.ts", format!("{source} -itsoffset 0.7 {SOUND} -t 5 {FAST} -c:a aac")),
        ("late-film.mkv", format!("-itsoffset 0.7 {source} {SOUND} -t 5 {FAST} -bf 2 -c:a aac")),
        ("irregular.mkv", format!("{source} {SOUND} -t 5 {irregular} {FAST} -c:a aac")),
        // Every segment begins after a pause.
        ("pauses.mkv", format!("{source} {SOUND} -t 7 {pauses} {FAST} -c:a aac")),
    ] {
        let film = studio.path(name);
        ffmpeg(&arguments, &film);
        for chunk_seconds in [0, 2] {
            if chunk_seconds == 2 && !name.starts_with("late-film") {
                continue;
            }
            let film = if chunk_seconds == 2 {
                let long = studio.path("long-film.mkv");
                ffmpeg(&arguments.replace("-t 5", "-t 10"), &long);
                long
            } else {
                film.clone()
            };
            let stem = film.file_stem().expect("it has one").to_string_lossy().into_owned();
            let fields = json!({"chunk_seconds": chunk_seconds, "preset": "veryfast",
                                "renditions": ["180p"]});
            for format in ["mp4", "hls"] {
                let mut fields = fields.clone();
                fields["format"] = json!(format);
                let stage = in_chunks(&studio);
                let result = ladder::run(&studio.job(&film, &fields), &stage).expect(name);
                assert_eq!(result["chunks"] != json!(0), chunk_seconds > 0, "{result}");
            }
            let folder = studio.path(format!("out/{stem}-hls"));
            let mp4 = studio.path(format!("out/{stem}-180p.mp4"));
            for (stream, playlist) in [("v", "180p.m3u8"), ("a", "audio.m3u8")] {
                let (plain, packed) = (times(&mp4, stream), times(&folder.join(playlist), stream));
                assert_eq!(plain.len(), packed.len(), "{stem} {stream}");
                for (one, other) in plain.iter().zip(&packed) {
                    assert!((one - other).abs() < 0.001, "{stem} {stream}: {one} became {other}");
                }
            }
        }
    }
}

#[test]
fn a_silent_film_has_no_audio_rendition() {
    let studio = Studio::new();
    // A folder's own name must not be taken for a pattern.
    let film = studio.path("50%d %v.mkv");
    ffmpeg(&format!("-f lavfi -i testsrc2=s=320x180:r=25 -t 3 {FAST}"), &film);
    let output_dir = studio.path("out %03d");
    let fields = hls(json!({"output_dir": output_dir, "renditions": ["180p"]}));
    let result = studio.run(&film, &fields).expect("the film is good");
    assert_eq!(result["hls"]["audio"], json!([]));
    let folder = output_dir.join("50%d %v-hls");
    let names: Vec<String> = contents(&folder).into_keys().collect();
    assert_eq!(names, ["180p-00000.m4s", "180p-init.mp4", "180p.m3u8", "master.m3u8"]);
    assert!(!text(&folder, "master.m3u8").contains("AUDIO"));
}

#[test]
fn a_folder_of_an_earlier_encode_is_replaced_and_another_is_not() {
    let studio = Studio::new();
    let film = film(&studio);
    let folder = studio.path("out/film-hls");
    studio.run(&film, &hls(json!({}))).expect("the film is good");
    studio.run(&film, &hls(json!({"renditions": ["144p"]}))).expect("it may be made again");
    assert_eq!(studio.outputs(), ["film-hls"]);
    assert!(!folder.join("180p.m3u8").exists() && folder.join("144p.m3u8").exists());

    std::fs::write(folder.join("my notes.txt"), "keep").expect("it is ours");
    let failure = studio.run(&film, &hls(json!({}))).expect_err("a user's file is in there");
    assert!(failure.permanent && failure.message.contains("in the way"), "{failure:?}");
    assert_eq!(text(&folder, "my notes.txt"), "keep");
    assert_eq!(studio.outputs(), ["film-hls"]);
}

#[test]
fn a_folder_that_was_sealed_is_published_by_the_next_attempt() {
    let studio = Studio::new();
    let film = film(&studio);
    studio.run(&film, &hls(json!({}))).expect("an earlier folder is in its place");
    // The supervisor stores the list, and the worker dies before it renames.
    let stage = Stage::default();
    let mut job = studio.job(&film, &hls(json!({"renditions": ["144p"]})));
    let result = ladder::run(&job, &stage).expect("the film is good");
    let checkpoint = stage.checkpoint.lock().expect("no test panics with it").clone();
    let staged = studio.path("out/.shiftboss-7-1");
    std::fs::create_dir(&staged).expect("it is ours");
    std::fs::rename(studio.path("out/film-hls"), staged.join("film-hls")).expect("it is ours");
    std::fs::create_dir(studio.path("out/film-hls")).expect("it is ours");
    std::fs::write(studio.path("out/film-hls/180p.m3u8"), "old").expect("it is ours");

    (job.checkpoint, job.attempt) = (checkpoint, shiftboss_protocol::job::Attempt(2));
    let stage = Stage::default();
    assert_eq!(ladder::run(&job, &stage).expect("it is finished"), result);
    assert_eq!(studio.outputs(), ["film-hls"]);
    assert!(!studio.path("out/film-hls/180p.m3u8").exists());
    assert!(studio.path("out/film-hls/master.m3u8").is_file());
    assert!(stage.progress.lock().expect("no test panics with it").is_empty());
}
