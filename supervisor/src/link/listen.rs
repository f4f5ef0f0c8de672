//! Named local sockets and the frames on them.

use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use serde::de::DeserializeOwned;
use shiftboss_protocol::frame;
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;

/// Why a socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused: most often the path is longer than its 107 bytes.
    #[error("cannot listen on socket {0} (its path may have at most 107 bytes)")]
    Listen(PathBuf, #[source] io::Error),
}

/// Listens on `path`; a socket file that a dead supervisor left there is replaced. The caller
/// holds the instance's lock, so no living one can own it.
pub(super) fn listen(path: &Path) -> Result<Listener, Error> {
    let failed = |error| Error::Listen(path.to_owned(), error);
    let name = path.to_fs_name::<GenericFilePath>().map_err(failed)?;
    let options = ListenerOptions::new().name(name).try_overwrite(true).mode(0o600);
    options.create_tokio().map_err(failed)
}

/// Bytes read at once: many small frames arrive together when a worker ends jobs in bursts.
const READ_BYTES: usize = 64 << 10;

/// Reads frames off a stream, many at a time.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    buffer: Vec<u8>,
}

impl FrameReader {
    /// All messages that are there, waiting for at least one. An empty list is a clean end.
    pub(super) async fn messages<M: DeserializeOwned>(
        &mut self,
        mut stream: &Stream,
    ) -> Result<Vec<M>, frame::Error> {
        loop {
            let mut messages = Vec::new();
            let mut at = 0;
            while let Some(message) = frame::peek(&self.buffer, &mut at)? {
                messages.push(message);
            }
            self.buffer.drain(..at);
            if !messages.is_empty() {
                return Ok(messages);
            }
            self.buffer.reserve(READ_BYTES);
            let count = stream.read_buf(&mut self.buffer).await.map_err(frame::Error::Io)?;
            if count == 0 {
                let cut = !self.buffer.is_empty();
                return if cut { Err(frame::Error::Cut) } else { Ok(messages) };
            }
        }
    }

    /// One message, waiting for it; `None` is a clean end. For streams on which the other side
    /// waits for an answer before it goes on.
    pub(super) async fn message<M: DeserializeOwned>(
        &mut self,
        mut stream: &Stream,
    ) -> Result<Option<M>, frame::Error> {
        loop {
            if let Some(message) = frame::take(&mut self.buffer)? {
                return Ok(Some(message));
            }
            let count = stream.read_buf(&mut self.buffer).await.map_err(frame::Error::Io)?;
            if count == 0 {
                let cut = !self.buffer.is_empty();
                return if cut { Err(frame::Error::Cut) } else { Ok(None) };
            }
        }
    }
}
