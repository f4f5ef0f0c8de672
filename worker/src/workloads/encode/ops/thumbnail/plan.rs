//! Which pictures are made of a film, at which moments and how large. Pure.

use super::super::super::film::facts::Facts;
use super::super::super::output::names::{file_name, url_of};
use super::payload::{At, Format, Payload, Poster, Preview, Sprite};
use shiftboss_protocol::job::{Cause, Failure};
use std::fmt::Write as _;
use std::path::Path;

/// Pictures closer together than this show nothing new, milliseconds.
const INTERVAL_MIN_MS: u64 = 1000;
/// Longest side of a sheet that browsers and phones decode, pixels.
const SHEET_SIDE_MAX: u32 = 16_384;
/// Later than this share of a film there may be no whole frame any more.
const LATEST: f64 = 0.95;

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) works: Vec<Work>,
}

/// One run of FFmpeg, and its output.
#[derive(Debug)]
pub(super) enum Work {
    Poster(PosterWork),
    Sprite(SpriteWork),
    Preview(PreviewWork),
}

#[derive(Clone, Debug)]
pub(super) struct PosterWork {
    pub(super) name: String,
    pub(super) size: (u32, u32),
    pub(super) at_ms: u64,
}

#[derive(Debug)]
pub(super) struct SpriteWork {
    pub(super) name: String,
    pub(super) index_name: String,
    /// Of one picture.
    pub(super) tile: (u32, u32),
    pub(super) columns: u32,
    /// How many pictures there are.
    pub(super) tiles: u32,
    pub(super) interval_ms: u64,
    pub(super) length_ms: u64,
}

#[derive(Debug)]
pub(super) struct PreviewWork {
    pub(super) name: String,
    pub(super) size: (u32, u32),
    /// Where its clips begin, milliseconds.
    pub(super) starts_ms: Vec<u64>,
    /// How long each is.
    pub(super) clip_ms: u64,
    pub(super) format: Format,
}

impl Plan {
    /// # Errors
    /// A permanent [`Failure`] when the film has no length, or a sheet would be too large.
    pub(super) fn of(
        payload: &Payload,
        facts: &Facts,
        length_ms: u64,
        input: &Path,
    ) -> Result<Self, Failure> {
        if length_ms == 0 {
            let message = format!("input {} has no length", input.display());
            return Err(Failure::permanent(Cause::Error, message));
        }
        let shown = (facts.video.width, facts.video.height);
        let all = payload.is_open();
        let poster = payload.poster.or(all.then(Poster::default));
        let sprite = payload.sprite.or(all.then(Sprite::default));
        let preview = payload.preview.or(all.then(Preview::default));
        let mut works = Vec::new();
        works.extend(poster.map(|poster| {
            Work::Poster(PosterWork {
                name: file_name(input, "poster", "jpg"),
                size: fit(shown, poster.width.0),
                at_ms: moment(poster.at, length_ms),
            })
        }));
        if let Some(sprite) = sprite {
            works.push(Work::Sprite(SpriteWork::of(sprite, shown, length_ms, input)?));
        }
        works.extend(preview.map(|preview| {
            let extension = match preview.format {
                Format::Mp4 => "mp4",
                Format::Gif => "gif",
            };
            let (starts_ms, clip_ms) = clips(preview, length_ms);
            Work::Preview(PreviewWork {
                name: file_name(input, "preview", extension),
                size: fit(shown, preview.width.0),
                starts_ms,
                clip_ms,
                format: preview.format,
            })
        }));
        Ok(Self { works })
    }

    /// Every file.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for work in &self.works {
            names.push(work.name().to_owned());
            if let Work::Sprite(sprite) = work {
                names.push(sprite.index_name.clone());
            }
        }
        names
    }
}

impl Work {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Poster(work) => &work.name,
            Self::Sprite(work) => &work.name,
            Self::Preview(work) => &work.name,
        }
    }

    /// How much FFmpeg goes through, milliseconds, where it is more than a few frames.
    pub(super) fn progress_ms(&self) -> Option<u64> {
        match self {
            Self::Poster(_) => None,
            Self::Sprite(work) => Some(work.length_ms),
            Self::Preview(work) => Some(work.length_ms()),
        }
    }

    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Poster(_) => "poster",
            Self::Sprite(_) => "sprite",
            Self::Preview(_) => "preview",
        }
    }

    /// Pixels of the file.
    pub(super) fn size(&self) -> (u32, u32) {
        match self {
            Self::Poster(work) => work.size,
            Self::Sprite(work) => (work.tile.0 * work.columns, work.tile.1 * work.rows()),
            Self::Preview(work) => work.size,
        }
    }
}

impl SpriteWork {
    fn of(
        sprite: Sprite,
        shown: (u32, u32),
        length_ms: u64,
        input: &Path,
    ) -> Result<Self, Failure> {
        let tile = fit(shown, sprite.width.0);
        let places = u64::from(sprite.columns.0 * sprite.rows.0);
        let interval_ms = length_ms.div_ceil(places).max(INTERVAL_MIN_MS);
        let tiles = u32::try_from(length_ms.div_ceil(interval_ms)).unwrap_or(1);
        let work = Self {
            name: file_name(input, "sprite", "jpg"),
            index_name: file_name(input, "sprite", "vtt"),
            tile,
            columns: sprite.columns.0.min(tiles),
            tiles,
            interval_ms,
            length_ms,
        };
        let (width, height) = (work.tile.0 * work.columns, work.tile.1 * work.rows());
        if width.max(height) > SHEET_SIDE_MAX {
            let message = format!(
                "payload field sprite: a sheet of {width}x{height} pixels, at most \
                 {SHEET_SIDE_MAX} are possible on a side: ask for a smaller width or fewer pictures"
            );
            return Err(Failure::permanent(Cause::Payload, message));
        }
        Ok(work)
    }

    pub(super) fn rows(&self) -> u32 {
        self.tiles.div_ceil(self.columns)
    }

    /// Which part of the sheet is shown when, as WebVTT with media fragments (`#xywh=`).
    pub(super) fn index(&self) -> String {
        let (url, (width, height)) = (url_of(&self.name), self.tile);
        let mut text = "WEBVTT\n".to_owned();
        for tile in 0..self.tiles {
            let begin = u64::from(tile) * self.interval_ms;
            let end = (begin + self.interval_ms).min(self.length_ms);
            let (x, y) = (tile % self.columns * width, tile / self.columns * height);
            let (begin, end) = (clock(begin), clock(end));
            let cue = write!(text, "\n{begin} --> {end}\n{url}#xywh={x},{y},{width},{height}\n");
            cue.expect("writing to a String cannot fail");
        }
        text
    }
}

impl PreviewWork {
    pub(super) fn length_ms(&self) -> u64 {
        self.clip_ms * self.starts_ms.len() as u64
    }
}

/// The shape of the film at this width or its own, whichever is smaller; both sides even, as the
/// encoders want them.
fn fit((width, height): (u32, u32), wanted: u32) -> (u32, u32) {
    let even = |side: u64| u32::try_from((side & !1).max(2)).unwrap_or(u32::MAX - 1);
    let fitted = even(u64::from(width.min(wanted)));
    let scaled = u64::from(height) * u64::from(fitted) / u64::from(width.max(1));
    (fitted, even(scaled + 1))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times of films are far below 2^52 ms and above 0"
)]
fn moment(at: At, length_ms: u64) -> u64 {
    let length = length_ms as f64;
    let wanted = match at {
        At::Share(share) => share * length,
        At::Seconds(seconds) => seconds * 1000.0,
    };
    wanted.min(length * LATEST) as u64
}

/// Clips in the middle of equal parts of the film; a film that is too short for them is one clip.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most ten seconds, at least 0.2"
)]
fn clips(preview: Preview, length_ms: u64) -> (Vec<u64>, u64) {
    let clip_ms = (preview.seconds.0 * 1000.0) as u64;
    let clips = u64::from(preview.clips.0);
    let part_ms = length_ms / clips;
    if part_ms < clip_ms {
        return (vec![0], length_ms.min(clips * clip_ms));
    }
    let starts = (0..clips).map(|clip| clip * part_ms + (part_ms - clip_ms) / 2);
    (starts.collect(), clip_ms)
}

/// `hh:mm:ss.mmm`.
fn clock(ms: u64) -> String {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::super::payload::{Count, Seconds, Width};
    use super::*;

    fn sprite(length_ms: u64, columns: u32, rows: u32, width: u32) -> Result<SpriteWork, Failure> {
        let sprite = Sprite { columns: Count(columns), rows: Count(rows), width: Width(width) };
        SpriteWork::of(sprite, (1920, 1080), length_ms, Path::new("/in/a film.mkv"))
    }

    #[test]
    fn pictures_keep_their_shape_and_never_grow() {
        assert_eq!(fit((1920, 1080), 640), (640, 360));
        assert_eq!(fit((320, 240), 640), (320, 240));
        assert_eq!(fit((1080, 1920), 161), (160, 284));
        assert_eq!(fit((3840, 16), 32), (32, 2));
        assert_eq!(fit((1, 1), 32), (2, 2));
    }

    #[test]
    fn a_sheet_covers_the_film_and_has_no_empty_row() {
        let long = sprite(7_200_000, 10, 10, 160).expect("possible");
        assert_eq!((long.tiles, long.interval_ms, long.rows()), (100, 72_000, 10));
        let short = sprite(12_500, 10, 10, 160).expect("possible");
        assert_eq!((short.tiles, short.interval_ms, short.rows()), (13, 1000, 2));
        let tiny = sprite(300, 10, 10, 160).expect("possible");
        assert_eq!((tiny.tiles, tiny.columns, tiny.rows()), (1, 1, 1));
        let refusal = sprite(7_200_000, 20, 20, 1920).expect_err("too large");
        assert!(refusal.message.contains("payload field sprite"), "{}", refusal.message);
    }

    #[test]
    fn the_index_names_every_picture_of_the_sheet() {
        let work = sprite(2_500, 2, 2, 160).expect("possible");
        assert_eq!(
            work.index(),
            "WEBVTT\n\
             \n00:00:00.000 --> 00:00:01.000\na%20film-sprite.jpg#xywh=0,0,160,90\n\
             \n00:00:01.000 --> 00:00:02.000\na%20film-sprite.jpg#xywh=160,0,160,90\n\
             \n00:00:02.000 --> 00:00:02.500\na%20film-sprite.jpg#xywh=0,90,160,90\n"
        );
        assert_eq!(clock(3_723_004), "01:02:03.004");
    }

    #[test]
    fn clips_lie_in_the_film_and_apart() {
        let preview = Preview { clips: Count(3), seconds: Seconds(2.0), ..Preview::default() };
        assert_eq!(clips(preview, 30_000), (vec![4_000, 14_000, 24_000], 2_000));
        assert_eq!(clips(preview, 5_000), (vec![0], 5_000));
        assert_eq!(moment(At::Share(1.0), 10_000), 9_500);
        assert_eq!(moment(At::Seconds(3.25), 10_000), 3_250);
    }
}
