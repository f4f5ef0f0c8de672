//! The worker socket: accepts connections, checks who is there, carries frames both ways.

use super::listen::{Error, FrameReader, listen};
use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::StreamCommon;
use interprocess::local_socket::traits::tokio::Listener as _;
use shiftboss_protocol::frame;
use shiftboss_protocol::message::{Hello, SupervisorMessage, WorkerMessage};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

/// A process that connects must say Hello this soon.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Connections that have not said Hello yet, at most: others wait in the kernel's queue.
const STRANGERS_MAX: usize = 64;

/// Bytes that may wait for a worker that does not read. Ten thousand assignments fit.
const OUTBOX_BYTES_MAX: usize = 64 << 20;

/// Number of a connection, never used twice.
pub type ConnectionId = u64;

/// What arrives from the worker socket.
#[derive(Debug)]
pub enum FromWorker {
    /// A process connected and said Hello.
    Hello {
        /// Its connection.
        connection: ConnectionId,
        /// The process that opened the connection, as the kernel says (`SO_PEERCRED`).
        pid: u32,
        /// What it said.
        hello: Hello,
        /// The way back.
        outbox: Outbox,
    },
    /// Messages, in order.
    Messages(ConnectionId, Vec<WorkerMessage>),
    /// The connection ended; nothing more comes from it. Text: what was wrong, if anything.
    Ended(ConnectionId, Option<String>),
}

/// The way to one worker. Dropping it closes the connection after what was sent.
#[derive(Debug)]
pub struct Outbox {
    frames: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It is gone; its end is reported by [`FromWorker::Ended`].
    #[error("the worker's connection has ended")]
    Gone,
    /// It does not read.
    #[error("the worker does not read: {0} bytes wait for it")]
    Full(usize),
    /// The message does not fit a frame.
    #[error(transparent)]
    Frame(#[from] frame::Error),
}

impl Outbox {
    /// Queues a message. Never blocks.
    ///
    /// # Errors
    /// Any [`SendError`].
    pub fn send(&self, message: &SupervisorMessage) -> Result<(), SendError> {
        let bytes = frame::encode(message)?;
        let waiting = self.waiting.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        if waiting > OUTBOX_BYTES_MAX {
            return Err(SendError::Full(waiting));
        }
        self.frames.send(bytes).map_err(|_| SendError::Gone)
    }
}

/// Listens on `path` and reports everything to `events`. Must be called inside a local task
/// set's runtime; ends with it.
///
/// # Errors
/// When the socket cannot be opened.
pub fn serve(path: &Path, events: mpsc::Sender<FromWorker>) -> Result<(), Error> {
    let listener = listen(path)?;
    tokio::spawn(async move {
        let next = AtomicU64::new(1);
        let strangers = Arc::new(tokio::sync::Semaphore::new(STRANGERS_MAX));
        loop {
            let Ok(permit) = strangers.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok(stream) => {
                    let connection = next.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(greet(connection, stream, events.clone(), permit));
                }
                Err(error) => {
                    // Out of descriptors, most likely: connections wait until some are free.
                    tracing::warn!(%error, "cannot accept a worker, trying again in 100 ms");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(())
}

async fn greet(
    connection: ConnectionId,
    stream: Stream,
    events: mpsc::Sender<FromWorker>,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    let mut reader = FrameReader::default();
    let pid = stream.peer_creds().ok().and_then(|peer| peer.pid());
    let first = tokio::time::timeout(HELLO_WITHIN, reader.message(&stream)).await;
    let (pid, hello) = match (pid, first) {
        (Some(pid), Ok(Ok(Some(WorkerMessage::Hello(hello))))) => (pid, hello),
        (pid, _) => {
            tracing::warn!(?pid, "a process on the worker socket did not say Hello, closed");
            return;
        }
    };
    drop(permit);
    let (frames, queue) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let outbox = Outbox { frames, waiting: waiting.clone() };
    let stream = Arc::new(stream);
    let pid = u32::try_from(pid).unwrap_or(0);
    if events.send(FromWorker::Hello { connection, pid, hello, outbox }).await.is_err() {
        return;
    }
    let mut writing = tokio::spawn(write(stream.clone(), queue, waiting));
    let mut reading = std::pin::pin!(read(connection, &stream, &mut reader, &events));
    let reason = tokio::select! {
        reason = &mut reading => reason,
        // A process that was refused, or is gone and forgotten: nobody cares for what it says.
        Ok(WriteEnd::Dropped) = &mut writing => None,
        else => None,
    };
    let _ = events.send(FromWorker::Ended(connection, reason)).await;
}

async fn read(
    connection: ConnectionId,
    stream: &Stream,
    reader: &mut FrameReader,
    events: &mpsc::Sender<FromWorker>,
) -> Option<String> {
    loop {
        match reader.messages(stream).await {
            Ok(messages) if messages.is_empty() => return None,
            Ok(messages) => {
                events.send(FromWorker::Messages(connection, messages)).await.ok()?;
            }
            // A killed worker resets its connection: its death says more than this.
            Err(frame::Error::Io(_)) => return None,
            Err(error) => return Some(error.to_string()),
        }
    }
}

/// Why nothing more is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteEnd {
    /// The outbox was dropped, and everything before that was sent.
    Dropped,
    /// The other side does not read any more; what it has said may still be read.
    Failed,
}

/// Sends what is queued, as much as there is in one write.
async fn write(
    stream: Arc<Stream>,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
) -> WriteEnd {
    while let Some(mut bytes) = queue.recv().await {
        while let Ok(more) = queue.try_recv() {
            bytes.extend_from_slice(&more);
        }
        if (&*stream).write_all(&bytes).await.is_err() {
            return WriteEnd::Failed;
        }
        waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
    }
    WriteEnd::Dropped
}
