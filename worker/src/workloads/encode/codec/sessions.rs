//! Sessions of hardware encoders: one for each rung, counted over the whole host by locks on the
//! device itself, which end with the process that holds them. Whoever may encode with a device may
//! open it, and nobody else: no folder has to be agreed upon between users.
//!
//! How many a driver allows nobody tells; too many fail the encode of somebody else.

use super::{Encoder, Engine};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What a driver of 2024 allows a consumer's card.
const NVENC_MAX: u32 = 8;
/// Others have no number that is known: memory ends first.
const OTHERS_MAX: u32 = 64;
/// A refusal may have been about sessions of another program, which end.
const LEARNED_FOR: Duration = Duration::from_secs(600);

/// What NVIDIA's driver says when it has no session left. Quoted from users' reports.
const REFUSED: &str = "OpenEncodeSessionEx failed: out of memory";

/// Where nobody else locks a device: bytes that it does not have.
const FIRST_BYTE: i64 = 1 << 40;

/// Where sessions are counted: by locks on devices of the type, else in a folder of the
/// supervisor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    pub(crate) devices: &'a [String],
    /// Empty: nothing is counted.
    pub(crate) folder: &'a str,
}

/// Sessions that are held until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held {
    _locks: Option<File>,
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
pub(crate) fn take(places: Places<'_>, encoder: Encoder, rungs: usize) -> Result<Held, String> {
    if places.folder.is_empty() || !encoder.is_hardware() {
        return Ok(Held::default());
    }
    let folder = Path::new(places.folder);
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(format!("cannot count its sessions in {}: {error}", folder.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let rungs = u32::try_from(rungs).unwrap_or(u32::MAX);
    let most = most(encoder.engine, learned(folder, name(encoder.engine)));
    if rungs > most {
        return Err(format!("{rungs} sessions are needed, its driver allows {most}"));
    }
    let slots = Slots::open(places, encoder.engine)?;
    let (own, others) = slots.take(rungs)?;
    let allowed = most.saturating_sub(others);
    if own < rungs || rungs > allowed {
        return Err(format!("{rungs} sessions are needed, {allowed} of {most} are free"));
    }
    Ok(Held { _locks: Some(slots.file) })
}

/// The hardware was lost with these words: when its driver refused a session, fewer are begun for a
/// while. To be told while the own ones are still held.
pub(crate) fn learn(places: Places<'_>, encoder: Encoder, words: &str) {
    if places.folder.is_empty() || !words.contains(REFUSED) {
        return;
    }
    let folder = Path::new(places.folder);
    let engine = name(encoder.engine);
    let most = most(encoder.engine, learned(folder, engine));
    // Ours are held too, by another opening of the file.
    let held = Slots::open(places, encoder.engine).and_then(|slots| slots.take(0));
    let lesson = lesson(held.map_or(most, |(_, held)| held), most);
    // Without it the next job falls back as this one did.
    let _ = std::fs::write(folder.join(format!("{engine}.most")), lesson.to_string());
}

fn learned(folder: &Path, engine: &str) -> Option<(u32, Duration)> {
    let path = folder.join(format!("{engine}.most"));
    let age = SystemTime::now().duration_since(path.metadata().ok()?.modified().ok()?);
    let lesson = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    Some((lesson, age.unwrap_or_default()))
}

/// The locks of one engine: a byte each, of a device or of a file.
#[derive(Debug)]
struct Slots {
    file: File,
    path: PathBuf,
    first: i64,
    count: u32,
}

impl Slots {
    fn open(places: Places<'_>, engine: Engine) -> Result<Self, String> {
        // Engines share a device, but no count.
        let first = FIRST_BYTE + ((engine as i64) << 20);
        let of = |file, path| Self { file, path, first, count: ceiling(engine) };
        let device = device(places.devices, engine).map(PathBuf::from);
        let opened = device.and_then(|path| Some((open(&path, false).ok()?, path)));
        if let Some((file, path)) = opened {
            return Ok(of(file, path));
        }
        let path = Path::new(places.folder).join(name(engine));
        match open(&path, true) {
            Ok(file) => Ok(of(file, path)),
            Err(error) => Err(format!("cannot count its sessions in {}: {error}", path.display())),
        }
    }

    /// Locks up to so many that nobody has; gives how many, and how many others have. Those are
    /// only asked about: locks for a moment would turn others away.
    fn take(&self, wanted: u32) -> Result<(u32, u32), String> {
        let (mut own, mut others) = (0, 0);
        for slot in 0..self.count {
            let is_free = if own < wanted { self.lock(slot) } else { self.is_free(slot) };
            match (is_free.map_err(|error| self.failed(error))?, own < wanted) {
                (true, true) => own += 1,
                (true, false) => {}
                (false, _) => others += 1,
            }
        }
        Ok((own, others))
    }

    fn failed(&self, error: Errno) -> String {
        format!("cannot count its sessions in {}: {error}", self.path.display())
    }

    fn lock(&self, slot: u32) -> Result<bool, Errno> {
        match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&self.byte(slot))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_free(&self, slot: u32) -> Result<bool, Errno> {
        let mut found = self.byte(slot);
        fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut found))?;
        Ok(i32::from(found.l_type) == libc::F_UNLCK)
    }

    /// The lock of a slot.
    fn byte(&self, slot: u32) -> libc::flock {
        let short = |value: i32| libc::c_short::try_from(value).unwrap_or_default();
        libc::flock {
            l_type: short(libc::F_WRLCK),
            l_whence: short(libc::SEEK_SET),
            l_start: self.first + i64::from(slot),
            l_len: 1,
            l_pid: 0,
        }
    }
}

fn open(path: &Path, make: bool) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(make).truncate(false).mode(0o600);
    // A terminal would become that of the worker.
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// The device whose sessions are counted: all cards of NVIDIA share a driver and its sessions.
fn device(devices: &[String], engine: Engine) -> Option<&String> {
    let named = |start: &str| devices.iter().find(|device| device.starts_with(start));
    match engine {
        Engine::Nvenc => named("/dev/nvidiactl").or_else(|| named("/dev/nvidia")),
        Engine::Vaapi | Engine::Qsv => named("/dev/dri/renderD"),
        Engine::X264 | Engine::X265 | Engine::SvtAv1 | Engine::Vpx => None,
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

    fn only(folder: &str) -> Places<'_> {
        Places { devices: &[], folder }
    }

    #[test]
    fn sessions_are_taken_all_or_none_and_come_back() {
        let parent = tempfile::tempdir().expect("the temporary folder can be written");
        let folder = folder(&parent);
        let take = |rungs| take(only(&folder), nvenc(), rungs);
        let three = take(3).expect("none is held");
        let five = take(5).expect("five are free");
        assert!(take(1).expect_err("all are held").contains("0 of 8 are free"));
        drop(three);
        assert!(take(4).expect_err("three are free").contains("3 of 8 are free"));
        let _three = take(3).expect("what was not enough was given back");
        drop(five);
        assert!(take(9).expect_err("too many").contains("allows 8"));
        let software = Encoder::named("libx265").expect("it is known");
        assert!(super::take(only(&folder), software, 100).is_ok());
    }

    #[test]
    fn supervisors_with_folders_of_their_own_share_the_device() {
        let parent = tempfile::tempdir().expect("the temporary folder can be written");
        let folders = ["one", "two"].map(|name| parent.path().join(name).display().to_string());
        // A device that is everywhere, at a place of this process's own.
        let first = FIRST_BYTE + (i64::from(std::process::id()) << 32);
        let slots = |folder: &str| {
            let devices = ["/dev/nvidiactl".to_owned()];
            std::fs::create_dir_all(folder).expect("the temporary folder can be written");
            let slots = Slots::open(Places { devices: &devices, folder }, Engine::Nvenc);
            let file = open(Path::new("/dev/null"), false).expect("it is everybody's");
            Slots { file, first, ..slots.expect("it is counted somewhere") }
        };
        let [one, two] = folders.each_ref().map(|folder| slots(folder));
        assert_eq!(one.take(5), Ok((5, 0)));
        assert_eq!(two.take(0), Ok((0, 5)));
        assert_eq!(two.take(4), Ok((3, 5)), "there are eight");
        drop(one);
        assert_eq!(two.take(0), Ok((0, 0)), "its own are not others'");
    }

    #[test]
    fn each_engine_is_counted_on_a_device_that_it_uses() {
        let listed = ["/dev/dri/card0", "/dev/nvidia0", "/dev/nvidiactl", "/dev/dri/renderD128"];
        let listed = listed.map(str::to_owned);
        assert_eq!(device(&listed, Engine::Nvenc), Some(&listed[2]));
        assert_eq!(device(&listed[..2], Engine::Nvenc), Some(&listed[1]));
        assert_eq!(device(&listed, Engine::Qsv), Some(&listed[3]));
        assert_eq!(device(&listed[..3], Engine::Vaapi), None);
    }

    #[test]
    fn a_driver_that_refuses_is_asked_for_less() {
        let parent = tempfile::tempdir().expect("the temporary folder can be written");
        let folder = folder(&parent);
        let three = take(only(&folder), nvenc(), 3).expect("none is held");
        let _two = take(only(&folder), nvenc(), 2).expect("five are free");
        learn(only(&folder), nvenc(), "Cannot load libcuda.so.1");
        assert!(take(only(&folder), nvenc(), 3).is_ok(), "that was not about sessions");
        // The driver gave those two but not these three: four are begun from now on.
        learn(only(&folder), nvenc(), "h264_nvenc: OpenEncodeSessionEx failed: out of memory (10)");
        drop(three);
        assert!(take(only(&folder), nvenc(), 3).expect_err("one too many").contains("2 of 4"));
        assert!(take(only(&folder), nvenc(), 2).is_ok());
        let qsv = Encoder::named("h264_qsv").expect("it is known");
        assert!(take(only(&folder), qsv, 8).is_ok(), "each has its own count");
    }
}
