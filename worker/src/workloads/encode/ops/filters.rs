//! Filters that several ops begin with. Pure.

use super::super::film::facts::Facts;
use super::details::Detail;

/// With a comma behind it, for films whose frames are two fields of different times.
pub(super) fn deinterlace(facts: &Facts) -> &'static str {
    if facts.video.interlaced { "yadif=mode=send_frame:deint=interlaced," } else { "" }
}

pub(super) fn scale((width, height): (u32, u32)) -> String {
    format!("scale={width}:{height}:flags=bicubic,setsar=1")
}

/// The film as shown, at this size, with luma from 16 to 235 and the colours of its own matrix:
/// left alone, FFmpeg turns RGB into another matrix than that of the tags, and keeps full range.
pub(super) fn plain(facts: &Facts, detail: &Detail, size: (u32, u32), flags: &str) -> String {
    let (matrix, (width, height)) = (detail.matrix().word(), size);
    let range = if detail.is_full_range() { "pc" } else { "tv" };
    format!(
        "{}scale={width}:{height}:flags={flags}:in_color_matrix={matrix}:out_color_matrix={matrix}\
         :in_range={range}:out_range=tv,setsar=1",
        deinterlace(facts)
    )
}

/// Both sides even, as encoders want them; at least 2.
pub(super) fn even((width, height): (u32, u32)) -> (u32, u32) {
    ((width & !1).max(2), (height & !1).max(2))
}

pub(super) fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}
