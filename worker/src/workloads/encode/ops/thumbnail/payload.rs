//! The payload of `thumbnail`: which pictures, within which bounds.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    #[serde(rename = "op")]
    _op: String,
    pub(super) input: String,
    pub(super) output_dir: String,
    pub(super) poster: Option<Poster>,
    pub(super) sprite: Option<Sprite>,
    pub(super) preview: Option<Preview>,
}

impl Payload {
    pub(super) fn is_poster_alone(&self) -> bool {
        self.poster.is_some() && self.sprite.is_none() && self.preview.is_none()
    }

    /// Nothing in particular is asked for: everything as usual.
    pub(super) fn is_open(&self) -> bool {
        self.poster.is_none() && self.sprite.is_none() && self.preview.is_none()
    }
}

/// One picture.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Poster {
    pub(super) at: At,
    pub(super) width: Width,
}

impl Default for Poster {
    fn default() -> Self {
        Self { at: At::Share(0.1), width: Width(640) }
    }
}

/// A sheet of small pictures at equal distances.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Sprite {
    pub(super) columns: Count,
    pub(super) rows: Count,
    /// Of one picture.
    pub(super) width: Width,
}

impl Default for Sprite {
    fn default() -> Self {
        Self { columns: Count(10), rows: Count(10), width: Width(160) }
    }
}

/// Some short clips of the film, one after the other, without sound.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Preview {
    pub(super) clips: Count,
    /// Of one clip.
    pub(super) seconds: Seconds,
    pub(super) width: Width,
    pub(super) format: Format,
}

impl Default for Preview {
    fn default() -> Self {
        Self {
            clips: Count(6),
            seconds: Seconds(1.0),
            width: Width(320),
            format: Format::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    #[default]
    Mp4,
    Gif,
}

/// Pixels, 32 to 3840. Pictures keep their shape and are never made larger than the film.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u32")]
pub(super) struct Width(pub(super) u32);

impl TryFrom<u32> for Width {
    type Error = String;

    fn try_from(pixels: u32) -> Result<Self, String> {
        let is_possible = (32..=3840).contains(&pixels);
        is_possible.then_some(Self(pixels)).ok_or(format!("{pixels}: must be 32 to 3840"))
    }
}

/// How many, 1 to 20.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u32")]
pub(super) struct Count(pub(super) u32);

impl TryFrom<u32> for Count {
    type Error = String;

    fn try_from(count: u32) -> Result<Self, String> {
        let is_possible = (1..=20).contains(&count);
        is_possible.then_some(Self(count)).ok_or(format!("{count}: must be 1 to 20"))
    }
}

/// Length of a clip, 0.2 to 10 seconds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "f64")]
pub(super) struct Seconds(pub(super) f64);

impl TryFrom<f64> for Seconds {
    type Error = String;

    fn try_from(seconds: f64) -> Result<Self, String> {
        let is_possible = (0.2..=10.0).contains(&seconds);
        is_possible.then_some(Self(seconds)).ok_or(format!("{seconds}: must be 0.2 to 10"))
    }
}

/// A moment of the film.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub(super) enum At {
    /// Share of its length, 0 to 1.
    Share(f64),
    /// Seconds from its begin.
    Seconds(f64),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Text(String),
}

impl TryFrom<Written> for At {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let (moment, shown) = match written {
            Written::Number(seconds) => {
                (Some(seconds).filter(|s| *s >= 0.0).map(Self::Seconds), seconds.to_string())
            }
            Written::Text(text) => {
                let percent = text.strip_suffix('%').and_then(|digits| digits.parse::<f64>().ok());
                let share = percent.filter(|percent| (0.0..=100.0).contains(percent));
                (share.map(|percent| Self::Share(percent / 100.0)), text)
            }
        };
        moment.ok_or(format!("{shown:?}: write seconds, such as 12.5, or a share, such as \"10%\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &str) -> Result<Payload, String> {
        let text = format!(r#"{{"op":"thumbnail","input":"/a","output_dir":"/b"{fields}}}"#);
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_asked_for_is_everything() {
        assert!(read("").expect("valid").is_open());
        let payload = read(r#","poster":{"at":"50%"}"#).expect("valid");
        assert!(!payload.is_open() && payload.sprite.is_none());
        assert_eq!(payload.poster.expect("asked for").at, At::Share(0.5));
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        for (fields, words) in [
            (r#","poster":{"at":"150%"}"#, "such as 12.5"),
            (r#","poster":{"at":-1}"#, "such as 12.5"),
            (r#","poster":{"width":7}"#, "32 to 3840"),
            (r#","sprite":{"rows":0}"#, "1 to 20"),
            (r#","preview":{"seconds":60}"#, "0.2 to 10"),
            (r#","preview":{"format":"webp"}"#, "gif"),
            (r#","preview":{"colour":1}"#, "unknown field"),
        ] {
            let refusal = read(fields).expect_err(fields);
            assert!(refusal.contains(words), "{fields}: {refusal}");
        }
    }
}
