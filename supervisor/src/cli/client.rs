//! The client side of the control socket. Commands that wait outlast their supervisor: after a
//! restart or an upgrade they go on with the next one.

use super::Error;
use crate::config::Config;
use interprocess::local_socket::traits::Stream as _;
use interprocess::local_socket::{GenericFilePath, Stream, ToFsName};
use serde_json::Value;
use shiftboss_protocol::PROTOCOL_VERSION;
use shiftboss_protocol::control::{Greeting, Request, Response};
use shiftboss_protocol::frame;
use shiftboss_protocol::job::JobId;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A supervisor answers within milliseconds; a database in trouble may take it some seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A supervisor stands within a second; one whose database is locked may need longer.
pub(super) const SUCCESSOR_WITHIN: Duration = Duration::from_secs(30);

/// Pause between two looks for the new supervisor.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a person is told meanwhile.
pub(super) const WAITING_FOR_SUCCESSOR: &str =
    "no supervisor answers; this command waits for one, up to 30 s";

/// A connection to a supervisor.
pub(super) struct Client {
    stream: Stream,
}

/// Where the supervisor of this configuration listens.
fn socket(config: &Config) -> PathBuf {
    config.instance_dir().join("control.sock")
}

impl Client {
    /// Connects to the supervisor of this configuration.
    ///
    /// # Errors
    /// [`Error::NoSupervisor`] when none listens.
    pub(super) fn connect(config: &Config) -> Result<Self, Error> {
        let path = socket(config);
        let shown = path.display().to_string();
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Error::NoSupervisor(shown.clone())
            }
            io::ErrorKind::PermissionDenied => Error::Failed(format!(
                "cannot connect to {shown}: it belongs to another user; run this command as the \
                 supervisor's user or as root"
            )),
            _ => Error::Failed(format!("cannot connect to {shown}: {error}")),
        };
        let name = path.as_path().to_fs_name::<GenericFilePath>().map_err(failed)?;
        let stream = Stream::connect(name).map_err(failed)?;
        stream.set_recv_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_send_timeout(Some(PATIENCE)).map_err(failed)?;
        let mut client = Self { stream };
        client.greet()?;
        Ok(client)
    }

    fn greet(&mut self) -> Result<(), Error> {
        let program = format!("shiftboss {}", env!("CARGO_PKG_VERSION"));
        self.send(&Greeting { protocol: PROTOCOL_VERSION, program })?;
        let theirs: Greeting = self.receive()?;
        if theirs.protocol != PROTOCOL_VERSION {
            return Err(Error::Failed(format!(
                "the supervisor ({}) speaks protocol version {}, this program {PROTOCOL_VERSION}: \
                 restart the supervisor, or use its own program",
                theirs.program, theirs.protocol
            )));
        }
        Ok(())
    }

    fn send<M: serde::Serialize>(&mut self, message: &M) -> Result<(), Error> {
        frame::write(&mut &self.stream, message).map_err(|error| match error {
            frame::Error::MessageTooLarge(bytes) => Error::Failed(format!(
                "{bytes} bytes do not fit one request (at most {}): submit fewer jobs at once",
                frame::FRAME_BYTES_MAX
            )),
            frame::Error::Io(_) => Error::SupervisorLeft("before it could be asked"),
            other => Error::Failed(super::chain(&other)),
        })
    }

    fn receive<M: serde::de::DeserializeOwned>(&mut self) -> Result<M, Error> {
        match frame::read(&mut &self.stream) {
            Ok(Some(message)) => Ok(message),
            Ok(None) | Err(frame::Error::Cut) => Err(Error::SupervisorLeft("before it answered")),
            Err(frame::Error::Io(error)) if is_timeout(&error) => Err(Error::Failed(format!(
                "the supervisor did not answer within {} s; its log says why",
                PATIENCE.as_secs()
            ))),
            // It went before it had read what was said.
            Err(frame::Error::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                Err(Error::SupervisorLeft("before it answered"))
            }
            Err(error) => Err(Error::Failed(super::chain(&error))),
        }
    }

    /// One answer, whole.
    fn response(&mut self) -> Result<Response, Error> {
        let mut begin = String::new();
        loop {
            match self.receive()? {
                Response::Part(text) => begin.push_str(&text),
                Response::Json(rest) => return Ok(Response::Json(begin + &rest)),
                Response::Job(rest) => return Ok(Response::Job(begin + &rest)),
                response => return Ok(response),
            }
        }
    }

    /// Asks for one answer; a refusal is an error.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Response, Error> {
        self.send(request)?;
        match self.response()? {
            Response::Refused(reason) => Err(Error::Failed(reason)),
            response => Ok(response),
        }
    }

    /// Asks for an answer in JSON.
    pub(super) fn ask_json(&mut self, request: &Request) -> Result<Value, Error> {
        match self.ask(request)? {
            Response::Json(text) => serde_json::from_str(&text)
                .map_err(|error| Error::Failed(format!("the supervisor's answer is odd: {error}"))),
            other => Err(unexpected(&other)),
        }
    }

    /// Follows jobs until all are final; `on_row` gets each new state of each.
    ///
    /// # Errors
    /// [`Error::SupervisorLeft`] when it ends before the jobs do.
    pub(super) fn watch(
        &mut self,
        ids: &[JobId],
        mut on_row: impl FnMut(&Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.send(&Request::Watch(ids.to_vec()))?;
        let endless = self.stream.set_recv_timeout(None);
        endless.map_err(|error| Error::Failed(format!("cannot wait: {error}")))?;
        loop {
            match self.response() {
                Ok(Response::Job(text)) => {
                    if let Ok(row) = serde_json::from_str(&text) {
                        on_row(&row)?;
                    }
                }
                Ok(Response::Done) => return Ok(()),
                Ok(Response::Refused(reason)) => return Err(Error::Failed(reason)),
                Ok(other) => return Err(unexpected(&other)),
                Err(error) => return Err(error),
            }
        }
    }
}

/// An answer of the wrong kind.
pub(super) fn unexpected(response: &Response) -> Error {
    Error::Failed(format!("the supervisor gave an answer of another kind: {response:?}"))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Connects to the supervisor that comes after one that has gone.
///
/// # Errors
/// [`Error::SupervisorLeft`] when none does in time; what another one says against it.
pub(super) fn find_successor(config: &Config, within: Duration) -> Result<Client, Error> {
    let deadline = Instant::now() + within;
    loop {
        match Client::connect(config) {
            // One that starts or ends right now is no answer yet.
            Err(Error::NoSupervisor(_) | Error::SupervisorLeft(_)) => {}
            answer => return answer,
        }
        if Instant::now() >= deadline {
            return Err(no_successor());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// No supervisor came back.
pub(super) const fn no_successor() -> Error {
    Error::SupervisorLeft(
        "while this command waited, and none came back within 30 s; the job is safe and goes on \
         when a supervisor runs again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LoadOptions;

    #[test]
    fn when_no_supervisor_comes_back_the_exit_code_says_so() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let options = LoadOptions::plain(dir.path());
        let (mut config, _) = Config::load(&options).expect("defaults are accepted");
        config.runtime_dir = dir.path().to_owned();
        let within = Duration::from_millis(50);
        let error = find_successor(&config, within).err().expect("nobody listens there");
        assert_eq!(error.exit_code(), 3, "{error}");
    }
}
