//! Names that people have in their environment already do what they say.

use serde_json::Value;
use shiftboss_tests::{Stage, wait_for, wait_until};

/// The line of `config show` for a key.
fn shown(stage: &Stage, env: &[(&str, &str)], key: &str) -> Value {
    let mut command = stage.shiftboss(&["config", "show", "--json"]);
    let output = shiftboss_tests::output_of(command.envs(env.iter().copied()));
    let all: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    let mut all = all.as_array().cloned().unwrap_or_default();
    all.retain(|one| one["key"] == key);
    all.pop().expect("the key is shown")
}

#[test]
fn every_name_of_an_old_environment_has_its_effect() {
    let mut stage =
        Stage::dark("[types.command]\nretry = { base = \"1h\" }\n[poll]\nidle_max = \"1h\"");
    let env = [
        ("MAX_CONCURRENT_JOBS", "1"),
        ("WORKER_POLLING_INTERVAL", "4000"),
        ("TASK_PROCESSOR_POLLING_INTERVAL", "3500"),
        ("MAX_WORKERS", "3"),
        ("MIN_WORKERS", "1"),
        ("WORKER_TIMEOUT", "700"),
        ("INSTANCE_ID", "node-7"),
        ("REDIS_HOST", "redis.example"),
        ("REDIS_PORT", "6379"),
        ("REDIS_PASSWORD", "hunter2"),
        // The prefixed name wins.
        ("SHIFTBOSS_TYPES__NOOP__WORKERS__MIN", "2"),
        ("SHIFTBOSS_POLL__STAGGER_MAX", "0s"),
    ];
    stage.keep(stage.spawn_supervisor("log", &env));
    let ask = |args: &[&str]| {
        let mut command = stage.shiftboss(args);
        let output = shiftboss_tests::output_of(command.env("INSTANCE_ID", "node-7"));
        serde_json::from_slice::<Value>(&output.stdout).ok()
    };
    let status = wait_for("it answers under its name", || ask(&["status", "--json"]));
    assert!(status["instance"].as_str().is_some_and(|id| id.starts_with("node-7-")), "{status}");
    assert_eq!(status["running_max"], 1);
    assert_eq!(status["poll_interval_ms"], 3_500);
    let types = ask(&["types", "--json"]).expect("it answers");
    let types = types.as_array().expect("a listing is an array");
    assert!(types.iter().all(|one| one["limits"]["workers"] == 3), "{types:?}");
    let count = |workers: &Value, name: &str| {
        workers.as_array().map_or(0, |all| all.iter().filter(|one| one["type"] == name).count())
    };
    wait_until("the least number of workers is kept", || {
        let workers = ask(&["workers", "--json"]).unwrap_or_default();
        count(&workers, "command") == 1 && count(&workers, "noop") == 2
    });
    let jobs = [stage.shell("sleep 300"), stage.shell("sleep 300")];
    for job in jobs {
        // Both waited for one slot, and each was stopped after 700 ms.
        let row = stage.wait_for_state(job, "scheduled");
        assert!(row.last_error.contains("timeout"), "{}", row.last_error);
        assert_eq!(stage.attempts(job)[0].cause.as_deref(), Some("timeout"));
    }
    let overlaps = "SELECT count(*) FROM attempts a JOIN attempts b ON a.job_id < b.job_id AND \
                    a.started_at < b.ended_at AND b.started_at < a.ended_at";
    let overlaps: i64 = stage.database().query_row(overlaps, [], |row| row.get(0)).expect("SQL");
    assert_eq!(overlaps, 0, "the cap was exceeded");
    let log = stage.log();
    assert!(log.contains("REDIS_HOST, REDIS_PORT, REDIS_PASSWORD: read, but"), "{log}");
    assert!(!log.contains("hunter2") && !log.contains("redis.example"), "{log}");
    assert!(log.contains("WORKER_TIMEOUT = 700 is read as milliseconds"), "{log}");
    assert!(
        log.contains("(active interval, environment TASK_PROCESSOR_POLLING_INTERVAL)"),
        "{log}"
    );
}

#[test]
fn each_way_to_switch_off_is_told_with_its_origin() {
    let mut stage = Stage::dark("");
    let off = [("SHIFTBOSS_TYPES__NOOP__ENABLED", "false")];
    stage.start_with(&off);
    let job = stage.insert("noop", "{}");
    let other = stage.shell("true");
    stage.wait_for_state(other, "succeeded");
    assert_eq!(stage.job(job).expect("it is there").state, "available");
    let sentence = "type noop is switched off (environment SHIFTBOSS_TYPES__NOOP__ENABLED)";
    assert!(stage.log().contains(sentence), "{}", stage.log());
    let story = stage.json(&["job", &job.to_string(), "--json"]);
    assert!(story["why_waiting"].as_str().is_some_and(|why| why.contains("switched off")));
}

#[test]
fn config_show_tells_where_each_value_came_from() {
    let stage = Stage::dark("running_max = 2\n[types.encode.env]\nKEY = \"s3cret\"");
    let origin = |env: &[(&str, &str)], key: &str| {
        let one = shown(&stage, env, key);
        (one["value"].clone(), one["origin"].as_str().unwrap_or_default().to_owned())
    };
    let (value, from) = origin(&[], "running_max");
    assert!(value == 2 && from.ends_with("shiftboss.toml:4"), "{from}");
    assert_eq!(origin(&[], "poll.factor"), (2.0.into(), "default".to_owned()));
    let foreign = ("MAX_CONCURRENT_JOBS", "5");
    let expected = (5.into(), "environment MAX_CONCURRENT_JOBS".to_owned());
    assert_eq!(origin(&[foreign], "running_max"), expected);
    let ours = ("SHIFTBOSS_RUNNING_MAX", "6");
    let expected = (6.into(), "environment SHIFTBOSS_RUNNING_MAX".to_owned());
    assert_eq!(origin(&[foreign, ours], "running_max"), expected);
    assert_eq!(origin(&[], "types.encode.env.KEY").0, "hidden");
    for args in [&["config", "show"][..], &["config", "show", "--json"]] {
        let output = stage.run(args);
        assert!(!String::from_utf8_lossy(&output.stdout).contains("s3cret"));
    }
}
