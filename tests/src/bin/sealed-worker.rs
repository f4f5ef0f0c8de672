//! A worker that starts no program, in the hands of its job: each payload names something that a
//! sealed process must not be able to do, or must. Says what came of it.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use shiftboss_worker::program::{Lines, Program, run_program};
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

    fn set_up(&self, _: &Settings) -> Result<Vec<String>, String> {
        Ok(Vec::new())
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
        "thread" => Ok(std::thread::spawn(|| "joined".to_owned()).join().expect("no panic")),
        other => Err(io::Error::other(format!("no such thing to try: {other}"))),
    }
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
