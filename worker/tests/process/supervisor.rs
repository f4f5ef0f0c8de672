//! A supervisor for tests: starts a worker process and speaks the protocol with it.

use shiftboss_protocol::PROTOCOL_VERSION;
use shiftboss_protocol::frame;
use shiftboss_protocol::job::{Attempt, Failure, JobId, Outcome, Usage};
use shiftboss_protocol::message::{
    Assignment, Hello, Ready, Receipt, ReceiptOf, Settings, StopReason, SupervisorMessage, Welcome,
    WorkerMessage,
};
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything here takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const TOKEN: [u8; 32] = *b"0123456789abcdef0123456789abcdef";

pub(crate) struct Supervisor {
    pub(crate) folder: TempDir,
    pub(crate) worker: Child,
    /// The latest one.
    pub(crate) hello: Hello,
    pub(crate) settings: Settings,
    workload: String,
    concurrency: u32,
    stream: UnixStream,
    /// Everything that came and was not waited for.
    pub(crate) seen: Vec<WorkerMessage>,
}

impl Supervisor {
    /// A worker of the crate's own binary that has said Ready.
    pub(crate) fn start(workload: &str, concurrency: u32) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_shiftboss-worker"));
        Self::start_with(binary, workload, concurrency, |_| {})
    }

    pub(crate) fn start_with(
        binary: &Path,
        workload: &str,
        concurrency: u32,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        Self::spawn(binary).settle(workload, concurrency, change)
    }

    /// A worker on a host that lacks these walls of a cage, separated by commas.
    pub(crate) fn lacking(walls: &str, workload: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_shiftboss-worker"));
        Self::spawn_lacking(binary, walls).settle(workload, 1, change)
    }

    fn settle(self, workload: &str, concurrency: u32, change: impl FnOnce(&mut Settings)) -> Self {
        let mut supervisor = self;
        let folder = supervisor.folder.path();
        supervisor.settings = Settings {
            owner: owner(1),
            scratch_dir: text(&folder.join("scratch")),
            logs_dir: text(&folder.join("logs")),
            outcomes_dir: text(&folder.join("outcomes")),
            term_grace_ms: 300,
            log_bytes_max: 1 << 20,
            // A test that was killed leaves its worker behind: not for long.
            orphan_grace_ms: 2 * PATIENCE.as_secs() * 1000,
            ..Settings::default()
        };
        std::fs::create_dir(folder.join("outcomes")).expect("folder");
        workload.clone_into(&mut supervisor.workload);
        supervisor.concurrency = concurrency;
        change(&mut supervisor.settings);
        supervisor.welcome();
        supervisor
    }

    pub(crate) fn welcome(&mut self) {
        self.say(&SupervisorMessage::Welcome(Welcome {
            protocol: PROTOCOL_VERSION,
            refused: String::new(),
            workload: self.workload.clone(),
            concurrency: self.concurrency,
            settings: serde_json::to_string(&self.settings).expect("settings are JSON"),
        }));
    }

    pub(crate) fn refuse(&mut self, sentence: &str) {
        self.say(&SupervisorMessage::Welcome(Welcome {
            protocol: 9,
            refused: sentence.into(),
            workload: String::new(),
            concurrency: 0,
            settings: String::new(),
        }));
    }

    /// A worker that has said Hello.
    pub(crate) fn spawn(binary: &Path) -> Self {
        Self::spawn_lacking(binary, "")
    }

    fn spawn_lacking(binary: &Path, walls: &str) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("token"), TOKEN).expect("token");
        let listener = UnixListener::bind(at("socket")).expect("socket");
        let errors = std::fs::File::create(at("errors")).expect("errors");
        // A shell puts token and lock at their numbers, and is then replaced.
        let worker = Command::new("sh")
            .arg("-c")
            .arg(r#"exec 3<"$1" 4>"$2"; shift 2; exec "$@""#)
            .args([Path::new("sh"), &at("token"), &at("lock"), binary])
            .args(["--type", "test", "--token-fd", "3", "--lock-fd", "4", "--socket"])
            .arg(at("socket"))
            .env("SHIFTBOSS_TEST_CAGE_LACKS", walls)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .process_group(0)
            .spawn()
            .expect("worker");
        let (stream, hello) = greet(&listener);
        Self {
            folder,
            worker,
            hello,
            settings: Settings::default(),
            workload: String::new(),
            concurrency: 0,
            stream,
            seen: Vec::new(),
        }
    }

    /// The next supervisor on the same path: takes the worker's Hello, and has heard nothing.
    /// Its predecessor left its socket file behind, on which nobody listens.
    pub(crate) fn come_back(&mut self) {
        let socket = self.path("socket");
        std::fs::remove_file(&socket).expect("the old socket");
        let listener = UnixListener::bind(&socket).expect("socket");
        let (stream, hello) = greet(&listener);
        (self.stream, self.hello) = (stream, hello);
        self.seen.clear();
    }

    /// The next supervisor, an instance of its own, which takes the worker over.
    pub(crate) fn take_over(&mut self, nth: u8) {
        self.come_back();
        self.settings.owner = owner(nth);
        self.welcome();
        self.ready();
    }

    pub(crate) fn say(&mut self, message: &SupervisorMessage) {
        frame::write(&mut self.stream, message).expect("the worker listens");
    }

    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the worker listens");
    }

    /// Ends the connection; the worker lives on as long as it wants.
    pub(crate) fn lose(&mut self) -> &mut Child {
        self.stream.shutdown(std::net::Shutdown::Both).expect("shutdown");
        &mut self.worker
    }

    /// The next message, if one comes within `wait`.
    pub(crate) fn hear_within(&mut self, wait: Duration) -> Option<WorkerMessage> {
        self.stream.set_read_timeout(Some(wait)).expect("time limit");
        let heard = match frame::read(&mut self.stream) {
            Err(frame::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            other => other.expect("a frame"),
        };
        self.stream.set_read_timeout(Some(PATIENCE)).expect("time limit");
        heard
    }

    /// The next message; `None` at the end of the connection.
    pub(crate) fn hear(&mut self) -> Option<WorkerMessage> {
        match frame::read(&mut self.stream) {
            Ok(message) => message,
            Err(frame::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                None
            }
            Err(error) => panic!("{error:?}; seen {:?}; {}", self.seen, self.errors()),
        }
    }

    /// Waits for a message that `pick` takes; keeps the others.
    pub(crate) fn wait_for<T>(&mut self, mut pick: impl FnMut(&WorkerMessage) -> Option<T>) -> T {
        if let Some(found) = self.seen.iter().find_map(&mut pick) {
            return found;
        }
        loop {
            let Some(message) = self.hear() else {
                panic!("the connection ended; seen {:?}; {}", self.seen, self.errors());
            };
            let found = pick(&message);
            self.seen.push(message);
            if let Some(found) = found {
                return found;
            }
        }
    }

    pub(crate) fn ready(&mut self) -> Ready {
        self.wait_for(|message| match message {
            WorkerMessage::Ready(ready) => Some(ready.clone()),
            _ => None,
        })
    }

    pub(crate) fn assign(&mut self, job: i64, payload: &str) {
        self.assign_limited(job, payload, 0);
    }

    pub(crate) fn assign_limited(&mut self, job: i64, payload: &str, timeout_ms: u64) {
        let jobs = vec![Assignment {
            job: JobId(job),
            attempt: Attempt(1),
            payload: payload.into(),
            checkpoint: None,
            timeout_ms,
        }];
        self.say(&SupervisorMessage::Assign { jobs });
    }

    pub(crate) fn cancel(&mut self, job: i64, reason: StopReason) {
        let (job, attempt) = (JobId(job), Attempt(1));
        self.say(&SupervisorMessage::Cancel { job, attempt, reason });
    }

    pub(crate) fn finished(&mut self, id: i64) -> (Outcome, Usage) {
        self.wait_for(|message| match message {
            WorkerMessage::Finished { job, outcome, usage, .. } if job.0 == id => {
                Some((outcome.clone(), *usage))
            }
            _ => None,
        })
    }

    /// Waits for the failure of a job.
    pub(crate) fn failed(&mut self, id: i64) -> Failure {
        match self.finished(id).0 {
            Outcome::Failed(failure) => failure,
            other => panic!("not failed: {other:?}"),
        }
    }

    /// Waits for the success of a job.
    pub(crate) fn succeeded(&mut self, id: i64) -> serde_json::Value {
        match self.finished(id).0 {
            Outcome::Succeeded { result } => serde_json::from_str(&result).expect("JSON"),
            other => panic!("not succeeded: {other:?}"),
        }
    }

    pub(crate) fn started(&mut self, id: i64) -> u32 {
        self.wait_for(|message| match message {
            WorkerMessage::Started { job, launcher_pid, .. } if job.0 == id => Some(*launcher_pid),
            _ => None,
        })
    }

    /// Waits for a progress note.
    pub(crate) fn noted(&mut self, wanted: &str) {
        self.wait_for(|message| match message {
            WorkerMessage::Progress { note, .. } if note == wanted => Some(()),
            _ => None,
        });
    }

    pub(crate) fn record(&mut self, job: i64, of: ReceiptOf, stale: bool) {
        let receipts = vec![Receipt { job: JobId(job), attempt: Attempt(1), of, stale }];
        self.say(&SupervisorMessage::Recorded { receipts });
    }

    /// Hears the worker out and waits for its exit.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        while let Some(message) = self.hear() {
            self.seen.push(message);
        }
        self.worker.wait().expect("worker")
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.worker.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
        assert!(status.success());
    }

    pub(crate) fn errors(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("errors")).unwrap_or_default()
    }

    /// A `command` payload that runs a shell script which may write into this test's folder.
    pub(crate) fn script(&self, script: &str) -> String {
        serde_json::json!({
            "argv": ["sh", "-c", script],
            "write": [text(self.folder.path())],
            "progress": {"json_lines": true},
        })
        .to_string()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The id of the nth supervisor of this test. No two tests share one: processes are found and
/// killed by it.
pub(crate) fn owner(nth: u8) -> String {
    format!("main-{:08x}-{nth}", std::process::id())
}

/// The name of the file of an outcome that was reached under the nth supervisor.
pub(crate) fn outcome(nth: u8, job: i64) -> String {
    format!("{}.{job}.1.outcome", owner(nth))
}

/// A connection on which Hello was said.
fn greet(listener: &UnixListener) -> (UnixStream, Hello) {
    let (stream, _) = listener.accept().expect("connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("time limit");
    let first = frame::read(&mut &stream).expect("frame").expect("message");
    let WorkerMessage::Hello(hello) = first else { panic!("not Hello: {first:?}") };
    (stream, hello)
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.worker.kill();
        let _ = self.worker.wait();
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// Tells that a test cannot run here, and why; the runner counts these.
pub(crate) fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED: {test}: {reason}\n");
    if let Some(file) = std::env::var_os("SHIFTBOSS_TEST_SKIPS")
        && let Ok(mut file) = std::fs::File::options().append(true).create(true).open(file)
    {
        let _ = file.write_all(line.as_bytes());
    }
    let _ = std::io::stderr().write_all(line.as_bytes());
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// True while the process exists and is no zombie.
pub(crate) fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit(')').next().expect("a field").starts_with(" Z"))
}

/// The process whose pid a script wrote into a file, as this test's pid namespace numbers it;
/// `0` when there is none any longer.
pub(crate) fn pid_in(path: &Path) -> String {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    wait_until("a pid is written", || read().ends_with('\n'));
    let (inside, folder) = (read(), path.parent().expect("a file in a folder"));
    // In the middle of an exec a process shows no environment.
    for _ in 0..10 {
        if let Some(found) = find(inside.trim(), &text(folder)) {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    "0".to_owned()
}

/// The process that has this number within its own pid namespace and whose environment names
/// the folder, as that of every program of this test does.
fn find(inside: &str, folder: &str) -> Option<String> {
    std::fs::read_dir("/proc").expect("/proc").flatten().find_map(|entry| {
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        let is_it = numbers.split_whitespace().next_back() == Some(inside)
            && String::from_utf8_lossy(&environment).contains(folder);
        is_it.then(|| entry.file_name().to_string_lossy().into_owned())
    })
}
