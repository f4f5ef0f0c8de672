//! What is refused at the start: mistakes in the configuration, databases that cannot be used.
//! Each gets a sentence with the remedy, and exit code 100 where trying again is in vain.

use shiftboss_tests::{Disk, Stage, output_of, wait_until};
use std::process::Output;
use std::time::{Duration, Instant};

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn mistakes_in_the_configuration_name_file_line_key_value_and_what_is_allowed() {
    let cases = [
        ("runing_max = 3", "runing_max: unknown key, the nearest known one is running_max"),
        ("[types.encode]\ncuncurrency = 2", "nearest known one is types.encode.concurrency"),
        ("[types.encode]\ntimeout = \"30\"", "types.encode.timeout = \"30\": expected a duration"),
        ("[types.encode]\ntimeout = 30", "types.encode.timeout = 30: expected a duration such as"),
        ("[log]\nattempt_max = \"16 MB5\"", "log.attempt_max = \"16 MB5\": expected a size"),
        ("running_max = 0", "running_max = 0: expected a whole number from 1 to 1000000"),
        (
            "[types.encode]\nworkers = { min = 3, max = 2 }",
            "types.encode.workers.min = 3: must be at most types.encode.workers.max, which is 2",
        ),
        ("[retention]\nfailed = \"none\"", "retention.failed = \"none\": expected a duration"),
        ("[types.x]\nconcurrency = 2", "needs `workload` or `worker`"),
        ("running_max = ", "not valid TOML"),
        ("wal = \"on\"", "wal = \"on\": expected \"default\" or \"switch\""),
    ];
    for (text, expected) in cases {
        let stage = Stage::dark("");
        std::fs::write(stage.path("shiftboss.toml"), format!("# mine\n{text}\n")).expect("ours");
        let line = if text.contains('\n') { 3 } else { 2 };
        let place = format!("{}:{line}: ", stage.path("shiftboss.toml").display());
        for args in [&["config", "check"][..], &["run"], &["jobs"]] {
            let output = stage.run(args);
            let text = told(&output);
            assert_eq!(output.status.code(), Some(100), "{args:?}: {text}");
            assert!(text.contains(&place) && text.contains(expected), "{expected}: {text}");
        }
        assert!(!stage.path("jobs.db").exists(), "a refused configuration made something");
    }
}

#[test]
fn a_variable_with_a_mistake_is_named_and_nothing_starts() {
    let stage = Stage::dark("");
    for (name, value, expected) in [
        ("SHIFTBOSS_POLL__IDLE_MN", "2s", "nearest known one is SHIFTBOSS_POLL__IDLE_MIN"),
        ("SHIFTBOSS_POLL__IDLE_MIN", "2", "poll.idle_min = \"2\": expected a duration"),
        ("MAX_CONCURRENT_JOBS", "many", "expected a whole number from 1 to 1000000"),
        ("WORKER_TIMEOUT", "soon", "expected a number of milliseconds"),
    ] {
        let output = output_of(stage.shiftboss(&["run"]).env(name, value));
        let text = told(&output);
        assert_eq!(output.status.code(), Some(100), "{text}");
        assert!(text.contains(&format!("environment {name}")), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    let output = stage.run(&["--config", "/no/such/file.toml", "run"]);
    assert_eq!(output.status.code(), Some(100));
    assert!(told(&output).contains("/no/such/file.toml"), "{}", told(&output));
}

/// Starts a supervisor that must not start.
fn refused(stage: &Stage, expected: &str) {
    let output = stage.run(&["run"]);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(100), "{text}");
    assert!(text.contains(expected), "{expected}: {text}");
    // Only the last line is the answer: it stands alone, behind the name of the program.
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("shiftboss: cannot "), "{text}");
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let stage = Stage::dark("");
    let text = "these are my notes\n".repeat(300);
    std::fs::write(stage.path("jobs.db"), &text).expect("the folder is ours");
    refused(&stage, "it is not an SQLite database");
    assert_eq!(std::fs::read_to_string(stage.path("jobs.db")).expect("read"), text);
    assert_eq!(stage.run(&["submit", "noop"]).status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(stage.path("jobs.db")).expect("read"), text);
}

#[test]
fn a_foreign_table_and_a_newer_version_are_refused_with_the_remedy() {
    let stage = Stage::dark("");
    let sql = "PRAGMA journal_mode = wal; CREATE TABLE jobs(mine)";
    stage.database().execute_batch(sql).expect("it is the application's");
    refused(&stage, "set table_prefix, for example table_prefix = \"shiftboss_\"");
    let mut stage = Stage::new("");
    stage.signal(nix::sys::signal::Signal::SIGTERM);
    stage.wait_for_end();
    let sql = "UPDATE meta SET value = '99' WHERE key = 'schema_version'";
    stage.database().execute(sql, []).expect("it is there");
    refused(&stage, "its job table has schema version 99");
    let output = stage.run(&["submit", "noop"]);
    assert!(told(&output).contains("upgrade shiftboss"), "{}", told(&output));
    assert_eq!(stage.count("1"), 0);
}

#[test]
fn a_database_below_no_folder_is_refused_and_the_folder_named() {
    let stage = Stage::dark("");
    let config = format!("database = \"{}/no/jobs.db\"", stage.path("").display());
    std::fs::write(stage.path("shiftboss.toml"), config).expect("ours");
    let output = stage.run(&["submit", "noop"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("its folder does not exist, create "), "{}", told(&output));
    let output = stage.run(&["run"]);
    assert!(told(&output).contains("/no"), "{}", told(&output));
    assert_eq!(output.status.code(), Some(100), "{}", told(&output));
}

#[test]
fn a_database_on_a_read_only_disk_is_refused() {
    let name = "a_database_on_a_read_only_disk_is_refused";
    let stage = Stage::dark("");
    let folder = stage.path("disk");
    std::fs::create_dir(&folder).expect("the folder is ours");
    let Some(disk) = Disk::mount(name, &folder, 4) else { return };
    let database = folder.join("jobs.db");
    let path = |name: &str| stage.path(name).display().to_string();
    let config = format!(
        "database = {database:?}\nwork_dir = \"{}\"\nruntime_dir = \"{}\"",
        path("work"),
        path("run")
    );
    std::fs::write(stage.path("shiftboss.toml"), config).expect("ours");
    assert!(stage.run(&["submit", "noop"]).status.success());
    disk.make_read_only();
    let output = stage.run(&["run"]);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(100), "{text}");
    assert!(text.contains("ead-only") && text.contains("jobs.db"), "{text}");
    let output = stage.run(&["submit", "noop"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("read-only"), "{}", told(&output));
    let doctor = stage.run(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(1), "{doctor:?}");
}

#[test]
fn a_start_and_a_submit_wait_out_a_database_that_is_locked_for_ten_seconds() {
    let mut stage = Stage::new("");
    stage.signal(nix::sys::signal::Signal::SIGTERM);
    stage.wait_for_end();
    let lock = stage.database();
    lock.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let locked_at = Instant::now();
    let mut submit = stage.shiftboss(&["submit", "noop"]);
    let mut submit = shiftboss_tests::spawn_quiet(&mut submit);
    let other = stage.spawn_supervisor("log", &[]);
    stage.keep(other);
    wait_until("ten seconds are over", || locked_at.elapsed() > Duration::from_secs(10));
    lock.execute_batch("COMMIT").expect("unlocked");
    wait_until("the job has run", || stage.count("state = 'succeeded'") == 1);
    assert!(submit.wait().expect("it is ours").success());
}

#[test]
fn a_work_folder_that_cannot_be_made_is_refused_and_named() {
    let stage = Stage::dark("");
    std::fs::write(stage.path("jobs.db.work"), "").expect("the folder is ours");
    refused(&stage, "jobs.db.work");
    let mut command = stage.shiftboss(&["run"]);
    let output = output_of(command.env("SHIFTBOSS_RUNTIME_DIR", "/proc/nowhere"));
    assert!(told(&output).contains("/proc/nowhere"), "{}", told(&output));
}
