//! The socket to a supervisor: contact, and the reader and the writer of messages.

mod outbox;

pub(crate) use outbox::{Frames, Outbox};

use interprocess::local_socket::{ConnectOptions, GenericFilePath, Stream, prelude::*};
use shiftboss_protocol::frame;
use shiftboss_protocol::message::{Hello, SupervisorMessage, Welcome, WorkerMessage};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long the supervisor may take for its Welcome.
const WELCOME_WAIT: Duration = Duration::from_secs(10);

/// Bytes taken from the socket at once: some hundred assignments of the usual size.
const READ_BYTES: usize = 64 << 10;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot connect to socket {path}")]
    Connect {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot set the time limit of the socket")]
    Limit(#[source] io::Error),
    #[error("cannot say Hello or read Welcome")]
    Frame(#[from] frame::Error),
    #[error("the supervisor ended the connection before its Welcome")]
    NoWelcome,
    #[error("the supervisor answered Hello with something else than Welcome")]
    Unexpected,
    #[error("the supervisor refused this worker: {0}")]
    Refused(String),
}

/// Connects, says Hello and waits for Welcome. Starts no thread.
pub(crate) fn open(socket: &Path, hello: Hello) -> Result<(Connection, Welcome), Error> {
    let connect = |source| Error::Connect { path: socket.display().to_string(), source };
    let name = socket.to_fs_name::<GenericFilePath>().map_err(connect)?;
    let mut stream = ConnectOptions::new().name(name).connect_sync().map_err(connect)?;
    stream.set_recv_timeout(Some(WELCOME_WAIT)).map_err(Error::Limit)?;
    frame::write(&mut stream, &WorkerMessage::Hello(hello))?;
    let welcome = match frame::read::<SupervisorMessage>(&mut stream)? {
        None => return Err(Error::NoWelcome),
        Some(SupervisorMessage::Welcome(welcome)) => welcome,
        Some(
            SupervisorMessage::Assign { .. }
            | SupervisorMessage::Cancel { .. }
            | SupervisorMessage::Drain
            | SupervisorMessage::Recorded { .. },
        ) => return Err(Error::Unexpected),
    };
    if !welcome.refused.is_empty() {
        return Err(Error::Refused(welcome.refused));
    }
    stream.set_recv_timeout(None).map_err(Error::Limit)?;
    Ok((Connection { stream }, welcome))
}

/// A connection on which Welcome was said.
pub(crate) struct Connection {
    stream: Stream,
}

impl Connection {
    pub(crate) fn say(&mut self, message: &WorkerMessage) -> Result<(), frame::Error> {
        frame::write(&mut self.stream, message)
    }

    /// One half for the reader's thread, one for the writer's.
    pub(crate) fn split(self) -> (Reader, Writer) {
        let stream = Arc::new(self.stream);
        (Reader { stream: Arc::clone(&stream), buffer: Vec::new() }, Writer(stream))
    }
}

/// The half that [`Outbox::write_all`] writes to.
pub(crate) struct Writer(Arc<Stream>);

impl Writer {
    /// One that cannot write ends the connection for the reader too.
    fn write(&self, frames: &[u8]) -> io::Result<()> {
        let written = (&*self.0).write_all(frames);
        if written.is_err() {
            hang_up(&self.0);
        }
        written
    }
}

/// Ends both halves: whoever waits on the other one returns.
fn hang_up(stream: &Stream) {
    let Stream::UdSocket(socket) = stream;
    // The other side may have done so already.
    let _ = rustix::net::shutdown(socket.as_fd(), rustix::net::Shutdown::Both);
}

/// Reads what the supervisor says.
pub(crate) struct Reader {
    stream: Arc<Stream>,
    buffer: Vec<u8>,
}

impl Reader {
    /// Hands every message to `on_message` until the connection ends. One read may bring many.
    ///
    /// A supervisor that is killed ends it anywhere, also inside a frame, and resets it when
    /// there is something that it has not read: none of that is an error.
    ///
    /// # Errors
    /// What came is no message.
    pub(crate) fn read_to_end(
        mut self,
        on_message: impl FnMut(SupervisorMessage),
    ) -> Result<(), frame::Error> {
        let read = self.read_messages(on_message);
        hang_up(&self.stream);
        read
    }

    fn read_messages(
        &mut self,
        mut on_message: impl FnMut(SupervisorMessage),
    ) -> Result<(), frame::Error> {
        let mut chunk = vec![0; READ_BYTES];
        loop {
            let count = match (&*self.stream).read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Ok(()),
            };
            self.buffer.extend_from_slice(&chunk[..count]);
            let mut at = 0;
            while let Some(message) = frame::peek(&self.buffer, &mut at)? {
                on_message(message);
            }
            self.buffer.drain(..at);
        }
    }
}
