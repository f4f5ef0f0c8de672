//! The op `stitch`: clips become one film. As they are where all are alike, which loses nothing and
//! takes seconds; else all are brought to one size, rate and kind of sound.
//!
//! The result says which of both was done, and why.

mod graph;
mod payload;
mod plan;
mod signature;

use super::super::film::probe::{self, Film};
use super::super::film::scan::Track;
use super::super::host::{Host, go_on};
use super::super::output::delivery::{self, Begun, Delivery, Ready};
use super::super::output::names::{file_name, path_text};
use super::super::output::publish::{Staging, io_failure};
use super::super::output::verify::NEARLY;
use super::super::run::{Files, Ran};
use super::super::tools::Tools;
use super::check::{self, Opened, Place, Times};
use super::details::{self, Details};
use super::filters::Look;
use super::show::{self, Shown};
use crate::attempt::Job;
use crate::parse_payload;
use crate::path::{check_read, parse_path};
use graph::{Quality, Source};
use payload::Payload;
use plan::{Part, Plan};
use serde_json::{Value, json};
use shiftboss_protocol::job::{Cause, Failure};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What the output is called in failures.
const WHAT: &str = "stitched film";
/// How far the pictures of copied clips may be stretched, microseconds per clip: where sound is
/// longer than the pictures, the next clip waits for its end.
const JOINT_US: i64 = 100_000;

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
    let tools = Tools::find(host.settings())
        .map_err(|sentence| Failure::retryable(Cause::FailedStart, sentence))?;
    let mut paths = Vec::new();
    for (at, clip) in payload.clips.0.iter().enumerate() {
        let field = format!("inputs[{at}]");
        paths.push(check_read(host.settings(), &field, &parse_path(&field, &clip.input)?)?);
    }
    let mut clips: Vec<Clip> = Vec::new();
    for (at, path) in paths.into_iter().enumerate() {
        go_on(host)?;
        host.progress(None, &format!("checking clip {} of {}", at + 1, payload.clips.0.len()));
        // A film that comes several times is read once.
        let again = clips.iter().find(|clip| clip.footage.path == path);
        let footage = match again {
            Some(clip) => clip.footage.clone(),
            None => Rc::new(Footage::open((host, &tools), path, at)?),
        };
        let part = plan::part(&payload.clips.0[at], at, footage.length_us)?;
        clips.push(Clip { footage, part });
    }
    delivery.deliver(host, |staging| {
        let work = Work { host, tools: &tools, payload: &payload, clips: &clips, staging };
        work.make(&delivery)
    })
}

/// A film, read to its end.
#[derive(Debug)]
struct Footage {
    path: PathBuf,
    film: Film,
    details: Details,
    look: Look,
    /// Of its pictures.
    length_us: i64,
}

/// A part of the output.
#[derive(Debug)]
struct Clip {
    footage: Rc<Footage>,
    part: Part,
}

impl Footage {
    fn open((host, tools): (&dyn Host, &Tools), path: PathBuf, at: usize) -> Result<Self, Failure> {
        // What is wrong with one of many is said with its number.
        let numbered = |failure: Failure| {
            let message = format!("inputs[{at}]: {}", failure.message);
            Failure { message, ..failure }
        };
        let film = probe::film(host, tools, &path, None).map_err(numbered)?;
        let details = details::of(host, tools, &path).map_err(numbered)?;
        let detail = details.stream(film.facts.video.stream).cloned().unwrap_or_default();
        let look = Look::of(&film.facts, &detail).map_err(numbered)?;
        let length_us = plan::length_us(&film.facts, &film.scan).ok_or_else(|| {
            let message = format!(
                "inputs[{at}]: the clock of {} jumps, so nobody knows how long it is: make a \
                 rendition of it first (op \"ladder\")",
                path.display()
            );
            Failure::permanent(Cause::Error, message)
        })?;
        Ok(Self { path, film, details, look, length_us })
    }

    fn kept(&self) -> Vec<&details::Detail> {
        signature::kept(&self.details, self.film.facts.video.stream)
    }

    fn times(&self) -> Times<'_> {
        let sounds = self.details.sounds().map(|sound| sound.index).collect();
        Times { scan: &self.film.scan, video: self.film.facts.video.stream, sounds }
    }

    /// From the first packet that is kept to the end of the last one, microseconds.
    fn packets_us(&self) -> i64 {
        let tracks = &self.film.scan.tracks;
        let kept = || self.kept().into_iter().filter_map(|stream| tracks.get(&stream.index));
        let first = kept().filter_map(|track| track.first_us).min().unwrap_or(0);
        let end = kept().filter_map(|track| track.end_us).max().unwrap_or(0);
        let pictures = self.film.facts.start_us.unwrap_or(0) + self.length_us;
        end.max(pictures) - first
    }

    fn pictures(&self) -> Track {
        let video = self.film.facts.video.stream;
        self.film.scan.tracks.get(&video).cloned().unwrap_or_default()
    }
}

struct Work<'a> {
    host: &'a dyn Host,
    tools: &'a Tools,
    payload: &'a Payload,
    clips: &'a [Clip],
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
        let name = file_name(&self.clips[0].footage.path, "stitched", "mp4");
        let (made, because) = match self.obstacle() {
            Some(because) => (None, because),
            None => match self.copied(&name)? {
                Ok(made) => (Some(made), "all clips are alike".to_owned()),
                Err(reason) => (None, format!("joining by copy did not work: {reason}")),
            },
        };
        let method = if made.is_some() { "copy" } else { "normalised" };
        self.host.log(&format!("stitching, {method}: {because}"));
        let made = match made {
            Some(made) => made,
            None => self.normalised(&name)?,
        };
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
        let clips = self.clips.iter().map(|clip| {
            let Part { from_us, length_us } = clip.part;
            let path = path_text(&clip.footage.path);
            json!({ "path": path, "from_ms": from_us / 1000, "length_ms": length_us / 1000 })
        });
        let result = json!({
            "outputs": [output],
            "method": method,
            "because": because,
            "clips": clips.collect::<Vec<_>>(),
            "warnings": made.warnings,
        });
        Ok(Ready { names: vec![name], result })
    }

    /// Why the clips cannot be joined as they are.
    fn obstacle(&self) -> Option<String> {
        if let Some(wish) = self.payload.wish() {
            return Some(wish.to_owned());
        }
        let kept: Vec<_> = self.clips.iter().map(|clip| clip.footage.kept()).collect();
        if let Some(difference) = signature::difference(&kept) {
            return Some(difference);
        }
        let hides = |clip: &Clip| {
            let track = clip.footage.pictures();
            track.packets != track.decodable || track.damaged > 0
        };
        let at = self.clips.iter().position(hides)?;
        Some(format!("clip {} has pictures that are not shown or not whole", at + 1))
    }

    /// The inner error says why the clips must be encoded after all.
    fn copied(&self, name: &str) -> Result<Result<Made, String>, Failure> {
        let (list, output) = (self.list()?, self.staging.path_of(name));
        let streams: Vec<u32> =
            self.clips[0].footage.kept().iter().map(|stream| stream.index).collect();
        let argv = graph::copy(&self.tools.ffmpeg, &list, &streams, &output);
        let files = Files { input: &list, read: &list, write: Some(self.staging.path()) };
        let read: Vec<&Path> = self.clips.iter().map(|clip| clip.footage.path.as_path()).collect();
        let length_us: i64 = self.clips.iter().map(|clip| clip.footage.packets_us()).sum();
        let expected_us = u64::try_from(length_us).ok();
        let shown = Shown { word: "joining", output: &output, expected_us, from: 0.0, to: NEARLY };
        let Ran { stderr, .. } = match show::ffmpeg(self.host, (files, &read), argv, shown).0 {
            Ok(ran) => ran,
            Err(failure) if failure.exit_code.is_some() => return Ok(Err(failure.message)),
            Err(failure) => return Err(failure),
        };
        let (opened, bytes) = self.open(name, &output)?;
        let warnings = stderr.first().map(|first| format!("ffmpeg reported: {first}"));
        let warnings = warnings.into_iter().collect();
        let frames: u64 = self.clips.iter().map(|clip| clip.footage.pictures().packets).sum();
        let verdict = self.is_like(&opened, frames).and_then(|()| {
            let span = opened.video().span_us().unwrap_or(0);
            let joints = i64::try_from(self.clips.len()).unwrap_or(i64::MAX);
            if (span - length_us).abs() > JOINT_US * joints {
                return Err(format!("its pictures span {span} us, {length_us} were planned"));
            }
            let last = self.clips[self.clips.len() - 1].footage.times();
            let first = self.clips[0].footage.times();
            check::lies_between(&first, &last, &opened.times())
        });
        Ok(verdict.map(|()| Made { opened, bytes, warnings }))
    }

    /// Clips under names of our own, so that a list of them needs no word of a payload.
    fn list(&self) -> Result<PathBuf, Failure> {
        let mut entries = Vec::new();
        for (at, clip) in self.clips.iter().enumerate() {
            let name = format!("clip-{at}");
            let link = self.staging.path_of(&name);
            std::os::unix::fs::symlink(&clip.footage.path, &link)
                .map_err(|error| io_failure("cannot make", &link, &error))?;
            entries.push((name, clip.footage.packets_us()));
        }
        let list = self.staging.path_of("clips.list");
        std::fs::write(&list, graph::list(&entries))
            .map_err(|error| io_failure("cannot write", &list, &error))?;
        Ok(list)
    }

    fn normalised(&self, name: &str) -> Result<Made, Failure> {
        go_on(self.host)?;
        let parts: Vec<_> =
            self.clips.iter().map(|clip| (&clip.footage.film.facts, clip.part)).collect();
        let plan = Plan::of(self.payload, &parts)?;
        let output = self.staging.path_of(name);
        let sources: Vec<Source<'_>> = self
            .clips
            .iter()
            .map(|clip| Source {
                path: &clip.footage.path,
                facts: &clip.footage.film.facts,
                look: &clip.footage.look,
                part: clip.part,
            })
            .collect();
        let quality = Quality {
            crf: self.payload.crf,
            preset: self.payload.preset,
            audio_bitrate: self.payload.audio_bitrate,
        };
        let argv = graph::encode(&self.tools.ffmpeg, &sources, (&plan, quality), &output);
        let files = Files::of(&self.clips[0].footage.path, self.staging.path());
        let read: Vec<&Path> = self.clips.iter().map(|clip| clip.footage.path.as_path()).collect();
        let expected_us = Some(plan.rate.length(plan.frames_in_all(), 1_000_000));
        let shown =
            Shown { word: "stitching", output: &output, expected_us, from: 0.0, to: NEARLY };
        let Ran { stderr, .. } = show::ffmpeg(self.host, (files, &read), argv, shown).0?;
        let (opened, bytes) = self.open(name, &output)?;
        self.judge(&opened, &plan)?;
        let warnings = stderr
            .first()
            .map(|first| format!("ffmpeg reported {} errors, the first: {first}", stderr.errors));
        Ok(Made { opened, bytes, warnings: warnings.into_iter().collect() })
    }

    fn open(&self, name: &str, output: &Path) -> Result<(Opened, u64), Failure> {
        go_on(self.host)?;
        self.host.progress(Some(NEARLY), "checking the output");
        let bytes = self.staging.bytes_of(name)?;
        Ok((check::open(self.host, self.tools, output, (bytes, WHAT))?, bytes))
    }

    /// Whether copied clips are all there.
    fn is_like(&self, opened: &Opened, frames: u64) -> Result<(), String> {
        let kept = self.clips[0].footage.kept();
        let kinds: Vec<String> =
            kept.iter().map(|it| format!("{} {}", it.codec_type, it.codec())).collect();
        let found = opened.streams();
        if found != kinds {
            return Err(format!("it holds {found:?}, {kinds:?} were planned"));
        }
        let found = opened.video().packets;
        if found != frames {
            return Err(format!("it holds {found} frames, {frames} were planned"));
        }
        Ok(())
    }

    /// Whether what was encoded is exactly what was planned.
    fn judge(&self, opened: &Opened, plan: &Plan) -> Result<(), Failure> {
        let wrong = |sentence: String| check::wrong(WHAT, &sentence);
        let sounds: &[&str] = if plan.sound { &["aac"] } else { &[] };
        opened.is_like(("h264", plan.size), sounds).map_err(wrong)?;
        let (found, planned) = (opened.video().packets, plan.frames_in_all());
        if found < planned {
            let message = format!(
                "a clip is damaged or truncated: its clips should make {planned} frames, {found} \
                 could be made"
            );
            return Err(Failure::permanent(Cause::Error, message));
        }
        if found > planned {
            return Err(wrong(format!("it holds {found} frames, {planned} were planned")));
        }
        let length_us = plan.rate.length(planned, 1_000_000);
        let place = Place { begin_us: 0, end_us: i64::try_from(length_us).unwrap_or(i64::MAX) };
        check::fills(place, &opened.times()).map_err(wrong)
    }
}
