//! Programs that people run instead, told to encode as the product does, each in its own words.

use crate::encode::{Cost, NICE};
use crate::figures::say;
use shiftboss_tests::has_program;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// A program of others that encodes.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    from: &'static str,
    arguments: fn(&mut Command, &Path, &Path),
}

/// For H.264. Av1an is not among them: it needs VapourSynth, of which Debian 12 has no package.
pub(crate) const H264: &[Peer] = &[
    Peer { name: "HandBrakeCLI", from: "apt-get install handbrake-cli", arguments: handbrake },
    Peer { name: "ab-av1", from: "cargo install ab-av1 --locked", arguments: ab_av1_h264 },
];
/// For AV1.
pub(crate) const AV1: &[Peer] =
    &[Peer { name: "ab-av1", from: "cargo install ab-av1 --locked", arguments: ab_av1_svt }];

impl Peer {
    /// Encodes the film; `None`, and a line that says so, where it is not installed.
    pub(crate) fn run(&self, film: &Path, output: &Path) -> Option<Cost> {
        if !has_program(self.name) {
            say(&format!("{} is not installed ({}): left out.\n", self.name, self.from));
            return None;
        }
        // As what it is compared with.
        let mut command = Command::new("nice");
        command.args(["-n", NICE, self.name]);
        (self.arguments)(&mut command, film, output);
        // What they keep for the next time lies beside the output.
        let home = output.parent().expect("it lies in a folder");
        command.env("HOME", home).env("XDG_CACHE_HOME", home).current_dir(home);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let status = command.status().expect("it can be started");
        assert!(status.success(), "{}: {status}", self.name);
        Some(Cost { wall: start.elapsed().as_secs_f64(), cpu: 0.0 })
    }
}

fn handbrake(command: &mut Command, film: &Path, output: &Path) {
    let options = "vbv-maxrate=6000:vbv-bufsize=12000:keyint=60:scenecut=0:open-gop=0";
    command.arg("-i").arg(film).arg("-o").arg(output);
    command.args(["-f", "av_mp4", "-O", "-e", "x264", "--encoder-preset", "veryfast", "-q", "21"]);
    command.args(["-x", options, "--vfr", "-E", "av_aac", "-B", "160", "--mixdown", "stereo"]);
    command.args(["--crop", "0:0:0:0", "--no-comb-detect", "--no-deinterlace"]);
}

fn ab_av1_h264(command: &mut Command, film: &Path, output: &Path) {
    command.args(["encode", "-e", "libx264", "--preset", "veryfast", "--crf", "21"]);
    ab_av1(command, film, output);
    for option in ["sc_threshold=0", "x264-params=open-gop=0"] {
        command.args(["--enc", option]);
    }
}

fn ab_av1_svt(command: &mut Command, film: &Path, output: &Path) {
    command.args(["encode", "-e", "libsvtav1", "--preset", "10", "--crf", "35"]);
    ab_av1(command, film, output);
}

fn ab_av1(command: &mut Command, film: &Path, output: &Path) {
    command.arg("-i").arg(film).arg("-o").arg(output);
    command.args(["--pix-format", "yuv420p", "--keyint", "60", "--acodec", "aac"]);
    for option in ["maxrate=6000k", "bufsize=12000k", "b:a=160k", "ac=2", "movflags=+faststart"] {
        command.args(["--enc", option]);
    }
}
