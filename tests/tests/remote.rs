//! Operations at a provider that is another process: what happens to each of them, and what it
//! costs, judged by the provider's own journal.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use shiftboss_tests::provider::{Behaviour, Shape, Simulator, check};
use shiftboss_tests::{Stage, children, wait_for, wait_until};
use std::time::Duration;

/// A stage whose jobs ask a simulated provider; `change` may change its description.
fn stage(
    shape: Shape,
    behaviour: &Behaviour,
    change: impl Fn(&str) -> String,
) -> (Stage, Simulator) {
    let mut stage = Stage::dark("");
    let simulator = Simulator::start(shape, behaviour, &stage.path(""));
    simulator.describe(&stage.path(""), |text| change(&quick(text)));
    let (port, out, secret) = (simulator.port, stage.file(""), shape.secret());
    stage.reconfigure(
        "",
        &format!(
            "[types.remote]\nnetwork = {{ tcp = [{port}] }}\nroots = {{ write = [{out:?}] }}\n\
             env = {{ {secret} = \"sk-simulated\" }}\nrestart = {{ base = \"1ms\" }}"
        ),
    );
    stage.start();
    (stage, simulator)
}

/// A description that polls as fast as a test wants.
fn quick(text: &str) -> String {
    let keeps = |line: &&str| !line.starts_with("first =") && !line.starts_with("every =");
    let text: Vec<_> = text.lines().filter(keeps).collect();
    let pace = "[poll]\nfirst = \"20ms\"\nevery = { min = \"20ms\", max = \"200ms\" }";
    text.join("\n").replacen("[poll]", pace, 1)
}

fn same(text: &str) -> String {
    text.to_owned()
}

fn payload(stage: &Stage, shape: Shape, tag: &str, mode: &str) -> String {
    json!({
        "provider": shape.name(),
        "input": shape.input(tag, mode),
        "output": { "dir": stage.file(""), "name": tag },
    })
    .to_string()
}

fn result(stage: &Stage, id: i64) -> Value {
    let job = stage.wait_for_state(id, "succeeded");
    serde_json::from_str(&job.result.expect("it has a result")).expect("JSON")
}

fn of_kind(journal: &[check::Line], kind: &str) -> usize {
    journal.iter().filter(|line| line.kind == kind).count()
}

#[test]
fn an_operation_of_every_shape_ends_with_its_file() {
    for shape in Shape::ALL {
        let (stage, simulator) = stage(shape, &Behaviour::default(), same);
        let id = stage.insert("remote", &payload(&stage, shape, "a", ""));
        let result = result(&stage, id);
        let name = shape.name();
        assert_eq!(result["provider"], name);
        assert_eq!(result["operation"], "op-1", "{name}");
        assert_eq!(result["files"][0]["bytes"], 100_000, "{name}: {result}");
        let file = std::fs::metadata(stage.file("a.mp4")).expect("it was named after what it is");
        assert_eq!(file.len(), 100_000);
        let journal = simulator.journal();
        assert_eq!((of_kind(&journal, "submit"), of_kind(&journal, "poll")), (1, 2), "{name}");
        assert_eq!(of_kind(&journal, "unproved") + of_kind(&journal, "unknown"), 0, "{name}");
        let story = stage.json(&["job", &id.to_string(), "--json"]);
        let text = format!("{story}{}", stage.log());
        assert!(!text.contains("sk-simulated"), "{name}: a secret was told: {text}");
    }
}

/// The worker of the stage: there is one.
fn worker(stage: &Stage) -> i32 {
    wait_for("there is a worker", || children(stage.pid()).first().copied())
}

fn kill(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, Signal::SIGKILL).expect("it lives");
}

#[test]
fn kills_of_worker_and_supervisor_submit_nothing_twice_and_forget_nothing() {
    let behaviour = Behaviour {
        polls: 6,
        lost_polls: 30,
        errors: 30,
        refusals: 30,
        pages: 30,
        ..Behaviour::default()
    };
    let shape = Shape::Generic;
    let (mut stage, simulator) = stage(shape, &behaviour, |text| {
        text.replace("poll = \"100/1s\"", "poll = \"200/1s\"").replace("\"10/1s\"", "\"100/1s\"")
    });
    let ids: Vec<i64> = (0..60)
        .map(|at| stage.insert("remote", &payload(&stage, shape, &format!("t{at}"), "")))
        .collect();
    for at in [5, 20, 40, 80, 120] {
        wait_until("some requests have come", || simulator.journal().len() >= at);
        if at % 40 == 0 {
            stage.signal(Signal::SIGKILL);
            stage.wait_for_end();
            stage.start();
        } else {
            kill(worker(&stage));
        }
    }
    for id in &ids {
        assert_eq!(result(&stage, *id)["files"][0]["bytes"], 100_000);
    }
    let journal = simulator.journal();
    assert_eq!(check::paid_twice(&journal), Vec::<String>::new());
    assert_eq!(check::forgotten(&journal), Vec::<String>::new());
    assert_eq!(of_kind(&journal, "submit"), ids.len());
}

#[test]
fn a_submission_whose_answer_was_lost_is_held_until_somebody_decides() {
    let shape = Shape::Replicate;
    let (stage, simulator) = stage(shape, &Behaviour::default(), same);
    let lost = stage.insert("remote", &payload(&stage, shape, "lost", "lose-submit"));
    let other = stage.insert("remote", &payload(&stage, shape, "other", "lose-submit"));
    for id in [lost, other] {
        let job = stage.wait_for_state(id, "held");
        assert!(job.last_error.contains("--adopt OP"), "{}", job.last_error);
    }
    // Trying again as it is decides nothing, and pays nothing.
    assert!(stage.run(&["retry", &lost.to_string()]).status.success());
    wait_until("it is held again", || {
        stage.job(lost).is_some_and(|job| job.state == "held" && job.attempt == 2)
    });
    assert_eq!(of_kind(&simulator.journal(), "submit"), 2);
    let id = lost.to_string();
    let op =
        simulator.journal().iter().find(|line| line.tag == "lost").expect("it came").op.clone();
    let adopted = stage.run(&["provider", "resolve", &id, "--adopt", &op]);
    assert!(adopted.status.success(), "{adopted:?}");
    assert_eq!(result(&stage, lost)["operation"], json!(op));
    let again = stage.run(&["provider", "resolve", &other.to_string(), "--resubmit"]);
    assert!(again.status.success(), "{again:?}");
    // It is lost again: the mode says so to each new operation.
    wait_until("it was submitted again", || of_kind(&simulator.journal(), "submit") == 3);
    let refused = stage.run(&["provider", "resolve", &id, "--resubmit"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
}

#[test]
fn a_provider_that_knows_its_keys_is_asked_again_and_pays_once() {
    let shape = Shape::Generic;
    let (stage, simulator) = stage(shape, &Behaviour::default(), same);
    let id = stage.insert("remote", &payload(&stage, shape, "lost", "lose-submit"));
    result(&stage, id);
    let journal = simulator.journal();
    assert_eq!((of_kind(&journal, "submit"), of_kind(&journal, "again")), (1, 1));
}

#[test]
fn a_rate_holds_in_every_window_as_the_provider_sees_it() {
    let shape = Shape::Generic;
    let behaviour = Behaviour { polls: 4, ..Behaviour::default() };
    let (stage, simulator) = stage(shape, &behaviour, |text| {
        text.replace("submit = \"10/1s\"", "submit = \"10/500ms\"")
            .replace("\"100/1s\"", "\"20/500ms\"")
    });
    let ids: Vec<i64> = (0..20)
        .map(|at| stage.insert("remote", &payload(&stage, shape, &format!("t{at}"), "")))
        .collect();
    for id in ids {
        result(&stage, id);
    }
    let journal = simulator.journal();
    let window = Duration::from_millis(500);
    assert_eq!(of_kind(&journal, "poll"), 80);
    let (submits, polls) = (
        check::most_within(&journal, &["submit"], window),
        check::most_within(&journal, &["poll"], window),
    );
    assert!(submits <= 10 && polls <= 20, "{submits} submissions and {polls} polls in {window:?}");
}

#[test]
fn hostile_answers_end_what_they_must_and_nothing_else() {
    let shape = Shape::Generic;
    let behaviour = Behaviour { polls: 1, ..Behaviour::default() };
    let (stage, simulator) = stage(shape, &behaviour, |text| {
        text.replace("max = \"8GiB\"", "max = \"1MiB\"\nkind = \"video\"")
            .replace("url = \"/url\"", "url = \"/url\"\nrequire = 1")
    });
    let insert = |mode: &str| stage.insert("remote", &payload(&stage, shape, mode, mode));
    let survive = ["huge", "page", "half", "retry-past", "expired", "half-file"];
    let survive = survive.map(|mode| (mode, insert(mode)));
    let fail = [
        ("link-file", "scheme \"file\""),
        ("link-loopback", "127.0.0.1 is not a public address"),
        ("link-metadata", "169.254.169.254 is not a public address"),
        ("redirect-loopback", "127.0.0.1 is not a public address"),
        ("empty", "0 results where 1 were wanted"),
        ("not-a-film", "it is not a film"),
        ("fail", "generic failed it"),
    ];
    let fail = fail.map(|(mode, told)| (mode, insert(mode), told));
    for (mode, id, told) in fail {
        let job = stage.wait_for_state(id, "failed");
        assert!(job.last_error.contains(told), "{mode}: {}", job.last_error);
        assert_eq!(job.attempt, 1, "{mode}: another attempt would pay again");
    }
    for (mode, id) in survive {
        assert_eq!(result(&stage, id)["files"][0]["bytes"], 100_000, "{mode}");
    }
    let journal = simulator.journal();
    assert_eq!(check::paid_twice(&journal), Vec::<String>::new());
    let ranges: Vec<_> = journal.iter().filter(|line| line.all["range"] != json!("")).collect();
    assert!(ranges.iter().any(|line| line.tag == "half-file"), "it went on where it broke off");
    assert!(!stage.file("link-file.bin").exists());
}

#[test]
fn a_wait_of_a_year_is_cut_and_the_job_waits_on() {
    let shape = Shape::Generic;
    let (stage, simulator) = stage(shape, &Behaviour::default(), same);
    let id = stage.insert("remote", &payload(&stage, shape, "y", "retry-year"));
    let told = wait_for("its wait is told", || {
        let story = stage.json(&["job", &id.to_string(), "--json"]);
        let note = story["progress_note"].as_str().unwrap_or_default().to_owned();
        note.contains("status 503").then_some(note)
    });
    // An hour at most, and it is still there.
    let seconds = told.split("next in ").nth(1).and_then(|text| text.split(' ').next());
    let seconds: u64 = seconds.and_then(|text| text.parse().ok()).expect(&told);
    assert!((3_500..=3_600).contains(&seconds), "{told}");
    assert!(stage.run(&["cancel", &id.to_string()]).status.success());
    stage.wait_for_state(id, "cancelled");
    assert_eq!(of_kind(&simulator.journal(), "cancel"), 1, "the provider was told");
}

#[test]
fn bad_jobs_are_refused_before_anything_is_sent() {
    let shape = Shape::Generic;
    let (stage, simulator) = stage(shape, &Behaviour::default(), same);
    let shape = Shape::Replicate;
    for (payload, told) in [
        (json!({ "provider": "nobody" }), "no provider has this name; there are: bria, fal"),
        (json!({ "provider": shape.name() }), "secret REPLICATE_API_TOKEN is not set"),
        (json!({ "provider": "generic", "extra": 1 }), "unknown field `extra`"),
        (json!({ "provider": "generic", "output": { "dir": "/etc" } }), "payload field output.dir"),
        (
            json!({ "provider": "generic", "output": { "dir": stage.file(""), "name": "../x" } }),
            "payload field output.name",
        ),
    ] {
        let id = stage.insert("remote", &payload.to_string());
        wait_until("it was refused", || {
            stage.job(id).is_some_and(|job| job.last_error.contains(told))
        });
    }
    assert!(simulator.journal().is_empty());
}
