//! The worker's end of its broker: starting it, and asking it for a command's output.

use super::{Ask, Errand, Orders, Reply};
use crate::launcher::image;
use rustix::process::{Signal, getpid, kill_process};
use shiftboss_protocol::frame;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as Socket;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use crate::serve::start::BROKER;

/// How much longer than its command a broker may take: to start it, and to kill it.
const SPARE: Duration = Duration::from_secs(10);

/// A broker that runs. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    line: Mutex<Line>,
}

#[derive(Debug)]
enum Line {
    /// Nobody has asked yet: there is no runtime that it could belong to.
    Fresh(Socket),
    Open(UnixStream),
    /// It has ended, or is out of step.
    Gone,
}

/// What a command came to.
#[derive(PartialEq, Eq)]
pub(crate) enum Asked {
    /// It has printed this.
    Printed(Vec<u8>),
    /// It gave nothing, for this reason; and what it wrote last on standard error.
    Refused {
        /// Goes on from "the command ...".
        why: String,
        /// Raw: it may hold secrets.
        complaint: Vec<u8>,
    },
    /// The broker is gone, and this process cannot start another one.
    Gone(String),
}

impl Broker {
    /// Starts one that knows these commands by their place. Not from a process that is sealed.
    ///
    /// # Errors
    /// The kernel refuses another process.
    pub(crate) fn start(errands: Vec<Errand>) -> io::Result<Self> {
        let image = image(Path::new("/proc/self/exe"))?;
        let (mut ours, theirs) = Socket::pair()?;
        // The child resolves the name in its own descriptor table, before CLOEXEC closes it.
        let mut command = Command::new(format!("/proc/self/fd/{}", image.as_raw_fd()));
        command.arg0("shiftboss-broker").arg(BROKER).env_clear();
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        // Nobody waits for it: it ends with this process, or this process with it.
        command.spawn()?;
        // The command holds this process's copy of the broker's end.
        drop(command);
        let orders = frame::encode(&Orders(errands)).map_err(io::Error::other)?;
        ours.write_all(&orders)?;
        ours.set_nonblocking(true)?;
        Ok(Self { line: Mutex::new(Line::Fresh(ours)) })
    }

    /// Has the command of this number run, which may take `timeout`. One runs at a time. Not to be
    /// cancelled: an answer that nobody has read would be the next one's.
    pub(crate) async fn ask(&self, number: u32, timeout: Duration) -> Asked {
        let mut line = self.line.lock().await;
        let gone = |why: &str| Asked::Gone(format!("the process that runs commands {why}"));
        let mut stream = match std::mem::replace(&mut *line, Line::Gone) {
            Line::Fresh(socket) => match UnixStream::from_std(socket) {
                Ok(stream) => stream,
                Err(error) => return gone(&format!("cannot be listened to: {error}")),
            },
            Line::Open(stream) => stream,
            Line::Gone => return gone("has ended"),
        };
        match tokio::time::timeout(timeout + SPARE, exchange(&mut stream, number)).await {
            Ok(Ok(reply)) => {
                *line = Line::Open(stream);
                match reply {
                    Reply::Printed(bytes) => Asked::Printed(bytes),
                    Reply::Refused { why, complaint } => Asked::Refused { why, complaint },
                }
            }
            Ok(Err(error)) => gone(&format!("has ended: {error}")),
            Err(_) => gone("does not answer"),
        }
    }
}

async fn exchange(stream: &mut UnixStream, number: u32) -> io::Result<Reply> {
    stream.write_all(&frame::encode(&Ask(number)).map_err(io::Error::other)?).await?;
    let mut received = Vec::new();
    loop {
        if let Some(reply) = frame::take(&mut received).map_err(io::Error::other)? {
            return Ok(reply);
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
    }
}

/// Has this process end as if its supervisor had asked for it: its attempts are given back.
pub(crate) fn leave() {
    // To itself, which also a sealed process may signal. It fails for no other.
    let _ = kill_process(getpid(), Signal::TERM);
}
