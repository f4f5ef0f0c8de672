//! What is known about a film: read from ffprobe's JSON. Pure; `probe.rs` runs it.
//!
//! Every field of ffprobe is optional here, numbers arrive as text, and `N/A` or `0/0` mean
//! that nobody knows.

use super::scan::microseconds;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// How ffprobe must be asked: only these entries, so that megabytes of tags stay inside.
pub(crate) const ENTRIES: &str = "format=format_name,duration,start_time\
    :stream=index,codec_type,codec_name,width,height,pix_fmt,sample_aspect_ratio,field_order,\
    r_frame_rate,avg_frame_rate,duration,nb_frames,channels,sample_rate,color_transfer\
    :stream_disposition=attached_pic:stream_side_data=rotation:stream_tags=rotate";

/// ffprobe's answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    pub(crate) streams: Vec<Stream>,
    pub(crate) format: Format,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Format {
    pub(crate) format_name: String,
    pub(crate) duration: Option<String>,
    pub(crate) start_time: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Stream {
    pub(crate) index: u32,
    pub(crate) codec_type: String,
    pub(crate) codec_name: Option<String>,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) pix_fmt: Option<String>,
    pub(crate) sample_aspect_ratio: Option<String>,
    pub(crate) field_order: Option<String>,
    pub(crate) r_frame_rate: Option<String>,
    pub(crate) avg_frame_rate: Option<String>,
    pub(crate) duration: Option<String>,
    pub(crate) nb_frames: Option<String>,
    pub(crate) channels: u32,
    pub(crate) color_transfer: Option<String>,
    pub(crate) disposition: HashMap<String, i64>,
    pub(crate) side_data_list: Vec<SideData>,
    pub(crate) tags: HashMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SideData {
    pub(crate) rotation: Option<f64>,
}

/// A film as the plan sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Facts {
    /// FFmpeg's names of the container.
    pub(crate) container: String,
    /// What the container says about its length, milliseconds. An estimate in containers that
    /// do not store it.
    pub(crate) duration_ms: Option<u64>,
    /// Where the container's clock starts, microseconds: FFmpeg makes that time 0.
    #[serde(skip)]
    pub(crate) start_us: Option<i64>,
    pub(crate) video: Video,
    pub(crate) audio: Option<Sound>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Video {
    pub(crate) stream: u32,
    pub(crate) codec: String,
    /// Pixels as shown: after rotation, with square pixels.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Degrees by which the stored picture is turned for showing.
    pub(crate) rotation: i32,
    /// Frames per second; the average when they come irregularly.
    pub(crate) rate: Option<f64>,
    /// Frames come at irregular times.
    pub(crate) irregular: bool,
    pub(crate) interlaced: bool,
    pub(crate) pixel_format: Option<String>,
    /// Transfer function, when the film names one: `smpte2084` and `arib-std-b67` are HDR.
    pub(crate) transfer: Option<String>,
    /// What the container declares about this stream, milliseconds and frames.
    pub(crate) declared_ms: Option<u64>,
    pub(crate) declared_frames: Option<u64>,
}

/// The first audio track.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Sound {
    pub(crate) stream: u32,
    pub(crate) channels: u32,
}

impl Answer {
    /// The film in this answer; `None` when it has no moving picture (cover art is none).
    pub(crate) fn facts(&self) -> Option<Facts> {
        let video = self.streams.iter().find(|stream| stream.is_film())?;
        let sound = self.streams.iter().find(|stream| stream.is_sound());
        Some(Facts {
            container: self.format.format_name.clone(),
            duration_ms: milliseconds(self.format.duration.as_deref()),
            start_us: self.format.start_time.as_deref().and_then(microseconds),
            video: video.video(),
            audio: sound.map(|s| Sound { stream: s.index, channels: s.channels }),
        })
    }
}

impl Stream {
    fn is_film(&self) -> bool {
        let is_cover = self.disposition.get("attached_pic").is_some_and(|flag| *flag != 0);
        self.codec_type == "video" && !is_cover && self.width > 0 && self.height > 0
    }

    fn is_sound(&self) -> bool {
        let has_codec = self.codec_name.as_deref().is_some_and(|name| name != "unknown");
        self.codec_type == "audio" && self.channels > 0 && has_codec
    }

    fn video(&self) -> Video {
        let average = ratio(self.avg_frame_rate.as_deref());
        let base = ratio(self.r_frame_rate.as_deref());
        let irregular = is_irregular(average, base);
        let (width, height, rotation) = self.shown_size();
        let fields = self.field_order.as_deref();
        Video {
            stream: self.index,
            codec: self.codec_name.clone().unwrap_or_else(|| "unknown".to_owned()),
            width,
            height,
            rotation,
            // A regular film's base rate is exact, its average is often rounded.
            rate: if irregular { average.or(base) } else { base },
            irregular,
            interlaced: matches!(fields, Some("tt" | "bb" | "tb" | "bt")),
            pixel_format: self.pix_fmt.clone(),
            transfer: self.color_transfer.clone(),
            declared_ms: milliseconds(self.duration.as_deref()),
            declared_frames: number(self.nb_frames.as_deref()),
        }
    }

    /// Width and height as shown, and the rotation in degrees.
    fn shown_size(&self) -> (u32, u32, i32) {
        let aspect = ratio(self.sample_aspect_ratio.as_deref());
        // A shape beyond 8:1 is a broken header: the pixels are taken as square.
        let aspect = aspect.filter(|aspect| (0.125..=8.0).contains(aspect)).unwrap_or(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive")]
        let width = (f64::from(self.width) * aspect).round() as u32;
        let side_data = self.side_data_list.iter().find_map(|data| data.rotation);
        let tag = || self.tags.get("rotate").and_then(|text| text.parse().ok());
        #[expect(clippy::cast_possible_truncation, reason = "reduced to a turn first")]
        let rotation = side_data.or_else(tag).map_or(0, |degrees| (degrees % 360.0).round() as i32);
        let is_sideways = (rotation.rem_euclid(180) - 90).abs() <= 1;
        if is_sideways { (self.height, width, rotation) } else { (width, self.height, rotation) }
    }
}

/// The base rate is the least one on which all first timestamps fall: when it differs from the
/// average, frames are missing from the grid. Doubled fields are taken as irregular too, which
/// costs nothing but a finer clock.
fn is_irregular(average: Option<f64>, base: Option<f64>) -> bool {
    match (average, base) {
        (Some(average), Some(base)) => (average / base - 1.0).abs() > 0.000_5,
        (Some(_) | None, None) | (None, Some(_)) => true,
    }
}

/// `30000/1001` or `16:15` as a number above 0.
pub(crate) fn ratio(text: Option<&str>) -> Option<f64> {
    let (over, under) = text?.split_once(['/', ':'])?;
    let (over, under): (f64, f64) = (over.parse().ok()?, under.parse().ok()?);
    let value = over / under;
    (value.is_finite() && value > 0.0).then_some(value)
}

/// Seconds as text in whole milliseconds; `None` for `N/A`, 0 and what is below.
pub(crate) fn milliseconds(text: Option<&str>) -> Option<u64> {
    let seconds: f64 = text?.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "filtered")]
    let milliseconds = Some(seconds * 1000.0).filter(|ms| (0.5..1e15).contains(ms))?.round() as u64;
    Some(milliseconds)
}

fn number(text: Option<&str>) -> Option<u64> {
    text?.parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
impl Facts {
    /// A plain film of 1920x1080.
    pub(crate) fn for_test() -> Self {
        Self {
            container: "matroska,webm".to_owned(),
            duration_ms: Some(10_000),
            start_us: Some(0),
            video: Video {
                stream: 0,
                codec: "h264".to_owned(),
                width: 1920,
                height: 1080,
                rotation: 0,
                rate: Some(30.0),
                irregular: false,
                interlaced: false,
                pixel_format: Some("yuv420p".to_owned()),
                transfer: None,
                declared_ms: None,
                declared_frames: None,
            },
            audio: Some(Sound { stream: 1, channels: 2 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(streams: &str) -> Option<Facts> {
        let text = format!(r#"{{"streams":[{streams}],"format":{{"duration":"8.0"}}}}"#);
        serde_json::from_str::<Answer>(&text).expect("the test's JSON is valid").facts()
    }

    fn shown(fields: &str) -> (u32, u32) {
        let stream = format!(r#"{{"codec_type":"video","width":1920,"height":1080{fields}}}"#);
        let video = facts(&stream).expect("it is a film").video;
        (video.width, video.height)
    }

    #[test]
    fn rotation_swaps_the_sides_from_side_data_and_from_the_old_tag() {
        assert_eq!(shown(r#","side_data_list":[{"rotation":-90}]"#), (1080, 1920));
        assert_eq!(shown(r#","side_data_list":[{},{"rotation":270}]"#), (1080, 1920));
        assert_eq!(shown(r#","side_data_list":[{"rotation":180}]"#), (1920, 1080));
        assert_eq!(shown(r#","tags":{"rotate":"90"}"#), (1080, 1920));
        assert_eq!(shown(r#","side_data_list":[{"rotation":45}]"#), (1920, 1080));
    }

    #[test]
    fn anamorphic_pixels_are_made_square_before_the_rotation() {
        assert_eq!(shown(r#","sample_aspect_ratio":"4:3""#), (2560, 1080));
        let turned = r#","sample_aspect_ratio":"4:3","side_data_list":[{"rotation":90}]"#;
        assert_eq!(shown(turned), (1080, 2560));
        assert_eq!(shown(r#","sample_aspect_ratio":"0:1""#), (1920, 1080));
        assert_eq!(shown(r#","sample_aspect_ratio":"1:4000""#), (1920, 1080));
    }

    #[test]
    fn cover_art_is_no_film() {
        let cover = r#"{"index":0,"codec_type":"video","width":9,"height":9,
                        "disposition":{"attached_pic":1}}"#;
        let sound = r#"{"index":1,"codec_type":"audio","codec_name":"mp3","channels":2}"#;
        assert_eq!(facts(&format!("{cover},{sound}")), None);
        let film = r#"{"index":2,"codec_type":"video","width":640,"height":360}"#;
        let facts = facts(&format!("{cover},{sound},{film}")).expect("it has a film");
        assert_eq!((facts.video.stream, facts.audio.map(|sound| sound.stream)), (2, Some(1)));
    }

    #[test]
    fn rates_tell_regular_from_irregular_timing() {
        let rates =
            |average: &str, base: &str| is_irregular(ratio(Some(average)), ratio(Some(base)));
        assert!(!rates("30000/1001", "30000/1001"));
        assert!(!rates("2997/100", "30000/1001"));
        assert!(rates("21/1", "30/1"));
        assert!(rates("0/0", "30/1"));
    }

    #[test]
    fn unknown_numbers_are_none() {
        assert_eq!(milliseconds(Some("N/A")), None);
        assert_eq!(milliseconds(Some("-3")), None);
        assert_eq!(milliseconds(Some("inf")), None);
        assert_eq!(milliseconds(Some("8.0226")), Some(8023));
        assert_eq!(ratio(Some("0/0")), None);
        assert_eq!(number(Some("0")), None);
    }

    #[test]
    fn any_answer_of_the_right_shape_is_read() {
        let answer: Answer = serde_json::from_str(r#"{"programs":[]}"#).expect("no key is needed");
        assert_eq!(answer.facts(), None);
    }
}
