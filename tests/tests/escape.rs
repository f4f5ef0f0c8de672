//! A hostile program gets nowhere: `shiftboss selftest` as root, as a user without rights, and with
//! a supervisor that runs; and without a cage it finds the holes that it is there to find.

use serde_json::Value;
use shiftboss_tests::{Stage, built, has_failpoints, has_program, is_root, skip};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The user who owns nothing.
const NOBODY: u32 = 65_534;

/// Attempts of one type that are asked for at least.
const ATTEMPTS_MIN: usize = 60;

/// Whether this host lets a cage have namespaces of its own; without them some attempts are not
/// denied, which `shiftboss doctor` says.
fn has_namespaces(test: &str) -> bool {
    let tried = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--net", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let offered = tried.is_ok_and(|status| status.success());
    if !offered {
        skip(test, "this host gives no user, mount, pid and network namespaces");
    }
    offered
}

fn rows(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("no table: {text} {error}"))
}

fn with_verdict<'a>(rows: &'a [Value], verdict: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row["verdict"] == verdict).collect()
}

/// Every attempt of each of these types was made and denied.
fn assert_denied(output: &Output, types: &[&str]) {
    let rows = rows(output);
    let bad: Vec<&Value> = rows
        .iter()
        .filter(|row| row["verdict"] != "denied" && row["verdict"] != "skipped")
        .collect();
    assert!(bad.is_empty(), "{} attempts were not denied: {bad:#?}", bad.len());
    for job_type in types {
        let of_type = |row: &&&Value| row["type"] == *job_type;
        let denied = with_verdict(&rows, "denied").iter().filter(of_type).count();
        assert!(denied >= ATTEMPTS_MIN, "{denied} attempts of {job_type}");
    }
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn nothing_gets_out_of_the_cage() {
    if !has_namespaces("nothing_gets_out_of_the_cage") {
        return;
    }
    let stage = Stage::dark("");
    let output = stage.shiftboss(&["selftest", "--json"]).output().expect("it can be started");
    assert_denied(&output, &["command", "encode"]);
}

#[test]
fn tools_that_others_wrote_find_the_walls_of_the_cage() {
    let test = "tools_that_others_wrote_find_the_walls_of_the_cage";
    let tools = ["capsh", "setpriv", "lsns"];
    if let Some(tool) = tools.into_iter().find(|tool| !has_program(tool)) {
        return skip(test, &format!("{tool} is not installed"));
    }
    if !has_namespaces(test) {
        return;
    }
    let stage = Stage::new("");
    let script = "capsh --print; setpriv --dump; grep Seccomp: /proc/self/status; \
                  lsns --noheadings --output TYPE,NS";
    let job = stage.shell(script);
    stage.wait_for_state(job, "succeeded");
    let logs = stage.run(&["logs", &job.to_string()]);
    let text = String::from_utf8_lossy(&logs.stdout).into_owned();
    for line in [
        "Current: =",
        "Bounding set =",
        "Guessed mode: NOPRIV (1)",
        "no_new_privs: 1",
        "Inheritable capabilities: [none]",
        "Capability bounding set: [none]",
        "Seccomp:\t2",
    ] {
        assert!(text.lines().any(|one| one == line), "{line:?} is not in {text}");
    }
    // Time is the one namespace that the cage shares with the host.
    for kind in ["user", "pid", "ipc", "uts", "cgroup", "net", "mnt"] {
        let link = fs::read_link(format!("/proc/self/ns/{kind}")).expect("we have one");
        let ours = link.to_string_lossy().replace(['[', ']'], " ");
        let ours = ours.split_whitespace().last().expect("a number").to_owned();
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let theirs = lines.find(|words| words.len() == 2 && words[0] == kind);
        let theirs = theirs.unwrap_or_else(|| panic!("no {kind} in {text}"))[1].to_owned();
        assert_ne!(theirs, ours, "{kind}");
    }
}

#[test]
fn nothing_gets_out_of_the_cage_of_a_user_without_rights() {
    let test = "nothing_gets_out_of_the_cage_of_a_user_without_rights";
    if !is_root() {
        return skip(test, "only root can become another user");
    }
    if !has_program("setpriv") || !has_namespaces(test) {
        return;
    }
    let stage = Stage::dark("");
    let folder = stage.path("home");
    fs::create_dir(&folder).expect("the folder is ours");
    let whole = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    };
    whole(&stage.path(""));
    // The programs may lie where only root can go.
    for name in ["shiftboss", "shiftboss-worker"] {
        fs::copy(built(name), stage.path(name)).expect("the folder is ours");
        whole(&stage.path(name));
    }
    chown(&folder, Some(NOBODY), Some(NOBODY)).expect("we are root");
    let id = NOBODY.to_string();
    let output = Command::new("setpriv")
        .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"])
        .arg(stage.path("shiftboss"))
        .args(["selftest", "--json"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TMPDIR", &folder)
        .current_dir(&folder)
        .stdin(Stdio::null())
        .output()
        .expect("it can be started");
    assert_denied(&output, &["command", "encode"]);
}

#[test]
fn nothing_gets_out_of_the_cage_of_a_supervisor_that_runs() {
    if !has_namespaces("nothing_gets_out_of_the_cage_of_a_supervisor_that_runs") {
        return;
    }
    let limits = "{ files = 256, file_size = \"8MiB\" }";
    let stage = Stage::new(&format!(
        "[types.command]\nworkers = {{ max = 3 }}\nlimits = {limits}\n\
         grace = {{ drain = \"1s\", term = \"1s\" }}"
    ));
    let mut command = stage.shiftboss(&["selftest", "--live", "--type", "command", "--json"]);
    assert_denied(&command.output().expect("it can be started"), &["command"]);
}

/// Runs the self-test where parts of the cage are made to be missing; `None` (and a skip) where
/// that cannot be.
fn lacking(test: &str, words: &str) -> Option<Vec<Value>> {
    if !has_failpoints(test) || !has_namespaces(test) {
        return None;
    }
    let stage = Stage::dark("");
    let mut command = stage.shiftboss(&["selftest", "--type", "command", "--json"]);
    let output = command.env("SHIFTBOSS_TEST_LACK", words).output().expect("it can be started");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    Some(rows(&output))
}

const NAMESPACES: &str = "user-ns,mount-ns,pid-ns,ipc-ns,uts-ns,cgroup-ns,net-ns";

#[test]
fn landlock_and_seccomp_alone_leave_only_the_modes_of_own_files() {
    let test = "landlock_and_seccomp_alone_leave_only_the_modes_of_own_files";
    let Some(rows) = lacking(test, NAMESPACES) else { return };
    let through = with_verdict(&rows, "got-through");
    // Landlock has no right for the mode, the owner and the times of a file.
    let known = ["chmod-own-input", "write-program"];
    let new: Vec<_> =
        through.iter().filter(|row| !known.iter().any(|it| row["attempt"] == *it)).collect();
    assert!(new.is_empty(), "{new:#?}");
    assert!(with_verdict(&rows, "not-tried").is_empty(), "{rows:#?}");
}

#[test]
fn a_missing_wall_shows() {
    let test = "a_missing_wall_shows";
    let words = format!("{NAMESPACES},landlock,seccomp,no-new-privs");
    for (words, least, one) in [(&*words, 80, "read-other-input"), ("seccomp", 10, "make-setuid")] {
        let Some(rows) = lacking(test, words) else { return };
        let through = with_verdict(&rows, "got-through");
        assert!(through.len() >= least, "without {words}: {through:#?}");
        assert!(through.iter().any(|row| row["attempt"] == one), "without {words}: {through:#?}");
    }
}

#[test]
fn without_a_cage_the_attempts_get_through() {
    let stage = Stage::dark("");
    let mut command = stage.shiftboss(&["selftest", "--outside", "--json"]);
    let output = command.output().expect("it can be started");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let rows = rows(&output);
    assert!(with_verdict(&rows, "not-tried").is_empty(), "{rows:#?}");
    let through = with_verdict(&rows, "got-through");
    let least = if is_root() { 120 } else { 50 };
    assert!(through.len() >= least, "{} got through: {through:#?}", through.len());
    for name in [
        "read-other-input",
        "read-database",
        "supervisor-environment",
        "create-outside",
        "forge-outcome",
        "write-other-input",
        "rename-outside",
        "make-setuid",
        "control-socket",
        "abstract-socket",
        "tcp-loopback",
        "udp-loopback",
        "signal-supervisor",
        "trace-sibling",
        "see-others",
        "new-privileges",
        "filter",
        "foreign-memory",
    ] {
        assert!(through.iter().any(|row| row["attempt"] == name), "{name} was denied outside");
    }
}

#[test]
fn a_type_that_cannot_be_tested_is_refused() {
    let stage = Stage::dark("");
    let output = stage.run(&["selftest", "--type", "noop"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("type noop cannot be tested") && text.contains("command"), "{text}");
}
