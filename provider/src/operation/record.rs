//! What is durable of an operation: the checkpoint of its job.
//!
//! It is written before the provider is told (an intent), and again before anything is done with
//! what the provider answered. The command line writes a person's decision into it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The form that this version writes.
const VERSION: u32 = 1;

/// The longest checkpoint that is read, bytes.
const BYTES_MAX: usize = 1 << 20;

/// Where an operation stands, as far as it must survive a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The form.
    pub v: u32,
    /// Name of the provider.
    pub provider: String,
    /// How far it is.
    pub stage: Stage,
    /// Random text that names this submission to the provider; never used for another one.
    pub key: String,
    /// SHA-256 of what is or was submitted, in hexadecimal.
    pub request: String,
    /// What was taken from the provider's answers, `id` among it.
    #[serde(default)]
    pub known: BTreeMap<String, String>,
    /// When it was submitted, Unix milliseconds.
    #[serde(default)]
    pub since_ms: u64,
    /// What a person decided about a submission whose fate is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Nothing has been sent. Ended by the intent.
    New,
    /// It may have been sent: whether the provider has it is unknown. Ended by its id.
    Submitting,
    /// The provider has it. Ended with the job.
    Submitted,
}

/// A person's decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resolution {
    /// The provider does not have it: submit it, as a new one.
    Resubmit,
    /// The provider has it under this id.
    Adopt(String),
}

impl Record {
    /// That of an operation of which nothing has been sent.
    #[must_use]
    pub fn new(provider: String, key: String) -> Self {
        Self {
            v: VERSION,
            provider,
            stage: Stage::New,
            key,
            request: String::new(),
            known: BTreeMap::new(),
            since_ms: 0,
            resolution: None,
        }
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// A sentence: it is not one of this type, or of a later version.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > BYTES_MAX {
            return Err(format!("a checkpoint of {} bytes, at most {BYTES_MAX}", bytes.len()));
        }
        let record: Self = serde_json::from_slice(bytes)
            .map_err(|error| format!("the checkpoint is none of a provider operation: {error}"))?;
        if record.v != VERSION {
            return Err(format!(
                "the checkpoint has form {}, this version reads {VERSION}",
                record.v
            ));
        }
        Ok(record)
    }

    /// The bytes of the checkpoint.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data has a JSON form")
    }

    /// Writes a person's decision into the checkpoint of a held job.
    ///
    /// # Errors
    /// A sentence: there is nothing to decide, or the id cannot be one.
    pub fn resolve(bytes: &[u8], resolution: Resolution) -> Result<Vec<u8>, String> {
        let mut record = Self::read(bytes)?;
        if record.stage == Stage::Submitted {
            let id = record.known.get("id").map_or("", String::as_str);
            return Err(format!("it was submitted, as {id:?}: there is nothing to decide"));
        }
        if let Resolution::Adopt(id) = &resolution
            && (id.is_empty() || id.len() > 1_000 || id.chars().any(char::is_control))
        {
            return Err("an operation's id has 1 to 1000 characters, none of control".to_owned());
        }
        record.resolution = Some(resolution);
        Ok(record.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_nothing_else_is() {
        let mut record = Record::new("x".to_owned(), "k".to_owned());
        record.known.insert("id".to_owned(), "op/1".to_owned());
        assert_eq!(Record::read(&record.to_bytes()), Ok(record.clone()));
        for bytes in [&b"{}"[..], b"", b"null", b"\xff"] {
            Record::read(bytes).expect_err("no record");
        }
        record.v = 2;
        let refusal = Record::read(&record.to_bytes()).expect_err("a later form");
        assert!(refusal.contains("form 2"), "{refusal}");
    }

    #[test]
    fn a_decision_is_written_only_where_there_is_one_to_make() {
        let mut record = Record::new("x".to_owned(), "k".to_owned());
        record.stage = Stage::Submitting;
        let adopt = Resolution::Adopt("op-7".to_owned());
        let bytes = Record::resolve(&record.to_bytes(), adopt.clone()).expect("unknown fate");
        assert_eq!(Record::read(&bytes).expect("a record").resolution, Some(adopt));
        Record::resolve(&record.to_bytes(), Resolution::Adopt("a\nb".to_owned()))
            .expect_err("no id");
        record.stage = Stage::Submitted;
        let refusal = Record::resolve(&record.to_bytes(), Resolution::Resubmit);
        assert!(refusal.expect_err("it has an id").contains("nothing to decide"));
    }
}
