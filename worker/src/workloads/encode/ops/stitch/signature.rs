//! Whether clips can be joined without encoding: only when everything that a decoder is set up
//! with is the same. FFmpeg itself joins what differs without a word, and the film changes its
//! size or speed in its middle. Pure.

use super::super::details::{Detail, Details};

/// What MP4 holds and players expect in it.
const PICTURES: &[&str] = &["h264", "hevc", "av1"];
const SOUNDS: &[&str] = &["aac", "mp3", "ac3", "eac3"];

/// The streams of a clip that are kept: its film and its tracks of sound.
pub(super) fn kept(details: &Details, video: u32) -> Vec<&Detail> {
    details.streams.iter().filter(|stream| stream.index == video || stream.is_sound()).collect()
}

/// Says why clips cannot be joined by copy. Each has the streams that are kept.
pub(super) fn difference(clips: &[Vec<&Detail>]) -> Option<String> {
    let first = clips.first()?;
    for stream in first {
        let (codec, known) = match stream.codec_type.as_str() {
            "video" => (stream.codec(), PICTURES),
            _ => (stream.codec(), SOUNDS),
        };
        if !known.contains(&codec) {
            return Some(format!("{codec} is none of those for MP4"));
        }
    }
    for (at, clip) in clips.iter().enumerate().skip(1) {
        if clip.len() != first.len() {
            let (this, that) = (clip.len(), first.len());
            return Some(format!(
                "clip {} has {this} streams of picture and sound, clip 1 {that}",
                at + 1
            ));
        }
        for (this, that) in clip.iter().zip(first) {
            if let Some((name, this, that)) = first_difference(this, that) {
                let number = at + 1;
                return Some(format!("{name} of clip {number} is {this}, of clip 1 {that}"));
            }
        }
    }
    None
}

fn first_difference(this: &Detail, that: &Detail) -> Option<(&'static str, String, String)> {
    signature(this)
        .into_iter()
        .zip(signature(that))
        .find_map(|((name, this), (_, that))| (this != that).then_some((name, this, that)))
}

fn signature(stream: &Detail) -> Vec<(&'static str, String)> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
    let mut parts = vec![
        ("the place of a stream", stream.index.to_string()),
        ("the kind of a stream", stream.codec_type.clone()),
        ("the codec", stream.codec().to_owned()),
        ("the profile", text(&stream.profile)),
        ("the time base", text(&stream.time_base)),
    ];
    if stream.codec_type == "video" {
        parts.extend([
            ("the size", format!("{}x{}", stream.width, stream.height)),
            ("the pixel format", stream.pixels().to_owned()),
            ("the pixel aspect", text(&stream.sample_aspect_ratio)),
            ("the frame rate", text(&stream.r_frame_rate)),
            ("the rotation", stream.rotation().to_string()),
            ("the field order", text(&stream.field_order)),
            ("the colour range", text(&stream.color_range)),
            ("the colour matrix", text(&stream.color_space)),
            ("the colour transfer", text(&stream.color_transfer)),
            ("the colour primaries", text(&stream.color_primaries)),
        ]);
    } else {
        parts.extend([
            ("the sample rate", text(&stream.sample_rate)),
            ("the number of channels", stream.channels.to_string()),
            ("the layout of channels", text(&stream.channel_layout)),
        ]);
    }
    parts.push(("the decoder's set-up", text(&stream.extradata_hash)));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(change: impl Fn(&mut Detail)) -> Detail {
        let mut stream = Detail {
            codec_type: "video".to_owned(),
            codec_name: Some("h264".to_owned()),
            width: 1280,
            height: 720,
            extradata_hash: Some("CRC32:1".to_owned()),
            ..Detail::default()
        };
        change(&mut stream);
        stream
    }

    fn sound(codec: &str) -> Detail {
        Detail {
            index: 1,
            codec_type: "audio".to_owned(),
            codec_name: Some(codec.to_owned()),
            channels: 2,
            ..Detail::default()
        }
    }

    fn told(one: &[Detail], other: &[Detail]) -> Option<String> {
        difference(&[one.iter().collect(), other.iter().collect()])
    }

    #[test]
    fn equal_clips_have_no_difference() {
        let clip = [picture(|_| {}), sound("aac")];
        assert_eq!(told(&clip, &clip), None);
    }

    #[test]
    fn every_difference_is_named() {
        let clip = [picture(|_| {}), sound("aac")];
        let differs = |change: fn(&mut Detail), words: &str| {
            let sentence = told(&clip, &[picture(change), sound("aac")]).expect(words);
            assert!(sentence.contains(words), "{sentence}");
        };
        differs(|it| it.width = 640, "the size of clip 2 is 640x720, of clip 1 1280x720");
        differs(|it| it.pix_fmt = Some("yuv420p10le".to_owned()), "the pixel format");
        differs(|it| it.extradata_hash = None, "the decoder's set-up");
        differs(|it| it.time_base = Some("1/90000".to_owned()), "the time base");
        differs(|it| it.index = 1, "the place of a stream");
        let silent = told(&clip, &[picture(|_| {})]).expect("sound is missing");
        assert!(silent.contains("clip 2 has 1 streams"), "{silent}");
        let other = told(&clip, &[picture(|_| {}), sound("mp3")]).expect("another codec");
        assert!(other.contains("the codec of clip 2 is mp3"), "{other}");
        let strange = [picture(|it| it.codec_name = Some("vp8".to_owned()))];
        assert_eq!(told(&strange, &strange).as_deref(), Some("vp8 is none of those for MP4"));
    }
}
