//! What FFmpeg's and ffprobe's standard error means: the sentence that people read, and
//! whether another attempt can help.
//!
//! Exit codes do not tell: they differ between versions, and 0 is no success by itself.

use super::film::foreign::what_is;
use super::host::stopped;
use crate::program::Ended;
use ffmpeg_sidecar::event::{FfmpegEvent, LogLevel};
use ffmpeg_sidecar::log_parser::FfmpegLogParser;
use shiftboss_protocol::job::{Cause, Failure};
use std::path::Path;

/// Distinct error lines kept from the beginning; the cause is mostly among the first.
const LINES_MAX: usize = 12;
/// Longest line kept, characters.
const LINE_CHARS_MAX: usize = 300;

/// Standard error of one run at `-loglevel level+...`.
#[derive(Clone, Debug, Default)]
pub(super) struct Stderr {
    /// Error and fatal lines, without repeats, cleaned of addresses.
    lines: Vec<String>,
    /// All error and fatal lines.
    pub(super) errors: u64,
    /// Those of them that a decoder prints when it begins in the middle of a film.
    cold: u64,
    /// The last error line.
    last: Option<String>,
}

impl Stderr {
    pub(super) fn on_line(&mut self, line: &[u8]) {
        let Ok(FfmpegEvent::Log(level, text)) = FfmpegLogParser::new(line).parse_next_event()
        else {
            return;
        };
        match level {
            LogLevel::Error | LogLevel::Fatal => {}
            // Lines without a level are the second half of a message, or another library's.
            LogLevel::Unknown | LogLevel::Warning | LogLevel::Info => return,
        }
        self.errors += 1;
        let line = clean(&text);
        self.cold += u64::from(is_cold(&line));
        if self.lines.len() < LINES_MAX && !self.lines.contains(&line) {
            self.lines.push(line.clone());
        }
        self.last = Some(line);
    }

    /// The first thing that went wrong, in FFmpeg's words.
    pub(super) fn first(&self) -> Option<&str> {
        self.lines.first().map(String::as_str)
    }

    /// The same for a run that began in the middle of a film: how many errors are about what it
    /// read, and the first of them.
    pub(super) fn within(&self) -> (u64, Option<&str>) {
        let first = self.lines.iter().find(|line| !is_cold(line));
        (self.errors - self.cold, first.map(String::as_str))
    }

    /// The last one, which mostly sums up.
    pub(super) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// What hardware said, if that is why the run failed.
    pub(super) fn encoder_lost(&self) -> Option<&str> {
        let is_lost = |line: &&String| ENCODER_LOST.iter().any(|words| line.contains(words));
        self.lines.iter().chain(&self.last).find(is_lost).map(String::as_str)
    }

    /// The reader that was not allowed: `image2: Format not on whitelist ...`.
    fn refused_reader(&self) -> Option<&str> {
        let refused = |line: &String| line.contains(": Format not on whitelist");
        self.lines.iter().find(|line| refused(line))?.split(':').next()
    }

    /// `AVFilterGraph: No such filter: 'zscale'`.
    fn missing_filter(&self) -> Option<&str> {
        let named = self.lines.iter().find_map(|line| line.split_once("No such filter: '"))?.1;
        named.strip_suffix('\'')
    }

    fn has(&self, words: &str) -> bool {
        self.lines.iter().chain(&self.last).any(|line| line.contains(words))
    }
}

/// What decoders say about the pictures before the first keyframe that is whole for them, and
/// about references to what they have not seen. All such pictures lie before a chunk.
const COLD: &[&str] = &[
    "mmco: unref short failure",
    "co located POCs unavailable",
    "eference picture",
    "number of reference frames",
    "rame num gap",
    "non-existing PPS",
    "non-existing SPS",
    "PPS id out of range",
    "SPS id out of range",
    "decode_slice_header error",
    "no frame!",
    "Could not find ref with POC",
    "Error constructing the frame RPS",
    "Skipping invalid undecodable NALU",
    "First slice in a frame missing",
    "Invalid frame dimensions 0x0",
];

/// Words about an encoder or its device, in which FFmpeg tells that hardware refused or vanished.
/// Some are quoted from reports of users, others are from memory; none was recorded on hardware.
const ENCODER_LOST: &[&str] = &[
    "OpenEncodeSessionEx failed",
    "No capable devices found",
    "Device creation failed",
    "CUDA_ERROR_",
    "Cannot load libcuda",
    "No VA display found",
    "Error while opening encoder",
    "Failed to create hwupload",
    "hwupload",
    "Impossible to convert between the formats",
    "Error initializing an internal MFX session",
    "Failed to create encode pipeline",
    "Failed to initialise VAAPI connection",
    "Failed to end picture encode issue",
];

fn is_cold(line: &str) -> bool {
    COLD.iter().any(|words| line.contains(words))
}

/// `[h264 @ 0x55d1] [error] no frame!` becomes `h264: no frame!`.
fn clean(line: &str) -> String {
    let mut rest = line.trim();
    let mut source = None;
    while let Some((tag, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        if let Some((name, _address)) = tag.split_once(" @ ") {
            source = source.or(Some(name));
        } else if !matches!(tag, "error" | "fatal" | "panic") {
            break;
        }
        rest = after.trim_start();
    }
    let text = match source {
        Some(name) if name != "NULL" => format!("{name}: {rest}"),
        Some(_) | None => rest.to_owned(),
    };
    text.chars().take(LINE_CHARS_MAX).collect()
}

/// Words of FFmpeg for what another attempt may not meet again.
const PASSING: &[(&str, &str)] = &[
    ("No space left on device", "the disk is full"),
    ("Disk quota exceeded", "the disk quota is used up"),
    ("Cannot allocate memory", "memory ran out"),
    // Of a decoder; what fails next is often a thread, for want of memory too.
    ("get_buffer() failed", "memory ran out"),
    ("Input/output error", "a disk or a file server failed"),
    ("Resource temporarily unavailable", "the limit of processes or threads was reached"),
    ("Too many open files", "the limit of open files was reached"),
];

/// Words for what every attempt would meet, about the input.
const LASTING: &[(&str, &str)] = &[
    ("moov atom not found", "it is truncated or no film: its index (the moov atom) is missing"),
    ("Format not on whitelist", "its format is none that a film may have here"),
    ("Invalid data found when processing input", "it is no film, or its header is damaged"),
    ("Protocol not on whitelist", "it refers to other files, which is refused"),
    ("Permission denied", "the supervisor's user may not read it"),
    ("No such file or directory", "it does not exist"),
    ("Is a directory", "it is a folder"),
    ("Could not find codec parameters", "it is truncated or damaged: a stream has no parameters"),
    ("does not contain any stream", "it holds no stream"),
    ("matches no streams", "the video stream is missing"),
    ("Decoder not found", "this FFmpeg cannot decode it"),
    ("no decoder found", "this FFmpeg cannot decode it"),
    ("Cannot determine format of input stream", "none of its frames can be decoded"),
];

/// Why a run of `tool` on `input` failed; `None` when it ended with exit code 0 and nobody
/// stopped it, which alone proves nothing.
pub(super) fn failure(tool: &str, input: &Path, ended: &Ended, stderr: &Stderr) -> Option<Failure> {
    if let Some(reason) = ended.stopped {
        return Some(stopped(reason));
    }
    if ended.timed_out {
        let seconds = ended.wall.as_secs();
        let message = format!("{tool} was still reading {} after {seconds} s", input.display());
        return Some(Failure::retryable(Cause::Timeout, message));
    }
    if let Some(signal) = ended.signal {
        return Some(Failure { signal: Some(signal), ..on_signal(tool, input, signal) });
    }
    let code = ended.exit_code.filter(|code| *code != 0)?;
    Some(Failure { exit_code: Some(code), ..on_exit(tool, input, code, ended, stderr) })
}

fn on_signal(tool: &str, input: &Path, signal: i32) -> Failure {
    let film = input.display();
    match signal {
        libc::SIGXFSZ => Failure::permanent(
            Cause::Limit,
            format!("an output of {film} is larger than the type's limit for files"),
        ),
        libc::SIGXCPU => Failure::permanent(
            Cause::Limit,
            format!("{tool} used more CPU time on {film} than the type's limit"),
        ),
        libc::SIGSYS => Failure::permanent(
            Cause::ForbiddenSyscall,
            format!("{tool} made a forbidden system call on {film}"),
        ),
        _ => Failure::retryable(
            Cause::Signal,
            format!("{tool} was ended by signal {signal} on {film}"),
        ),
    }
}

fn on_exit(tool: &str, input: &Path, code: i32, ended: &Ended, stderr: &Stderr) -> Failure {
    let film = input.display();
    let words = stderr.last().or(ended.stderr_tail.lines().last()).unwrap_or("no message");
    if stderr.has("File too large") {
        let message = format!("an output of {film} is larger than the type's limit for files");
        return Failure::permanent(Cause::Limit, message);
    }
    if let Some(name) = stderr.missing_filter() {
        let message = format!(
            "{tool} lacks the filter {name}, which this film needs: install a full build (zscale \
             needs libzimg)"
        );
        return Failure::permanent(Cause::FailedStart, message);
    }
    if stderr.has("Unknown encoder") || stderr.has("Unrecognized option") {
        let message = format!("{tool} is too old or lacks an encoder: {words}");
        return Failure::permanent(Cause::FailedStart, message);
    }
    // A full disk also makes "invalid data" of what follows: what passes is asked first.
    if let Some((_, reason)) = PASSING.iter().find(|(words, _)| stderr.has(words)) {
        let message = format!("{tool} could not finish {film}: {reason} ({words})");
        return Failure::retryable(Cause::Error, message);
    }
    if let Some(what) = stderr.refused_reader().and_then(what_is) {
        let message = format!("input {film} cannot be used: it is {what}");
        return Failure::permanent(Cause::Error, message);
    }
    if let Some((_, reason)) = LASTING.iter().find(|(words, _)| stderr.has(words)) {
        let message = format!("input {film} cannot be used: {reason} ({words})");
        return Failure::permanent(Cause::Error, message);
    }
    let message = format!("{tool} ended with exit code {code} on {film}: {words}");
    Failure::retryable(Cause::ExitCode, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StopReason;
    use std::time::Duration;

    fn ended(exit_code: Option<i32>) -> Ended {
        Ended {
            exit_code,
            signal: None,
            stopped: None,
            timed_out: false,
            wall: Duration::from_secs(1),
            cpu: Duration::from_secs(1),
            stderr_tail: String::new(),
            stdout_tail: String::new(),
            confinement: String::new(),
        }
    }

    fn stderr(lines: &[&str]) -> Stderr {
        let mut stderr = Stderr::default();
        lines.iter().for_each(|line| stderr.on_line(line.as_bytes()));
        stderr
    }

    fn classify(lines: &[&str]) -> Failure {
        failure("ffmpeg", Path::new("/in/film.mp4"), &ended(Some(1)), &stderr(lines))
            .expect("exit code 1 is a failure")
    }

    #[test]
    fn damaged_inputs_fail_for_good_with_the_reason() {
        let failure = classify(&[
            "[mov,mp4,m4a,3gp,3g2,mj2 @ 0x5648] [error] moov atom not found",
            "[error] /in/film.mp4: Invalid data found when processing input",
        ]);
        assert!(failure.permanent && failure.exit_code == Some(1));
        assert!(failure.message.contains("truncated"), "{}", failure.message);
    }

    #[test]
    fn what_is_no_film_is_told_by_its_reader() {
        let failure = classify(&[
            "[image2 @ 0x5649d2251280] [error] Format not on whitelist 'mov,matroska'",
            "[error] /in/cover.jpg: Invalid argument",
        ]);
        assert!(failure.permanent && failure.message.contains("still picture"), "{failure:?}");
        let failure = classify(&["[nsv @ 0x5] [error] Format not on whitelist 'mov,matroska'"]);
        assert!(failure.permanent && failure.message.contains("none that a film"), "{failure:?}");
    }

    #[test]
    fn a_missing_filter_is_about_ffmpeg_and_not_about_the_film() {
        let failure = classify(&[
            "[AVFilterGraph @ 0x55] [error] No such filter: 'zscale'",
            "[error] Error initializing complex filters.",
        ]);
        assert_eq!((failure.permanent, failure.cause), (true, Cause::FailedStart));
        assert!(failure.message.contains("lacks the filter zscale,"), "{}", failure.message);
    }

    #[test]
    fn a_full_disk_is_worth_another_attempt() {
        let failure = classify(&[
            "[error] av_interleaved_write_frame(): No space left on device",
            "[error] /in/film.mp4: Invalid data found when processing input",
        ]);
        assert!(!failure.permanent);
        assert!(failure.message.contains("the disk is full"), "{}", failure.message);
    }

    #[test]
    fn hardware_that_refuses_is_told_from_a_film_that_cannot_be_read() {
        // Quoted, not recorded: reports of users whose sessions had run out, and of hosts without
        // a device.
        for line in [
            "[h264_nvenc @ 0x1] [error] OpenEncodeSessionEx failed: out of memory (10)",
            "[h264_nvenc @ 0x1] [error] Cannot load libcuda.so.1",
            "[AVHWDeviceContext @ 0x1] [error] No VA display found for device /dev/dri/renderD128.",
            "[error] Device creation failed: -542398533.",
        ] {
            assert!(stderr(&[line]).encoder_lost().is_some(), "{line}");
        }
        let film = ["[h264 @ 0x1] [error] no frame!", "[error] moov atom not found"];
        assert_eq!(stderr(&film).encoder_lost(), None);
    }

    #[test]
    fn an_unknown_error_is_retried_and_quoted() {
        let failure = classify(&["[vf#0:0 @ 0x1] [error] Something new went wrong"]);
        assert_eq!((failure.permanent, failure.cause), (false, Cause::ExitCode));
        assert!(failure.message.ends_with("vf#0:0: Something new went wrong"));
    }

    #[test]
    fn a_limit_is_named() {
        let by_signal = Ended { signal: Some(libc::SIGXFSZ), ..ended(None) };
        let failure = failure("ffmpeg", Path::new("/f"), &by_signal, &stderr(&[]))
            .expect("a signal is a failure");
        assert_eq!((failure.cause, failure.signal), (Cause::Limit, Some(libc::SIGXFSZ)));
        assert_eq!(classify(&["[error] x.mp4: File too large"]).cause, Cause::Limit);
    }

    #[test]
    fn exit_code_0_after_a_stop_is_no_success() {
        let stopped = Ended { stopped: Some(StopReason::Cancelled), ..ended(Some(0)) };
        let failure = failure("ffmpeg", Path::new("/f"), &stopped, &stderr(&[]));
        assert_eq!(failure.map(|failure| failure.cause), Some(Cause::Cancelled));
    }

    #[test]
    fn lines_are_cleaned_deduplicated_and_bounded() {
        let mut stderr = stderr(&[
            "[h264 @ 0x55d1] [error] no frame!",
            "[warning] a warning",
            "a line without level",
        ]);
        for _ in 0..1000 {
            stderr.on_line(b"[h264 @ 0x77] [error] no frame!");
            stderr.on_line(b"[aac @ 0x78] [error] \xff\xfe");
        }
        assert_eq!(stderr.first(), Some("h264: no frame!"));
        assert_eq!((stderr.errors, stderr.lines.len()), (2001, 2));
        // Of a run from the middle of a film, the missing frames are expected.
        let (errors, first) = stderr.within();
        assert!(errors == 1000 && first.is_some_and(|line| line.starts_with("aac")), "{first:?}");
        assert_eq!(clean("[NULL @ 0x1] [error] [a] b"), "[a] b");
    }
}
