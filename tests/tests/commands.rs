//! What the command line prints besides the life of jobs: files of jobs, logs, doctor, manual.

use serde_json::Value;
use shiftboss_tests::{Stage, has_program, output_of, skip, wait_until};
use std::process::Command;

#[test]
fn a_file_of_jobs_is_submitted_whole_or_not_at_all() {
    let mut stage = Stage::new("");
    let file = stage.path("jobs.jsonl");
    let name = file.display().to_string();
    let submit = ["submit", "command", "--from-file", &name];
    let good = "{\"argv\":[\"true\"]}\n\n  {\"argv\":[\"sh\",\"-c\",\"true\"]}\n";
    std::fs::write(&file, format!("{good}{{\"argv\":\n")).expect("ours");
    let refused = stage.run(&submit);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("jobs.jsonl:4 is not JSON"), "{text}");
    assert_eq!(stage.count("1"), 0);
    std::fs::write(&file, good.repeat(1_000)).expect("ours");
    let ids = stage.json(&[&submit[..], &["--json", "--priority", "3"]].concat());
    let ids: Vec<i64> =
        ids.as_array().expect("an array").iter().flat_map(|one| one["id"].as_i64()).collect();
    assert_eq!((ids.len(), stage.count("priority = 3")), (2_000, 2_000));
    assert!(ids.is_sorted());
    for text in ["", "\n \n"] {
        std::fs::write(&file, text).expect("ours");
        assert_eq!(stage.run(&submit).status.code(), Some(2));
    }
    assert_eq!(stage.run(&["submit", "noop", "--from-file", "/no/such"]).status.code(), Some(2));
    stage.signal(nix::sys::signal::Signal::SIGTERM);
    stage.wait_for_end();
    std::fs::write(&file, good).expect("ours");
    let output = stage.run(&submit);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stage.count("1"), 2_002);
}

#[test]
fn a_payload_comes_from_an_argument_a_file_or_standard_input() {
    let stage = Stage::new("");
    std::fs::write(stage.path("one.json"), "{\"argv\":[\"true\"]}").expect("ours");
    assert!(stage.run(&["submit", "command", "--payload", "@one.json", "--wait"]).status.success());
    let mut command = Command::new("sh");
    let program = shiftboss_tests::built("shiftboss");
    let line = format!("cat one.json | {} submit command --payload - --wait", program.display());
    command.args(["-c", &line]).current_dir(stage.path(""));
    let output = output_of(command.env("SHIFTBOSS_CONFIG", stage.path("shiftboss.toml")));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stage.run(&["submit", "noop", "--payload", "@/no/such"]).status.code(), Some(2));
    assert_eq!(stage.run(&["submit", "noop", "--delay", "10"]).status.code(), Some(2));
    assert_eq!(stage.run(&["submit", "noop", "--at", "tomorrow"]).status.code(), Some(2));
    let first = stage.run(&["submit", "noop", "--unique", "k", "--delay", "1h"]);
    assert!(first.status.success());
    let second = stage.run(&["submit", "noop", "--unique", "k"]);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains("unique"), "{second:?}");
}

#[test]
fn logs_are_followed_line_by_line_until_the_job_ends() {
    let stage = Stage::new("");
    let script = "printf 'begin '; sleep 0.5; echo end; echo odd >&2; printf last";
    let job = stage.shell(script).to_string();
    wait_until("it has a log", || !stage.run(&["logs", &job]).stdout.is_empty());
    let output = stage.run(&["logs", &job, "--follow", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rows: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
    let mut lines: Vec<_> = rows.iter().filter_map(|row| row["line"].as_str()).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["begin end", "last", "odd"], "{text}");
    assert!(rows.iter().all(|row| row["attempt"] == 1 && row["file"].is_string()), "{text}");
}

#[test]
fn doctor_finds_out_by_trying() {
    let name = "doctor_finds_out_by_trying";
    if !has_program("ffmpeg") {
        return skip(name, "ffmpeg is not installed");
    }
    let stage = Stage::dark("");
    let findings = stage.json(&["doctor", "--json"]);
    let findings = findings.as_array().expect("a listing is an array").clone();
    let found = |check: &str| -> Value {
        let one = findings.iter().find(|one| one["check"].as_str().is_some_and(|it| it == check));
        one.unwrap_or_else(|| panic!("no {check} in {findings:?}")).clone()
    };
    for check in [
        "ffmpeg",
        "encoder libx264, by trial",
        "encoder aac, by trial",
        "SQLite library",
        "commits of other programs are noticed",
        "rights in work_dir",
    ] {
        assert_eq!(found(check)["verdict"], "ok", "{check}");
    }
    for check in ["room in folder of the database", "trees are killed", "seccomp filters", "health"]
    {
        assert!(found(check)["found"].is_string(), "{check}");
    }
    assert!(findings.iter().all(|one| one["verdict"] != "problem" || one["remedy"].is_string()));
    stage.reconfigure("", "[tools]\nffmpeg = \"/no/such/ffmpeg\"");
    let output = stage.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("/no/such/ffmpeg") && text.contains("set tools.ffmpeg"), "{text}");
}

#[test]
fn completions_manual_and_schema_come_from_the_same_definitions() {
    let stage = Stage::dark("");
    let words = ["submit", "from-file", "renditions", "max-attempts", "reload", "restore"];
    for shell in ["bash", "zsh", "fish"] {
        let output = stage.run(&["completions", shell]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success());
        assert!(words.iter().all(|word| text.contains(word)), "{shell}");
    }
    let page = stage.run(&["man"]);
    assert!(String::from_utf8_lossy(&page.stdout).starts_with(".ie"), "{page:?}");
    let folder = stage.path("man1").display().to_string();
    assert!(stage.run(&["man", "--out", &folder]).status.success());
    for (page, word) in [
        ("shiftboss.1", "Exit codes"),
        ("shiftboss-submit.1", "from\\-file"),
        ("shiftboss-db-restore.1", "backup"),
    ] {
        let text = std::fs::read_to_string(stage.path("man1").join(page)).expect(page);
        assert!(text.contains(word), "{page}: {text}");
    }
    let schema = stage.json(&["config", "schema"]);
    assert!(schema["properties"]["types"].is_object(), "{schema}");
    if has_program("bash") {
        let script = stage.run(&["completions", "bash"]).stdout;
        std::fs::write(stage.path("completions"), script).expect("ours");
        let line = "source ./completions && complete -p shiftboss";
        let mut command = Command::new("bash");
        let output = output_of(command.args(["-c", line]).current_dir(stage.path("")));
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn a_backup_that_is_none_is_not_restored_and_a_damaged_database_is_found() {
    let stage = Stage::dark("");
    assert!(stage.run(&["submit", "noop"]).status.success());
    let refused = |args: &[&str], expected: &str| {
        let output = stage.run(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?} {text}");
        assert!(text.contains(expected), "{args:?} {text}");
    };
    std::fs::write(stage.path("notes"), "no database\n".repeat(500)).expect("ours");
    refused(&["db", "restore", "notes"], "notes");
    refused(&["db", "restore", "missing"], "missing");
    refused(&["db", "backup", "no/such/folder/copy"], "no/such/folder");
    assert_eq!(stage.count("1"), 1);
    assert!(stage.run(&["db", "check"]).status.success());
    assert_eq!(stage.json(&["db", "check", "--json"])["ok"], true);
    let sql = "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA writable_schema = 1; \
               DELETE FROM sqlite_schema WHERE name = 'jobs_insert'";
    let _ = stage.database().execute_batch(sql);
    let bytes = std::fs::read(stage.path("jobs.db")).expect("ours");
    let mut broken = bytes.clone();
    let middle = broken.len() / 2;
    broken[middle..].fill(0xA5);
    std::fs::write(stage.path("jobs.db"), broken).expect("ours");
    let output = stage.run(&["db", "check"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
