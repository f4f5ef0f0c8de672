//! The control socket and the command line: whoever misbehaves there harms nobody else.

use interprocess::local_socket::traits::Stream as _;
use interprocess::local_socket::{GenericFilePath, Stream, ToFsName};
use shiftboss_protocol::control::{Greeting, JobFilter, Request};
use shiftboss_protocol::frame;
use shiftboss_protocol::job::JobId;
use shiftboss_tests::{Stage, output_of, skip, spawn_quiet, wait_until};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

fn connect(stage: &Stage) -> Stream {
    let path = stage.path("run/main/control.sock");
    let name = path.as_path().to_fs_name::<GenericFilePath>().expect("a path");
    Stream::connect(name).expect("the supervisor listens")
}

#[test]
fn clients_that_send_garbage_say_nothing_leave_or_never_read_do_not_matter() {
    let stage = Stage::new("");
    let flood = "INSERT INTO jobs(type, tags) SELECT 'noop', hex(zeroblob(500)) FROM (WITH \
                 RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1500) \
                 SELECT x FROM n)";
    stage.database().execute(flood, []).expect("inserted");
    wait_until("all have run", || stage.count("state = 'succeeded'") == 1500);
    // More than are served at once: the first ones are sent away when they say nothing.
    let silent: Vec<Stream> = (0..70).map(|_| connect(&stage)).collect();
    (&connect(&stage)).write_all(&[0xFF; 64]).expect("written");
    (&connect(&stage)).write_all(&[9, 0, 0]).expect("written");
    let greeting = Greeting { protocol: 1, program: "deaf".to_owned() };
    let limit = 10_000;
    let deaf: Vec<Stream> = (0..4)
        .map(|_| {
            let deaf = connect(&stage);
            frame::write(&mut &deaf, &greeting).expect("written");
            for _ in 0..10 {
                let filter = JobFilter { limit, ..JobFilter::default() };
                frame::write(&mut &deaf, &Request::Jobs(filter)).expect("written");
            }
            let watched = (1..=1000).map(JobId).collect();
            frame::write(&mut &deaf, &Request::Watch(watched)).expect("written");
            deaf
        })
        .collect();
    for _ in 0..5 {
        assert!(stage.run(&["status"]).status.success());
    }
    let id = stage.insert("noop", "{}");
    stage.wait_for_state(id, "succeeded");
    drop((silent, deaf));
    assert!(!stage.log().contains("panicked"), "{}", stage.log());
}

#[test]
fn a_client_of_another_protocol_version_is_told_ours() {
    let stage = Stage::new("");
    let client = connect(&stage);
    let greeting = Greeting { protocol: 99, program: "shiftboss 9.0".to_owned() };
    frame::write(&mut &client, &greeting).expect("written");
    let answer: Option<Greeting> = frame::read(&mut &client).expect("a greeting");
    assert_eq!(answer.map(|it| it.protocol), Some(1));
    let end: Option<Greeting> = frame::read(&mut &client).expect("a clean end");
    assert_eq!(end, None);
}

#[test]
fn a_client_that_leaves_while_it_waits_costs_nothing() {
    let stage = Stage::new("");
    let job = stage.shell("sleep 300").to_string();
    for _ in 0..20 {
        let mut wait = spawn_quiet(&mut stage.shiftboss(&["wait", &job]));
        wait.kill().expect("it is ours");
        wait.wait().expect("it is ours");
    }
    let follow = spawn_quiet(&mut stage.shiftboss(&["wait", &job]));
    assert!(stage.run(&["cancel", &job]).status.success());
    let mut follow = follow;
    assert_eq!(follow.wait().expect("it is ours").code(), Some(1));
}

#[test]
fn exit_codes_and_json_are_as_scripts_expect() {
    let stage = Stage::new("");
    let submitted = stage.json(&["submit", "noop", "--json"]);
    assert_eq!(submitted, serde_json::json!({ "id": 1 }));
    assert_eq!(stage.run(&["wait", "1"]).status.code(), Some(0));
    let payload = r#"{"argv":["false"]}"#;
    let failing = ["submit", "command", "--payload", payload, "--max-attempts", "1"];
    let waited = stage.run(&[&failing[..], &["--wait"]].concat());
    assert_eq!(waited.status.code(), Some(1), "{waited:?}");
    assert_eq!(stage.run(&["nonsense"]).status.code(), Some(2));
    assert_eq!(stage.run(&["submit", "noop", "--payload", "{"]).status.code(), Some(2));
    let jobs = stage.json(&["jobs", "--json"]);
    assert_eq!(jobs[0]["id"], 2);
    assert_eq!(jobs[1]["payload"], serde_json::json!({}));
    assert_eq!(jobs[1]["state"], "succeeded");
    let keys = ["id", "type", "slot", "pid", "state", "attempts", "started_at", "cpu", "memory"];
    let workers = stage.json(&["workers", "--json"]);
    assert!(keys.iter().all(|key| workers[0].get(key).is_some()), "{workers}");
    let types = stage.json(&["types", "--json"]);
    let keys = ["type", "state", "workers", "waiting", "running", "limits", "breaker"];
    assert!(keys.iter().all(|key| types[0].get(key).is_some()), "{types}");
    assert!(String::from_utf8_lossy(&stage.run(&["logs", "2"]).stderr).is_empty());
}

#[test]
fn without_a_supervisor_rows_are_inserted_and_read_and_the_rest_says_3() {
    let mut stage = Stage::dark("");
    let submitted = stage.run(&["submit", "noop", "--json"]);
    assert_eq!(submitted.status.code(), Some(0), "{submitted:?}");
    assert!(String::from_utf8_lossy(&submitted.stderr).contains("no supervisor runs"));
    assert_eq!(stage.json(&["jobs", "--json"])[0]["state"], "available");
    assert_eq!(stage.run(&["status"]).status.code(), Some(3));
    assert_eq!(stage.run(&["submit", "noop", "--wait"]).status.code(), Some(3));
    stage.start();
    wait_until("both have run", || stage.count("state = 'succeeded'") == 2);
}

#[test]
fn a_paused_type_waits_also_after_a_restart_and_says_so() {
    let mut stage = Stage::new("");
    assert!(stage.run(&["pause", "noop"]).status.success());
    let id = stage.insert("noop", "{}");
    stage.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(stage.wait_for_end(), Some(0));
    stage.start();
    let story = stage.json(&["job", &id.to_string(), "--json"]);
    assert_eq!(story["state"], "available");
    assert!(story["why_waiting"].as_str().is_some_and(|why| why.contains("paused")), "{story}");
    assert!(stage.run(&["resume", "noop"]).status.success());
    stage.wait_for_state(id, "succeeded");
    assert_eq!(stage.run(&["pause", "bogus"]).status.code(), Some(1));
}

#[test]
fn the_environment_caps_and_switches_off() {
    let mut stage = Stage::dark("");
    let text = "running_max = 1\n";
    let path = stage.path("shiftboss.toml");
    let old = std::fs::read_to_string(&path).expect("it is there");
    std::fs::write(&path, format!("{text}{old}")).expect("written");
    stage.start();
    let go = stage.file("go");
    let wait = format!("while [ ! -e {} ]; do sleep 0.02; done", go.display());
    let jobs: Vec<i64> = (0..3).map(|_| stage.shell(&wait)).collect();
    wait_until("one runs", || stage.count("state = 'running'") == 1);
    let story = stage.json(&["job", &jobs[2].to_string(), "--json"]);
    let why = story["why_waiting"].as_str().expect("it waits");
    assert!(why.contains("running_max"), "{why}");
    std::fs::write(&go, "").expect("the folder is ours");
    wait_until("all have run", || stage.count("state = 'succeeded'") == 3);
    let overlaps = "SELECT count(*) FROM attempts a JOIN attempts b ON a.job_id < b.job_id AND \
                    a.started_at < b.ended_at AND b.started_at < a.ended_at";
    let count: i64 = stage.database().query_row(overlaps, [], |row| row.get(0)).expect("SQL");
    assert_eq!(count, 0, "the cap was exceeded");
    stage.signal(nix::sys::signal::Signal::SIGTERM);
    stage.wait_for_end();
    let off = stage.spawn_supervisor("log", &[("DISABLE_BACKGROUND_WORKERS", "true")]);
    stage.keep(off);
    let id = stage.insert("noop", "{}");
    wait_until("it says so", || stage.log().contains("all workers are switched off"));
    wait_until("it answers", || stage.run(&["status"]).status.success());
    let story = stage.json(&["job", &id.to_string(), "--json"]);
    let why = story["why_waiting"].as_str().expect("it waits");
    assert!(why.contains("switched off"), "{why}");
}

#[test]
fn a_backup_is_taken_while_running_and_a_restore_is_refused_while_running() {
    let mut stage = Stage::new("");
    let id = stage.insert("noop", "{}");
    stage.wait_for_state(id, "succeeded");
    let copy = stage.path("copy.db").display().to_string();
    assert!(stage.run(&["db", "backup", &copy]).status.success());
    assert!(stage.run(&["db", "check"]).status.success());
    let second = stage.insert("noop", "{}");
    stage.wait_for_state(second, "succeeded");
    let refused = stage.run(&["db", "restore", &copy]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("while a supervisor runs"));
    stage.signal(nix::sys::signal::Signal::SIGTERM);
    stage.wait_for_end();
    let restored = stage.run(&["db", "restore", &copy]);
    assert!(restored.status.success(), "{restored:?}");
    assert!(stage.job(second).is_none());
    stage.start();
    let third = stage.insert("noop", "{}");
    stage.wait_for_state(third, "succeeded");
}

#[test]
fn another_user_is_refused_with_a_sentence_and_cannot_even_reach_the_socket() {
    let name = "another_user_is_refused_with_a_sentence";
    let stage = Stage::new("");
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(stage.path("program")).arg("status");
        output_of(command.env("SHIFTBOSS_CONFIG", stage.path("shiftboss.toml")))
    };
    let open = |name: &str| {
        let rights = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(stage.path(name), rights).expect("it is ours");
    };
    std::fs::copy(shiftboss_tests::built("shiftboss"), stage.path("program")).expect("copied");
    for name in ["", "program"] {
        open(name);
    }
    let told = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let far = as_nobody();
    if far.status.code() != Some(1) || !told(&far).contains("shiftboss") {
        return skip(name, "the user cannot be changed here (needs root and setpriv)");
    }
    assert!(told(&far).contains("it belongs to another user"), "{far:?}");
    for name in ["run", "run/main", "run/main/control.sock"] {
        open(name);
    }
    let near = as_nobody();
    let expected = "answers user 0 and root, not user 65534";
    assert!(told(&near).contains(expected), "{near:?}");
    assert_eq!(near.status.code(), Some(1));
}
