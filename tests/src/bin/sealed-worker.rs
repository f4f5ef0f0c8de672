//! A worker that starts no program, in the hands of its job: each payload names something that a
//! sealed process must not be able to do, or must. Says what came of it.

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, UnixAddr, getpeername, recv, send};
use nix::unistd::Pid;
use serde_json::{Value, json};
use shiftboss_worker::program::{Lines, Program, run_program};
use shiftboss_worker::workloads::built_in;
use shiftboss_worker::{AttemptContext, Failure, Job, Settings, Workload, parse_payload, run};
use std::fs;
use std::io::{self, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

struct Sealed;

struct Silent;

impl Lines for Silent {
    fn on_stdout(&mut self, _: &[u8]) {}
    fn on_stderr(&mut self, _: &[u8]) {}
}

impl Workload for Sealed {
    fn name(&self) -> &'static str {
        "sealed"
    }

    /// Where there are descriptions of providers it has what an honest worker has beside it.
    fn set_up(&self, settings: &Settings) -> Result<Vec<String>, String> {
        if settings.providers_dir.is_empty() {
            return Ok(Vec::new());
        }
        let remote = built_in().iter().find(|workload| workload.name() == "remote");
        remote.expect("it is built in").set_up(settings)
    }

    fn run(&self, job: &Job, context: &AttemptContext) -> Result<Value, Failure> {
        let (what, of): (String, String) = parse_payload(job)?;
        if what == "program" {
            let program = Program { argv: vec![of.into()], ..Program::default() };
            return run_program(context, &program, &mut Silent).map(|_| Value::Null);
        }
        let settings = context.settings();
        let done = match what.as_str() {
            "own folders" => own_folders(settings),
            "wait" => {
                let _ = fs::write(Path::new(&settings.logs_dir).join("sealed-waits"), "");
                let _ = context.wait_for_stop(Duration::from_millis(of.parse().unwrap_or(0)));
                Ok("waited".to_owned())
            }
            _ => attempt(&what, &of),
        };
        Ok(match done {
            Ok(text) => json!({ "got": text }),
            Err(error) => json!({ "error": error.to_string(), "errno": error.raw_os_error() }),
        })
    }
}

fn attempt(what: &str, of: &str) -> io::Result<String> {
    let of_number = || of.parse().map_err(io::Error::other);
    match what {
        "read" => fs::read_to_string(of),
        "list" => {
            let names = fs::read_dir(of)?.map(|entry| Ok(entry?.file_name()));
            let names = names.collect::<io::Result<Vec<_>>>()?;
            Ok(format!("{names:?}"))
        }
        "write" => fs::write(of, "written").map(|()| "written".to_owned()),
        "remove" => fs::remove_file(of).map(|()| "removed".to_owned()),
        "link" => std::os::unix::fs::symlink("/etc/shadow", of).map(|()| "linked".to_owned()),
        "connect" => UnixStream::connect(of).map(|_| "connected".to_owned()),
        "tcp" => TcpStream::connect(("127.0.0.1", of_number()?)).map(|_| "connected".to_owned()),
        "udp" => {
            let socket = UdpSocket::bind(("0.0.0.0", 0))?;
            socket.send_to(b"out", ("127.0.0.1", of_number()?)).map(|_| "sent".to_owned())
        }
        "signal" => {
            let pid = Pid::from_raw(i32::from(of_number()?));
            Ok(kill(pid, Signal::SIGCONT).map(|()| "signalled".to_owned())?)
        }
        "signal the supervisor" => {
            let pid = std::os::unix::process::parent_id();
            let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
            Ok(kill(pid, Signal::SIGCONT).map(|()| "signalled".to_owned())?)
        }
        "execute" => std::process::Command::new(of).spawn().map(|_| "executed".to_owned()),
        "commands" => commands(of),
        "thread" => Ok(std::thread::spawn(|| "joined".to_owned()).join().expect("no panic")),
        other => Err(io::Error::other(format!("no such thing to try: {other}"))),
    }
}

/// What can be had of the process that runs commands: `of` has the bytes to say, in hexadecimal,
/// word by word. Tells how often a command has printed something, and whether it is still there.
fn commands(of: &str) -> io::Result<String> {
    // Of all sockets that are connected to one without a name the first: it was made at set-up.
    let is_its = |fd: &i32| getpeername::<UnixAddr>(*fd).is_ok_and(|it| it.path().is_none());
    let Some(fd) = (3..100).find(is_its) else { return Err(io::Error::other("there is none")) };
    let mut printed = 0;
    for word in of.split(' ') {
        let digits = word.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> = digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        if send(fd, &bytes.unwrap_or_default(), MsgFlags::MSG_NOSIGNAL).is_err() {
            return Ok(format!("{printed} printed, and it is gone"));
        }
        let mut answer = [0; 4096];
        let length = loop {
            match recv(fd, &mut answer, MsgFlags::empty()) {
                Err(nix::Error::EAGAIN) => std::thread::sleep(Duration::from_millis(1)),
                other => break other?,
            }
        };
        if length == 0 {
            return Ok(format!("{printed} printed, and it is gone"));
        }
        // Behind the length of the frame the number of the variant: 0 is what was printed.
        printed += usize::from(answer[4..8] == [0; 4]);
    }
    Ok(format!("{printed} printed"))
}

fn own_folders(settings: &Settings) -> io::Result<String> {
    for folder in [&settings.scratch_dir, &settings.logs_dir, &settings.outcomes_dir] {
        let path = Path::new(folder).join("sealed-was-here");
        let mut file = fs::File::create(&path)?;
        file.write_all(b"x")?;
        file.sync_all()?;
        fs::remove_file(path)?;
    }
    Ok("written".to_owned())
}

fn main() -> std::process::ExitCode {
    run(&[&Sealed])
}
