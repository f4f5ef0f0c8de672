//! Rows as the JSON objects that people and scripts see: the columns by name.
//!
//! `payload` and `result` appear as JSON values, or as a string when they are not JSON; a
//! checkpoint only by its size, and so does a payload that is too large for any job. Other text
//! is cut where it is that long: any program may store some.

use rusqlite::Row;
use rusqlite::types::ValueRef;
use serde_json::{Map, Value, json};
use shiftboss_protocol::frame::TEXT_BYTES_MAX;

/// The columns of `jobs`, in the order of the table.
pub(super) const JOBS: [&str; 23] = [
    "id",
    "type",
    "payload",
    "state",
    "priority",
    "run_at",
    "created_at",
    "started_at",
    "finished_at",
    "attempt",
    "failures",
    "crash_count",
    "max_attempts",
    "timeout_ms",
    "unique_key",
    "tags",
    "owner",
    "cancel_requested_at",
    "progress",
    "progress_note",
    "checkpoint",
    "result",
    "last_error",
];

/// The columns of `attempts`, in the order of the table.
pub(super) const ATTEMPTS: [&str; 16] = [
    "job_id",
    "attempt",
    "instance",
    "worker",
    "pid",
    "started_at",
    "ended_at",
    "outcome",
    "cause",
    "exit_code",
    "signal",
    "cpu_ms",
    "memory_peak",
    "confinement",
    "error",
    "throttled_ms",
];

/// The columns to select for [`job`]: a checkpoint can be large, so only its size is read.
pub(super) const SELECT_JOBS: &str = "id, type, payload, state, priority, run_at, created_at, \
     started_at, finished_at, attempt, failures, crash_count, max_attempts, timeout_ms, \
     unique_key, tags, owner, cancel_requested_at, progress, progress_note, \
     length(checkpoint) AS checkpoint, result, last_error";

/// A row of `jobs`, selected by [`SELECT_JOBS`].
pub(super) fn job(row: &Row<'_>) -> rusqlite::Result<Value> {
    let mut object = Map::new();
    for (index, name) in JOBS.into_iter().enumerate() {
        let value = row.get_ref(index)?;
        let value = match name {
            "payload" | "result" => json_value(value),
            "checkpoint" => match plain_value(value) {
                Value::Null => Value::Null,
                bytes => json!({ "bytes": bytes }),
            },
            _ => plain_value(value),
        };
        object.insert(name.to_owned(), value);
    }
    Ok(Value::Object(object))
}

/// Bytes of text that [`job`] takes from a row.
pub(super) fn text_bytes(row: &Row<'_>) -> rusqlite::Result<usize> {
    let mut bytes = 0;
    for index in 0..JOBS.len() {
        if let ValueRef::Text(text) = row.get_ref(index)? {
            bytes += text.len().min(TEXT_BYTES_MAX);
        }
    }
    Ok(bytes)
}

/// A row of `attempts`, all columns in their order.
pub(super) fn attempt(row: &Row<'_>) -> rusqlite::Result<Value> {
    let mut object = Map::new();
    for (index, name) in ATTEMPTS.into_iter().enumerate() {
        object.insert(name.to_owned(), plain_value(row.get_ref(index)?));
    }
    Ok(Value::Object(object))
}

fn json_value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Text(text) if text.len() > TEXT_BYTES_MAX => json!({ "bytes": text.len() }),
        ValueRef::Text(text) => serde_json::from_slice(text).unwrap_or_else(|_| plain_value(value)),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => {
            plain_value(value)
        }
    }
}

/// Text that is not UTF-8 (any program may store some) is shown with replacement characters.
fn plain_value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT_BYTES_MAX)]);
            text.into_owned().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_not_json_is_shown_as_a_string() {
        assert_eq!(json_value(ValueRef::Text(b"{\"a\":[1]}")), json!({"a": [1]}));
        assert_eq!(json_value(ValueRef::Text(b"{oops")), json!("{oops"));
        assert_eq!(json_value(ValueRef::Text(b"\xff")), json!("\u{fffd}"));
        let long = vec![b'1'; TEXT_BYTES_MAX + 1];
        assert_eq!(json_value(ValueRef::Text(&long)), json!({ "bytes": long.len() }));
        let cut = plain_value(ValueRef::Text(&long));
        assert_eq!(cut.as_str().map(str::len), Some(TEXT_BYTES_MAX));
    }

    #[test]
    fn the_selected_columns_are_those_of_the_contract() {
        let names = SELECT_JOBS.replace("length(checkpoint) AS ", "");
        assert_eq!(names.split(", ").collect::<Vec<_>>(), JOBS);
    }
}
