//! The file in which a worker without a supervisor keeps an outcome: its name and its bytes.
//!
//! The worker writes it, the next supervisor reads it. Both may be of different versions, and
//! the file may be cut or forged: decoding never panics and is bounded like every frame.

use crate::frame::{self, FRAME_BYTES_MAX, PREFIX_BYTES};
use crate::job::{Attempt, JobId, Outcome, Usage};
use serde::{Deserialize, Serialize};

/// The version of the layout below; the first field of every file.
pub const STORED_OUTCOME_VERSION: u32 = 1;

/// Largest such file, bytes: a reader need not take more from one.
pub const STORED_OUTCOME_BYTES_MAX: usize = PREFIX_BYTES + FRAME_BYTES_MAX;

/// What such a file's name ends with.
pub const STORED_OUTCOME_SUFFIX: &str = ".outcome";

/// What is appended to the name while the file is being written. One that is found belongs to a
/// worker that still writes it, or that was killed while it did.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// An outcome that no supervisor has recorded yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOutcome {
    /// [`STORED_OUTCOME_VERSION`] of the writer.
    pub version: u32,
    /// The instance that the attempt belonged to last: the `owner` of its row.
    pub owner: String,
    /// The job.
    pub job: JobId,
    /// Its attempt.
    pub attempt: Attempt,
    /// How it ended.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
    /// Its type.
    pub job_type: String,
}

/// Why a file is no stored outcome.
#[derive(Debug, thiserror::Error)]
pub enum StoredOutcomeError {
    /// It ends before its frame does.
    #[error("file of {0} bytes ends inside its frame")]
    Cut(usize),
    /// It goes on behind its frame.
    #[error("file goes on for {0} bytes behind its frame")]
    LeftOver(usize),
    /// Its writer was of another version.
    #[error("file has version {0}, version {STORED_OUTCOME_VERSION} can be read")]
    Version(u32),
    /// Its frame holds something else.
    #[error("cannot read the file's frame")]
    Frame(#[from] frame::Error),
}

/// What the name of such a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOutcomeName {
    /// As in [`StoredOutcome`].
    pub owner: String,
    /// The job.
    pub job: JobId,
    /// Its attempt.
    pub attempt: Attempt,
}

impl StoredOutcome {
    /// The file's bytes: one frame.
    ///
    /// # Errors
    /// [`frame::Error::MessageTooLarge`] when the texts exceed their bounds.
    pub fn encode(&self) -> Result<Vec<u8>, frame::Error> {
        frame::encode(self)
    }

    /// Reads the file's whole bytes.
    ///
    /// # Errors
    /// Any [`StoredOutcomeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, StoredOutcomeError> {
        // Looked at first: a later version may have a layout that this one cannot read.
        let version = bytes.get(PREFIX_BYTES..).and_then(<[u8]>::first_chunk::<4>);
        let version = version.map(|bytes| u32::from_le_bytes(*bytes));
        if let Some(other) = version.filter(|version| *version != STORED_OUTCOME_VERSION) {
            return Err(StoredOutcomeError::Version(other));
        }
        let mut end = 0;
        let stored = frame::peek(bytes, &mut end)?;
        let stored = stored.ok_or(StoredOutcomeError::Cut(bytes.len()))?;
        match bytes.len() - end {
            0 => Ok(stored),
            left => Err(StoredOutcomeError::LeftOver(left)),
        }
    }

    /// The name that says what the file holds.
    #[must_use]
    pub fn name(&self) -> StoredOutcomeName {
        StoredOutcomeName { owner: self.owner.clone(), job: self.job, attempt: self.attempt }
    }
}

impl StoredOutcomeName {
    /// `<owner>.<job>.<attempt>.outcome`. What could be no part of a file's name in the owner
    /// is written as `%` and two hexadecimal digits.
    #[must_use]
    pub fn file_name(&self) -> String {
        let mut name = String::new();
        for byte in self.owner.bytes() {
            if is_plain(byte) {
                name.push(char::from(byte));
            } else {
                name.push('%');
                name.push(hexadecimal(byte >> 4));
                name.push(hexadecimal(byte & 0xF));
            }
        }
        format!("{name}.{}.{}{STORED_OUTCOME_SUFFIX}", self.job, self.attempt)
    }

    /// What a file's name says; `None` when no worker writes such a name.
    #[must_use]
    pub fn parse(file_name: &str) -> Option<Self> {
        let mut parts = file_name.strip_suffix(STORED_OUTCOME_SUFFIX)?.rsplitn(3, '.');
        let attempt = Attempt(parts.next()?.parse().ok()?);
        let job = JobId(parts.next()?.parse().ok()?);
        let owner = read_owner(parts.next()?)?;
        let name = Self { owner, job, attempt };
        // Refuses what means the same in other letters, such as `+1`, `01` and `%41`.
        (name.file_name() == file_name).then_some(name)
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn hexadecimal(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16).expect("four bits are a digit")
}

fn read_owner(text: &str) -> Option<String> {
    let mut owner = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            owner.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?].map(|digit| char::from(digit).to_digit(16));
        let [Some(high), Some(low)] = digits else { return None };
        owner.push(u8::try_from(high << 4 | low).ok()?);
    }
    String::from_utf8(owner).ok()
}
