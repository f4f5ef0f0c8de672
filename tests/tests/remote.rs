//! Operations at a provider that is another process: what happens to each of them, and what it
//! costs, judged by the provider's own journal.

use nix::sys::signal::Signal;
use serde_json::json;
use shiftboss_tests::provider::scene::{of_kind, payload, result, same, stage};
use shiftboss_tests::provider::{Behaviour, Shape, check};
use shiftboss_tests::{Stage, wait_for, wait_until};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

#[test]
fn an_operation_of_every_shape_ends_with_its_file() {
    for shape in Shape::ALL {
        let (stage, simulator) = stage(shape, &Behaviour::default(), same);
        let unlucky = stage.insert("remote", &payload(&stage, shape, "b", "fail"));
        let job = stage.wait_for_state(unlucky, "failed");
        let name = shape.name();
        assert!(job.last_error.contains(&format!("{name} failed it")), "{}", job.last_error);
        let is_told = job.last_error.contains("out of luck");
        // Leonardo gives no reason.
        assert!(is_told || shape == Shape::Leonardo, "{}", job.last_error);
        let id = stage.insert("remote", &payload(&stage, shape, "a", ""));
        let result = result(&stage, id);
        assert_eq!(result["provider"], name);
        let operation = result["operation"].as_str().unwrap_or_default();
        assert!(operation.ends_with("op-2"), "{name}: {operation}");
        assert_eq!(result["files"][0]["bytes"], 100_000, "{name}: {result}");
        let file = if shape == Shape::Bria { "a.png" } else { "a.mp4" };
        let file = std::fs::metadata(stage.file(file)).expect("it was named after what it is");
        assert_eq!(file.len(), 100_000);
        let journal = simulator.journal();
        assert_eq!((of_kind(&journal, "submit"), of_kind(&journal, "poll")), (2, 4), "{name}");
        assert_eq!(of_kind(&journal, "unproved") + of_kind(&journal, "unknown"), 0, "{name}");
        let story = stage.json(&["job", &id.to_string(), "--json"]);
        let text = format!("{story}{}", stage.log());
        assert!(!text.contains("sk-simulated"), "{name}: a secret was told: {text}");
    }
}

/// Kills the worker of the stage: there is at most one, and it is not there all the time.
fn kill_worker(stage: &Stage) {
    wait_until("a worker was killed", || {
        let workers = stage.json(&["workers", "--json"]);
        let pid = workers[0]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.map(nix::unistd::Pid::from_raw);
        pid.is_some_and(|pid| nix::sys::signal::kill(pid, Signal::SIGKILL).is_ok())
    });
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
            kill_worker(&stage);
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
fn a_lost_answer_is_found_by_looking_for_the_key_where_the_provider_lists_it() {
    let shape = Shape::Kling;
    let (stage, simulator) = stage(shape, &Behaviour::default(), same);
    let id = stage.insert("remote", &payload(&stage, shape, "lost", "lose-submit"));
    result(&stage, id);
    let journal = simulator.journal();
    assert_eq!((of_kind(&journal, "submit"), of_kind(&journal, "lookup")), (1, 1));
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
fn a_bandwidth_is_shared_by_all_downloads_of_a_provider() {
    let shape = Shape::Generic;
    let (stage, simulator) = stage(shape, &Behaviour::default(), |text| {
        text.replace("max = \"8GiB\"", "max = \"8GiB\"\nrate = \"200KiB\"")
    });
    let insert = |tag: &str| stage.insert("remote", &payload(&stage, shape, tag, ""));
    let ids = ["a", "b", "c", "d"].map(insert);
    for id in ids {
        assert_eq!(result(&stage, id)["files"][0]["bytes"], 100_000);
    }
    let journal = simulator.journal();
    let first = journal.iter().find(|line| line.kind == "download").expect("there are four");
    let ended = ids.map(|id| stage.attempts(id).len());
    assert_eq!(ended, [1; 4], "nobody starved");
    // A file is given its name when its last byte may have come.
    let changed = |path: std::path::PathBuf| {
        let facts = std::fs::metadata(path).expect("it is there");
        let seconds = u64::try_from(facts.ctime()).expect("after 1970");
        let nanos = u32::try_from(facts.ctime_nsec()).expect("below a second");
        SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
    };
    let files = ["a", "b", "c", "d"].map(|tag| changed(stage.file(&format!("{tag}.mp4"))));
    let last = files.iter().max().expect("four");
    let began = simulator.began() + first.at;
    let took = last.duration_since(began).unwrap_or_default();
    let least = Duration::from_secs_f64(400_000.0 / 204_800.0) - Duration::from_millis(300);
    assert!(took >= least, "400,000 bytes came in {took:?}");
}

#[test]
fn a_lag_of_polls_is_told_with_the_worker_and_is_over_when_they_are_served() {
    let shape = Shape::Generic;
    let behaviour = Behaviour { polls: 3, ..Behaviour::default() };
    let (stage, _simulator) = stage(shape, &behaviour, |text| {
        text.replace("\"10/1s\"", "\"1000/1s\"").replace("\"100/1s\"", "\"2/1s\"")
    });
    let ids: Vec<i64> = (0..5)
        .map(|at| stage.insert("remote", &payload(&stage, shape, &format!("t{at}"), "")))
        .collect();
    let lag = || stage.json(&["workers", "--json"])[0]["gauges"]["poll_lag_ms"].as_f64();
    // Fifteen polls at two a second: the last ones are seconds late.
    wait_until("polls are late", || lag().is_some_and(|lag| lag > 1_000.0));
    let printed = stage.run(&["workers"]);
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.contains("POLL LAG") && printed.contains(" s "), "{printed}");
    let printed = stage.run(&["types"]);
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    let of_type = |name: &str| {
        let row = printed.lines().find(|line| line.starts_with(name)).expect("it is listed");
        row.contains(" s ")
    };
    assert!(printed.contains("POLL LAG") && of_type("remote") && !of_type("noop"), "{printed}");
    let printed = stage.run(&["status"]);
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.lines().any(|line| line.starts_with("poll lag ")), "{printed}");
    let types = stage.json(&["types", "--json"]);
    let of_type = |name: &str| {
        let rows = types.as_array().expect("a list").iter();
        rows.clone().find(|row| row["type"] == name).expect("it is listed")["poll_lag_ms"].clone()
    };
    assert!(of_type("remote").as_f64().is_some_and(|lag| lag > 0.0), "{types}");
    assert!(of_type("noop").is_null(), "{types}");
    let lag_of_all = || stage.json(&["status", "--json"])["poll_lag_ms"].as_f64();
    assert!(lag_of_all().is_some_and(|lag| lag > 0.0));
    for id in ids {
        result(&stage, id);
    }
    wait_until("none is late any more", || lag() == Some(0.0) && lag_of_all() == Some(0.0));
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
        (json!({ "provider": "generic", "output_dir": "/etc" }), "payload field output_dir"),
        (
            json!({ "provider": "generic", "output_dir": stage.file(""), "name": "../x" }),
            "payload field name",
        ),
        (
            json!({ "provider": "generic", "output_dir": stage.file("no/parent") }),
            "payload field output_dir",
        ),
    ] {
        let id = stage.insert("remote", &payload.to_string());
        wait_until("it was refused", || {
            stage.job(id).is_some_and(|job| job.last_error.contains(told))
        });
    }
    assert!(simulator.journal().is_empty());
}

#[test]
fn descriptions_are_listed_checked_tried_and_replayed_without_sending_anything() {
    let stage = Stage::dark("");
    let text = |output: std::process::Output| {
        let both = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&both).into_owned())
    };
    let (code, all) = text(stage.run(&["provider", "check"]));
    assert_eq!(code, Some(0), "{all}");
    let listed = stage.json(&["provider", "list", "--json"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(11), "{listed}");
    let input = r#"{"project": "p", "model": "veo", "instances": [{"prompt": "a cat"}]}"#;
    let (code, tried) =
        text(stage.run(&["provider", "try", "veo", "--input", input, "--id", "p/operations/o"]));
    assert_eq!(code, Some(0), "{tried}");
    for part in [
        "POST https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1/",
        "authorization: Bearer ***",
        r#"{"instances":[{"prompt":"a cat"}]}"#,
        ":fetchPredictOperation",
    ] {
        assert!(tried.contains(part), "{part} in {tried}");
    }
    let (code, lacking) = text(stage.run(&["provider", "try", "veo"]));
    assert_eq!(code, Some(1), "{lacking}");
    assert!(lacking.contains("{input.project} is missing in the job's input"), "{lacking}");
    let answers = [
        json!({"status": 200, "body": {"name": "projects/p/operations/o1"}}),
        json!({"status": 200, "body": {"name": "projects/p/operations/o1"}}),
        json!({"status": 503, "headers": {"Retry-After": "100"}}),
        json!({"status": 200, "body": {"done": true, "response": {
            "videos": [{"gcsUri": "gs://bucket/a.mp4"}] }}}),
    ];
    let recorded = answers.map(|answer| answer.to_string()).join("\n");
    std::fs::write(stage.path("veo.jsonl"), recorded).expect("the folder is ours");
    let (code, told) = text(stage.run(&["provider", "replay", "veo", "veo.jsonl"]));
    assert_eq!(code, Some(0), "{told}");
    for part in ["Poll: status 503", "download gs://bucket/a.mp4", "Done(", "o1"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    std::fs::create_dir(stage.path("providers")).expect("the folder is ours");
    std::fs::write(stage.path("providers/mine.toml"), "name = \"mine\"\nbase = 5\n").expect("ours");
    let (code, wrong) = text(stage.run(&["provider", "check"]));
    assert_eq!(code, Some(1), "{wrong}");
    assert!(wrong.contains("mine.toml:2: base: invalid type"), "{wrong}");
}
