//! What a service manager hears from the supervisor, and what the shipped unit promises.

use nix::sys::signal::Signal;
use shiftboss_tests::{Stage, has_program, skip, wait_until};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

/// A service manager's end of the socket, and all that it has heard.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn start(stage: &mut Stage, more: &[(&str, &str)]) -> Self {
        let path = stage.path("notify");
        let socket = UnixDatagram::bind(&path).expect("the folder is ours");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket has a timeout");
        let path = path.display().to_string();
        let mut env = vec![("NOTIFY_SOCKET", path.as_str())];
        env.extend(more);
        stage.start_with(&env);
        Self { socket, heard: Vec::new() }
    }

    fn listen(&mut self) {
        let mut datagram = [0; 4096];
        if let Ok(length) = self.socket.recv(&mut datagram) {
            let text = String::from_utf8_lossy(&datagram[..length]);
            self.heard.extend(text.lines().map(str::to_owned));
        }
    }

    fn count(&self, start: &str) -> usize {
        self.heard.iter().filter(|line| line.starts_with(start)).count()
    }

    fn wait_for(&mut self, start: &str, times: usize) {
        wait_until(&format!("{start} is heard {times} times"), || {
            self.listen();
            self.count(start) >= times
        });
    }
}

#[test]
fn a_service_manager_hears_ready_status_reloading_and_stopping() {
    let mut stage = Stage::dark("");
    let mut manager = Manager::start(&mut stage, &[]);
    manager.wait_for("READY=1", 1);
    manager.wait_for("STATUS=running: 0 jobs run", 1);
    assert_eq!(manager.count("WATCHDOG"), 0, "nobody asked for signs of life");

    stage.signal(Signal::SIGHUP);
    manager.wait_for("RELOADING=1", 1);
    manager.wait_for("MONOTONIC_USEC=", 1);
    manager.wait_for("READY=1", 2);

    stage.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1", 1);
    assert_eq!(stage.wait_for_end(), Some(0));
}

#[test]
fn an_upgrade_is_a_reload_to_the_service_manager_with_the_same_main_process() {
    let mut stage = Stage::dark("");
    let mut manager = Manager::start(&mut stage, &[]);
    manager.wait_for("READY=1", 1);
    let pid = format!("MAINPID={}", stage.pid());
    manager.wait_for(&pid, 1);
    assert!(stage.run(&["upgrade"]).status.success());
    manager.wait_for("RELOADING=1", 1);
    manager.wait_for("READY=1", 2);
    manager.wait_for(&pid, 2);
    assert_eq!(manager.count("STOPPING=1"), 0, "an upgrade is no stop");
}

#[test]
fn the_main_loop_feeds_the_watchdog_and_a_stopped_one_does_not() {
    let mut stage = Stage::dark("");
    let mut manager = Manager::start(&mut stage, &[("WATCHDOG_USEC", "200000")]);
    manager.wait_for("WATCHDOG=1", 5);
    stage.signal(Signal::SIGSTOP);
    let stat = format!("/proc/{}/stat", stage.pid());
    wait_until("the supervisor stands still", || {
        std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "))
    });
    // What was on its way is read, then 10 intervals bring nothing.
    while manager.count("WATCHDOG=1") != {
        manager.listen();
        manager.count("WATCHDOG=1")
    } {}
    let before = manager.count("WATCHDOG=1");
    for _ in 0..50 {
        manager.listen();
    }
    assert_eq!(manager.count("WATCHDOG=1"), before, "a hanging loop gave a sign of life");
    stage.signal(Signal::SIGCONT);
    manager.wait_for("WATCHDOG=1", before + 1);
}

#[test]
fn ready_is_said_again_to_a_manager_that_could_not_take_it() {
    let mut stage = Stage::dark("");
    let path = stage.path("notify");
    stage.start_with(&[("NOTIFY_SOCKET", path.to_str().expect("ours is UTF-8"))]);
    let job = stage.shell("true");
    stage.wait_for_state(job, "succeeded");
    let socket = UnixDatagram::bind(&path).expect("the folder is ours");
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket has a timeout");
    let mut manager = Manager { socket, heard: Vec::new() };
    manager.wait_for("READY=1", 1);
}

#[test]
fn a_notify_socket_that_is_none_does_not_keep_the_supervisor_from_working() {
    let mut stage = Stage::dark("");
    stage.start_with(&[("NOTIFY_SOCKET", "nowhere"), ("WATCHDOG_USEC", "100000")]);
    let job = stage.shell("true");
    stage.wait_for_state(job, "succeeded");
}

#[test]
fn the_unit_is_exposed_at_most_by_2_7() {
    let name = "the_unit_is_exposed_at_most_by_2_7";
    if !has_program("systemd-analyze") {
        return skip(name, "no systemd-analyze here");
    }
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/shiftboss.service");
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--no-pager", "--offline=true", "--threshold=27", unit]);
    let output = command.output().expect("it was there a moment ago");
    let text = String::from_utf8_lossy(&output.stdout);
    let refused = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{refused}\n{text}");
    assert!(text.contains("exposure level"), "nothing was measured: {refused}");
}

#[test]
fn the_unit_lets_work_survive_and_leaves_the_cage_possible() {
    let unit = include_str!("../../systemd/shiftboss.service");
    let lines: Vec<&str> = unit.lines().filter(|line| !line.starts_with('#')).collect();
    for needed in [
        "Type=notify",
        "Delegate=yes",
        "DelegateSubgroup=supervisor",
        "KillMode=process",
        "KillSignal=SIGTERM",
        "RestartKillSignal=SIGUSR2",
        "OOMPolicy=continue",
        "RuntimeDirectoryPreserve=yes",
        "RestartPreventExitStatus=100",
        // Else the three that cover files of /proc forbid a fresh one.
        "BindPaths=/proc:/run/shiftboss-proc/proc:norbind",
    ] {
        assert!(lines.contains(&needed), "{needed} is missing");
    }
    // Each forbids namespaces, the delegated tree or the sight of survivors.
    for forbidden in [
        "RestrictNamespaces=",
        "ProtectControlGroups=",
        "PrivateUsers=",
        "ProtectProc=",
        "MemoryDenyWriteExecute=",
    ] {
        assert!(!lines.iter().any(|line| line.starts_with(forbidden)), "{forbidden} is set");
    }
}

/// What workers and cages call of the kernel for their walls and limits. systemd 252 has some of it
/// in none of its groups.
const CALLED: &[&str] = &[
    "clone3",
    "close_range",
    "landlock_add_rule",
    "landlock_create_ruleset",
    "landlock_restrict_self",
    "mount",
    "pidfd_open",
    "pidfd_send_signal",
    "pivot_root",
    "prctl",
    "prlimit64",
    "seccomp",
    "setns",
    "umount2",
    "unshare",
];

#[test]
fn the_unit_allows_the_system_calls_of_the_walls() {
    let name = "the_unit_allows_the_system_calls_of_the_walls";
    if !has_program("systemd-analyze") {
        return skip(name, "no systemd-analyze here");
    }
    let unit = include_str!("../../systemd/shiftboss.service");
    let lines = unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter="));
    let mut open: Vec<String> = lines.flat_map(str::split_whitespace).map(str::to_owned).collect();
    let mut allowed = Vec::new();
    while let Some(word) = open.pop() {
        if word.starts_with('@') {
            let output = Command::new("systemd-analyze").args(["syscall-filter", &word]).output();
            let output = output.expect("it was there a moment ago");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let members = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
            // The first line is the group's own name.
            open.extend(
                members.filter(|line| *line != word && !line.is_empty()).map(str::to_owned),
            );
        } else {
            allowed.push(word);
        }
    }
    let lacking = CALLED.iter().filter(|call| !allowed.iter().any(|one| one == *call));
    let lacking: Vec<_> = lacking.collect();
    assert!(lacking.is_empty(), "the unit forbids {lacking:?}");
}
