//! What a provider's description says, one type per section. How it is read and checked is
//! [`crate::load`]; every key has a default but the few that say where the provider is.

mod auth;

pub use auth::{Auth, Command};

use crate::measure::{Rate, Size, Span};
use crate::template::{Body, Pointer, Template};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// A provider.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Its name, that of its file.
    pub name: String,
    /// One sentence for people.
    #[serde(default)]
    pub about: String,
    /// Where it is: scheme and host, perhaps a path; `{base}` in templates.
    pub base: String,
    /// Hosts besides that of `base` that get the credential.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Private addresses, `10.0.0.7` or `127.0.0.1:8080`, that it may be at, and its results.
    #[serde(default)]
    pub private: Vec<String>,
    /// A file of certificates in PEM that vouch for it, besides those that the host trusts; an
    /// absolute path. For a provider of one's own, with an authority of one's own.
    #[serde(default)]
    pub ca_file: Option<String>,
    /// How requests prove who sends them.
    #[serde(default)]
    pub auth: Auth,
    /// Headers of every request to the provider.
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
    /// How much is sent.
    #[serde(default)]
    pub limits: Limits,
    /// How an operation is begun.
    pub submit: Submit,
    /// How it is asked for. Absent: the answer to the submission is the result.
    #[serde(default)]
    pub poll: Option<Poll>,
    /// What its result is.
    #[serde(default)]
    pub result: Results,
    /// How its files are fetched. Absent: links stay links.
    #[serde(default)]
    pub download: Option<Download>,
    /// How it is told to stop. Absent: it is not told.
    #[serde(default)]
    pub cancel: Option<Cancel>,
    /// What refusals look like.
    #[serde(default)]
    pub errors: Errors,
}

/// How much is sent. Rates hold for all operations of the provider in this worker together.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Of submissions.
    pub submit: Option<Rate>,
    /// Of polls, result requests and lookups.
    pub poll: Option<Rate>,
    /// Of downloads.
    pub download: Option<Rate>,
    /// Of cancels.
    pub cancel: Option<Rate>,
    /// Requests under way at once, each of these classes for itself, from 1 to 256.
    pub in_flight: u32,
}

/// How an operation is begun.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// Method, `POST` if nothing is said.
    #[serde(default = "post")]
    pub method: Method,
    /// Where: `{base}/...`.
    pub url: Template,
    /// Headers besides the provider's.
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
    /// What is sent.
    #[serde(default)]
    pub body: Option<Body>,
    /// In which form.
    #[serde(default)]
    pub encoding: Encoding,
    /// Statuses of an accepted operation.
    #[serde(default = "ok_statuses")]
    pub ok: Vec<u16>,
    /// Signs in an answer of such a status that it was refused all the same.
    #[serde(default)]
    pub fail_if: Vec<Sign>,
    /// What is taken from the answer; `id` is needed where there is a poll.
    #[serde(default)]
    pub take: BTreeMap<String, Pointer>,
    /// What is known of an operation that was submitted elsewhere, beside its `id`.
    #[serde(default)]
    pub adopt: BTreeMap<String, Template>,
    /// How the provider sees that a request is sent again: then it may be.
    #[serde(default)]
    pub dedupe: Dedupe,
    /// What happens when the answer was lost and nothing else settles it.
    #[serde(default)]
    pub on_ambiguous: OnAmbiguous,
    /// How an operation is found whose answer was lost.
    #[serde(default)]
    pub lookup: Option<Lookup>,
    /// Longest wait for the answer.
    #[serde(default = "two_minutes")]
    pub timeout: Span,
}

/// How the provider recognises a request that it has had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Dedupe {
    /// It does not.
    #[default]
    None,
    /// By a header whose value is `{key}`.
    Header {
        /// Its name.
        name: String,
    },
    /// By the `{key}` that stands in the body.
    Body,
}

/// What happens to a submission that may or may not have been accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnAmbiguous {
    /// The job is held until a person decides.
    #[default]
    Hold,
    /// It is sent again: only where that costs nothing.
    Resubmit,
}

/// Finds an operation by the key that was sent with it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// What is asked, by GET.
    pub url: Template,
    /// Where the list of operations is in the answer; one object is a list of one.
    #[serde(default)]
    pub items: Pointer,
    /// Where in an item the key is.
    pub key: Pointer,
    /// What is taken from the item; nothing said: as from the answer to the submission.
    #[serde(default)]
    pub take: BTreeMap<String, Pointer>,
    /// What happens when it is not there.
    #[serde(default)]
    pub on_missing: OnAmbiguous,
}

/// How an operation is asked for.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Poll {
    /// Method, `GET` if nothing is said.
    #[serde(default = "get")]
    pub method: Method,
    /// Where.
    pub url: Template,
    /// What is sent.
    #[serde(default)]
    pub body: Option<Body>,
    /// Where its state is.
    pub status: Pointer,
    /// What the states mean.
    pub map: States,
    /// Signs that it has failed, whatever its state.
    #[serde(default)]
    pub fail_if: Vec<Sign>,
    /// Where its progress is, a number.
    #[serde(default)]
    pub progress: Option<Pointer>,
    /// The number that means done: 1 or 100.
    #[serde(default = "one")]
    pub progress_full: f64,
    /// What is taken from each answer.
    #[serde(default)]
    pub take: BTreeMap<String, Pointer>,
    /// Before the first poll.
    #[serde(default = "one_second")]
    pub first: Span,
    /// Between polls.
    #[serde(default)]
    pub every: Every,
    /// Polls after which it is given up.
    #[serde(default = "polls_max")]
    pub attempts: u32,
    /// Time after which it is given up.
    #[serde(default = "one_day")]
    pub deadline: Span,
}

/// Delay between polls.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Every {
    /// The first.
    pub min: Span,
    /// The longest.
    pub max: Span,
    /// Growth, from 1 to 10.
    pub factor: f64,
    /// Share by which each is shorter or longer, 0 to 0.5.
    pub jitter: f64,
}

/// What the provider's words mean. A word that is in no list means that it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct States {
    /// It waits at the provider.
    pub queued: Vec<Value>,
    /// It runs.
    pub running: Vec<Value>,
    /// It has succeeded.
    pub done: Vec<Value>,
    /// It has failed.
    pub failed: Vec<Value>,
    /// It was stopped.
    pub cancelled: Vec<Value>,
}

/// A sign in an answer: something is there, or has (not) a value.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sign {
    /// Where.
    pub at: Pointer,
    /// It is this.
    #[serde(default)]
    pub eq: Option<Value>,
    /// It is there and is not this.
    #[serde(default)]
    pub ne: Option<Value>,
}

impl Sign {
    /// Whether `answer` shows it.
    #[must_use]
    pub fn shows(&self, answer: &Value) -> bool {
        let Some(found) = self.at.find(answer) else { return false };
        self.eq.as_ref().is_none_or(|value| value == found)
            && self.ne.as_ref().is_none_or(|value| value != found)
    }
}

/// What a result is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Results {
    /// A second request for it: its URL.
    pub fetch: Option<Template>,
    /// Where its items are: a list, or one.
    pub items: Option<Pointer>,
    /// Where in an item its link is; empty: the item is the link.
    pub url: Pointer,
    /// Where in an item its bytes are, in base64.
    pub inline: Option<Pointer>,
    /// Fewer items than this are a failure.
    pub require: u32,
    /// Where it is said why there are too few.
    pub reason: Vec<Pointer>,
    /// What is kept of the answer in the job's result.
    pub value: Option<Pointer>,
    /// Where its cost is.
    pub cost: Option<Pointer>,
}

/// How files are fetched.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Download {
    /// Where the file is: `{url}` is the item's link.
    pub url: Option<Template>,
    /// What the files must be.
    pub kind: Kind,
    /// The largest that is taken.
    pub max: Size,
    /// The smallest.
    pub min: Size,
    /// How often a link that has expired is renewed by polling again.
    pub renewals: u32,
    /// Longest time without a byte.
    pub stall: Span,
    /// Tries of one file, each going on where the last one ended.
    pub attempts: u32,
    /// Bytes per second at most, of all its downloads together; 0: without limit.
    pub rate: Size,
}

/// What a file must begin like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Anything.
    #[default]
    Any,
    /// A film: MP4, QuickTime, Matroska, WebM or AVI.
    Video,
    /// A picture: PNG, JPEG, GIF, WebP or AVIF.
    Image,
    /// Sound: WAV, MP3, FLAC, Ogg or M4A.
    Audio,
}

/// How an operation is told to stop.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// Method, `POST` if nothing is said.
    #[serde(default = "post")]
    pub method: Method,
    /// Where.
    pub url: Template,
}

/// What refusals look like.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Errors {
    /// Statuses of a submission that was surely not accepted and may be tried again.
    pub retry_submit: Vec<u16>,
    /// Where an answer says what was wrong, the first that is there.
    pub message: Vec<Pointer>,
}

/// HTTP methods that a description may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the methods of HTTP")]
pub enum Method {
    Get,
    Post,
    Put,
    Delete,
}

impl Method {
    /// Its word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// In which form a body is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// As JSON.
    #[default]
    Json,
    /// As a form with a part per member.
    Multipart,
}

impl Default for Limits {
    fn default() -> Self {
        Self { submit: None, poll: None, download: None, cancel: None, in_flight: 64 }
    }
}

impl Default for Every {
    fn default() -> Self {
        let (min, max) = (Span(Duration::from_secs(1)), Span(Duration::from_secs(60)));
        Self { min, max, factor: 1.5, jitter: 0.1 }
    }
}

impl Default for Download {
    fn default() -> Self {
        Self {
            url: None,
            kind: Kind::Any,
            max: Size(8 << 30),
            min: Size(1),
            renewals: 3,
            stall: Span(Duration::from_secs(60)),
            attempts: 10,
            rate: Size(0),
        }
    }
}

impl Default for Errors {
    fn default() -> Self {
        let message = ["/error/message", "/error", "/detail", "/message"];
        let message = message.into_iter().map(|text| Pointer::try_from(text.to_owned()));
        Self { retry_submit: vec![429], message: message.filter_map(Result::ok).collect() }
    }
}

fn post() -> Method {
    Method::Post
}

fn get() -> Method {
    Method::Get
}

fn ok_statuses() -> Vec<u16> {
    vec![200, 201, 202]
}

fn one() -> f64 {
    1.0
}

fn one_second() -> Span {
    Span(Duration::from_secs(1))
}

fn two_minutes() -> Span {
    Span(Duration::from_secs(120))
}

fn one_day() -> Span {
    Span(Duration::from_secs(86_400))
}

fn polls_max() -> u32 {
    3_600
}
