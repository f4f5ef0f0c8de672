//! How a command tells how far it is: by lines that match a pattern, or by JSON lines.

use crate::attempt::AttemptContext;
use crate::program::Lines;
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::Value;
use shiftboss_protocol::job::Failure;

/// Largest compiled pattern, bytes. Matching takes linear time whatever the pattern is.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// What the payload's `progress` says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    /// A pattern with a group named `percent` (0 to 100) or `fraction` (0 to 1), for lines of
    /// both streams.
    Regex(String),
    /// Objects on standard output, one a line: `progress` (0 to 1) or `percent`, `note`,
    /// `result`. Other lines are left alone.
    JsonLines(bool),
}

/// A line that a program writes for us.
#[derive(Debug, Deserialize)]
struct JsonLine {
    progress: Option<f64>,
    percent: Option<f64>,
    note: Option<String>,
    result: Option<Value>,
}

enum Reading {
    Nothing,
    Pattern { pattern: Regex, group: &'static str, whole: f64 },
    JsonLines,
}

/// Watches a command's output.
pub(super) struct Watcher {
    context: AttemptContext,
    reading: Reading,
    fraction: Option<f64>,
    note: String,
    result: Option<Value>,
}

impl Watcher {
    pub(super) fn new(source: Option<&Source>, context: AttemptContext) -> Result<Self, Failure> {
        let reading = match source {
            None | Some(Source::JsonLines(false)) => Reading::Nothing,
            Some(Source::JsonLines(true)) => Reading::JsonLines,
            Some(Source::Regex(text)) => compile(text)?,
        };
        Ok(Self { context, reading, fraction: None, note: String::new(), result: None })
    }

    /// What the program said that its result is.
    pub(super) fn into_result(self) -> Option<Value> {
        self.result
    }

    fn read_pattern(&mut self, line: &[u8]) {
        let Reading::Pattern { pattern, group, whole } = &self.reading else { return };
        let number = pattern
            .captures(line)
            .and_then(|found| std::str::from_utf8(found.name(group)?.as_bytes()).ok())
            .and_then(|text| text.trim().parse::<f64>().ok());
        if let Some(number) = number {
            self.context.progress(Some(number / whole), "");
        }
    }

    fn read_json(&mut self, line: &[u8]) {
        let Reading::JsonLines = &self.reading else { return };
        if !line.trim_ascii_start().starts_with(b"{") {
            return;
        }
        let Ok(line) = serde_json::from_slice::<JsonLine>(line) else { return };
        let fraction = line.progress.or(line.percent.map(|percent| percent / 100.));
        let says_something = fraction.is_some() || line.note.is_some();
        self.fraction = fraction.or(self.fraction);
        self.note = line.note.unwrap_or_else(|| std::mem::take(&mut self.note));
        self.result = line.result.or_else(|| self.result.take());
        if says_something {
            self.context.progress(self.fraction, &self.note);
        }
    }
}

impl Lines for Watcher {
    fn on_stdout(&mut self, line: &[u8]) {
        self.read_pattern(line);
        self.read_json(line);
    }

    fn on_stderr(&mut self, line: &[u8]) {
        self.read_pattern(line);
    }
}

fn compile(text: &str) -> Result<Reading, Failure> {
    let pattern = RegexBuilder::new(text)
        .size_limit(PATTERN_BYTES_MAX)
        .build()
        .map_err(|error| super::refuse("progress.regex", &error.to_string()))?;
    for (group, whole) in [("percent", 100.), ("fraction", 1.)] {
        if pattern.capture_names().flatten().any(|name| name == group) {
            return Ok(Reading::Pattern { pattern, group, whole });
        }
    }
    let reason = "needs a group named percent or fraction, such as (?<percent>[0-9.]+)%";
    Err(super::refuse("progress.regex", reason))
}
