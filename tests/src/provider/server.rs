//! The server: a thread per connection, a line in the journal per request, before it is answered.

use super::Behaviour;
use super::http::{self, Request, answer};
use super::rooms::Rooms;
use super::shape::{Route, Shape};
use super::tls::{self, Identity};
use super::tokens::google;
use rustls::ServerConfig;
use serde_json::{Value, json};
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(super) struct House {
    pub(super) shape: Shape,
    pub(super) behaviour: Behaviour,
    pub(super) base: String,
    /// How TLS is spoken; `None`: it is not.
    tls: Option<Arc<ServerConfig>>,
    journal: PathBuf,
    /// Asked for so far.
    tokens: AtomicUsize,
    started: Instant,
    /// Connections that are open.
    open: AtomicUsize,
    /// Connections so far.
    connections: AtomicU64,
    rooms: Mutex<Rooms>,
}

/// What happens to a connection after a request.
pub(super) enum After {
    GoesOn(Vec<u8>),
    /// The first half, a pause, and the rest.
    Slowly(Vec<u8>, Duration),
    /// These bytes, and then its end.
    Ends(Vec<u8>),
    /// These bytes, and then more of the second for ever.
    Endless(Vec<u8>, &'static [u8]),
}

/// Serves until standard input ends: that of whoever started it.
///
/// # Errors
/// What the network or the journal says.
pub fn serve(shape: Shape, journal: &Path, behaviour: &Value) -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let behaviour = Behaviour::of_json(behaviour);
    let tls = behaviour.tls.then(|| {
        let identity = Identity::new();
        std::fs::write(journal.with_extension("pem"), identity.pem())?;
        Ok::<_, std::io::Error>(identity.server())
    });
    let scheme = if behaviour.tls { "https" } else { "http" };
    let house = Arc::new(House {
        shape,
        base: format!("{scheme}://127.0.0.1:{port}"),
        tls: tls.transpose()?,
        journal: journal.to_owned(),
        tokens: AtomicUsize::new(0),
        started: Instant::now(),
        open: AtomicUsize::new(0),
        connections: AtomicU64::new(0),
        rooms: Mutex::new(Rooms::new(journal, behaviour.seed)?),
        behaviour,
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let house = Arc::clone(&house);
            std::thread::spawn(move || {
                house.open.fetch_add(1, Ordering::Relaxed);
                house.speak(stream);
                house.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{port}")?;
    out.flush()?;
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).map(drop)
}

impl House {
    fn lock(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn speak(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let Ok(talk) = tls::talk(stream, self.tls.as_ref()) else { return };
        let mut both = BufReader::new(talk);
        while let Some(request) = http::read(&mut both) {
            let after = self.hear(&request, number);
            let writer = both.get_mut();
            if self.behaviour.latency_ms > 0 {
                std::thread::sleep(Duration::from_millis(self.behaviour.latency_ms));
            }
            match after {
                After::GoesOn(bytes) => {
                    if writer.write_all(&bytes).is_err() {
                        return;
                    }
                }
                After::Slowly(bytes, pause) => {
                    let (first, rest) = bytes.split_at(bytes.len() / 2);
                    let mut open = writer.write_all(first).is_ok();
                    std::thread::sleep(pause);
                    open = open && writer.write_all(rest).is_ok();
                    if !open {
                        return;
                    }
                }
                After::Ends(bytes) => {
                    let _ = writer.write_all(&bytes);
                    writer.cut();
                    return;
                }
                After::Endless(bytes, more) => {
                    let mut open = writer.write_all(&bytes).is_ok();
                    let more = more.repeat(4_096);
                    while open {
                        open = writer.write_all(&more).is_ok();
                    }
                    return;
                }
            }
        }
    }

    fn hear(&self, request: &Request, connection: u64) -> After {
        let at_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let route = self.shape.route(&request.method, &request.path, &request.body);
        let mut rooms = self.lock();
        let open = self.open.load(Ordering::Relaxed);
        let mut line = json!({
            "at_us": at_us, "path": request.path, "open": open, "connection": connection,
            "class": route.class(),
        });
        let proved = self.shape.is_proved(|name| request.header(name));
        let after = match route {
            Route::Token => {
                line["kind"] = json!("token");
                let number = self.tokens.fetch_add(1, Ordering::Relaxed) + 1;
                let aud = format!("{}/token", self.base);
                let (status, body) = google::token(&request.body, &self.journal, &aud, number);
                After::GoesOn(answer(status, &[], body.to_string().as_bytes()))
            }
            // The links of others are for everybody.
            Route::File(name) if proved || self.shape != Shape::Veo => {
                rooms.file(self, &name, request, &mut line)
            }
            _ if !proved => {
                line["kind"] = json!("unproved");
                let body = json!({ "error": { "message": "bad key sk-simulated" } }).to_string();
                After::GoesOn(answer(401, &[], body.as_bytes()))
            }
            Route::File(_) => After::GoesOn(answer(403, &[], b"{}")),
            Route::Submit => rooms.submit(self, request, &mut line),
            Route::Poll(id) => rooms.poll(self, &id, &mut line),
            Route::Result(id) => {
                line["kind"] = json!("result");
                line["op"] = json!(id);
                let body = self.shape.result(&self.links(&id, "")).to_string();
                After::GoesOn(answer(200, &[], body.as_bytes()))
            }
            Route::Cancel(id) => {
                line["kind"] = json!("cancel");
                line["op"] = json!(id);
                rooms.cancel(&id)
            }
            Route::Lookup => {
                line["kind"] = json!("lookup");
                rooms.list(self.shape)
            }
            Route::Unknown => {
                line["kind"] = json!("unknown");
                After::GoesOn(answer(404, &[], b"{}"))
            }
        };
        rooms.write(&line);
        after
    }

    /// The links of an operation's files.
    pub(super) fn links(&self, id: &str, mode: &str) -> Vec<String> {
        let port = self.base.rsplit(':').next().unwrap_or_default();
        match mode {
            "empty" => Vec::new(),
            "link-file" => vec!["file:///etc/passwd".to_owned()],
            // A port of the host that the description does not name.
            "link-loopback" => vec!["http://127.0.0.1:1/secret".to_owned()],
            "link-metadata" => vec!["http://169.254.169.254/latest/meta-data".to_owned()],
            // The same host by a name that is not its address.
            "link-localhost" => vec![format!("http://localhost:{port}/files/{id}")],
            _ => vec![format!("{}/files/{id}", self.base)],
        }
    }
}
