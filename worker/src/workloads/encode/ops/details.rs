//! What some ops must know of a file's streams besides the facts of its film: how they are coded
//! and coloured, and everything that two files must share to be joined by copy.

use super::super::arguments::INPUT_GUARD;
use super::super::film::probe;
use super::super::host::Host;
use super::super::tools::Tools;
use serde::Deserialize;
use shiftboss_protocol::job::Failure;
use std::collections::HashMap;
use std::path::Path;

const ENTRIES: &str = "format=format_name\
    :stream=index,codec_type,codec_name,profile,width,height,pix_fmt,sample_aspect_ratio,\
    r_frame_rate,time_base,field_order,color_range,color_space,color_transfer,color_primaries,\
    sample_rate,channels,channel_layout,extradata_hash\
    :stream_side_data=rotation:stream_disposition=attached_pic,default:stream_tags=alpha_mode";

/// The streams of a file in its order.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Details {
    pub(super) streams: Vec<Detail>,
}

/// One stream; what ffprobe does not know is `None` or 0.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Detail {
    pub(super) index: u32,
    pub(super) codec_type: String,
    pub(super) codec_name: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) pix_fmt: Option<String>,
    pub(super) sample_aspect_ratio: Option<String>,
    pub(super) r_frame_rate: Option<String>,
    pub(super) time_base: Option<String>,
    pub(super) field_order: Option<String>,
    pub(super) color_range: Option<String>,
    pub(super) color_space: Option<String>,
    pub(super) color_transfer: Option<String>,
    pub(super) color_primaries: Option<String>,
    pub(super) sample_rate: Option<String>,
    pub(super) channels: u32,
    pub(super) channel_layout: Option<String>,
    /// A hash of the decoder's set-up.
    pub(super) extradata_hash: Option<String>,
    pub(super) side_data_list: Vec<SideData>,
    pub(super) disposition: HashMap<String, i64>,
    pub(super) tags: HashMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct SideData {
    pub(super) rotation: Option<f64>,
}

/// Asks ffprobe about a film.
///
/// # Errors
/// A [`Failure`] that says why it cannot be opened.
pub(super) fn of(host: &dyn Host, tools: &Tools, path: &Path) -> Result<Details, Failure> {
    let guard: Vec<&str> =
        INPUT_GUARD.iter().copied().chain(["-show_data_hash", "CRC32"]).collect();
    probe::ask(host, tools, path, (&guard, ENTRIES))
}

/// Asks about a picture that FFmpeg's `reader` reads.
///
/// # Errors
/// As [`of`].
pub(super) fn of_picture(
    host: &dyn Host,
    tools: &Tools,
    path: &Path,
    reader: &str,
) -> Result<Details, Failure> {
    probe::ask(host, tools, path, (&["-protocol_whitelist", "file", "-f", reader], ENTRIES))
}

impl Details {
    pub(super) fn stream(&self, index: u32) -> Option<&Detail> {
        self.streams.iter().find(|stream| stream.index == index)
    }

    /// The audio tracks that can be decoded.
    pub(super) fn sounds(&self) -> impl Iterator<Item = &Detail> {
        self.streams.iter().filter(|stream| stream.is_sound())
    }
}

impl Detail {
    pub(super) fn is_sound(&self) -> bool {
        self.codec_type == "audio" && self.channels > 0 && self.codec() != "unknown"
    }

    pub(super) fn is_cover(&self) -> bool {
        self.disposition.get("attached_pic").is_some_and(|flag| *flag != 0)
    }

    /// Degrees by which the picture is turned for showing.
    pub(super) fn rotation(&self) -> f64 {
        self.side_data_list.iter().find_map(|data| data.rotation).unwrap_or(0.0)
    }

    pub(super) fn codec(&self) -> &str {
        self.codec_name.as_deref().unwrap_or("unknown")
    }

    pub(super) fn pixels(&self) -> &str {
        self.pix_fmt.as_deref().unwrap_or("unknown")
    }

    pub(super) fn matrix(&self) -> Matrix {
        match self.color_space.as_deref() {
            Some("bt709") => Matrix::Bt709,
            Some("bt2020nc" | "bt2020c") => Matrix::Bt2020,
            Some("bt470bg" | "smpte170m" | "fcc") => Matrix::Bt601,
            // Nobody says: players go by the size, and RGB is turned into what they expect.
            Some(_) | None if self.height >= 720 => Matrix::Bt709,
            Some(_) | None => Matrix::Bt601,
        }
    }

    /// Whether black is 0 instead of 16.
    pub(super) fn is_full_range(&self) -> bool {
        self.color_range.as_deref() == Some("pc") || self.pixels().starts_with("yuvj")
    }
}

/// How red, green and blue become luma and two differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matrix {
    Bt601,
    Bt709,
    Bt2020,
}

impl Matrix {
    /// In the words of FFmpeg's filter `scale`.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Bt601 => "bt601",
            Self::Bt709 => "bt709",
            Self::Bt2020 => "bt2020",
        }
    }

    /// The tag of a stream.
    pub(super) const fn tag(self) -> &'static str {
        match self {
            Self::Bt601 => "smpte170m",
            Self::Bt709 => "bt709",
            Self::Bt2020 => "bt2020nc",
        }
    }

    /// Shares of red and blue in luma; Recommendations BT.601, BT.709 and BT.2020 of the ITU-R.
    pub(super) const fn weights(self) -> (f64, f64) {
        match self {
            Self::Bt601 => (0.299, 0.114),
            Self::Bt709 => (0.2126, 0.0722),
            Self::Bt2020 => (0.2627, 0.0593),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_those_that_a_film_names_or_that_its_size_suggests() {
        let matrix = |height: u32, named: Option<&str>| {
            let color_space = named.map(str::to_owned);
            Detail { height, color_space, ..Detail::default() }.matrix()
        };
        assert_eq!(matrix(1080, None), Matrix::Bt709);
        assert_eq!(matrix(480, None), Matrix::Bt601);
        assert_eq!(matrix(480, Some("bt709")), Matrix::Bt709);
        assert_eq!(matrix(1080, Some("smpte170m")), Matrix::Bt601);
        assert_eq!(matrix(1080, Some("gbr")), Matrix::Bt709);
    }
}
