//! FFmpeg's `-progress` blocks, and what people are told from them.
//!
//! Pure: the caller brings lines, the time and the sizes of the files. The blocks are the same
//! in FFmpeg 5.1 and 9.0, unlike the statistics on standard error.

use std::fmt::Write as _;
use std::time::Duration;

/// Weight of the newest speed in the average from which the remaining time follows.
const NEWEST: f64 = 0.3;
/// A film is done only when it is verified: until then it is never shown as whole.
const FRACTION_MAX: f64 = 0.999;

/// One block. What FFmpeg does not know yet (`N/A`) is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Block {
    /// Frames given to the first output's encoder.
    pub(super) frame: Option<u64>,
    pub(super) fps: Option<f64>,
    /// How far the outputs are, microseconds of film.
    pub(super) out_time_us: Option<u64>,
    pub(super) dup_frames: u64,
    pub(super) drop_frames: u64,
    /// Seconds of film per second since the start.
    pub(super) speed: Option<f64>,
    /// The last one of a run.
    pub(super) is_last: bool,
}

/// Puts blocks together from lines.
#[derive(Clone, Debug, Default)]
pub(super) struct Parser {
    block: Block,
}

impl Parser {
    /// Takes a line; gives the block that it ends.
    pub(super) fn on_line(&mut self, line: &[u8]) -> Option<Block> {
        let line = std::str::from_utf8(line).ok()?;
        let (key, value) = line.split_once('=')?;
        let value = value.trim();
        match key.trim() {
            "frame" => self.block.frame = value.parse().ok(),
            "fps" => self.block.fps = positive(value),
            // `out_time_ms` is in microseconds too, for historical reasons; before the first
            // frame both can be `N/A` or below 0.
            "out_time_us" => self.block.out_time_us = value.parse().ok(),
            "dup_frames" => self.block.dup_frames = value.parse().unwrap_or(0),
            "drop_frames" => self.block.drop_frames = value.parse().unwrap_or(0),
            "speed" => self.block.speed = positive(value.trim_end_matches('x')),
            "progress" => {
                self.block.is_last = value == "end";
                return Some(std::mem::take(&mut self.block));
            }
            _ => {}
        }
        None
    }
}

/// Whether a line is one of a block: what [`Parser`] reads, and what stands beside it.
pub(super) fn is_number(line: &[u8]) -> bool {
    let Some((key, _)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once('='))
    else {
        return false;
    };
    let is_quality = key.starts_with("stream_") && key.ends_with("_q");
    let size = ["bitrate", "total_size", "out_time", "out_time_ms", "out_time_us"];
    let rest = ["frame", "fps", "dup_frames", "drop_frames", "speed", "progress"];
    is_quality || size.contains(&key) || rest.contains(&key)
}

fn positive(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0)
}

/// Turns blocks into what people see.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    /// How long the outputs will be, microseconds, when that is known.
    expected_us: Option<u64>,
    speed: Option<f64>,
    before: Option<(Duration, u64)>,
}

impl Meter {
    pub(super) fn new(expected_us: Option<u64>) -> Self {
        Self { expected_us: expected_us.filter(|us| *us > 0), speed: None, before: None }
    }

    /// Fraction and note for a block that came `now` after the start, when all outputs
    /// together had `bytes`. FFmpeg's own `total_size` counts the first output only.
    pub(super) fn report(
        &mut self,
        now: Duration,
        block: &Block,
        bytes: u64,
    ) -> (Option<f64>, String) {
        self.learn(now, block);
        let fraction = self
            .expected_us
            .zip(block.out_time_us)
            .map(|(expected, out)| (as_float(out) / as_float(expected)).clamp(0.0, FRACTION_MAX));
        (fraction, self.note(block, bytes))
    }

    /// The speed between two blocks follows a machine that becomes busy; FFmpeg's own is the
    /// average since the start.
    fn learn(&mut self, now: Duration, block: &Block) {
        let Some(out) = block.out_time_us else { return };
        let newest = self.before.and_then(|(before, out_before)| {
            let seconds = now.saturating_sub(before).as_secs_f64();
            (seconds > 0.05 && out >= out_before)
                .then(|| as_float(out - out_before) / 1e6 / seconds)
        });
        self.speed = match (self.speed, newest) {
            (Some(speed), Some(newest)) => Some(speed + NEWEST * (newest - speed)),
            (None, Some(newest)) => Some(block.speed.unwrap_or(newest)),
            (speed, None) => speed.or(block.speed),
        };
        self.before = Some((now, out));
    }

    fn note(&self, block: &Block, bytes: u64) -> String {
        let mut parts = Vec::new();
        if let Some(fps) = block.fps {
            parts.push(format!("{fps:.1} fps"));
        }
        if let Some(out) = block.out_time_us.filter(|out| *out > 0 && bytes > 0) {
            parts.push(rate_text(as_float(bytes) * 8.0 * 1e6 / as_float(out)));
        }
        let size = (bytes > 0).then(|| size_text(bytes));
        let speed = self.speed.filter(|speed| *speed > 0.000_1);
        if let Some(speed) = speed {
            parts.push(if speed < 0.1 {
                format!("speed {speed:.3}x")
            } else {
                format!("speed {speed:.1}x")
            });
        }
        match (self.expected_us, block.out_time_us, speed) {
            (Some(expected), Some(out), Some(speed)) => {
                let seconds = as_float(expected.saturating_sub(out)) / 1e6 / speed;
                parts.push(format!("eta {}", time_text(seconds)));
            }
            // Without a length there is no share and no end in sight: what is done is shown.
            (None, Some(out), _) => parts.push(format!("{} done", time_text(as_float(out) / 1e6))),
            (Some(_), _, _) | (None, None, _) => {}
        }
        parts.extend(size);
        if parts.is_empty() { "starting".to_owned() } else { parts.join(", ") }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn as_float(number: u64) -> f64 {
    number as f64
}

fn rate_text(bits_per_second: f64) -> String {
    if bits_per_second < 1e6 {
        format!("{:.0} kbit/s", bits_per_second / 1e3)
    } else {
        format!("{:.1} Mbit/s", bits_per_second / 1e6)
    }
}

/// `512 kB`, `3.1 MB`, `1.2 GB`.
pub(super) fn size_text(bytes: u64) -> String {
    match as_float(bytes) {
        bytes if bytes < 1e6 => format!("{:.0} kB", bytes / 1e3),
        bytes if bytes < 1e9 => format!("{:.1} MB", bytes / 1e6),
        bytes => format!("{:.2} GB", bytes / 1e9),
    }
}

/// `12s`, `3m20s`, `1h02m`.
pub(super) fn time_text(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let whole = seconds.clamp(0.0, 1e9).round() as u64;
    let mut text = String::new();
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    let written = match (hours, minutes) {
        (0, 0) => write!(text, "{seconds}s"),
        (0, minutes) => write!(text, "{minutes}m{seconds:02}s"),
        (hours, minutes) => write!(text, "{hours}h{minutes:02}m"),
    };
    written.expect("writing to a String cannot fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    // Recorded from FFmpeg 5.1.9; the keys are padded with spaces in `bitrate` and `speed`.
    const RECORDED: &str = "frame=184\nfps=91.65\nstream_0_0_q=27.0\nstream_1_0_q=26.0\n\
        bitrate= 512.3kbits/s\ntotal_size=262192\nout_time_us=4093968\nout_time_ms=4093968\n\
        out_time=00:00:04.093968\ndup_frames=1\ndrop_frames=2\nspeed=2.04x\nprogress=continue\n";
    // The first block of FFmpeg 9.0.2, before any packet was written.
    const RECORDED_FIRST: &str = "frame=0\nfps=0.00\nstream_0_0_q=0.0\nbitrate=N/A\n\
        total_size=0\nout_time_us=N/A\nout_time_ms=N/A\nout_time=N/A\ndup_frames=0\n\
        drop_frames=0\nspeed=N/A\nprogress=continue\n";

    fn blocks(text: &str) -> Vec<Block> {
        let mut parser = Parser::default();
        text.lines().filter_map(|line| parser.on_line(line.as_bytes())).collect()
    }

    #[test]
    fn a_block_is_read_whole() {
        let expected = Block {
            frame: Some(184),
            fps: Some(91.65),
            out_time_us: Some(4_093_968),
            dup_frames: 1,
            drop_frames: 2,
            speed: Some(2.04),
            is_last: false,
        };
        assert_eq!(blocks(RECORDED), [expected]);
        assert!(blocks("frame=9\nprogress=end\n")[0].is_last);
    }

    #[test]
    fn every_line_of_a_block_is_a_number_and_nothing_else_is() {
        let lines = RECORDED.lines().chain(RECORDED_FIRST.lines());
        assert!(lines.clone().count() > 20 && lines.map(str::as_bytes).all(is_number));
        let others: [&[u8]; 5] = [b"", b"frame", b"title=a film", b"{\"a\":\"=\"}", b"fps\xff=1"];
        assert!(!others.into_iter().any(is_number));
    }

    #[test]
    fn values_that_are_not_known_yet_are_none() {
        let first = &blocks(RECORDED_FIRST)[0];
        assert_eq!((first.frame, first.fps, first.out_time_us), (Some(0), None, None));
        let negative = &blocks("out_time_us=-23220\nspeed=inf\nprogress=continue\n")[0];
        assert_eq!((negative.out_time_us, negative.speed), (None, None));
        let report = Meter::new(Some(1_000_000)).report(Duration::ZERO, first, 0);
        assert_eq!(report, (None, "starting".to_owned()));
    }

    #[test]
    fn noise_makes_no_block() {
        assert_eq!(blocks("hello\n=\nframe\n\n"), []);
        assert_eq!(Parser::default().on_line(b"frame=\xff\xfe"), None);
    }

    #[test]
    fn the_note_says_rate_speed_and_remaining_time() {
        let mut meter = Meter::new(Some(28_000_000));
        let block = &blocks(RECORDED)[0];
        let (fraction, note) = meter.report(Duration::from_secs(2), block, 1_074_667);
        assert_eq!(note, "91.7 fps, 2.1 Mbit/s, speed 2.0x, eta 12s, 1.1 MB");
        assert!((fraction.expect("the length is known") - 0.1462).abs() < 0.001);
    }

    #[test]
    fn a_film_that_slows_down_is_followed() {
        let mut meter = Meter::new(Some(100_000_000));
        let at = |out_time_us| Block { out_time_us: Some(out_time_us), ..Block::default() };
        for second in 0..10 {
            meter.report(Duration::from_secs(second), &at(second * 4_000_000), 0);
        }
        assert!((meter.speed.expect("learnt") - 4.0).abs() < 0.01);
        for second in 10..30 {
            meter.report(
                Duration::from_secs(second),
                &at(36_000_000 + (second - 9) * 1_000_000),
                0,
            );
        }
        assert!((meter.speed.expect("learnt") - 1.0).abs() < 0.05);
    }

    #[test]
    fn nothing_is_whole_before_it_is_verified() {
        let mut meter = Meter::new(Some(1_000_000));
        let block = Block { out_time_us: Some(2_000_000), ..Block::default() };
        assert_eq!(meter.report(Duration::ZERO, &block, 0).0, Some(FRACTION_MAX));
    }

    #[test]
    fn an_unknown_length_gives_no_fraction() {
        let mut meter = Meter::new(None);
        let (fraction, note) = meter.report(Duration::ZERO, &blocks(RECORDED)[0], 0);
        assert_eq!(fraction, None);
        assert_eq!(note, "91.7 fps, speed 2.0x, 4s done");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(size_text(512_300), "512 kB");
        assert_eq!(size_text(3_140_000), "3.1 MB");
        assert_eq!(size_text(1_234_000_000), "1.23 GB");
    }

    #[test]
    fn times_are_short() {
        assert_eq!(time_text(11.6), "12s");
        assert_eq!(time_text(200.0), "3m20s");
        assert_eq!(time_text(3725.0), "1h02m");
        assert_eq!(time_text(f64::INFINITY), "277777h46m");
    }
}
