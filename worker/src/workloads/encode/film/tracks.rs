//! Which audio tracks and subtitles of a film its outputs get, and what is left out. Pure.

use super::facts::{Beside, Facts, Kind};
use serde::Serialize;

/// More audio tracks or subtitles than this are left out: each is decoded and encoded for every
/// output.
const TRACKS_MAX: usize = 16;
/// FFmpeg has no standard arrangement of more channels than this.
const CHANNELS_MAX: u32 = 8;
/// What FFmpeg's AAC encoder takes of one track, bits per second.
const BITRATE_MAX: u64 = 512_000;
/// Subtitles that are text, which MP4 can hold.
const TEXTS: &[&str] = &[
    "subrip",
    "srt",
    "ass",
    "ssa",
    "mov_text",
    "webvtt",
    "text",
    "microdvd",
    "sami",
    "subviewer",
    "subviewer1",
    "jacosub",
    "mpl2",
    "vplayer",
    "realtext",
    "stl",
    "pjs",
    "hdmv_text_subtitle",
];
/// Subtitles that are pictures.
const PICTURES: &[&str] = &["hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle", "xsub"];

/// Whether a codec of subtitles is text, or pictures.
pub(crate) fn is_text(codec: &str) -> bool {
    TEXTS.contains(&codec)
}

pub(crate) fn is_picture(codec: &str) -> bool {
    PICTURES.contains(&codec)
}

/// An audio track of every output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Audio {
    /// Index of the stream in the input.
    pub(crate) stream: u32,
    /// Channels in the output.
    pub(crate) channels: u32,
    /// Bits per second.
    pub(crate) bitrate: u64,
}

/// What is asked of the tracks beside the pictures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Bits per second of a stereo track.
    pub(crate) bitrate: u64,
    /// Surround sound stays what it is instead of becoming stereo.
    pub(crate) keeps_surround: bool,
    /// Outputs hold one audio track, and no subtitles.
    pub(crate) only_one: bool,
}

/// What outputs hold beside their pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tracks {
    /// In the order of the input.
    pub(crate) audio: Vec<Audio>,
    /// Indexes of streams in the input, in its order.
    pub(crate) subtitles: Vec<u32>,
    /// What people are told.
    pub(crate) notes: Vec<String>,
}

/// Decides which tracks are taken over.
pub(crate) fn tracks(facts: &Facts, wish: Wish) -> Tracks {
    let mut tracks = Tracks::default();
    let audio = || facts.streams.iter().filter(|beside| beside.kind == Kind::Audio);
    let chosen = audio().find(|beside| beside.default && refusal(beside).is_none());
    let chosen = chosen.or_else(|| audio().find(|beside| refusal(beside).is_none()));
    for beside in &facts.streams {
        match beside.kind {
            Kind::Audio if wish.only_one && chosen.is_some_and(|one| one != beside) => {
                tracks.drop(beside, "audio", "outputs of this format hold one track");
            }
            Kind::Audio => tracks.take_audio(beside, wish),
            Kind::Subtitle => tracks.take_subtitle(beside, wish),
            Kind::Cover => tracks.drop(beside, "cover", "it is a still picture"),
            Kind::Video => tracks.drop(beside, "video", "outputs hold one film"),
            Kind::Data => tracks.drop(beside, "data", "outputs hold none"),
        }
    }
    tracks
}

impl Tracks {
    fn take_audio(&mut self, beside: &Beside, wish: Wish) {
        let many = (self.audio.len() == TRACKS_MAX).then_some("there are more than 16");
        if let Some(why) = refusal(beside).or(many) {
            return self.drop(beside, "audio", why);
        }
        let is_surround = beside.channels > 2;
        let channels = match beside.channels {
            channels if wish.keeps_surround => channels,
            1 => 1,
            _ => 2,
        };
        let bitrate = match channels {
            1 | 2 => wish.bitrate,
            more => (wish.bitrate * u64::from(more) / 2).min(BITRATE_MAX),
        };
        if is_surround {
            let became = if wish.keeps_surround { "kept" } else { "mixed down to stereo" };
            let layout = beside.layout.clone();
            let layout = layout.unwrap_or_else(|| format!("{} channels", beside.channels));
            self.notes.push(format!("{} of {layout} {became}", name(beside, "audio")));
        }
        self.audio.push(Audio { stream: beside.stream, channels, bitrate });
    }

    fn take_subtitle(&mut self, beside: &Beside, wish: Wish) {
        let codec = beside.codec.as_str();
        if PICTURES.contains(&codec) {
            self.drop(beside, "subtitle", "it is pictures, outputs hold text");
        } else if !TEXTS.contains(&codec) {
            self.drop(beside, "subtitle", "it is no text that can be read here");
        } else if wish.only_one {
            self.drop(beside, "subtitle", "outputs of this format hold none");
        } else if self.subtitles.len() == TRACKS_MAX {
            self.drop(beside, "subtitle", "there are more than 16");
        } else {
            self.notes.push(format!("{} kept as mov_text", name(beside, "subtitle")));
            self.subtitles.push(beside.stream);
        }
    }

    fn drop(&mut self, beside: &Beside, what: &str, why: &str) {
        self.notes.push(format!("{} dropped: {why}", name(beside, what)));
    }
}

/// Why an audio track cannot be taken.
fn refusal(beside: &Beside) -> Option<&'static str> {
    if beside.codec == "unknown" {
        Some("it cannot be decoded")
    } else if beside.packets == Some(0) {
        Some("it holds no packet")
    } else if beside.channels == 0 {
        Some("it has no channels")
    } else if beside.channels > CHANNELS_MAX {
        Some("it has more than 8 channels")
    } else {
        None
    }
}

/// Such as `subtitle 3 (subrip, ger)`.
fn name(beside: &Beside, what: &str) -> String {
    let Beside { stream, codec, language, .. } = beside;
    let language = language.as_ref().map_or(String::new(), |language| format!(", {language}"));
    format!("{what} {stream} ({codec}{language})")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish = Wish { bitrate: 160_000, keeps_surround: false, only_one: false };

    fn of(streams: &[(Kind, &str, u32)], wish: Wish) -> Tracks {
        let mut facts = Facts::for_test();
        facts.streams = streams
            .iter()
            .enumerate()
            .map(|(at, (kind, codec, channels))| {
                let stream = u32::try_from(at + 1).expect("there are few");
                Beside { channels: *channels, ..Beside::for_test(stream, *kind, codec) }
            })
            .collect();
        facts.streams[0].language = Some("deu".to_owned());
        tracks(&facts, wish)
    }

    #[test]
    fn every_audio_track_is_taken_and_surround_is_mixed_or_kept() {
        let streams = [
            (Kind::Audio, "ac3", 6),
            (Kind::Audio, "aac", 1),
            (Kind::Audio, "unknown", 2),
            (Kind::Audio, "pcm_s16le", 16),
        ];
        let mixed = of(&streams, WISH);
        let audio = |tracks: &Tracks| -> Vec<(u32, u32, u64)> {
            tracks.audio.iter().map(|a| (a.stream, a.channels, a.bitrate)).collect()
        };
        assert_eq!(audio(&mixed), [(1, 2, 160_000), (2, 1, 160_000)]);
        assert_eq!(
            mixed.notes,
            [
                "audio 1 (ac3, deu) of 6 channels mixed down to stereo",
                "audio 3 (unknown) dropped: it cannot be decoded",
                "audio 4 (pcm_s16le) dropped: it has more than 8 channels",
            ]
        );
        let kept = of(&streams, Wish { keeps_surround: true, ..WISH });
        assert_eq!(audio(&kept), [(1, 6, 480_000), (2, 1, 160_000)]);
        let many: Vec<_> = (0..20).map(|_| (Kind::Audio, "aac", 2)).collect();
        assert_eq!((of(&many, WISH).audio.len(), of(&many, WISH).notes.len()), (16, 4));
    }

    #[test]
    fn texts_are_kept_where_they_can_be_and_pictures_are_dropped() {
        let streams = [
            (Kind::Subtitle, "subrip", 0),
            (Kind::Subtitle, "hdmv_pgs_subtitle", 0),
            (Kind::Subtitle, "dvb_teletext", 0),
            (Kind::Cover, "mjpeg", 0),
            (Kind::Data, "bin_data", 0),
        ];
        let kept = of(&streams, WISH);
        assert_eq!((kept.audio.len(), kept.subtitles.as_slice()), (0, &[1][..]));
        assert_eq!(
            kept.notes,
            [
                "subtitle 1 (subrip, deu) kept as mov_text",
                "subtitle 2 (hdmv_pgs_subtitle) dropped: it is pictures, outputs hold text",
                "subtitle 3 (dvb_teletext) dropped: it is no text that can be read here",
                "cover 4 (mjpeg) dropped: it is a still picture",
                "data 5 (bin_data) dropped: outputs hold none",
            ]
        );
        let without = of(&streams, Wish { only_one: true, ..WISH });
        assert_eq!(without.subtitles, Vec::<u32>::new());
    }

    #[test]
    fn where_one_audio_track_fits_it_is_the_default_one() {
        let mut facts = Facts::for_test();
        facts.streams = (1..4).map(|at| Beside::for_test(at, Kind::Audio, "aac")).collect();
        let wish = Wish { only_one: true, ..WISH };
        assert_eq!(tracks(&facts, wish).audio[0].stream, 1);
        facts.streams[1].default = true;
        let one = tracks(&facts, wish);
        assert_eq!((one.audio.len(), one.audio[0].stream, one.notes.len()), (1, 2, 2));
        facts.streams[1].packets = Some(0);
        assert_eq!(tracks(&facts, wish).audio[0].stream, 1);
    }
}
