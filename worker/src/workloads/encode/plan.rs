//! What to make of a film: its rungs and how each is reached.
//!
//! Pure: from facts about the film and the payload to a [`Plan`]. No rung is larger than the
//! film, every size is even, and the short side counts, so that a portrait film at 720p is as
//! sharp as a landscape one.

use super::film::facts::Facts;
use super::film::tracks::{Audio, Wish, tracks};
use super::film::treatment::{Treatment, treatment};
use super::payload::{AudioLayout, Check, Format, Ladder, Preset};
use super::progress::size_text;
use serde::Serialize;
use shiftboss_protocol::job::{Cause, Failure};

/// Seconds between two keyframes: the same in every rung, so that players can switch there.
pub(super) const KEYFRAME_SECONDS: u32 = 2;
/// Longest side that H.264 level 6.2 and x264 take, pixels.
const SIDE_MAX: u32 = 16_384;

/// How one job encodes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Plan {
    /// FFmpeg's name of the video encoder.
    pub(super) video_encoder: &'static str,
    /// At least one, in the order of the payload.
    pub(super) rungs: Vec<Rung>,
    /// Index of the video stream in the input.
    pub(super) video_stream: u32,
    /// What the pictures need before they are scaled.
    pub(super) treatment: Treatment,
    /// Frames come at irregular times, which are kept.
    pub(super) irregular: bool,
    /// The audio tracks of every output; the first one is that of players that know one.
    pub(super) audio: Vec<Audio>,
    /// Indexes of the subtitles that every output gets.
    pub(super) subtitles: Vec<u32>,
    pub(super) crf: u32,
    pub(super) preset: Preset,
    /// Threads for each thing that FFmpeg does; `None`: it chooses. Not a part of what outputs are.
    #[serde(skip)]
    pub(super) threads: Option<u32>,
    /// How outputs are checked. Not a part of what they are.
    #[serde(skip)]
    pub(super) check: Check,
    /// What was decided about the film, for people.
    #[serde(skip)]
    pub(super) notes: Vec<String>,
}

impl Plan {
    /// How large the outputs of more than one rung are so far, for a note.
    pub(super) fn sizes(&self, bytes: &[u64]) -> String {
        if self.rungs.len() < 2 {
            return String::new();
        }
        let sizes = self.rungs.iter().zip(bytes);
        let sizes: Vec<String> =
            sizes.map(|(rung, bytes)| format!("{} {}", rung.name, size_text(*bytes))).collect();
        format!(" ({})", sizes.join(", "))
    }

    /// Outputs hold more than pictures.
    pub(super) fn has_beside(&self) -> bool {
        !self.audio.is_empty() || !self.subtitles.is_empty()
    }
}

/// One output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Rung {
    /// Such as `720p`: the short side.
    pub(super) name: String,
    pub(super) width: u32,
    pub(super) height: u32,
    /// Peak of the video's bit rate, kbit/s.
    pub(super) rate_max_kbit: u32,
}

/// Decides what to make of the film.
///
/// # Errors
/// A permanent [`Failure`] when the film is too small or too long-sided to be encoded, or has
/// colours that FFmpeg cannot show.
pub(super) fn plan(facts: &Facts, ladder: &Ladder) -> Result<Plan, Failure> {
    let treatment = treatment(facts)?;
    let mut notes = treatment.notes(&facts.video);
    let wish = Wish {
        bitrate: ladder.audio_bitrate.0,
        keeps_surround: ladder.audio_layout == AudioLayout::Keep,
        only_one: ladder.format == Format::Hls,
    };
    let tracks = tracks(facts, wish);
    notes.extend(tracks.notes);
    Ok(Plan {
        video_encoder: "libx264",
        rungs: rungs(facts, &ladder.renditions.0)?,
        video_stream: facts.video.stream,
        treatment,
        irregular: facts.video.irregular,
        audio: tracks.audio,
        subtitles: tracks.subtitles,
        crf: ladder.crf.0,
        preset: ladder.preset,
        threads: None,
        check: ladder.check,
        notes,
    })
}

fn rungs(facts: &Facts, heights: &[u32]) -> Result<Vec<Rung>, Failure> {
    let (width, height) = (facts.video.width, facts.video.height);
    let short = width.min(height);
    if short < 2 {
        let message = format!("the film is {width}x{height}: too small for H.264");
        return Err(Failure::permanent(Cause::Error, message));
    }
    let mut sides: Vec<u32> = Vec::new();
    for side in heights.iter().filter(|side| **side <= short).map(|side| side & !1) {
        if !sides.contains(&side) {
            sides.push(side);
        }
    }
    if sides.is_empty() {
        sides.push(short & !1);
    }
    sides.into_iter().map(|side| rung(side, (width, height), facts.video.rate)).collect()
}

/// The rung whose short side is `side`: the long side keeps the film's shape, to the nearest
/// even number that is not beyond the film's own.
fn rung(side: u32, (width, height): (u32, u32), rate: Option<f64>) -> Result<Rung, Failure> {
    let (short, long) = (width.min(height), width.max(height));
    let exact = f64::from(side) * f64::from(long) / f64::from(short);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded above")]
    let nearest = (exact / 2.0).round().clamp(1.0, f64::from(u32::MAX / 4)) as u32 * 2;
    let long_side = nearest.min(long & !1).max(side);
    if long_side > SIDE_MAX {
        let message = format!(
            "the film is {width}x{height}: at {side}p its long side would be {long_side} pixels, \
             H.264 takes {SIDE_MAX}"
        );
        return Err(Failure::permanent(Cause::Error, message));
    }
    let (width, height) = if width >= height { (long_side, side) } else { (side, long_side) };
    let rate_max_kbit = rate_max_kbit(width, height, rate);
    Ok(Rung { name: format!("{side}p"), width, height, rate_max_kbit })
}

/// 6 Mbit/s for 1080p at 30 frames per second. Fewer pixels need more bits each, and more
/// frames fewer bits each, because neighbours are more alike: hence the exponents.
fn rate_max_kbit(width: u32, height: u32, rate: Option<f64>) -> u32 {
    let pixels = f64::from(width) * f64::from(height) / (1920.0 * 1080.0);
    let frames = (rate.unwrap_or(30.0) / 30.0).clamp(1.0, 4.0);
    let kbit = 6000.0 * pixels.powf(0.75) * frames.sqrt();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let rounded = kbit.clamp(200.0, 200_000.0) as u32;
    rounded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(width: u32, height: u32, heights: &[u32]) -> Vec<(String, u32, u32)> {
        let mut facts = Facts::for_test();
        (facts.video.width, facts.video.height) = (width, height);
        let rungs = rungs(&facts, heights).expect("the size can be encoded");
        rungs.into_iter().map(|rung| (rung.name, rung.width, rung.height)).collect()
    }

    fn size(name: &str, width: u32, height: u32) -> (String, u32, u32) {
        (name.to_owned(), width, height)
    }

    const DEFAULT: &[u32] = &[1080, 720, 480];

    #[test]
    fn a_full_hd_film_gets_every_rung() {
        assert_eq!(
            sizes(1920, 1080, DEFAULT),
            [size("1080p", 1920, 1080), size("720p", 1280, 720), size("480p", 854, 480)]
        );
    }

    #[test]
    fn rungs_above_the_short_side_are_dropped() {
        assert_eq!(sizes(1280, 720, DEFAULT), [size("720p", 1280, 720), size("480p", 854, 480)]);
        assert_eq!(sizes(1920, 800, DEFAULT), [size("720p", 1728, 720), size("480p", 1152, 480)]);
    }

    #[test]
    fn a_small_film_keeps_its_size_and_the_rung_is_named_by_it() {
        assert_eq!(sizes(320, 240, DEFAULT), [size("240p", 320, 240)]);
        assert_eq!(sizes(321, 241, DEFAULT), [size("240p", 320, 240)]);
        assert_eq!(sizes(2, 2, DEFAULT), [size("2p", 2, 2)]);
        assert_eq!(sizes(3, 5, DEFAULT), [size("2p", 2, 4)]);
    }

    #[test]
    fn a_portrait_film_is_measured_by_its_width() {
        assert_eq!(
            sizes(1080, 1920, DEFAULT),
            [size("1080p", 1080, 1920), size("720p", 720, 1280), size("480p", 480, 854)]
        );
    }

    #[test]
    fn odd_films_and_odd_rungs_get_even_sizes_within_the_film() {
        assert_eq!(sizes(853, 481, &[481, 480]), [size("480p", 852, 480)]);
        assert_eq!(sizes(1279, 719, DEFAULT), [size("480p", 854, 480)]);
        assert_eq!(sizes(719, 719, &[719]), [size("718p", 718, 718)]);
        for side in 144..400 {
            for (_, width, height) in sizes(401, 400, &[side]) {
                assert!(width % 2 == 0 && height % 2 == 0 && width <= 401 && height <= 400);
            }
        }
    }

    #[test]
    fn films_that_h264_cannot_hold_are_refused_for_good() {
        let mut facts = Facts::for_test();
        (facts.video.width, facts.video.height) = (1, 480);
        assert!(rungs(&facts, DEFAULT).expect_err("one pixel").permanent);
        (facts.video.width, facts.video.height) = (40_000, 480);
        let failure = rungs(&facts, DEFAULT).expect_err("a ribbon");
        assert!(failure.message.contains("40000 pixels"), "{}", failure.message);
    }

    #[test]
    fn peaks_grow_with_pixels_and_frames() {
        assert_eq!(rate_max_kbit(1920, 1080, Some(30.0)), 6000);
        let small = rate_max_kbit(854, 480, Some(24.0));
        assert!((1500..2500).contains(&small), "{small}");
        assert!(rate_max_kbit(1920, 1080, Some(60.0)) > 8000);
        assert_eq!(rate_max_kbit(2, 2, None), 200);
    }
}
