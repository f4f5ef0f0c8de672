//! The payload of an `encode` job: what may be asked for, within which bounds.
//!
//! A value out of bounds fails the job at once, with the field named.

mod rendition;

pub(super) use rendition::{Rendition, Renditions};

use super::codec::{Encoder, X264};
use crate::attempt::Job;
use crate::{Settings, parse_payload};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shiftboss_protocol::job::{Cause, Failure};
use shiftboss_protocol::media;

/// One film into a ladder of renditions.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ladder {
    #[serde(rename = "op")]
    _op: String,
    /// The profile that the rest was laid over; of no use any more.
    #[serde(default, rename = "profile")]
    _profile: Option<String>,
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
    /// Encoders, the first that works is used.
    #[serde(default)]
    pub(super) codecs: Codecs,
    #[serde(default)]
    pub(super) crf: Crf,
    #[serde(default)]
    pub(super) preset: Preset,
    /// Most pictures per second.
    #[serde(default)]
    pub(super) frame_rate_max: Option<FrameRate>,
    #[serde(default)]
    pub(super) audio_bitrate: AudioBitrate,
    #[serde(default)]
    pub(super) audio_layout: AudioLayout,
    /// Loudness that the sound is brought to.
    #[serde(default)]
    pub(super) loudness: Option<Loudness>,
    /// Gives up when a rendition would be larger than its film.
    #[serde(default)]
    pub(super) stop_when_larger: bool,
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
        if seconds == 0 || media::CHUNK_SECONDS.contains(&seconds) {
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
        if media::SEGMENT_SECONDS.contains(&seconds) && seconds.is_multiple_of(2) {
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

/// Encoders, none twice.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Encoder>")]
pub(super) struct Codecs(pub(super) Vec<Encoder>);

impl Default for Codecs {
    fn default() -> Self {
        Self(vec![X264])
    }
}

impl TryFrom<Vec<Encoder>> for Codecs {
    type Error = String;

    fn try_from(listed: Vec<Encoder>) -> Result<Self, String> {
        let is_twice = |at: usize| listed[..at].contains(&listed[at]);
        match (0..listed.len()).find(|at| is_twice(*at)) {
            None if listed.is_empty() => Err("it names no encoder".to_owned()),
            None => Ok(Self(listed)),
            Some(at) => Err(format!("{:?} is named twice", listed[at].name())),
        }
    }
}

/// Pictures per second.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub(super) struct FrameRate(pub(super) f64);

impl TryFrom<f64> for FrameRate {
    type Error = String;

    fn try_from(rate: f64) -> Result<Self, String> {
        let (min, max) = (media::FRAME_RATES.start(), media::FRAME_RATES.end());
        let is_possible = media::FRAME_RATES.contains(&rate);
        is_possible.then_some(Self(rate)).ok_or(format!("{rate}: must be {min} to {max}"))
    }
}

/// Integrated loudness, LUFS.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub(super) struct Loudness(pub(super) f64);

impl TryFrom<f64> for Loudness {
    type Error = String;

    fn try_from(target: f64) -> Result<Self, String> {
        let (min, max) = (media::LOUDNESS.start(), media::LOUDNESS.end());
        let is_possible = media::LOUDNESS.contains(&target);
        is_possible.then_some(Self(target)).ok_or(format!("{target}: must be {min} to {max} LUFS"))
    }
}

/// Constant rate factor: the smaller, the better and the larger.
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
        let (min, max) = (media::CRF.start(), media::CRF.end());
        let is_possible = media::CRF.contains(&crf);
        is_possible.then_some(Self(crf)).ok_or(format!("{crf}: must be {min} to {max}"))
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
    /// The word that x264 knows it by.
    pub(super) const fn as_str(self) -> &'static str {
        media::PRESETS[self as usize]
    }
}

/// Bits per second of the audio track: a number, or text such as `"160k"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct AudioBitrate(pub(super) u64);

impl Default for AudioBitrate {
    fn default() -> Self {
        Self(160_000)
    }
}

impl TryFrom<Value> for AudioBitrate {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let (min, max) = (media::AUDIO_BITRATES.start(), media::AUDIO_BITRATES.end());
        let bits = rendition::bits_of(&value).filter(|bits| media::AUDIO_BITRATES.contains(bits));
        bits.map(Self).ok_or_else(|| {
            format!("{value}: must be {min} to {max} bits per second, such as \"160k\"")
        })
    }
}

/// Reads the payload of `job`, whose op is `ladder`. The profile that it names says what it
/// leaves out.
///
/// # Errors
/// A permanent [`Failure`] with cause [`Cause::Payload`] that names the field.
pub(super) fn read(job: &Job, settings: &Settings) -> Result<Ladder, Failure> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        profile: Option<String>,
    }
    let named: Named = parse_payload(job)?;
    let ladder: Ladder = match named.profile {
        None => parse_payload(job)?,
        Some(name) => {
            let mut fields = profile(&name, settings)?;
            let own: Map<String, Value> = parse_payload(job)?;
            fields.extend(own);
            parse_payload(&Job { payload: Value::Object(fields).to_string(), ..job.clone() })?
        }
    };
    let crf = ladder.crf.0;
    if crf > X264_CRF_MAX && ladder.codecs.0.contains(&X264) {
        let message = format!(
            "payload field crf: {crf} is not possible with libx264, which is among codecs and goes \
             to {X264_CRF_MAX}"
        );
        return Err(Failure::permanent(Cause::Payload, message));
    }
    Ok(ladder)
}

/// The worst quality of libx264.
const X264_CRF_MAX: u32 = 51;

/// What the configuration says about a profile.
fn profile(name: &str, settings: &Settings) -> Result<Map<String, Value>, Failure> {
    let refused = |message: String| Failure::permanent(Cause::Payload, message);
    let text = settings.profiles.get(name).ok_or_else(|| {
        let shown: String = name.chars().take(80).collect();
        let known: Vec<&str> = settings.profiles.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        refused(format!(
            "payload field profile: the configuration has no profile {shown:?}, it has {known}"
        ))
    })?;
    serde_json::from_str(text)
        .map_err(|error| refused(format!("profile {name} cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftboss_protocol::job::{Attempt, JobId};

    fn read_text(payload: &str) -> Result<Ladder, Failure> {
        let web = r#"{"crf":30,"format":"hls","renditions":["480p"],"audio_bitrate":"96k"}"#;
        let profiles = [("tv", "{}"), ("web", web)];
        let profiles = profiles.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let settings = Settings { profiles: profiles.into(), ..Settings::default() };
        let job = Job {
            id: JobId(1),
            attempt: Attempt(1),
            job_type: "encode".into(),
            payload: payload.into(),
            checkpoint: None,
        };
        read(&job, &settings)
    }

    fn sides(ladder: &Ladder) -> Vec<u32> {
        ladder.renditions.0.iter().map(|rendition| rendition.side).collect()
    }

    #[test]
    fn a_job_lays_its_own_words_over_those_of_its_profile() {
        let ladder =
            read_text(r#"{"op":"ladder","input":"/a","output_dir":"/b","profile":"web","crf":25}"#)
                .expect("there is such a profile");
        assert_eq!((ladder.crf, ladder.format), (Crf(25), Format::Hls));
        assert_eq!((sides(&ladder), ladder.audio_bitrate), (vec![480], AudioBitrate(96_000)));
        assert_eq!(ladder.preset, Preset::Veryfast);
        let message = refusal(r#","profile":"radio""#);
        assert!(message.contains("\"radio\", it has tv, web"), "{message}");
    }

    #[test]
    fn renditions_may_have_a_peak_of_their_own() {
        let ladder = read_text(
            r#"{"op":"ladder","input":"/a","output_dir":"/b","codecs":["h264_nvenc","libx264"],
                "renditions":["720p",{"name":"480p","maxrate":"1.4M","bufsize":2000000}],
                "frame_rate_max":30,"loudness":-16,"stop_when_larger":true}"#,
        )
        .expect("every field is within its bounds");
        let [plain, bounded] = ladder.renditions.0[..] else { panic!("there are two") };
        assert_eq!(plain, Rendition::of_side(720));
        assert_eq!((bounded.rate_max, bounded.buffer), (Some(1_400_000), Some(2_000_000)));
        assert_eq!(ladder.codecs.0.len(), 2);
        assert_eq!(ladder.frame_rate_max, Some(FrameRate(30.0)));
        assert_eq!(ladder.loudness, Some(Loudness(-16.0)));
        assert!(ladder.stop_when_larger);
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
        assert_eq!(sides(&ladder), [1080, 720, 480]);
        assert_eq!((&ladder.codecs.0[..], ladder.loudness), (&[X264][..], None));
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
        assert_eq!(sides(&ladder), [2160, 144]);
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
            (r#","crf":0"#, "crf", "1 to 63"),
            (r#","crf":52"#, "crf", "libx264"),
            (r#","codecs":[]"#, "codecs", "no encoder"),
            (r#","codecs":["x264"]"#, "codecs[0]", "libx264"),
            (r#","codecs":["libx264","libx264"]"#, "codecs", "named twice"),
            (r#","renditions":[{"name":"720p","bufsize":"1M"}]"#, "renditions[0]", "a maxrate"),
            (r#","renditions":[{"maxrate":"1M"}]"#, "renditions[0]", "no name"),
            (r#","renditions":[{"name":"720p","maxrate":"9k"}]"#, "renditions[0]", "50000"),
            (r#","renditions":[{"name":"720p","rate":"9M"}]"#, "renditions[0]", "bufsize"),
            (r#","frame_rate_max":0"#, "frame_rate_max", "1 to 240"),
            (r#","loudness":0"#, "loudness", "-40 to -5"),
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
