//! What the ops' outputs are checked for besides what renditions are: that every stream is there
//! and as it was asked for, and that sound and pictures begin and end together as in the source.

use super::super::film::facts::{Answer, Facts};
use super::super::film::probe::{self, Film};
use super::super::film::scan::{Scan, Track};
use super::super::film::truncation::{length_text, tolerance_us};
use super::super::host::Host;
use super::super::output::verify::{NEARLY, lost_frames};
use super::super::progress::Block;
use super::super::tools::Tools;
use shiftboss_protocol::job::{Cause, Failure};
use std::path::Path;

/// How far sound may be off the pictures more than it is in the source, microseconds: encoders
/// add a little before the first sample and fill the last packet. From 0.2 s on people hear it.
const SYNC_US: i64 = 120_000;

/// An output, opened and read to its end.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) facts: Facts,
    pub(super) answer: Answer,
    pub(super) scan: Scan,
}

/// Opens the output at `path`, which has `bytes` bytes; `what` names it in failures.
///
/// # Errors
/// A retryable [`Failure`]: FFmpeg said that all was well.
pub(super) fn open(
    host: &dyn Host,
    tools: &Tools,
    path: &Path,
    (bytes, what): (u64, &str),
) -> Result<Opened, Failure> {
    let again = |failure: Failure| Failure { permanent: false, ..failure };
    let answer = probe::answer(host, tools, path).map_err(again)?;
    let facts = answer.facts().ok_or_else(|| wrong(what, "it has no video stream"))?;
    let doing = format!("checking {what}");
    let scan = Scan::with_clock(facts.video.stream, None);
    let scan = probe::scan(host, tools, path, bytes, ((&doing, Some(NEARLY)), scan));
    let mut scan = scan.map_err(again)?;
    scan.pictures.sort();
    scan.take_begins(answer.begins());
    if let Some(words) = &scan.cut {
        return Err(wrong(what, &format!("it is cut: {words}")));
    }
    Ok(Opened { facts, answer, scan })
}

/// The failure of an output that is not what FFmpeg was asked for.
pub(super) fn wrong(what: &str, sentence: &str) -> Failure {
    Failure::retryable(Cause::Error, format!("the {what} failed its check: {sentence}"))
}

impl Opened {
    /// Its streams' kinds and codecs, such as `video h264`, in order.
    pub(super) fn streams(&self) -> Vec<String> {
        let streams = self.answer.streams.iter();
        let codec = |name: &Option<String>| name.clone().unwrap_or_else(|| "unknown".to_owned());
        streams
            .map(|stream| format!("{} {}", stream.codec_type, codec(&stream.codec_name)))
            .collect()
    }

    /// Whether picture and tracks are what was planned.
    ///
    /// # Errors
    /// A sentence that says what is there instead.
    pub(super) fn is_like(
        &self,
        (codec, size): (&str, (u32, u32)),
        sounds: &[&str],
    ) -> Result<(), String> {
        let mut planned = vec![format!("video {codec}")];
        planned.extend(sounds.iter().map(|codec| format!("audio {codec}")));
        let found = self.streams();
        if found != planned {
            return Err(format!("it holds {found:?}, {planned:?} were planned"));
        }
        let (width, height) = (self.facts.video.width, self.facts.video.height);
        if (width, height) != size {
            return Err(format!("it is {width}x{height}, {}x{} was planned", size.0, size.1));
        }
        Ok(())
    }

    pub(super) fn video(&self) -> Track {
        self.scan.tracks.get(&self.facts.video.stream).cloned().unwrap_or_default()
    }

    /// Its packets, with all its tracks of sound in order.
    pub(super) fn times(&self) -> Times<'_> {
        let sounds = self.answer.streams.iter().filter(|stream| stream.codec_type == "audio");
        let sounds = sounds.map(|stream| stream.index).collect();
        Times { scan: &self.scan, video: self.facts.video.stream, sounds }
    }

    /// Whether every frame of the film is in it, as far as they can be decoded. Returns what people
    /// should know although it is good. `last` is FFmpeg's own report of the run.
    ///
    /// # Errors
    /// A retryable [`Failure`] when the output contradicts FFmpeg, a permanent one when it shows
    /// that the film is damaged.
    pub(super) fn is_complete(
        &self,
        film: &Film,
        last: &Block,
        what: &str,
    ) -> Result<Vec<String>, Failure> {
        let damaged = |sentence: String| {
            let message = format!("the input is damaged or truncated: {sentence}");
            Err(Failure::permanent(Cause::Error, message))
        };
        let (made, frames) = (self.video(), self.video().packets);
        if frames == 0 {
            return damaged("none of its frames could be decoded".to_owned());
        }
        if !last.is_last {
            return Err(wrong(what, "ffmpeg ended without its final report"));
        }
        if let Some(reported) = last.frame.filter(|reported| *reported != frames) {
            let sentence = format!("it holds {frames} frames, ffmpeg reported {reported}");
            return Err(wrong(what, &sentence));
        }
        let source = film.scan.tracks.get(&film.facts.video.stream).cloned().unwrap_or_default();
        let lost = lost_frames(film, &source, frames + last.drop_frames);
        let lost_text = format!("{lost} of its {} frames could not be decoded", source.decodable);
        if lost > (source.decodable / 50).max(10) {
            return damaged(lost_text);
        }
        if let Some((found, wanted)) = made.span_us().zip(source.span_us())
            && source.has_steady_clock()
            && (found - wanted).abs() > tolerance_us(wanted)
        {
            let (found, wanted) = (length_text(found), length_text(wanted));
            return damaged(format!("its pictures span {wanted}, those that were decoded {found}"));
        }
        Ok(if lost > 0 { vec![lost_text] } else { Vec::new() })
    }
}

/// The packets of a file, and which of its streams are compared.
#[derive(Clone, Debug)]
pub(super) struct Times<'a> {
    pub(super) scan: &'a Scan,
    pub(super) video: u32,
    pub(super) sounds: Vec<u32>,
}

impl Times<'_> {
    /// How much later than the pictures a track begins, and how much later than the begin of the
    /// last picture it ends, microseconds.
    fn offsets(&self, sound: u32) -> Option<(i64, i64)> {
        let video = self.scan.tracks.get(&self.video)?;
        let sound = self.scan.tracks.get(&sound)?;
        if !video.has_steady_clock() || !sound.has_steady_clock() {
            return None;
        }
        let begin = sound.heard_us.or(sound.first_us)?;
        Some((begin - video.first_us?, sound.end_us? - video.last_us?))
    }
}

/// Compares output and source: every track of sound is there, and lies beside the pictures as it
/// did. Sources whose clocks jump are compared by nothing but the presence of packets.
///
/// # Errors
/// A sentence that names the track.
pub(super) fn sync(source: &Times<'_>, output: &Times<'_>) -> Result<(), String> {
    lies_between(source, source, output)
}

/// The same for an output that begins like `first` and ends like `last`.
///
/// # Errors
/// As [`sync`].
pub(super) fn lies_between(
    first: &Times<'_>,
    last: &Times<'_>,
    output: &Times<'_>,
) -> Result<(), String> {
    if first.sounds.len() != output.sounds.len() {
        let (found, planned) = (output.sounds.len(), first.sounds.len());
        return Err(format!("it has {found} tracks of sound, {planned} were planned"));
    }
    for (at, sound) in output.sounds.iter().enumerate() {
        let count = |times: &Times<'_>, stream: u32| {
            times.scan.tracks.get(&stream).map_or(0, |track| track.packets)
        };
        let (begin, end) = (first.sounds.get(at), last.sounds.get(at));
        if count(output, *sound) == 0 && begin.is_some_and(|begin| count(first, *begin) > 0) {
            return Err(format!("its track {} of sound holds no packet", at + 1));
        }
        let begin = begin.and_then(|begin| first.offsets(*begin));
        let end = end.and_then(|end| last.offsets(*end));
        let Some(((begin, end), found)) = begin.zip(end).zip(output.offsets(*sound)) else {
            continue;
        };
        off_place(at + 1, ("begins", begin.0, found.0))?;
        off_place(at + 1, ("ends", end.1, found.1))?;
    }
    Ok(())
}

fn off_place(number: usize, (end, was, is): (&str, i64, i64)) -> Result<(), String> {
    if (is - was).abs() <= SYNC_US {
        return Ok(());
    }
    let (off_ms, most_ms) = ((is - was) / 1000, SYNC_US / 1000);
    Err(format!(
        "its track {number} of sound {end} {off_ms} ms off its place beside the pictures, \
         {most_ms} ms are allowed"
    ))
}

/// Where pictures and sound begin and end, microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) begin_us: i64,
    pub(super) end_us: i64,
}

/// Whether pictures and sound fill this place.
///
/// # Errors
/// A sentence that names the track.
pub(super) fn fills(place: Place, output: &Times<'_>) -> Result<(), String> {
    for stream in output.sounds.iter().chain([&output.video]) {
        let track = output.scan.tracks.get(stream);
        let Some((first, end)) = track.and_then(|track| track.first_us.zip(track.end_us)) else {
            return Err(format!("its stream {stream} holds no packet"));
        };
        for (word, is, planned) in [("begins", first, place.begin_us), ("ends", end, place.end_us)]
        {
            if (is - planned).abs() > SYNC_US {
                let (is_ms, planned_ms) = (is / 1000, planned / 1000);
                return Err(format!(
                    "its stream {stream} {word} at {is_ms} ms, {planned_ms} ms was planned"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures from 0 to 10 s, and sound between these times.
    fn scan(from: f64, to: f64) -> Scan {
        let mut scan = Scan::default();
        for (stream, from, to) in [(0, 0.0, 10.0), (1, from, to)] {
            let mut time: f64 = from;
            while time < to - 0.001 {
                let line = format!(
                    "stream_index={stream}|pts_time={time}|dts_time={time}|duration_time=0.1\
                     |flags=K_"
                );
                scan.on_stdout(line.as_bytes());
                time += 0.1;
            }
        }
        scan
    }

    fn times(scan: &Scan) -> Times<'_> {
        Times { scan, video: 0, sounds: vec![1] }
    }

    #[test]
    fn sound_that_lies_as_it_did_is_in_sync() {
        let (source, output) = (scan(0.5, 9.0), scan(0.55, 9.05));
        assert_eq!(sync(&times(&source), &times(&output)), Ok(()));
    }

    #[test]
    fn sound_that_runs_away_ends_early_or_is_missing_is_found() {
        let source = scan(0.5, 9.0);
        for (output, words) in [
            (scan(0.0, 9.0), "begins -500 ms off"),
            (scan(0.5, 9.4), "ends 400 ms off"),
            (scan(0.5, 6.0), "ends -3000 ms off"),
            (scan(0.0, 0.0), "holds no packet"),
        ] {
            let sentence = sync(&times(&source), &times(&output)).expect_err(words);
            assert!(sentence.contains(words), "{sentence}");
        }
        let none = Times { sounds: Vec::new(), ..times(&source) };
        assert!(sync(&times(&source), &none).is_err_and(|sentence| sentence.contains("0 tracks")));
    }
}
