//! Disks that are full or read-only: an outcome waits, an encode fails with a sentence.

use serde_json::json;
use shiftboss_tests::{Disk, Stage, has_program, skip, wait_for, wait_until};
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn an_outcome_that_does_not_fit_the_full_disk_is_stored_when_there_is_room() {
    let name = "an_outcome_that_does_not_fit_the_full_disk";
    let Some(mut stage) = Stage::on_disk(name, 12, "[types.command]\nmax_attempts = 1") else {
        return;
    };
    stage.start();
    let elsewhere = tempfile::tempdir().expect("a folder can be made");
    let go = elsewhere.path().join("go");
    // The log of the database must grow for it.
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; \
         printf '{{\"result\": \"%050000d\"}}\\n' 7",
        go.display()
    );
    let payload = json!({
        "argv": ["sh", "-c", script], "read": [elsewhere.path()],
        "progress": { "json_lines": true },
    });
    let job = stage.insert("command", &payload.to_string());
    wait_until("the program runs", || !stage.programs_of(job).is_empty());
    stage.disk().fill();
    std::fs::write(&go, "").expect("the folder is ours");
    let trouble = wait_for("the supervisor says so", || {
        let status = stage.json(&["status", "--json"]);
        status["trouble"].as_str().map(str::to_owned)
    });
    assert!(trouble.contains("full"), "{trouble}");
    assert_eq!(stage.job(job).expect("it is there").state, "running");
    stage.disk().empty();
    let row = stage.wait_for_state(job, "succeeded");
    assert_eq!((row.attempt, row.failures, row.crash_count), (1, 0, 0));
    assert!(row.result.is_some_and(|result| result.len() > 50_000));
    wait_until("it is over", || stage.json(&["status", "--json"])["trouble"].is_null());
}

/// Makes a film of some seconds; `None` (and a skip) without ffmpeg.
fn film(stage: &Stage, test: &str) -> Option<PathBuf> {
    if !has_program("ffmpeg") || !has_program("ffprobe") {
        skip(test, "ffmpeg is not installed");
        return None;
    }
    let path = stage.path("film.mp4");
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-f", "lavfi", "-i", "testsrc2=size=640x480:rate=30"]);
    command.args(["-t", "8", "-c:v", "libx264", "-preset", "ultrafast"]);
    assert!(command.arg(&path).status().expect("it can be started").success());
    Some(path)
}

fn encode(stage: &Stage, film: &Path, out: &Path) -> i64 {
    let payload = json!({
        "op": "ladder", "input": film, "output_dir": out, "renditions": ["480p", "240p"],
        "preset": "ultrafast", "crf": 10,
    });
    stage.insert("encode", &payload.to_string())
}

#[test]
fn an_encode_into_a_full_disk_says_so_and_leaves_nothing() {
    let name = "an_encode_into_a_full_disk_says_so";
    let stage = Stage::new("[types.encode]\nmax_attempts = 1");
    let Some(film) = film(&stage, name) else { return };
    let out = stage.path("disk");
    std::fs::create_dir(&out).expect("the folder is ours");
    let Some(_disk) = Disk::mount(name, &out, 1) else { return };
    let job = encode(&stage, &film, &out);
    let row = stage.wait_for_state(job, "failed");
    assert!(row.last_error.contains("No space left on device"), "{}", row.last_error);
    assert!(row.last_error.contains("disk"), "{}", row.last_error);
    assert_eq!(std::fs::read_dir(&out).map_or(0, Iterator::count), 0, "{}", row.last_error);
}

#[test]
fn an_output_folder_that_cannot_be_written_or_made_fails_at_once_and_is_named() {
    let name = "an_output_folder_that_cannot_be_written_or_made";
    let stage = Stage::new("");
    let Some(film) = film(&stage, name) else { return };
    let orphan = encode(&stage, &film, &stage.path("no/such/parent"));
    let row = stage.wait_for_state(orphan, "failed");
    assert!(row.last_error.contains("field output_dir"), "{}", row.last_error);
    assert!(row.last_error.contains("does not exist"), "{}", row.last_error);
    let file = encode(&stage, &film, &film);
    let row = stage.wait_for_state(file, "failed");
    assert!(row.last_error.contains("film.mp4"), "{}", row.last_error);
    assert_eq!((row.attempt, row.failures), (1, 1));
    let out = stage.path("disk");
    std::fs::create_dir(&out).expect("the folder is ours");
    let Some(disk) = Disk::mount(name, &out, 1) else { return };
    std::fs::create_dir(out.join("made")).expect("it can be written yet");
    disk.make_read_only();
    for folder in [out.join("made"), out.join("new"), out.clone()] {
        let job = encode(&stage, &film, &folder);
        let row = stage.wait_for_state(job, "failed");
        assert!(row.last_error.contains("Read-only file system"), "{}", row.last_error);
        assert!(row.last_error.contains(&*folder.to_string_lossy()), "{}", row.last_error);
        assert_eq!((row.attempt, row.failures), (1, 1), "it was tried again");
    }
}

#[test]
fn an_encode_whose_logs_do_not_fit_a_full_disk_succeeds_all_the_same() {
    let name = "an_encode_whose_logs_do_not_fit_a_full_disk";
    let mut stage = Stage::dark("");
    let Some(film) = film(&stage, name) else { return };
    let work = stage.path("disk");
    std::fs::create_dir(&work).expect("the folder is ours");
    let Some(disk) = Disk::mount(name, &work, 1) else { return };
    let config = std::fs::read_to_string(stage.path("shiftboss.toml")).expect("it is ours");
    let config = format!("work_dir = {work:?}\n{config}");
    std::fs::write(stage.path("shiftboss.toml"), config).expect("it is ours");
    stage.start();
    disk.fill();
    let job = encode(&stage, &film, &stage.path("out"));
    let row = stage.wait_for_state(job, "succeeded");
    assert_eq!(row.attempt, 1);
}
