//! The command line of a worker process, and what it prints before it has a supervisor.

use shiftboss_protocol::PROTOCOL_VERSION;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// The hidden first argument of launcher mode.
pub(crate) const LAUNCH: &str = "--launch";

/// The hidden first argument of broker mode.
pub(crate) const BROKER: &str = "--broker";

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Start {
    /// Be the launcher of one program.
    Launch,
    /// Be the broker of a sealed worker.
    Broker,
    /// Print this.
    Version(String),
    /// Serve a supervisor.
    Serve(Arguments),
    /// None of these: say this sentence.
    Refused(String),
}

/// How a supervisor starts a worker.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) socket: PathBuf,
    pub(super) job_type: String,
    pub(super) token_fd: RawFd,
    pub(super) lock_fd: RawFd,
}

pub(super) fn read_arguments(arguments: impl Iterator<Item = OsString>) -> Start {
    let mut arguments = arguments.peekable();
    match arguments.peek().and_then(|first| first.to_str()) {
        Some(LAUNCH) => return Start::Launch,
        Some(BROKER) => return Start::Broker,
        Some("--version" | "-V") => {
            return Start::Version(format!("{} (protocol {PROTOCOL_VERSION})", version()));
        }
        Some(_) | None => {}
    }
    read_serve(arguments).map_or_else(
        |problem| {
            Start::Refused(format!(
                "this is a Shiftboss worker, which its supervisor starts (shiftboss run); \
                 {problem}"
            ))
        },
        Start::Serve,
    )
}

fn read_serve(mut arguments: impl Iterator<Item = OsString>) -> Result<Arguments, String> {
    let (mut socket, mut job_type, mut token_fd, mut lock_fd) = (None, None, None, None);
    while let Some(name) = arguments.next() {
        let name = name.to_string_lossy().into_owned();
        let value = arguments.next().ok_or_else(|| format!("argument {name} has no value"))?;
        match name.as_str() {
            "--socket" => socket = Some(PathBuf::from(value)),
            "--type" => {
                job_type = Some(value.into_string().map_err(|_| "--type is not UTF-8")?);
            }
            "--token-fd" => token_fd = Some(read_descriptor(&name, &value)?),
            "--lock-fd" => lock_fd = Some(read_descriptor(&name, &value)?),
            _ => return Err(format!("argument {name:?} is unknown")),
        }
    }
    match (socket, job_type, token_fd, lock_fd) {
        (Some(socket), Some(job_type), Some(token_fd), Some(lock_fd)) => {
            Ok(Arguments { socket, job_type, token_fd, lock_fd })
        }
        _ => Err("--socket, --type, --token-fd and --lock-fd are needed".to_owned()),
    }
}

fn read_descriptor(name: &str, value: &OsString) -> Result<RawFd, String> {
    let number = value.to_str().and_then(|text| text.parse::<RawFd>().ok());
    number.filter(|number| *number >= 3).ok_or_else(|| {
        format!("{name} = {}: must be a descriptor from 3 on", value.to_string_lossy())
    })
}

/// Name and version of this program, for people.
pub(super) fn version() -> String {
    format!("shiftboss-worker {}", env!("CARGO_PKG_VERSION"))
}

#[expect(clippy::print_stdout, reason = "--version is asked for by a person")]
pub(super) fn print(text: &str) {
    println!("{text}");
}

/// Standard error may be a full disk: then the line is lost, and the worker goes on.
pub(crate) fn print_error(sentence: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "shiftboss-worker: {sentence}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Start {
        read_arguments(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn a_supervisors_command_line_is_understood() {
        let start = read("--socket /run/s --type encode --token-fd 3 --lock-fd 4");
        let Start::Serve(arguments) = start else { panic!("not {start:?}") };
        let job_type = "encode".to_owned();
        let socket = PathBuf::from("/run/s");
        assert_eq!(arguments, Arguments { socket, job_type, token_fd: 3, lock_fd: 4 });
    }

    #[test]
    fn a_command_line_typed_by_hand_is_refused_in_a_sentence() {
        for line in ["", "--socket", "--help me", "--socket /s --type x --token-fd 0 --lock-fd 4"] {
            let start = read(line);
            let Start::Refused(sentence) = start else { panic!("not {start:?}") };
            assert!(sentence.contains("shiftboss run"), "{sentence}");
        }
    }

    #[test]
    fn launcher_mode_comes_before_everything_else() {
        assert!(matches!(read("--launch"), Start::Launch));
        assert!(matches!(read("--broker"), Start::Broker));
        assert!(matches!(read("--version"), Start::Version(text) if text.contains("protocol 1")));
    }
}
