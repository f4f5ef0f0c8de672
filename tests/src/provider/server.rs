//! The server: a thread per connection, a line in the journal per request, before it is answered.

use super::Behaviour;
use super::http::{self, Request, answer};
use super::operations::Operations;
use super::shape::{Route, Shape, State};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The start of an MP4, so that a file is taken for a film; the rest counts up.
const FILM: &[u8] = b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2";

/// Bytes of a file.
const FILE_BYTES: usize = 100_000;

struct House {
    shape: Shape,
    behaviour: Behaviour,
    base: String,
    started: Instant,
    /// Connections that are open.
    open: AtomicUsize,
    rooms: Mutex<Rooms>,
}

struct Rooms {
    journal: File,
    operations: Operations,
    chance: u64,
}

/// What happens to a connection after a request.
enum After {
    GoesOn(Vec<u8>),
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
    let rooms = Rooms {
        journal: File::create(journal)?,
        operations: Operations::default(),
        chance: behaviour.seed,
    };
    let house = Arc::new(House {
        shape,
        behaviour,
        base: format!("http://127.0.0.1:{port}"),
        started: Instant::now(),
        open: AtomicUsize::new(0),
        rooms: Mutex::new(rooms),
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
        let Ok(mut writer) = stream.try_clone() else { return };
        let mut reader = BufReader::new(stream);
        while let Some(request) = http::read(&mut reader) {
            let after = self.hear(&request);
            if self.behaviour.latency_ms > 0 {
                std::thread::sleep(Duration::from_millis(self.behaviour.latency_ms));
            }
            match after {
                After::GoesOn(bytes) => {
                    if writer.write_all(&bytes).is_err() {
                        return;
                    }
                }
                After::Ends(bytes) => {
                    let _ = writer.write_all(&bytes);
                    let _ = writer.shutdown(Shutdown::Both);
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

    fn hear(&self, request: &Request) -> After {
        let at_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let route = self.shape.route(&request.method, &request.path);
        let mut rooms = self.lock();
        let open = self.open.load(Ordering::Relaxed);
        let mut line = json!({ "at_us": at_us, "path": request.path, "open": open });
        let proved = self.shape.is_proved(request.header("authorization"));
        let after = match route {
            Route::File(name) => rooms.file(&name, request, &mut line),
            _ if !proved => {
                line["kind"] = json!("unproved");
                let body = json!({ "error": { "message": "bad key sk-simulated" } }).to_string();
                After::GoesOn(answer(401, &[], body.as_bytes()))
            }
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
                rooms.operations.cancel(&id);
                After::GoesOn(answer(200, &[], b"{}"))
            }
            Route::Unknown => {
                line["kind"] = json!("unknown");
                After::GoesOn(answer(404, &[], b"{}"))
            }
        };
        let _ = writeln!(rooms.journal, "{line}");
        after
    }

    /// The links of an operation's files.
    fn links(&self, id: &str, mode: &str) -> Vec<String> {
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

impl Rooms {
    /// True for `share` of a thousand.
    fn draws(&mut self, share: u64) -> bool {
        // An xorshift: the same seed gives the same faults for the same requests.
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % 1_000 < share
    }

    fn refusal(&mut self, behaviour: &Behaviour, line: &mut Value) -> Option<After> {
        if !self.draws(behaviour.refusals) {
            return None;
        }
        line["kind"] = json!("refused");
        let hints = [
            ("retry-after", "0.05"),
            ("retry-after-ms", "40"),
            ("retry-after", "0"),
            ("x-ratelimit-reset-requests", "30ms"),
        ];
        let (name, value) = hints[usize::try_from(self.chance >> 20).unwrap_or(0) % hints.len()];
        Some(After::GoesOn(answer(429, &[(name, value.to_owned())], b"{\"error\": \"slow down\"}")))
    }

    fn submit(&mut self, house: &House, request: &Request, line: &mut Value) -> After {
        if let Some(refused) = self.refusal(&house.behaviour, line) {
            return refused;
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let params = house.shape.params(&body);
        let text = |name: &str| params[name].as_str().unwrap_or_default().to_owned();
        let (tag, mode) = (text("tag"), text("mode"));
        let (id, is_new) = self.operations.accept(request.header("idempotency-key"), &tag, &mode);
        line["kind"] = json!(if is_new { "submit" } else { "again" });
        (line["op"], line["tag"]) = (json!(id), json!(tag));
        let lost = mode == "lose-submit" && is_new;
        if lost || self.draws(house.behaviour.lost_submits) {
            line["lost"] = json!(true);
            return After::Ends(Vec::new());
        }
        let (status, body) = house.shape.accepted(&house.base, &id);
        After::GoesOn(answer(status, &[], body.to_string().as_bytes()))
    }

    fn poll(&mut self, house: &House, id: &str, line: &mut Value) -> After {
        let behaviour = &house.behaviour;
        if let Some(refused) = self.refusal(behaviour, line) {
            line["poll"] = json!(true);
            return refused;
        }
        line["kind"] = json!("poll");
        line["op"] = json!(id);
        let Some(operation) = self.operations.get(id) else {
            return After::GoesOn(answer(404, &[], b"{}"));
        };
        line["tag"] = json!(operation.tag);
        let (mode, polls) = (operation.mode.clone(), operation.polls);
        let head = b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\n";
        if polls == 0 {
            operation.polls += 1;
            let chunked = [&head[..], b"transfer-encoding: chunked\r\n\r\n"].concat();
            match mode.as_str() {
                "huge" => {
                    let bytes =
                        [&head[..], b"content-length: 1073741824\r\n\r\n{\"a\": \""].concat();
                    return After::Endless(bytes, b"xxxxxxxx");
                }
                "endless" => return After::Endless(chunked, b"4\r\nxxxx\r\n"),
                "retry-year" => {
                    let year = [("retry-after", "31536000".to_owned())];
                    return After::GoesOn(answer(503, &year, b"{}"));
                }
                "retry-past" => {
                    let past = [("retry-after", "Fri, 01 Jan 1999 00:00:00 GMT".to_owned())];
                    return After::GoesOn(answer(503, &past, b"{}"));
                }
                "page" => return After::GoesOn(answer(200, &[], b"<html>come back later</html>")),
                "half" => {
                    return After::Ends([&head[..], b"content-length: 99\r\n\r\n{\"st"].concat());
                }
                "redirect-loopback" => {
                    let to = [("location", "http://127.0.0.1:1/".to_owned())];
                    return After::GoesOn(answer(302, &to, b""));
                }
                _ => operation.polls -= 1,
            }
        }
        if self.draws(behaviour.lost_polls) {
            return After::Ends(Vec::new());
        }
        if self.draws(behaviour.errors) {
            return After::GoesOn(answer(500, &[], b"{\"error\": \"hiccup\"}"));
        }
        if self.draws(behaviour.pages) {
            return After::GoesOn(answer(200, &[], b"<html>maintenance</html>"));
        }
        let state = self.operations.poll(id, behaviour).unwrap_or(State::Failed);
        line["ended"] = json!(matches!(state, State::Done | State::Failed | State::Cancelled));
        let links = if state == State::Done { house.links(id, &mode) } else { Vec::new() };
        let body = house.shape.state(id, state, &links).to_string();
        After::GoesOn(answer(200, &[], body.as_bytes()))
    }

    fn file(&mut self, id: &str, request: &Request, line: &mut Value) -> After {
        line["kind"] = json!("download");
        line["op"] = json!(id);
        line["range"] = json!(request.header("range"));
        line["authorization"] = json!(request.header("authorization"));
        let Some(operation) = self.operations.get(id) else {
            return After::GoesOn(answer(404, &[], b"no"));
        };
        line["tag"] = json!(operation.tag);
        operation.downloads += 1;
        let mut bytes = FILM.to_vec();
        bytes.extend((0..FILE_BYTES - FILM.len()).map(|at| (at % 251) as u8));
        let etag = ("etag", "\"v1\"".to_owned());
        match (operation.mode.as_str(), operation.downloads) {
            ("expired", 1) => After::GoesOn(answer(403, &[], b"expired")),
            ("not-a-film", _) => After::GoesOn(answer(200, &[], b"<html>no film</html>")),
            ("half-file", 1) => {
                let mut half = answer(200, &[etag], &bytes);
                half.truncate(half.len() - FILE_BYTES / 2);
                After::Ends(half)
            }
            _ => match request
                .header("range")
                .strip_prefix("bytes=")
                .map(|text| text.trim_end_matches('-'))
            {
                Some(start) => {
                    let start: usize = start.parse().unwrap_or(0);
                    let range = format!("bytes {start}-{}/{FILE_BYTES}", FILE_BYTES - 1);
                    let headers = [etag, ("content-range", range)];
                    After::GoesOn(answer(206, &headers, &bytes[start.min(FILE_BYTES)..]))
                }
                None => After::GoesOn(answer(200, &[etag], &bytes)),
            },
        }
    }
}
