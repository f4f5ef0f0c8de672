//! A worker that starts no program is sealed: a job that has taken it over reaches its own
//! folders, the roots of its type and its network, and nothing else.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use shiftboss_tests::provider::tokens::minter::Minter;
use shiftboss_tests::{Stage, built, skip, wait_until};
use std::net::{TcpListener, UdpSocket};
use std::time::Instant;

fn configuration(more: &str) -> String {
    let worker = built("sealed-worker");
    format!(
        "[types.sealed]\nworker = {worker:?}\nmax_attempts = 1\npoison_after = 2\n\
         concurrency = 4\nrestart = {{ base = \"1ms\" }}\n{more}"
    )
}

/// What a job of the sealed worker says of its try.
fn tries(stage: &Stage, what: &str, of: &str) -> Value {
    let id = stage.insert("sealed", &json!([what, of]).to_string());
    let job = stage.wait_for_state(id, "succeeded");
    serde_json::from_str(&job.result.expect("it has a result")).expect("JSON")
}

fn got(answer: &Value) -> Option<&str> {
    answer["got"].as_str()
}

fn confinement(stage: &Stage, id: i64) -> String {
    let story = stage.json(&["job", &id.to_string(), "--json"]);
    story["attempts"][0]["confinement"].as_str().expect("it is recorded").to_owned()
}

/// What is recorded of a job; `None` (and a skip) where this host has no namespaces.
fn in_force(test: &str, stage: &Stage) -> Option<String> {
    let id = stage.insert("sealed", "[\"thread\", \"\"]");
    stage.wait_for_state(id, "succeeded");
    let text = confinement(stage, id);
    if !text.contains("mount-ns") {
        skip(test, &format!("this host gives no mount namespace: {text}"));
        return None;
    }
    Some(text)
}

#[test]
fn a_sealed_worker_sees_its_folders_and_roots_and_nothing_else() {
    let mut stage = Stage::dark(&configuration(""));
    for name in ["in", "out", "other"] {
        std::fs::create_dir(stage.path(name)).expect("made");
        std::fs::write(stage.path(name).join("file"), name).expect("written");
    }
    let path = |name: &str| stage.path(name).display().to_string();
    let (input, output) = (path("in"), path("out"));
    let (secret, written) = (path("other/file"), path("out/new"));
    let roots = format!("roots = {{ read = [{input:?}], write = [{output:?}] }}");
    stage.reconfigure("max_attempts = 1", &format!("max_attempts = 1\n{roots}"));
    let (database, file) = (path("jobs.db"), path("shiftboss.toml"));
    let (run, control, meeting) =
        (path("run/main"), path("run/main/control.sock"), path("run/main/w"));
    let of_another = ["outcomes", "scratch", "logs"];
    let of_another = of_another.map(|folder| path(&format!("jobs.db.work/{folder}/command")));
    stage.start();
    let name = "a_sealed_worker_sees_its_folders_and_roots_and_nothing_else";
    let Some(text) = in_force(name, &stage) else { return };
    for word in ["user-ns", "ipc-ns", "uts-ns", "net-ns", "landlock-", "seccomp", "no-new-privs"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(!text.contains("missing"), "{text}");
    let told = stage.run(&["job", "1"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains(&text), "{told:?}");

    assert_eq!(got(&tries(&stage, "own folders", "")), Some("written"));
    assert_eq!(got(&tries(&stage, "thread", "")), Some("joined"));
    assert_eq!(got(&tries(&stage, "read", &format!("{input}/file"))), Some("in"));
    assert_eq!(got(&tries(&stage, "write", &written)), Some("written"));
    assert_eq!(std::fs::read_to_string(&written).expect("it is there"), "written");
    assert!(got(&tries(&stage, "read", "/etc/passwd")).is_some());
    assert!(got(&tries(&stage, "list", &meeting)).is_some_and(|it| it == "[\"worker.sock\"]"));

    // Of the folder above it only the way: neither the control socket nor locks nor records.
    assert!(got(&tries(&stage, "list", &run)).is_some_and(|it| it == "[\"w\"]"));

    let (input_file, link) = (format!("{input}/file"), format!("{meeting}/x"));
    let socket = format!("{meeting}/worker.sock");
    // What a worker of another type would believe, or its jobs read.
    for folder in &of_another {
        std::fs::create_dir_all(folder).expect("the folder is ours");
        for (what, of) in [("list", folder.clone()), ("write", format!("{folder}/forged"))] {
            let answer = tries(&stage, what, &of);
            assert!(answer["error"].is_string(), "{what} {of}: {answer}");
        }
    }
    for (what, of) in [
        ("read", "/etc/shadow"),
        ("read", &*secret),
        ("read", &*database),
        ("read", &*file),
        ("read", "/proc/self/status"),
        ("read", "/proc/1/environ"),
        ("list", "/proc/1"),
        ("list", "/root"),
        ("connect", &*control),
        ("write", &*input_file),
        ("write", &*socket),
        ("write", "/usr/x"),
        ("write", "/x"),
        ("remove", &*socket),
        ("link", &*link),
        ("signal", "1"),
        ("signal the supervisor", ""),
    ] {
        let answer = tries(&stage, what, of);
        assert!(answer["error"].is_string(), "{what} {of}: {answer}");
    }
    assert_eq!(std::fs::read_to_string(input_file).expect("it is there"), "in");
}

#[test]
fn a_sealed_worker_reaches_the_network_of_its_type_alone() {
    let name = "a_sealed_worker_reaches_the_network_of_its_type_alone";
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a port");
    for quiet in [&listener, &other] {
        quiet.set_nonblocking(true).expect("set");
    }
    datagrams.set_nonblocking(true).expect("set");
    let port = |address: std::io::Result<std::net::SocketAddr>| {
        address.expect("it has one").port().to_string()
    };
    let (tcp, other_tcp) = (port(listener.local_addr()), port(other.local_addr()));
    let udp = port(datagrams.local_addr());

    let stage = Stage::new(&configuration("network = \"none\""));
    if in_force(name, &stage).is_none() {
        return;
    }
    for (what, of) in [("tcp", &tcp), ("udp", &udp)] {
        let answer = tries(&stage, what, of);
        assert!(what == "udp" || answer["error"].is_string(), "{what}: {answer}");
    }
    assert!(listener.accept().is_err(), "nothing came");
    assert!(datagrams.recv_from(&mut [0; 8]).is_err(), "nothing came");
    drop(stage);

    let stage = Stage::new(&configuration(&format!("network = {{ tcp = [{tcp}] }}")));
    assert_eq!(got(&tries(&stage, "tcp", &tcp)), Some("connected"));
    assert!(listener.accept().is_ok(), "it came");
    for (what, of) in [("tcp", &other_tcp), ("udp", &udp)] {
        let answer = tries(&stage, what, of);
        assert!(answer["error"].is_string(), "{what}: {answer}");
    }
    assert!(other.accept().is_err() && datagrams.recv_from(&mut [0; 8]).is_err(), "nothing came");
    drop(stage);

    let stage = Stage::new(&configuration("network = \"host\""));
    assert_eq!(got(&tries(&stage, "tcp", &other_tcp)), Some("connected"));
    assert_eq!(got(&tries(&stage, "udp", &udp)), Some("sent"));
    assert!(datagrams.recv_from(&mut [0; 8]).is_ok(), "it came");
}

#[test]
fn a_sealed_worker_that_executes_anything_is_ended_by_the_kernel_and_that_is_told() {
    let stage = Stage::new(&configuration(""));
    let id = stage.insert("sealed", "[\"execute\", \"/bin/true\"]");
    let job = stage.wait_for_state(id, "failed");
    assert!(job.last_error.contains("forbidden system call"), "{}", job.last_error);
    assert_eq!(stage.attempts(id)[0].cause.as_deref(), Some("forbidden_syscall"));
    // The library itself says it before the kernel does.
    let id = stage.insert("sealed", "[\"program\", \"/bin/true\"]");
    let job = stage.wait_for_state(id, "failed");
    assert!(job.last_error.contains("Workload::starts_programs"), "{}", job.last_error);
    assert_eq!(stage.attempts(id)[0].cause.as_deref(), Some("failed_start"));
}

#[test]
fn a_sealed_worker_with_commands_beside_it_can_have_them_run_seldom_and_nothing_else() {
    let minter = Minter::new("plain", 3_600_000);
    let mut stage = Stage::dark(&configuration(""));
    let generic = shiftboss_provider::shipped::ALL.iter().find(|(name, _)| *name == "generic");
    let text = minter.describe(generic.expect("it is shipped").1, "");
    std::fs::create_dir(stage.path("providers")).expect("the folder is ours");
    std::fs::write(stage.path("providers/generic.toml"), text).expect("the folder is ours");
    stage.start();
    // A frame is its length and its content: here the number of a command.
    let first = ["0400000000000000"; 60].join(" ");
    let started = Instant::now();
    let answer = tries(&stage, "commands", &first);
    let most = 20 + started.elapsed().as_secs();
    let printed = got(&answer).and_then(|text| text.strip_suffix(" printed"));
    let printed: u64 = printed.and_then(|text| text.parse().ok()).expect("it goes on");
    assert!((20..=most).contains(&printed), "{printed} of 60");
    assert_eq!(minter.runs() as u64, printed);
    // Any word that is no number of a command ends it, and the worker cannot have another one.
    let words = ["0400000001000000", "04000000ffffffff", "ffffffff", "0900000000000000ff00000000"];
    for word in words {
        assert_eq!(got(&tries(&stage, "commands", word)), Some("0 printed, and it is gone"));
        let workers = stage.json(&["workers", "--json"]);
        let pid = workers[0]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        let worker = Pid::from_raw(pid.expect("it goes on"));
        kill(worker, Signal::SIGKILL).expect("it is ours");
        wait_until("another worker is there or none", || {
            stage.json(&["workers", "--json"])[0]["pid"].as_i64() != pid.map(i64::from)
        });
    }
    assert_eq!(minter.runs() as u64, printed);
    let id = stage.insert("sealed", &json!(["execute", minter.path("token")]).to_string());
    let job = stage.wait_for_state(id, "failed");
    assert!(job.last_error.contains("forbidden system call"), "{}", job.last_error);
    assert_eq!(minter.runs() as u64, printed);
    assert!(tries(&stage, "read", "/proc/self/status")["error"].is_string());
}

#[test]
fn what_is_missing_is_recorded_and_the_other_walls_still_hold() {
    let mut stage = Stage::dark(&configuration(""));
    std::fs::write(stage.path("secret"), "x").expect("written");
    stage.start_with(&[("SHIFTBOSS_TEST_LACK", "user-ns,mount-ns,net-ns")]);
    let id = stage.insert("sealed", "[\"thread\", \"\"]");
    stage.wait_for_state(id, "succeeded");
    let text = confinement(&stage, id);
    for word in ["user-ns", "mount-ns", "net-ns"] {
        assert!(text.contains(&format!("missing: {word} (a test wants that)")), "{text}");
    }
    if !text.contains("landlock-") {
        return skip(
            "what_is_missing_is_recorded_and_the_other_walls_still_hold",
            &format!("this host has no Landlock: {text}"),
        );
    }
    assert_eq!(got(&tries(&stage, "own folders", "")), Some("written"));
    let secret = stage.path("secret").display().to_string();
    for of in ["/etc/shadow", &secret] {
        let answer = tries(&stage, "read", of);
        assert!(answer["error"].is_string(), "{of}: {answer}");
    }
}

#[test]
fn a_sealed_worker_outlives_its_supervisor_and_joins_the_next_one() {
    let mut stage = Stage::new(&configuration(""));
    let id = stage.insert("sealed", "[\"wait\", \"1500\"]");
    // The worker's own sign: a claim that has not reached it goes back to the table.
    let sign = stage.path("jobs.db.work/logs/sealed/sealed-waits");
    wait_until("the worker holds it", || sign.exists());
    let before = stage.attempts(id);
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
    stage.start();
    let job = stage.wait_for_state(id, "succeeded");
    assert_eq!((job.attempt, job.crash_count), (1, 0));
    assert_eq!(stage.attempts(id)[0].pid, before[0].pid);
}
