//! Operations at Veo, whose tokens are given for what a service account has signed.

use shiftboss_tests::provider::scene::{dark, of_kind, payload, result, same};
use shiftboss_tests::provider::tokens::google;
use shiftboss_tests::provider::{Behaviour, Shape, Simulator};
use shiftboss_tests::{Stage, skip, wait_for};

/// A stage whose type knows the account's key.
fn hired(test: &str) -> Option<(Stage, Simulator)> {
    let behaviour = Behaviour { tls: true, ..Behaviour::default() };
    let (mut stage, simulator) = dark(Shape::Veo, &behaviour, same);
    let Some(key) = google::account(simulator.journal_path()) else {
        skip(test, "openssl is not installed, nothing else here makes RSA keys");
        return None;
    };
    let file = stage.path("account.json");
    let place = format!("https://127.0.0.1:{}/token", simulator.port);
    std::fs::write(&file, google::key_file(&key, &place)).expect("the folder is ours");
    let known = format!("GOOGLE_SERVICE_ACCOUNT_FILE = {file:?}");
    stage.reconfigure("GOOGLE_SERVICE_ACCOUNT = \"sk-simulated\"", &known);
    stage.start();
    Some((stage, simulator))
}

#[test]
fn one_token_of_an_account_serves_all_operations_and_their_files() {
    let test = "one_token_of_an_account_serves_all_operations_and_their_files";
    let Some((stage, simulator)) = hired(test) else { return };
    let jobs: Vec<_> = (0..8)
        .map(|number| {
            let tag = format!("film-{number}");
            (stage.insert("remote", &payload(&stage, Shape::Veo, &tag, "")), tag)
        })
        .collect();
    let unlucky = stage.insert("remote", &payload(&stage, Shape::Veo, "u", "fail"));
    for (id, tag) in jobs {
        let told = result(&stage, id);
        assert_eq!(told["files"][0]["bytes"], 100_000, "{told}");
        let link = told["links"][0].as_str().unwrap_or_default();
        assert!(link.starts_with("gs://files/op-"), "{told}");
        assert!(stage.file(&format!("{tag}.mp4")).is_file());
        let story = stage.json(&["job", &id.to_string(), "--json"]).to_string();
        assert!(!story.contains("ya29."), "a token was told: {story}");
    }
    let job = stage.wait_for_state(unlucky, "failed");
    assert!(job.last_error.contains("out of luck"), "{}", job.last_error);
    let journal = simulator.journal();
    assert_eq!(of_kind(&journal, "token"), 1, "all waited for the same one");
    assert_eq!((of_kind(&journal, "submit"), of_kind(&journal, "download")), (9, 8));
    assert_eq!(of_kind(&journal, "unproved") + of_kind(&journal, "unknown"), 0);
    let log = stage.log();
    assert!(!log.contains("ya29.") && !log.contains("PRIVATE KEY"), "{log}");
}

#[test]
fn while_google_does_not_know_an_account_nothing_is_submitted_and_the_job_waits() {
    let test = "while_google_does_not_know_an_account_nothing_is_submitted_and_the_job_waits";
    let Some((stage, simulator)) = hired(test) else { return };
    // As if the account were unknown for now.
    let (known, hidden) = (simulator.journal_path().with_extension("public"), stage.path("hidden"));
    std::fs::rename(&known, &hidden).expect("the folder is ours");
    let id = stage.insert("remote", &payload(&stage, Shape::Veo, "a", ""));
    let note = wait_for("the refusal is told", || {
        let story = stage.json(&["job", &id.to_string(), "--json"]);
        let note = story["progress_note"].as_str().unwrap_or_default().to_owned();
        note.contains("last error").then_some(note)
    });
    assert!(note.contains("cannot get a token of Google's: status 400"), "{note}");
    assert!(note.contains("invalid_grant"), "{note}");
    let journal = simulator.journal();
    assert_eq!(of_kind(&journal, "submit") + of_kind(&journal, "unproved"), 0);
    std::fs::rename(&hidden, &known).expect("the folder is ours");
    assert_eq!(result(&stage, id)["files"][0]["bytes"], 100_000, "it had waited");
    assert_eq!(of_kind(&simulator.journal(), "submit"), 1);
}
