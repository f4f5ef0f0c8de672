//! What an operation is told, what it wants, and how it ends.

use super::{FileDone, FileError, Record, TEXT_BYTES_MAX, cut};
use crate::Moment;
use crate::description::Provider;
use crate::hint::Hint;
use crate::queue::Class;
use serde_json::Value;

/// What time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic: for everything that is waited for.
    pub at: Moment,
    /// Unix milliseconds: only for what outlives the process.
    pub wall_ms: u64,
}

/// A request to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Begins the operation.
    Submit,
    /// Looks for it by its key.
    Lookup,
    /// Asks for its state.
    Poll,
    /// Asks for its result.
    Fetch,
    /// Fetches the file of this item.
    Download(usize),
    /// Stops it.
    Cancel,
}

impl Call {
    /// The class whose limits it is under.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Submit => Class::Submit,
            Self::Lookup | Self::Poll | Self::Fetch => Class::Poll,
            Self::Download(_) => Class::Download,
            Self::Cancel => Class::Cancel,
        }
    }
}

/// Why an operation must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// For good: the provider is told.
    Cancel,
    /// It goes on elsewhere: the provider is not told.
    Release,
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The job was assigned.
    Begin,
    /// Its turn has come: it may send what it waits for.
    Turn,
    /// What [`Step::Store`] named is durable.
    Stored,
    /// It was not stored and never will be: the job is somebody else's.
    NotStored,
    /// The provider answered.
    Answered(Answer),
    /// It did not.
    Lost(Loss),
    /// A file is there, or is not.
    Downloaded(Result<FileDone, FileError>),
    /// It must stop.
    Stop(Stop),
}

/// What the provider answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// What its headers asked for.
    pub hint: Hint,
    /// Its body as JSON; else why it is none.
    pub body: Option<Value>,
    /// What there was instead of JSON, for people.
    pub unreadable: String,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub struct Loss {
    /// False: not a byte of the request can have reached the provider.
    pub may_have_arrived: bool,
    /// True: another try would meet the same, such as an input that lacks a name.
    pub is_final: bool,
    /// For people.
    pub why: String,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Wait in the queue of this class until `due`, then say [`Event::Turn`].
    Queue {
        /// Under whose limits.
        class: Class,
        /// Not before this.
        due: Moment,
    },
    /// Make this durable, then say [`Event::Stored`].
    Store(Box<Record>),
    /// Send this; what comes of it is an event with the same turn.
    Send(Call),
    /// It is over.
    Finish(Ending),
}

/// How an operation ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// With this result.
    Done(Value),
    /// Without one.
    Failed {
        /// True: another attempt would end the same way, or would pay again.
        permanent: bool,
        /// For people.
        message: String,
    },
    /// Nobody knows whether the provider has it.
    Held(String),
    /// It was stopped for good.
    Cancelled,
    /// It goes on with the job's next attempt.
    Released,
}

impl Answer {
    /// What was wrong, for people: the status, and what the body says of it.
    #[must_use]
    pub fn told(&self, provider: &Provider) -> String {
        let pointers = &provider.errors.message;
        let body = self.body.as_ref();
        let said = body.and_then(|body| {
            pointers.iter().find_map(|pointer| {
                let found = pointer.find(body)?;
                Some(crate::template::plain_text(found).unwrap_or_else(|| found.to_string()))
            })
        });
        let said = said.unwrap_or_else(|| self.unreadable.clone());
        let said = cut(said.trim(), TEXT_BYTES_MAX).to_owned();
        match (self.status, said.is_empty()) {
            (200..=299, false) => said,
            (status, true) => format!("status {status}"),
            (status, false) => format!("status {status}: {said}"),
        }
    }
}
