//! Films in, verified renditions out; a killed worker costs an attempt, not the result.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use shiftboss_tests::{Stage, has_program, skip, wait_for, wait_until};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes a film of this many seconds; `None` (and a skip) without ffmpeg.
fn film(stage: &Stage, test: &str, seconds: &str) -> Option<PathBuf> {
    if !has_program("ffmpeg") || !has_program("ffprobe") {
        skip(test, "ffmpeg is not installed");
        return None;
    }
    let path = stage.path("it's a \"film\".mp4");
    let source =
        ["-f", "lavfi", "-i", "testsrc2=size=640x480:rate=30", "-f", "lavfi", "-i", "sine"];
    let codec = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "15", "-movflags", "+faststart"];
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin"]).args(source).args(["-t", seconds]).args(codec);
    assert!(command.arg(&path).status().expect("it can be started").success());
    Some(path)
}

fn encode(stage: &Stage, film: &Path, renditions: &[&str]) -> i64 {
    let payload = json!({
        "op": "ladder", "input": film, "output_dir": stage.path("out"), "renditions": renditions,
        "preset": "ultrafast",
    });
    stage.insert("encode", &payload.to_string())
}

/// Width, height and frames of a film's picture.
fn picture(path: &Path) -> (i64, i64, i64) {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-of", "json", "-count_packets", "-select_streams", "v:0"]);
    command.args(["-show_entries", "stream=width,height,nb_read_packets"]).arg(path);
    let output = command.output().expect("it can be started");
    let facts: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    let stream = &facts["streams"][0];
    let frames = stream["nb_read_packets"].as_str().and_then(|text| text.parse().ok());
    let side = |name: &str| stream[name].as_i64().unwrap_or(0);
    (side("width"), side("height"), frames.unwrap_or(0))
}

fn outputs(stage: &Stage) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(stage.path("out")).expect("the folder was made");
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_film_becomes_renditions_that_are_never_larger_than_it() {
    let stage = Stage::new("");
    let name = "a_film_becomes_renditions_that_are_never_larger_than_it";
    let Some(film) = film(&stage, name, "3") else { return };
    let job = encode(&stage, &film, &["1080p", "480p", "240p"]);
    let row = stage.wait_for_state(job, "succeeded");
    let result: Value = serde_json::from_str(&row.result.unwrap_or_default()).expect("JSON");
    let outputs = outputs(&stage);
    assert_eq!(outputs.len(), 2, "{outputs:?}");
    let mut pictures: Vec<_> = outputs.iter().map(|path| picture(path)).collect();
    pictures.sort_unstable();
    assert_eq!(pictures, [(320, 240, 90), (640, 480, 90)]);
    assert_eq!(result["outputs"].as_array().map(Vec::len), Some(2));
    assert_eq!(row.attempt, 1);
    let logs = stage.run(&["logs", &job.to_string()]);
    let text = String::from_utf8_lossy(&logs.stdout);
    assert!(logs.status.success() && !text.contains("out_time"), "numbers for nobody: {text}");
}

#[test]
fn kill_9_of_the_worker_in_mid_encode_costs_an_attempt_and_leaves_no_rubbish() {
    let stage = Stage::new("");
    let name = "kill_9_of_the_worker_in_mid_encode_costs_an_attempt";
    let Some(film) = film(&stage, name, "14") else { return };
    let job = encode(&stage, &film, &["480p", "360p", "240p"]);
    wait_until("ffmpeg encodes", || {
        let story = stage.json(&["job", &job.to_string(), "--json"]);
        let note = story["progress_note"].as_str().unwrap_or_default();
        assert_ne!(story["state"], "succeeded", "too quick to be killed");
        note.contains("fps") && story["state"] == "running"
    });
    let attempt = wait_for("an attempt runs", || stage.attempts(job).pop());
    kill(Pid::from_raw(attempt.pid), Signal::SIGKILL).expect("the worker lives");
    let row = stage.wait_for_state(job, "succeeded");
    assert_eq!((row.attempt, row.crash_count, row.failures), (2, 1, 0));
    let outputs = outputs(&stage);
    assert_eq!(outputs.len(), 3, "{outputs:?}");
    assert!(outputs.iter().all(|path| picture(path).2 == 420));
}

#[test]
fn two_signals_in_mid_encode_take_the_job_back_and_the_next_start_finishes_it() {
    let mut stage = Stage::new("");
    let name = "two_signals_in_mid_encode_take_the_job_back";
    let Some(film) = film(&stage, name, "20") else { return };
    let job = encode(&stage, &film, &["480p", "360p"]);
    wait_until("ffmpeg encodes", || {
        let story = stage.json(&["job", &job.to_string(), "--json"]);
        story["progress_note"].as_str().is_some_and(|note| note.contains("fps"))
    });
    stage.signal(Signal::SIGTERM);
    wait_until("it drains", || stage.log().contains("draining"));
    assert_eq!(stage.job(job).expect("it is there").state, "running");
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.wait_for_end(), Some(0), "{}", stage.log());
    let row = stage.job(job).expect("it is there");
    assert_eq!((&*row.state, row.failures, row.crash_count), ("available", 0, 0));
    assert!(stage.programs_of(job).is_empty());
    stage.start();
    assert_eq!(stage.wait_for_state(job, "succeeded").attempt, 2);
    assert_eq!(outputs(&stage).len(), 2);
}

/// A film of ten chunks of two seconds, and its job.
fn chunked(stage: &Stage, test: &str) -> Option<i64> {
    chunked_as(stage, test, "mp4")
}

fn chunked_as(stage: &Stage, test: &str, format: &str) -> Option<i64> {
    let path = film(stage, test, "20")?;
    let payload = json!({
        "op": "ladder", "input": path, "output_dir": stage.path("out"), "preset": "ultrafast",
        "renditions": ["240p", "144p"], "chunk_seconds": 2, "format": format,
    });
    Some(stage.insert("encode", &payload.to_string()))
}

/// Where the chunks of a job lie.
fn kept(stage: &Stage, job: i64) -> PathBuf {
    stage.path(&format!("jobs.db.work/scratch/encode/{job}-kept"))
}

/// Chunks of a job that are finished.
fn finished_chunks(stage: &Stage, job: i64) -> u64 {
    let entries = std::fs::read_dir(kept(stage, job)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    // Those that are made have an ending, and those that nobody has checked yet.
    let count = names.filter(|name| name.starts_with("chunk-") && !name.contains('.')).count();
    count.try_into().expect("there are ten at most")
}

fn wait_for_chunks(stage: &Stage, job: i64, count: u64) -> u64 {
    wait_for("chunks are finished", || {
        let row = stage.job(job).expect("it is there");
        assert!(row.state != "succeeded" && row.state != "failed", "too quick: {row:?}");
        Some(finished_chunks(stage, job)).filter(|finished| *finished >= count)
    })
}

/// All ten chunks are in the outputs, and those that were finished at a time were taken over,
/// besides one that was only to be checked, and one that may have been finished just after.
fn has_resumed(stage: &Stage, job: i64, finished: u64) {
    let row = stage.wait_for_state(job, "succeeded");
    assert_eq!(row.attempt, 2);
    let result: Value = serde_json::from_str(&row.result.unwrap_or_default()).expect("JSON");
    assert_eq!(result["chunks"], 10, "{result}");
    let resumed = result["resumed"].as_u64().expect("it is a number");
    assert!((finished..=finished + 2).contains(&resumed), "{resumed} of {finished}");
    let outputs = outputs(stage);
    assert_eq!(outputs.len(), 2, "{outputs:?}");
    assert!(outputs.iter().all(|path| picture(path).2 == 600));
    assert!(!kept(stage, job).exists());
}

#[test]
fn kill_9_of_the_worker_costs_a_film_in_chunks_at_most_one() {
    let stage = Stage::new("");
    let name = "kill_9_of_the_worker_costs_a_film_in_chunks_at_most_one";
    let Some(job) = chunked(&stage, name) else { return };
    let finished = wait_for_chunks(&stage, job, 3);
    let attempt = wait_for("an attempt runs", || stage.attempts(job).pop());
    kill(Pid::from_raw(attempt.pid), Signal::SIGKILL).expect("the worker lives");
    has_resumed(&stage, job, finished);
}

#[test]
fn kill_9_leaves_no_trace_in_the_playlists_of_a_film() {
    let stage = Stage::new("");
    let name = "kill_9_leaves_no_trace_in_the_playlists_of_a_film";
    let Some(job) = chunked_as(&stage, name, "hls") else { return };
    let finished = wait_for_chunks(&stage, job, 3);
    let attempt = wait_for("an attempt runs", || stage.attempts(job).pop());
    kill(Pid::from_raw(attempt.pid), Signal::SIGKILL).expect("the worker lives");
    let row = stage.wait_for_state(job, "succeeded");
    let result: Value = serde_json::from_str(&row.result.unwrap_or_default()).expect("JSON");
    let resumed = result["resumed"].as_u64().expect("it is a number");
    assert!(row.attempt == 2 && resumed >= finished, "{result}");
    let folder = outputs(&stage).pop().expect("one folder was made");
    for output in result["outputs"].as_array().expect("outputs are listed") {
        let path = folder.join(format!("{}.m3u8", output["rendition"].as_str().expect("text")));
        let playlist = std::fs::read_to_string(&path).expect("it was made");
        let durations: Vec<&str> =
            playlist.lines().filter(|line| line.starts_with("#EXTINF")).collect();
        assert_eq!(
            durations,
            ["#EXTINF:6.000000,", "#EXTINF:6.000000,", "#EXTINF:6.000000,", "#EXTINF:2.000000,"]
        );
        assert!(!playlist.contains("DISCONTINUITY"), "{playlist}");
        assert_eq!(picture(&path).2, 600);
    }
}

#[test]
fn kill_9_of_all_costs_a_film_in_chunks_at_most_one() {
    let mut stage = Stage::new("");
    let name = "kill_9_of_all_costs_a_film_in_chunks_at_most_one";
    let Some(job) = chunked(&stage, name) else { return };
    let finished = wait_for_chunks(&stage, job, 3);
    let attempt = wait_for("an attempt runs", || stage.attempts(job).pop());
    stage.signal(Signal::SIGKILL);
    kill(Pid::from_raw(attempt.pid), Signal::SIGKILL).expect("the worker lives");
    stage.wait_for_end();
    stage.start();
    has_resumed(&stage, job, finished);
}

#[test]
fn a_film_in_chunks_goes_on_after_the_supervisor_was_hurried() {
    let mut stage = Stage::new("");
    let name = "a_film_in_chunks_goes_on_after_the_supervisor_was_hurried";
    let Some(job) = chunked(&stage, name) else { return };
    wait_for_chunks(&stage, job, 2);
    stage.signal(Signal::SIGTERM);
    wait_until("it drains", || stage.log().contains("draining"));
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.wait_for_end(), Some(0), "{}", stage.log());
    let finished = finished_chunks(&stage, job);
    stage.start();
    has_resumed(&stage, job, finished);
}

#[test]
fn a_cancelled_film_in_chunks_leaves_nothing() {
    let stage = Stage::new("");
    let name = "a_cancelled_film_in_chunks_leaves_nothing";
    let Some(job) = chunked(&stage, name) else { return };
    wait_for_chunks(&stage, job, 2);
    assert!(stage.run(&["cancel", &job.to_string()]).status.success());
    stage.wait_for_state(job, "cancelled");
    assert!(!kept(&stage, job).exists());
    assert_eq!(outputs(&stage), Vec::<PathBuf>::new());
}

/// A stage whose first attempt never ends the check of the third chunk.
fn with_a_slow_check() -> Stage {
    let mut stage = Stage::dark("[types.encode]\nworkers = { max = 1 }\n");
    std::fs::create_dir(stage.path("tools")).expect("the folder is ours");
    let path = stage.path("tools/ffprobe");
    let script = "#!/bin/sh\n\
        case \"$SHIFTBOSS_ATTEMPT $*\" in '1 '*chunk-00002.unchecked*) exec sleep 600 ;; esac\n\
        exec /usr/bin/env ffprobe \"$@\"\n";
    std::fs::write(&path, script).expect("the folder is ours");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("the file is ours");
    stage.reconfigure("", &format!("[tools]\nffprobe = {path:?}\n"));
    stage.start();
    stage
}

#[test]
fn kill_9_while_a_chunk_is_checked_and_the_next_encoded_costs_that_one_only() {
    let name = "kill_9_while_a_chunk_is_checked_and_the_next_encoded_costs_that_one_only";
    let stage = with_a_slow_check();
    let Some(job) = chunked(&stage, name) else { return };
    let unchecked = kept(&stage, job).join("chunk-00002.unchecked");
    wait_until("the next one is encoded", || {
        unchecked.exists() && kept(&stage, job).join("chunk-00003.part").exists()
    });
    let inode = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        path.metadata().ok().map(|metadata| metadata.ino())
    };
    let before = inode(&unchecked).expect("its check does not end");
    let attempt = wait_for("an attempt runs", || stage.attempts(job).pop());
    kill(Pid::from_raw(attempt.pid), Signal::SIGKILL).expect("the worker lives");
    // Put into its place, and not made again: the folder is the same.
    let place = kept(&stage, job).join("chunk-00002");
    let after = wait_for("it is checked", || inode(&place));
    assert_eq!(after, before);
    let row = stage.wait_for_state(job, "succeeded");
    let result: Value = serde_json::from_str(&row.result.unwrap_or_default()).expect("JSON");
    let resumed = result["resumed"].as_u64().expect("it is a number");
    // The next one may have been encoded just before.
    assert!((3..=4).contains(&resumed), "{result}");
    assert!(outputs(&stage).iter().all(|path| picture(path).2 == 600));
    assert!(!kept(&stage, job).exists());
}

#[test]
fn cancelling_ends_the_check_of_a_chunk_and_the_encode_of_the_next() {
    let name = "cancelling_ends_the_check_of_a_chunk_and_the_encode_of_the_next";
    let stage = with_a_slow_check();
    let Some(job) = chunked(&stage, name) else { return };
    wait_until("the next one is encoded", || {
        kept(&stage, job).join("chunk-00003.part").exists() && stage.programs_of(job).len() >= 2
    });
    assert!(stage.run(&["cancel", &job.to_string()]).status.success());
    let row = stage.wait_for_state(job, "cancelled");
    assert_eq!((row.attempt, row.crash_count), (1, 0));
    assert!(stage.programs_of(job).is_empty());
    wait_until("nothing is left", || !kept(&stage, job).exists());
    assert_eq!(outputs(&stage), Vec::<PathBuf>::new());
}

#[test]
fn a_truncated_film_fails_in_a_sentence_and_is_not_tried_again() {
    let stage = Stage::new("");
    let name = "a_truncated_film_fails_in_a_sentence";
    let Some(film) = film(&stage, name, "4") else { return };
    let bytes = std::fs::read(&film).expect("it was made");
    let cut = stage.path("cut.mp4");
    std::fs::write(&cut, &bytes[..bytes.len() * 6 / 10]).expect("the folder is ours");
    let job = encode(&stage, &cut, &["240p"]);
    let row = stage.wait_for_state(job, "failed");
    assert_eq!(row.attempt, 1);
    assert!(row.last_error.contains("truncated"), "{}", row.last_error);
    let left = std::fs::read_dir(stage.path("out")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
}

#[test]
fn a_real_film_is_encoded_from_the_command_line() {
    let name = "a_real_film_is_encoded_from_the_command_line";
    // The folder, as for the tests of the worker.
    let media = std::env::var_os("SHIFTBOSS_TEST_MEDIA").map(PathBuf::from);
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/media");
    let film = media.unwrap_or(shared).join("bigbuckbunny.mp4");
    if !film.is_file() || !has_program("ffmpeg") {
        return skip(name, "no film (SHIFTBOSS_TEST_MEDIA) or no ffmpeg");
    }
    let stage = Stage::new("");
    let film = film.display().to_string();
    let output = stage.run(&["encode", &film, "--out", "out", "--renditions", "240p", "--wait"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("job 1 succeeded") && text.contains("240p.mp4"), "{text}");
    let (_, height, frames) = picture(&outputs(&stage)[0]);
    assert!(height == 240 && frames > 100, "{height} {frames}");
}

#[test]
fn what_is_no_film_fails_for_good_and_the_next_film_is_encoded() {
    let stage = Stage::new("");
    let name = "what_is_no_film_fails_for_good";
    let Some(film) = film(&stage, name, "1") else { return };
    let write = |name: &str, bytes: &[u8]| {
        let path = stage.path(name);
        std::fs::write(&path, bytes).expect("the folder is ours");
        path
    };
    let odd = std::ffi::OsStr::from_bytes(b"two\nlines \xff.mp4");
    std::fs::copy(&film, stage.path("").join(odd)).expect("copied");
    std::fs::create_dir(stage.path("folder.mp4")).expect("the folder is ours");
    let cases = [
        (stage.path("missing.mp4"), "missing.mp4 does not exist"),
        (write("empty.mp4", b""), "empty.mp4 is empty"),
        (write("text.mp4", b"no film at all\n"), "text.mp4"),
        (stage.path("folder.mp4"), "is not a regular file"),
    ];
    for (path, expected) in &cases {
        let job = encode(&stage, path, &["240p"]);
        let row = stage.wait_for_state(job, "failed");
        assert!(row.last_error.contains(expected), "{}", row.last_error);
        assert_eq!((row.attempt, row.failures), (1, 1), "{} was tried again", path.display());
        let attempts = stage.attempts(job);
        assert_eq!(attempts[0].outcome.as_deref(), Some("failed"));
    }
    let mut command = stage.shiftboss(&["encode"]);
    command.arg(odd).args(["--out", "out", "--renditions", "240p", "--wait"]);
    let output = shiftboss_tests::output_of(&mut command);
    assert!(output.status.success(), "{output:?}");
    let name = outputs(&stage)[0].file_name().map(|name| name.to_string_lossy().into_owned());
    let is_plain = |name: &String| name.starts_with("two_lines _-") && name.ends_with("-240p.mp4");
    assert!(name.as_ref().is_some_and(is_plain), "{name:?}");
    let output = stage.run(&["encode", "missing.mp4", "--out", "out2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!stage.path("out2").exists());
}
