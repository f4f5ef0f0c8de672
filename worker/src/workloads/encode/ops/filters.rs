//! How ops look at a film: what is done to every picture before anything else. Pure.

use super::super::film::facts::Facts;
use super::super::film::treatment::treatment;
use super::details::{Detail, Matrix};
use shiftboss_protocol::job::Failure;

/// The pictures of a film as SDR in its own matrix, or BT.709 where it was HDR.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// What looks at neighbouring pictures, then what looks at one; each with a comma behind it.
    pub(super) neighbours: &'static str,
    alone: String,
    pub(super) matrix: Matrix,
    range: &'static str,
    /// More than 8 bits, and they are kept.
    pub(super) is_deep: bool,
}

impl Look {
    /// # Errors
    /// A permanent [`Failure`] for colours that FFmpeg cannot turn into a picture.
    pub(super) fn of(facts: &Facts, detail: &Detail) -> Result<Self, Failure> {
        let treatment = treatment(facts)?;
        let is_mapped = treatment.tone_map.is_some();
        let pixels = detail.pixels();
        Ok(Self {
            neighbours: treatment.among_neighbours(),
            alone: treatment.alone(),
            matrix: if is_mapped { Matrix::Bt709 } else { detail.matrix() },
            range: if detail.is_full_range() && !is_mapped { "pc" } else { "tv" },
            is_deep: !is_mapped && (pixels.contains("10") || pixels.contains("12")),
        })
    }

    /// The pictures as shown, at this size, with luma from 16 to 235, in the matrix `to`: left
    /// alone, FFmpeg turns RGB into another matrix than that of the tags, and keeps full range.
    pub(super) fn plain(&self, size: (u32, u32), flags: &str, to: Matrix) -> String {
        let (from, (width, height)) = (self.matrix.word(), size);
        format!(
            "{}{}scale={width}:{height}:flags={flags}:in_color_matrix={from}:out_color_matrix={}\
             :in_range={}:out_range=tv,setsar=1",
            self.neighbours,
            self.alone,
            to.word(),
            self.range
        )
    }

    /// The pictures at this size, after what looks at neighbours.
    pub(super) fn scaled(&self, (width, height): (u32, u32)) -> String {
        format!("{}scale={width}:{height}:flags=bicubic,setsar=1", self.alone)
    }
}

/// Both sides even, as encoders want them; at least 2.
pub(super) fn even((width, height): (u32, u32)) -> (u32, u32) {
    ((width & !1).max(2), (height & !1).max(2))
}

pub(super) fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}
