//! The control socket: requests of clients in, answers out.

use super::listen::{Error, FrameReader, listen};
use crate::os::process::peer::{self, Standing};
use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::StreamCommon;
use interprocess::local_socket::traits::tokio::Listener as _;
use shiftboss_protocol::PROTOCOL_VERSION;
use shiftboss_protocol::control::{Greeting, Request, Response};
use shiftboss_protocol::frame;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

/// Clients at once; others wait in the kernel's queue.
const CLIENTS_MAX: usize = 64;

/// A client must greet, and must read an answer, this soon.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client that asks nothing for so long is sent away.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A request on its way to the daemon.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Who asks: its user and process.
    pub peer: Peer,
    /// The way back: one answer, or a stream that ends with [`Response::Done`] for a watch.
    pub reply: mpsc::Sender<Response>,
}

/// Who is at the other end, as the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user id.
    pub uid: u32,
    /// Its process id.
    pub pid: u32,
    /// Where its process stood when it connected; `None`: it had ended.
    pub standing: Option<Arc<Standing>>,
}

/// Bytes of a text in one frame.
const PART_BYTES: usize = frame::FRAME_BYTES_MAX / 2;

/// Answers kept for a slow reader before the daemon is told that it is full.
const ANSWERS_QUEUED: usize = 64;

/// Listens on `path` and passes requests of our own user and of root to `calls`.
///
/// # Errors
/// When the socket cannot be opened.
pub fn serve(path: &Path, our_uid: u32, calls: mpsc::Sender<Call>) -> Result<(), Error> {
    let listener = listen(path)?;
    tokio::spawn(async move {
        let clients = Arc::new(tokio::sync::Semaphore::new(CLIENTS_MAX));
        loop {
            let Ok(permit) = clients.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok(stream) => {
                    let calls = calls.clone();
                    tokio::spawn(async move {
                        if let Err(error) = converse(&stream, our_uid, calls).await {
                            tracing::debug!(%error, "a control client was sent away");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client, trying again in 100 ms");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(())
}

/// Why a conversation ended early.
#[derive(Debug, thiserror::Error)]
enum Farewell {
    #[error("it belongs to user {0}")]
    Stranger(u32),
    #[error("the kernel does not say who it is")]
    Unknown,
    #[error("it did not {0} in time")]
    Slow(&'static str),
    #[error("its bytes are no request: {0}")]
    Garbage(#[from] frame::Error),
}

async fn converse(
    stream: &Stream,
    our_uid: u32,
    calls: mpsc::Sender<Call>,
) -> Result<(), Farewell> {
    let creds = stream.peer_creds().map_err(|_| Farewell::Unknown)?;
    let uid = creds.euid().ok_or(Farewell::Unknown)?;
    let pid = creds.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
    let Stream::UdSocket(socket) = stream;
    let standing = peer::standing(socket.as_fd(), pid).map(Arc::new);
    let peer = Peer { uid, pid, standing };
    let mut reader = FrameReader::default();
    let greeting = tokio::time::timeout(PATIENCE, reader.message::<Greeting>(stream)).await;
    let Some(greeting) = greeting.map_err(|_| Farewell::Slow("greet"))?? else { return Ok(()) };
    let ours = Greeting {
        protocol: PROTOCOL_VERSION,
        program: format!("shiftboss {}", env!("CARGO_PKG_VERSION")),
    };
    send(stream, &ours).await?;
    if greeting.protocol != PROTOCOL_VERSION {
        return Ok(());
    }
    loop {
        let request = tokio::time::timeout(IDLE_MAX, reader.message(stream)).await;
        let Some(request) = request.map_err(|_| Farewell::Slow("ask anything"))?? else {
            return Ok(());
        };
        if uid != our_uid && uid != 0 {
            // Greeted like everybody, so that the reason can be read.
            let text = format!("this supervisor answers user {our_uid} and root, not user {uid}");
            send(stream, &Response::Refused(text)).await?;
            return Err(Farewell::Stranger(uid));
        }
        let watching = matches!(request, Request::Watch(_));
        let (reply, mut answers) = mpsc::channel(ANSWERS_QUEUED);
        if calls.send(Call { request, peer: peer.clone(), reply }).await.is_err() {
            return Ok(());
        }
        answer(stream, &mut answers, watching).await?;
    }
}

async fn answer(
    stream: &Stream,
    answers: &mut mpsc::Receiver<Response>,
    watching: bool,
) -> Result<(), Farewell> {
    let gone = || Response::Refused("the supervisor is stopping and did not answer".to_owned());
    loop {
        let response = answers.recv().await;
        let last = !watching || !matches!(response, Some(Response::Job(_)));
        let response = match response.unwrap_or_else(gone) {
            Response::Json(text) => Response::Json(send_begin(stream, text).await?),
            Response::Job(text) => Response::Job(send_begin(stream, text).await?),
            response => response,
        };
        send(stream, &response).await?;
        if last {
            return Ok(());
        }
    }
}

/// Sends what of a text does not fit one frame, and returns its end.
async fn send_begin(stream: &Stream, text: String) -> Result<String, Farewell> {
    let mut rest = text.as_str();
    if rest.len() <= PART_BYTES {
        return Ok(text);
    }
    while rest.len() > PART_BYTES {
        let (part, after) = rest.split_at(rest.floor_char_boundary(PART_BYTES));
        send(stream, &Response::Part(part.to_owned())).await?;
        rest = after;
    }
    Ok(rest.to_owned())
}

async fn send<M: serde::Serialize>(mut stream: &Stream, message: &M) -> Result<(), Farewell> {
    let bytes = match frame::encode(message) {
        Ok(bytes) => bytes,
        Err(error) => {
            let text = format!("the answer is too large ({error}); ask for less, with --limit");
            frame::encode(&Response::Refused(text))?
        }
    };
    let written = tokio::time::timeout(PATIENCE, stream.write_all(&bytes)).await;
    written.map_err(|_| Farewell::Slow("read its answer"))?.map_err(frame::Error::Io)?;
    Ok(())
}
