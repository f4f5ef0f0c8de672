//! The op `keying`: the colour of a screen becomes transparent, or gives way to a background.
//!
//! The key is tried on a handful of frames before anything is encoded, and what the finished file
//! has of it is measured again: readers of VP9 exist that drop the transparency without a word.

mod alpha;
mod border;
mod graph;
mod key;
mod payload;
mod still;

use super::super::film::probe::{self, Film};
use super::super::host::{Host, go_on};
use super::super::output::delivery::{self, Begun, Delivery, Ready};
use super::super::output::names::{file_name, path_text};
use super::super::output::publish::Staging;
use super::super::output::verify;
use super::super::run::{Files, Ran};
use super::super::tools::Tools;
use super::check::{self, Opened, Times};
use super::details;
use super::filters::{Look, even};
use super::samples::{self, SIDE, Subject};
use super::show::{self, Shown};
use super::sound::{Container, Track};
use crate::attempt::Job;
use crate::parse_payload;
use crate::path::{check_read, parse_path};
use alpha::Alpha;
use graph::{Background, Keying};
use key::Key;
use payload::{Format, Payload};
use serde_json::{Value, json};
use shiftboss_protocol::job::{Cause, Failure};
use std::path::Path;
use std::time::Instant;

/// Runs one attempt.
///
/// # Errors
/// The [`Failure`] of the step that failed; nothing is left in the output folder then, unless the
/// outputs are complete and only their renaming was interrupted.
pub(super) fn run(job: &Job, host: &dyn Host) -> Result<Value, Failure> {
    let payload: Payload = parse_payload(job)?;
    let format = payload.format()?;
    let delivery = match delivery::begin(job, host, &payload.output_dir)? {
        Begun::Finished(result) => return Ok(result),
        Begun::Open(delivery) => delivery,
    };
    let (input, tools) = super::open(host, &payload.input)?;
    let behind = match &payload.background {
        None => None,
        Some(text) => {
            let path = parse_path("background", text)?;
            Some(check_read(host.settings(), "background", &path)?)
        }
    };
    let film = probe::film(host, &tools, &input, payload.expect.duration_ms)?;
    let details = details::of(host, &tools, &input)?;
    let behind = behind.map(|path| still::look(host, &tools, path)).transpose()?;
    let Some(detail) = details.stream(film.facts.video.stream) else {
        let message = format!("input {} changed while it was opened", input.display());
        return Err(Failure::retryable(Cause::Error, message));
    };
    let look = Look::of(&film.facts, detail)?;
    let container = format.container();
    let tracks: Vec<Track> =
        details.sounds().map(|sound| Track::of(sound, container, container.sounds())).collect();
    delivery.deliver(host, |staging| {
        let work = Work {
            host,
            tools: &tools,
            input: &input,
            film: &film,
            look: &look,
            tracks: &tracks,
            staging,
            payload: &payload,
            format,
        };
        work.make(behind.as_ref().map(still::Behind::background), &delivery)
    })
}

impl Format {
    const fn container(self) -> Container {
        match self {
            Self::Webm => Container::Webm,
            Self::Mov => Container::Mov,
            Self::Mp4 => Container::Mp4,
        }
    }

    /// What the output's name ends with.
    const fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Webm => ("keyed", "webm"),
            Self::Mov => ("keyed", "mov"),
            Self::Mp4 => ("composed", "mp4"),
        }
    }

    const fn codec(self) -> &'static str {
        match self {
            Self::Webm => "vp9",
            Self::Mov => "prores",
            Self::Mp4 => "h264",
        }
    }

    /// The decoder that gives the transparency back.
    const fn decoder(self) -> Option<&'static str> {
        match self {
            Self::Webm => Some("libvpx-vp9"),
            Self::Mov | Self::Mp4 => None,
        }
    }
}

struct Work<'a> {
    host: &'a dyn Host,
    tools: &'a Tools,
    input: &'a Path,
    film: &'a Film,
    look: &'a Look,
    tracks: &'a [Track],
    staging: &'a Staging,
    payload: &'a Payload,
    format: Format,
}

impl Work<'_> {
    fn make(
        &self,
        background: Option<Background<'_>>,
        delivery: &Delivery<'_>,
    ) -> Result<Ready, Failure> {
        let key = self.key()?;
        let facts = &self.film.facts;
        let keying = Keying {
            input: self.input,
            facts,
            look: self.look,
            key: &key,
            size: even((facts.video.width, facts.video.height)),
            format: self.format,
            crf: self.payload.crf,
            preset: self.payload.preset,
            tracks: self.tracks,
        };
        let planned = self.planned(&keying)?;
        let (what, extension) = self.format.name();
        let name = file_name(self.input, what, extension);
        let staged = self.staging.path_of(&name);
        let began = Instant::now();
        let Ran { last, used, .. } = self.encode(&keying, background, &staged)?;
        let encode_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        go_on(self.host)?;
        self.host.progress(Some(verify::NEARLY), "checking the output");
        let bytes = self.staging.bytes_of(&name)?;
        let opened = check::open(self.host, self.tools, &staged, (bytes, what))?;
        self.check(&opened, keying.size).map_err(|sentence| check::wrong(what, &sentence))?;
        let warnings = opened.is_complete(self.film, &last, what)?;
        let alpha = match self.format {
            Format::Mp4 => planned,
            Format::Webm | Format::Mov => self.found(&opened, (what, &staged), &planned)?,
        };
        let output = json!({
            "path": path_text(&delivery.target(&name)),
            "bytes": bytes,
            "width": keying.size.0, "height": keying.size.1,
            "duration_ms": opened.facts.duration_ms,
            "frames": opened.video().packets,
            "video_codec": opened.facts.video.codec,
            "audio": self.tracks,
            "alpha": alpha.told(),
        });
        let result = json!({
            "outputs": [output],
            "key": key.told(),
            "background": background.map(|background| path_text(background.path())),
            "input": { "path": path_text(self.input), "bytes": self.film.bytes },
            "warnings": warnings,
            "encode_ms": encode_ms,
            "ffmpeg_ms": u64::try_from(used.wall.as_millis()).unwrap_or(u64::MAX),
        });
        Ok(Ready { names: vec![name], result })
    }

    fn subject(&self) -> Subject<'_> {
        let length_ms = u64::try_from(self.film.scan.length_us() / 1000).unwrap_or(0);
        Subject {
            input: self.input,
            stream: self.film.facts.video.stream,
            length_ms,
            decoder: None,
        }
    }

    fn key(&self) -> Result<Key, Failure> {
        Key::of(self.payload, self.look.matrix, || {
            go_on(self.host)?;
            self.host.progress(Some(0.0), "looking for the colour of the screen");
            let filter = graph::bordered(self.look, SIDE);
            let of = (self.subject(), filter.as_str());
            let pixels = samples::take(self.host, self.tools, of, self.staging)?;
            border::find(&pixels, SIDE as usize).map_err(|sentence| {
                let message = format!(
                    "the colour of the screen of {} cannot be found: {sentence}; name it in the \
                     payload field color",
                    self.input.display()
                );
                Failure::permanent(Cause::Error, message)
            })
        })
    }

    /// What the key makes of a handful of frames.
    fn planned(&self, keying: &Keying<'_>) -> Result<Alpha, Failure> {
        go_on(self.host)?;
        self.host.progress(Some(0.0), "trying the key");
        let filter = graph::alpha(&format!("{},", graph::keyed(keying)), SIDE);
        let alpha = self.measure((self.subject(), &filter))?;
        let color = keying.key.color.rgb_text(self.look.matrix);
        alpha.judge(&color).map_err(|sentence| {
            let message = format!("{} cannot be keyed: {sentence}", self.input.display());
            Failure::permanent(Cause::Error, message)
        })?;
        Ok(alpha)
    }

    /// The transparency that the output really has, decoded by what keeps it.
    fn found(
        &self,
        opened: &Opened,
        (what, path): (&str, &Path),
        planned: &Alpha,
    ) -> Result<Alpha, Failure> {
        go_on(self.host)?;
        let subject = Subject {
            input: path,
            stream: opened.facts.video.stream,
            decoder: self.format.decoder(),
            ..self.subject()
        };
        let found = self.measure((subject, &graph::alpha("", SIDE)))?;
        planned.compare(&found).map_err(|sentence| check::wrong(what, &sentence))?;
        Ok(found)
    }

    fn measure(&self, of: (Subject<'_>, &str)) -> Result<Alpha, Failure> {
        let pixels = samples::take(self.host, self.tools, of, self.staging)?;
        alpha::measure(&pixels, SIDE as usize).ok_or_else(|| {
            let film = of.0.input.display();
            Failure::permanent(Cause::Error, format!("none of the frames of {film} can be decoded"))
        })
    }

    fn encode(
        &self,
        keying: &Keying<'_>,
        background: Option<Background<'_>>,
        staged: &Path,
    ) -> Result<Ran, Failure> {
        let argv = graph::command(&self.tools.ffmpeg, keying, background, staged);
        let expected_us = u64::try_from(self.film.scan.length_us()).ok();
        let files = Files::of(self.input, self.staging.path());
        let more: Vec<&Path> = background.map(Background::path).into_iter().collect();
        let shown = Shown { word: "keying", output: staged, expected_us, from: 0.0 };
        show::ffmpeg(self.host, (files, &more), argv, shown).0
    }

    fn check(&self, opened: &Opened, size: (u32, u32)) -> Result<(), String> {
        let sounds: Vec<&str> = self.tracks.iter().map(|track| track.codec).collect();
        opened.is_like((self.format.codec(), size), &sounds)?;
        let (video, sounds) = (self.film.facts.video.stream, self.tracks.iter());
        let sounds = sounds.map(|track| track.stream).collect();
        let source = Times { scan: &self.film.scan, video, sounds };
        check::sync(&source, &opened.times())
    }
}
