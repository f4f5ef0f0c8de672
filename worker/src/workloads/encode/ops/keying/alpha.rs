//! What became transparent, from small grey pictures of nothing but the transparency. Pure.

use super::key::rounded;
use serde_json::{Value, json};

/// Up to here a pixel is transparent, from there on it is opaque.
const TRANSPARENT: u8 = 16;
const OPAQUE: u8 = 239;
/// A key that takes less than this off has missed the screen; one that leaves less has taken all.
const LEAST: f64 = 0.002;
/// How far the shares of an output may lie from those of the plan: encoders soften edges.
const APART: f64 = 0.03;

/// Shares of all pixels, and how many of the four corners are transparent in most pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Alpha {
    pub(super) transparent: f64,
    pub(super) opaque: f64,
    pub(super) corners: usize,
}

/// Measures pictures of `side` x `side` pixels; `None` without any.
pub(super) fn measure(pictures: &[u8], side: usize) -> Option<Alpha> {
    let count = pictures.len() / (side * side);
    let pixels = pictures.get(..count * side * side).filter(|pixels| !pixels.is_empty())?;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred thousand pixels")]
    let share = |is: fn(u8) -> bool| {
        pixels.iter().filter(|pixel| is(**pixel)).count() as f64 / pixels.len() as f64
    };
    let last = side - 1;
    let corners = [0, last, last * side, last * side + last];
    let is_clear = |corner: &&usize| {
        let clear = pixels.chunks_exact(side * side).filter(|one| one[**corner] <= TRANSPARENT);
        clear.count() * 2 > count
    };
    Some(Alpha {
        transparent: share(|pixel| pixel <= TRANSPARENT),
        opaque: share(|pixel| pixel >= OPAQUE),
        corners: corners.iter().filter(is_clear).count(),
    })
}

impl Alpha {
    /// Whether the key does what keys are for.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub(super) fn judge(&self, color: &str) -> Result<(), String> {
        if self.transparent < LEAST {
            return Err(format!(
                "nothing of it becomes transparent: {color} is not in its pictures; give another \
                 color, a larger tolerance, or leave color out to have it found"
            ));
        }
        if self.transparent > 1.0 - LEAST {
            return Err(format!(
                "all of it becomes transparent: nothing in its pictures differs enough from \
                 {color}; give a smaller tolerance"
            ));
        }
        Ok(())
    }

    /// Whether an output is as transparent as was planned.
    ///
    /// # Errors
    /// A sentence with both shares.
    pub(super) fn compare(&self, output: &Self) -> Result<(), String> {
        let parts = [
            ("transparent", self.transparent, output.transparent),
            ("opaque", self.opaque, output.opaque),
        ];
        for (name, planned, found) in parts {
            if (planned - found).abs() > APART {
                return Err(format!(
                    "{:.1} % of its pixels are {name}, {:.1} % were planned: its transparency was \
                     lost or is another film's",
                    found * 100.0,
                    planned * 100.0
                ));
            }
        }
        Ok(())
    }

    /// For the result.
    pub(super) fn told(&self) -> Value {
        json!({
            "transparent": rounded(self.transparent),
            "opaque": rounded(self.opaque),
            "transparent_corners": self.corners,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 10;

    /// Rows of transparent pixels above, opaque ones below.
    fn rows(clear: usize) -> Vec<u8> {
        (0..SIDE * SIDE).map(|at| if at / SIDE < clear { 3 } else { 250 }).collect()
    }

    #[test]
    fn shares_and_corners_are_measured_over_all_pictures() {
        let pictures = [rows(8), rows(10), rows(6)].concat();
        let alpha = measure(&pictures, SIDE).expect("there are three");
        assert_eq!((alpha.transparent, alpha.opaque, alpha.corners), (0.8, 0.2, 2));
        assert_eq!(measure(&[], SIDE), None);
        assert_eq!(measure(&pictures[..50], SIDE), None);
    }

    #[test]
    fn a_key_that_takes_nothing_or_all_is_refused_with_the_remedy() {
        let judge = |clear: usize| measure(&rows(clear), SIDE).expect("one").judge("#00ff00");
        assert_eq!(judge(5), Ok(()));
        assert!(judge(0).is_err_and(|sentence| sentence.contains("larger tolerance")));
        assert!(judge(10).is_err_and(|sentence| sentence.contains("smaller tolerance")));
    }

    #[test]
    fn an_output_whose_transparency_was_lost_is_found() {
        let planned = measure(&rows(8), SIDE).expect("one");
        assert_eq!(planned.compare(&planned), Ok(()));
        let opaque = measure(&rows(0), SIDE).expect("one");
        let sentence = planned.compare(&opaque).expect_err("nothing is transparent");
        assert!(sentence.contains("0.0 % of its pixels are transparent, 80.0 %"), "{sentence}");
    }
}
