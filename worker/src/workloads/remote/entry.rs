//! One operation as the engine holds it: what it is, whose attempt, and what it waits for.

use super::download::Part;
use super::payload::{Payload, Target};
use crate::workload::crowd::Guest;
use serde_json::Value;
use shiftboss_protocol::job::{Cause, Failure};
use shiftboss_provider::Moment;
use shiftboss_provider::description::Provider;
use shiftboss_provider::operation::{Call, Item, Link, Operation, Record, Resolution};
use shiftboss_provider::queue::{Line, Turn};
use shiftboss_provider::request::{self, Request};
use shiftboss_provider::template::Scope;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Least time between two reports of an operation whose state is the same.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// An operation in the engine's care.
pub(super) struct Entry {
    pub(super) operation: Operation,
    pub(super) guest: Guest,
    pub(super) line: Line,
    /// JSON text of the input: of most operations it is needed once.
    input: Box<str>,
    pub(super) target: Option<Box<Target>>,
    /// Held from its turn until its request is sent.
    pub(super) turn: Option<Turn>,
    /// The number of the checkpoint that is waited for.
    pub(super) awaited: u64,
    pub(super) part: Part,
    told_at: Option<Moment>,
    told: String,
}

/// What the engine needs to begin one.
pub(super) struct Start {
    pub(super) payload: Payload,
    pub(super) target: Option<Target>,
    pub(super) record: Record,
}

impl Start {
    /// Reads payload and checkpoint of an attempt.
    pub(super) fn read(guest: &Guest) -> Result<Self, Failure> {
        let payload = Payload::read(guest.job())?;
        let target = payload.target(guest.job(), guest.context().settings())?;
        let refuse = |why: String| Failure::permanent(Cause::Payload, why);
        let mut record = match &guest.job().checkpoint {
            Some(bytes) => Record::read(bytes).map_err(refuse)?,
            None => Record::new(payload.provider.clone(), new_key()),
        };
        if record.provider != payload.provider {
            let (was, is) = (&record.provider, &payload.provider);
            return Err(refuse(format!("it was begun at provider {was}, and now names {is}")));
        }
        if let (Some(id), None) = (&payload.adopt, &guest.job().checkpoint) {
            record.resolution = Some(Resolution::Adopt(id.clone()));
        }
        Ok(Self { payload, target, record })
    }
}

/// Random, so that no other job of any database has it.
fn new_key() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    let mut key = "sb-".to_owned();
    for byte in bytes {
        let _ = write!(key, "{byte:02x}");
    }
    key
}

impl Entry {
    pub(super) fn new(
        mut guest: Guest,
        provider: &Arc<Provider>,
        line: Line,
        start: Start,
    ) -> Self {
        let seed = start
            .record
            .key
            .bytes()
            .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        drop(guest.take_payload());
        let wants_files = start.target.is_some();
        Self {
            operation: Operation::new(Arc::clone(provider), start.record, seed, wants_files),
            guest,
            line,
            input: start.payload.input.to_string().into_boxed_str(),
            target: start.target.map(Box::new),
            turn: None,
            awaited: 0,
            part: Part::default(),
            told_at: None,
            told: String::new(),
        }
    }

    /// The request of this call; of a download, only where the description says how to ask.
    pub(super) fn request(
        &self,
        call: Call,
        secret: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Request>, String> {
        let provider = self.operation.provider();
        let mut known = self.operation.record().known.clone();
        known.insert("base".to_owned(), provider.base.clone());
        known.insert("job".to_owned(), self.guest.job().id.to_string());
        known.insert("key".to_owned(), self.operation.record().key.clone());
        if let Call::Download(at) = call {
            let template = provider.download.as_ref().and_then(|download| download.url.as_ref());
            let Some(Item::Link(Link(url))) =
                self.operation.item(at).filter(|_| template.is_some())
            else {
                return Ok(None);
            };
            known.insert("url".to_owned(), url.clone());
        }
        let input: Value = serde_json::from_str(&self.input).unwrap_or_default();
        let scope = Scope { input: &input, known: &known, secret };
        request::build(provider, call, scope).map(Some)
    }

    /// Tells people how it stands, when that has changed or was told long ago.
    pub(super) fn tell(&mut self, now: Moment, mask: impl Fn(&str) -> String) {
        let note = mask(&self.operation.note(now));
        // What counts up all the time is no change.
        let same = note.split(", polls ").next().unwrap_or_default();
        let error = note.split(", last error: ").nth(1).unwrap_or_default();
        let state = format!("{same}{error}");
        let is_recent = self.told_at.is_some_and(|at| now < at + TOLD_EVERY);
        if is_recent && state == self.told {
            return;
        }
        self.told_at = Some(now);
        self.told = state;
        self.guest.context().progress(self.operation.progress(), &note);
    }
}
