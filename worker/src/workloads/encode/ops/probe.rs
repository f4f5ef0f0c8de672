//! The op `probe`: what a file is, as the job's result. Reads headers only, not the whole file.

use super::super::arguments::MEDIA_GUARD;
use super::super::film::facts::{self, Answer, milliseconds, ratio};
use super::super::film::probe;
use super::super::host::Host;
use super::super::output::names::path_text;
use crate::attempt::Job;
use crate::parse_payload;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shiftboss_protocol::job::Failure;
use std::collections::HashMap;

/// How ffprobe is asked besides [`facts::ENTRIES`]: once more, so that what the ladder has to read
/// stays small.
const ENTRIES: &str = "format=format_name,duration,start_time,bit_rate\
    :stream=index,codec_type,codec_name,profile,level,width,height,pix_fmt,sample_aspect_ratio,\
    field_order,avg_frame_rate,duration,nb_frames,bit_rate,channels,channel_layout,sample_rate,\
    color_range,color_space,color_transfer,color_primaries\
    :stream_disposition=default,forced,attached_pic:stream_tags=language,title:chapter=id";

/// Longest tag that is kept, characters: a hostile file may have megabytes of title.
const TAG_CHARS_MAX: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    #[serde(rename = "op")]
    _op: String,
    input: String,
}

/// ffprobe's answer. Every field may be missing, numbers arrive as text.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    streams: Vec<Map<String, Value>>,
    chapters: Vec<Value>,
    format: HashMap<String, Value>,
}

/// Runs one attempt.
///
/// # Errors
/// A permanent [`Failure`] when the payload or the file is bad.
pub(super) fn run(job: &Job, host: &dyn Host) -> Result<Value, Failure> {
    let payload: Payload = parse_payload(job)?;
    let (input, tools) = super::open(host, &payload.input)?;
    let bytes = probe::size_of_file(&input)?;
    host.progress(None, "opening the input");
    let told: Told = probe::ask(host, &tools, &input, (MEDIA_GUARD, ENTRIES))?;
    let answer: Answer = probe::ask(host, &tools, &input, (MEDIA_GUARD, facts::ENTRIES))?;
    Ok(json!({
        "input": { "path": path_text(&input), "bytes": bytes },
        "container": told.format.get("format_name"),
        "duration_ms": milliseconds(text(told.format.get("duration"))),
        "start_seconds": number(told.format.get("start_time")),
        "bit_rate": number(told.format.get("bit_rate")),
        "chapters": told.chapters.len(),
        "streams": told.streams.iter().map(stream).collect::<Vec<_>>(),
        // What the ladder would make renditions of; null: nothing that moves.
        "film": answer.facts(),
    }))
}

/// A stream as people and programs want it: numbers as numbers, what is unknown left out.
fn stream(told: &Map<String, Value>) -> Value {
    let mut facts = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            facts.insert(name.to_owned(), value);
        }
    };
    let word = |key: &str| {
        let known = |text: &&str| !matches!(*text, "unknown" | "N/A" | "");
        told.get(key).and_then(Value::as_str).filter(known).map(Value::from)
    };
    put("index", number(told.get("index")));
    put("kind", word("codec_type"));
    put("codec", word("codec_name"));
    for key in ["profile", "pix_fmt", "field_order", "channel_layout"] {
        put(key, word(key));
    }
    for key in ["color_range", "color_space", "color_transfer", "color_primaries"] {
        put(key, word(key));
    }
    for key in ["width", "height", "level", "bit_rate", "channels", "sample_rate", "nb_frames"] {
        put(key, number(told.get(key)));
    }
    put("frame_rate", ratio(text(told.get("avg_frame_rate"))).map(Value::from));
    put("sample_aspect_ratio", ratio(text(told.get("sample_aspect_ratio"))).map(Value::from));
    put("duration_ms", milliseconds(text(told.get("duration"))).map(Value::from));
    let tag = |key: &str| {
        let text = told.get("tags")?.get(key)?.as_str()?;
        Some(Value::from(text.chars().take(TAG_CHARS_MAX).collect::<String>()))
    };
    put("language", tag("language"));
    put("title", tag("title"));
    let flag = |key: &str| {
        let set = told.get("disposition")?.get(key)?.as_i64()? != 0;
        set.then_some(Value::Bool(true))
    };
    put("default", flag("default"));
    put("forced", flag("forced"));
    put("cover", flag("attached_pic"));
    Value::Object(facts)
}

fn text(value: Option<&Value>) -> Option<&str> {
    value?.as_str()
}

/// A number, however it is written; `None` for `N/A` and values that mean "unknown".
fn number(value: Option<&Value>) -> Option<Value> {
    match value? {
        Value::Number(number) if number.as_i64().is_none_or(|number| number >= 0) => {
            Some(number.clone().into())
        }
        Value::String(text) => match text.parse::<i64>() {
            Ok(whole) => Some(whole.into()),
            Err(_) => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Into::into),
        },
        Value::Number(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ffprobe_does_not_know_is_left_out() {
        let told = json!({
            "index": 1, "codec_type": "audio", "codec_name": "aac", "level": -99,
            "channels": 2, "sample_rate": "48000", "bit_rate": "N/A", "avg_frame_rate": "0/0",
            "duration": "2.5", "channel_layout": "unknown", "disposition": {"default": 1},
            "tags": {"language": "deu", "title": "x".repeat(5000)},
        });
        let facts = stream(told.as_object().expect("an object"));
        let title = "x".repeat(TAG_CHARS_MAX);
        assert_eq!(
            facts,
            json!({
                "index": 1, "kind": "audio", "codec": "aac", "channels": 2,
                "sample_rate": 48000, "duration_ms": 2500, "default": true,
                "language": "deu", "title": title,
            })
        );
    }
}
