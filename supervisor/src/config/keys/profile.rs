//! Profiles: what ladders are to be like, by name. A job names one and may say single things
//! otherwise. Nothing has a default here: what a profile leaves out has that of a payload.

use crate::config::file::{Overlay, section};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shiftboss_protocol::media::{
    AUDIO_BITRATES, CHUNK_SECONDS, ENCODERS, RENDITIONS_MAX, SEGMENT_SECONDS, VIDEO_BITRATES,
    bits_of, side_of,
};
use std::collections::BTreeMap;
use toml::Value;

section! {
    /// What ladders are to be like.
    Profile, ProfileFile {
        /// "mp4" or "hls".
        format: Option<String>,
        /// Such as "720p", or { name = "720p", maxrate = "2.8M", bufsize = "5.6M" }.
        renditions: Option<Vec<Rendition>>,
        /// Video encoders in FFmpeg's words, the first that works is used.
        codecs: Option<Vec<String>>,
        /// Quality, 1 to 63; libx264 goes to 51.
        crf: Option<u32>,
        /// How much time encoders take to save bits, in the words of x264.
        preset: Option<String>,
        /// Most pictures per second.
        frame_rate_max: Option<f64>,
        /// Bits per second of the sound, such as "160k".
        audio_bitrate: Option<String>,
        /// Whether surround sound is mixed down ("stereo") or kept ("keep").
        audio_layout: Option<String>,
        /// Integrated loudness that the sound is brought to, LUFS.
        loudness: Option<f64>,
        /// Least length of a segment of HLS, seconds, even.
        segment_seconds: Option<u32>,
        /// Length of the chunks of long films, seconds; 0: none.
        chunk_seconds: Option<u32>,
        /// Gives up when a rendition would be larger than its film.
        stop_when_larger: Option<bool>,
    }
}

impl Profile {
    /// One of which nothing is said.
    pub(crate) const fn empty() -> Self {
        Self {
            format: None,
            renditions: None,
            codecs: None,
            crf: None,
            preset: None,
            frame_rate_max: None,
            audio_bitrate: None,
            audio_layout: None,
            loudness: None,
            segment_seconds: None,
            chunk_seconds: None,
            stop_when_larger: None,
        }
    }

    /// Those that were written.
    pub(crate) fn all_of(written: BTreeMap<String, ProfileFile>) -> BTreeMap<String, Self> {
        let profile = |written| {
            let mut profile = Self::empty();
            profile.overlay(written);
            profile
        };
        written.into_iter().map(|(name, written)| (name, profile(written))).collect()
    }

    /// What it says, as fields of a payload.
    #[must_use]
    pub fn payload(&self) -> String {
        let mut fields = serde_json::to_value(self).expect("plain data always serialises");
        if let Some(fields) = fields.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        fields.to_string()
    }
}

/// A rendition by its short side, with its peak where that is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Rendition {
    /// Such as "720p".
    Named(String),
    /// With more than its name.
    Bounded(Bounded),
}

/// A rendition with its peak.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bounded {
    /// Such as "720p".
    name: String,
    /// Peak of the video's bit rate, bits per second, such as "2.8M".
    #[serde(skip_serializing_if = "Option::is_none")]
    maxrate: Option<String>,
    /// Bits over which the peak is kept; twice the peak unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    bufsize: Option<String>,
}

pub(super) const RENDITIONS_FORM: &str = "1 to 8 different renditions from \"144p\" to \"4320p\", \
    or { name = \"720p\", maxrate = \"2.8M\", bufsize = \"5.6M\" } of 50k to 400M";

pub(super) fn are_renditions(value: &Value) -> bool {
    let Some(list) = value.as_array() else { return false };
    let sides: Option<Vec<u32>> = list.iter().map(rendition).collect();
    sides.is_some_and(|mut sides| {
        sides.sort_unstable();
        sides.dedup();
        (1..=RENDITIONS_MAX).contains(&list.len()) && sides.len() == list.len()
    })
}

fn rendition(value: &Value) -> Option<u32> {
    let is_rate = |value: &Value| {
        value.as_str().and_then(bits_of).is_some_and(|bits| VIDEO_BITRATES.contains(&bits))
    };
    match value {
        Value::String(name) => side_of(name),
        Value::Table(fields) => {
            let mut side = None;
            for (key, value) in fields {
                match key.as_str() {
                    "name" => side = value.as_str().and_then(side_of),
                    "maxrate" | "bufsize" if is_rate(value) => {}
                    _ => return None,
                }
            }
            // A buffer alone bounds nothing.
            side.filter(|_| fields.contains_key("maxrate") || !fields.contains_key("bufsize"))
        }
        _ => None,
    }
}

pub(super) const CODECS_FORM: &str = "different ones of h264_nvenc, h264_vaapi, h264_qsv, libx264, \
    hevc_nvenc, hevc_vaapi, hevc_qsv, libx265, av1_nvenc, av1_vaapi, av1_qsv, libsvtav1, \
    libvpx-vp9";

pub(super) fn are_codecs(value: &Value) -> bool {
    value.as_array().is_some_and(|list| {
        let is_known = |codec: &Value| codec.as_str().is_some_and(|name| ENCODERS.contains(&name));
        let is_new = |at: usize| !list[..at].contains(&list[at]);
        !list.is_empty() && list.iter().all(is_known) && (0..list.len()).all(is_new)
    })
}

pub(super) const AUDIO_RATE_FORM: &str = "bits per second such as \"160k\", from 32k to 512k";

pub(super) fn is_audio_rate(value: &Value) -> bool {
    value.as_str().and_then(bits_of).is_some_and(|bits| AUDIO_BITRATES.contains(&bits))
}

pub(super) const CHUNK_FORM: &str = "whole seconds from 2 to 3600, or 0 for no chunks";

pub(super) fn is_chunk(value: &Value) -> bool {
    let seconds = value.as_integer().and_then(|seconds| u32::try_from(seconds).ok());
    seconds.is_some_and(|seconds| seconds == 0 || CHUNK_SECONDS.contains(&seconds))
}

pub(super) const SEGMENT_FORM: &str = "an even number of seconds from 2 to 30";

pub(super) fn is_segment(value: &Value) -> bool {
    let seconds = value.as_integer().and_then(|seconds| u32::try_from(seconds).ok());
    seconds.is_some_and(|seconds| seconds % 2 == 0 && SEGMENT_SECONDS.contains(&seconds))
}

#[cfg(test)]
mod tests {
    use super::super::super::{Config, LoadOptions};

    fn load(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("shiftboss.toml"), text).expect("written");
        let loaded = Config::load(&LoadOptions::plain(folder.path()));
        loaded.map(|(config, _)| config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_profile_becomes_fields_of_a_payload() {
        let config = load(
            "[profiles.web]\nformat = \"hls\"\ncrf = 23\nrenditions = [\"480p\", \
             { name = \"1080p\", maxrate = \"5M\" }]\nloudness = -16\n[profiles.raw]\n\
             chunk_seconds = 0\n",
        )
        .expect("it is valid");
        assert_eq!(
            config.profiles["web"].payload(),
            concat!(
                r#"{"crf":23,"format":"hls","loudness":-16.0,"#,
                r#""renditions":["480p",{"maxrate":"5M","name":"1080p"}]}"#
            )
        );
        assert_eq!(config.profiles["raw"].payload(), r#"{"chunk_seconds":0}"#);
        let shown: Vec<String> = config.show().iter().map(ToString::to_string).collect();
        assert!(
            shown.iter().any(|line| line.starts_with("profiles.web.crf = 23  # ")),
            "{shown:?}"
        );
        assert!(shown.contains(&"# profiles.raw.crf is not set".to_owned()), "{shown:?}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_key_and_line() {
        for (key, value, words) in [
            ("renditions", "[\"72p\"]", "\"144p\" to \"4320p\""),
            ("renditions", "[\"720p\", { name = \"720p\" }]", "different"),
            ("renditions", "[{ name = \"720p\", bufsize = \"5M\" }]", "maxrate"),
            ("renditions", "[{ name = \"720p\", rate = \"5M\" }]", "maxrate"),
            ("codecs", "[\"h264_nvenc\", \"x264\"]", "libx264"),
            ("codecs", "[]", "libx264"),
            ("crf", "0", "1 to 63"),
            ("preset", "\"placebo\"", "veryslow"),
            ("format", "\"dash\"", "hls"),
            ("frame_rate_max", "0.5", "1 to 240"),
            ("audio_bitrate", "\"9k\"", "32k to 512k"),
            ("audio_layout", "\"5.1\"", "keep"),
            ("loudness", "3", "-40 to -5"),
            ("segment_seconds", "5", "even number of seconds"),
            ("chunk_seconds", "1", "2 to 3600"),
            ("stop_when_larger", "1", "true or false"),
            ("quality", "1", "unknown key"),
        ] {
            let text = format!("[profiles.web]\n{key} = {value}\n");
            let sentence = load(&text).expect_err(&text);
            assert!(
                sentence.contains(&format!("shiftboss.toml:2: profiles.web.{key}")),
                "{sentence}"
            );
            assert!(sentence.contains(words), "{words}: {sentence}");
        }
        assert!(load("[profiles.\"a b\"]\ncrf = 20\n").expect_err("a name").contains("profile"));
    }
}
