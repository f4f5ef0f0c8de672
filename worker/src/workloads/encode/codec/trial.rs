//! Tries an encoder out as the ladder will use it, in the same cage: a real encode of a moment,
//! in the pixel format of the job.

use super::super::arguments::{command, words};
use super::super::classify::Stderr;
use super::super::host::{Host, stopped};
use super::super::plan::Rung;
use super::super::tools::{self, Tools};
use super::choice::{self, Memory, Refusal, Subject};
use super::{Encoder, arguments};
use crate::program::{Lines, Program};
use shiftboss_protocol::job::{Cause, Failure};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A trial takes a tenth of a second; a driver may have to wake a device.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Smaller pictures than this are refused by some hardware that works.
const SOURCE: &str = "testsrc2=s=640x360:r=30";
const NVIDIA_DRIVER: &str = "/sys/module/nvidia/version";

/// What trials of this process showed.
static MEMORY: Mutex<Memory> = Mutex::new(Memory::new());

/// An encoder that works, with the device that it needs.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) encoder: Encoder,
    pub(crate) device: Option<String>,
}

/// The first of these encoders that works. `refused` are those that failed at work, and gets those
/// that fail here.
///
/// # Errors
/// A [`Failure`] that says for each why it cannot be used, permanent when none ever worked; or that
/// of a stopped attempt.
pub(crate) fn choose(
    host: &dyn Host,
    tools: &Tools,
    order: &[Encoder],
    refused: &mut Vec<(Encoder, Refusal)>,
) -> Result<Chosen, Failure> {
    let device = render_device(&host.settings().devices);
    let has_worked = !refused.is_empty();
    for encoder in order.iter().copied() {
        match proven(host, tools, encoder, device.as_deref())? {
            Ok(()) => return Ok(Chosen { encoder, device }),
            Err(refusal) => {
                host.log(&format!("encoder {} cannot be used here: {refusal}", encoder.name()));
                refused.push((encoder, refusal));
            }
        }
    }
    let sentence = choice::none_left(refused);
    if has_worked {
        Err(Failure::retryable(Cause::FailedStart, sentence))
    } else {
        Err(Failure::permanent(Cause::FailedStart, sentence))
    }
}

/// An encoder failed at work.
pub(crate) fn forget(encoder: Encoder) {
    memory().forget(encoder);
}

fn memory() -> std::sync::MutexGuard<'static, Memory> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn proven(
    host: &dyn Host,
    tools: &Tools,
    encoder: Encoder,
    device: Option<&str>,
) -> Result<Result<(), Refusal>, Failure> {
    if !choice::needs_trial(encoder) {
        return Ok(Ok(()));
    }
    let subject = Subject { encoder, program: program(&tools.ffmpeg), devices: drivers(host) };
    if let Some(known) = memory().recall(Instant::now(), &subject) {
        return Ok(known);
    }
    host.progress(None, &format!("trying encoder {}", encoder.name()));
    let answer = attempt(host, tools, encoder, device)?;
    memory().keep(Instant::now(), subject, &answer);
    Ok(answer)
}

/// Exit codes differ between versions and encoders: only 0 is told from the rest.
fn attempt(
    host: &dyn Host,
    tools: &Tools,
    encoder: Encoder,
    device: Option<&str>,
) -> Result<Result<(), Refusal>, Failure> {
    let mut command = command(&tools.ffmpeg);
    arguments::device(&mut command, encoder, device);
    command.args(["-f", "lavfi", "-i", SOURCE, "-frames:v", "3"]);
    command.args(["-vf", arguments::hand_over(encoder)]);
    let rung = Rung::for_trial();
    arguments::encoder(&mut command, &super::super::plan::Plan::for_trial(encoder), &rung);
    command.args(["-f", "null", "-"]);
    let argv = words(command);
    let program = Program {
        read: tools::beside(host.settings(), argv.first()),
        argv,
        timeout: Some(TIMEOUT),
        ..Program::default()
    };
    let mut watch = Watch(Stderr::default());
    let ended = host.run(&program, &mut watch)?;
    if let Some(reason) = ended.stopped.or_else(|| host.stop_reason()) {
        return Err(stopped(reason));
    }
    if ended.exit_code == Some(0) {
        return Ok(Ok(()));
    }
    let words = watch.0.first().map(str::to_owned);
    let seconds = TIMEOUT.as_secs();
    let otherwise = if ended.timed_out {
        format!("its trial did not end within {seconds} s")
    } else {
        format!("its trial ended with code {:?}, signal {:?}", ended.exit_code, ended.signal)
    };
    Ok(Err(words.unwrap_or(otherwise)))
}

struct Watch(Stderr);

impl Lines for Watch {
    fn on_stdout(&mut self, _: &[u8]) {}

    fn on_stderr(&mut self, line: &[u8]) {
        self.0.on_line(line);
    }
}

/// The device that VA-API and Quick Sync use.
fn render_device(devices: &[String]) -> Option<String> {
    devices.iter().find(|device| device.starts_with("/dev/dri/renderD")).cloned()
}

fn program(path: &Path) -> String {
    let metadata = path.metadata();
    let facts = metadata.map(|found| (found.len(), found.mtime(), found.mtime_nsec(), found.ino()));
    format!("{} {facts:?}", path.display())
}

/// The devices of the type, each with its driver, and the version of NVIDIA's.
fn drivers(host: &dyn Host) -> String {
    let driver = |device: &String| {
        let name = device.rsplit('/').next().unwrap_or_default();
        let link = Path::new("/sys/class/drm").join(name).join("device/driver");
        let driver = std::fs::read_link(link).unwrap_or_default();
        format!("{device} {}", driver.display())
    };
    let mut all: Vec<String> = host.settings().devices.iter().map(driver).collect();
    all.extend(std::fs::read_to_string(NVIDIA_DRIVER));
    all.join(" ")
}
