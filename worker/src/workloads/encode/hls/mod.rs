//! HLS with fMP4 segments: packs renditions that were made and verified as MP4, by copy, into a
//! folder with a playlist for each, and checks every segment of it.
//!
//! The sound is a rendition of its own: it is stored once and not for every rung, and a player
//! that switches rungs goes on with the same sound. `boxes`, `codecs`, `playlist` and `check` are
//! pure.

mod arguments;
pub(super) mod boxes;
mod check;
mod codecs;
mod playlist;

use super::film::probe;
use super::film::scan::Scan;
use super::host::go_on;
use super::ladder::Work;
use super::output::names::path_text;
use super::output::parcel::Parcel;
use super::output::publish::Staging;
use super::output::verify::{Made, NEARLY};
use super::run;
use arguments::{Begins, Packing};
use boxes::Init;
use check::{Rendition, segment_name};
use playlist::{Media, Variant};
use serde::Deserialize;
use serde_json::{Value, json};
use shiftboss_protocol::job::{Cause, Failure};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The playlist that players open.
const MASTER: &str = "master.m3u8";
/// A playlist has 40 bytes for each segment, an init segment a kilobyte.
const TEXT_BYTES_MAX: u64 = 16 << 20;
/// A packet of the AAC encoder, and a microsecond of rounding.
const SOUND_PACKET_US: i64 = 1_024_000_000 / 48_000 + 1;
/// What ffprobe is told about our own playlists.
const GUARD: &[&str] = &["-protocol_whitelist", "file", "-format_whitelist", "hls,mov"];

/// The folder that is to be published, and what is in it.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) parcel: Parcel,
    /// In the order of the rungs.
    pub(super) rungs: Vec<Listed>,
    /// In the order of the audio tracks.
    pub(super) sounds: Vec<Listed>,
}

impl Packed {
    /// What the job's result says about the folder, which is to lie at `folder`.
    pub(super) fn result(&self, folder: &Path) -> Value {
        let path = |name: &str| path_text(&folder.join(name));
        let sound = |sound: &Listed| {
            json!({
                "path": path(&sound.playlist),
                "bytes": sound.bytes,
                "segments": sound.segments,
            })
        };
        let audio: Vec<Value> = self.sounds.iter().map(sound).collect();
        json!({
            "master": path(MASTER),
            "segments": self.rungs.first().map(|rung| rung.segments),
            "audio": audio,
        })
    }
}

/// One rendition in the job's result.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) playlist: String,
    pub(super) segments: usize,
    /// Of all its segments.
    pub(super) bytes: u64,
}

impl Listed {
    fn of(rendition: &Rendition) -> Self {
        Self {
            playlist: playlist_name(&rendition.name),
            segments: rendition.segments.len(),
            bytes: rendition.segments.iter().map(|segment| segment.bytes).sum(),
        }
    }
}

/// `audio` for the first track, `audio-2` for the next.
fn sound_name(track: usize) -> String {
    if track == 0 { "audio".to_owned() } else { format!("audio-{}", track + 1) }
}

fn playlist_name(rendition: &str) -> String {
    format!("{rendition}.m3u8")
}

/// Packs the verified outputs `made`, which lie at `staged`, into the folder `name`, in segments
/// of about so many seconds. The MP4 files are gone then.
///
/// # Errors
/// The [`Failure`] of the run or the check that failed.
pub(super) fn pack(
    work: &Work<'_>,
    staging: &Staging,
    (staged, made): (&[PathBuf], &[Made]),
    (name, seconds): (&str, u32),
) -> Result<Packed, Failure> {
    let packer = Packer { work, parcel: staging.parcel(name)?, seconds };
    let mut sounds = Vec::new();
    if let Some(source) = staged.first() {
        for at in 0..work.plan.audio.len() {
            sounds.push(packer.sound(source, at)?);
        }
    }
    let mut rungs = Vec::new();
    for (at, (source, made)) in staged.iter().zip(made).enumerate() {
        go_on(work.host)?;
        let note = format!("packing output {} of {}", at + 1, staged.len());
        work.host.progress(Some(NEARLY), &note);
        rungs.push(packer.rung(source, made)?);
        std::fs::remove_file(source).map_err(|error| {
            let message = format!("cannot remove {}: {error}", source.display());
            Failure::retryable(Cause::Error, message)
        })?;
    }
    packer.compare(&rungs, &sounds)?;
    packer.parcel.write(MASTER, &packer.master(&rungs, made, &sounds))?;
    packer.read_back(made, &rungs, &sounds)?;
    Ok(Packed {
        rungs: rungs.iter().map(Listed::of).collect(),
        sounds: sounds.iter().map(Listed::of).collect(),
        parcel: packer.parcel,
    })
}

struct Packer<'a> {
    work: &'a Work<'a>,
    parcel: Parcel,
    seconds: u32,
}

fn wrong(name: &str, what: &str) -> Failure {
    Failure::retryable(Cause::Error, format!("rendition {name} of HLS failed its check: {what}"))
}

impl Packer<'_> {
    fn rung(&self, source: &Path, made: &Made) -> Result<Rendition, Failure> {
        let wanted = &made.pictures.times_us;
        let is_late = wanted.first().is_some_and(|first| *first > 0);
        let rendition = self.rendition((source, "v:0", is_late), &made.name, (wanted, 0))?;
        if !rendition.media.is_independent {
            return Err(wrong(&made.name, "its segments are not said to be independent"));
        }
        Ok(rendition)
    }

    fn sound(&self, source: &Path, track: usize) -> Result<Rendition, Failure> {
        let (host, name) = (self.work.host, sound_name(track));
        let bytes = run::bytes_of([source]);
        let doing = ("packing the audio", Some(NEARLY));
        // In our own files the pictures are stream 0, and the audio tracks follow.
        let stream = u32::try_from(track + 1).unwrap_or(u32::MAX);
        let scan = Scan::with_clock(stream, None);
        let mut scan = probe::scan(host, self.work.tools, source, bytes, (doing, scan))?;
        scan.pictures.sort();
        let wanted = scan.pictures.times_us;
        // A packet before the first that is heard only sets the decoder going.
        let is_late = wanted.first().is_some_and(|first| *first > SOUND_PACKET_US);
        self.rendition((source, &format!("a:{track}"), is_late), &name, (&wanted, 1))
    }

    /// Samples at these times, microseconds; up to so many before them may be unheard.
    fn rendition(
        &self,
        (source, stream, is_late): (&Path, &str, bool),
        name: &str,
        (wanted, unheard_max): (&[i64], usize),
    ) -> Result<Rendition, Failure> {
        let pack = |begins| {
            let seconds = self.seconds;
            let rendition =
                self.packed(Packing { source, stream, is_late, begins, name, seconds })?;
            let is_good = rendition.check().and_then(|()| rendition.holds(wanted, unheard_max));
            Ok(is_good.map(|()| rendition))
        };
        let first = pack(Begins::Told)?;
        let found = if first.is_err() { pack(Begins::Joined)?.or(first) } else { first };
        found.map_err(|what| wrong(name, &what))
    }

    fn packed(&self, packing: Packing<'_>) -> Result<Rendition, Failure> {
        let Packing { source, name, .. } = packing;
        let argv = arguments::pack(&self.work.tools.ffmpeg, packing);
        let ran = run::ffmpeg_within(self.work.host, (source, self.parcel.path()), argv)?;
        if !ran.last.is_last {
            let message = "ffmpeg ended without its final report".to_owned();
            return Err(Failure::retryable(Cause::Error, message));
        }
        let found = self.open(name)?;
        self.parcel.write(&playlist_name(name), &found.measured().text())?;
        let media = self.media(name)?;
        Ok(Rendition { media, ..found })
    }

    /// Reads what FFmpeg wrote; a film may have taken it over.
    fn open(&self, name: &str) -> Result<Rendition, Failure> {
        let media = self.media(name)?;
        let init = Init::read(&self.read(&media.init)?);
        let init = init.map_err(|what| wrong(name, &format!("{}: {what}", media.init)))?;
        let mut segments = Vec::new();
        for listed in &media.segments {
            go_on(self.work.host)?;
            let segment = init.segment(&mut self.parcel.open(&listed.name)?);
            let named = |what| wrong(name, &format!("{}: {what}", listed.name));
            segments.push(segment.map_err(named)?);
        }
        Ok(Rendition { name: name.to_owned(), media, init, segments })
    }

    /// The playlist of a rendition, which names the files of that one and no others.
    fn media(&self, name: &str) -> Result<Media, Failure> {
        let text = self.read(&playlist_name(name))?;
        let text = String::from_utf8(text).map_err(|_| wrong(name, "its playlist is no text"))?;
        let media = Media::read(&text).map_err(|what| wrong(name, &what))?;
        let mut listed = media.segments.iter().enumerate();
        if media.init == format!("{name}-init.mp4")
            && listed.all(|(at, listed)| listed.name == segment_name(name, at))
        {
            Ok(media)
        } else {
            Err(wrong(name, "its playlist names other files than its own"))
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = self.parcel.open(name)?.take(TEXT_BYTES_MAX).read_to_end(&mut bytes);
        read.map_err(|error| wrong(name, &format!("it cannot be read: {error}")))?;
        Ok(bytes)
    }

    /// Renditions fit each other, and nothing else lies in the folder.
    fn compare(&self, rungs: &[Rendition], sounds: &[Rendition]) -> Result<(), Failure> {
        if let Some((first, others)) = rungs.split_first() {
            for other in others {
                other.is_aligned(first).map_err(|what| wrong(&other.name, &what))?;
            }
        }
        let mut wanted: Vec<String> = Vec::new();
        for rendition in rungs.iter().chain(sounds) {
            wanted.extend([playlist_name(&rendition.name), rendition.media.init.clone()]);
            wanted.extend(rendition.media.segments.iter().map(|listed| listed.name.clone()));
        }
        wanted.sort();
        let found = self.parcel.names()?;
        let strange = found.iter().find(|name| wanted.binary_search(name).is_err());
        match strange {
            Some(name) => Err(wrong(self.parcel.name(), &format!("{name} does not belong to it"))),
            None => Ok(()),
        }
    }

    fn master(&self, rungs: &[Rendition], made: &[Made], sounds: &[Rendition]) -> String {
        let facts = &self.work.film.facts;
        let variants = rungs.iter().zip(made).map(|(rendition, made)| Variant {
            playlist: playlist_name(&rendition.name),
            width: made.width,
            height: made.height,
            rate: self.rate(made),
            codec: rendition.init.codec.clone(),
            bits: rendition.bits(),
        });
        let of = |stream: u32| facts.streams.iter().find(|beside| beside.stream == stream);
        let sounds = sounds.iter().zip(&self.work.plan.audio).map(|(rendition, audio)| {
            let beside = of(audio.stream);
            playlist::Sound {
                playlist: playlist_name(&rendition.name),
                name: rendition.name.clone(),
                language: beside.and_then(|beside| beside.language.clone()),
                is_default: beside.is_some_and(|beside| beside.default),
                channels: audio.channels,
                codec: rendition.init.codec.clone(),
                bits: rendition.bits(),
            }
        });
        playlist::master(&variants.collect::<Vec<_>>(), &sounds.collect::<Vec<_>>())
    }

    /// Pictures per second of an output.
    fn rate(&self, made: &Made) -> f64 {
        let times = &made.pictures.times_us;
        let span = times.last().zip(times.first()).map_or(0, |(last, first)| last - first);
        #[expect(clippy::cast_precision_loss, reason = "times are below 2^52 microseconds")]
        let average = times.len().saturating_sub(1) as f64 * 1e6 / span.max(1) as f64;
        self.work.plan.rate.filter(|_| !self.work.plan.irregular).unwrap_or(average)
    }

    /// A player that opens the master playlist finds every rendition, whole.
    fn read_back(
        &self,
        made: &[Made],
        rungs: &[Rendition],
        sounds: &[Rendition],
    ) -> Result<(), Failure> {
        let master = self.parcel.path().join(MASTER);
        let arguments =
            ["-count_packets", "-show_entries", "stream=codec_type,width,height,nb_read_packets"];
        let places = (master.as_path(), self.parcel.path());
        let (host, tools) = (self.work.host, self.work.tools);
        host.progress(Some(NEARLY), "reading the playlists");
        let answer: Answer = probe::ask_within(host, tools, places, (GUARD, &arguments))?;
        let samples = |rendition: &Rendition| rendition.times_us().len().to_string();
        let mut wanted: Vec<Stream> = Vec::new();
        for (made, rendition) in made.iter().zip(rungs) {
            wanted.push(Stream {
                codec_type: "video".to_owned(),
                width: made.width,
                height: made.height,
                nb_read_packets: samples(rendition),
            });
        }
        wanted.extend(sounds.iter().map(|sound| Stream {
            codec_type: "audio".to_owned(),
            nb_read_packets: samples(sound),
            ..Stream::default()
        }));
        let mut found = answer.streams;
        found.sort();
        wanted.sort();
        if found == wanted {
            Ok(())
        } else {
            Err(wrong(MASTER, &format!("ffprobe finds {found:?} in it instead of {wanted:?}")))
        }
    }
}

/// ffprobe's answer about a master playlist.
#[derive(Debug, Deserialize)]
struct Answer {
    streams: Vec<Stream>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
struct Stream {
    codec_type: String,
    width: u32,
    height: u32,
    nb_read_packets: String,
}
