//! What an attempt ended of is told apart, and stored as a word that programs can read.

use shiftboss_tests::{Stage, wait_until};

/// A script, and the cause and the words that its attempt must get.
const ENDS: [(&str, &str, &str); 8] = [
    ("exit 3", "exit_code", "code 3"),
    ("kill -SEGV $$", "signal", "SIGSEGV"),
    ("kill -XCPU $$", "limit", "SIGXCPU"),
    ("kill -XFSZ $$", "limit", "SIGXFSZ"),
    // A limit of its own, met for real.
    ("ulimit -f 1; exec head -c 100000 /dev/zero > large", "limit", "SIGXFSZ"),
    ("kill -SYS $$", "forbidden_syscall", "SIGSYS"),
    // The kernel counted no kill for want of memory, so nobody says that there was one.
    ("kill -KILL $$", "signal", "SIGKILL"),
    ("kill -TERM $$", "signal", "SIGTERM"),
];

#[test]
fn ends_of_programs_are_told_apart() {
    let stage = Stage::new("[types.command]\nmax_attempts = 1\nworkers = { max = 4 }");
    let jobs: Vec<_> = ENDS.iter().map(|(script, ..)| stage.shell(script)).collect();
    for (job, (script, cause, words)) in jobs.into_iter().zip(ENDS) {
        let row = stage.wait_for_state(job, "failed");
        let attempt = &stage.attempts(job)[0];
        assert_eq!(attempt.cause.as_deref(), Some(cause), "{script}: {}", row.last_error);
        assert!(row.last_error.contains(words), "{script}: {}", row.last_error);
        assert!(!row.last_error.contains("out of memory"), "{script}: {}", row.last_error);
        assert_eq!((row.failures, row.crash_count), (1, 0), "{script}");
    }
}

#[test]
fn a_start_that_fails_a_payload_that_does_not_fit_and_a_type_that_is_unknown_are_told_apart() {
    let stage = Stage::new("[types.command]\nmax_attempts = 1");
    let plain = stage.path("plain");
    std::fs::write(&plain, "no program").expect("the folder is ours");
    let start = serde_json::json!({ "argv": [plain] }).to_string();
    for (job_type, payload, cause) in [
        ("command", &*start, "failed_start"),
        ("command", "{\"argv\": 7}", "payload"),
        ("command", "[", "payload"),
    ] {
        let job = stage.insert(job_type, payload);
        let row = stage.wait_for_state(job, "failed");
        let attempt = &stage.attempts(job)[0];
        assert_eq!(attempt.cause.as_deref(), Some(cause), "{payload}: {}", row.last_error);
    }
    let unknown = stage.insert("bogus", "{}");
    let row = stage.wait_for_state(unknown, "failed");
    assert!(row.last_error.contains("unknown type"), "{}", row.last_error);
}

#[test]
fn an_open_breaker_is_seen_in_status_and_types_and_other_types_go_on() {
    let worker = shiftboss_tests::built("odd-worker");
    let stage = Stage::new(&format!(
        "[types.exits]\nworker = {worker:?}\nworkload = \"odd\"\n\
         restart = {{ base = \"1ms\", max = \"1h\", burst = 3 }}"
    ));
    assert_eq!(stage.json(&["status", "--json"])["breakers"], serde_json::json!([]));
    stage.insert("exits", "{}");
    let broken = || stage.json(&["status", "--json"])["breakers"][0].clone();
    wait_until("the breaker is open", || broken().is_object());
    let of_status = broken();
    assert_eq!(of_status["type"], "exits");
    let why = of_status["breaker"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("open") && why.contains("no model found in /models"), "{why}");
    let types = stage.json(&["types", "--json"]);
    let row = types.as_array().into_iter().flatten().find(|row| row["type"] == "exits").cloned();
    let row = row.expect("the type is configured");
    assert_eq!(row["state"], "broken");
    assert!(row["breaker"].as_str().is_some_and(|text| text.contains("no model")), "{row}");
    let text = stage.run(&["status"]).stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("breaker of exits"), "{text}");
    let other = stage.insert("noop", "{}");
    assert_eq!(stage.wait_for_state(other, "succeeded").attempt, 1);
}
