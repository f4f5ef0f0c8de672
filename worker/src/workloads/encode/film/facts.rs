//! What is known about a film: read from ffprobe's JSON. Pure; `probe.rs` runs it.
//!
//! Every field of ffprobe is optional here, numbers arrive as text, and `N/A` or `0/0` mean
//! that nobody knows.

use super::scan::microseconds;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// How ffprobe must be asked: only these entries, so that megabytes of tags stay inside.
pub(crate) const ENTRIES: &str = "format=format_name,duration,start_time\
    :format_tags=major_brand\
    :stream=index,codec_type,codec_name,width,height,pix_fmt,sample_aspect_ratio,field_order,\
    r_frame_rate,avg_frame_rate,start_time,duration,nb_frames,channels,channel_layout,sample_rate,\
    color_range,color_space,color_transfer,color_primaries\
    :stream_disposition=attached_pic,timed_thumbnails,still_image,default\
    :stream_side_data=rotation,dv_profile,dv_bl_signal_compatibility_id\
    :stream_tags=rotate,language";

/// More streams than this are not listed, nor are longer tags: hostile files have thousands.
const STREAMS_MAX: usize = 64;
const TAG_CHARS_MAX: usize = 40;

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
    pub(crate) tags: HashMap<String, String>,
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
    pub(crate) start_time: Option<String>,
    pub(crate) duration: Option<String>,
    pub(crate) nb_frames: Option<String>,
    pub(crate) channels: u32,
    pub(crate) channel_layout: Option<String>,
    pub(crate) color_range: Option<String>,
    pub(crate) color_space: Option<String>,
    pub(crate) color_transfer: Option<String>,
    pub(crate) color_primaries: Option<String>,
    pub(crate) disposition: HashMap<String, i64>,
    pub(crate) side_data_list: Vec<SideData>,
    pub(crate) tags: HashMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SideData {
    pub(crate) rotation: Option<f64>,
    pub(crate) dv_profile: Option<u32>,
    pub(crate) dv_bl_signal_compatibility_id: Option<u32>,
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
    /// All streams but the pictures, in the order of the file.
    pub(crate) streams: Vec<Beside>,
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
    /// Which field comes first, as far as the film says: `tt`, `bb`, `tb`, `bt`, `progressive`.
    pub(crate) field_order: Option<String>,
    /// Width of a stored pixel by its height; 1 for square ones.
    pub(crate) pixel_aspect: f64,
    pub(crate) pixel_format: Option<String>,
    /// Transfer function, when the film names one: `smpte2084` and `arib-std-b67` are HDR.
    pub(crate) transfer: Option<String>,
    pub(crate) primaries: Option<String>,
    pub(crate) matrix: Option<String>,
    /// `tv` or `pc`.
    pub(crate) range: Option<String>,
    /// The pictures are Dolby Vision's own colours, which no plain decoder shows.
    pub(crate) dolby_only: bool,
    /// What the container declares about this stream, milliseconds and frames.
    pub(crate) declared_ms: Option<u64>,
    pub(crate) declared_frames: Option<u64>,
}

/// A stream that is not the film's pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Beside {
    pub(crate) stream: u32,
    pub(crate) kind: Kind,
    /// FFmpeg's name; `unknown` when it cannot be decoded.
    pub(crate) codec: String,
    /// Of audio, else 0.
    pub(crate) channels: u32,
    pub(crate) layout: Option<String>,
    /// As the file has it, mostly ISO 639-2.
    pub(crate) language: Option<String>,
    /// How many packets there are, once they were counted.
    pub(crate) packets: Option<u64>,
    /// Players choose it when nobody asks for another.
    pub(crate) default: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Audio,
    Subtitle,
    /// A still picture about the film, such as a cover.
    Cover,
    /// More moving pictures.
    Video,
    Data,
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
        let mut films = self.streams.iter().filter(|stream| stream.is_film());
        let first = films.next()?;
        let is_chosen = |stream: &&Stream| stream.has("default");
        let video =
            if first.has("default") { first } else { films.find(is_chosen).unwrap_or(first) };
        let sound = self.streams.iter().find(|stream| stream.is_sound());
        Some(Facts {
            container: self.format.format_name.clone(),
            duration_ms: milliseconds(self.format.duration.as_deref()),
            start_us: self.format.start_time.as_deref().and_then(microseconds),
            video: video.video(),
            audio: sound.map(|s| Sound { stream: s.index, channels: s.channels }),
            streams: self
                .streams
                .iter()
                .filter(|stream| stream.index != video.index)
                .take(STREAMS_MAX)
                .map(Stream::beside)
                .collect(),
        })
    }

    /// When its streams begin by the container's account, microseconds.
    pub(crate) fn begins(&self) -> impl Iterator<Item = (u32, i64)> {
        let begin = |stream: &Stream| stream.start_time.as_deref().and_then(microseconds);
        self.streams.iter().filter_map(move |stream| Some((stream.index, begin(stream)?)))
    }

    /// What the file is when it is no film: words that follow its name.
    pub(crate) fn no_film(&self) -> &'static str {
        let has = |kind: &str| self.streams.iter().any(|stream| stream.codec_type == kind);
        if self.streams.iter().any(|stream| stream.codec_type == "video" && !stream.is_cover()) {
            return "has a video stream without a size: its header is damaged, or it is larger than \
                    FFmpeg can decode";
        }
        match (has("audio"), has("video")) {
            (true, true) => "has no video stream but a cover: it is sound (audio only)",
            (true, false) => "has no video stream: it is sound (audio only)",
            (false, true) => "has no video stream but a still picture",
            (false, false) => "has no video stream",
        }
    }

    /// The container holds one picture and no film, by its own account.
    pub(crate) fn is_still(&self) -> bool {
        let brand = self.format.tags.get("major_brand").map(String::as_str);
        matches!(brand, Some("avif" | "heic" | "heix" | "mif1"))
    }
}

impl Stream {
    fn has(&self, disposition: &str) -> bool {
        self.disposition.get(disposition).is_some_and(|flag| *flag != 0)
    }

    fn is_cover(&self) -> bool {
        ["attached_pic", "timed_thumbnails", "still_image"].iter().any(|name| self.has(name))
    }

    fn is_film(&self) -> bool {
        self.codec_type == "video" && !self.is_cover() && self.width > 0 && self.height > 0
    }

    fn beside(&self) -> Beside {
        let kind = match self.codec_type.as_str() {
            "audio" => Kind::Audio,
            "subtitle" => Kind::Subtitle,
            "video" if self.is_cover() => Kind::Cover,
            "video" => Kind::Video,
            _ => Kind::Data,
        };
        let language = self.tags.get("language").filter(|tag| *tag != "und");
        Beside {
            stream: self.index,
            kind,
            codec: self.codec_name.clone().unwrap_or_else(|| "unknown".to_owned()),
            channels: self.channels,
            layout: self.channel_layout.clone().filter(|layout| layout != "unknown"),
            language: language.map(|tag| tag.chars().take(TAG_CHARS_MAX).collect()),
            packets: None,
            default: self.has("default"),
        }
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
        // A base layer that is compatible with nothing has colours that only Dolby's maths turns
        // into a picture.
        let dolby_only = self
            .side_data_list
            .iter()
            .any(|data| data.dv_profile.is_some() && data.dv_bl_signal_compatibility_id == Some(0));
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
            field_order: self.field_order.clone().filter(|order| order != "unknown"),
            pixel_aspect: self.pixel_aspect(),
            pixel_format: self.pix_fmt.clone(),
            transfer: self.color_transfer.clone(),
            primaries: self.color_primaries.clone(),
            matrix: self.color_space.clone(),
            range: self.color_range.clone(),
            dolby_only,
            declared_ms: milliseconds(self.duration.as_deref()),
            declared_frames: number(self.nb_frames.as_deref()),
        }
    }

    /// A shape beyond 8:1 is a broken header: the pixels are taken as square.
    fn pixel_aspect(&self) -> f64 {
        let aspect = ratio(self.sample_aspect_ratio.as_deref());
        aspect.filter(|aspect| (0.125..=8.0).contains(aspect)).unwrap_or(1.0)
    }

    /// Width and height as shown, and the rotation in degrees.
    fn shown_size(&self) -> (u32, u32, i32) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive")]
        let width = (f64::from(self.width) * self.pixel_aspect()).round() as u32;
        let side_data = self.side_data_list.iter().find_map(|data| data.rotation);
        let tag = || self.tags.get("rotate").and_then(|text| text.parse().ok());
        #[expect(clippy::cast_possible_truncation, reason = "reduced to a turn first")]
        let rotation = side_data.or_else(tag).map_or(0, |degrees| (degrees % 360.0).round() as i32);
        let is_sideways = (rotation.rem_euclid(180) - 90).abs() <= 1;
        if is_sideways { (self.height, width, rotation) } else { (width, self.height, rotation) }
    }
}

/// The container holds animations, of which one picture is none.
pub(crate) fn is_of_pictures(container: &str) -> bool {
    container.split(',').any(|name| matches!(name, "gif" | "apng"))
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
                field_order: None,
                pixel_aspect: 1.0,
                pixel_format: Some("yuv420p".to_owned()),
                transfer: None,
                primaries: None,
                matrix: None,
                range: None,
                dolby_only: false,
                declared_ms: None,
                declared_frames: None,
            },
            audio: Some(Sound { stream: 1, channels: 2 }),
            streams: vec![Beside::for_test(1, Kind::Audio, "aac")],
        }
    }
}

#[cfg(test)]
impl Beside {
    /// A stereo track, or a stream without channels.
    pub(crate) fn for_test(stream: u32, kind: Kind, codec: &str) -> Self {
        Self {
            stream,
            kind,
            codec: codec.to_owned(),
            channels: if kind == Kind::Audio { 2 } else { 0 },
            layout: None,
            language: None,
            packets: None,
            default: false,
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
    fn what_is_no_film_is_told_by_what_it_holds() {
        let told = |streams: &str| {
            let text = format!(r#"{{"streams":[{streams}]}}"#);
            let answer: Answer = serde_json::from_str(&text).expect("the test's JSON is valid");
            assert_eq!(answer.facts(), None, "{streams}");
            answer.no_film()
        };
        let sound = r#"{"codec_type":"audio","codec_name":"mp3","channels":2}"#;
        let cover = r#"{"codec_type":"video","width":9,"height":9,
                        "disposition":{"attached_pic":1}}"#;
        let unsized_film = r#"{"codec_type":"video"}"#;
        assert!(told(sound).contains("(audio only)"));
        assert!(told(&format!("{sound},{cover}")).contains("but a cover"));
        assert!(told(cover).contains("still picture"));
        assert!(told(&format!("{sound},{unsized_film}")).contains("without a size"));
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
