//! The op `verify`: decodes a file to its end and says whether it is whole.
//!
//! The job succeeds when the check was made; its result is the verdict. `damaged` needs a reason
//! that is about the file: errors that every decoder prints at the begin of a film, and clocks that
//! jump, are none.

use super::super::arguments::MEDIA_GUARD;
use super::super::classify::Stderr;
use super::super::film::facts::{self, Answer};
use super::super::film::probe::{self, Film};
use super::super::film::scan::Scan;
use super::super::film::truncation::{tolerance_us, truncation};
use super::super::host::{Host, go_on};
use super::super::output::decode;
use super::super::output::names::path_text;
use super::super::output::verify::lost_frames;
use super::super::progress::Block;
use super::super::run::Ran;
use super::super::tools::Tools;
use crate::attempt::Job;
use crate::parse_payload;
use serde::Deserialize;
use serde_json::{Value, json};
use shiftboss_protocol::job::{Cause, Failure};
use std::path::Path;
use std::time::Instant;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    #[serde(rename = "op")]
    _op: String,
    input: String,
    #[serde(default)]
    expect: super::super::payload::Expect,
}

/// What is wrong with the file, and what was counted.
struct Finding {
    reasons: Vec<String>,
    warnings: Vec<String>,
    packets: Option<u64>,
    decoded: Option<u64>,
    errors: u64,
}

/// Runs one attempt.
///
/// # Errors
/// A [`Failure`] when the check could not be made.
pub(super) fn run(job: &Job, host: &dyn Host) -> Result<Value, Failure> {
    let payload: Payload = parse_payload(job)?;
    let (input, tools) = super::open(host, &payload.input)?;
    let path = path_text(&input);
    let began = Instant::now();
    let answer = probe::size_of_file(&input).and_then(|bytes| {
        host.progress(None, "opening the input");
        Ok((bytes, probe::ask::<Answer>(host, &tools, &input, (MEDIA_GUARD, facts::ENTRIES))?))
    });
    let (bytes, answer) = match answer {
        Ok(answer) => answer,
        Err(failure) if failure.permanent && failure.cause == Cause::Error => {
            let input = json!({ "path": path });
            let reasons = [failure.message];
            return Ok(json!({"verdict": "unreadable", "reasons": reasons, "input": input}));
        }
        Err(failure) => return Err(failure),
    };
    let finding = match answer.facts() {
        Some(facts) => {
            let work = Work { host, tools: &tools, input: &input };
            work.film(facts, bytes, payload.expect.duration_ms)?
        }
        None => {
            let work = Work { host, tools: &tools, input: &input };
            work.sound(&answer, payload.expect.duration_ms)?
        }
    };
    Ok(json!({
        "verdict": if finding.reasons.is_empty() { "good" } else { "damaged" },
        "reasons": finding.reasons,
        "warnings": finding.warnings,
        "input": { "path": path, "bytes": bytes },
        "film": answer.facts(),
        "packets": finding.packets,
        "decoded_frames": finding.decoded,
        "decoder_errors": finding.errors,
        "verify_ms": u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    }))
}

struct Work<'a> {
    host: &'a dyn Host,
    tools: &'a Tools,
    input: &'a Path,
}

impl Work<'_> {
    /// Counts the packets of a film, then decodes all of it.
    fn film(
        &self,
        facts: facts::Facts,
        bytes: u64,
        expected_ms: Option<u64>,
    ) -> Result<Finding, Failure> {
        let scan = Scan::with_clock(facts.video.stream, facts.video.rate);
        let doing = ("checking the input", None);
        let scan = probe::scan(self.host, self.tools, self.input, bytes, (doing, scan))?;
        let film = Film { facts, scan, bytes };
        let reasons: Vec<String> = truncation(&film, expected_ms).into_iter().collect();
        go_on(self.host)?;
        let length_us = u64::try_from(film.scan.length_us()).ok();
        let video = film.facts.video.stream;
        let ran = self.decode(&[&format!("0:{video}"), "0:a?"], length_us);
        let source = film.scan.tracks.get(&video).cloned().unwrap_or_default();
        let mut finding = Finding {
            reasons,
            warnings: Vec::new(),
            packets: Some(source.packets),
            decoded: None,
            errors: 0,
        };
        let Some(ran) = finding.take(ran)? else { return Ok(finding) };
        finding.decoded = ran.last.frame;
        let decoded = ran.last.frame.unwrap_or(0) + ran.last.drop_frames;
        let lost = lost_frames(&film, &source, decoded);
        if decoded == 0 {
            finding.reasons.push("none of its frames could be decoded".to_owned());
        } else if lost > 0 {
            let all = source.decodable;
            finding.reasons.push(format!("{lost} of its {all} frames could not be decoded"));
        }
        if source.breaks > 0 {
            finding.warnings.push(format!("its clock jumps {} times", source.breaks));
        }
        Ok(finding)
    }

    /// Decodes a file without moving pictures.
    fn sound(&self, answer: &Answer, expected_ms: Option<u64>) -> Result<Finding, Failure> {
        let mut finding = Finding {
            reasons: Vec::new(),
            warnings: Vec::new(),
            packets: None,
            decoded: None,
            errors: 0,
        };
        if !answer.streams.iter().any(|stream| stream.codec_type == "audio") {
            finding.reasons.push("it holds neither moving pictures nor sound".to_owned());
            return Ok(finding);
        }
        let declared = facts::milliseconds(answer.format.duration.as_deref());
        let ran = self.decode(&["0:a"], declared.map(|ms| ms.saturating_mul(1000)));
        let Some(Ran { last: Block { out_time_us, .. }, .. }) = finding.take(ran)? else {
            return Ok(finding);
        };
        let held_us = i64::try_from(out_time_us.unwrap_or(0)).unwrap_or(i64::MAX);
        if let Some(expected_ms) = expected_ms {
            let expected_us = i64::try_from(expected_ms.saturating_mul(1000)).unwrap_or(i64::MAX);
            if (held_us - expected_us).abs() > tolerance_us(expected_us) {
                let held_ms = held_us / 1000;
                finding.reasons.push(format!(
                    "{expected_ms} ms were expected, but its sound is {held_ms} ms long"
                ));
            }
        }
        if held_us == 0 {
            finding.reasons.push("none of its sound could be decoded".to_owned());
        }
        Ok(finding)
    }

    fn decode(&self, streams: &[&str], length_us: Option<u64>) -> Result<Ran, Failure> {
        decode::to_null(
            (self.host, self.tools),
            self.input,
            streams,
            length_us,
            &mut |part, note| {
                self.host.progress(part, note);
            },
        )
    }
}

impl Finding {
    /// Takes over what the decoders complained about. `None`: they could not go on.
    fn take(&mut self, ran: Result<Ran, Failure>) -> Result<Option<Ran>, Failure> {
        let ran = match ran {
            Ok(ran) => ran,
            Err(failure) if failure.permanent && failure.cause == Cause::Error => {
                self.reasons.push(failure.message);
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        self.judge(&ran.stderr);
        Ok(Some(ran))
    }

    fn judge(&mut self, stderr: &Stderr) {
        let (about_the_file, first) = stderr.within();
        self.errors = stderr.errors;
        match (about_the_file, first) {
            (0, _) if stderr.errors > 0 => {
                let count = stderr.errors;
                self.warnings.push(format!(
                    "decoders said {count} times that pictures before its begin are missing"
                ));
            }
            (0, _) => {}
            (count, first) => {
                let first = first.unwrap_or("no message is known");
                self.reasons.push(format!("decoders reported {count} errors, the first: {first}"));
            }
        }
    }
}
