//! The payload of `keying`: what is keyed, how, and into what.

use super::super::super::payload::{Crf, Expect, Preset};
use serde::Deserialize;
use shiftboss_protocol::job::{Cause, Failure};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    #[serde(rename = "op")]
    _op: String,
    pub(super) input: String,
    pub(super) output_dir: String,
    /// The colour that becomes transparent; absent: that of the picture's border.
    pub(super) color: Option<Color>,
    /// How unlike that colour a pixel may be and go.
    pub(super) tolerance: Option<Tolerance>,
    /// How much further the edge reaches, from transparent to opaque.
    pub(super) softness: Option<Softness>,
    /// Whether the colour's light is taken off what stays.
    #[serde(default = "yes")]
    pub(super) despill: bool,
    pub(super) format: Option<Format>,
    /// A picture or a film that is shown where the colour was.
    pub(super) background: Option<String>,
    pub(super) crf: Option<Crf>,
    #[serde(default)]
    pub(super) preset: Preset,
    #[serde(default)]
    pub(super) expect: Expect,
}

const fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// VP9 with alpha.
    Webm,
    /// ProRes 4444.
    Mov,
    /// H.264 over a background.
    Mp4,
}

impl Payload {
    /// What is to be made.
    ///
    /// # Errors
    /// A permanent [`Failure`] when format and background contradict each other.
    pub(super) fn format(&self) -> Result<Format, Failure> {
        let refuse = |sentence: &str| {
            let message = format!("payload field format: {sentence}");
            Err(Failure::permanent(Cause::Payload, message))
        };
        match (self.format, &self.background) {
            (None, None) => Ok(Format::Webm),
            (None | Some(Format::Mp4), Some(_)) => Ok(Format::Mp4),
            (Some(Format::Mp4), None) => refuse(
                "\"mp4\" keeps no transparency: name a background, or choose \"webm\" or \"mov\"",
            ),
            (Some(Format::Webm | Format::Mov), Some(_)) => refuse(
                "over a background only \"mp4\" is made: leave out the background for a film \
                 that is transparent",
            ),
            (Some(format), None) => Ok(format),
        }
    }
}

/// Red, green and blue: `"#00B140"`, `"0x00B140"`, `"green"` or `"blue"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Color(pub(super) [u8; 3]);

impl TryFrom<String> for Color {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refuse = || format!("{text:?}: write \"#RRGGBB\", \"green\" or \"blue\"");
        let digits = match text.as_str() {
            "green" => "00FF00",
            "blue" => "0000FF",
            other => other.strip_prefix('#').or(other.strip_prefix("0x")).ok_or_else(refuse)?,
        };
        if digits.len() != 6 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refuse());
        }
        let [_, red, green, blue] =
            u32::from_str_radix(digits, 16).map_err(|_| refuse())?.to_be_bytes();
        Ok(Self([red, green, blue]))
    }
}

/// A distance of colours: 0 is the same, 1 that of opposite corners.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub(super) struct Tolerance(pub(super) f64);

impl TryFrom<f64> for Tolerance {
    type Error = String;

    fn try_from(distance: f64) -> Result<Self, String> {
        let is_possible = (0.01..=0.6).contains(&distance);
        is_possible.then_some(Self(distance)).ok_or(format!("{distance}: must be 0.01 to 0.6"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub(super) struct Softness(pub(super) f64);

impl TryFrom<f64> for Softness {
    type Error = String;

    fn try_from(distance: f64) -> Result<Self, String> {
        let is_possible = (0.0..=0.5).contains(&distance);
        is_possible.then_some(Self(distance)).ok_or(format!("{distance}: must be 0 to 0.5"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &str) -> Result<Payload, String> {
        let text = format!(r#"{{"op":"keying","input":"/a","output_dir":"/b"{fields}}}"#);
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_format_follows_from_the_background() {
        let format = |fields: &str| read(fields).expect("it is valid").format();
        assert_eq!(format(""), Ok(Format::Webm));
        assert_eq!(format(r#","background":"/c.png""#), Ok(Format::Mp4));
        assert_eq!(format(r#","format":"mov""#), Ok(Format::Mov));
        for (fields, words) in [
            (r#","format":"mp4""#, "keeps no transparency"),
            (r#","format":"webm","background":"/c.png""#, "only \"mp4\""),
        ] {
            let failure = format(fields).expect_err(fields);
            assert!(failure.permanent && failure.message.contains(words), "{}", failure.message);
        }
    }

    #[test]
    fn colours_are_read_and_others_refused() {
        let color = |text: &str| Color::try_from(text.to_owned());
        assert_eq!(color("#00B140"), Ok(Color([0, 0xB1, 0x40])));
        assert_eq!(color("0x00b140"), Ok(Color([0, 0xB1, 0x40])));
        assert_eq!(color("blue"), Ok(Color([0, 0, 0xFF])));
        for text in ["", "#", "#00B14", "#00B14001", "00B140", "#+0B140", "#00Bü4", "red"] {
            assert!(color(text).is_err_and(|sentence| sentence.contains("#RRGGBB")), "{text}");
        }
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        for fields in [
            r#","tolerance":0"#,
            r#","tolerance":0.61"#,
            r#","softness":-0.1"#,
            r#","softness":0.6"#,
            r#","format":"gif""#,
            r#","crf":0"#,
            r#","colour":"green""#,
        ] {
            read(fields).expect_err(fields);
        }
    }
}
