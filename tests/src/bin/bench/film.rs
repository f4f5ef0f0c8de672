//! Films to encode, made here, and one that the caller brings.

use shiftboss_tests::{Stage, has_program};
use std::path::PathBuf;
use std::process::Command;

/// Names a film that is encoded besides the made ones.
pub(crate) const BROUGHT: &str = "SHIFTBOSS_BENCH_FILM";

/// A film to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Film {
    pub(crate) name: &'static str,
    pub(crate) size: &'static str,
    pub(crate) seconds: &'static str,
    /// Of ffmpeg: the video encoder and its options.
    pub(crate) codec: &'static [&'static str],
}

impl Film {
    /// What it shows, for the report.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{} s of testsrc2 with noise, {} at 30 frames/s, {}, with a tone",
            self.seconds,
            self.size,
            self.codec.join(" ")
        )
    }

    /// Makes it on the stage.
    pub(crate) fn make(&self, stage: &Stage) -> PathBuf {
        let path = stage.path(self.name);
        let picture = format!("testsrc2=size={}:rate=30,noise=alls=6:allf=t", self.size);
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", &picture]);
        command.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]);
        command.args(["-t", self.seconds, "-pix_fmt", "yuv420p"]).args(self.codec);
        command.args(["-c:a", "aac", "-ac", "2", "-movflags", "+faststart"]).arg(&path);
        assert!(command.status().expect("ffmpeg can be started").success(), "{self:?}");
        path
    }
}

/// The film that the caller brings, if there is one.
pub(crate) fn brought() -> Option<PathBuf> {
    let path = std::env::var_os(BROUGHT).map(PathBuf::from)?;
    assert!(path.is_file(), "{BROUGHT} names {}, which is no file", path.display());
    Some(path)
}

/// True when films can be encoded; else it says so.
pub(crate) fn is_possible() -> bool {
    let found = has_program("ffmpeg") && has_program("ffprobe");
    if !found {
        crate::figures::say("NOT MEASURED: ffmpeg is not installed");
    }
    found
}
