//! The configuration is read again while jobs run: what can be taken over is, the rest is named.

use nix::sys::signal::Signal;
use serde_json::Value;
use shiftboss_tests::{Stage, wait_for, wait_until};

const WAIT: &str = "while [ ! -e go ]; do sleep 0.02; done";

fn shell(stage: &Stage, job_type: &str, script: &str) -> i64 {
    let script = format!("cd {}; {script}", stage.file("").display());
    stage.insert(job_type, &stage.script(&script).to_string())
}

#[test]
fn a_reload_changes_what_it_can_while_jobs_run_and_names_the_rest() {
    let stage =
        Stage::new("[types.command]\nworkers = { max = 1 }\n[types.old]\nworkload = \"command\"");
    let runs = [shell(&stage, "command", WAIT), shell(&stage, "old", WAIT)];
    for job in runs {
        wait_until("the program runs", || !stage.programs_of(job).is_empty());
    }
    let waits = shell(&stage, "command", WAIT);
    let new = "log = { level = \"debug\" }\n[retention]\nfailed = \"1d\"\n[types.new]\n\
               workload = \"command\"\npriority = 7\n[types.command]\nworkers = { max = 2 }\n\
               timeout = \"1h\"";
    stage.reconfigure("[types.command]\nworkers = { max = 1 }", "# later");
    stage.reconfigure("[types.old]\nworkload = \"command\"", new);
    stage.reconfigure("stagger_max = \"0s\"", "stagger_max = \"0s\"\nidle_min = \"123ms\"");
    let config = std::fs::read_to_string(stage.path("shiftboss.toml")).expect("ours");
    let log = "log = { level = \"debug\" }\n";
    let config = format!("{log}instance = \"other\"\n{}", config.replacen(log, "", 1));
    std::fs::write(stage.path("shiftboss.toml"), config).expect("ours");
    stage.signal(Signal::SIGHUP);
    wait_until("it is told", || stage.log().contains("configuration read again"));
    let text = stage.log();
    let line = text.lines().find(|line| line.contains("configuration read again")).expect("told");
    for key in ["poll.idle_min", "retention.failed", "types.command.workers.max", "types.new"] {
        assert!(line.contains(key), "{key}: {line}");
    }
    let (applied, rest) = line.split_once("until a restart: ").expect("the rest is named");
    assert!(rest.contains("instance, log.level"), "{rest}");
    assert!(applied.contains("types.old") && !applied.contains("log.level"), "{applied}");
    // The second slot is in force, what ran runs on, the removed type takes nothing new.
    wait_until("the waiting job runs", || !stage.programs_of(waits).is_empty());
    let new = stage.insert("new", "{\"argv\":[\"true\"]}");
    assert_eq!(stage.wait_for_state(new, "succeeded").attempt, 1);
    let gone = stage.insert("old", "{\"argv\":[\"true\"]}");
    assert!(stage.wait_for_state(gone, "failed").last_error.contains("unknown type \"old\""));
    std::fs::write(stage.file("go"), "").expect("ours");
    for job in [runs[0], runs[1], waits] {
        assert_eq!(stage.wait_for_state(job, "succeeded").attempt, 1);
    }
}

#[test]
fn a_refused_file_changes_nothing_and_is_told_to_who_asked() {
    let stage = Stage::new("running_max = 3");
    stage.reconfigure("running_max = 3", "running_max = 0");
    let refused = stage.run(&["config", "reload"]);
    // The command reads the same file first.
    assert_eq!(refused.status.code(), Some(100), "{refused:?}");
    stage.signal(Signal::SIGHUP);
    wait_until("it is told", || stage.log().contains("the old one stays in force"));
    assert!(stage.log().contains("shiftboss.toml:4: running_max = 0"), "{}", stage.log());
    stage.reconfigure("running_max = 0", "running_max = 9");
    let answer = stage.json(&["config", "reload", "--json"]);
    assert_eq!(answer["applied"], serde_json::json!(["running_max"]), "{answer}");
    assert_eq!(stage.json(&["status", "--json"])["running_max"], 9);
    let words = stage.run(&["config", "reload"]);
    assert!(String::from_utf8_lossy(&words.stdout).contains("nothing to take over"), "{words:?}");
}

#[test]
fn narrower_roots_hold_for_the_next_job_although_a_worker_is_kept() {
    let stage = Stage::new("[types.command]\nworkers = { min = 1, max = 1 }");
    let payload = serde_json::json!({ "argv": ["true"], "read": [stage.path("shared")] });
    std::fs::write(stage.path("shared"), "").expect("ours");
    let first = stage.insert("command", &payload.to_string());
    stage.wait_for_state(first, "succeeded");
    let pid = |workers: &Value| workers[0]["pid"].as_i64();
    let old = wait_for("a worker is kept", || pid(&stage.json(&["workers", "--json"])));
    stage.reconfigure("", "[types.command.roots]\nread = [\"/srv\"]");
    assert!(stage.run(&["config", "reload"]).status.success());
    let second = stage.insert("command", &payload.to_string());
    let row = stage.wait_for_state(second, "failed");
    assert!(row.last_error.contains("may read: /srv"), "{}", row.last_error);
    assert_ne!(Some(old), pid(&stage.json(&["workers", "--json"])));
}

#[test]
fn rows_that_a_shorter_retention_makes_old_are_removed_in_batches_at_once() {
    let stage = Stage::new("");
    let sql = "INSERT INTO jobs(type) SELECT 'noop' FROM (WITH RECURSIVE n(x) AS (SELECT 1 \
               UNION ALL SELECT x + 1 FROM n WHERE x < 1200) SELECT x FROM n)";
    stage.database().execute(sql, []).expect("inserted");
    let kept = stage.shell("echo a log; exit 3");
    let logged = stage.shell("echo a log");
    wait_until("all have run", || stage.count("state = 'succeeded'") == 1201);
    let logs = |job: i64| stage.path("jobs.db.work/logs/command").join(job.to_string());
    assert!(logs(logged).is_dir());
    stage.reconfigure("", "[retention]\nsucceeded = \"1ms\"");
    stage.signal(Signal::SIGHUP);
    wait_until("they are gone", || stage.count("state = 'succeeded'") == 0);
    wait_until("their logs too", || !logs(logged).exists());
    assert!(logs(kept).is_dir());
    assert_eq!(stage.count("1"), 1);
    let orphans = "SELECT count(*) FROM attempts WHERE job_id <> ?1";
    let orphans: i64 = stage.database().query_row(orphans, [kept], |r| r.get(0)).expect("SQL");
    assert_eq!(orphans, 0);
    let batches = stage.log().matches("old jobs removed").count();
    assert!(batches >= 3, "{batches}: {}", stage.log());
}

#[test]
fn scratch_of_dead_attempts_is_swept_at_the_start_and_nothing_else() {
    let mut stage = Stage::dark("");
    let scratch = stage.path("jobs.db.work/scratch/command");
    for name in ["7-1", "notes"] {
        std::fs::create_dir_all(scratch.join(name)).expect("ours");
        std::fs::write(scratch.join(name).join("file"), "x").expect("ours");
    }
    stage.start();
    wait_until("it is swept", || !scratch.join("7-1").exists());
    assert!(scratch.join("notes").exists());
    let job = stage.shell("pwd; touch made; sleep 300");
    wait_until("the program runs", || scratch.join(format!("{job}-1/made")).exists());
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
    stage.database().execute("DELETE FROM jobs", []).expect("deleted");
    stage.start();
    wait_until("it is swept", || !scratch.join(format!("{job}-1")).exists());
}
