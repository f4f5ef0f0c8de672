//! ffmpeg and ffprobe: there, new enough, and which encoders really encode.

use super::{Finding, Verdict};
use crate::config::Tools;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Encoders that are tried: what they need before the encoder's name, and the name.
const ENCODERS: [(&str, &[&str], &[&str]); 8] = [
    ("libx264", &[], &[]),
    ("libx265", &[], &[]),
    ("libsvtav1", &[], &[]),
    ("libvpx-vp9", &[], &[]),
    ("aac", &[], &[]),
    ("h264_nvenc", &[], &[]),
    ("h264_vaapi", &["-init_hw_device", "vaapi"], &["-vf", "format=nv12,hwupload"]),
    ("h264_qsv", &["-init_hw_device", "qsv"], &["-vf", "format=nv12"]),
];

/// A trial encode takes some tens of milliseconds; a driver that hangs is given up.
const TRIAL_MAX: Duration = Duration::from_secs(20);

pub(super) fn examine(tools: &Tools) -> Vec<Finding> {
    let (ffmpeg, ffprobe) =
        (tools.ffmpeg.display().to_string(), tools.ffprobe.display().to_string());
    let mut findings = vec![version("ffmpeg", &ffmpeg), version("ffprobe", &ffprobe)];
    if findings[0].verdict == Verdict::Ok {
        findings.extend(ENCODERS.iter().map(|one| trial(&ffmpeg, one)));
    }
    findings
}

fn version(name: &str, program: &str) -> Finding {
    match run(Command::new(program).arg("-version")) {
        Ok((true, text)) => {
            let first = text.lines().next().unwrap_or_default();
            let first = first.split(" Copyright").next().unwrap_or(first);
            Finding::new("media", name, Verdict::Ok, first)
        }
        Ok((false, text)) => Finding::new("media", name, Verdict::Problem, text)
            .remedy(format!("set tools.{name} to a program that runs")),
        Err(error) => Finding::new("media", name, Verdict::Problem, format!("{program}: {error}"))
            .remedy(format!("apt-get install ffmpeg, or set tools.{name}")),
    }
}

fn trial(ffmpeg: &str, (encoder, device, filter): &(&str, &[&str], &[&str])) -> Finding {
    let mut command = Command::new(ffmpeg);
    command.args(["-hide_banner", "-nostdin", "-v", "error"]).args(*device);
    if *encoder == "aac" {
        command.args(["-f", "lavfi", "-i", "sine=duration=0.1", "-c:a", encoder]);
    } else {
        let source = "color=black:size=256x256:rate=30";
        command.args(["-f", "lavfi", "-i", source, "-frames:v", "3"]).args(*filter);
        command.args(["-c:v", encoder]);
    }
    command.args(["-f", "null", "-"]);
    let needed = matches!(*encoder, "libx264" | "aac");
    let check = format!("encoder {encoder}, by trial");
    let missing = if needed { Verdict::Problem } else { Verdict::Note };
    match run(&mut command) {
        Ok((true, _)) => Finding::new("media", check, Verdict::Ok, "encodes"),
        Ok((false, text)) => {
            let reason = text.lines().next().unwrap_or("failed without a word").to_owned();
            let finding = Finding::new("media", check, missing, reason);
            if needed { finding.remedy("install an ffmpeg that has it") } else { finding }
        }
        Err(error) => Finding::new("media", check, missing, error.to_string()),
    }
}

/// Whether it ended with 0 in time, and what it said.
fn run(command: &mut Command) -> std::io::Result<(bool, String)> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let deadline = Instant::now() + TRIAL_MAX;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok((false, format!("gave no answer within {} s", TRIAL_MAX.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = String::new();
    // Both are short: a version, or the errors of three frames, far below a pipe's 64 KiB.
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut text)?;
    }
    if let Some(mut err) = child.stderr.take() {
        err.read_to_string(&mut text)?;
    }
    Ok((status.success(), text.trim().to_owned()))
}
