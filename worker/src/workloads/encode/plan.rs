//! What to make of a film: its rungs and how each is reached.
//!
//! Pure: from facts about the film and the payload to a [`Plan`]. No rung is larger than the
//! film, every size is even, and the short side counts, so that a portrait film at 720p is as
//! sharp as a landscape one.

use super::codec::trial::Chosen;
use super::codec::{Codec, Encoder};
use super::film::facts::Facts;
use super::film::tracks::{Audio, Wish, tracks};
use super::film::treatment::{Treatment, treatment};
use super::payload::{AudioLayout, Check, Format, Ladder, Preset, Rendition};
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
    /// What encodes, and not what comes out: chunks of another one may do as well.
    #[serde(skip)]
    pub(super) encoder: Encoder,
    /// The device that it needs.
    #[serde(skip)]
    pub(super) device: Option<String>,
    /// The number of its parameter sets, where it can be told: chunks of another encoder, which
    /// uses 0, fit its own then.
    #[serde(skip)]
    pub(super) sets: u32,
    /// At least one, in the order of the payload.
    pub(super) rungs: Vec<Rung>,
    /// Index of the video stream in the input.
    pub(super) video_stream: u32,
    /// What the pictures need before they are scaled.
    pub(super) treatment: Treatment,
    /// Frames come at irregular times, which are kept.
    pub(super) irregular: bool,
    /// How the film gets fewer pictures, if it has too many.
    pub(super) thin: Option<Thin>,
    /// Pictures per second of the outputs, on average, where the film's are known.
    pub(super) rate: Option<f64>,
    /// The audio tracks of every output; the first one is that of players that know one.
    pub(super) audio: Vec<Audio>,
    /// Integrated loudness that they are brought to, LUFS.
    pub(super) loudness: Option<f64>,
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

/// How a film gets fewer pictures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) enum Thin {
    /// One of so many is kept: what is left has its own time.
    Every(u32),
    /// So many per second, at times that the film does not have.
    Resample(f64),
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
    /// Bits over which the peak is kept, kbit.
    pub(super) buffer_kbit: u32,
}

/// Decides what to make of the film.
///
/// # Errors
/// A permanent [`Failure`] when the film is too small or too long-sided to be encoded, or has
/// colours that FFmpeg cannot show.
pub(super) fn plan(facts: &Facts, ladder: &Ladder, chosen: &Chosen) -> Result<Plan, Failure> {
    let treatment = treatment(facts)?;
    let mut notes = treatment.notes(&facts.video);
    let wish = Wish {
        bitrate: ladder.audio_bitrate.0,
        keeps_surround: ladder.audio_layout == AudioLayout::Keep,
        holds_text: ladder.format == Format::Mp4,
    };
    let tracks = tracks(facts, wish);
    notes.extend(tracks.notes);
    let thin = ladder.frame_rate_max.and_then(|max| thin(facts.video.rate, max.0));
    let rate = match thin {
        Some(Thin::Every(count)) => facts.video.rate.map(|rate| rate / f64::from(count)),
        Some(Thin::Resample(rate)) => Some(rate),
        None => facts.video.rate,
    };
    let Chosen { encoder, device } = chosen;
    Ok(Plan {
        encoder: *encoder,
        device: device.clone().filter(|_| encoder.is_hardware()),
        sets: 0,
        rungs: rungs(facts, &ladder.renditions.0, (encoder.codec, rate))?,
        video_stream: facts.video.stream,
        treatment,
        // Pictures at new times come regularly.
        irregular: facts.video.irregular && !matches!(thin, Some(Thin::Resample(_))),
        thin,
        rate,
        audio: tracks.audio,
        loudness: ladder.loudness.map(|loudness| loudness.0),
        subtitles: tracks.subtitles,
        crf: ladder.crf.0,
        preset: ladder.preset,
        threads: None,
        check: ladder.check,
        notes,
    })
}

/// Every second, third, ... picture where that comes near the most that is wanted: motion stays
/// even, and every picture keeps its time. Else new times, which is what 30 of 25 needs.
fn thin(rate: Option<f64>, max: f64) -> Option<Thin> {
    let rate = rate.filter(|rate| *rate > max * 1.001)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are small")]
    let count = (rate / max - 0.001).ceil().clamp(2.0, 1000.0) as u32;
    let is_near = rate / f64::from(count) >= max * 0.75;
    Some(if is_near { Thin::Every(count) } else { Thin::Resample(max) })
}

fn rungs(
    facts: &Facts,
    asked: &[Rendition],
    of: (Codec, Option<f64>),
) -> Result<Vec<Rung>, Failure> {
    let (width, height) = (facts.video.width, facts.video.height);
    let short = width.min(height);
    if short < 2 {
        let message = format!("the film is {width}x{height}: too small for any encoder");
        return Err(Failure::permanent(Cause::Error, message));
    }
    let mut wanted: Vec<Rendition> = Vec::new();
    for rendition in asked.iter().filter(|rendition| rendition.side <= short) {
        let rendition = Rendition { side: rendition.side & !1, ..*rendition };
        if !wanted.iter().any(|other| other.side == rendition.side) {
            wanted.push(rendition);
        }
    }
    if wanted.is_empty() {
        // The peak of the smallest that was asked for bounds what is smaller still.
        let smallest = asked.iter().min_by_key(|rendition| rendition.side).copied();
        let smallest = smallest.unwrap_or(Rendition::of_side(0));
        wanted.push(Rendition { side: short & !1, ..smallest });
    }
    wanted.into_iter().map(|rendition| rung(rendition, (width, height), of)).collect()
}

/// The rung whose short side is `side`: the long side keeps the film's shape, to the nearest
/// even number that is not beyond the film's own.
fn rung(
    Rendition { side, rate_max, buffer }: Rendition,
    (width, height): (u32, u32),
    (codec, rate): (Codec, Option<f64>),
) -> Result<Rung, Failure> {
    let (short, long) = (width.min(height), width.max(height));
    let exact = f64::from(side) * f64::from(long) / f64::from(short);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded above")]
    let nearest = (exact / 2.0).round().clamp(1.0, f64::from(u32::MAX / 4)) as u32 * 2;
    let long_side = nearest.min(long & !1).max(side);
    if long_side > SIDE_MAX {
        let message = format!(
            "the film is {width}x{height}: at {side}p its long side would be {long_side} pixels, \
             {} takes {SIDE_MAX}",
            codec.name()
        );
        return Err(Failure::permanent(Cause::Error, message));
    }
    let (width, height) = if width >= height { (long_side, side) } else { (side, long_side) };
    let kbit = |bits: u64| u32::try_from(bits / 1000).unwrap_or(u32::MAX);
    let rate_max_kbit = rate_max.map_or_else(|| rate_max_kbit(width, height, rate), kbit);
    let buffer_kbit = buffer.map_or(rate_max_kbit.saturating_mul(2), kbit);
    Ok(Rung { name: format!("{side}p"), width, height, rate_max_kbit, buffer_kbit })
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

impl Plan {
    /// What a trial tells its encoder.
    pub(super) fn for_trial(encoder: Encoder) -> Self {
        Self {
            encoder,
            device: None,
            sets: 0,
            rungs: Vec::new(),
            video_stream: 0,
            treatment: Treatment::default(),
            irregular: false,
            thin: None,
            rate: Some(30.0),
            audio: Vec::new(),
            loudness: None,
            subtitles: Vec::new(),
            crf: 30,
            preset: Preset::Ultrafast,
            threads: None,
            check: Check::Quick,
            notes: Vec::new(),
        }
    }
}

impl Rung {
    /// The rung of a trial's pictures.
    pub(super) fn for_trial() -> Self {
        let name = "trial".to_owned();
        Self { name, width: 640, height: 360, rate_max_kbit: 2000, buffer_kbit: 4000 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::X264;
    use super::*;

    const ANY: (Codec, Option<f64>) = (Codec::H264, Some(30.0));

    fn renditions(sides: &[u32]) -> Vec<Rendition> {
        sides.iter().copied().map(Rendition::of_side).collect()
    }

    fn plan_of(facts: &Facts, more: &str) -> Plan {
        let payload = format!(r#"{{"op":"ladder","input":"/a","output_dir":"/b"{more}}}"#);
        let ladder = serde_json::from_str(&payload).expect("the payload is valid");
        let chosen = Chosen { encoder: X264, device: None };
        plan(facts, &ladder, &chosen).expect("the film can be planned")
    }

    #[test]
    fn peaks_that_were_given_are_kept() {
        let more = r#","renditions":[{"name":"720p","maxrate":"2.8M"},
                      {"name":"480p","maxrate":"1400k","bufsize":"2M"},"360p"]"#;
        let plan = plan_of(&Facts::for_test(), more);
        let bits: Vec<(u32, u32)> =
            plan.rungs.iter().map(|rung| (rung.rate_max_kbit, rung.buffer_kbit)).collect();
        assert_eq!(bits[..2], [(2_800, 5_600), (1_400, 2_000)]);
        assert_eq!(bits[2].1, 2 * bits[2].0);
        let mut small = Facts::for_test();
        (small.video.width, small.video.height) = (320, 180);
        let rung = &plan_of(&small, r#","renditions":[{"name":"720p","maxrate":"300k"}]"#).rungs[0];
        assert_eq!((rung.name.as_str(), rung.rate_max_kbit), ("180p", 300));
    }

    #[test]
    fn films_with_too_many_pictures_lose_every_second_or_get_new_times() {
        for (rate, max, expected) in [
            (30.0, 30.0, None),
            (30_000.0 / 1001.0, 30.0, None),
            (60_000.0 / 1001.0, 30.0, Some(Thin::Every(2))),
            (50.0, 30.0, Some(Thin::Every(2))),
            (120.0, 30.0, Some(Thin::Every(4))),
            (60.0, 25.0, Some(Thin::Every(3))),
            (30.0, 25.0, Some(Thin::Resample(25.0))),
            (60.0, 50.0, Some(Thin::Resample(50.0))),
        ] {
            assert_eq!(thin(Some(rate), max), expected, "{rate} {max}");
        }
        assert_eq!(thin(None, 30.0), None);
        let mut facts = Facts::for_test();
        facts.video.rate = Some(60.0);
        assert_eq!(plan_of(&facts, r#","frame_rate_max":30"#).rate, Some(30.0));
    }

    fn sizes(width: u32, height: u32, heights: &[u32]) -> Vec<(String, u32, u32)> {
        let mut facts = Facts::for_test();
        (facts.video.width, facts.video.height) = (width, height);
        let rungs = rungs(&facts, &renditions(heights), ANY).expect("the size can be encoded");
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
        assert!(rungs(&facts, &renditions(DEFAULT), ANY).expect_err("one pixel").permanent);
        (facts.video.width, facts.video.height) = (40_000, 480);
        let failure = rungs(&facts, &renditions(DEFAULT), ANY).expect_err("a ribbon");
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
