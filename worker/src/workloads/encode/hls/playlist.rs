//! The playlists of HLS (RFC 8216): reads a media playlist as FFmpeg writes it, writes the master
//! playlist. Pure.

use std::fmt::Write as _;

/// Lines of a media playlist that say nothing that must be checked.
const KNOWN: &[&str] = &["#EXTM3U", "#EXT-X-VERSION:", "#EXT-X-MEDIA-SEQUENCE:0"];

/// A media playlist of a film that is complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Media {
    /// Seconds.
    pub(crate) target: u32,
    pub(crate) init: String,
    pub(crate) segments: Vec<Listed>,
    /// Every segment can be decoded without its predecessors.
    pub(crate) is_independent: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    /// How long it lasts, microseconds.
    pub(crate) us: i64,
}

impl Media {
    /// The playlist as text.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:{}\n#EXT-X-MEDIA-SEQUENCE:0\n\
             #EXT-X-PLAYLIST-TYPE:VOD\n",
            self.target
        );
        if self.is_independent {
            text.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
        }
        text.push_str(&format!("#EXT-X-MAP:URI=\"{}\"\n", self.init));
        for Listed { name, us } in &self.segments {
            let (seconds, us) = (us / 1_000_000, us % 1_000_000);
            text.push_str(&format!("#EXTINF:{seconds}.{us:06},\n{name}\n"));
        }
        text.push_str("#EXT-X-ENDLIST\n");
        text
    }

    /// Reads a playlist that lists a whole film without a break.
    ///
    /// # Errors
    /// The line that is missing, or has no place in such a playlist.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut media = Self::default();
        let (mut is_vod, mut is_ended, mut duration) = (false, false, None);
        for line in text.lines().filter(|line| !line.is_empty()) {
            if is_ended {
                return Err(format!("{line:?} follows its end"));
            }
            if let Some(seconds) = line.strip_prefix("#EXT-X-TARGETDURATION:") {
                media.target = seconds.parse().map_err(|_| format!("{line:?} is no number"))?;
            } else if let Some(uri) = line.strip_prefix("#EXT-X-MAP:URI=") {
                if !media.init.is_empty() {
                    return Err("its set-up changes on the way".to_owned());
                }
                media.init = uri.trim_matches('"').to_owned();
            } else if let Some(seconds) = line.strip_prefix("#EXTINF:") {
                duration = Some(microseconds(seconds).ok_or(format!("{line:?} is no duration"))?);
            } else if line == "#EXT-X-PLAYLIST-TYPE:VOD" {
                is_vod = true;
            } else if line == "#EXT-X-INDEPENDENT-SEGMENTS" {
                media.is_independent = true;
            } else if line == "#EXT-X-ENDLIST" {
                is_ended = true;
            } else if !line.starts_with('#') {
                let us = duration.take().ok_or(format!("{line:?} has no duration"))?;
                media.segments.push(Listed { name: line.to_owned(), us });
            } else if !KNOWN.iter().any(|known| line.starts_with(known)) {
                return Err(format!("{line:?} has no place in the playlist of a whole film"));
            }
        }
        let is_whole = is_vod && is_ended && duration.is_none() && !media.init.is_empty();
        if is_whole && !media.segments.is_empty() {
            Ok(media)
        } else {
            Err("it does not list a whole film".to_owned())
        }
    }
}

/// `4.004000,` in microseconds.
fn microseconds(text: &str) -> Option<i64> {
    let seconds: f64 = text.split(',').next()?.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "filtered")]
    let us = Some(seconds * 1e6).filter(|us| (0.0..1e13).contains(us))?.round() as i64;
    Some(us)
}

/// A rung as the master playlist offers it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Variant {
    pub(crate) playlist: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Pictures per second, on average when they come irregularly.
    pub(crate) rate: f64,
    pub(crate) codec: String,
    pub(crate) bits: Bits,
}

/// The sound of all rungs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sound {
    pub(crate) playlist: String,
    pub(crate) channels: u32,
    pub(crate) codec: String,
    pub(crate) bits: Bits,
}

/// Bits per second of a rendition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    pub(crate) peak: u64,
    pub(crate) average: u64,
}

impl Bits {
    /// Of segments with these bytes and microseconds. The peak is that of neighbours which
    /// last at least half the target duration together (RFC 8216, 4.3.4.2): a short last segment
    /// alone says nothing.
    pub(crate) fn of(segments: &[(u64, i64)], target: u32) -> Self {
        let rate = |part: &[(u64, i64)]| {
            let bytes: u64 = part.iter().map(|(bytes, _)| bytes).sum();
            let us: i64 = part.iter().map(|(_, us)| us).sum();
            (bytes * 8_000_000).div_ceil(u64::try_from(us).unwrap_or(0).max(1))
        };
        let half_us = i64::from(target) * 500_000;
        let peaks = (0..segments.len()).filter_map(|from| {
            let mut us = 0;
            let long = segments[from..].iter().position(|(_, more)| {
                us += more;
                us >= half_us
            })?;
            Some(rate(&segments[from..=from + long]))
        });
        let average = rate(segments);
        Self { peak: peaks.max().unwrap_or(average).max(average), average }
    }
}

/// The master playlist: every rung, best first, as the first one is what many players begin
/// with; `sound` is a rendition of its own.
pub(crate) fn master(variants: &[Variant], sound: Option<&Sound>) -> String {
    let mut text = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n".to_owned();
    if let Some(Sound { playlist, channels, .. }) = sound {
        let written = writeln!(
            text,
            "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"audio\",DEFAULT=YES,\
             AUTOSELECT=YES,CHANNELS=\"{channels}\",URI=\"{playlist}\""
        );
        written.expect("writing to a String cannot fail");
    }
    let mut sorted: Vec<&Variant> = variants.iter().collect();
    sorted.sort_by_key(|variant| std::cmp::Reverse(variant.bits.peak));
    for Variant { playlist, width, height, rate, codec, bits } in sorted {
        let more = sound.map_or(Bits::default(), |sound| sound.bits);
        let (peak, average) = (bits.peak + more.peak, bits.average + more.average);
        let codecs = sound.map_or(codec.clone(), |sound| format!("{codec},{}", sound.codec));
        let group = if sound.is_some() { ",AUDIO=\"audio\"" } else { "" };
        let written = writeln!(
            text,
            "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average},\
             RESOLUTION={width}x{height},FRAME-RATE={rate:.3},CODECS=\"{codecs}\"{group}\n\
             {playlist}"
        );
        written.expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from FFmpeg 5.1.9.
    const RECORDED: &str = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:4\n\
        #EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n\
        #EXT-X-MAP:URI=\"v-init.mp4\"\n#EXTINF:4.004000,\nv-00000.m4s\n#EXTINF:1.001000,\n\
        v-00001.m4s\n#EXT-X-ENDLIST\n";

    #[test]
    fn a_media_playlist_is_read() {
        let media = Media::read(RECORDED).expect("FFmpeg wrote it");
        assert_eq!((media.target, media.init.as_str()), (4, "v-init.mp4"));
        assert!(media.is_independent);
        assert_eq!(media.text(), RECORDED);
        let listed = |name: &str, us| Listed { name: name.to_owned(), us };
        assert_eq!(
            media.segments,
            [listed("v-00000.m4s", 4_004_000), listed("v-00001.m4s", 1_001_000)]
        );
    }

    #[test]
    fn what_does_not_list_a_whole_film_is_refused() {
        for (from, to) in [
            ("#EXT-X-ENDLIST\n", ""),
            ("VOD", "EVENT"),
            ("#EXTINF:1.001000,\n", ""),
            ("#EXTINF:1.001000,", "#EXTINF:-1,"),
            ("#EXTINF:1.001000,", "#EXT-X-DISCONTINUITY\n#EXTINF:1.001000,"),
            ("#EXTINF:1.001000,", "#EXT-X-GAP\n#EXTINF:1.001000,"),
            ("#EXT-X-MAP:URI=\"v-init.mp4\"\n", ""),
            ("v-00001.m4s\n", "v-00001.m4s\n#EXT-X-MAP:URI=\"w-init.mp4\"\n"),
            ("#EXT-X-ENDLIST\n", "#EXT-X-ENDLIST\n#EXTINF:1.0,\nw.m4s\n"),
        ] {
            let text = RECORDED.replace(from, to);
            assert_ne!(text, RECORDED);
            assert!(Media::read(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_peak_is_not_that_of_a_short_last_segment() {
        let segments = [(1_000_000, 4_000_000), (2_000_000, 4_000_000), (500_000, 40_000)];
        // The last two together, as the last one is below half of four seconds.
        assert_eq!(Bits::of(&segments, 4), Bits { peak: 4_000_000, average: 3_482_588 });
        assert_eq!(Bits::of(&[(1_000, 8_000)], 4), Bits { peak: 1_000_000, average: 1_000_000 });
    }

    #[test]
    fn the_master_playlist_offers_the_best_rung_first() {
        let variant = |height, peak| Variant {
            playlist: format!("{height}p.m3u8"),
            width: height * 16 / 9,
            height,
            rate: 30_000.0 / 1001.0,
            codec: "avc1.64001f".to_owned(),
            bits: Bits { peak, average: peak / 2 },
        };
        let sound = Sound {
            playlist: "audio.m3u8".to_owned(),
            channels: 2,
            codec: "mp4a.40.2".to_owned(),
            bits: Bits { peak: 200, average: 100 },
        };
        let rungs = [variant(360, 1_000), variant(720, 4_000)];
        assert_eq!(
            master(&rungs, Some(&sound)),
            "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n\
             #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"audio\",DEFAULT=YES,\
             AUTOSELECT=YES,CHANNELS=\"2\",URI=\"audio.m3u8\"\n\
             #EXT-X-STREAM-INF:BANDWIDTH=4200,AVERAGE-BANDWIDTH=2100,RESOLUTION=1280x720,\
             FRAME-RATE=29.970,CODECS=\"avc1.64001f,mp4a.40.2\",AUDIO=\"audio\"\n720p.m3u8\n\
             #EXT-X-STREAM-INF:BANDWIDTH=1200,AVERAGE-BANDWIDTH=600,RESOLUTION=640x360,\
             FRAME-RATE=29.970,CODECS=\"avc1.64001f,mp4a.40.2\",AUDIO=\"audio\"\n360p.m3u8\n"
        );
        let silent = master(&rungs[..1], None);
        assert!(!silent.contains("AUDIO") && silent.contains("CODECS=\"avc1.64001f\"\n360p"));
    }
}
