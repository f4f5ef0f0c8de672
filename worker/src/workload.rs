//! The trait that a workload implements, and the one way in which payloads are read.

pub mod crowd;

use crate::attempt::{AttemptContext, Job};
use crowd::Crowd;
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;
use shiftboss_protocol::job::{Cause, Failure};
use shiftboss_protocol::message::Settings;

/// Code that runs the jobs of one type.
pub trait Workload: Send + Sync {
    /// The name that `workload = "..."` of a type names.
    fn name(&self) -> &'static str;

    /// Called once before the first job, single-threaded: find tools, try codecs, load models.
    /// Returns what it can do, for people.
    ///
    /// # Errors
    /// A sentence that says why this worker can run no job at all; the worker then exits with
    /// code 1 and the supervisor restarts it after a backoff.
    fn set_up(&self, settings: &Settings) -> Result<Vec<String>, String>;

    /// Runs one attempt to its end and returns its result, a JSON value. Called on a thread of
    /// its own. Everything that it started is gone when it returns.
    ///
    /// It must return soon after [`AttemptContext::stop_reason`] says `Some`; what it returns
    /// then is replaced by the outcome that the reason stands for, unless it is a success.
    ///
    /// # Errors
    /// The reason why the attempt failed.
    fn run(&self, job: &Job, context: &AttemptContext) -> Result<serde_json::Value, Failure>;

    /// Whether its attempts start programs ([`crate::program`]).
    ///
    /// A worker that starts none is sealed before its first job, set-up done: it sees its own
    /// folders, the roots of its type and the system's public files, reaches the network of its
    /// type, and cannot execute anything. One that starts programs stays able to build a cage
    /// around each of them, and is trusted not to look into hostile data itself.
    ///
    /// Sealed is the default because forgetting this method must not cost the walls: a workload
    /// that needs programs learns it from its first attempt, which fails with a sentence that
    /// names this method; one that was left open by mistake would never learn it.
    fn starts_programs(&self) -> bool {
        false
    }

    /// How many threads run attempts of this workload when `concurrency` of them may run at
    /// once. Less than `concurrency` suits workloads whose attempts end at once.
    fn threads(&self, concurrency: u32) -> u32 {
        concurrency
    }

    /// What looks after all attempts of this workload on one thread; [`Self::run`] is then never
    /// called. For attempts that mostly wait, thousands of them.
    fn crowd(&self) -> Option<&dyn Crowd> {
        None
    }
}

/// The payload of `job` as the workload's own type. A payload that is not JSON or does not fit
/// fails for good, with the field named.
///
/// # Errors
/// A permanent [`Failure`] with cause [`Cause::Payload`].
pub fn parse_payload<P: DeserializeOwned>(job: &Job) -> Result<P, Failure> {
    let mut reader = serde_json::Deserializer::from_str(&job.payload);
    let payload = serde_path_to_error::deserialize(Whole(&mut reader)).map_err(|error| {
        let field = shortened(&error.path().to_string());
        let reason = error.into_inner();
        let is_no_json = reason.is_syntax() || reason.is_eof();
        let reason = shortened(&without_value(&reason.to_string()));
        let message = if is_no_json {
            format!("payload is not JSON: {reason}")
        } else if field == "." {
            format!("payload does not fit type {}: {reason}", job.job_type)
        } else {
            format!("payload does not fit type {}: field {field}: {reason}", job.job_type)
        };
        Failure::permanent(Cause::Payload, message)
    })?;
    reader.end().map_err(|error| {
        Failure::permanent(Cause::Payload, format!("payload is not JSON: {error}"))
    })?;
    Ok(payload)
}

/// `invalid type: string "s3cret", expected a map`, without the value: it may be a secret, and
/// the sentence goes to the log.
fn without_value(reason: &str) -> String {
    let parts = ["invalid type: ", "invalid value: "].into_iter().find_map(|start| {
        let (found, expected) = reason.strip_prefix(start)?.rsplit_once(", expected ")?;
        let end = found.find(['"', '`']).unwrap_or(found.len());
        Some(format!("{start}{}, expected {expected}", found[..end].trim_end()))
    });
    parts.unwrap_or_else(|| reason.to_owned())
}

/// A name from a payload may be as long as the payload.
fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 300;
    match text.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// A whole payload: what wants named fields gets them from an object only. serde alone would
/// take a list too, its items for fields by their order in the source.
struct Whole<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Whole<D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use shiftboss_protocol::job::{Attempt, JobId};

    #[derive(Debug, PartialEq, Deserialize)]
    struct Named {
        frames: u32,
        #[serde(default)]
        name: Option<String>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        Wait,
        Die { after: u32 },
    }

    fn read<P: DeserializeOwned>(payload: &str) -> Result<P, String> {
        let job = Job {
            id: JobId(1),
            attempt: Attempt(1),
            job_type: "x".to_owned(),
            payload: payload.to_owned(),
            checkpoint: None,
        };
        parse_payload(&job).map_err(|failure| failure.message)
    }

    #[test]
    fn named_fields_come_from_an_object_only() {
        assert_eq!(read(r#"{"frames": 3}"#), Ok(Named { frames: 3, name: None }));
        for list in ["[3]", r#"[3, "x"]"#, "3", "null", r#""x""#] {
            let message = read::<Named>(list).expect_err(list);
            assert!(message.starts_with("payload does not fit type x: invalid type"), "{message}");
        }
        let message = read::<Named>("{}").expect_err("a field is missing");
        assert!(message.contains("missing field `frames`"), "{message}");
        let message = read::<Named>(r#"{"frames": "x"}"#).expect_err("it is text");
        assert!(message.contains("field frames: invalid type"), "{message}");
    }

    #[test]
    fn a_refusal_is_short_and_holds_no_value() {
        let message = read::<Named>(r#"{"frames": "s3cret, expected x"}"#).expect_err("text");
        assert!(message.contains("field frames: invalid type: string, expected u32"), "{message}");
        let message = read::<Named>(r#"{"frames": 1, "name": 12345}"#).expect_err("a number");
        assert!(message.contains("invalid type: integer, expected a string"), "{message}");
        let long = format!("{{\"{}\": 1}}", "x".repeat(100_000));
        let message = read::<std::collections::BTreeMap<String, String>>(&long).expect_err("long");
        assert!(message.len() < 800, "{message}");
    }

    #[test]
    fn every_other_shape_of_a_payload_is_read_as_before() {
        assert_eq!(read("[1, 2]"), Ok(vec![1, 2]));
        assert_eq!(read("7"), Ok(7_u32));
        assert_eq!(read("null"), Ok(None::<u32>));
        assert_eq!(read(r#""wait""#), Ok(Word::Wait));
        assert_eq!(read(r#"{"die": {"after": 2}}"#), Ok(Word::Die { after: 2 }));
        assert_eq!(read("[1, true]"), Ok((1, true)));
        assert!(read::<u32>("7 7").is_err_and(|message| message.contains("not JSON")));
    }
}
