//! Whether what FFmpeg made is what was planned: every output is opened again and its packets
//! are counted, then all are compared with each other, with FFmpeg's own numbers and with the
//! film. [`judge`] is pure.

use super::super::film::facts::{Answer, Stream, milliseconds, ratio};
use super::super::film::pictures::Pictures;
use super::super::film::probe::{self, Film};
use super::super::film::scan::{Scan, Track};
use super::super::film::truncation::{length_text, tolerance_us};
use super::super::host::Host;
use super::super::payload::Check;
use super::super::plan::{KEYFRAME_SECONDS, Plan, Rung};
use super::super::progress::Block;
use super::super::tools::Tools;
use super::sync::{self, Pair};
use serde::Serialize;
use shiftboss_protocol::job::{Cause, Failure};
use std::path::Path;

/// Codecs of which every packet that is shown becomes one frame. Others hide frames in
/// packets of their own, or spread one over several.
const FRAME_PER_PACKET: &[&str] =
    &["h264", "hevc", "vp9", "av1", "prores", "dnxhd", "mjpeg", "ffv1"];
/// Two keyframes are at the same time when they differ by less than a frame of any film.
const SAME_TIME_US: i64 = 2_000;

/// The share of the job that is shown until its outputs are verified and in place.
pub(crate) const NEARLY: f64 = 0.999;

/// One output as it was found on disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) duration_ms: u64,
    pub(crate) bytes: u64,
    pub(crate) codec: String,
    pub(crate) audio: bool,
    /// Its video packets.
    pub(crate) video: Track,
    /// Those of its audio tracks, in the order of the plan.
    pub(crate) sounds: Vec<Track>,
    /// When each of its pictures is shown.
    pub(crate) pictures: Pictures,
    /// Frames that its check decoded.
    pub(crate) decoded: u64,
}

/// What the check of an output found, as the job's result tells it. Times are milliseconds by the
/// output's own clock.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Findings {
    kind: Check,
    decoded_frames: u64,
    keyframes: usize,
    /// When the first picture begins and the last one ends.
    video_ms: (i64, i64),
    /// The same of every audio track.
    audio_ms: Vec<(i64, i64)>,
}

impl Made {
    pub(crate) fn findings(&self, kind: Check) -> Findings {
        let ms =
            |track: &Track| (track.first_us.unwrap_or(0) / 1000, track.end_us.unwrap_or(0) / 1000);
        Findings {
            kind,
            decoded_frames: self.decoded,
            keyframes: self.pictures.keys_us.len(),
            video_ms: ms(&self.video),
            audio_ms: self.sounds.iter().map(ms).collect(),
        }
    }
}

/// Opens the output of `rung` at `path`, which has `bytes` bytes.
///
/// # Errors
/// A [`Failure`] that names the rung and what is wrong with its file.
pub(crate) fn open(
    host: &dyn Host,
    tools: &Tools,
    path: &Path,
    bytes: u64,
    (rung, plan): (&Rung, &Plan),
) -> Result<Made, Failure> {
    let name = &rung.name;
    let wrong = |what: String| {
        Failure::retryable(Cause::Error, format!("output {name} failed its check: {what}"))
    };
    // It is ours, and can be made again: a full disk cuts outputs of which FFmpeg says nothing.
    let unread = |failure: Failure| {
        let message = format!("output {name} failed its check: {}", failure.message);
        if failure.permanent { Failure { permanent: false, message, ..failure } } else { failure }
    };
    let answer = probe::answer(host, tools, path).map_err(unread)?;
    let duration_ms = milliseconds(answer.format.duration.as_deref());
    let facts = answer.facts().ok_or_else(|| wrong("it has no video stream".to_owned()))?;
    has_planned_streams(&answer, plan).map_err(wrong)?;
    let video = &answer.streams[0];
    let is_square = ratio(video.sample_aspect_ratio.as_deref()).is_none_or(|aspect| aspect == 1.0);
    let found = (facts.video.codec.as_str(), facts.video.width, facts.video.height);
    if found != (plan.encoder.codec.name(), rung.width, rung.height)
        || facts.video.pixel_format.as_deref() != Some("yuv420p")
        || !is_square
    {
        return Err(wrong(format!("it is {found:?}, {}x{} was planned", rung.width, rung.height)));
    }
    beside(&answer, plan).map_err(wrong)?;
    let transfer = facts.video.transfer.as_deref();
    if plan.treatment.tone_map.is_some() && transfer != Some("bt709") {
        return Err(wrong(format!("its light is {transfer:?}, bt709 was planned")));
    }
    let doing = format!("checking {name}");
    let scan = Scan::with_clock(facts.video.stream, None);
    let doing = (doing.as_str(), Some(plan.check.begin()));
    let mut scan = probe::scan(host, tools, path, bytes, (doing, scan)).map_err(unread)?;
    scan.pictures.sort();
    if let Some(words) = &scan.cut {
        return Err(wrong(format!("it is cut: {words}")));
    }
    let sounds = sounds(&answer, &scan).map_err(wrong)?;
    let end_us = scan.end_us();
    let declared_us = duration_ms.and_then(|ms| i64::try_from(ms * 1000).ok());
    if declared_us.is_none_or(|us| (us - end_us).abs() > tolerance_us(end_us)) {
        let (end, declared) = (length_text(end_us), declared_us.map(length_text));
        return Err(wrong(format!("it holds {end}, but declares {declared:?}")));
    }
    Ok(Made {
        name: name.clone(),
        width: facts.video.width,
        height: facts.video.height,
        duration_ms: duration_ms.unwrap_or(0),
        bytes,
        codec: facts.video.codec,
        audio: facts.audio.is_some(),
        sounds,
        decoded: 0,
        video: scan.tracks.get(&facts.video.stream).cloned().unwrap_or_default(),
        pictures: scan.pictures,
    })
}

/// Compares the kinds of the streams, in their order, with the plan.
fn has_planned_streams(answer: &Answer, plan: &Plan) -> Result<(), String> {
    let kinds: Vec<&str> = answer.streams.iter().map(|stream| stream.codec_type.as_str()).collect();
    let mut planned = vec!["video"];
    planned.extend(plan.audio.iter().map(|_| "audio"));
    planned.extend(plan.subtitles.iter().map(|_| "subtitle"));
    if kinds == planned {
        return Ok(());
    }
    let (kinds, planned) = (kinds.join(", "), planned.join(", "));
    Err(format!("its streams are {kinds}; {planned} were planned"))
}

/// The packets of every audio track.
fn sounds(answer: &Answer, scan: &Scan) -> Result<Vec<Track>, String> {
    let audio = answer.streams.iter().filter(|stream| stream.codec_type == "audio");
    let track = |stream: &Stream| {
        let track = scan.tracks.get(&stream.index).cloned();
        track.ok_or_else(|| format!("its audio track {} holds no packet", stream.index))
    };
    audio.map(track).collect()
}

/// Compares what an output holds beside its pictures with the plan.
fn beside(answer: &Answer, plan: &Plan) -> Result<(), String> {
    let mut audio = plan.audio.iter();
    for stream in &answer.streams {
        let codec = stream.codec_name.as_deref().unwrap_or("unknown");
        let found = (codec, stream.channels);
        let planned = match stream.codec_type.as_str() {
            "audio" => ("aac", audio.next().map_or(0, |audio| audio.channels)),
            "subtitle" => ("mov_text", 0),
            _ => continue,
        };
        if found != planned {
            let index = stream.index;
            return Err(format!("its stream {index} is {found:?}, {planned:?} was planned"));
        }
    }
    Ok(())
}

/// Compares the outputs with each other, with FFmpeg's `last` block and with the film. Returns
/// what people should know although the outputs are good.
///
/// # Errors
/// A retryable [`Failure`] when the outputs contradict FFmpeg or each other, a permanent one
/// when they show that the film is damaged.
pub(crate) fn judge(
    made: &[Made],
    (film, plan): (&Film, &Plan),
    last: &Block,
) -> Result<Vec<String>, Failure> {
    let wrong = |what: String| Err(Failure::retryable(Cause::Error, what));
    let damaged = |what: String| {
        Err(Failure::permanent(Cause::Error, format!("the input is damaged or truncated: {what}")))
    };
    let Some(first) = made.first() else { return wrong("no output was made".to_owned()) };
    let frames = first.video.packets;
    if frames == 0 {
        return damaged("none of its frames could be decoded".to_owned());
    }
    if !last.is_last {
        return wrong("ffmpeg ended without its final report".to_owned());
    }
    if let Some(reported) = last.frame.filter(|reported| *reported != frames) {
        let name = &first.name;
        return wrong(format!("output {name} holds {frames} frames, ffmpeg reported {reported}"));
    }
    for other in &made[1..] {
        if other.video.packets != frames {
            let (name, count) = (&other.name, other.video.packets);
            return wrong(format!("output {name} holds {count} frames, {} {frames}", first.name));
        }
        if !have_same_keyframes(&first.video, &other.video) {
            return wrong(format!("keyframes of {} and {} differ", first.name, other.name));
        }
    }
    let source = film.scan.tracks.get(&film.facts.video.stream).cloned().unwrap_or_default();
    let lost = lost_frames(film, &source, frames + last.drop_frames);
    if lost > (source.decodable / 50).max(10) {
        let all = source.decodable;
        return damaged(format!("{lost} of its {all} frames could not be decoded"));
    }
    if let Some((found, wanted)) = first.video.span_us().zip(source.span_us())
        && source.has_steady_clock()
        && (found - wanted).abs() > tolerance_us(wanted)
    {
        let (found, wanted) = (length_text(found), length_text(wanted));
        return damaged(format!("its pictures span {wanted}, those that were decoded {found}"));
    }
    for made in made {
        if let Err(what) = has_own_rhythm(made) {
            return wrong(what);
        }
        for (audio, sound) in plan.audio.iter().zip(&made.sounds) {
            let Some(wanted) = film.scan.tracks.get(&audio.stream) else { continue };
            let film = Pair { pictures: &source, sound: wanted };
            if let Some(what) = sync::shift(film, Pair { pictures: &made.video, sound }) {
                return wrong(format!("output {} failed its check: {what}", made.name));
            }
        }
    }
    let mut warnings = Vec::new();
    if lost > 0 {
        warnings.push(format!("{lost} of {} frames could not be decoded", source.decodable));
    }
    if last.drop_frames > 0 {
        let dropped = last.drop_frames;
        warnings.push(format!("{dropped} frames were dropped: others are shown at their times"));
    }
    Ok(warnings)
}

/// No picture comes longer after its keyframe than keyframes are planned apart: players can jump
/// and switch there.
fn has_own_rhythm(made: &Made) -> Result<(), String> {
    let apart_us = i64::from(KEYFRAME_SECONDS) * 1_000_000;
    let mut keys = made.pictures.keys_us.iter().peekable();
    let mut key = keys.next().copied().unwrap_or(i64::MIN / 2);
    for time in &made.pictures.times_us {
        while let Some(next) = keys.next_if(|next| **next <= *time) {
            key = *next;
        }
        if time - key > apart_us + SAME_TIME_US {
            let (name, at) = (&made.name, length_text(*time));
            return Err(format!("output {name} failed its check: no keyframe up to {at}"));
        }
    }
    Ok(())
}

/// How many of its frames were not `decoded`; 0 where packets are no measure of frames.
pub(crate) fn lost_frames(film: &Film, source: &Track, decoded: u64) -> u64 {
    let is_counted = FRAME_PER_PACKET.contains(&film.facts.video.codec.as_str())
        && !film.facts.video.interlaced
        && !film.facts.container.contains("avi");
    if is_counted { source.decodable.saturating_sub(decoded) } else { 0 }
}

fn have_same_keyframes(one: &Track, other: &Track) -> bool {
    let (one, other) = (&one.keyframes_us, &other.keyframes_us);
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| (one - other).abs() < SAME_TIME_US)
}

#[cfg(test)]
mod tests {
    use super::super::super::codec::X264;
    use super::super::super::codec::trial::Chosen;
    use super::super::super::film::facts::Facts;
    use super::super::super::plan;
    use super::*;

    fn track(frames: u32) -> Track {
        let mut scan = Scan::default();
        for frame in 0..frames {
            let time = f64::from(frame) / 10.0;
            let flags = if frame % 20 == 0 { "K_" } else { "__" };
            let line = format!("stream_index=0|pts_time={time}|dts_time={time}|flags={flags}");
            scan.on_stdout(line.as_bytes());
        }
        scan.tracks.remove(&0).unwrap_or_default()
    }

    fn made(frames: u32) -> Made {
        let mut pictures = Pictures::of(0);
        for frame in 0..i64::from(frames) {
            pictures.on_packet(0, Some(frame * 100_000), frame % 20 == 0);
        }
        Made { name: "720p".to_owned(), video: track(frames), pictures, ..Made::default() }
    }

    fn film(frames: u32) -> Film {
        let mut scan = Scan::default();
        scan.tracks.insert(0, track(frames));
        Film { facts: Facts::for_test(), scan, bytes: 1 }
    }

    fn verdict(made: &[Made], film: &Film, last: &Block) -> Result<Vec<String>, Failure> {
        let payload = r#"{"op":"ladder","input":"/a","output_dir":"/b"}"#;
        let payload = serde_json::from_str(payload).expect("the payload is valid");
        let chosen = Chosen { encoder: X264, device: None };
        let plan = plan::plan(&film.facts, &payload, &chosen).expect("the film can be planned");
        judge(made, (film, &plan), last)
    }

    fn last(frame: u64) -> Block {
        Block { frame: Some(frame), is_last: true, ..Block::default() }
    }

    #[test]
    fn outputs_like_their_film_are_good() {
        assert_eq!(verdict(&[made(100), made(100)], &film(100), &last(100)), Ok(vec![]));
    }

    #[test]
    fn a_short_output_is_a_damaged_film() {
        let failure = verdict(&[made(60)], &film(100), &last(60)).expect_err("40 frames are lost");
        assert!(failure.permanent);
        assert!(failure.message.contains("40 of its 100 frames"), "{}", failure.message);
        let mut film = film(100);
        film.facts.video.codec = "vp8".to_owned();
        let failure = verdict(&[made(60)], &film, &last(60)).expect_err("it ends early");
        assert!(failure.message.contains("truncated"), "{}", failure.message);
        assert!(verdict(&[made(0)], &film, &last(0)).expect_err("no frame").permanent);
    }

    #[test]
    fn a_few_lost_frames_are_said_and_borne() {
        let notes = verdict(&[made(997)], &film(1000), &last(997)).expect("3 of 1000 are borne");
        assert_eq!(notes, ["3 of 1000 frames could not be decoded"]);
        let mut last = last(997);
        last.drop_frames = 3;
        let notes = verdict(&[made(997)], &film(1000), &last).expect("they are borne");
        assert_eq!(notes, ["3 frames were dropped: others are shown at their times"]);
    }

    #[test]
    fn outputs_that_contradict_ffmpeg_or_each_other_are_not_published() {
        for (outputs, last) in [
            (vec![made(100)], last(101)),
            (vec![made(100), made(99)], last(100)),
            (vec![], last(100)),
            (vec![made(100)], Block { frame: Some(100), ..Block::default() }),
        ] {
            assert!(!verdict(&outputs, &film(100), &last).expect_err("a contradiction").permanent);
        }
        let mut shifted = made(100);
        shifted.video.keyframes_us[2] += 100_000;
        let failure = verdict(&[made(100), shifted], &film(100), &last(100));
        assert!(failure.expect_err("they differ").message.contains("keyframes"));
    }

    #[test]
    fn a_rung_without_its_keyframes_is_not_published() {
        let mut sparse = made(100);
        sparse.pictures.keys_us.remove(2);
        let failure = verdict(&[sparse], &film(100), &last(100)).expect_err("4 s without any");
        assert!(failure.message.contains("no keyframe up to 4.10 s"), "{}", failure.message);
    }

    #[test]
    fn sound_that_was_shifted_is_not_published() {
        let mut film = film(100);
        film.scan.tracks.insert(1, track(100));
        let with_sound = |by_us: i64| {
            let mut sound = track(100);
            let by = |time: &mut Option<i64>| *time = time.map(|time| time + by_us);
            by(&mut sound.first_us);
            by(&mut sound.end_us);
            Made { sounds: vec![sound], ..made(100) }
        };
        assert_eq!(verdict(&[with_sound(40_000)], &film, &last(100)), Ok(vec![]));
        let failure = verdict(&[with_sound(-300_000)], &film, &last(100)).expect_err("early");
        assert!(!failure.permanent && failure.message.contains("0.30 s earlier"), "{failure:?}");
    }

    #[test]
    fn a_broken_clock_is_not_taken_for_a_short_film() {
        let mut film = film(100);
        let source = film.scan.tracks.get_mut(&0).expect("it has a track");
        (source.breaks, source.last_us) = (1, Some(90_000_000_000));
        assert_eq!(verdict(&[made(100)], &film, &last(100)), Ok(vec![]));
    }
}
