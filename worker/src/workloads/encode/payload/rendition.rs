//! Renditions as a payload names them: by their short side, with or without a peak.

use serde::Deserialize;
use serde_json::{Map, Value};
use shiftboss_protocol::media;

/// Renditions that are asked for, in the order of the payload, none twice.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Rendition>")]
pub(crate) struct Renditions(pub(crate) Vec<Rendition>);

impl Default for Renditions {
    fn default() -> Self {
        Self([1080, 720, 480].map(Rendition::of_side).to_vec())
    }
}

impl TryFrom<Vec<Rendition>> for Renditions {
    type Error = String;

    fn try_from(named: Vec<Rendition>) -> Result<Self, String> {
        let max = media::RENDITIONS_MAX;
        if named.is_empty() || named.len() > max {
            return Err(format!("{} renditions, 1 to {max} are possible", named.len()));
        }
        for (at, Rendition { side, .. }) in named.iter().enumerate() {
            if named[..at].iter().any(|other| other.side == *side) {
                return Err(format!("\"{side}p\" is named twice"));
            }
        }
        Ok(Self(named))
    }
}

/// `"<N>p"`, or the same as `name` beside a peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Rendition {
    /// Length of the short side, pixels.
    pub(crate) side: u32,
    /// Peak of the video's bit rate and the bits over which it is kept.
    pub(crate) rate_max: Option<u64>,
    pub(crate) buffer: Option<u64>,
}

impl Rendition {
    pub(crate) const fn of_side(side: u32) -> Self {
        Self { side, rate_max: None, buffer: None }
    }
}

impl TryFrom<Value> for Rendition {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let mut rendition = Self::of_side(0);
        let fields = match value {
            Value::Object(fields) => fields,
            name => Map::from_iter([("name".to_owned(), name)]),
        };
        for (key, value) in fields {
            match key.as_str() {
                "name" => rendition.side = side_of(&value)?,
                "maxrate" => rendition.rate_max = Some(video_rate(&key, &value)?),
                "bufsize" => rendition.buffer = Some(video_rate(&key, &value)?),
                _ => {
                    return Err(format!("unknown field {key:?}: there are name, maxrate, bufsize"));
                }
            }
        }
        if rendition.side == 0 {
            return Err("it has no name".to_owned());
        }
        if rendition.buffer.is_some() && rendition.rate_max.is_none() {
            return Err("bufsize needs a maxrate".to_owned());
        }
        Ok(rendition)
    }
}

fn side_of(name: &Value) -> Result<u32, String> {
    let sides = media::RENDITION_SIDES;
    name.as_str().and_then(media::side_of).ok_or_else(|| {
        let (min, max) = (sides.start(), sides.end());
        format!("{name} is no rendition: write \"{min}p\" to \"{max}p\"")
    })
}

fn video_rate(key: &str, value: &Value) -> Result<u64, String> {
    let (min, max) = (media::VIDEO_BITRATES.start(), media::VIDEO_BITRATES.end());
    let bits = bits_of(value).filter(|bits| media::VIDEO_BITRATES.contains(bits));
    bits.ok_or_else(|| {
        format!("{key} {value}: must be {min} to {max} bits per second, such as \"2.8M\"")
    })
}

/// A number, or text such as `"160k"`.
pub(super) fn bits_of(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str().and_then(media::bits_of))
}
