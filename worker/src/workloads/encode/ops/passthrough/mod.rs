//! The op `passthrough`: a film in the container that is asked for, with every stream taken over
//! as it is that already fits. What was done with each, and why, is the result.

mod graph;
mod payload;
mod plan;

use super::super::film::probe::{self, Film};
use super::super::host::{Host, go_on};
use super::super::output::delivery::{self, Begun, Delivery, Ready};
use super::super::output::names::{file_name, path_text};
use super::super::output::publish::Staging;
use super::super::output::verify::NEARLY;
use super::super::run::{Files, Ran};
use super::super::tools::Tools;
use super::check::{self, Opened, Times};
use super::details::{self, Details};
use super::filters::Look;
use super::show::{self, Shown};
use crate::attempt::Job;
use crate::parse_payload;
use payload::Payload;
use plan::{Forced, Found, Plan};
use serde_json::{Value, json};
use shiftboss_protocol::job::Failure;
use std::path::Path;

/// What the output is called in failures, and in its name.
const WHAT: &str = "passthrough";

/// Runs one attempt.
///
/// # Errors
/// The [`Failure`] of the step that failed; nothing is left in the output folder then, unless the
/// outputs are complete and only their renaming was interrupted.
pub(super) fn run(job: &Job, host: &dyn Host) -> Result<Value, Failure> {
    let payload: Payload = parse_payload(job)?;
    let delivery = match delivery::begin(job, host, &payload.output_dir)? {
        Begun::Finished(result) => return Ok(result),
        Begun::Open(delivery) => delivery,
    };
    let (input, tools) = super::open(host, &payload.input)?;
    let film = probe::film(host, &tools, &input, payload.expect.duration_ms)?;
    let details = details::of(host, &tools, &input)?;
    let detail = details.stream(film.facts.video.stream).cloned().unwrap_or_default();
    let look = Look::of(&film.facts, &detail)?;
    delivery.deliver(host, |staging| {
        let (tools, input, film, look) = (&tools, &input, &film, &look);
        let (details, payload) = (&details, &payload);
        let work = Work { host, tools, input, film, details, look, payload, staging };
        work.make(&delivery)
    })
}

struct Work<'a> {
    host: &'a dyn Host,
    tools: &'a Tools,
    input: &'a Path,
    film: &'a Film,
    details: &'a Details,
    look: &'a Look,
    payload: &'a Payload,
    staging: &'a Staging,
}

/// A film that was made and checked.
struct Made {
    opened: Opened,
    bytes: u64,
    warnings: Vec<String>,
}

impl Work<'_> {
    fn make(&self, delivery: &Delivery<'_>) -> Result<Ready, Failure> {
        let name = file_name(self.input, WHAT, self.payload.format.extension());
        let (plan, made) = self.fewest(&name)?;
        let facts = &made.opened.facts;
        let output = json!({
            "path": path_text(&delivery.target(&name)),
            "bytes": made.bytes,
            "width": facts.video.width, "height": facts.video.height,
            "duration_ms": facts.duration_ms,
            "frames": made.opened.video().packets,
            "video_codec": facts.video.codec,
            "audio": facts.audio.is_some(),
        });
        let result = json!({
            "outputs": [output],
            "streams": plan.decisions,
            "input": { "path": path_text(self.input), "bytes": self.film.bytes },
            "warnings": made.warnings,
        });
        Ok(Ready { names: vec![name], result })
    }

    /// Encodes as few streams as work: none first, then the sound, then the picture.
    fn fewest(&self, name: &str) -> Result<(Plan, Made), Failure> {
        let plan = self.plan(None);
        let (made, mut shown) = self.try_out(&plan, name, 0.0);
        let mut fault = match made {
            Ok(made) => return Ok((plan, made)),
            Err(fault) => fault,
        };
        let because = format!("copying did not work: {}", fault.failure.message);
        for what in plan.instead(fault.is_picture) {
            if !is_about_copying(&fault.failure) {
                break;
            }
            self.host.log(&because);
            let plan = self.plan(Some(Forced { what, because: &because }));
            let made;
            (made, shown) = self.try_out(&plan, name, shown);
            match made {
                Ok(made) => return Ok((plan, made)),
                Err(next) => fault = next,
            }
        }
        Err(fault.failure)
    }

    fn plan(&self, forced: Option<Forced<'_>>) -> Plan {
        let (facts, scan) = (&self.film.facts, &self.film.scan);
        Plan::of(Found { facts, scan, details: self.details }, self.payload, forced)
    }

    /// Also returns the share that was shown last.
    fn try_out(&self, plan: &Plan, name: &str, from: f64) -> (Result<Made, Fault>, f64) {
        if let Err(failure) = go_on(self.host) {
            return (Err(failure.into()), from);
        }
        let output = self.staging.path_of(name);
        let of = (self.input, &self.film.facts, self.look);
        let argv = graph::command(&self.tools.ffmpeg, of, (plan, self.payload), &output);
        let word = if plan.encode.is_some() { "encoding" } else { "copying" };
        let expected_us = u64::try_from(self.film.scan.length_us()).ok();
        let shown = Shown { word, output: &output, expected_us, from, to: NEARLY };
        let files = Files::of(self.input, self.staging.path());
        let (ran, furthest) = show::ffmpeg(self.host, (files, &[]), argv, shown);
        (ran.map_err(Fault::from).and_then(|ran| self.check(plan, name, &ran)), furthest)
    }

    fn check(&self, plan: &Plan, name: &str, ran: &Ran) -> Result<Made, Fault> {
        go_on(self.host)?;
        self.host.progress(Some(NEARLY), "checking the output");
        let (bytes, path) = (self.staging.bytes_of(name)?, self.staging.path_of(name));
        let opened = check::open(self.host, self.tools, &path, (bytes, WHAT))?;
        let wrong = |sentence: String| check::wrong(WHAT, &sentence);
        // Chapters may have become a stream of data.
        let mut found = opened.streams();
        found.retain(|stream| !stream.starts_with("data "));
        if found != plan.streams() {
            let planned = plan.streams();
            return Err(wrong(format!("it holds {found:?}, {planned:?} were planned")).into());
        }
        let mut warnings = self
            .pictures(plan, &opened, ran)
            .map_err(|failure| Fault { failure, is_picture: true })?;
        let source = Times {
            scan: &self.film.scan,
            video: plan.video,
            sounds: plan.tracks.iter().map(|track| track.stream).collect(),
        };
        check::sync(&source, &opened.times()).map_err(wrong)?;
        if let Some(first) = ran.stderr.first() {
            let errors = ran.stderr.errors;
            warnings.push(format!("ffmpeg reported {errors} errors, the first: {first}"));
        }
        Ok(Made { opened, bytes, warnings })
    }

    /// Whether every picture is there, in the size that was planned.
    fn pictures(&self, plan: &Plan, opened: &Opened, ran: &Ran) -> Result<Vec<String>, Failure> {
        let (shown, made) = (&self.film.facts.video, &opened.facts.video);
        let size = plan.encode.unwrap_or((shown.width, shown.height));
        if (made.width, made.height) != size {
            let ((width, height), found) = (size, (made.width, made.height));
            let sentence = format!("it is {found:?}, {width}x{height} was planned");
            return Err(check::wrong(WHAT, &sentence));
        }
        if plan.encode.is_some() {
            return opened.is_complete(self.film, &ran.last, WHAT);
        }
        let source = self.film.scan.tracks.get(&plan.video).cloned().unwrap_or_default();
        let packets = opened.video().packets;
        // What comes before the first keyframe is left out: nobody could show it.
        if !(source.decodable..=source.packets).contains(&packets) {
            let all = source.packets;
            let sentence = format!("it holds {packets} pictures, the input {all}");
            return Err(check::wrong(WHAT, &sentence));
        }
        Ok(Vec::new())
    }
}

/// Why a plan did not work.
struct Fault {
    failure: Failure,
    /// It is about the picture for certain.
    is_picture: bool,
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self { failure, is_picture: false }
    }
}

/// What an encode might do better: FFmpeg gave up by itself, or its output was not as planned.
fn is_about_copying(failure: &Failure) -> bool {
    use shiftboss_protocol::job::Cause;
    failure.exit_code.is_some() || (failure.cause == Cause::Error && !failure.permanent)
}
