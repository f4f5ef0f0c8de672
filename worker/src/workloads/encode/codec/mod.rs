//! Video encoders: which there are, how they are told what to do (`arguments`), and which one a
//! job uses (`choice`, pure; `trial` tries it out; `sessions` counts those of hardware). Lists of
//! encoders prove nothing: FFmpeg names all that it was built with, whatever the machine has.

pub(super) mod arguments;
pub(super) mod choice;
pub(super) mod sessions;
pub(super) mod trial;

use serde::{Deserialize, Serialize};

/// A video encoder in FFmpeg's words, one of [`shiftboss_protocol::media::ENCODERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub(crate) struct Encoder {
    pub(crate) engine: Engine,
    pub(crate) codec: Codec,
}

/// What does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Engine {
    X264,
    X265,
    SvtAv1,
    Vpx,
    Nvenc,
    Vaapi,
    Qsv,
}

/// What comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Codec {
    H264,
    Hevc,
    Av1,
    Vp9,
}

/// The encoder of a ladder that names none. The trial of a worker's set-up proves it.
pub(crate) const X264: Encoder = Encoder { engine: Engine::X264, codec: Codec::H264 };

const NAMES: [(&str, Engine, Codec); 13] = [
    ("h264_nvenc", Engine::Nvenc, Codec::H264),
    ("h264_vaapi", Engine::Vaapi, Codec::H264),
    ("h264_qsv", Engine::Qsv, Codec::H264),
    ("libx264", Engine::X264, Codec::H264),
    ("hevc_nvenc", Engine::Nvenc, Codec::Hevc),
    ("hevc_vaapi", Engine::Vaapi, Codec::Hevc),
    ("hevc_qsv", Engine::Qsv, Codec::Hevc),
    ("libx265", Engine::X265, Codec::Hevc),
    ("av1_nvenc", Engine::Nvenc, Codec::Av1),
    ("av1_vaapi", Engine::Vaapi, Codec::Av1),
    ("av1_qsv", Engine::Qsv, Codec::Av1),
    ("libsvtav1", Engine::SvtAv1, Codec::Av1),
    ("libvpx-vp9", Engine::Vpx, Codec::Vp9),
];

impl Encoder {
    pub(crate) fn named(name: &str) -> Option<Self> {
        let found = NAMES.iter().find(|(known, ..)| *known == name);
        found.map(|(_, engine, codec)| Self { engine: *engine, codec: *codec })
    }

    /// FFmpeg's name of it.
    pub(crate) fn name(self) -> &'static str {
        let is_own = |(_, engine, codec): &&(&str, Engine, Codec)| {
            (*engine, *codec) == (self.engine, self.codec)
        };
        NAMES.iter().find(is_own).map_or("libx264", |(name, ..)| name)
    }

    /// It is a part of the machine, which others use too and which may refuse.
    pub(crate) const fn is_hardware(self) -> bool {
        matches!(self.engine, Engine::Nvenc | Engine::Vaapi | Engine::Qsv)
    }

    /// It sets keyframes by counting pictures, whatever it is told.
    pub(crate) const fn counts_keyframes(self) -> bool {
        matches!(self.engine, Engine::SvtAv1)
    }
}

impl Codec {
    /// What ffprobe calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Av1 => "av1",
            Self::Vp9 => "vp9",
        }
    }
}

impl From<Encoder> for &'static str {
    fn from(encoder: Encoder) -> Self {
        encoder.name()
    }
}

impl TryFrom<String> for Encoder {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::named(&name).ok_or_else(|| {
            let known: Vec<&str> = NAMES.iter().map(|(name, ..)| *name).collect();
            format!("{name:?} is none of the encoders {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoder_of_the_configuration_is_known_by_its_name() {
        for name in shiftboss_protocol::media::ENCODERS {
            assert_eq!(Encoder::named(name).map(Encoder::name), Some(name));
        }
        assert_eq!(X264.name(), "libx264");
        assert!(Encoder::try_from("x264".to_owned()).expect_err("a word").contains("libvpx-vp9"));
    }
}
