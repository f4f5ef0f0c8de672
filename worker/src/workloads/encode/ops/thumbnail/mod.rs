//! The op `thumbnail`: pictures that stand for a film. A poster, a sheet of small pictures with an
//! index for the seek bar (WebVTT), and a short moving preview.
//!
//! Published like renditions: all or none, checked first.

mod graph;
mod payload;
mod plan;

use super::super::film::facts::Facts;
use super::super::film::probe;
use super::super::host::{Host, go_on};
use super::super::output::delivery::{self, Begun, Delivery, Ready};
use super::super::output::names::path_text;
use super::super::output::publish::{self, Staging};
use super::super::run::Files;
use super::super::tools::Tools;
use super::details;
use super::filters::Look;
use super::jpeg;
use super::show::{self, Shown};
use crate::attempt::Job;
use crate::parse_payload;
use payload::Payload;
use plan::{Plan, PosterWork, Work};
use serde_json::{Value, json};
use shiftboss_protocol::job::{Cause, Failure};
use std::path::Path;

/// How far the length of a preview may lie from what was asked, milliseconds: each of its clips
/// ends with a whole frame.
const LENGTH_TOLERANCE_MS: u64 = 500;

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
    let bytes = probe::size_of_file(&input)?;
    let (facts, length_ms) = look_at(host, &tools, &input, payload.is_poster_alone())?;
    let details = details::of(host, &tools, &input)?;
    let detail = details.stream(facts.video.stream).cloned().unwrap_or_default();
    let look = Look::of(&facts, &detail)?;
    let plan = Plan::of(&payload, &facts, length_ms, &input)?;
    delivery.deliver(host, |staging| {
        let (tools, input, of) = (&tools, &input, (&facts, &look));
        let maker = Maker { host, tools, input, of, staging };
        let outputs = maker.make(&plan, &delivery)?;
        let input = json!({ "path": path_text(input), "bytes": bytes, "length_ms": length_ms });
        Ok(Ready { names: plan.names(), result: json!({ "outputs": outputs, "input": input }) })
    })
}

/// What a film is and how long, milliseconds. What shows all of it needs all of it: then its
/// packets are counted, and a film that ends before its time is refused. A poster does with the
/// header.
fn look_at(
    host: &dyn Host,
    tools: &Tools,
    input: &Path,
    is_poster_alone: bool,
) -> Result<(Facts, u64), Failure> {
    if is_poster_alone {
        host.progress(None, "opening the input");
        let answer = probe::answer(host, tools, input)?;
        let facts = answer.facts().ok_or_else(|| {
            let message = format!("input {} {}", input.display(), answer.no_film());
            Failure::permanent(Cause::Error, message)
        })?;
        if let Some(length_ms) = facts.duration_ms.or(facts.video.declared_ms) {
            return Ok((facts, length_ms));
        }
    }
    let film = probe::film(host, tools, input, None)?;
    let is_steady = film.scan.tracks.values().all(|track| track.has_steady_clock());
    let measured_ms = u64::try_from(film.scan.length_us() / 1000).ok().filter(|_| is_steady);
    let declared_ms = film.facts.duration_ms.or(film.facts.video.declared_ms);
    let length_ms = measured_ms.or(declared_ms).unwrap_or(0);
    Ok((film.facts, length_ms))
}

struct Maker<'a> {
    host: &'a dyn Host,
    tools: &'a Tools,
    input: &'a Path,
    of: (&'a Facts, &'a Look),
    staging: &'a Staging,
}

impl Maker<'_> {
    /// Makes and checks all files; returns what the result says of them.
    fn make(&self, plan: &Plan, delivery: &Delivery<'_>) -> Result<Vec<Value>, Failure> {
        let mut outputs = Vec::new();
        for (at, work) in plan.works.iter().enumerate() {
            go_on(self.host)?;
            #[expect(clippy::cast_precision_loss, reason = "a handful of works")]
            let share = |works: usize| works as f64 / plan.works.len() as f64;
            self.host.progress(Some(share(at)), &format!("making the {}", work.kind()));
            let staged = self.staging.path_of(work.name());
            let at_ms = self.run(work, &staged, (share(at), share(at + 1)))?;
            let mut facts = self.check(work, &staged, at_ms)?;
            let bytes = self.staging.bytes_of(work.name())?;
            facts["kind"] = work.kind().into();
            facts["path"] = path_text(&delivery.target(work.name())).into();
            facts["bytes"] = bytes.into();
            outputs.push(facts);
            if let Work::Sprite(sprite) = work {
                let index = self.staging.path_of(&sprite.index_name);
                let text = sprite.index();
                std::fs::write(&index, &text)
                    .map_err(|error| publish::io_failure("cannot write", &index, &error))?;
                let path = path_text(&delivery.target(&sprite.index_name));
                outputs.push(json!({ "kind": "index", "path": path, "bytes": text.len() }));
            }
        }
        Ok(outputs)
    }

    /// Runs FFmpeg; returns where the film was entered, milliseconds. No whole frame may follow
    /// that moment, although the film is longer: then the poster is taken from its begin.
    fn run(&self, work: &Work, output: &Path, (from, to): (f64, f64)) -> Result<u64, Failure> {
        let word = format!("making the {}", work.kind());
        let expected_us = work.progress_ms().map(|ms| ms * 1000);
        let shown = Shown { word: &word, output, expected_us, from, to };
        let run = |work: &Work| {
            let argv = graph::command(&self.tools.ffmpeg, self.input, self.of, work, output);
            let files = Files::of(self.input, self.staging.path());
            show::ffmpeg(self.host, (files, &[]), argv, shown).0.map(|_| ())
        };
        run(work)?;
        let Work::Poster(poster) = work else { return Ok(0) };
        if poster.at_ms == 0 || output.metadata().is_ok_and(|file| file.len() > 0) {
            return Ok(poster.at_ms);
        }
        run(&Work::Poster(PosterWork { at_ms: 0, ..poster.clone() }))?;
        Ok(0)
    }

    fn check(&self, work: &Work, staged: &Path, at_ms: u64) -> Result<Value, Failure> {
        let wrong = |what: String| {
            let message = format!("the {} of {} {what}", work.kind(), self.input.display());
            Failure::retryable(Cause::Error, message)
        };
        let (width, height) = work.size();
        let picture = || {
            // FFmpeg ends well and writes nothing where it could decode nothing.
            let bytes = std::fs::read(staged).unwrap_or_default();
            if bytes.is_empty() {
                let message =
                    format!("none of the frames of {} can be decoded", self.input.display());
                return Err(Failure::permanent(Cause::Error, message));
            }
            match jpeg::size(&bytes) {
                Some(size) if size == (width, height) => Ok(()),
                found => Err(wrong(format!("is {found:?}, {width}x{height} was asked for"))),
            }
        };
        match work {
            Work::Poster(_) => {
                picture()?;
                Ok(json!({ "width": width, "height": height, "at_ms": at_ms }))
            }
            Work::Sprite(sprite) => {
                picture()?;
                Ok(json!({
                    "width": width, "height": height, "columns": sprite.columns,
                    "rows": sprite.rows(), "tiles": sprite.tiles, "interval_ms": sprite.interval_ms,
                }))
            }
            Work::Preview(preview) => {
                let answer = probe::answer(self.host, self.tools, staged)?;
                let facts = answer.facts().ok_or_else(|| wrong("holds no picture".to_owned()))?;
                let found = (facts.video.width, facts.video.height);
                if found != (width, height) {
                    return Err(wrong(format!("is {found:?}, {width}x{height} was asked for")));
                }
                let length = facts.duration_ms.unwrap_or(0);
                let asked = preview.length_ms();
                if length.abs_diff(asked) > LENGTH_TOLERANCE_MS {
                    return Err(wrong(format!("lasts {length} ms, {asked} were asked for")));
                }
                Ok(json!({ "width": width, "height": height, "duration_ms": length }))
            }
        }
    }
}
