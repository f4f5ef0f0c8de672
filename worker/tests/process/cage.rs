//! The cage around a program: what it sees, what it may do, and what holds where a part of the
//! cage cannot be had.

use crate::supervisor::{Supervisor, skip, text, wait_until};
use shiftboss_protocol::confine::{Confine, Network};
use shiftboss_protocol::job::Cause;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

/// Every wall that needs a namespace.
const NAMESPACES: &str = "user-ns,mount-ns,pid-ns,ipc-ns,uts-ns,cgroup-ns,net-ns";

/// What a script says on standard output, whatever its exit code is.
fn said(supervisor: &mut Supervisor, job: i64, script: &str) -> String {
    let script = format!("({script}) 2>&1; true");
    supervisor.assign(job, &supervisor.script(&script));
    supervisor.succeeded(job)["stdout_tail"].as_str().expect("text").to_owned()
}

fn command() -> Supervisor {
    Supervisor::start("command", 1)
}

fn lacking(walls: &str) -> Supervisor {
    Supervisor::lacking(walls, "command", |_| {})
}

#[test]
fn a_program_sees_the_system_and_what_its_payload_names_and_nothing_else() {
    let mut supervisor = command();
    let outside = tempfile::tempdir().expect("folder");
    std::fs::write(outside.path().join("secret"), "secret").expect("file");
    let said = said(
        &mut supervisor,
        1,
        &format!(
            "ls -A / /etc; cat {0}/secret; cat /etc/shadow; ls -A /root /home; \
             echo in tmp; ls -A /tmp",
            outside.path().display()
        ),
    );
    let lines: Vec<_> = said.lines().collect();
    for seen in ["usr", "bin", "dev", "proc", "tmp", "passwd", "nsswitch.conf"] {
        assert!(lines.contains(&seen), "{seen}: {said}");
    }
    for hidden in ["root", "home", "boot", "sys", "srv", "opt", "shadow", "ssh", "sudoers"] {
        assert!(!lines.contains(&hidden), "{hidden}: {said}");
    }
    assert!(!lines.contains(&"secret"), "{said}");
    // This test's folder lies in /tmp, and the other one beside it.
    let given = supervisor.folder.path().file_name().expect("a name").to_string_lossy();
    let (_, listed) = said.split_once("in tmp\n").expect("the last word");
    assert_eq!(listed, given, "{said}");
}

#[test]
fn a_program_writes_where_it_may_and_nowhere_else() {
    let mut supervisor = command();
    let input = tempfile::tempdir().expect("folder");
    std::fs::write(input.path().join("film"), "film").expect("film");
    let script = format!(
        "cd {0}; cat film; for place in / /etc /usr /dev /proc /proc/sys/kernel {0}; do \
         touch $place/made && echo made $place; done; echo x > film && echo wrote film; \
         chmod 600 film && echo chmod film; chmod 666 /dev/null && echo chmod null; \
         ln film /tmp/link && echo linked; mv film other && echo moved; \
         touch /tmp/made $HOME/made $OUT/made && echo made all three; \
         echo 1 > /proc/sys/kernel/sysrq && echo sysrq",
        input.path().display()
    );
    let payload = serde_json::json!({
        "argv": ["sh", "-c", format!("({script}) 2>/dev/null; true")],
        "read": [input.path()],
        "write": [supervisor.path("out")],
        "env": {"OUT": supervisor.path("out")},
    });
    supervisor.assign(1, &payload.to_string());
    assert_eq!(supervisor.succeeded(1)["stdout_tail"], "filmmade all three");
    assert!(supervisor.path("out/made").exists());
}

#[test]
fn a_program_has_no_capability_and_can_get_none() {
    let mut supervisor = command();
    let said = said(
        &mut supervisor,
        1,
        "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status; ulimit -c; umask",
    );
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(said.lines().any(|one| one == line), "{line}: {said}");
    }
}

#[test]
fn a_program_is_alone_with_its_children() {
    let mut supervisor = command();
    let worker = supervisor.worker.id();
    let said = said(
        &mut supervisor,
        1,
        &format!(
            "ls /proc | grep '^[0-9]'; echo me $$; cat /proc/1/environ; ls /proc/1/fd; \
             kill -0 1 && echo reached pid 1; kill -9 {worker} && echo reached the worker; \
             ls -A /proc/sys/user > /dev/null && cat /proc/sys/user/max_user_namespaces; \
             unshare --user true && echo a user namespace; mount -t tmpfs x /tmp && echo mounted"
        ),
    );
    let numbers: Vec<_> = said.lines().filter(|line| line.parse::<u32>().is_ok()).collect();
    assert!(!numbers.contains(&"1") && numbers.contains(&"0"), "{said}");
    for reached in ["reached", "a user namespace", "mounted"] {
        assert!(!said.contains(reached), "{said}");
    }
}

#[test]
fn a_program_without_network_reaches_nobody_and_with_tcp_its_ports_only() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    listener.set_nonblocking(true).expect("a flag");
    let script = format!(
        "command -v bash > /dev/null || exit 5; \
         bash -c 'echo hello > /dev/tcp/127.0.0.1/{port}' && echo sent || echo refused"
    );
    let cases = [
        (Network::None, "refused"),
        (Network::Tcp(vec![1]), "refused"),
        (Network::Tcp(vec![port]), "sent"),
        (Network::Host, "sent"),
    ];
    for (network, expected) in cases {
        let mut supervisor = Supervisor::lacking("", "command", |settings| {
            settings.network = network.clone();
        });
        let said = said(&mut supervisor, 1, &script);
        assert_eq!(said.lines().last(), Some(expected), "{network:?}: {said}");
        let heard = || {
            let mut text = String::new();
            let (mut stream, _) = listener.accept().ok()?;
            stream.set_nonblocking(false).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
            stream.read_to_string(&mut text).ok().map(|_| text)
        };
        match expected {
            "sent" => assert_eq!(heard().as_deref(), Some("hello\n"), "{network:?}"),
            _ => assert_eq!(heard(), None, "{network:?}"),
        }
    }
}

#[test]
fn a_program_talks_to_itself_over_a_loopback_of_its_own() {
    let mut supervisor = command();
    // Nobody listens: that is another answer than that there is no network.
    let script = "command -v bash > /dev/null || echo refused without bash; \
                  bash -c 'echo > /dev/tcp/127.0.0.1/9'; cut -d: -f1 /proc/net/dev";
    let said = said(&mut supervisor, 1, script).to_lowercase();
    assert!(said.contains("refused"), "{said}");
    let interfaces: Vec<_> = said.lines().skip_while(|line| !line.contains(" face")).collect();
    assert!(!interfaces.iter().any(|line| line.trim().starts_with("eth")), "{said}");
}

#[test]
fn a_type_may_be_given_devices() {
    const DEVICE: &str = "/dev/tty";
    let script = format!("[ -c {DEVICE} ] && echo there; ls /dev");
    let mut supervisor = command();
    assert!(!said(&mut supervisor, 1, &script).contains("there"));
    let mut supervisor = Supervisor::lacking("", "command", |settings| {
        settings.devices = vec![DEVICE.to_owned()];
    });
    assert!(said(&mut supervisor, 1, &script).contains("there"));
    let mut supervisor = Supervisor::lacking("", "command", |settings| {
        settings.devices = vec!["/dev/no-such-device".to_owned()];
    });
    supervisor.assign(1, r#"{"argv":["true"]}"#);
    let failure = supervisor.failed(1);
    assert_eq!((failure.cause, failure.permanent), (Cause::FailedStart, true));
    assert!(failure.message.contains("/dev/no-such-device"), "{}", failure.message);
}

#[test]
fn the_kernels_folders_are_no_folders_of_a_payload() {
    let mut supervisor = command();
    for (job, (field, path)) in
        (1..).zip([("read", "/proc"), ("write", "/sys"), ("read", "/dev/null"), ("cwd", "/proc/1")])
    {
        let value =
            if field == "cwd" { serde_json::json!(path) } else { serde_json::json!([path]) };
        supervisor.assign(job, &serde_json::json!({"argv": ["true"], field: value}).to_string());
        let failure = supervisor.failed(job);
        assert_eq!((failure.cause, failure.permanent), (Cause::Payload, true));
        assert!(failure.message.contains(field) && failure.message.contains("the kernel's"));
    }
}

#[test]
fn a_payload_may_name_its_folders_by_links() {
    let mut supervisor = command();
    let real = supervisor.path("real");
    std::fs::create_dir(&real).expect("folder");
    std::fs::write(real.join("film"), "film").expect("film");
    let link = supervisor.path("link");
    symlink(&real, &link).expect("link");
    let payload = serde_json::json!({
        "argv": ["sh", "-c", "cat $IN/film $REAL/film; pwd"],
        "read": [link], "cwd": link, "env": {"IN": link, "REAL": real},
    });
    supervisor.assign(1, &payload.to_string());
    let said = supervisor.succeeded(1)["stdout_tail"].to_string();
    assert!(said.contains("filmfilm"), "{said}");
}

#[test]
fn without_namespaces_landlock_and_seccomp_hold_alone() {
    let mut supervisor = lacking(NAMESPACES);
    let outside = tempfile::tempdir().expect("folder");
    std::fs::write(outside.path().join("secret"), "secret").expect("file");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let script = format!(
        "cat {0}/secret; cat /etc/shadow; ls /root; touch {0}/made && echo made; \
         kill -0 {1} && echo reached; cat /proc/{1}/environ; \
         bash -c 'echo hello > /dev/tcp/127.0.0.1/{2}' && echo sent; \
         touch $HOME/made && echo at home; (setsid sleep 1000 &)",
        outside.path().display(),
        supervisor.worker.id(),
        listener.local_addr().expect("bound").port()
    );
    let payload =
        serde_json::json!({"argv": ["sh", "-c", format!("({script}) 2>/dev/null; true")]});
    supervisor.assign(1, &payload.to_string());
    assert_eq!(supervisor.succeeded(1)["stdout_tail"], "at home");
    // What it left behind in a session of its own is gone all the same.
    wait_until("nothing is left", || programs(&supervisor).is_empty());
}

#[test]
fn every_part_may_be_missing_and_the_program_runs() {
    for wall in NAMESPACES.split(',').chain(["landlock", "seccomp"]) {
        let mut supervisor = lacking(wall);
        let said = said(&mut supervisor, 1, "cat /etc/shadow; echo runs");
        assert_eq!(said.lines().last(), Some("runs"), "{wall}");
        assert!(!said.contains("root:"), "{wall}: {said}");
    }
}

#[test]
fn where_all_is_required_a_missing_part_fails_the_job_with_the_remedy() {
    for (wall, remedy) in [
        ("user-ns", "user.max_user_namespaces"),
        ("mount-ns", "RestrictNamespaces"),
        ("landlock", "lsm="),
        ("seccomp", "CONFIG_SECCOMP_FILTER"),
    ] {
        let mut supervisor = Supervisor::lacking(wall, "command", |settings| {
            settings.confine = Confine::Require;
        });
        supervisor.assign(1, r#"{"argv":["true"]}"#);
        let failure = supervisor.failed(1);
        assert_eq!((failure.cause, failure.permanent), (Cause::FailedStart, true));
        let told = failure.message.contains(wall) && failure.message.contains(remedy);
        assert!(told, "{}", failure.message);
    }
}

#[test]
fn what_only_the_privileges_of_root_reach_is_refused_with_owner_and_mode() {
    let mut supervisor = command();
    let film = supervisor.path("film");
    std::fs::write(&film, "film").expect("film");
    if film.metadata().expect("ours").uid() != 0 {
        return skip("what_only_the_privileges_of_root_reach", "the user is not root");
    }
    std::os::unix::fs::chown(&film, Some(1234), Some(1234)).expect("root may");
    std::fs::set_permissions(&film, PermissionsExt::from_mode(0o600)).expect("root may");
    let payload = serde_json::json!({"argv": ["cat", film], "read": [film]});
    supervisor.assign(1, &payload.to_string());
    let failure = supervisor.failed(1);
    assert_eq!((failure.cause, failure.permanent), (Cause::FailedStart, true));
    for word in [&*text(&film), "user 1234", "mode 0600"] {
        assert!(failure.message.contains(word), "{word}: {}", failure.message);
    }
}

#[test]
fn all_this_holds_for_a_user_without_privileges_too() {
    let name = "all_this_holds_for_a_user_without_privileges_too";
    if !nix::unistd::geteuid().is_root() {
        return skip(name, "the user is not root, so the other tests have shown it");
    }
    let own = std::env::current_exe().expect("this program");
    let nobody = |program: &std::path::Path| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
        command.arg(program);
        command
    };
    let worker = std::path::Path::new(env!("CARGO_BIN_EXE_shiftboss-worker"));
    for program in [&*own, worker] {
        let reached = nobody(program).arg("--version").output().is_ok_and(|output| {
            !String::from_utf8_lossy(&output.stderr).contains("setpriv: failed")
        });
        if !reached {
            return skip(
                name,
                "another user cannot execute what was built, or there is no setpriv",
            );
        }
    }
    let output = nobody(&own)
        .args(["cage::", "--skip", "all_this_holds", "--test-threads", "2"])
        .output()
        .expect("it was started above");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(" passed") && !said.contains(" 0 passed"), "{said}");
}

/// Processes that have a folder of this test in their environment, the worker's own launchers
/// left out.
fn programs(supervisor: &Supervisor) -> Vec<String> {
    let folder = text(supervisor.folder.path());
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let environment = |path: std::path::PathBuf| std::fs::read(path.join("environ")).ok();
    entries
        .filter(|entry| {
            environment(entry.path())
                .is_some_and(|bytes| String::from_utf8_lossy(&bytes).contains(&folder))
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
