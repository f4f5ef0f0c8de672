//! The payload of an `encode` job: what may be asked for, within which bounds.
//!
//! A value out of bounds fails the job at once, with the field named.

use crate::attempt::Job;
use crate::parse_payload;
use serde::de::{Deserializer, Error as _, Unexpected, Visitor};
use serde::{Deserialize, Serialize};
use shiftboss_protocol::job::Failure;
use std::fmt;

/// Heights that a rendition may have.
const HEIGHT_MIN: u32 = 144;
const HEIGHT_MAX: u32 = 4320;
/// Renditions of one job: each is an encoder that runs at the same time as the others.
const RENDITIONS_MAX: usize = 8;
/// What FFmpeg's AAC encoder makes of stereo without complaint, bits per second.
const AUDIO_BITRATE_MIN: u64 = 32_000;
const AUDIO_BITRATE_MAX: u64 = 512_000;

/// One film into a ladder of renditions.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ladder {
    #[serde(rename = "op")]
    _op: String,
    /// The film.
    pub(super) input: String,
    /// Where the renditions go; made when its parent exists.
    pub(super) output_dir: String,
    #[serde(default)]
    pub(super) renditions: Renditions,
    #[serde(default)]
    pub(super) format: Format,
    /// How long a segment of HLS is.
    #[serde(default)]
    pub(super) segment_seconds: SegmentSeconds,
    /// What the submitter knows about the film.
    #[serde(default)]
    pub(super) expect: Expect,
    #[serde(default)]
    pub(super) crf: Crf,
    #[serde(default)]
    pub(super) preset: Preset,
    #[serde(default)]
    pub(super) audio_bitrate: AudioBitrate,
    #[serde(default)]
    pub(super) audio_layout: AudioLayout,
    #[serde(default)]
    pub(super) check: Check,
    #[serde(default)]
    pub(super) chunk_seconds: ChunkSeconds,
}

/// How outputs are checked, besides by all their packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Check {
    /// Their first and last groups of pictures are decoded.
    #[default]
    Quick,
    /// They are decoded to their end, sound too.
    Full,
}

impl Check {
    /// The share of a job at which its outputs are made and the check begins. Decoding all of them
    /// takes about a tenth of what encoding takes with the usual preset.
    pub(super) const fn begin(self) -> f64 {
        match self {
            Self::Quick => 0.99,
            Self::Full => 0.92,
        }
    }
}

/// What becomes of surround sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AudioLayout {
    /// It is mixed down. Mono stays mono.
    #[default]
    Stereo,
    /// It keeps its channels, up to 7.1.
    Keep,
}

/// How much film one chunk has; 0 encodes every film in one go. A kill costs up to one chunk of
/// work. Each costs a start of FFmpeg, some film decoded twice and an encoder that begins anew:
/// at 30 seconds that is a few percent, and what is lost is done again within a minute or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub(super) struct ChunkSeconds(pub(super) u32);

impl Default for ChunkSeconds {
    fn default() -> Self {
        Self(30)
    }
}

impl TryFrom<u32> for ChunkSeconds {
    type Error = String;

    fn try_from(seconds: u32) -> Result<Self, String> {
        if seconds == 0 || (2..=3600).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(format!("{seconds}: must be 2 to 3600, or 0 for no chunks"))
        }
    }
}

/// What outputs are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// One file for each rendition, with its index at the begin.
    #[default]
    Mp4,
    /// A folder with a master playlist, and for each rendition a playlist and segments.
    Hls,
}

/// Least length of a segment, seconds: a multiple of the distance of keyframes. Apple advises 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub(super) struct SegmentSeconds(pub(super) u32);

impl Default for SegmentSeconds {
    fn default() -> Self {
        Self(6)
    }
}

impl TryFrom<u32> for SegmentSeconds {
    type Error = String;

    fn try_from(seconds: u32) -> Result<Self, String> {
        if (2..=30).contains(&seconds) && seconds.is_multiple_of(2) {
            Ok(Self(seconds))
        } else {
            Err(format!("{seconds}: must be an even number from 2 to 30"))
        }
    }
}

/// Facts that containers like MPEG-TS do not carry, from whoever made the film.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// How long the film is, milliseconds.
    pub(super) duration_ms: Option<u64>,
}

/// Short sides that are asked for, in the order of the payload, none twice.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Rendition>")]
pub(super) struct Renditions(pub(super) Vec<u32>);

impl Default for Renditions {
    fn default() -> Self {
        Self(vec![1080, 720, 480])
    }
}

impl TryFrom<Vec<Rendition>> for Renditions {
    type Error = String;

    fn try_from(named: Vec<Rendition>) -> Result<Self, String> {
        if named.is_empty() || named.len() > RENDITIONS_MAX {
            return Err(format!("{} renditions, 1 to {RENDITIONS_MAX} are possible", named.len()));
        }
        let heights: Vec<u32> = named.iter().map(|rendition| rendition.0).collect();
        for (at, height) in heights.iter().enumerate() {
            if heights[..at].contains(height) {
                return Err(format!("\"{height}p\" is named twice"));
            }
        }
        Ok(Self(heights))
    }
}

/// `"<N>p"`: the length of the short side in pixels.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Rendition(u32);

impl TryFrom<String> for Rendition {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.strip_suffix('p')
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|height| (HEIGHT_MIN..=HEIGHT_MAX).contains(height))
            .map(Self)
            .ok_or_else(|| {
                format!("{name:?} is no rendition: write \"{HEIGHT_MIN}p\" to \"{HEIGHT_MAX}p\"")
            })
    }
}

/// Constant rate factor of x264: the smaller, the better and the larger. 0 is left out because
/// it makes lossless streams, which most players refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub(super) struct Crf(pub(super) u32);

impl Default for Crf {
    fn default() -> Self {
        Self(21)
    }
}

impl TryFrom<u32> for Crf {
    type Error = String;

    fn try_from(crf: u32) -> Result<Self, String> {
        if (1..=51).contains(&crf) { Ok(Self(crf)) } else { Err(format!("{crf}: must be 1 to 51")) }
    }
}

/// How much time x264 takes to save bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Preset {
    Ultrafast,
    Superfast,
    #[default]
    Veryfast,
    Faster,
    Fast,
    Medium,
    Slow,
    Slower,
    Veryslow,
}

impl Preset {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ultrafast => "ultrafast",
            Self::Superfast => "superfast",
            Self::Veryfast => "veryfast",
            Self::Faster => "faster",
            Self::Fast => "fast",
            Self::Medium => "medium",
            Self::Slow => "slow",
            Self::Slower => "slower",
            Self::Veryslow => "veryslow",
        }
    }
}

/// Bits per second of the audio track: a number, or text such as `"160k"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AudioBitrate(pub(super) u64);

impl Default for AudioBitrate {
    fn default() -> Self {
        Self(160_000)
    }
}

impl<'de> Deserialize<'de> for AudioBitrate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bits = deserializer.deserialize_any(BitrateVisitor)?;
        if (AUDIO_BITRATE_MIN..=AUDIO_BITRATE_MAX).contains(&bits) {
            Ok(Self(bits))
        } else {
            Err(D::Error::custom(format!(
                "{bits}: must be {AUDIO_BITRATE_MIN} to {AUDIO_BITRATE_MAX} bits per second"
            )))
        }
    }
}

struct BitrateVisitor;

impl Visitor<'_> for BitrateVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bits per second, such as 160000 or \"160k\"")
    }

    fn visit_u64<E: serde::de::Error>(self, bits: u64) -> Result<u64, E> {
        Ok(bits)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
        let (digits, unit) = match text.strip_suffix(['k', 'K']) {
            Some(digits) => (digits, 1000),
            None => (text, 1),
        };
        let number: Option<u64> = digits.parse().ok();
        number
            .and_then(|number| number.checked_mul(unit))
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Reads the payload of `job`, whose op is `ladder`.
///
/// # Errors
/// A permanent [`Failure`] with cause [`Cause::Payload`] that names the field.
///
/// [`Cause::Payload`]: shiftboss_protocol::job::Cause::Payload
pub(super) fn read(job: &Job) -> Result<Ladder, Failure> {
    parse_payload(job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftboss_protocol::job::{Attempt, Cause, JobId};

    fn read_text(payload: &str) -> Result<Ladder, Failure> {
        read(&Job {
            id: JobId(1),
            attempt: Attempt(1),
            job_type: "encode".into(),
            payload: payload.into(),
            checkpoint: None,
        })
    }

    fn refusal(fields: &str) -> String {
        let payload = format!(r#"{{"op":"ladder","input":"/a","output_dir":"/b"{fields}}}"#);
        let failure = read_text(&payload).expect_err(fields);
        assert!(failure.permanent && failure.cause == Cause::Payload, "{failure:?}");
        failure.message
    }

    #[test]
    fn the_smallest_payload_gets_the_defaults() {
        let ladder = read_text(r#"{"op":"ladder","input":"/a","output_dir":"/b"}"#)
            .expect("the smallest payload is valid");
        assert_eq!(ladder.renditions.0, [1080, 720, 480]);
        assert_eq!((ladder.crf, ladder.preset), (Crf(21), Preset::Veryfast));
        assert_eq!(ladder.audio_bitrate, AudioBitrate(160_000));
        assert_eq!(ladder.expect.duration_ms, None);
        assert_eq!(ladder.chunk_seconds, ChunkSeconds(30));
        assert_eq!((ladder.format, ladder.segment_seconds), (Format::Mp4, SegmentSeconds(6)));
    }

    #[test]
    fn all_fields_are_read() {
        let ladder = read_text(
            r#"{"op":"ladder","input":"/a","output_dir":"/b","renditions":["2160p","144p"],
                "format":"hls","segment_seconds":4,"expect":{"duration_ms":20000},"crf":30,
                "preset":"slow","audio_bitrate":"96k","audio_layout":"keep","check":"full",
                "chunk_seconds":0}"#,
        )
        .expect("every field is within its bounds");
        assert_eq!(ladder.renditions.0, [2160, 144]);
        assert_eq!((ladder.crf, ladder.preset), (Crf(30), Preset::Slow));
        assert_eq!(ladder.audio_bitrate, AudioBitrate(96_000));
        assert_eq!((ladder.audio_layout, ladder.check), (AudioLayout::Keep, Check::Full));
        assert_eq!(ladder.expect.duration_ms, Some(20_000));
        assert_eq!(ladder.chunk_seconds, ChunkSeconds(0));
        assert_eq!((ladder.format, ladder.segment_seconds), (Format::Hls, SegmentSeconds(4)));
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_with_its_field() {
        for (fields, field, words) in [
            (r#","renditions":["720p","72p"]"#, "renditions[1]", "\"72p\" is no rendition"),
            (r#","renditions":["+720p"]"#, "renditions[0]", "is no rendition"),
            (r#","renditions":[]"#, "renditions", "0 renditions"),
            (r#","renditions":["720p","720p"]"#, "renditions", "named twice"),
            (r#","crf":0"#, "crf", "1 to 51"),
            (r#","format":"dash""#, "format", "hls"),
            (r#","segment_seconds":5"#, "segment_seconds", "even number from 2 to 30"),
            (r#","chunk_seconds":1"#, "chunk_seconds", "2 to 3600"),
            (r#","preset":"placebo"#, "payload is not JSON", ""),
            (r#","preset":"placebo""#, "preset", "veryslow"),
            (r#","audio_bitrate":"9k""#, "audio_bitrate", "32000 to 512000"),
            (r#","check":"no""#, "check", "quick"),
            (r#","audio_layout":"5.1""#, "audio_layout", "stereo"),
            (r#","audio_bitrate":"fast""#, "audio_bitrate", "160k"),
            (r#","expect":{"duration":3}"#, "expect", "duration_ms"),
            (r#","colour":1"#, "colour", "unknown field"),
        ] {
            let message = refusal(fields);
            assert!(message.contains(field) && message.contains(words), "{fields}: {message}");
        }
    }
}
