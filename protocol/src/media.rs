//! Words and bounds of ladders: what a profile of the configuration and the payload of a job may
//! say. Both are checked by these.

use std::ops::RangeInclusive;

/// Short sides that a rendition may have, pixels.
pub const RENDITION_SIDES: RangeInclusive<u32> = 144..=4320;
/// Renditions of one job: each is an encoder that runs at the same time as the others.
pub const RENDITIONS_MAX: usize = 8;
/// Quality of libx264, where 51 is the worst; that of others goes to 63. 0 is left out because it
/// makes lossless streams, which most players refuse.
pub const CRF: RangeInclusive<u32> = 1..=63;
/// Presets, the quickest first, in the words of x264.
pub const PRESETS: [&str; 9] = [
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
];
/// Formats of a ladder.
pub const FORMATS: [&str; 2] = ["mp4", "hls"];
/// Bits per second that FFmpeg's AAC encoder makes of sound without complaint.
pub const AUDIO_BITRATES: RangeInclusive<u64> = 32_000..=512_000;
/// What may become of surround sound.
pub const AUDIO_LAYOUTS: [&str; 2] = ["stereo", "keep"];
/// Peaks of a rendition's video, bits per second.
pub const VIDEO_BITRATES: RangeInclusive<u64> = 50_000..=400_000_000;
/// Most pictures per second.
pub const FRAME_RATES: RangeInclusive<f64> = 1.0..=240.0;
/// Integrated loudness, LUFS: what FFmpeg's filter loudnorm takes, and is not silent.
pub const LOUDNESS: RangeInclusive<f64> = -40.0..=-5.0;
/// Lengths of a chunk, seconds; 0 is allowed too and means none.
pub const CHUNK_SECONDS: RangeInclusive<u32> = 2..=3600;
/// Lengths of a segment of HLS, seconds; even, as keyframes lie two seconds apart.
pub const SEGMENT_SECONDS: RangeInclusive<u32> = 2..=30;
/// Video encoders in FFmpeg's words that a ladder can be told to use.
pub const ENCODERS: [&str; 13] = [
    "h264_nvenc",
    "h264_vaapi",
    "h264_qsv",
    "libx264",
    "hevc_nvenc",
    "hevc_vaapi",
    "hevc_qsv",
    "libx265",
    "av1_nvenc",
    "av1_vaapi",
    "av1_qsv",
    "libsvtav1",
    "libvpx-vp9",
];

/// The short side that `"720p"` names, pixels, when it is one of [`RENDITION_SIDES`].
#[must_use]
pub fn side_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix('p')?;
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let side = digits.parse().ok().filter(|_| is_plain)?;
    RENDITION_SIDES.contains(&side).then_some(side)
}

/// Bits per second of `"160k"`, `"2.8M"` or `"160000"`.
#[must_use]
pub fn bits_of(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_000.0),
        None => match text.strip_suffix('M') {
            Some(digits) => (digits, 1_000_000.0),
            None => (text, 1.0),
        },
    };
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let bits = digits.parse::<f64>().ok().filter(|_| is_plain)? * unit;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
    let whole = bits.round() as u64;
    (bits < 1e15).then_some(whole)
}

/// Whether a profile may have this name: 1 to 64 letters, digits, `-` and `_`, which begins with
/// a letter or digit and has no two marks in a row.
#[must_use]
pub fn is_profile_name(name: &str) -> bool {
    let mut after_mark = true;
    (1..=64).contains(&name.len())
        && name.chars().all(|letter| {
            let is_mark = matches!(letter, '-' | '_');
            let fits = letter.is_ascii_alphanumeric() || (is_mark && !after_mark);
            after_mark = is_mark;
            fits
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renditions_and_rates_are_read() {
        assert_eq!((side_of("720p"), side_of("4320p")), (Some(720), Some(4320)));
        for wrong in ["72p", "720", "+720p", "p", "4321p", "720P"] {
            assert_eq!(side_of(wrong), None, "{wrong}");
        }
        assert_eq!((bits_of("160k"), bits_of("2.8M")), (Some(160_000), Some(2_800_000)));
        assert_eq!(bits_of("160000"), Some(160_000));
        for wrong in ["", "k", "fast", "-5k", "1e9M", "inf", "99999999999M"] {
            assert_eq!(bits_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_of_profiles_are_unambiguous() {
        assert!(is_profile_name("web") && is_profile_name("tv-4k_2"));
        for name in ["", "-x", "a.b", "a__b", "a-_b", "ä"] {
            assert!(!is_profile_name(name), "{name}");
        }
    }
}
