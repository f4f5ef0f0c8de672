//! The loudness of a film's sound, measured before it is encoded.
//!
//! In two passes: the first measures the whole track, so that the second can change all of it by
//! the same amount and leave its dynamics alone. One pass would have to guess, and would pump.
//! Where the peaks leave no room for that, FFmpeg's loudnorm limits them itself.

use super::arguments::{MEDIA_GUARD, command, words};
use super::classify::{self, Stderr};
use super::film::tracks::Audio;
use super::host::{Host, stopped};
use super::tools::{self, Tools};
use crate::program::{Lines, Place, Program};
use shiftboss_protocol::job::{Cause, Failure};
use std::path::Path;

/// Highest true peak, dBTP: room for what decoders of lossy sound add.
const PEAK_MAX: &str = "-1.5";
/// The largest range that loudnorm of FFmpeg 5.1 takes; a film with more is limited.
const RANGE_MAX: &str = "20";
/// What a track of silence has is no loudness that could be changed.
const SILENCE: f64 = -69.0;

/// What the first pass found: numbers in loudnorm's words.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    integrated: f64,
    peak: f64,
    range: f64,
    threshold: f64,
    offset: f64,
}

/// The filters of the second pass, which follow another.
pub(super) fn second_pass(target: f64, channels: u32, measured: &Measured) -> String {
    let Measured { integrated, peak, range, threshold, offset } = measured;
    format!(
        "{}loudnorm=I={target}:TP={PEAK_MAX}:LRA={RANGE_MAX}:measured_I={integrated}:\
         measured_TP={peak}:measured_LRA={range}:measured_thresh={threshold}:offset={offset}:\
         linear=true",
        mixed(channels)
    )
}

/// The sound must be measured as it will be heard: mixed down already.
const fn mixed(channels: u32) -> &'static str {
    match channels {
        1 => ",aformat=channel_layouts=mono,",
        2 => ",aformat=channel_layouts=stereo,",
        _ => ",",
    }
}

/// Measures a track as it will be heard; `None`: it is silent.
///
/// # Errors
/// The [`Failure`] of the run.
pub(super) fn measure(
    host: &dyn Host,
    (tools, input): (&Tools, &Path),
    track: &Audio,
    (target, share): (f64, Option<f64>),
) -> Result<Option<Measured>, Failure> {
    let mut command = command(&tools.ffmpeg);
    // The numbers are printed as information.
    command.args(["-loglevel", "level+info"]).args(MEDIA_GUARD).input(input);
    command.map(format!("0:{}", track.stream));
    let mixed = mixed(track.channels);
    let measuring = format!(
        "aresample=async=1:rematrix_maxval=1{mixed}\
         loudnorm=I={target}:TP={PEAK_MAX}:LRA={RANGE_MAX}:print_format=json"
    );
    command.args(["-af", &measuring, "-f", "null", "-"]);
    let argv = words(command);
    let mut read = tools::beside(host.settings(), argv.first());
    read.push(Place::from(input));
    let program = Program {
        argv,
        read,
        stop_word: Some(b"q".to_vec()),
        stop_word_grace: std::time::Duration::from_secs(5),
        ..Program::default()
    };
    let mut watch = Watch { host, share, answer: Answer::default(), stderr: Stderr::default() };
    let ended = host.run(&program, &mut watch)?;
    if let Some(failure) = classify::failure("ffmpeg", input, &ended, &watch.stderr) {
        return Err(failure);
    }
    if let Some(reason) = host.stop_reason() {
        return Err(stopped(reason));
    }
    watch.answer.measured().map_err(|what| {
        let message = format!("cannot measure the loudness of {}: {what}", input.display());
        Failure::retryable(Cause::Error, message)
    })
}

struct Watch<'a> {
    host: &'a dyn Host,
    share: Option<f64>,
    answer: Answer,
    stderr: Stderr,
}

impl Lines for Watch<'_> {
    fn on_stdout(&mut self, line: &[u8]) {
        if let Some(time) = line.strip_prefix(b"out_time=") {
            let time = String::from_utf8_lossy(time);
            let note = format!("measuring the loudness, at {}", time.trim());
            self.host.progress(self.share, &note);
        }
    }

    fn on_stderr(&mut self, line: &[u8]) {
        self.answer.on_line(&String::from_utf8_lossy(line));
        self.stderr.on_line(line);
    }
}

/// The numbers that loudnorm prints, one a line.
#[derive(Clone, Debug, Default)]
struct Answer {
    found: Vec<(String, f64)>,
}

impl Answer {
    fn on_line(&mut self, line: &str) {
        let mut parts = line.split('"');
        let (Some(_), Some(key), Some(_), Some(value)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return;
        };
        let Ok(number) = value.trim().parse() else { return };
        if self.found.len() < 16 {
            self.found.push((key.to_owned(), number));
        }
    }

    fn measured(&self) -> Result<Option<Measured>, String> {
        let number = |key: &str| {
            let found = self.found.iter().find(|(found, _)| found == key);
            found.map(|(_, number)| *number).ok_or_else(|| format!("{key} was not printed"))
        };
        let measured = Measured {
            integrated: number("input_i")?,
            peak: number("input_tp")?,
            range: number("input_lra")?,
            threshold: number("input_thresh")?,
            offset: number("target_offset")?,
        };
        // Silence has minus infinity.
        let all = [measured.integrated, measured.peak, measured.range, measured.threshold];
        let is_sound = all.iter().all(|number| number.is_finite()) && all[0] > SILENCE;
        Ok(Some(measured).filter(|measured| is_sound && measured.offset.is_finite()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from FFmpeg 5.1.9.
    const RECORDED: &str = "[Parsed_loudnorm_2 @ 0x55] [info] \n{\n\t\"input_i\" : \"-21.75\",\n\
        \t\"input_tp\" : \"-18.06\",\n\t\"input_lra\" : \"0.00\",\n\t\"input_thresh\" : \
        \"-31.75\",\n\t\"output_i\" : \"-16.31\",\n\t\"output_tp\" : \"-12.55\",\n\
        \t\"output_lra\" : \"0.00\",\n\t\"output_thresh\" : \"-26.31\",\n\
        \t\"normalization_type\" : \"dynamic\",\n\t\"target_offset\" : \"0.31\"\n}\n";

    fn read(text: &str) -> Result<Option<Measured>, String> {
        let mut answer = Answer::default();
        text.lines().for_each(|line| answer.on_line(line));
        answer.measured()
    }

    #[test]
    fn numbers_are_read_and_handed_on() {
        let measured = read(RECORDED).expect("all are there").expect("it is not silent");
        assert_eq!(
            second_pass(-16.0, 2, &measured),
            ",aformat=channel_layouts=stereo,loudnorm=I=-16:TP=-1.5:LRA=20:measured_I=-21.75:\
             measured_TP=-18.06:measured_LRA=0:measured_thresh=-31.75:offset=0.31:linear=true"
        );
    }

    #[test]
    fn silence_has_no_loudness_and_a_missing_number_is_named() {
        assert_eq!(read(&RECORDED.replace("-21.75", "-inf")), Ok(None));
        assert_eq!(read(&RECORDED.replace("-21.75", "-70.00")), Ok(None));
        let missing = RECORDED.replace("input_lra", "other");
        assert!(read(&missing).expect_err("one is missing").contains("input_lra"));
    }
}
