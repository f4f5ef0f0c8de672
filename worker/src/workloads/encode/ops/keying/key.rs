//! With which numbers a film is keyed. Pure.

use super::super::details::Matrix;
use super::border::{Border, WHOLE, Yuv};
use super::payload::{Color, Payload};
use serde_json::{Value, json};

/// Without a word from anybody: what keys an evenly lit screen and leaves hair.
const TOLERANCE: f64 = 0.14;
const SOFTNESS: f64 = 0.06;
/// Of a found colour: noise of cameras and encoders goes further than the spread, and this far in
/// any case.
const SPREADS: f64 = 2.0;
const TOLERANCE_MIN: f64 = 0.08;
/// The largest part of the way from the colour to grey that becomes transparent, and where all is
/// opaque: skin, hair and white lie near grey.
const TO_GREY: f64 = 0.5;
const OPAQUE_AT: f64 = 0.8;

/// How a film is keyed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) color: Yuv,
    pub(super) tolerance: f64,
    pub(super) softness: f64,
    pub(super) despill: Option<Spill>,
    found: Option<Border>,
    matrix: Matrix,
}

/// The light of the screen on what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spill {
    Green,
    Blue,
}

impl Spill {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Blue => "blue",
        }
    }

    /// Of a colour that is neither green nor blue no light can be taken off.
    fn of([red, green, blue]: [u8; 3]) -> Option<Self> {
        if green > red && green >= blue {
            Some(Self::Green)
        } else if blue > red && blue > green {
            Some(Self::Blue)
        } else {
            None
        }
    }
}

impl Key {
    /// What the payload says, for the rest `find` is asked for the colour of the border.
    ///
    /// # Errors
    /// That of `find`.
    pub(super) fn of<E>(
        payload: &Payload,
        matrix: Matrix,
        find: impl FnOnce() -> Result<Border, E>,
    ) -> Result<Self, E> {
        let (color, found) = match payload.color {
            Some(Color(rgb)) => (Yuv::of(rgb, matrix), None),
            None => {
                let border = find()?;
                (border.color, Some(border))
            }
        };
        let grey = color.saturation();
        let tolerance = payload.tolerance.map_or_else(
            || {
                let wanted = found.map_or(TOLERANCE, |border| {
                    (border.spread * SPREADS + noise()).max(TOLERANCE_MIN)
                });
                wanted.min(grey * TO_GREY).max(0.01)
            },
            |tolerance| tolerance.0,
        );
        let softness = payload.softness.map_or_else(
            || SOFTNESS.min(grey * OPAQUE_AT - tolerance).max(0.0),
            |softness| softness.0,
        );
        let spill = Spill::of(color.rgb(matrix)).filter(|_| payload.despill);
        Ok(Self { color, tolerance, softness, despill: spill, found, matrix })
    }

    /// For the result.
    pub(super) fn told(&self) -> Value {
        json!({
            "color": self.color.rgb_text(self.matrix),
            "found_in_border": self.found.is_some(),
            "border_share": self.found.map(|border| rounded(border.share)),
            "border_spread": self.found.map(|border| rounded(border.spread)),
            "tolerance": rounded(self.tolerance),
            "softness": rounded(self.softness),
            "despill": self.despill.map(Spill::word),
        })
    }
}

/// Eight steps of one difference.
fn noise() -> f64 {
    8.0 / WHOLE
}

pub(super) fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fields: &str, spread: f64) -> Key {
        let text = format!(r#"{{"op":"keying","input":"/a","output_dir":"/b"{fields}}}"#);
        let payload: Payload = serde_json::from_str(&text).expect("it is valid");
        let color = Yuv::of([0, 0xB1, 0x40], Matrix::Bt709);
        let find = || Ok::<_, ()>(Border { color, share: 0.9, spread });
        Key::of(&payload, Matrix::Bt709, find).expect("a colour is found")
    }

    #[test]
    fn what_the_payload_says_counts() {
        let fields = r##","color":"#0000FF","tolerance":0.3,"softness":0,"despill":false"##;
        let key = key(fields, 0.0);
        assert_eq!((key.tolerance, key.softness, key.despill), (0.3, 0.0, None));
        assert_eq!(key.told()["color"], json!("#0100ff"));
        assert_eq!(key.told()["found_in_border"], json!(false));
    }

    #[test]
    fn an_uneven_screen_gets_more_tolerance_but_never_half_of_the_way_to_grey() {
        let (even, uneven, wild) = (key("", 0.0), key("", 0.04), key("", 0.2));
        assert_eq!(even.tolerance, TOLERANCE_MIN);
        assert!(uneven.tolerance > 0.1 && uneven.tolerance < wild.tolerance, "{uneven:?}");
        let grey = wild.color.saturation();
        assert!(wild.tolerance <= grey * TO_GREY, "{wild:?}");
        assert!(wild.tolerance + wild.softness <= grey * OPAQUE_AT + 1e-9, "{wild:?}");
    }

    #[test]
    fn spill_has_the_colour_of_the_screen() {
        assert_eq!(key("", 0.0).despill, Some(Spill::Green));
        assert_eq!(key(r##","color":"#0047BB""##, 0.0).despill, Some(Spill::Blue));
        assert_eq!(key(r##","color":"#FF00FF""##, 0.0).despill, None);
    }
}
