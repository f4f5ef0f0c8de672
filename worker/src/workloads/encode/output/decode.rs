//! Whether an output can be decoded: all of it, or its first and last group of pictures. The
//! first shows that players can begin, the last that the end was written.

use super::super::arguments::{self, MEDIA_GUARD};
use super::super::classify::{self, Stderr};
use super::super::film::pictures::Pictures;
use super::super::film::probe;
use super::super::film::scan::microseconds;
use super::super::host::Host;
use super::super::payload::Check;
use super::super::progress::Meter;
use super::super::run::{self as run_ffmpeg, Files, Ran};
use super::super::tools::Tools;
use super::verify::{Made, NEARLY};
use crate::program::Lines;
use shiftboss_protocol::job::{Cause, Failure};
use std::path::Path;
use std::time::{Duration, Instant};

/// Decoding a group of pictures takes a moment; a damaged one could take for ever.
const QUICK_TIMEOUT: Duration = Duration::from_secs(120);
/// Frames and packets name the same time, rounded once.
const SAME_TIME_US: i64 = 1_000;

/// Decodes what `check` asks for; returns how many frames that were.
///
/// # Errors
/// A retryable [`Failure`] that names the output and what its decoder said.
pub(crate) fn decode(
    (host, tools): (&dyn Host, &Tools),
    path: &Path,
    made: &Made,
    (check, at, outputs): (Check, usize, usize),
) -> Result<u64, Failure> {
    let wrong = |what: String| {
        let name = &made.name;
        Failure::retryable(Cause::Error, format!("output {name} failed its check: {what}"))
    };
    let (frames, wanted, stderr) = match check {
        Check::Quick => {
            let groups = Groups::of(&made.pictures);
            let (found, stderr) = ends(host, tools, path, &groups.intervals)?;
            let frames = groups.wanted.iter().filter(|time| is_among(**time, &found)).count();
            (count(frames), count(groups.wanted.len()), stderr)
        }
        Check::Full => {
            let length_us = made.duration_ms.saturating_mul(1000);
            let mut show = |share: Option<f64>, note: &str| {
                let share = job_share(check, (at, outputs), share.unwrap_or(0.0));
                host.progress(Some(share), &format!("checking {}: {note}", made.name));
            };
            let streams = ["0:v", "0:a?"];
            let ran = to_null((host, tools), path, &streams, Some(length_us), &mut show)?;
            (ran.last.frame.unwrap_or(0), made.video.packets, ran.stderr)
        }
    };
    if stderr.errors > 0 {
        let (count, first) = (stderr.errors, stderr.first().unwrap_or("no message"));
        return Err(wrong(format!("decoders reported {count} errors, the first: {first}")));
    }
    if frames != wanted {
        return Err(wrong(format!("{frames} frames could be decoded, it holds {wanted} there")));
    }
    Ok(frames)
}

/// The share of the job when output `at` of so many is decoded up to a share of its own.
fn job_share(check: Check, (at, outputs): (usize, usize), share: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "there are at most eight outputs")]
    let done = (at as f64 + share) / outputs.max(1) as f64;
    check.begin() + (NEARLY - check.begin()) * done
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Whether a sorted list has this time.
fn is_among(time: i64, times: &[i64]) -> bool {
    let next = times.partition_point(|other| *other < time - SAME_TIME_US);
    times.get(next).is_some_and(|other| *other <= time + SAME_TIME_US)
}

/// The first and the last group of pictures.
#[derive(Debug, PartialEq)]
struct Groups {
    /// As ffprobe is asked for them.
    intervals: String,
    /// When their pictures are shown.
    wanted: Vec<i64>,
}

impl Groups {
    /// Of pictures that are sorted.
    fn of(pictures: &Pictures) -> Self {
        let times = &pictures.times_us;
        let all = || Self { intervals: "%".to_owned(), wanted: times.clone() };
        let ([_, second, _, ..], Some(last)) = (&pictures.keys_us[..], pictures.keys_us.last())
        else {
            return all();
        };
        let first = times.partition_point(|time| time < second);
        let tail = times.partition_point(|time| time < last);
        // By number of packets: the end by time would be found by the first packet beyond it,
        // which comes before pictures that are shown earlier.
        let begin_us = last + SAME_TIME_US;
        if begin_us < 0 {
            return all();
        }
        let intervals = format!("%+#{first},{}.{:06}%", begin_us / 1_000_000, begin_us % 1_000_000);
        Self { intervals, wanted: times[..first].iter().chain(&times[tail..]).copied().collect() }
    }
}

/// Decodes intervals of the pictures; gives the times of the frames, sorted.
fn ends(
    host: &dyn Host,
    tools: &Tools,
    path: &Path,
    intervals: &str,
) -> Result<(Vec<i64>, Stderr), Failure> {
    #[derive(Default)]
    struct Frames {
        times_us: Vec<i64>,
        stderr: Stderr,
    }
    impl Lines for Frames {
        fn on_stdout(&mut self, line: &[u8]) {
            let line = String::from_utf8_lossy(line);
            let mut fields = line.split('|').filter_map(|field| field.split_once('='));
            let time = fields.find(|(key, _)| *key == "pts_time");
            self.times_us.extend(time.and_then(|(_, value)| microseconds(value)));
        }
        fn on_stderr(&mut self, line: &[u8]) {
            self.stderr.on_line(line);
        }
    }
    let mut frames = Frames::default();
    let what = ["-of", "compact=p=0", "-select_streams", "v:0", "-show_entries", "frame=pts_time"];
    let arguments = [&what[..], &["-read_intervals", intervals]].concat();
    let mut program = probe::ffprobe((host, tools), MEDIA_GUARD, &arguments, path);
    program.timeout = Some(QUICK_TIMEOUT);
    let ended = host.run(&program, &mut frames)?;
    match classify::failure("ffprobe", path, &ended, &frames.stderr) {
        // It is ours, and can be made again.
        Some(failure) => Err(Failure { permanent: false, ..failure }),
        None => {
            frames.times_us.sort_unstable();
            Ok((frames.times_us, frames.stderr))
        }
    }
}

/// Decodes these streams of a file to its end, and throws the frames away. `show` gets the share
/// of the length, microseconds, where it is known, and a note.
///
/// # Errors
/// The [`Failure`] of FFmpeg.
pub(crate) fn to_null(
    (host, tools): (&dyn Host, &Tools),
    path: &Path,
    streams: &[&str],
    length_us: Option<u64>,
    show: &mut (dyn FnMut(Option<f64>, &str) + Send),
) -> Result<Ran, Failure> {
    let mut command = arguments::command(&tools.ffmpeg);
    command.args(MEDIA_GUARD).input(path);
    for stream in streams {
        command.map(stream);
    }
    // Every frame counts once, at whatever time it comes.
    command.args(["-fps_mode", "passthrough"]).format("null").output("-");
    let argv = arguments::words(command);
    let (began, mut meter) = (Instant::now(), Meter::new(length_us));
    run_ffmpeg::ffmpeg(host, Files::only(path), argv, &mut |block| {
        let (fraction, note) = meter.report(began.elapsed(), block, 0);
        show(fraction, &format!("decoding, {note}"));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures(frames: i64, group: i64) -> Pictures {
        let mut pictures = Pictures::of(0);
        for frame in 0..frames {
            pictures.on_packet(0, Some(frame * 40_000), frame % group == 0);
        }
        pictures
    }

    #[test]
    fn the_ends_of_a_long_film_are_its_first_and_last_group() {
        let groups = Groups::of(&pictures(260, 50));
        assert_eq!(groups.intervals, "%+#50,10.001000%");
        assert_eq!(
            (groups.wanted.len(), groups.wanted[49], groups.wanted[50]),
            (60, 1_960_000, 10_000_000)
        );
    }

    #[test]
    fn a_short_film_is_its_own_ends() {
        for frames in [1, 50, 51, 100] {
            let groups = Groups::of(&pictures(frames, 50));
            assert_eq!(
                (groups.intervals.as_str(), count(groups.wanted.len())),
                ("%", frames.unsigned_abs())
            );
        }
        assert_eq!(Groups::of(&pictures(0, 50)).wanted, Vec::<i64>::new());
    }

    #[test]
    fn decoding_fills_what_encoding_left() {
        assert!((job_share(Check::Full, (0, 3), 0.0) - 0.92).abs() < 1e-9);
        assert!((job_share(Check::Full, (1, 2), 0.0) - (0.92 + NEARLY) / 2.0).abs() < 1e-9);
        assert!((job_share(Check::Full, (2, 3), 1.0) - NEARLY).abs() < 1e-9);
    }

    #[test]
    fn times_are_found_within_a_rounding() {
        let times = [0, 40_000, 80_000];
        assert!(is_among(40_001, &times) && is_among(39_999, &times) && is_among(0, &times));
        assert!(!is_among(60_000, &times) && !is_among(120_000, &times));
    }
}
