//! Operations at a provider that speaks TLS: whom a worker believes, and what it makes of
//! connections that end without a goodbye.

use serde_json::json;
use shiftboss_tests::provider::scene::{dark, of_kind, payload, result, same, stage};
use shiftboss_tests::provider::{Behaviour, Shape};
use shiftboss_tests::{wait_for, wait_until};

const SHAPE: Shape = Shape::Generic;

fn tls() -> Behaviour {
    Behaviour { tls: true, ..Behaviour::default() }
}

/// The description without the certificate.
fn trustless(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("ca_file")).collect();
    lines.join("\n")
}

#[test]
fn an_operation_goes_through_tls_to_whom_the_description_or_the_host_trusts() {
    let (stage, simulator) = stage(SHAPE, &tls(), same);
    let id = stage.insert("remote", &payload(&stage, SHAPE, "a", ""));
    let told = result(&stage, id);
    assert_eq!(told["files"][0]["bytes"], 100_000, "{told}");
    assert!(told["links"][0].as_str().is_some_and(|link| link.starts_with("https://")), "{told}");
    assert_eq!(of_kind(&simulator.journal(), "submit"), 1);
    // The host's roots are those that OpenSSL's variable names.
    let (mut stage, simulator) = dark(SHAPE, &tls(), trustless);
    let roots = format!("env = {{ SSL_CERT_FILE = {:?}, ", simulator.certificate());
    stage.reconfigure("env = { ", &roots);
    stage.start();
    let id = stage.insert("remote", &payload(&stage, SHAPE, "a", ""));
    assert_eq!(result(&stage, id)["files"][0]["bytes"], 100_000);
}

#[test]
fn nothing_is_sent_to_a_provider_that_nobody_vouches_for() {
    let (stage, simulator) = stage(SHAPE, &tls(), trustless);
    let id = stage.insert("remote", &payload(&stage, SHAPE, "a", ""));
    let note = wait_for("the refusal is told", || {
        let story = stage.json(&["job", &id.to_string(), "--json"]);
        let note = story["progress_note"].as_str().unwrap_or_default().to_owned();
        note.contains("last error").then_some(note)
    });
    assert!(note.contains("nothing was sent") && note.contains("`ca_file`"), "{note}");
    assert_eq!(stage.job(id).map(|job| job.state).as_deref(), Some("running"), "it waits");
    assert!(simulator.journal().is_empty());
}

#[test]
fn a_certificate_file_that_is_wrong_fails_the_jobs_of_its_provider_and_names_it() {
    let (stage, simulator) = stage(SHAPE, &tls(), |text| text.replace(".pem", ".absent"));
    let id = stage.insert("remote", &payload(&stage, SHAPE, "a", ""));
    let job = stage.wait_for_state(id, "failed");
    for part in ["ca_file", "journal-generic.absent", "No such file"] {
        assert!(job.last_error.contains(part), "{part}: {}", job.last_error);
    }
    assert!(simulator.journal().is_empty());
}

#[test]
fn a_connection_cut_in_the_middle_is_no_end_and_downloads_go_on_where_it_was_cut() {
    let (stage, simulator) = stage(SHAPE, &tls(), same);
    let insert = |mode: &str| stage.insert("remote", &payload(&stage, SHAPE, mode, mode));
    let modes = ["half", "half-file", "untold-size", "lose-submit"];
    let ids = modes.map(|mode| (mode, insert(mode)));
    for (mode, id) in ids {
        assert_eq!(result(&stage, id)["files"][0]["bytes"], 100_000, "{mode}");
        let bytes = std::fs::read(stage.file(&format!("{mode}.mp4"))).expect("it is there");
        let is_right = |(at, byte): (usize, &u8)| usize::from(*byte) == at % 251;
        assert!(bytes[24..].iter().enumerate().all(is_right), "{mode}");
    }
    let journal = simulator.journal();
    for mode in ["half-file", "untold-size"] {
        let ranges = journal.iter().filter(|line| line.tag == mode && line.kind == "download");
        let ranges: Vec<_> = ranges.map(|line| line.all["range"].clone()).collect();
        assert_eq!(ranges.len(), 2, "{mode}: {ranges:?}");
        assert_eq!(ranges[0], json!(""), "{mode}");
        assert!(ranges[1].as_str().is_some_and(|range| range.starts_with("bytes=")), "{ranges:?}");
    }
    assert_eq!((of_kind(&journal, "submit"), of_kind(&journal, "again")), (4, 1));
    wait_until("all jobs are done", || stage.count("state = 'succeeded'") == 4);
}
