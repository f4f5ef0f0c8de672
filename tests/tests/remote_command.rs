//! Operations at a provider whose tokens a program prints: how often it is run, what becomes of its
//! tokens, and that nothing which goes wrong with it costs more than time.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use shiftboss_tests::provider::scene::{dark, of_kind, payload, result, stage};
use shiftboss_tests::provider::tokens::minter::{Minter, TOKEN};
use shiftboss_tests::provider::{Behaviour, Shape, Simulator, check};
use shiftboss_tests::{Stage, skip, wait_for, wait_until};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

const SHAPE: Shape = Shape::Generic;

fn tokens() -> Behaviour {
    Behaviour { tokens: true, ..Behaviour::default() }
}

fn note(stage: &Stage, id: i64) -> String {
    let story = stage.json(&["job", &id.to_string(), "--json"]);
    story["progress_note"].as_str().unwrap_or_default().to_owned()
}

/// No token is in what people can read, in the table or in what the worker keeps.
fn assert_untold(stage: &Stage, told: &str) {
    let log = stage.log();
    assert!(!log.contains(TOKEN) && !told.contains(TOKEN), "{told} {log}");
    for file in ["jobs.db", "jobs.db-wal"] {
        let bytes = std::fs::read(stage.path(file)).unwrap_or_default();
        let is_there = bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
        assert!(!is_there, "a token is in {file}");
    }
}

fn worker_of(stage: &Stage) -> Option<i32> {
    let workers = stage.json(&["workers", "--json"]);
    workers[0]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok())
}

/// The process that runs commands for a worker.
fn broker_of(worker: i32) -> Option<i32> {
    let is_broker = |pid: &i32| {
        let name = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        name.starts_with(b"shiftboss-broker")
    };
    // Its first thread has started it.
    let children = std::fs::read_to_string(format!("/proc/{worker}/task/{worker}/children"));
    let children = children.expect("the worker runs");
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_broker)
}

fn is_gone(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("X", |(_, rest)| rest);
    stat.is_empty() || state.starts_with(['Z', 'X'])
}

#[test]
fn a_token_is_made_once_for_all_and_again_before_it_ends() {
    for (mode, more) in
        [("plain", "ttl = \"2s\""), ("json", "header = \"x-token\", prefix = \"Key \"")]
    {
        // JSON tells the end in whole seconds, of which a part has gone. Without a next one in time
        // the provider would refuse them before the last poll.
        let minter = Minter::new(mode, if mode == "json" { 3_999 } else { 4_000 });
        let behaviour = Behaviour { polls: 25, ..tokens() };
        let (stage, simulator) = stage(SHAPE, &behaviour, |text| {
            let text = text.replace("\"10/1s\"", "\"100/1s\"");
            minter.describe(&text, more).replace("max = \"200ms\"", "max = \"200ms\", factor = 1.1")
        });
        let insert = |at| stage.insert("remote", &payload(&stage, SHAPE, &format!("t{at}"), ""));
        let ids: Vec<i64> = (0..12).map(insert).collect();
        for id in ids {
            assert_eq!(result(&stage, id)["files"][0]["bytes"], 100_000);
        }
        let journal = simulator.journal();
        assert_eq!((of_kind(&journal, "submit"), of_kind(&journal, "unproved")), (12, 0), "{mode}");
        let seconds = journal.last().expect("it was asked").at.as_secs_f64();
        let runs = minter.runs();
        assert!(runs >= 2 && runs as f64 <= seconds + 2.0, "{mode}: {runs} runs in {seconds} s");
        assert_untold(&stage, &stage.json(&["jobs", "--json"]).to_string());
    }
}

#[test]
fn a_token_that_is_refused_is_forgotten_and_the_next_one_goes_on() {
    let minter = Minter::new("plain", 3_600_000);
    let behaviour = Behaviour { polls: 12, ..tokens() };
    let (stage, simulator) = stage(SHAPE, &behaviour, |text| minter.describe(text, "ttl = \"1h\""));
    // Before the first request: the submission itself is refused, and sent once more.
    simulator.revoke("1");
    let id = stage.insert("remote", &payload(&stage, SHAPE, "a", ""));
    wait_until("it is polled", || of_kind(&simulator.journal(), "poll") >= 3);
    simulator.revoke("2");
    assert_eq!(result(&stage, id)["files"][0]["bytes"], 100_000);
    let journal = simulator.journal();
    assert_eq!((of_kind(&journal, "submit"), of_kind(&journal, "unproved")), (1, 2));
    assert_eq!((minter.runs(), stage.attempts(id).len()), (3, 1));
    assert_untold(&stage, &stage.json(&["job", &id.to_string(), "--json"]).to_string());
}

#[test]
fn a_provider_that_refuses_every_token_causes_no_storm_of_them() {
    let minter = Minter::new("plain", 3_600_000);
    let behaviour = Behaviour { polls: 3, ..tokens() };
    let (stage, simulator) = stage(SHAPE, &behaviour, |text| minter.describe(text, ""));
    let insert = |at| stage.insert("remote", &payload(&stage, SHAPE, &format!("t{at}"), ""));
    let ids: Vec<i64> = (0..5).map(insert).collect();
    wait_until("all are submitted", || of_kind(&simulator.journal(), "submit") == 5);
    simulator.revoke("all");
    let told = wait_for("the refusals are told", || {
        let told = note(&stage, ids[0]);
        told.contains("refuses the tokens that are made; the next one is made in").then_some(told)
    });
    assert_untold(&stage, &told);
    simulator.pardon();
    for id in ids {
        result(&stage, id);
    }
    let journal = simulator.journal();
    let seconds = journal.last().expect("it was asked").at.as_secs_f64();
    // One, another at once, and then after 1, 2, 4 seconds and so on.
    let most = 3.0 + (seconds + 1.0).log2();
    assert!(minter.runs() as f64 <= most, "{} runs in {seconds} s", minter.runs());
    assert_eq!(check::paid_twice(&journal), Vec::<String>::new());
}

#[test]
fn a_token_that_the_provider_repeats_is_in_no_error_in_no_log_and_not_in_the_table() {
    let minter = Minter::new("plain", 3_600_000);
    let (stage, simulator) = stage(SHAPE, &tokens(), |text| minter.describe(text, ""));
    simulator.revoke("all");
    let id = stage.insert("remote", &payload(&stage, SHAPE, "a", ""));
    let job = stage.wait_for_state(id, "failed");
    assert!(job.last_error.contains("Bearer ***"), "{}", job.last_error);
    // Once with each of two tokens, and nothing was paid for.
    assert_eq!((minter.runs(), of_kind(&simulator.journal(), "unproved")), (2, 2));
    assert_untold(&stage, &stage.json(&["job", &id.to_string(), "--json"]).to_string());
}

/// A provider of its own, at the simulator, for each way to fail.
fn provider_of(stage: &Stage, minter: &Minter, mode: &str) -> String {
    let text = std::fs::read_to_string(stage.path("providers/generic.toml")).expect("described");
    let name = format!("has-{mode}");
    let text = text.replacen("name = \"generic\"", &format!("name = {name:?}"), 1);
    let env = "env = { SECRET = \"{secret:GENERIC_API_KEY}\" }";
    let text = minter.describe(&text, &format!("timeout = \"1s\", {env}"));
    std::fs::write(stage.path(&format!("providers/{name}.toml")), text).expect("ours");
    json!({ "provider": name, "input": SHAPE.input(mode, ""), "name": mode,
            "output_dir": stage.file("") })
    .to_string()
}

#[test]
fn a_command_that_fails_in_any_way_costs_time_and_nothing_else() {
    const FAILURES: [(&str, &str); 10] = [
        ("hang", "had not ended after 1 s"),
        ("closed", "had not ended after 1 s"),
        ("huge", "printed more than 65536 bytes"),
        ("noisy", "ended with exit code 3"),
        ("leaks", "ended with exit code 1: token *** refused, password=*** and ***"),
        ("fails", "ended with exit code 1: ERROR: no account is active"),
        ("killed", "was ended by signal 9"),
        ("prose", "has spaces"),
        ("old", "printed a token that has ended"),
        ("vanished", "is not run: "),
    ];
    let (mut stage, simulator) = dark(SHAPE, &tokens(), str::to_owned);
    let minters = FAILURES.map(|(mode, told)| {
        let minter = Minter::new(mode, 3_600_000);
        if mode == "vanished" {
            std::fs::rename(minter.path("token"), minter.path("away")).expect("ours");
        }
        let payload = provider_of(&stage, &minter, mode);
        (minter, mode, told, payload)
    });
    stage.start();
    let jobs = minters.map(|(minter, mode, told, payload)| {
        let id = stage.insert("remote", &payload);
        (minter, mode, told, id)
    });
    for (minter, mode, told, id) in &jobs {
        let note = wait_for(mode, || {
            let note = note(&stage, *id);
            note.contains("last error").then_some(note)
        });
        assert!(note.contains(told) && note.contains("/token "), "{mode}: {note}");
        assert!(!note.contains("hunter22") && !note.contains("sk-simulated"), "{note}");
        assert!(minter.runs() <= 5, "{mode}: {} runs", minter.runs());
        for pid in minter.pids("runs").into_iter().rev().skip(1) {
            assert!(is_gone(pid), "{mode}: {pid} goes on");
        }
    }
    assert_eq!(stage.count("state = 'running'"), 10);
    assert!(simulator.journal().is_empty(), "nothing was sent without a token");
    for (minter, mode, ..) in &jobs {
        if *mode == "vanished" {
            std::fs::rename(minter.path("away"), minter.path("token")).expect("ours");
        }
        minter.set_mode("plain");
    }
    for (_, mode, _, id) in &jobs {
        assert_eq!(result(&stage, *id)["files"][0]["bytes"], 100_000, "{mode}");
        assert_eq!(stage.attempts(*id).len(), 1, "{mode}");
    }
    let journal = simulator.journal();
    assert_eq!((of_kind(&journal, "submit"), of_kind(&journal, "unproved")), (10, 0));
    assert_untold(&stage, &stage.json(&["jobs", "--json"]).to_string());
}

#[test]
fn a_submission_that_waits_for_its_token_was_surely_not_sent() {
    let minter = Minter::new("slow", 3_600_000);
    // A provider that cannot be asked about a lost answer: its job would be held.
    let shape = Shape::Replicate;
    let (stage, simulator) = stage(shape, &tokens(), |text| {
        minter.describe(text, "").replace("[submit]", "[submit]\ntimeout = \"1s\"")
    });
    let id = stage.insert("remote", &payload(&stage, shape, "a", ""));
    assert_eq!(result(&stage, id)["files"][0]["bytes"], 100_000);
    assert_eq!((of_kind(&simulator.journal(), "submit"), minter.runs()), (1, 1));
}

#[test]
fn nothing_that_a_command_forks_off_outlives_it() {
    let minter = Minter::new("forks", 3_600_000);
    let (stage, simulator) = stage(SHAPE, &tokens(), |text| minter.describe(text, ""));
    let id = stage.insert("remote", &payload(&stage, SHAPE, "a", ""));
    result(&stage, id);
    let left = minter.pids("left");
    assert_eq!(left.len(), 2, "{left:?}");
    for pid in left {
        assert!(is_gone(pid), "{pid} goes on");
    }
    assert_eq!((minter.runs(), of_kind(&simulator.journal(), "unproved")), (1, 0));
}

#[test]
fn a_command_gets_a_clean_environment_no_descriptor_and_no_rights() {
    let minter = Minter::new("spy", 3_600_000);
    let (stage, _simulator) = stage(SHAPE, &tokens(), |text| {
        minter
            .describe(text, "env = { SECRET = \"x{secret:GENERIC_API_KEY}\", HOME = \"/nowhere\" }")
    });
    let id = stage.insert("remote", &payload(&stage, SHAPE, "a", ""));
    result(&stage, id);
    let env = minter.read("env");
    let mut names: Vec<_> = env.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    // The shell adds the last two and its own folder.
    assert_eq!(names, ["HOME", "LANG", "OLDPWD", "PATH", "PWD", "SECRET"], "{env}");
    assert!(env.contains("SECRET=xsk-simulated\n") && env.contains("HOME=/nowhere\n"), "{env}");
    // The last one is the folder that ls reads.
    let fds: Vec<String> = minter.read("fds").lines().skip(1).map(str::to_owned).collect();
    assert_eq!(fds.len(), 4, "{fds:#?}");
    assert!(!fds.iter().any(|line| line.contains("socket:")), "{fds:#?}");
    let status = minter.read("status");
    for line in ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    assert_eq!(minter.read("core"), "0\n");
    let worker = worker_of(&stage).expect("it runs");
    let broker = broker_of(worker).expect("it has one");
    for (pid, seccomp) in [(worker, "Seccomp:\t2"), (broker, "Seccomp:\t2")] {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        assert!(status.contains(seccomp) && status.contains("NoNewPrivs:\t1"), "{status}");
    }
}

#[test]
fn a_worker_whose_broker_is_killed_gives_its_jobs_back_and_the_next_one_goes_on() {
    let minter = Minter::new("plain", 3_600_000);
    let behaviour = Behaviour { polls: 8, ..tokens() };
    let (stage, simulator) = stage(SHAPE, &behaviour, |text| minter.describe(text, ""));
    let id = stage.insert("remote", &payload(&stage, SHAPE, "a", ""));
    wait_until("it is polled", || of_kind(&simulator.journal(), "poll") >= 2);
    let worker = worker_of(&stage).expect("it runs");
    let broker = broker_of(worker).expect("it has one");
    kill(Pid::from_raw(broker), Signal::SIGKILL).expect("it is ours");
    // While its token is good nobody misses the broker.
    let before = of_kind(&simulator.journal(), "poll");
    wait_until("it is polled on", || of_kind(&simulator.journal(), "poll") > before);
    assert_eq!(worker_of(&stage), Some(worker));
    simulator.revoke("1");
    assert_eq!(result(&stage, id)["files"][0]["bytes"], 100_000);
    let job = stage.job(id).expect("it is there");
    assert_eq!(job.crash_count, 0, "nobody crashed");
    assert_ne!(worker_of(&stage), Some(worker), "another worker went on");
    let journal = simulator.journal();
    assert_eq!((of_kind(&journal, "submit"), minter.runs()), (1, 2));
    assert_eq!(check::paid_twice(&journal), Vec::<String>::new());
}

#[test]
fn a_command_dies_with_its_broker_and_the_job_goes_on_in_another_worker() {
    let minter = Minter::new("hang", 3_600_000);
    let (stage, simulator) = stage(SHAPE, &tokens(), |text| minter.describe(text, ""));
    let id = stage.insert("remote", &payload(&stage, SHAPE, "a", ""));
    let command = wait_for("the command runs", || minter.pids("runs").first().copied());
    let worker = worker_of(&stage).expect("it runs");
    let broker = broker_of(worker).expect("it has one");
    minter.set_mode("plain");
    let killed = Instant::now();
    kill(Pid::from_raw(broker), Signal::SIGKILL).expect("it is ours");
    wait_until("the command is gone", || is_gone(command));
    assert_eq!(result(&stage, id)["files"][0]["bytes"], 100_000);
    assert!(killed.elapsed() < Duration::from_secs(20), "nobody waited for its time");
    assert_eq!((of_kind(&simulator.journal(), "submit"), minter.runs()), (1, 2));
    assert_eq!(stage.job(id).expect("it is there").crash_count, 0);
}

#[test]
fn a_worker_gets_tokens_while_no_supervisor_runs() {
    let minter = Minter::new("plain", 3_600_000);
    let behaviour = Behaviour { polls: 20, ..tokens() };
    let (mut stage, simulator) = stage(SHAPE, &behaviour, |text| minter.describe(text, ""));
    let id = stage.insert("remote", &payload(&stage, SHAPE, "a", ""));
    wait_until("it is polled", || of_kind(&simulator.journal(), "poll") >= 2);
    let worker = worker_of(&stage).expect("it runs");
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
    simulator.revoke("1");
    wait_until("the command has run again", || minter.runs() == 2);
    let before = of_kind(&simulator.journal(), "poll");
    wait_until("it is polled on", || of_kind(&simulator.journal(), "poll") > before);
    stage.start();
    assert_eq!(result(&stage, id)["files"][0]["bytes"], 100_000);
    assert_eq!((worker_of(&stage), stage.attempts(id).len()), (Some(worker), 1));
}

#[test]
fn a_worker_that_is_killed_leaves_neither_broker_nor_command() {
    let minter = Minter::new("hang", 3_600_000);
    let (mut stage, simulator) = stage(SHAPE, &tokens(), |text| minter.describe(text, ""));
    let id = stage.insert("remote", &payload(&stage, SHAPE, "a", ""));
    let command = wait_for("the command runs", || minter.pids("runs").first().copied());
    let worker = worker_of(&stage).expect("it runs");
    let broker = broker_of(worker).expect("it has one");
    minter.set_mode("plain");
    // Nobody is left who would kill them.
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
    kill(Pid::from_raw(worker), Signal::SIGKILL).expect("it is ours");
    let killed = Instant::now();
    wait_until("both are gone", || is_gone(broker) && is_gone(command));
    assert!(killed.elapsed() < Duration::from_secs(20), "its own time ended it");
    stage.start();
    result(&stage, id);
    assert_eq!(of_kind(&simulator.journal(), "submit"), 1);
}

#[test]
fn commands_are_run_where_everything_is_required_and_not_where_none_is_named() {
    let name = "commands_are_run_where_everything_is_required_and_not_where_none_is_named";
    let minter = Minter::new("plain", 3_600_000);
    let (mut required, _simulator) = dark(SHAPE, &tokens(), |text| minter.describe(text, ""));
    required.reconfigure("[types.remote]\n", "[types.remote]\nconfine = \"require\"\n");
    if required.run(&["config", "check"]).status.success() {
        required.start();
        let id = required.insert("remote", &payload(&required, SHAPE, "a", ""));
        result(&required, id);
        assert_eq!(minter.runs(), 1);
    } else {
        skip(name, "this host cannot give all that confine = \"require\" asks for");
    }
    let (stage, _simulator): (Stage, Simulator) =
        stage(SHAPE, &Behaviour::default(), str::to_owned);
    let id = stage.insert("remote", &payload(&stage, SHAPE, "a", ""));
    result(&stage, id);
    assert_eq!(broker_of(worker_of(&stage).expect("it runs")), None);
}

#[test]
fn files_that_others_can_change_run_nothing() {
    let minter = Minter::new("plain", 3_600_000);
    let (mut stage, simulator) = dark(SHAPE, &tokens(), |text| minter.describe(text, ""));
    let description = stage.path("providers/generic.toml");
    let chmod = |path: &std::path::Path, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("ours");
    };
    let check = |stage: &Stage| {
        let output = stage.run(&["provider", "check"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), told)
    };
    chmod(&description, 0o664);
    let (well, told) = check(&stage);
    assert!(!well && told.contains("names a command to run, and "), "{told}");
    assert!(told.contains("generic.toml:7: auth.command: "), "{told}");
    stage.start();
    let id = stage.insert("remote", &payload(&stage, SHAPE, "a", ""));
    let job = stage.wait_for_state(id, "failed");
    assert!(job.last_error.contains("written by others than its owner"), "{}", job.last_error);
    chmod(&description, 0o644);
    minter.set_permissions(0o757);
    let (well, told) = check(&stage);
    assert!(!well && told.contains("token can be written by others"), "{told}");
    minter.set_permissions(0o644);
    assert!(check(&stage).1.contains("cannot be executed"));
    minter.set_permissions(0o755);
    assert_eq!(check(&stage), (true, String::new()));
    assert_eq!((minter.runs(), simulator.journal().len()), (0, 0));
}

#[test]
fn a_command_is_listed_and_tried_without_being_run() {
    let minter = Minter::new("plain", 3_600_000);
    let (stage, _simulator) = dark(SHAPE, &tokens(), |text| {
        minter.describe(text, "prefix = \"Key \", header = \"x-token\"")
    });
    let listed = stage.json(&["provider", "list", "--json"]);
    let listed = listed.as_array().expect("a list").iter().find(|one| one["name"] == "generic");
    let program = minter.path("token").display().to_string();
    assert_eq!(listed.expect("it is listed")["command"], json!(program));
    let tried = stage.run(&["provider", "try", "generic"]);
    let tried = String::from_utf8_lossy(&tried.stdout).into_owned();
    assert!(tried.contains("x-token: Key ***\n"), "{tried}");
    assert_eq!(minter.runs(), 0);
}
