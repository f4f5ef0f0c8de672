//! Which colour the border of a picture has, and how much it varies. Pure: pixels in, a colour or
//! a sentence out.
//!
//! A screen that is to be keyed fills most of the border, whatever stands before it; its light is
//! uneven, its hue is not. So only hue and saturation are compared, the two colour differences.

use super::super::details::Matrix;

/// How thick the border is: this part of a side.
const BORDER_PART: usize = 16;
/// Cells of the first, rough count of colours have this many steps of a difference.
const CELL: usize = 8;
const CELLS: usize = 256 / CELL;
/// A pixel belongs to the screen up to here, steps from its mean.
const RADIUS: f64 = 28.0;
/// The least share of the border that the screen must have.
const SHARE_MIN: f64 = 0.6;
/// How far from grey a colour must lie to be told from what stands before it, steps.
const COLOR_MIN: f64 = 24.0;
/// The distance of opposite corners, which is 1 for the filter.
pub(super) const WHOLE: f64 = 255.0 * std::f64::consts::SQRT_2;

/// A colour as films store it: luma from 16 to 235, both differences around 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Yuv(pub(super) [u8; 3]);

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Border {
    pub(super) color: Yuv,
    /// The part of the border that has it.
    pub(super) share: f64,
    /// The distance from it within which 99 of 100 pixels of that part lie; 1 is [`WHOLE`].
    pub(super) spread: f64,
}

/// The dominant colour of the border of `frames`, each `side` x `side` pixels in three planes.
///
/// # Errors
/// A sentence without subject that says why no colour can be taken.
pub(super) fn find(frames: &[u8], side: usize) -> Result<Border, String> {
    let pixels = border(frames, side);
    if pixels.is_empty() {
        return Err("none of its frames can be decoded".to_owned());
    }
    let mut mean = densest_cell(&pixels);
    // Three steps of the mean settle it: the cell lies within the cluster already.
    for _ in 0..3 {
        mean = mean_of(pixels.iter().filter(|pixel| distance(**pixel, mean) <= RADIUS));
    }
    let mut distances: Vec<f64> = pixels
        .iter()
        .map(|pixel| distance(*pixel, mean))
        .filter(|distance| *distance <= RADIUS)
        .collect();
    distances.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "a few hundred thousand pixels")]
    let share = distances.len() as f64 / pixels.len() as f64;
    let name = name_of(mean);
    if share < SHARE_MIN {
        return Err(format!(
            "no colour dominates its border: the most frequent one, {name}, has {:.0} % of it, \
             {:.0} % are needed",
            share * 100.0,
            SHARE_MIN * 100.0
        ));
    }
    if (mean[1] - 128.0).hypot(mean[2] - 128.0) < COLOR_MIN {
        return Err(format!(
            "its border is {name}, which cannot be told from grey, black and white: a screen must \
             have a colour"
        ));
    }
    let at = (distances.len() * 99 / 100).min(distances.len().saturating_sub(1));
    let spread = distances.get(at).copied().unwrap_or(0.0) / WHOLE;
    Ok(Border { color: Yuv(mean.map(byte)), share, spread })
}

/// Luma and both differences of every pixel of every border.
fn border(frames: &[u8], side: usize) -> Vec<[f64; 3]> {
    let (plane, thick) = (side * side, (side / BORDER_PART).max(1));
    let mut pixels = Vec::new();
    for frame in frames.chunks_exact(plane * 3) {
        for at in 0..plane {
            let (x, y) = (at % side, at / side);
            let is_border = x.min(side - 1 - x) < thick || y.min(side - 1 - y) < thick;
            if is_border {
                pixels.push([0, 1, 2].map(|number| f64::from(frame[number * plane + at])));
            }
        }
    }
    pixels
}

fn densest_cell(pixels: &[[f64; 3]]) -> [f64; 3] {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 255")]
    let cell = |pixel: &[f64; 3]| (pixel[1] as usize / CELL) * CELLS + pixel[2] as usize / CELL;
    let mut counts = vec![0_u32; CELLS * CELLS];
    pixels.iter().for_each(|pixel| counts[cell(pixel)] += 1);
    let densest = counts.iter().enumerate().max_by_key(|(_, count)| **count);
    let densest = densest.map_or(0, |(at, _)| at);
    mean_of(pixels.iter().filter(|pixel| cell(pixel) == densest))
}

fn mean_of<'a>(pixels: impl Iterator<Item = &'a [f64; 3]>) -> [f64; 3] {
    let (mut sum, mut count) = ([0.0; 3], 0.0);
    for pixel in pixels {
        (0..3).for_each(|at| sum[at] += pixel[at]);
        count += 1.0;
    }
    sum.map(|sum| if count > 0.0 { sum / count } else { 128.0 })
}

fn distance(one: [f64; 3], other: [f64; 3]) -> f64 {
    (one[1] - other[1]).hypot(one[2] - other[2])
}

fn name_of(mean: [f64; 3]) -> String {
    Yuv(mean.map(byte)).rgb_text(Matrix::Bt709)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn byte(value: f64) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}

impl Yuv {
    /// How a film of this matrix stores red, green and blue.
    pub(super) fn of([red, green, blue]: [u8; 3], matrix: Matrix) -> Self {
        let (of_red, of_blue) = matrix.weights();
        let [red, green, blue] = [red, green, blue].map(|part| f64::from(part) / 255.0);
        let luma = of_red * red + (1.0 - of_red - of_blue) * green + of_blue * blue;
        let difference = |part: f64, weight: f64| (part - luma) / (2.0 * (1.0 - weight));
        Self([
            byte(16.0 + 219.0 * luma),
            byte(128.0 + 224.0 * difference(blue, of_blue)),
            byte(128.0 + 224.0 * difference(red, of_red)),
        ])
    }

    pub(super) fn rgb(self, matrix: Matrix) -> [u8; 3] {
        let (of_red, of_blue) = matrix.weights();
        let [luma, blue, red] = self.0.map(f64::from);
        let luma = (luma - 16.0) / 219.0;
        let part =
            |stored: f64, weight: f64| luma + (stored - 128.0) / 224.0 * 2.0 * (1.0 - weight);
        let (red, blue) = (part(red, of_red), part(blue, of_blue));
        let green = (luma - of_red * red - of_blue * blue) / (1.0 - of_red - of_blue);
        [red, green, blue].map(|part| byte(part * 255.0))
    }

    /// `#00b140`.
    pub(super) fn rgb_text(self, matrix: Matrix) -> String {
        let [red, green, blue] = self.rgb(matrix);
        format!("#{red:02x}{green:02x}{blue:02x}")
    }

    /// How far it lies from grey; 1 is [`WHOLE`].
    pub(super) fn saturation(self) -> f64 {
        let [_, blue, red] = self.0.map(f64::from);
        (blue - 128.0).hypot(red - 128.0) / WHOLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIDE: usize = 32;
    const GREEN: [u8; 3] = [0x00, 0xB1, 0x40];

    /// A frame whose pixel at x, y is this.
    fn frame(pixel: impl Fn(usize, usize) -> [u8; 3]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for plane in 0..3 {
            (0..SIDE * SIDE).for_each(|at| bytes.push(pixel(at % SIDE, at / SIDE)[plane]));
        }
        bytes
    }

    fn green() -> [u8; 3] {
        Yuv::of(GREEN, Matrix::Bt709).0
    }

    #[test]
    fn a_screen_is_found_behind_an_actor_who_stands_on_the_lower_edge() {
        let skin = Yuv::of([0xC0, 0x90, 0x70], Matrix::Bt709).0;
        let is_actor = |x: usize, y: usize| (8..22).contains(&x) && y > 6;
        let pixels = frame(|x, y| if is_actor(x, y) { skin } else { green() });
        let found = find(&pixels, SIDE).expect("the screen dominates");
        assert_eq!((found.color, found.spread), (Yuv(green()), 0.0));
        assert!((0.8..0.95).contains(&found.share), "{found:?}");
        assert_eq!(found.color.rgb_text(Matrix::Bt709), "#01b140");
    }

    #[test]
    fn uneven_light_is_one_colour_with_a_spread() {
        let pixels = frame(|x, y| {
            let [luma, blue, red] = green();
            let swing = u8::try_from((x + y) % 9).expect("small");
            [luma + 4 * swing, blue + swing, red + swing]
        });
        let found = find(&pixels, SIDE).expect("one screen");
        assert!((0.01..0.03).contains(&found.spread) && found.share > 0.99, "{found:?}");
    }

    #[test]
    fn a_border_of_many_colours_or_of_none_is_refused() {
        let half = frame(|x, _| if x < SIDE / 2 { green() } else { [81, 90, 240] });
        let sentence = find(&half, SIDE).expect_err("half is not enough");
        assert!(
            sentence.contains("no colour dominates") && sentence.contains("60 %"),
            "{sentence}"
        );
        let sentence = find(&frame(|_, _| [200, 128, 129]), SIDE).expect_err("white is no screen");
        assert!(sentence.contains("cannot be told from grey"), "{sentence}");
        let sentence = find(&[], SIDE).expect_err("no frame");
        assert!(sentence.contains("decoded"), "{sentence}");
    }

    #[test]
    fn colours_survive_both_ways_in_every_matrix() {
        assert_eq!(Yuv::of([0, 255, 0], Matrix::Bt601), Yuv([145, 54, 34]));
        assert_eq!(Yuv::of([0, 255, 0], Matrix::Bt709), Yuv([173, 42, 26]));
        for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
            for color in [[0, 177, 64], [0, 71, 187], [255, 255, 255], [0, 0, 0]] {
                let back = Yuv::of(color, matrix).rgb(matrix);
                assert!((0..3).all(|at| back[at].abs_diff(color[at]) <= 3), "{color:?} {back:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_pixels_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = find(&bytes, 16);
        }
    }
}
