//! The `encode` workload in the real worker process, with launchers and the protocol.

#[path = "process/supervisor.rs"]
#[expect(dead_code, reason = "these tests use a part of it")]
mod supervisor;

use serde_json::{Value, json};
use shiftboss_protocol::job::{Cause, Outcome};
use shiftboss_protocol::message::{ReceiptOf, StopReason, WorkerMessage};
use std::path::{Path, PathBuf};
use std::process::Command;
use supervisor::{Supervisor, is_alive};

fn film(supervisor: &Supervisor, seconds: u32) -> PathBuf {
    let film = supervisor.path("film.mp4");
    let source = format!("testsrc2=s=640x360:r=30:d={seconds}");
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-f", "lavfi", "-i", &source])
        .args(["-f", "lavfi", "-i", &format!("sine=d={seconds}"), "-c:v", "libx264"])
        .args(["-preset", "ultrafast", "-pix_fmt", "yuv420p", "-movflags", "+faststart"])
        .arg(&film)
        .status()
        .expect("ffmpeg is installed on every machine that runs these tests");
    assert!(status.success());
    film
}

fn payload(supervisor: &Supervisor, film: &Path, more: &Value) -> String {
    let mut payload = json!({
        "op": "ladder",
        "input": film,
        "output_dir": supervisor.path("out"),
        "renditions": ["360p", "240p"],
        "preset": "ultrafast",
    });
    let fields = more.as_object().expect("tests give an object").clone();
    payload.as_object_mut().expect("it is an object").extend(fields);
    payload.to_string()
}

fn outputs(supervisor: &Supervisor) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(supervisor.path("out")) else { return Vec::new() };
    let names = entries.map(|entry| entry.expect("it can be listed").file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn wait_for_checkpoint(supervisor: &mut Supervisor) {
    supervisor
        .wait_for(|message| matches!(message, WorkerMessage::Checkpoint { .. }).then_some(()));
}

#[test]
fn a_film_becomes_renditions_once_their_list_is_stored() {
    let mut supervisor = Supervisor::start("encode", 1);
    let abilities = supervisor.ready().abilities;
    assert!(abilities[0].starts_with("ffmpeg ") && abilities[1] == "libx264", "{abilities:?}");
    let film = film(&supervisor, 4);
    supervisor.assign(1, &payload(&supervisor, &film, &json!({})));
    wait_for_checkpoint(&mut supervisor);
    assert_eq!(outputs(&supervisor), [".shiftboss-1-1"]);
    supervisor.record(1, ReceiptOf::Checkpoint, false);
    let result = supervisor.succeeded(1);
    assert_eq!(outputs(&supervisor), ["film-240p.mp4", "film-360p.mp4"]);
    for output in result["outputs"].as_array().expect("outputs are listed") {
        assert_eq!((&output["frames"], &output["audio"]), (&json!(120), &json!(true)));
    }
    let is_note = |message: &WorkerMessage| {
        let WorkerMessage::Progress { note, .. } = message else { return false };
        // Later notes may be superseded within half a second; the first is always sent.
        note.contains("opening the input")
    };
    assert!(supervisor.seen.iter().any(is_note), "{:?}", supervisor.seen);
}

#[test]
fn a_film_becomes_hls_in_the_cage() {
    let mut supervisor = Supervisor::start("encode", 1);
    let film = film(&supervisor, 4);
    let more = json!({"format": "hls", "segment_seconds": 2});
    supervisor.assign(1, &payload(&supervisor, &film, &more));
    wait_for_checkpoint(&mut supervisor);
    supervisor.record(1, ReceiptOf::Checkpoint, false);
    let result = supervisor.succeeded(1);
    assert_eq!(outputs(&supervisor), ["film-hls"]);
    assert_eq!(result["hls"]["segments"], json!(2));
    for output in result["outputs"].as_array().expect("outputs are listed") {
        let playlist = PathBuf::from(output["path"].as_str().expect("a path is text"));
        assert!(playlist.is_file() && playlist.starts_with(supervisor.path("out/film-hls")));
    }
}

#[test]
fn a_cancelled_encode_leaves_neither_files_nor_processes() {
    let mut supervisor = Supervisor::start("encode", 1);
    let film = film(&supervisor, 60);
    supervisor.assign(1, &payload(&supervisor, &film, &json!({"preset": "veryslow"})));
    supervisor.wait_for(|message| match message {
        WorkerMessage::Progress { note, .. } if note.contains("speed") => Some(()),
        _ => None,
    });
    supervisor.cancel(1, StopReason::Cancelled);
    assert_eq!(supervisor.finished(1).0, Outcome::Cancelled);
    assert_eq!(outputs(&supervisor), Vec::<String>::new());
    for message in &supervisor.seen {
        if let WorkerMessage::Started { launcher_pid, .. } = message {
            assert!(!is_alive(&launcher_pid.to_string()), "{launcher_pid}");
        }
    }
}

#[test]
fn a_truncated_film_fails_for_good_and_says_so() {
    let mut supervisor = Supervisor::start("encode", 1);
    let film = film(&supervisor, 4);
    let bytes = std::fs::read(&film).expect("the film was made");
    std::fs::write(&film, &bytes[..bytes.len() * 6 / 10]).expect("the folder can be written");
    supervisor.assign(1, &payload(&supervisor, &film, &json!({})));
    let failure = supervisor.failed(1);
    assert_eq!((failure.permanent, failure.cause), (true, Cause::Error));
    assert!(failure.message.contains("is truncated: it declares 4.0"), "{}", failure.message);
    assert_eq!(outputs(&supervisor), Vec::<String>::new());
}

#[test]
fn a_payload_for_a_later_version_fails_for_good() {
    let mut supervisor = Supervisor::start("encode", 1);
    supervisor.assign(1, r#"{"op": "dub", "inputs": ["/a", "/b"], "output_dir": "/c"}"#);
    let failure = supervisor.failed(1);
    assert_eq!((failure.permanent, failure.cause), (true, Cause::Payload));
    assert!(failure.message.contains("not offered by this version"), "{}", failure.message);
}
