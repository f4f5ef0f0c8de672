//! What becomes of each stream of a film that must fit a target: as little as possible. Pure.

use super::super::super::film::facts::Facts;
use super::super::super::film::scan::Scan;
use super::super::super::film::tracks::{is_picture, is_text};
use super::super::details::{Detail, Details};
use super::super::filters::even;
use super::super::sound::Track;
use super::payload::{Format, Payload};
use serde::Serialize;

/// Pixel formats of what hardware decoders play: 8 bit, a quarter of the colours.
const PLAIN: &[&str] = &["yuv420p", "yuvj420p"];
/// The same in 10 bit, which players of the newer codecs know.
const PLAIN_DEEP: &[&str] = &["yuv420p", "yuv420p10le"];

/// What is done with one stream, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Decision {
    /// Index in the input.
    pub(super) stream: u32,
    pub(super) kind: &'static str,
    pub(super) codec: String,
    pub(super) action: Action,
    pub(super) because: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Copied,
    Encoded,
    /// Text into the container's own form of it.
    Converted,
    Dropped,
}

/// The streams of the output, in its order: the film, its sound, its subtitles, its covers.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) video: u32,
    /// The codec of the picture in the output.
    pub(super) video_codec: String,
    /// The size that it is encoded in; `None`: it is copied.
    pub(super) encode: Option<(u32, u32)>,
    pub(super) tracks: Vec<Track>,
    /// Stream, codec in the output, and what FFmpeg is told.
    pub(super) subtitles: Vec<(u32, String, &'static str)>,
    pub(super) covers: Vec<(u32, String)>,
    pub(super) decisions: Vec<Decision>,
}

/// A film as it was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub(super) facts: &'a Facts,
    pub(super) scan: &'a Scan,
    pub(super) details: &'a Details,
}

/// What is not copied although it fits, because that was tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forced<'a> {
    pub(super) what: What,
    pub(super) because: &'a str,
}

/// Picture, sound (all of its tracks), or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Picture,
    Sound,
    Both,
}

impl<'a> Forced<'a> {
    fn of_picture(self) -> Option<&'a str> {
        (self.what != What::Sound).then_some(self.because)
    }

    fn of_sound(self) -> Option<&'a str> {
        (self.what != What::Picture).then_some(self.because)
    }
}

impl Plan {
    pub(super) fn of(found: Found<'_>, payload: &Payload, forced: Option<Forced<'_>>) -> Self {
        let mut plan = Self {
            video: found.facts.video.stream,
            video_codec: String::new(),
            encode: None,
            tracks: Vec::new(),
            subtitles: Vec::new(),
            covers: Vec::new(),
            decisions: Vec::new(),
        };
        for stream in &found.details.streams {
            match stream.codec_type.as_str() {
                "video" if stream.index == plan.video => {
                    plan.picture(stream, found, (payload, forced));
                }
                "video" if stream.is_cover() => plan.cover(stream, payload.format),
                "video" => plan.drop(stream, "video", "an output holds one film"),
                "audio" => plan.sound(stream, found, (payload, forced)),
                "subtitle" => plan.subtitle(stream, payload.format),
                _ => plan.drop(stream, "data", "players make nothing of it"),
            }
        }
        plan
    }

    /// What to encode in turn when this plan, which copies it, has failed: the least work first.
    /// `is_picture`: it is known to be about the picture.
    pub(super) fn instead(&self, is_picture: bool) -> Vec<What> {
        let (picture, sound) = (self.encode.is_none(), self.tracks.iter().any(Track::is_copied));
        let mut tries = Vec::new();
        if sound && !is_picture {
            tries.push(What::Sound);
        }
        if picture {
            tries.push(What::Picture);
        }
        if picture && sound {
            tries.push(What::Both);
        }
        tries
    }

    /// The output's streams, such as `audio aac`.
    pub(super) fn streams(&self) -> Vec<String> {
        let sounds = self.tracks.iter().map(|track| format!("audio {}", track.codec));
        let texts = self.subtitles.iter().map(|(_, codec, _)| format!("subtitle {codec}"));
        let covers = self.covers.iter().map(|(_, codec)| format!("video {codec}"));
        [format!("video {}", self.video_codec)]
            .into_iter()
            .chain(sounds)
            .chain(texts)
            .chain(covers)
            .collect()
    }

    fn decide(&mut self, of: &Detail, kind: &'static str, action: Action, because: String) {
        let (stream, codec) = (of.index, of.codec().to_owned());
        self.decisions.push(Decision { stream, kind, codec, action, because });
    }

    fn drop(&mut self, of: &Detail, kind: &'static str, because: &str) {
        self.decide(of, kind, Action::Dropped, because.to_owned());
    }

    fn picture(
        &mut self,
        of: &Detail,
        found: Found<'_>,
        (payload, forced): (&Payload, Option<Forced<'_>>),
    ) {
        let shown = (found.facts.video.width, found.facts.video.height);
        let size = payload.short_side_max.map_or(shown, |side| shrunk(shown, side.0));
        let obstacle = obstacle(of, found, (payload, size));
        let obstacle = obstacle.or(forced.and_then(Forced::of_picture).map(str::to_owned));
        match obstacle {
            None => {
                self.video_codec = of.codec().to_owned();
                let because = format!(
                    "it is {} {} {}x{}, which fits",
                    of.codec(),
                    of.pixels(),
                    shown.0,
                    shown.1
                );
                self.decide(of, "video", Action::Copied, because);
            }
            Some(because) => {
                self.video_codec = "h264".to_owned();
                self.encode = Some(even(size));
                self.decide(of, "video", Action::Encoded, because);
            }
        }
    }

    fn sound(
        &mut self,
        of: &Detail,
        found: Found<'_>,
        (payload, forced): (&Payload, Option<Forced<'_>>),
    ) {
        if !of.is_sound() {
            return self.drop(of, "audio", "it cannot be decoded");
        }
        if found.scan.tracks.get(&of.index).is_none_or(|track| track.packets == 0) {
            return self.drop(of, "audio", "it holds no packet");
        }
        let mut track = Track::of(of, payload.format.container(), &payload.sounds());
        if let Some(because) = forced.and_then(Forced::of_sound)
            && track.is_copied()
        {
            track = Track::of(of, payload.format.container(), &[]);
            track.because = because.to_owned();
        }
        let action = if track.is_copied() { Action::Copied } else { Action::Encoded };
        self.decide(of, "audio", action, track.because.clone());
        self.tracks.push(track);
    }

    fn subtitle(&mut self, of: &Detail, format: Format) {
        let codec = of.codec().to_owned();
        let (own, encoder, name) = match format {
            Format::Mp4 => ("mov_text", "mov_text", "MP4"),
            Format::Mkv => ("subrip", "srt", "Matroska"),
        };
        let is_at_home = match format {
            Format::Mp4 => codec == own,
            Format::Mkv => codec != "mov_text" && (is_text(&codec) || is_picture(&codec)),
        };
        if is_at_home {
            self.decide(of, "subtitle", Action::Copied, format!("{name} holds {codec}"));
            self.subtitles.push((of.index, codec, "copy"));
        } else if is_text(&codec) {
            let because = format!("{name} holds text as {own}");
            self.decide(of, "subtitle", Action::Converted, because);
            self.subtitles.push((of.index, own.to_owned(), encoder));
        } else if is_picture(&codec) {
            self.drop(of, "subtitle", "it is pictures, which this container does not hold");
        } else {
            self.drop(of, "subtitle", "it is no text that can be read here");
        }
    }

    fn cover(&mut self, of: &Detail, format: Format) {
        match (format, of.codec()) {
            (Format::Mp4, codec @ ("mjpeg" | "png")) => {
                self.covers.push((of.index, codec.to_owned()));
                self.decide(of, "cover", Action::Copied, "MP4 holds covers".to_owned());
            }
            (Format::Mp4 | Format::Mkv, _) => {
                self.drop(of, "cover", "this container holds none of its kind");
            }
        }
    }
}

/// Why the picture cannot be taken over as it is.
fn obstacle(
    of: &Detail,
    found: Found<'_>,
    (payload, size): (&Payload, (u32, u32)),
) -> Option<String> {
    let (codec, pixels, accepted) = (of.codec(), of.pixels(), payload.pictures());
    let plain = if codec == "h264" { PLAIN } else { PLAIN_DEEP };
    let shown = (found.facts.video.width, found.facts.video.height);
    let track = found.scan.tracks.get(&of.index).cloned().unwrap_or_default();
    if !accepted.contains(&codec) {
        Some(format!("{codec} is none of {}", accepted.join(", ")))
    } else if !plain.contains(&pixels) {
        Some(format!("its pixels are {pixels}, players expect {}", plain.join(" or ")))
    } else if size != shown {
        let (width, height) = shown;
        let most = size.0.min(size.1);
        Some(format!("it is {width}x{height}, its short side may have {most} pixels"))
    } else if of.rotation() != 0.0 && payload.format == Format::Mkv {
        Some("it is turned for showing, which Matroska does not keep".to_owned())
    } else if found.scan.pictures.untimed > 0 {
        Some(format!("{} of its pictures have no time", found.scan.pictures.untimed))
    } else if !track.has_steady_clock() {
        Some("its clock jumps".to_owned())
    } else {
        None
    }
}

/// The size whose short side is at most this.
fn shrunk((width, height): (u32, u32), most: u32) -> (u32, u32) {
    let short = width.min(height);
    if short <= most {
        return (width, height);
    }
    let side = |side: u32| {
        let scaled = (u64::from(side) * u64::from(most) + u64::from(short) / 2) / u64::from(short);
        u32::try_from(scaled).unwrap_or(u32::MAX)
    };
    even((side(width), side(height)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(fields: &str) -> Payload {
        let text = format!(r#"{{"op":"passthrough","input":"/a","output_dir":"/b"{fields}}}"#);
        serde_json::from_str(&text).expect("it is valid")
    }

    fn stream(index: u32, kind: &str, codec: &str) -> Detail {
        Detail {
            index,
            codec_type: kind.to_owned(),
            codec_name: Some(codec.to_owned()),
            pix_fmt: Some("yuv420p".to_owned()),
            channels: u32::from(kind == "audio") * 2,
            ..Detail::default()
        }
    }

    fn plan(streams: &[Detail], fields: &str, forced: Option<Forced<'_>>) -> Plan {
        let mut scan = Scan::default();
        for line in ["stream_index=0|pts_time=0|flags=K_", "stream_index=1|pts_time=0|flags=K_"] {
            scan.on_stdout(line.as_bytes());
        }
        let (facts, details) = (Facts::for_test(), Details { streams: streams.to_vec() });
        let found = Found { facts: &facts, scan: &scan, details: &details };
        Plan::of(found, &payload(fields), forced)
    }

    fn told(plan: &Plan) -> Vec<(u32, Action)> {
        plan.decisions.iter().map(|one| (one.stream, one.action)).collect()
    }

    #[test]
    fn what_fits_is_copied_and_nothing_else_is_touched() {
        let fits = [stream(0, "video", "h264"), stream(1, "audio", "aac")];
        let plan = plan(&fits, "", None);
        assert!(plan.encode.is_none());
        assert_eq!(told(&plan), [(0, Action::Copied), (1, Action::Copied)]);
        assert_eq!(plan.streams(), ["video h264", "audio aac"]);
    }

    #[test]
    fn only_what_does_not_fit_is_encoded() {
        let sound = [stream(0, "video", "h264"), stream(1, "audio", "vorbis")];
        let of = plan(&sound, "", None);
        assert_eq!(told(&of), [(0, Action::Copied), (1, Action::Encoded)]);
        let picture = [stream(0, "video", "mpeg4"), stream(1, "audio", "aac")];
        let of = plan(&picture, "", None);
        assert_eq!(told(&of), [(0, Action::Encoded), (1, Action::Copied)]);
        assert_eq!(
            (of.encode, &*of.decisions[0].because),
            (Some((1920, 1080)), "mpeg4 is none of h264")
        );
        let mut deep = stream(0, "video", "h264");
        deep.pix_fmt = Some("yuv420p10le".to_owned());
        assert!(plan(&[deep.clone()], "", None).encode.is_some());
        deep.codec_name = Some("hevc".to_owned());
        assert!(plan(&[deep], r#","video_codecs":["hevc"]"#, None).encode.is_none());
        let small = plan(&sound, r#","short_side_max":720"#, None);
        assert_eq!(small.encode, Some((1280, 720)));
    }

    #[test]
    fn every_other_stream_has_its_reason() {
        let all = [
            stream(0, "video", "h264"),
            stream(2, "subtitle", "subrip"),
            stream(3, "subtitle", "hdmv_pgs_subtitle"),
            stream(4, "attachment", "ttf"),
            stream(5, "video", "h264"),
            stream(6, "audio", "aac"),
        ];
        let mp4 = plan(&all, "", None);
        assert_eq!(mp4.streams(), ["video h264", "subtitle mov_text"]);
        let actions: Vec<Action> = mp4.decisions.iter().map(|one| one.action).collect();
        let dropped = [Action::Dropped; 4];
        assert_eq!(actions[..2], [Action::Copied, Action::Converted]);
        assert_eq!(actions[2..], dropped);
        assert!(mp4.decisions[5].because.contains("no packet"), "{:?}", mp4.decisions[5]);
        let mkv = plan(&all, r#","format":"mkv""#, None);
        assert_eq!(mkv.streams(), ["video h264", "subtitle subrip", "subtitle hdmv_pgs_subtitle"]);
    }

    #[test]
    fn after_a_failed_copy_the_least_is_encoded_first() {
        let fits = [stream(0, "video", "h264"), stream(1, "audio", "aac")];
        let first = plan(&fits, "", None);
        assert_eq!(first.instead(false), [What::Sound, What::Picture, What::Both]);
        assert_eq!(first.instead(true), [What::Picture, What::Both]);
        let fates = |what| {
            let of = plan(&fits, "", Some(Forced { what, because: "x" }));
            told(&of).into_iter().map(|(_, action)| action).collect::<Vec<_>>()
        };
        assert_eq!(fates(What::Sound), [Action::Copied, Action::Encoded]);
        assert_eq!(fates(What::Picture), [Action::Encoded, Action::Copied]);
        assert_eq!(fates(What::Both), [Action::Encoded; 2]);
        // What is encoded anyhow keeps its own reason, and is no other try.
        let other = [stream(0, "video", "h264"), stream(1, "audio", "vorbis")];
        assert_eq!(plan(&other, "", None).instead(false), [What::Picture]);
        let both = plan(&other, "", Some(Forced { what: What::Both, because: "x" }));
        assert_eq!(both.decisions[0].because, "x");
        assert_ne!(both.decisions[1].because, "x");
        assert_eq!(both.instead(false), []);
        assert_eq!(plan(&fits[..1], "", None).instead(false), [What::Picture]);
    }
}
