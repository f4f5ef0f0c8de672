//! Bad rows fail alone, at once, with the field named; other failures are tried again.

use shiftboss_tests::{Stage, wait_until};

#[test]
fn bad_payloads_fail_for_good_and_name_the_field() {
    let stage = Stage::new("");
    let cases = [
        ("bogus", "{}", "unknown type \"bogus\""),
        ("command", "not json", "payload is not JSON"),
        ("command", "{}", "argv"),
        ("command", "{\"argv\": []}", "argv"),
        ("command", "{\"argv\": [\"true\"], \"env\": 7}", "env"),
        ("command", "{\"argv\": [\"true\"], \"cwd\": \"relative\"}", "cwd"),
        ("command", "{\"argv\": [\"true\"], \"typo\": 1}", "typo"),
        ("command", "{\"argv\": [\"/no/such/program\"]}", "/no/such/program"),
        ("encode", "{\"op\": \"ladder\", \"output_dir\": \"/tmp\"}", "input"),
    ];
    for (job_type, payload, expected) in cases {
        if job_type == "encode" && !shiftboss_tests::has_program("ffmpeg") {
            continue;
        }
        let id = stage.insert(job_type, payload);
        let job = stage.wait_for_state(id, "failed");
        assert!(job.last_error.contains(expected), "{payload}: {}", job.last_error);
        assert!(job.attempt <= 1, "{payload} was tried again");
    }
    let id = stage.insert("noop", "{}");
    stage.wait_for_state(id, "succeeded");
}

#[test]
fn an_error_is_tried_again_after_a_delay_and_then_given_up() {
    let stage = Stage::new("[types.command]\nretry = { base = \"20ms\", max = \"50ms\" }");
    let runs = stage.file("runs");
    let script = format!("echo run >> {}; echo broken >&2; exit 3", runs.display());
    let job = stage.shell(&script);
    let row = stage.wait_for_state(job, "failed");
    assert_eq!((row.attempt, row.failures, row.crash_count), (3, 3, 0));
    assert!(row.last_error.contains("code 3") && row.last_error.contains("broken"), "{row:?}");
    assert_eq!(std::fs::read_to_string(runs).expect("it wrote").lines().count(), 3);
    let story = stage.json(&["job", &job.to_string(), "--json"]);
    assert_eq!(story["attempts"].as_array().map(Vec::len), Some(3));
    assert_eq!(story["attempts"][0]["exit_code"], 3);
}

#[test]
fn a_database_locked_by_another_program_loses_no_outcome() {
    let stage = Stage::new("");
    let flag = stage.file("ended");
    let job = stage.shell(&format!("sleep 0.3; touch {}", flag.display()));
    stage.wait_for_state(job, "running");
    let lock = stage.database();
    lock.execute_batch("BEGIN IMMEDIATE").expect("locked");
    wait_until("the program has ended", || flag.exists());
    wait_until("the supervisor says so", || stage.log().contains("lock"));
    assert!(stage.run(&["status"]).status.success());
    assert_eq!(stage.job(job).expect("it is there").state, "running");
    lock.execute_batch("COMMIT").expect("unlocked");
    assert_eq!(stage.wait_for_state(job, "succeeded").attempt, 1);
}

#[test]
fn monstrous_payloads_fail_alone_and_can_still_be_listed() {
    let stage = Stage::new("");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let long = format!("{{\"argv\": [\"true\", \"{}\"]}}", "x".repeat(9 << 20));
    let nested = format!("{{\"argv\": [\"true\"], \"progress\": {deep}}}");
    let odd = format!("{{\"argv\": [\"true\"], \"{}\": 1}}", "x".repeat(100_000));
    // Longer than one word of a command line may be.
    let many = format!("{{\"argv\": [\"true\", \"{}\"]}}", "x".repeat(200_000));
    for (payload, expected) in [
        (deep.as_str(), "invalid type: sequence"),
        (&nested, "payload is not JSON"),
        (&odd, "unknown field"),
        (&long, "put large data into a file and name it"),
        (&many, "are larger than the host allows"),
        ("{\"argv\": [\"a\\u0000b\"]}", "argv"),
        ("{\"argv\": [\"true\"], \"env\": {\"A=B\": \"x\"}}", "env"),
        ("{\"argv\": [\"true\"], \"env\": {\"SHIFTBOSS_JOB\": \"9\"}}", "env"),
        ("{\"argv\": [\"true\"], \"argv\": [\"false\"]}", "argv"),
        ("[]", "payload"),
        ("null", "payload"),
        ("", "payload is not JSON"),
    ] {
        let id = stage.insert("command", payload);
        let job = stage.wait_for_state(id, "failed");
        let shown: String = job.last_error.chars().take(400).collect();
        let sent: String = payload.chars().take(60).collect();
        assert!(job.last_error.contains(expected), "{sent}: {shown}");
        assert!(job.last_error.len() < 4_000, "{sent}: {} bytes", job.last_error.len());
        assert_eq!(job.attempt, 1, "{sent} was tried again");
    }
    let database = stage.database();
    for value in ["x'7b7d'", "CAST(x'ff22' AS TEXT)", "'{\"argv\": [\"true\"]}' || char(0) || 'x'"]
    {
        let sql = format!("INSERT INTO jobs(type, payload) VALUES ('command', {value})");
        // A strict table takes no bytes for text by itself.
        if database.execute(&sql, []).is_ok() {
            stage.wait_for_state(database.last_insert_rowid(), "failed");
        }
    }
    let listed = stage.json(&["jobs", "--json", "--limit", "3"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(3));
    for id in ["1", "3", "5"] {
        let story = stage.run(&["job", id]);
        assert!(story.status.success() && story.stdout.len() < 8_000, "{}", story.stdout.len());
    }
    // Far more than one frame, and too much for one answer.
    let payload = format!("[\"{}\"]", "y".repeat(300_000));
    let sql = "INSERT INTO jobs(type, payload, run_at) SELECT 'later', ?1, 9999999999999 FROM \
               (WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 150) \
               SELECT x FROM n)";
    database.execute(sql, [&payload]).expect("inserted");
    let later = ["jobs", "--json", "--type", "later", "--limit"];
    let listed = stage.json(&[&later[..], &["20"]].concat());
    assert_eq!(listed[19]["payload"][0].as_str().map(str::len), Some(300_000));
    let refused = stage.run(&[&later[..], &["1000"]].concat());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("more than 32 MiB of text: ask for fewer"), "{text}");
    database.execute("DELETE FROM jobs WHERE type = 'later'", []).expect("deleted");
    let all = stage.run(&["jobs"]);
    assert!(all.status.success(), "{all:?}");
    let good = stage.insert("noop", "{}");
    stage.wait_for_state(good, "succeeded");
}
