//! How clips become one film. Pure.

use super::super::super::film::facts::Facts;
use super::super::super::film::scan::Scan;
use super::super::filters::even;
use super::payload::{Clip, Payload};
use shiftboss_protocol::job::{Cause, Failure};

/// Samples per second of the sound of what is encoded.
pub(super) const SAMPLES: u64 = 48_000;
/// Rates that films have.
const STANDARD: &[(u32, u32)] = &[
    (24_000, 1001),
    (24, 1),
    (25, 1),
    (30_000, 1001),
    (30, 1),
    (48, 1),
    (50, 1),
    (60_000, 1001),
    (60, 1),
];
const RATE_MAX: f64 = 120.0;
/// Of a clip that does not say how fast it is.
const RATE_UNKNOWN: f64 = 25.0;
/// How far beyond its end a clip may be asked for, microseconds: what people read from a player
/// is rounded.
const BEYOND_US: i64 = 500_000;

/// Frames per second as a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) over: u32,
    pub(super) under: u32,
}

impl Rate {
    /// The rate that is meant by a number: a standard one, or the number to three digits.
    pub(super) fn near(rate: f64) -> Self {
        let rate = rate.clamp(1.0, RATE_MAX);
        let is_near = |(over, under): &&(u32, u32)| {
            (f64::from(*over) / f64::from(*under) / rate - 1.0).abs() < 0.000_4
        };
        if let Some((over, under)) = STANDARD.iter().find(is_near) {
            return Self { over: *over, under: *under };
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 120")]
        let thousandths = (rate * 1000.0).round() as u32;
        if thousandths.is_multiple_of(1000) {
            return Self { over: thousandths / 1000, under: 1 };
        }
        Self { over: thousandths, under: 1000 }
    }

    pub(super) fn text(self) -> String {
        format!("{}/{}", self.over, self.under)
    }

    /// The number of frames that are nearest to a length, at least one.
    fn frames(self, length_us: i64) -> u64 {
        let (over, under) = (i128::from(self.over), i128::from(self.under) * 1_000_000);
        let frames = (i128::from(length_us) * over + under / 2) / under;
        u64::try_from(frames).unwrap_or(0).max(1)
    }

    /// How long so many frames last, in parts of a second of `parts`, rounded.
    pub(super) fn length(self, frames: u64, parts: u64) -> u64 {
        let over = u128::from(self.over);
        let length = u128::from(frames) * u128::from(self.under) * u128::from(parts);
        u64::try_from((length + over / 2) / over).unwrap_or(u64::MAX)
    }
}

/// A part of a clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) from_us: i64,
    pub(super) length_us: i64,
}

/// How long the pictures of a film are, from where FFmpeg makes its time 0, microseconds; `None`
/// when its times do not tell.
pub(super) fn length_us(facts: &Facts, scan: &Scan) -> Option<i64> {
    let track = scan.tracks.get(&facts.video.stream)?;
    if !track.has_steady_clock() {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most a second")]
    let frame_us = (1e6 / facts.video.rate.unwrap_or(RATE_UNKNOWN).max(1.0)) as i64;
    let last = track.last_us? - facts.start_us.unwrap_or(0);
    let end = track.end_us? - facts.start_us.unwrap_or(0);
    Some(end.max(last + frame_us)).filter(|length| *length > 0)
}

/// The part of clip `number` that the payload asks for; the whole clip is `length_us` long.
///
/// # Errors
/// A permanent [`Failure`] that names the clip.
pub(super) fn part(clip: &Clip, number: usize, length_us: i64) -> Result<Part, Failure> {
    #[expect(clippy::cast_possible_truncation, reason = "at most ten days")]
    let us = |seconds: f64| (seconds * 1e6).round() as i64;
    let (from_us, to_us) = (us(clip.from), clip.to.map_or(length_us, us));
    let refuse = |field: &str, seconds: f64| {
        #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
        let length = length_us as f64 / 1e6;
        let message = format!(
            "payload field inputs[{number}].{field}: {seconds} s lies behind the end of {}, whose \
             pictures last {length:.2} s",
            clip.input
        );
        Err(Failure::permanent(Cause::Payload, message))
    };
    if from_us >= length_us {
        return refuse("in", clip.from);
    }
    if to_us > length_us + BEYOND_US {
        return refuse("out", clip.to.unwrap_or(0.0));
    }
    Ok(Part { from_us, length_us: to_us.min(length_us) - from_us })
}

/// One film of all parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) size: (u32, u32),
    pub(super) rate: Rate,
    /// Of each part.
    pub(super) frames: Vec<u64>,
    /// In which two parts are shown together.
    pub(super) fade: u64,
    /// Any of them has sound.
    pub(super) sound: bool,
}

impl Plan {
    /// For what is encoded.
    ///
    /// # Errors
    /// A permanent [`Failure`] when a part is too short for its cross-fades.
    pub(super) fn of(payload: &Payload, clips: &[(&Facts, Part)]) -> Result<Self, Failure> {
        let shown = clips.iter().map(|(facts, _)| (facts.video.width, facts.video.height));
        let area = |(width, height): &(u32, u32)| u64::from(*width) * u64::from(*height);
        // The first of several: `max_by_key` would take the last.
        let largest = shown.rev().max_by_key(area).unwrap_or((2, 2));
        let rates = clips.iter().map(|(facts, _)| facts.video.rate.unwrap_or(RATE_UNKNOWN));
        let rate = payload.rate.map_or_else(|| rates.fold(1.0, f64::max), |rate| rate.0);
        let rate = Rate::near(rate);
        #[expect(clippy::cast_possible_truncation, reason = "at most ten seconds")]
        let fade_us = (payload.crossfade.0 * 1e6) as i64;
        let fade = if fade_us > 0 && clips.len() > 1 { rate.frames(fade_us) } else { 0 };
        let frames: Vec<u64> = clips.iter().map(|(_, part)| rate.frames(part.length_us)).collect();
        for (at, count) in frames.iter().enumerate() {
            let fades = u64::from(at > 0) + u64::from(at + 1 < frames.len());
            let least = fades * fade + 1;
            if fade > 0 && *count < least {
                let message = format!(
                    "payload field crossfade: inputs[{at}] has {count} frames at {} per second, \
                     its cross-fades need {least}: shorten them or leave the clip out",
                    rate.text()
                );
                return Err(Failure::permanent(Cause::Payload, message));
            }
        }
        Ok(Self {
            size: payload.size.map_or_else(|| even(largest), |size| size.0),
            rate,
            frames,
            fade,
            sound: clips.iter().any(|(facts, _)| facts.audio.is_some()),
        })
    }

    pub(super) fn frames_in_all(&self) -> u64 {
        let joints = u64::try_from(self.frames.len().saturating_sub(1)).unwrap_or(0);
        self.frames.iter().sum::<u64>() - joints * self.fade
    }

    /// With which frame of the output clip `at` begins.
    pub(super) fn begin(&self, at: usize) -> u64 {
        let joints = u64::try_from(at).unwrap_or(0);
        self.frames[..at].iter().sum::<u64>() - joints * self.fade
    }
}

/// A picture of this size within another one: as large as it can be, both sides even.
pub(super) fn within((width, height): (u32, u32), (wide, high): (u32, u32)) -> (u32, u32) {
    let side = |side: u64| u32::try_from(side & !1).unwrap_or(2).max(2);
    let (width, height) = (u64::from(width.max(1)), u64::from(height.max(1)));
    let (wide, high) = (u64::from(wide), u64::from(high));
    // To the nearest even number: 853.3 is 854 where that fits.
    let nearest = |exact: u64, most: u64| side((exact + 1).min(most));
    if width * high >= height * wide {
        (side(wide), nearest(height * wide / width, high))
    } else {
        (nearest(width * high / height, wide), side(high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(fields: &str) -> Payload {
        let text = format!(r#"{{"op":"stitch","inputs":["/a"],"output_dir":"/b"{fields}}}"#);
        serde_json::from_str(&text).expect("it is valid")
    }

    fn film(width: u32, height: u32, rate: f64) -> Facts {
        let mut facts = Facts::for_test();
        (facts.video.width, facts.video.height) = (width, height);
        facts.video.rate = Some(rate);
        facts
    }

    fn seconds(seconds: i64) -> Part {
        Part { from_us: 0, length_us: seconds * 1_000_000 }
    }

    #[test]
    fn rates_are_the_standard_ones_where_they_are_meant() {
        let text = |rate: f64| Rate::near(rate).text();
        assert_eq!(text(29.97), "30000/1001");
        assert_eq!(text(23.976), "24000/1001");
        assert_eq!(text(25.0), "25/1");
        assert_eq!(text(12.5), "12500/1000");
        assert_eq!(text(1000.0), "120/1");
    }

    #[test]
    fn the_largest_and_the_fastest_clip_decide() {
        let (small, large) = (film(641, 361, 50.0), film(1280, 720, 24.0));
        let clips = [(&small, seconds(2)), (&large, seconds(1))];
        let plan = Plan::of(&payload(""), &clips).expect("possible");
        assert_eq!((plan.size, plan.rate.text()), ((1280, 720), "50/1".to_owned()));
        assert_eq!((plan.frames.as_slice(), plan.frames_in_all()), (&[100, 50][..], 150));
        let asked = payload(r#","size":"320x240","rate":10"#);
        let plan = Plan::of(&asked, &clips).expect("possible");
        assert_eq!((plan.size, plan.frames_in_all()), ((320, 240), 30));
    }

    #[test]
    fn cross_fades_shorten_the_film_and_need_room() {
        let one = film(320, 180, 30_000.0 / 1001.0);
        let clips = [(&one, seconds(2)), (&one, seconds(3)), (&one, seconds(2))];
        let plan = Plan::of(&payload(r#","crossfade":0.5"#), &clips).expect("possible");
        assert_eq!((plan.fade, plan.frames_in_all()), (15, 60 + 90 + 60 - 30));
        assert_eq!([0, 1, 2].map(|at| plan.begin(at)), [0, 45, 120]);
        let failure = Plan::of(&payload(r#","crossfade":1.6"#), &clips).expect_err("too short");
        assert!(failure.message.contains("inputs[1] has 90 frames"), "{}", failure.message);
        let alone = Plan::of(&payload(r#","crossfade":5"#), &clips[..1]).expect("no joint");
        assert_eq!((alone.fade, alone.frames_in_all()), (0, 60));
    }

    #[test]
    fn parts_lie_within_their_clips() {
        let clip = |from: f64, to: Option<f64>| Clip { input: "/a".to_owned(), from, to };
        let of = |from: f64, to: Option<f64>| part(&clip(from, to), 3, 5_000_000);
        assert_eq!(of(0.0, None), Ok(seconds(5)));
        assert_eq!(of(1.5, Some(5.2)), Ok(Part { from_us: 1_500_000, length_us: 3_500_000 }));
        for (from, to, words) in [(5.0, None, "inputs[3].in"), (0.0, Some(6.0), "inputs[3].out")] {
            let failure = of(from, to).expect_err(words);
            assert!(failure.message.contains(words), "{}", failure.message);
        }
    }

    #[test]
    fn pictures_fit_into_the_frame_with_their_shape() {
        assert_eq!(within((1280, 720), (640, 480)), (640, 360));
        assert_eq!(within((480, 640), (640, 480)), (360, 480));
        assert_eq!(within((1000, 1000), (854, 480)), (480, 480));
        assert_eq!(within((1920, 1080), (853, 480)), (852, 480));
        assert_eq!(within((9000, 1), (640, 480)), (640, 2));
        for (width, height) in [(321, 181), (1, 7), (5000, 3)] {
            let (wide, high) = within((width, height), (640, 360));
            assert!(wide <= 640 && high <= 360 && wide % 2 == 0 && high % 2 == 0);
        }
    }

    #[test]
    fn lengths_in_samples_are_exact() {
        let rate = Rate::near(29.97);
        assert_eq!(rate.length(30_000, SAMPLES), 1001 * SAMPLES);
        assert_eq!(rate.length(1, SAMPLES), 1602);
        assert_eq!(Rate::near(25.0).length(50, SAMPLES), 2 * SAMPLES);
    }
}
