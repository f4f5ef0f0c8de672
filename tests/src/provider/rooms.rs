//! What is answered, and what goes wrong with it.

use super::Behaviour;
use super::http::{Request, answer};
use super::operations::Operations;
use super::server::{After, House};
use super::shape::{Shape, State};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// The start of an MP4, so that a file is taken for a film; the rest counts up.
const FILM: &[u8] = b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2";

/// The start of a PNG.
const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Bytes of a file.
const FILE_BYTES: usize = 100_000;

/// What all connections share.
pub(super) struct Rooms {
    journal: File,
    operations: Operations,
    chance: u64,
}

impl Rooms {
    pub(super) fn new(journal: &Path, seed: u64) -> std::io::Result<Self> {
        // An xorshift of 0 stays 0.
        let (journal, chance) = (File::create(journal)?, seed.max(1));
        Ok(Self { journal, operations: Operations::default(), chance })
    }

    pub(super) fn write(&mut self, line: &Value) {
        let _ = writeln!(self.journal, "{line}");
    }

    pub(super) fn cancel(&mut self, id: &str) -> After {
        self.operations.cancel(id);
        After::GoesOn(answer(200, &[], b"{}"))
    }

    pub(super) fn list(&self, shape: Shape) -> After {
        let body = shape.list(&self.operations.all()).to_string();
        After::GoesOn(answer(200, &[], body.as_bytes()))
    }

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

    pub(super) fn submit(&mut self, house: &House, request: &Request, line: &mut Value) -> After {
        if let Some(refused) = self.refusal(&house.behaviour, line) {
            return refused;
        }
        let asked = house.shape.read(&request.body, request.header("idempotency-key"));
        let (tag, mode) = (asked.tag, asked.mode);
        let (id, is_new) = self.operations.accept(&asked.key, &tag, &mode);
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

    pub(super) fn poll(&mut self, house: &House, id: &str, line: &mut Value) -> After {
        let behaviour = &house.behaviour;
        line["kind"] = json!("poll");
        line["op"] = json!(id);
        if let Some(refused) = self.refusal(behaviour, line) {
            return refused;
        }
        let Some(operation) = self.operations.get(id) else {
            return After::GoesOn(answer(404, &[], b"{}"));
        };
        line["tag"] = json!(operation.tag);
        let mode = operation.mode.clone();
        if operation.polls == 0
            && let Some(odd) = odd(&mode)
        {
            operation.polls += 1;
            return odd;
        }
        if self.draws(behaviour.lost_polls) {
            line["lost"] = json!(true);
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
        line["state"] = json!(match state {
            State::Queued | State::Running => "runs",
            State::Done => "done",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        });
        let links = if state == State::Done { house.links(id, &mode) } else { Vec::new() };
        let body = house.shape.state(id, state, &links).to_string();
        let bytes = answer(200, &[], body.as_bytes());
        if self.draws(behaviour.twice) {
            // The second is the answer to nothing, and must not be taken for the next one's.
            line["twice"] = json!(true);
            return After::GoesOn(bytes.repeat(2));
        }
        self.slowly(bytes, behaviour, line)
    }

    /// At once, or with a pause in the middle.
    fn slowly(&mut self, bytes: Vec<u8>, behaviour: &Behaviour, line: &mut Value) -> After {
        if !self.draws(behaviour.slow) {
            return After::GoesOn(bytes);
        }
        line["slow"] = json!(true);
        After::Slowly(bytes, Duration::from_millis(20 + self.chance % 300))
    }

    pub(super) fn file(
        &mut self,
        house: &House,
        id: &str,
        request: &Request,
        line: &mut Value,
    ) -> After {
        line["kind"] = json!("download");
        line["op"] = json!(id);
        line["range"] = json!(request.header("range"));
        line["authorization"] = json!(request.header("authorization"));
        let Some(operation) = self.operations.get(id) else {
            return After::GoesOn(answer(404, &[], b"no"));
        };
        line["tag"] = json!(operation.tag);
        operation.downloads += 1;
        let (mode, downloads) = (operation.mode.clone(), operation.downloads);
        if let Some(refused) = self.refusal(&house.behaviour, line) {
            return refused;
        }
        let expires = self.draws(house.behaviour.expired);
        let breaks = self.draws(house.behaviour.broken_files);
        let start = if house.shape == Shape::Bria { PICTURE } else { FILM };
        let mut bytes = start.to_vec();
        bytes.extend((0..FILE_BYTES - start.len()).map(|at| (at % 251) as u8));
        let etag = ("etag", "\"v1\"".to_owned());
        let is_first = downloads == 1;
        if expires || (mode == "expired" && is_first) {
            line["expired"] = json!(true);
            return After::GoesOn(answer(403, &[], b"expired"));
        }
        if mode == "not-a-film" {
            return After::GoesOn(answer(200, &[], b"<html>no film</html>"));
        }
        if mode == "untold-size" && is_first {
            // Nothing but the end of the connection tells its end.
            let head = b"HTTP/1.1 200 X\r\netag: \"v1\"\r\nconnection: close\r\n\r\n";
            return After::Ends([&head[..], &bytes[..FILE_BYTES / 2]].concat());
        }
        let asked = request.header("range").strip_prefix("bytes=");
        let asked = asked.map(|text| text.trim_end_matches('-').parse().unwrap_or(0));
        let whole = match asked.map(|from: usize| from.min(FILE_BYTES)) {
            Some(from) => {
                let range = format!("bytes {from}-{}/{FILE_BYTES}", FILE_BYTES - 1);
                answer(206, &[etag, ("content-range", range)], &bytes[from..])
            }
            None => answer(200, &[etag], &bytes),
        };
        if breaks || (mode == "half-file" && is_first) {
            let keeps = whole.len() - whole.len().min(FILE_BYTES / 2);
            return After::Ends(whole[..keeps].to_vec());
        }
        line["whole"] = json!(true);
        self.slowly(whole, &house.behaviour, line)
    }
}

/// What the first poll of an operation of this mode is answered, if it is odd.
fn odd(mode: &str) -> Option<After> {
    let head = b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\n";
    let goes_on = |status, header: (&str, &str), body: &[u8]| {
        After::GoesOn(answer(status, &[(header.0, header.1.to_owned())], body))
    };
    Some(match mode {
        "huge" => {
            let bytes = [&head[..], b"content-length: 1073741824\r\n\r\n{\"a\": \""].concat();
            After::Endless(bytes, b"xxxxxxxx")
        }
        "endless" => {
            let chunked = [&head[..], b"transfer-encoding: chunked\r\n\r\n"].concat();
            After::Endless(chunked, b"4\r\nxxxx\r\n")
        }
        "retry-year" => goes_on(503, ("retry-after", "31536000"), b"{}"),
        "retry-past" => goes_on(503, ("retry-after", "Fri, 01 Jan 1999 00:00:00 GMT"), b"{}"),
        "page" => After::GoesOn(answer(200, &[], b"<html>come back later</html>")),
        "half" => After::Ends([&head[..], b"content-length: 99\r\n\r\n{\"st"].concat()),
        "redirect-loopback" => goes_on(302, ("location", "http://127.0.0.1:1/"), b""),
        _ => return None,
    })
}
