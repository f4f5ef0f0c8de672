//! The payload of `passthrough`: what an output must fit.

use super::super::super::payload::{AudioBitrate, Crf, Expect, Preset};
use super::super::sound::Container;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    #[serde(rename = "op")]
    _op: String,
    pub(super) input: String,
    pub(super) output_dir: String,
    #[serde(default)]
    pub(super) format: Format,
    /// Codecs of the picture that are copied; absent: [`Format::pictures`].
    pub(super) video_codecs: Option<Codecs<Picture>>,
    /// Codecs of sound that are copied; absent: those that players expect in the container.
    pub(super) audio_codecs: Option<Codecs<Sound>>,
    /// The largest short side, pixels; absent: any.
    pub(super) short_side_max: Option<Side>,
    #[serde(default)]
    pub(super) crf: Crf,
    #[serde(default)]
    pub(super) preset: Preset,
    #[serde(default)]
    pub(super) audio_bitrate: AudioBitrate,
    #[serde(default)]
    pub(super) expect: Expect,
}

impl Payload {
    pub(super) fn pictures(&self) -> Vec<&'static str> {
        match &self.video_codecs {
            Some(codecs) => codecs.0.iter().map(|codec| codec.word()).collect(),
            None => self.format.pictures().to_vec(),
        }
    }

    pub(super) fn sounds(&self) -> Vec<&'static str> {
        match &self.audio_codecs {
            Some(codecs) => codecs.0.iter().map(|codec| codec.word()).collect(),
            None => self.format.container().sounds().to_vec(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    #[default]
    Mp4,
    Mkv,
}

impl Format {
    pub(super) const fn container(self) -> Container {
        match self {
            Self::Mp4 => Container::Mp4,
            Self::Mkv => Container::Matroska,
        }
    }

    pub(super) const fn extension(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Mkv => "mkv",
        }
    }

    /// FFmpeg's name of its writer.
    pub(super) const fn muxer(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Mkv => "matroska",
        }
    }

    /// What plays everywhere, and what Matroska is chosen for.
    const fn pictures(self) -> &'static [&'static str] {
        match self {
            Self::Mp4 => &["h264"],
            Self::Mkv => &["h264", "hevc", "av1", "vp9"],
        }
    }
}

/// At least one codec.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<T>")]
pub(super) struct Codecs<T>(pub(super) Vec<T>);

impl<T> TryFrom<Vec<T>> for Codecs<T> {
    type Error = String;

    fn try_from(codecs: Vec<T>) -> Result<Self, String> {
        if codecs.is_empty() {
            return Err("no codec is named: leave the field out for the usual ones".to_owned());
        }
        Ok(Self(codecs))
    }
}

/// Codecs of the picture that both containers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Picture {
    H264,
    Hevc,
    Av1,
    Vp9,
}

impl Picture {
    const fn word(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Av1 => "av1",
            Self::Vp9 => "vp9",
        }
    }
}

/// Codecs of sound that both containers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Sound {
    Aac,
    Ac3,
    Alac,
    Eac3,
    Flac,
    Mp3,
    Opus,
}

impl Sound {
    const fn word(self) -> &'static str {
        match self {
            Self::Aac => "aac",
            Self::Ac3 => "ac3",
            Self::Alac => "alac",
            Self::Eac3 => "eac3",
            Self::Flac => "flac",
            Self::Mp3 => "mp3",
            Self::Opus => "opus",
        }
    }
}

/// Pixels, 144 to 4320.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub(super) struct Side(pub(super) u32);

impl TryFrom<u32> for Side {
    type Error = String;

    fn try_from(pixels: u32) -> Result<Self, String> {
        let is_possible = (144..=4320).contains(&pixels);
        is_possible.then_some(Self(pixels)).ok_or(format!("{pixels}: must be 144 to 4320"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &str) -> Result<Payload, String> {
        let text = format!(r#"{{"op":"passthrough","input":"/a","output_dir":"/b"{fields}}}"#);
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_usual_target_is_what_plays_everywhere() {
        let payload = read("").expect("it is valid");
        assert_eq!((payload.format, payload.pictures()), (Format::Mp4, vec!["h264"]));
        assert!(payload.sounds().contains(&"aac"));
        let asked = r#","format":"mkv","video_codecs":["hevc"],"audio_codecs":["flac","opus"]"#;
        let payload = read(asked).expect("it is valid");
        assert_eq!((payload.pictures(), payload.sounds()), (vec!["hevc"], vec!["flac", "opus"]));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (fields, words) in [
            (r#","format":"avi""#, "unknown variant `avi`"),
            (r#","video_codecs":[]"#, "no codec is named"),
            (r#","video_codecs":["mpeg4"]"#, "unknown variant `mpeg4`"),
            (r#","short_side_max":100"#, "144 to 4320"),
            (r#","audio_codec":"aac""#, "unknown field"),
        ] {
            let sentence = read(fields).expect_err(fields);
            assert!(sentence.contains(words), "{fields}: {sentence}");
        }
    }
}
