//! Programs: how they are started, how they end, and that nothing is left of them.

use crate::supervisor::{Supervisor, is_alive, owner, pid_in, text, wait_until};
use shiftboss_protocol::job::{Cause, Outcome};
use shiftboss_protocol::message::{StopReason, WorkerMessage};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

#[test]
fn a_program_gets_a_clean_environment_and_its_words() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor.assign(7, r#"{"argv":["env"],"env":{"COLOUR":"gr\u00fcn"}}"#);
    let result = supervisor.succeeded(7);
    let said = result["stdout_tail"].as_str().expect("text");
    let mut lines: Vec<_> = said.lines().collect();
    lines.sort_unstable();
    let scratch = text(&supervisor.path("scratch/7-1"));
    let expected = [
        "COLOUR=grün".to_owned(),
        format!("HOME={scratch}"),
        "LANG=C.UTF-8".into(),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        "SHIFTBOSS_ATTEMPT=1".into(),
        "SHIFTBOSS_JOB=7".into(),
        format!("SHIFTBOSS_OWNER={}", owner(1)),
        format!("TMPDIR={scratch}"),
    ];
    assert_eq!(lines, expected);
    assert_eq!(result["exit_code"], 0);
    let (_, usage) = supervisor.finished(7);
    assert!(usage.memory_peak_bytes.is_some_and(|bytes| bytes > 100_000), "{usage:?}");
    wait_until("scratch is removed", || !supervisor.path("scratch/7-1").exists());
    let log = supervisor.path("logs/7/1.command.out");
    assert!(std::fs::read_to_string(log).expect("log").contains("COLOUR"));
}

#[test]
fn an_exit_code_is_told_with_the_last_words() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor.assign(1, &supervisor.script("echo all is lost >&2; exit 3"));
    let failure = supervisor.failed(1);
    assert_eq!(
        (failure.cause, failure.exit_code, failure.permanent),
        (Cause::ExitCode, Some(3), false)
    );
    assert!(failure.message.contains("all is lost"), "{}", failure.message);
}

#[test]
fn a_signal_is_named() {
    let mut supervisor = Supervisor::start("command", 1);
    for (job, signal, cause) in
        [(1, "SEGV", Cause::Signal), (2, "XCPU", Cause::Limit), (3, "SYS", Cause::ForbiddenSyscall)]
    {
        supervisor.assign(job, &supervisor.script(&format!("kill -{signal} $$")));
        let failure = supervisor.failed(job);
        assert_eq!(failure.cause, cause);
        assert!(failure.message.contains(&format!("SIG{signal}")), "{}", failure.message);
    }
}

#[test]
fn a_program_that_cannot_start_fails_for_good() {
    let mut supervisor = Supervisor::start("command", 1);
    let plain = supervisor.path("plain");
    std::fs::write(&plain, "x").expect("file");
    std::fs::set_permissions(&plain, PermissionsExt::from_mode(0o644)).expect("mode");
    let cases = [
        ("shiftboss-no-such-program".to_owned(), "no such program in PATH"),
        ("/no/such/program".to_owned(), "does not exist"),
        (text(&plain), "not executable"),
    ];
    for (job, (program, reason)) in (1..).zip(cases) {
        supervisor.assign(job, &serde_json::json!({ "argv": [program] }).to_string());
        let failure = supervisor.failed(job);
        assert_eq!((failure.cause, failure.permanent), (Cause::FailedStart, true));
        assert!(failure.message.contains(reason), "{}", failure.message);
    }
}

#[test]
fn names_that_are_not_utf8_work_in_paths() {
    let mut supervisor = Supervisor::start("command", 1);
    let folder = supervisor.folder.path().join(OsStr::from_bytes(b"\xff\xfe"));
    std::fs::create_dir(&folder).expect("folder");
    std::fs::write(folder.join("found"), "").expect("file");
    let uri = format!("file://{}/%FF%FE", supervisor.folder.path().display());
    let payload = serde_json::json!({"argv": ["ls"], "cwd": uri, "read": [uri]});
    supervisor.assign(1, &payload.to_string());
    assert_eq!(supervisor.succeeded(1)["stdout_tail"], "found");
}

#[test]
fn a_grandchild_in_a_session_of_its_own_is_dead_when_the_job_is_finished() {
    let mut supervisor = Supervisor::start("command", 1);
    let file = supervisor.path("pid");
    let escape = format!(
        "(setsid sh -c 'echo $$ > {0}; exec sleep 1000' &) & until [ -s {0} ]; do sleep 0.01; done",
        file.display()
    );
    supervisor.assign(1, &supervisor.script(&escape));
    supervisor.succeeded(1);
    assert!(!is_alive(&pid_in(&file)));
}

#[test]
fn a_program_that_closes_its_streams_is_waited_for() {
    let mut supervisor = Supervisor::start("command", 1);
    let file = supervisor.path("done");
    let quiet = format!("exec 0<&- 1>&- 2>&-; sleep 0.5; : > {}", file.display());
    supervisor.assign(1, &supervisor.script(&quiet));
    supervisor.succeeded(1);
    assert!(file.exists());
}

#[test]
fn a_program_that_ignores_sigterm_is_killed_after_its_grace() {
    let mut supervisor = Supervisor::start("command", 1);
    let file = supervisor.path("pid");
    let stubborn =
        format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.05; done", file.display());
    supervisor.assign(1, &supervisor.script(&stubborn));
    let pid = pid_in(&file);
    let start = Instant::now();
    supervisor.cancel(1, StopReason::Cancelled);
    assert_eq!(supervisor.finished(1).0, Outcome::Cancelled);
    assert!(start.elapsed().as_millis() >= 300);
    assert!(!is_alive(&pid));
}

#[test]
fn a_program_that_ends_well_on_sigterm_is_still_cancelled() {
    let mut supervisor = Supervisor::start("command", 1);
    let file = supervisor.path("pid");
    let polite =
        format!("trap 'exit 0' TERM; echo $$ > {}; while :; do sleep 0.05; done", file.display());
    supervisor.assign(1, &supervisor.script(&polite));
    pid_in(&file);
    supervisor.cancel(1, StopReason::Cancelled);
    assert_eq!(supervisor.finished(1).0, Outcome::Cancelled);
}

#[test]
fn programs_of_a_worker_that_was_killed_die_by_their_lifeline() {
    let mut supervisor = Supervisor::start("command", 1);
    let file = supervisor.path("pid");
    let escape = format!(
        "(setsid sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 0.05; done' &); sleep 1000",
        file.display()
    );
    supervisor.assign(1, &supervisor.script(&escape));
    let pid = pid_in(&file);
    let launcher = supervisor.started(1).to_string();
    supervisor.worker.kill().expect("kill");
    wait_until("the launcher is gone", || !is_alive(&launcher));
    assert!(!is_alive(&pid), "the launcher went before its tree");
}

#[test]
fn a_program_whose_launcher_was_killed_does_not_survive_it() {
    let mut supervisor = Supervisor::start("command", 1);
    let file = supervisor.path("pid");
    supervisor
        .assign(1, &supervisor.script(&format!("sleep 1000 & echo $! > {}; wait", file.display())));
    let pid = pid_in(&file);
    let launcher = supervisor.started(1).to_string();
    std::process::Command::new("kill").args(["-KILL", &launcher]).status().expect("kill");
    let failure = supervisor.failed(1);
    assert!(failure.message.contains("without a report"), "{}", failure.message);
    assert!(!is_alive(&pid));
}

#[test]
fn a_daemon_whose_launcher_was_killed_does_not_survive_it() {
    let mut supervisor = Supervisor::start("command", 1);
    let file = supervisor.path("pid");
    let daemon = format!("setsid sh -c 'echo $$ > {}; exec sleep 1000' & wait", file.display());
    supervisor.assign(1, &supervisor.script(&daemon));
    let pid = pid_in(&file);
    let launcher = supervisor.started(1).to_string();
    std::process::Command::new("kill").args(["-KILL", &launcher]).status().expect("kill");
    let failure = supervisor.failed(1);
    assert!(failure.message.contains("without a report"), "{}", failure.message);
    assert!(!is_alive(&pid));
}

#[test]
fn a_fork_bomb_of_processes_ends_with_its_job() {
    let mut supervisor = Supervisor::start("command", 1);
    let marker = format!("31{:07}", supervisor.worker.id());
    let file = supervisor.path("pid");
    let bomb = format!(
        "b() {{ while :; do (setsid sleep {marker} &); done; }}; (b &); (b &); echo $$ > {}; \
         exec sleep 0.3",
        file.display()
    );
    supervisor.assign(1, &supervisor.script(&bomb));
    supervisor.succeeded(1);
    let left = std::process::Command::new("pgrep").args(["-f", &marker]).output().expect("pgrep");
    assert!(left.stdout.is_empty(), "{}", String::from_utf8_lossy(&left.stdout));
}

#[test]
fn much_output_keeps_logs_and_memory_bounded() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor.assign(
        1,
        &supervisor.script("head -c 100000000 /dev/zero; yes | head -c 10000000; echo end"),
    );
    let result = supervisor.succeeded(1);
    assert!(result["stdout_tail"].as_str().expect("text").ends_with("end"));
    let size = |name| std::fs::metadata(supervisor.path(name)).expect("log").len();
    assert!(size("logs/1/1.command.out") <= 1 << 20);
    assert_eq!(size("logs/1/1.command.out.1"), 1 << 20);
    let status = std::fs::read_to_string(format!("/proc/{}/status", supervisor.worker.id()));
    let status = status.expect("status");
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).expect("peak");
    let kib: u64 = peak.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("KiB");
    assert!(kib < 60_000, "{peak}");
}

#[test]
fn a_log_that_cannot_be_written_does_not_fail_the_job() {
    let mut supervisor = Supervisor::start("command", 1);
    std::fs::write(supervisor.path("logs"), "a file where the folder should be").expect("file");
    supervisor.assign(1, r#"{"argv":["echo","hello"]}"#);
    assert_eq!(supervisor.succeeded(1)["stdout_tail"], "hello");
    supervisor.wait_for(|message| match message {
        WorkerMessage::Log { text, .. } if text.contains("no longer logged") => Some(()),
        _ => None,
    });
}

#[test]
fn a_program_runs_niced_without_core_dumps_and_with_default_signals() {
    let mut supervisor = Supervisor::start("command", 1);
    supervisor
        .assign(1, &supervisor.script("nice; ulimit -c; grep -E 'Sig(Blk|Ign)' /proc/self/status"));
    let result = supervisor.succeeded(1);
    let said = result["stdout_tail"].as_str().expect("text");
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!(words[..4], ["10", "0", "SigBlk:", "0000000000000000"]);
    // Rust programs ignore SIGPIPE for themselves; `yes | head` needs it.
    let ignored = u64::from_str_radix(words[5], 16).expect("a mask");
    assert_eq!(ignored & 1 << (libc::SIGPIPE - 1), 0, "{said}");
}
