//! The payload of `stitch`: which clips, in which order, which parts of them, and into what.

use super::super::super::payload::{AudioBitrate, Crf, Preset};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor, value::MapAccessDeserializer};
use std::fmt;

/// More clips than this are more files than a program may have open on some hosts.
const CLIPS_MAX: usize = 64;
/// Sides of a picture that H.264 encoders take, pixels.
const SIDES: std::ops::RangeInclusive<u32> = 16..=8192;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    #[serde(rename = "op")]
    _op: String,
    #[serde(rename = "inputs")]
    pub(super) clips: Clips,
    pub(super) output_dir: String,
    /// How long each clip goes over into the next one; 0: not at all.
    #[serde(default)]
    pub(super) crossfade: Crossfade,
    /// Pixels of the output; absent: those of the largest clip.
    pub(super) size: Option<Size>,
    /// Frames per second; absent: those of the fastest clip.
    pub(super) rate: Option<Rate>,
    #[serde(default)]
    pub(super) crf: Crf,
    #[serde(default)]
    pub(super) preset: Preset,
    #[serde(default)]
    pub(super) audio_bitrate: AudioBitrate,
}

impl Payload {
    /// What in it asks for more than joining.
    pub(super) fn wish(&self) -> Option<&'static str> {
        if self.crossfade.0 > 0.0 {
            Some("cross-fades are asked for")
        } else if self.clips.0.iter().any(Clip::is_trimmed) {
            Some("clips are trimmed")
        } else if self.size.is_some() {
            Some("a size is asked for")
        } else if self.rate.is_some() {
            Some("a frame rate is asked for")
        } else {
            None
        }
    }
}

/// In the order in which they are shown; the same film may come several times.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Vec<Clip>")]
pub(super) struct Clips(pub(super) Vec<Clip>);

impl TryFrom<Vec<Clip>> for Clips {
    type Error = String;

    fn try_from(clips: Vec<Clip>) -> Result<Self, String> {
        if clips.is_empty() || clips.len() > CLIPS_MAX {
            return Err(format!("{} clips, 1 to {CLIPS_MAX} are possible", clips.len()));
        }
        Ok(Self(clips))
    }
}

/// A film or a part of it: its path, or an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Clip {
    pub(super) input: String,
    /// Seconds from its begin.
    pub(super) from: f64,
    pub(super) to: Option<f64>,
}

impl Clip {
    fn is_trimmed(&self) -> bool {
        self.from > 0.0 || self.to.is_some()
    }
}

impl<'de> Deserialize<'de> for Clip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ClipVisitor)
    }
}

struct ClipVisitor;

impl<'de> Visitor<'de> for ClipVisitor {
    type Value = Clip;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path, or {\"input\": path, \"in\": seconds, \"out\": seconds}")
    }

    fn visit_str<E: serde::de::Error>(self, input: &str) -> Result<Clip, E> {
        Ok(Clip { input: input.to_owned(), from: 0.0, to: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Clip, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            input: String,
            #[serde(default, rename = "in")]
            from: f64,
            #[serde(rename = "out")]
            to: Option<f64>,
        }
        let Written { input, from, to } = Written::deserialize(MapAccessDeserializer::new(map))?;
        let is_time = |seconds: f64| (0.0..=864_000.0).contains(&seconds);
        if !is_time(from) || to.is_some_and(|to| !is_time(to)) {
            return Err(A::Error::custom("in and out must be 0 to 864000 seconds"));
        }
        if let Some(to) = to.filter(|to| *to <= from) {
            return Err(A::Error::custom(format!("out = {to} must be after in = {from}")));
        }
        Ok(Clip { input, from, to })
    }
}

/// Seconds, 0 to 10.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub(super) struct Crossfade(pub(super) f64);

impl TryFrom<f64> for Crossfade {
    type Error = String;

    fn try_from(seconds: f64) -> Result<Self, String> {
        let is_possible = (0.0..=10.0).contains(&seconds);
        is_possible.then_some(Self(seconds)).ok_or(format!("{seconds}: must be 0 to 10"))
    }
}

/// Frames per second, 1 to 120.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub(super) struct Rate(pub(super) f64);

impl TryFrom<f64> for Rate {
    type Error = String;

    fn try_from(rate: f64) -> Result<Self, String> {
        let is_possible = (1.0..=120.0).contains(&rate);
        is_possible.then_some(Self(rate)).ok_or(format!("{rate}: must be 1 to 120"))
    }
}

/// `"<width>x<height>"`, both even.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Size(pub(super) (u32, u32));

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let sides = text.split_once('x').and_then(|(width, height)| {
            let (width, height) = (width.parse().ok()?, height.parse().ok()?);
            let is_side = |side: u32| SIDES.contains(&side) && side.is_multiple_of(2);
            (is_side(width) && is_side(height)).then_some((width, height))
        });
        let (least, most) = (SIDES.start(), SIDES.end());
        sides.map(Self).ok_or_else(|| {
            format!("{text:?}: write \"1280x720\", both sides even and {least} to {most}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(clips: &str, fields: &str) -> Result<Payload, String> {
        let text = format!(r#"{{"op":"stitch","inputs":{clips},"output_dir":"/b"{fields}}}"#);
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn clips_are_paths_or_parts() {
        let clips = r#"["/a.mp4", {"input":"/b.mp4","in":1.5,"out":3}, {"input":"/c.mp4"}]"#;
        let payload = read(clips, "").expect("it is valid");
        let part = Clip { input: "/b.mp4".to_owned(), from: 1.5, to: Some(3.0) };
        assert_eq!(payload.clips.0[1], part);
        assert_eq!(payload.wish(), Some("clips are trimmed"));
        assert_eq!(read(r#"["/a", "/b"]"#, "").expect("it is valid").wish(), None);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let many = format!("[{}\"/a\"]", "\"/a\",".repeat(CLIPS_MAX));
        for (clips, fields, words) in [
            ("[]", "", "0 clips"),
            (&*many, "", "65 clips, 1 to 64"),
            (r#"[{"input":"/a","in":3,"out":2}]"#, "", "out = 2 must be after in = 3"),
            (r#"[{"input":"/a","in":-1}]"#, "", "0 to 864000"),
            (r#"[{"input":"/a","at":1}]"#, "", "unknown field"),
            ("[7]", "", "a path, or"),
            (r#"["/a"]"#, r#","crossfade":11"#, "0 to 10"),
            (r#"["/a"]"#, r#","size":"1280x721""#, "both sides even"),
            (r#"["/a"]"#, r#","size":"-2x720""#, "both sides even"),
            (r#"["/a"]"#, r#","rate":0.5"#, "1 to 120"),
        ] {
            let sentence = read(clips, fields).expect_err(clips);
            assert!(sentence.contains(words), "{clips}{fields}: {sentence}");
        }
    }
}
