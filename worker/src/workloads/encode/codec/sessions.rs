//! Sessions of hardware encoders: one for each rung, counted over all workers of the supervisors
//! that share a folder of sockets, by locks that end with the process that holds them.
//!
//! How many a driver allows nobody tells; too many fail the encode of somebody else. The count
//! starts at what drivers allow today, and goes down when one refuses.

use super::{Encoder, Engine};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What a driver of 2024 allows a consumer's card.
const NVENC_MAX: u32 = 8;
/// Others have no number that is known: memory ends first.
const OTHERS_MAX: u32 = 64;
/// A refusal may have been about sessions of another program, which end.
const LEARNED_FOR: Duration = Duration::from_secs(600);

/// What NVIDIA's driver says when it has no session left. Quoted from users' reports.
const REFUSED: &str = "OpenEncodeSessionEx failed: out of memory";

/// Sessions that are held until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held {
    _locks: Vec<File>,
}

/// What a driver allows as far as is known.
const fn ceiling(engine: Engine) -> u32 {
    if matches!(engine, Engine::Nvenc) { NVENC_MAX } else { OTHERS_MAX }
}

/// The most sessions that are begun, after the driver was heard: `learned` is the last lesson with
/// its age.
fn most(engine: Engine, learned: Option<(u32, Duration)>) -> u32 {
    let most = ceiling(engine);
    let learned = learned.filter(|(_, age)| *age < LEARNED_FOR);
    learned.map_or(most, |(lesson, _)| lesson.clamp(1, most))
}

/// What a refusal teaches when so many sessions were held, ours among them: one less works. What
/// was learned before is never raised by it.
fn lesson(held: u32, most: u32) -> u32 {
    held.saturating_sub(1).clamp(1, most)
}

/// Takes a session for each of `rungs`, all or none; software needs none, and without a folder
/// nothing is counted.
///
/// # Errors
/// Why there are not as many.
pub(crate) fn take(folder: &str, encoder: Encoder, rungs: usize) -> Result<Held, String> {
    if folder.is_empty() || !encoder.is_hardware() {
        return Ok(Held::default());
    }
    let folder = Path::new(folder);
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(format!("cannot count its sessions in {}: {error}", folder.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let engine = name(encoder.engine);
    let rungs = u32::try_from(rungs).unwrap_or(u32::MAX);
    let most = most(encoder.engine, learned(folder, engine));
    if rungs > most {
        return Err(format!("{rungs} sessions are needed, its driver allows {most}"));
    }
    let mut free = Vec::new();
    for at in 0..ceiling(encoder.engine) {
        free.extend(lock(folder, engine, at)?);
    }
    let count = |locks: usize| u32::try_from(locks).unwrap_or(u32::MAX);
    let held = ceiling(encoder.engine).saturating_sub(count(free.len()));
    let allowed = most.saturating_sub(held);
    if rungs > allowed {
        return Err(format!("{rungs} sessions are needed, {allowed} of {most} are free"));
    }
    free.truncate(usize::try_from(rungs).unwrap_or(usize::MAX));
    Ok(Held { _locks: free })
}

/// The hardware was lost with these words: when its driver refused a session, fewer are begun for a
/// while. To be told while the own ones are still held.
pub(crate) fn learn(folder: &str, encoder: Encoder, words: &str) {
    if folder.is_empty() || !words.contains(REFUSED) {
        return;
    }
    let folder = Path::new(folder);
    let engine = name(encoder.engine);
    let most = most(encoder.engine, learned(folder, engine));
    // Ours are held too, by other files: a lock that cannot be had is one in use.
    let is_held = |at: &u32| matches!(lock(folder, engine, *at), Ok(None));
    let held = (0..ceiling(encoder.engine)).filter(is_held).count();
    let lesson = lesson(u32::try_from(held).unwrap_or(most), most);
    // Without it the next job falls back as this one did.
    let _ = std::fs::write(folder.join(format!("{engine}.most")), lesson.to_string());
}

fn learned(folder: &Path, engine: &str) -> Option<(u32, Duration)> {
    let path = folder.join(format!("{engine}.most"));
    let age = SystemTime::now().duration_since(path.metadata().ok()?.modified().ok()?);
    let lesson = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    Some((lesson, age.unwrap_or_default()))
}

/// `None`: it is in use.
fn lock(folder: &Path, engine: &str, at: u32) -> Result<Option<File>, String> {
    let path = folder.join(format!("{engine}-{at:02}"));
    let failed = |error: Errno| format!("cannot count its sessions in {}: {error}", path.display());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(File::from(file))),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

const fn name(engine: Engine) -> &'static str {
    match engine {
        Engine::Nvenc => "nvenc",
        Engine::Vaapi => "vaapi",
        Engine::Qsv => "qsv",
        Engine::X264 | Engine::X265 | Engine::SvtAv1 | Engine::Vpx => "software",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nvenc() -> Encoder {
        Encoder::named("h264_nvenc").expect("it is known")
    }

    #[test]
    fn a_lesson_lowers_the_count_for_minutes_and_never_below_one() {
        let minutes = |count: u64| Duration::from_secs(count * 60);
        assert_eq!(most(Engine::Nvenc, None), 8);
        assert_eq!(most(Engine::Nvenc, Some((3, minutes(9)))), 3);
        assert_eq!(most(Engine::Nvenc, Some((3, minutes(11)))), 8);
        assert_eq!(most(Engine::Nvenc, Some((0, minutes(0)))), 1);
        assert_eq!(most(Engine::Nvenc, Some((99, minutes(0)))), 8);
        assert_eq!((lesson(6, 8), lesson(0, 8), lesson(9, 5)), (5, 1, 5));
    }

    /// A folder that is not there yet.
    fn folder(parent: &tempfile::TempDir) -> String {
        parent.path().join("sessions").display().to_string()
    }

    #[test]
    fn sessions_are_taken_all_or_none_and_come_back() {
        let parent = tempfile::tempdir().expect("the temporary folder can be written");
        let take = |rungs| take(&folder(&parent), nvenc(), rungs);
        let three = take(3).expect("none is held");
        let five = take(5).expect("five are free");
        assert!(take(1).expect_err("all are held").contains("0 of 8 are free"));
        drop(three);
        assert!(take(4).expect_err("three are free").contains("3 of 8 are free"));
        let _three = take(3).expect("what was not enough was given back");
        drop(five);
        assert!(take(9).expect_err("too many").contains("allows 8"));
        let software = Encoder::named("libx265").expect("it is known");
        assert!(super::take(&folder(&parent), software, 100).is_ok());
    }

    #[test]
    fn a_driver_that_refuses_is_asked_for_less() {
        let parent = tempfile::tempdir().expect("the temporary folder can be written");
        let folder = folder(&parent);
        let three = take(&folder, nvenc(), 3).expect("none is held");
        let _two = take(&folder, nvenc(), 2).expect("five are free");
        learn(&folder, nvenc(), "Cannot load libcuda.so.1");
        assert!(take(&folder, nvenc(), 3).is_ok(), "that was not about sessions");
        // The driver gave those two but not these three: four are begun from now on.
        learn(&folder, nvenc(), "h264_nvenc: OpenEncodeSessionEx failed: out of memory (10)");
        drop(three);
        assert!(take(&folder, nvenc(), 3).expect_err("one too many").contains("2 of 4"));
        assert!(take(&folder, nvenc(), 2).is_ok());
        let qsv = Encoder::named("h264_qsv").expect("it is known");
        assert!(take(&folder, qsv, 8).is_ok(), "each has its own count");
    }
}
