//! What becomes of a track of sound in another container. Pure.

use super::details::Detail;
use ffmpeg_sidecar::command::FfmpegCommand;
use serde::Serialize;

/// A container that outputs have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Mp4,
    Mov,
    Matroska,
    Webm,
}

impl Container {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Mp4 => "MP4",
            Self::Mov => "MOV",
            Self::Matroska => "Matroska",
            Self::Webm => "WebM",
        }
    }

    /// Codecs of sound that players expect in it.
    pub(super) const fn sounds(self) -> &'static [&'static str] {
        match self {
            Self::Mp4 => &["aac", "mp3", "ac3", "eac3", "alac"],
            Self::Mov => &["aac", "mp3", "ac3", "alac", "pcm_s16le", "pcm_s24le", "pcm_s16be"],
            Self::Matroska => &[
                "aac",
                "mp3",
                "ac3",
                "eac3",
                "dts",
                "truehd",
                "flac",
                "opus",
                "vorbis",
                "pcm_s16le",
                "pcm_s24le",
            ],
            Self::Webm => &["opus", "vorbis"],
        }
    }

    const fn encoder(self) -> &'static str {
        match self {
            Self::Mp4 | Self::Matroska => "aac",
            Self::Mov => "pcm_s16le",
            Self::Webm => "libopus",
        }
    }
}

/// A track that an output gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Track {
    /// Index of the stream in the input.
    pub(super) stream: u32,
    /// The codec that it has in the output.
    pub(super) codec: &'static str,
    /// `copy`, or the encoder.
    #[serde(skip)]
    encoder: &'static str,
    #[serde(skip)]
    channels: u32,
    pub(super) because: String,
}

impl Track {
    /// Kept as it is where `accepted` has its codec, else encoded into the container's own.
    pub(super) fn of(detail: &Detail, container: Container, accepted: &[&'static str]) -> Self {
        let stream = detail.index;
        let channels = if detail.channels == 1 { 1 } else { 2 };
        match accepted.iter().find(|codec| **codec == detail.codec()) {
            Some(codec) => {
                let because = format!("copied: {} takes {codec}", container.word());
                Self { stream, codec, encoder: "copy", channels, because }
            }
            None => {
                let encoder = container.encoder();
                let codec = if encoder == "libopus" { "opus" } else { encoder };
                let (name, from) = (container.word(), detail.codec());
                let because = format!("encoded into {codec}: {from} is none of those for {name}");
                Self { stream, codec, encoder, channels, because }
            }
        }
    }

    pub(super) fn is_copied(&self) -> bool {
        self.encoder == "copy"
    }

    /// For the output's track of this number.
    pub(super) fn arguments(&self, command: &mut FfmpegCommand, at: usize, bitrate: u64) {
        command.args([format!("-c:a:{at}").as_str(), self.encoder]);
        if self.is_copied() {
            return;
        }
        // Gaps in the track are filled with silence instead of letting it run ahead. More than two
        // channels are mixed: not every encoder takes every layout.
        command.args([format!("-filter:a:{at}").as_str(), "aresample=async=1"]);
        command.args([format!("-ar:a:{at}").as_str(), "48000"]);
        command.args([format!("-ac:a:{at}"), self.channels.to_string()]);
        if self.encoder != "pcm_s16le" {
            command.args([format!("-b:a:{at}"), bitrate.to_string()]);
        }
    }
}
