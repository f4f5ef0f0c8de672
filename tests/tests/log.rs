//! The log: plain words about polling and workers, fields for machines, and no secrets.

use serde_json::Value;
use shiftboss_tests::{Stage, skip, wait_until};
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn polling_and_workers_are_told_in_plain_words() {
    let mut stage = Stage::dark(
        "[types.noop]\nworkers = { min = 1, idle = \"1ms\" }\n\
         [poll]\nidle_min = \"20ms\"\nidle_max = \"40ms\"\nstagger_max = \"0s\"",
    );
    stage.start();
    let said = |sentence: &str| {
        wait_until(&format!("the log says {sentence:?}"), || stage.log().contains(sentence));
    };
    said("the table is looked at every 20ms (active interval, ");
    said("while idle ever more seldom up to every 40ms");
    said("starting worker 1: a worker is to be kept ready (workers.min, workers.warm)");
    said("nothing to do: idle backoff engaged, the next fallback poll comes in 0.04 s");
    let job = stage.shell("true");
    stage.wait_for_state(job, "succeeded");
    said("work seen: idle backoff released, the fallback poll comes every 0.02 s again");
    said("starting worker 2: jobs wait");
    stage.reconfigure("", "[types.command.workers]\nidle = \"1ms\"");
    stage.signal(nix::sys::signal::Signal::SIGHUP);
    let job = stage.shell("true");
    stage.wait_for_state(job, "succeeded");
    said("stopping worker 2: it was idle for long enough");
}

#[test]
fn no_secret_reaches_the_log_however_much_is_logged() {
    let mut stage = Stage::dark("[types.command.env]\nTYPE_KEY = \"secret-of-type\"");
    let env = [("SHIFTBOSS_LOG", "trace"), ("REDIS_PASSWORD", "secret-of-redis")];
    stage.start_with(&env);
    let payload = serde_json::json!({
        "argv": ["sh", "-c", "test $KEY = secret-of-payload"],
        "env": { "KEY": "secret-of-payload" }, "stdin": "secret-of-stdin",
    });
    let payload = payload.to_string();
    let output = stage.run(&["submit", "command", "--payload", &payload, "--wait"]);
    assert!(output.status.success(), "{output:?}");
    for bad in [r#"["secret-of-payload"]"#, r#""secret-of-payload""#] {
        let payload = format!(r#"{{"argv": ["true"], "env": {bad}}}"#);
        let row = stage.wait_for_state(stage.insert("command", &payload), "failed");
        assert!(row.last_error.contains("field env: invalid type"), "{}", row.last_error);
    }
    stage.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("it is read again", || stage.log().contains("configuration read again"));
    let log = stage.log();
    assert!(log.contains("a client asks"), "trace is not on: {log}");
    assert!(!log.contains("secret-of"), "{log}");
}

#[test]
fn each_line_of_a_log_in_json_is_one_object_with_fields() {
    let stage = Stage::new("log = { format = \"json\" }");
    let job = stage.shell("exit 3");
    stage.wait_for_state(job, "scheduled");
    wait_until("the failure is told", || stage.log().contains("failed"));
    let log = stage.log();
    let rows: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
    let fields = rows.iter().map(|row| &row["fields"]);
    let failed = fields.filter(|it| it["job"] == job).find(|it| it["attempt"] == 1);
    let failed = failed.unwrap_or_else(|| panic!("{log}"));
    assert_eq!(failed["job_type"], "command");
    assert!(failed["retry_in_ms"].is_u64(), "{failed}");
}

/// A field of one message to the journal: `NAME=value`, or the name, the length as 64 bits in
/// little endian, and the value.
fn field(message: &[u8], wanted: &str) -> Option<String> {
    let mut rest = message;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'=' | b'\n')) {
        let (name, value) = (&rest[..at], &rest[at + 1..]);
        let (value, after) = if rest[at] == b'=' {
            let end = value.iter().position(|byte| *byte == b'\n').unwrap_or(value.len());
            (&value[..end], &value[end..])
        } else {
            let (length, value) = value.split_first_chunk::<8>()?;
            value.split_at(usize::try_from(u64::from_le_bytes(*length)).ok()?)
        };
        if name == wanted.as_bytes() {
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        rest = after.strip_prefix(b"\n").unwrap_or(after);
    }
    None
}

#[test]
fn under_systemd_the_log_goes_to_the_journal_with_fields() {
    let name = "under_systemd_the_log_goes_to_the_journal_with_fields";
    let mounts = Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status();
    if !mounts.is_ok_and(|status| status.success()) {
        return skip(name, "no mount namespace can be made here (needs root)");
    }
    let mut stage = Stage::dark("");
    let socket = stage.path("journal");
    let journal = UnixDatagram::bind(&socket).expect("a socket can be bound");
    journal.set_read_timeout(Some(Duration::from_secs(60))).expect("it can be set");
    // What systemd does: standard error is named by JOURNAL_STREAM, the socket has a fixed name.
    let log = std::fs::File::create(stage.path("stderr")).expect("ours");
    let facts = log.metadata().expect("it is open");
    let stream = format!("{}:{}", facts.st_dev(), facts.st_ino());
    let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && \
                  : > /run/systemd/journal/socket && \
                  mount --bind \"$1\" /run/systemd/journal/socket && exec \"$2\" run";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(&socket);
    command.arg(shiftboss_tests::built("shiftboss")).current_dir(stage.path(""));
    command.env("SHIFTBOSS_CONFIG", stage.path("shiftboss.toml")).env("JOURNAL_STREAM", stream);
    let child = command.stdin(Stdio::null()).stderr(log).spawn().expect("it can be started");
    stage.keep(child);
    wait_until("it answers", || stage.run(&["status"]).status.success());
    let job = stage.shell("exit 3");
    let mut buffer = vec![0; 1 << 16];
    let message = loop {
        let count = journal.recv(&mut buffer).expect("the journal is written");
        let message = buffer[..count].to_vec();
        if field(&message, "SHIFTBOSS_JOB").is_some() {
            break message;
        }
    };
    assert_eq!(field(&message, "SHIFTBOSS_JOB"), Some(job.to_string()));
    assert_eq!(field(&message, "SHIFTBOSS_ATTEMPT").as_deref(), Some("1"));
    assert_eq!(field(&message, "PRIORITY").as_deref(), Some("4"));
    assert!(String::from_utf8_lossy(&message).contains("failed"), "{message:?}");
    let text = std::fs::read_to_string(stage.path("stderr")).expect("ours");
    assert_eq!(text, "", "told twice");
}
