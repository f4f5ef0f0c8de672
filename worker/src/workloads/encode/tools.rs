//! FFmpeg and ffprobe: where they are, and whether they can do what the ladder needs. Lists
//! of encoders prove nothing, so one frame is really encoded.

use crate::Settings;
use crate::launcher::is_system;
use crate::path::is_apart;
use crate::program::Place;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const REMEDY: &str = "install it (apt-get install ffmpeg) or set its path in the configuration";
const TRIAL_TIMEOUT: Duration = Duration::from_secs(20);

/// The two programs.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    pub(super) ffmpeg: PathBuf,
    pub(super) ffprobe: PathBuf,
}

impl Tools {
    /// Where the settings or PATH say they are.
    ///
    /// # Errors
    /// A sentence that names the missing one and the remedy.
    pub(super) fn find(settings: &Settings) -> Result<Self, String> {
        Ok(Self {
            ffmpeg: find("ffmpeg", &settings.ffmpeg)?,
            ffprobe: find("ffprobe", &settings.ffprobe)?,
        })
    }

    /// The first line of what FFmpeg says about itself.
    ///
    /// # Errors
    /// A sentence that says why it cannot be asked.
    pub(super) fn version(&self) -> Result<String, String> {
        let text = trial(&self.ffmpeg, &["-version"])?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// Tries both and returns what they can do.
    ///
    /// # Errors
    /// A sentence that names what fails.
    pub(super) fn try_out(&self) -> Result<Vec<String>, String> {
        let version = trial(&self.ffmpeg, &["-version"])?;
        let number = version.split_whitespace().nth(2).unwrap_or("of unknown version").to_owned();
        trial(&self.ffprobe, &["-version"])?;
        trial(&self.ffmpeg, TRIAL_ENCODE).map_err(|reason| {
            format!("{reason} (ffmpeg {number}; 5.1 or newer with libx264 and aac is needed)")
        })?;
        Ok(vec![format!("ffmpeg {number}"), "libx264".to_owned()])
    }
}

/// What a tool needs to see of the folder that it lies in, outside of the system's: its own
/// libraries may be there. A folder that the supervisor's files lie in is not shown.
pub(super) fn beside(settings: &Settings, tool: Option<&OsString>) -> Vec<Place> {
    let real = tool.and_then(|tool| Path::new(tool).canonicalize().ok());
    let folder = real.as_deref().and_then(Path::parent);
    folder
        .filter(|folder| !is_system(folder) && is_apart(settings, folder))
        .map(Place::from)
        .into_iter()
        .collect()
}

/// The options of a real ladder that old versions lack are part of it.
const TRIAL_ENCODE: &[&str] = &[
    "-v",
    "error",
    "-nostdin",
    "-progress",
    "pipe:1",
    "-stats_period",
    "0.5",
    "-f",
    "lavfi",
    "-i",
    "color=black:s=256x256:r=30",
    "-f",
    "lavfi",
    "-i",
    "sine=duration=1",
    "-frames:v",
    "3",
    "-c:v",
    "libx264",
    "-preset",
    "veryfast",
    "-pix_fmt",
    "yuv420p",
    "-fps_mode",
    "vfr",
    "-c:a",
    "aac",
    "-t",
    "0.1",
    "-f",
    "null",
    "-",
];

fn find(name: &str, configured: &str) -> Result<PathBuf, String> {
    // A bare name, as the default configuration has it, is looked up like an empty one.
    let name = if configured.is_empty() { name } else { configured };
    if name.contains('/') {
        let path = PathBuf::from(name);
        return if is_program(&path) {
            Ok(path)
        } else {
            Err(format!("there is no program {name}, which the configuration names: {REMEDY}"))
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_absolute() && is_program(candidate))
        .ok_or_else(|| format!("{name} is not in PATH: {REMEDY}"))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs a tool for a moment; returns what it printed.
fn trial(tool: &Path, arguments: &[&str]) -> Result<String, String> {
    let shown = tool.display();
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // One pipe for both streams is enough: it is read for people.
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start {shown}: {error}"))?;
    let read = read_until_end(&mut child);
    if read.is_none() {
        // Too late to matter when it has just ended by itself.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| format!("cannot wait for {shown}: {error}"))?;
    match read {
        None => Err(format!("{shown} did not end within {} s", TRIAL_TIMEOUT.as_secs())),
        Some(_) if !status.success() => {
            let last =
                arguments.last().filter(|_| arguments.len() == 1).unwrap_or(&"a trial encode");
            Err(format!("{shown} failed {last}: {status}"))
        }
        Some(text) => Ok(text),
    }
}

/// Standard output to its end; `None` when that takes too long.
fn read_until_end(child: &mut Child) -> Option<String> {
    let mut stdout = child.stdout.take()?;
    let deadline = Instant::now() + TRIAL_TIMEOUT;
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.checked_duration_since(Instant::now())?;
        let left = Timespec::try_from(left).ok()?;
        let mut fds = [PollFd::new(&stdout, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        }
        match stdout.read(&mut buffer) {
            Ok(0) => return Some(String::from_utf8_lossy(&text).into_owned()),
            Ok(count) if text.len() < 1 << 20 => text.extend_from_slice(&buffer[..count]),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_the_remedy() {
        let settings = Settings { ffmpeg: "/nowhere/ffmpeg".to_owned(), ..Settings::default() };
        let sentence = Tools::find(&settings).expect_err("there is no such file");
        assert!(
            sentence.contains("/nowhere/ffmpeg") && sentence.contains("apt-get install ffmpeg")
        );
    }

    #[test]
    fn a_tool_that_cannot_encode_is_refused() {
        let tools = Tools { ffmpeg: "/bin/false".into(), ffprobe: "/bin/true".into() };
        let sentence = tools.try_out().expect_err("false is no encoder");
        assert!(sentence.contains("/bin/false failed -version"), "{sentence}");
        let tools = Tools { ffmpeg: "/bin/echo".into(), ffprobe: "/bin/false".into() };
        assert!(tools.try_out().expect_err("false is no prober").contains("/bin/false"));
    }
}
