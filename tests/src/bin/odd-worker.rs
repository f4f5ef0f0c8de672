//! Workers that misbehave, one way per job type: `exits`, `silent`, `version`, `garbage`,
//! `huge`, `liar`, `hangs`, `twice`, `deaf`, `caller`; and when they lose their supervisor `forger`, `claimer`,
//! `sharer` and `newer`.

use interprocess::local_socket::traits::Stream as _;
use interprocess::local_socket::{GenericFilePath, Stream, ToFsName};
use nix::sys::signal::{SigSet, Signal};
use shiftboss_protocol::PROTOCOL_VERSION;
use shiftboss_protocol::control::{Greeting, Request, Response};
use shiftboss_protocol::frame;
use shiftboss_protocol::job::{Attempt, JobId, Outcome, Usage};
use shiftboss_protocol::message::{Assignment, Hello, Ready, SupervisorMessage, WorkerMessage};
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

struct Odd {
    kind: String,
    socket: String,
    token: [u8; 32],
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name).expect("a supervisor started this");
        args[at + 1].clone()
    };
    let kind = value("--type");
    if kind == "asks" {
        let answer = format!("{:?}", ask(&value("--socket")));
        let _ = std::io::stdout().write_all(answer.as_bytes());
        return ExitCode::SUCCESS;
    }
    if kind == "exits" {
        let _ = std::io::stderr().write_all(b"no model found in /models\n");
        return ExitCode::from(7);
    }
    if kind == "hangs" {
        // Reads what nobody writes, for ever: its connection is never made.
        let _ = std::io::stderr().write_all(b"loading a very large model\n");
        let _ = std::os::unix::net::UnixListener::bind(format!(
            "{}.{}",
            value("--socket"),
            std::process::id()
        ))
        .and_then(|listener| listener.accept());
    }
    let mut token = [0; 32];
    let mut pipe = std::fs::File::open("/proc/self/fd/3").expect("the token's pipe");
    pipe.read_exact(&mut token).expect("the token");
    let odd = Odd { kind, socket: value("--socket"), token };
    let stream = odd.connect().expect("the supervisor listens");
    if odd.kind != "silent" {
        odd.misbehave(&stream);
    }
    // Until the supervisor has had enough.
    let _ = (&stream).read_to_end(&mut Vec::new());
    if matches!(odd.kind.as_str(), "forger" | "claimer" | "sharer" | "newer") {
        odd.come_back();
    }
    ExitCode::SUCCESS
}

/// Asks what only a client may ask, as a process that this one has started, whose parent is gone:
/// what it is answered comes back on its standard output.
fn call(control: &str) -> String {
    let own = std::env::current_exe().expect("this program");
    let script = format!("{} --type asks --socket {control} & wait", own.display());
    let output = std::process::Command::new("sh").args(["-c", &script]).output();
    let output = output.expect("sh runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn ask(control: &str) -> std::io::Result<Response> {
    let stream = Stream::connect(control.to_fs_name::<GenericFilePath>()?)?;
    let program = "odd-worker".to_owned();
    let greeting = Greeting { protocol: PROTOCOL_VERSION, program };
    frame::write(&mut &stream, &greeting).map_err(std::io::Error::other)?;
    let _: Option<Greeting> = frame::read(&mut &stream).map_err(std::io::Error::other)?;
    frame::write(&mut &stream, &Request::Drain).map_err(std::io::Error::other)?;
    let answer = frame::read(&mut &stream).map_err(std::io::Error::other)?;
    answer.ok_or_else(|| std::io::Error::other("no answer"))
}

fn say(stream: &Stream, message: &WorkerMessage) {
    let mut stream = stream;
    let _ = frame::write(&mut stream, message);
}

fn hear(stream: &Stream) -> Option<SupervisorMessage> {
    let mut stream = stream;
    frame::read(&mut stream).ok().flatten()
}

fn finish(stream: &Stream, job: JobId, attempt: Attempt) {
    let outcome = Outcome::Succeeded { result: "\"a lie\"".to_owned() };
    let usage = Usage::default();
    say(stream, &WorkerMessage::Finished { job, attempt, outcome, usage });
}

impl Odd {
    fn connect(&self) -> std::io::Result<Stream> {
        Stream::connect(self.socket.as_str().to_fs_name::<GenericFilePath>()?)
    }

    fn hello(&self, protocol: u32, token: [u8; 32], held: Vec<(JobId, Attempt)>) -> WorkerMessage {
        let (job_type, program) = (self.kind.clone(), "odd-worker 0.1".to_owned());
        WorkerMessage::Hello(Hello { protocol, job_type, token, held, program })
    }

    fn misbehave(&self, stream: &Stream) {
        let protocol = if self.kind == "version" { 99 } else { 1 };
        say(stream, &self.hello(protocol, self.token, Vec::new()));
        if hear(stream).is_none() || self.kind == "version" {
            return;
        }
        let mut ready = Ready::default();
        if self.kind == "caller" {
            let control = self.socket.replace("w/worker.sock", "control.sock");
            ready.abilities = vec![format!("itself {:?}", ask(&control)), call(&control)];
        }
        say(stream, &WorkerMessage::Ready(ready));
        let Some(SupervisorMessage::Assign { jobs }) = hear(stream) else { return };
        let mut raw = stream;
        match self.kind.as_str() {
            "garbage" => drop(raw.write_all(&[4, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF])),
            "huge" => drop(raw.write_all(&u32::MAX.to_le_bytes())),
            "liar" => {
                for job in 1..50 {
                    finish(stream, JobId(job), Attempt(1));
                }
            }
            "deaf" => self.live_on(stream),
            "twice" => self.say_too_much(stream, &jobs[0]),
            _ => {}
        }
    }

    /// Says that it lives, and hears nothing: neither messages nor SIGTERM.
    fn live_on(&self, stream: &Stream) {
        let mut deaf = SigSet::empty();
        deaf.add(Signal::SIGTERM);
        let _ = deaf.thread_block();
        let mut stream = stream;
        while frame::write(&mut stream, &WorkerMessage::Heartbeat).is_ok() {
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    /// Outcomes twice, and everything else about an attempt that has ended.
    fn say_too_much(&self, stream: &Stream, one: &Assignment) {
        let (job, attempt) = (one.job, one.attempt);
        finish(stream, job, attempt);
        finish(stream, job, attempt);
        let note = "still here".to_owned();
        say(stream, &WorkerMessage::Progress { job, attempt, fraction: Some(0.1), note });
        say(stream, &WorkerMessage::Checkpoint { job, attempt, data: vec![1, 2, 3] });
        say(stream, &WorkerMessage::Started { job, attempt, launcher_pid: 1 });
        finish(stream, job, Attempt(attempt.0 + 1));
    }

    /// The supervisor has gone: goes to the next one, and is not what it says.
    fn come_back(&self) {
        if self.kind == "sharer" {
            // For the test, which is another process.
            let _ = std::fs::write(format!("{}.token", self.socket), self.token);
        }
        // Until it is killed: a supervisor that dies may still take a connection.
        loop {
            if let Ok(stream) = self.connect() {
                self.pretend(&stream);
                let _ = (&stream).read_to_end(&mut Vec::new());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn pretend(&self, stream: &Stream) {
        match self.kind.as_str() {
            "forger" => say(stream, &self.hello(1, [7; 32], Vec::new())),
            "newer" => say(stream, &self.hello(99, self.token, vec![(JobId(1), Attempt(1))])),
            "claimer" => {
                // Job 1 is another worker's.
                say(stream, &self.hello(1, self.token, vec![(JobId(1), Attempt(1))]));
                if hear(stream).is_some() {
                    say(stream, &WorkerMessage::Ready(Ready::default()));
                    finish(stream, JobId(1), Attempt(1));
                }
            }
            _ => {}
        }
    }
}
