//! The packets of a file as ffprobe lists them: how many there are, when the first and last
//! are shown, where the keyframes lie. Pure: lines in, numbers out.
//!
//! Packets are the only proof of how much of a film a file holds: headers promise, and a cut
//! file still has its header.

use super::pictures::Pictures;
use std::collections::BTreeMap;

/// How ffprobe must be asked.
pub(crate) const ENTRIES: &str = "packet=stream_index,pts_time,dts_time,duration_time,flags";

/// How a stream looks to a player. Profile and level are left out: they are a part of the set-up.
pub(crate) const LOOKS: &str = "width,height,sample_aspect_ratio,pix_fmt,color_range,color_space,\
                                color_transfer,color_primaries";

/// More streams and keyframes than this are not kept: a bound for hostile files.
const TRACKS_MAX: usize = 256;
const KEYFRAMES_MAX: usize = 200_000;
/// From here on FFmpeg takes a gap in MPEG-TS for a break of the clock and closes it.
const BREAK_US: i64 = 10_000_000;
/// No packet is shown for longer than a day.
const SHOWN_MAX_US: i64 = 86_400_000_000;
/// No coder of sound needs more before it is heard: MP3 has 1,105 samples, at 8 kHz 138 ms.
const DELAY_MAX_US: i64 = 500_000;

/// All packets of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scan {
    pub(crate) tracks: BTreeMap<u32, Track>,
    /// What the container's reader said about an early end of the file.
    pub(crate) cut: Option<String>,
    /// Largest time shown so far, microseconds.
    pub(crate) reached_us: i64,
    /// Packets that begin between two ticks of the clock of [`Scan::with_clock`].
    pub(crate) off_clock: u64,
    /// When each picture of the stream of [`Scan::with_clock`] is shown.
    pub(crate) pictures: Pictures,
    /// A hash of the decoder's set-up, where ffprobe was asked for it.
    pub(crate) set_up: Option<String>,
    /// What ffprobe says of [`LOOKS`], where it was asked for them.
    pub(crate) looks: String,
    clock: Option<Clock>,
}

/// The frame rate that a stream claims.
#[derive(Clone, Copy, Debug)]
struct Clock {
    stream: u32,
    rate: f64,
    started_us: Option<i64>,
}

impl Clock {
    /// Snapping to the nearest tick would move this packet by more than a quarter of a frame,
    /// and could put two packets on one tick.
    fn is_off(&mut self, begin_us: i64) -> bool {
        let started_us = *self.started_us.get_or_insert(begin_us);
        #[expect(clippy::cast_precision_loss, reason = "times are below 2^52 microseconds")]
        let ticks = (begin_us - started_us) as f64 * self.rate / 1e6;
        (ticks - ticks.round()).abs() > 0.25
    }
}

/// The packets of one stream. Times are microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Track {
    pub(crate) packets: u64,
    /// Packets that are shown, from the first keyframe on: what a decoder can make of them.
    pub(crate) decodable: u64,
    /// When the first and the last packet that is shown begin.
    pub(crate) first_us: Option<i64>,
    /// When what is heard begins, where the container says that a coder's delay comes before.
    pub(crate) heard_us: Option<i64>,
    /// The same of the first one from the first keyframe on.
    pub(crate) decodable_us: Option<i64>,
    pub(crate) last_us: Option<i64>,
    /// When the last one ends.
    pub(crate) end_us: Option<i64>,
    /// When keyframes begin, in file order.
    pub(crate) keyframes_us: Vec<i64>,
    /// Times at which the clock jumped.
    pub(crate) breaks: u64,
    /// Packets that the container's reader flagged as damaged.
    pub(crate) damaged: u64,
    /// Packets whose turn to be decoded lies before that of their predecessor.
    pub(crate) disordered: u64,
    decoded_us: Option<i64>,
    /// There was a keyframe, shown or not: what follows can be decoded.
    has_keyframe: bool,
}

impl Track {
    /// Its times say how long it is: the clock neither jumps nor begins anew.
    pub(crate) fn has_steady_clock(&self) -> bool {
        self.breaks == 0 && self.disordered == 0
    }

    /// From the begin of the first frame that can be decoded to the begin of the last one. The
    /// last frame's duration is left out: containers round or forget it.
    pub(crate) fn span_us(&self) -> Option<i64> {
        Some(self.last_us? - self.decodable_us?)
    }
}

impl Scan {
    /// A scan that compares the times of `stream` with its frame rate.
    pub(crate) fn with_clock(stream: u32, rate: Option<f64>) -> Self {
        let clock = rate.map(|rate| Clock { stream, rate, started_us: None });
        Self { clock, pictures: Pictures::of(stream), ..Self::default() }
    }

    /// Takes a line of `ffprobe -of compact=p=0`. Lines of other kinds are ignored.
    pub(crate) fn on_stdout(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let mut packet = Packet::default();
        let mut stream = None;
        for (key, value) in line.split('|').filter_map(|field| field.split_once('=')) {
            match key {
                "stream_index" => stream = value.parse::<u32>().ok(),
                "pts_time" => packet.pts_us = microseconds(value),
                "dts_time" => packet.dts_us = microseconds(value),
                "duration_time" => packet.duration_us = microseconds(value),
                "flags" => packet.flags = value.to_owned(),
                "extradata_hash" => self.set_up = Some(value.to_owned()),
                _ if LOOKS.split(',').any(|look| look == key) => {
                    self.looks.push_str(&format!("{key}={value} "));
                }
                _ => {}
            }
        }
        let Some(stream) = stream else { return };
        if let Some(clock) = self.clock.as_mut().filter(|clock| clock.stream == stream)
            && let Some(begin_us) = packet.pts_us
        {
            self.off_clock += u64::from(clock.is_off(begin_us));
        }
        if !packet.flags.contains('D') {
            self.pictures.on_packet(stream, packet.pts_us, packet.flags.contains('K'));
        }
        if self.tracks.len() < TRACKS_MAX || self.tracks.contains_key(&stream) {
            let track = self.tracks.entry(stream).or_default();
            track.on_packet(&packet);
            self.reached_us = self.reached_us.max(track.end_us.unwrap_or(0));
        }
    }

    /// Takes a line of ffprobe's standard error.
    pub(crate) fn on_stderr(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        // The words of FFmpeg's MP4 and Matroska readers, the same in 5.1 and 9.0.
        for words in ["partial file", "File ended prematurely"] {
            if line.contains(words) {
                self.cut = Some(words.to_lowercase());
            }
        }
    }

    /// Takes over what a container says of its streams' begins, where it is a little after that
    /// of the first packet: what a coder put before its sound is not heard. FFmpeg 9.0 says so of
    /// Matroska too, where 5.1 plays the delay.
    pub(crate) fn take_begins(&mut self, begins: impl Iterator<Item = (u32, i64)>) {
        for (stream, begin_us) in begins {
            if let Some(track) = self.tracks.get_mut(&stream)
                && let Some(first) = track.first_us
                && (1..=DELAY_MAX_US).contains(&(begin_us - first))
            {
                track.heard_us = Some(begin_us);
            }
        }
    }

    /// When the last packet of any stream ends, counted from the first packet or from 0,
    /// whichever is later: containers differ in where they count from.
    pub(crate) fn end_us(&self) -> i64 {
        let first = self.tracks.values().filter_map(|track| track.first_us).min().unwrap_or(0);
        let end = self.tracks.values().filter_map(|track| track.end_us).max().unwrap_or(0);
        end.max(end - first)
    }

    /// From the first packet's begin to the last one's end, over all streams.
    pub(crate) fn length_us(&self) -> i64 {
        let first = self.tracks.values().filter_map(|track| track.first_us).min().unwrap_or(0);
        self.tracks.values().filter_map(|track| track.end_us).max().unwrap_or(0) - first
    }
}

#[derive(Default)]
struct Packet {
    pts_us: Option<i64>,
    dts_us: Option<i64>,
    duration_us: Option<i64>,
    flags: String,
}

impl Track {
    fn on_packet(&mut self, packet: &Packet) {
        self.packets += 1;
        let is_key = packet.flags.contains('K');
        self.damaged += u64::from(packet.flags.contains('C'));
        if let (Some(before), Some(now)) = (self.decoded_us, packet.dts_us) {
            self.breaks += u64::from((now - before).abs() > BREAK_US);
            self.disordered += u64::from(now < before);
        }
        self.decoded_us = packet.dts_us.or(self.decoded_us);
        self.has_keyframe |= is_key;
        // An edit list discards packets that are decoded only because others need them.
        if packet.flags.contains('D') {
            return;
        }
        let is_decodable = self.has_keyframe;
        self.decodable += u64::from(is_decodable);
        let Some(begin) = packet.pts_us.or(packet.dts_us) else { return };
        if is_decodable {
            self.decodable_us = Some(self.decodable_us.map_or(begin, |first| first.min(begin)));
        }
        // A picture of a slide show may be shown for long.
        let end = begin + packet.duration_us.unwrap_or(0).clamp(0, SHOWN_MAX_US);
        self.first_us = Some(self.first_us.map_or(begin, |first| first.min(begin)));
        self.last_us = Some(self.last_us.map_or(begin, |last| last.max(begin)));
        self.end_us = Some(self.end_us.map_or(end, |last| last.max(end)));
        if is_key && self.keyframes_us.len() < KEYFRAMES_MAX {
            self.keyframes_us.push(begin);
        }
    }
}

/// Seconds as text in whole microseconds.
pub(crate) fn microseconds(seconds: &str) -> Option<i64> {
    let microseconds = seconds.parse::<f64>().ok()? * 1e6;
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the condition")]
    let whole = microseconds.round() as i64;
    (microseconds.abs() < 1e15).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(lines: &[&str]) -> Scan {
        let mut scan = Scan::default();
        lines.iter().for_each(|line| scan.on_stdout(line.as_bytes()));
        scan
    }

    #[test]
    fn packets_are_counted_per_stream_and_measured() {
        let scan = scan(&[
            "stream_index=0|pts_time=0.000000|dts_time=-0.066667|duration_time=0.033333|flags=K_",
            "stream_index=1|pts_time=0.000000|dts_time=0.000000|duration_time=0.023220|flags=K_|",
            "",
            "stream_index=0|pts_time=0.100000|dts_time=-0.033333|duration_time=0.033333|flags=__",
            "stream_index=0|pts_time=0.033333|dts_time=0.000000|duration_time=0.033333|flags=___",
        ]);
        let video = &scan.tracks[&0];
        assert_eq!((video.packets, video.decodable, video.breaks), (3, 3, 0));
        assert_eq!(video.span_us(), Some(100_000));
        assert_eq!(video.end_us, Some(133_333));
        assert_eq!(video.keyframes_us, [0]);
        assert_eq!((scan.tracks[&1].packets, scan.end_us()), (1, 133_333));
    }

    #[test]
    fn sound_is_heard_once_its_coder_has_set_out() {
        let lines = [
            "stream_index=0|pts_time=0.0|dts_time=0.0|duration_time=0.1|flags=K_",
            "stream_index=1|pts_time=-0.138|dts_time=-0.138|duration_time=0.072|flags=K_",
        ];
        for (begin_us, heard_us) in [(0, Some(0)), (-138_000, None), (900_000, None)] {
            let mut scan = scan(&lines);
            scan.take_begins([(0, 0), (1, begin_us), (7, 0)].into_iter());
            assert_eq!((scan.tracks[&0].heard_us, scan.tracks[&1].heard_us), (None, heard_us));
        }
    }

    #[test]
    fn packets_before_the_first_keyframe_are_not_decodable() {
        let scan = scan(&[
            "stream_index=0|pts_time=0.0|dts_time=0.0|duration_time=0.1|flags=__",
            "stream_index=0|pts_time=0.1|dts_time=0.1|duration_time=0.1|flags=K_",
            "stream_index=0|pts_time=0.2|dts_time=0.2|duration_time=0.1|flags=__C",
        ]);
        let video = &scan.tracks[&0];
        assert_eq!((video.packets, video.decodable, video.damaged), (3, 2, 1));
        assert_eq!((video.first_us, video.span_us()), (Some(0), Some(100_000)));
    }

    #[test]
    fn what_follows_a_keyframe_that_an_edit_list_hides_is_decodable() {
        let scan = scan(&[
            "stream_index=0|pts_time=-0.1|dts_time=-0.1|duration_time=0.1|flags=KD",
            "stream_index=0|pts_time=0.0|dts_time=0.0|duration_time=0.1|flags=__",
            "stream_index=0|pts_time=0.1|dts_time=0.1|duration_time=0.1|flags=__",
        ]);
        let video = &scan.tracks[&0];
        assert_eq!((video.packets, video.decodable), (3, 2));
        assert_eq!((video.first_us, video.span_us()), (Some(0), Some(100_000)));
    }

    #[test]
    fn a_clock_that_jumps_is_noticed() {
        let scan = scan(&[
            "stream_index=0|pts_time=95000.0|dts_time=95000.0|flags=K_",
            "stream_index=0|pts_time=1.0|dts_time=1.0|flags=K_",
        ]);
        assert_eq!(scan.tracks[&0].breaks, 1);
    }

    #[test]
    fn packets_beside_the_clock_are_counted() {
        let mut scan = Scan::with_clock(0, Some(10.0));
        // The container rounds, a frame is missing, and one is late by 0.4 frames.
        for time in ["0.5", "0.601", "0.8", "0.94", "1.0"] {
            scan.on_stdout(format!("stream_index=0|pts_time={time}|flags=K_").as_bytes());
            scan.on_stdout(format!("stream_index=1|pts_time={time}5|flags=K_").as_bytes());
        }
        assert_eq!(scan.off_clock, 1);
    }

    #[test]
    fn missing_times_and_strange_lines_do_no_harm() {
        let scan = scan(&[
            "stream_index=0|pts_time=N/A|dts_time=0.5|duration_time=N/A|flags=K_",
            "stream_index=0|pts_time=1e300|dts_time=nan|duration_time=-9|flags=K_",
            "stream_index=-1|pts_time=5",
            "\u{fffd}|=|||",
        ]);
        assert_eq!(scan.tracks[&0].packets, 2);
        assert_eq!(scan.tracks[&0].end_us, Some(500_000));
    }

    #[test]
    fn the_number_of_streams_is_bounded() {
        let mut scan = Scan::default();
        for stream in 0..1000 {
            scan.on_stdout(format!("stream_index={stream}|pts_time=1|flags=K_").as_bytes());
        }
        assert_eq!(scan.tracks.len(), TRACKS_MAX);
    }
}
