//! The folder in which finished parts of an encode outlive the attempt that made them.
//!
//! A part is a folder: made under a passing name, synced and renamed with a record of its files,
//! then renamed into place when it is checked. The next attempt takes over what a record proves:
//! it names the plan, and the plan the very film, so there is no list that could contradict the
//! disk, and a worker whose supervisor is away can go on.

use super::super::codec::Encoder;
use super::super::output::names::path_text;
use super::super::output::publish::io_failure;
use super::super::plan::Plan;
use rustix::fs::{FlockOperation, OFlags};
use serde::{Deserialize, Serialize};
use shiftboss_protocol::job::{Cause, Failure};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Raised when parts of an older program cannot be joined with those of this one.
const FORMAT: u32 = 2;
const PLAN: &str = "plan.json";
const RECORD: &str = "record.json";
/// The encoders that have made parts here, in their order.
const ENCODERS: &str = "encoders.json";
/// Why the film must be encoded in one go, found out while chunks were made.
const WHOLE: &str = "whole";
const PASSING: &str = ".part";
/// A part whose files are whole, and in which nobody has looked for pictures yet.
const UNCHECKED: &str = ".unchecked";
/// Records and plans are kilobytes.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// What parts must have in common to be joined: stored beside them, and compared as a whole.
#[derive(Debug, Serialize)]
pub(crate) struct Identity<'a> {
    pub(crate) film: FilmFile,
    pub(crate) plan: &'a Plan,
    /// What comes out of the encoder: not which one that is, as parts of two may fit each other.
    pub(crate) codec: &'static str,
    /// What FFmpeg calls itself.
    pub(crate) tool: String,
    /// Stands for all cuts, and with them for the times of all pictures.
    pub(crate) cuts: String,
}

/// The film on disk. Its device is left out: such numbers are handed out anew at every boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FilmFile {
    path: String,
    inode: u64,
    bytes: u64,
    modified_ns: i128,
}

impl FilmFile {
    /// # Errors
    /// A [`Failure`] that names the film.
    pub(crate) fn look(path: &Path) -> Result<Self, Failure> {
        let found =
            path.metadata().map_err(|error| io_failure("cannot open the input", path, &error))?;
        Ok(Self {
            path: path_text(path),
            inode: found.ino(),
            bytes: found.len(),
            modified_ns: i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec()),
        })
    }
}

/// The encoders that were to fill this folder, the last one last.
pub(crate) fn encoders_of(folder: &Path) -> Vec<Encoder> {
    let stored = read_text(&folder.join(ENCODERS)).ok();
    stored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// What is known about a finished part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The [`Shelf::plan`] it belongs to.
    plan: String,
    part: String,
    files: Vec<Filed>,
    /// What made its pictures.
    pub(crate) encoder: Option<Encoder>,
    /// How the pictures of each file look to a player: size, format and colours.
    pub(crate) looks: Vec<String>,
    /// Hashes of the decoder's set-up, one for each file: joined files need the same.
    pub(crate) set_ups: Vec<Option<String>>,
    /// When its first picture is shown, microseconds, by the clock of each file.
    pub(crate) starts_us: Vec<i64>,
    /// Errors that FFmpeg reported, and the first of them.
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Filed {
    name: String,
    bytes: u64,
    sum: String,
}

impl Record {
    /// Of a run that reported so many errors, and the first of them.
    pub(crate) fn new((errors, first): (u64, Option<&str>)) -> Self {
        Self { errors, first_error: first.map(str::to_owned), ..Self::default() }
    }

    /// What one of its files has.
    pub(crate) fn bytes_of(&self, name: &str) -> u64 {
        let found = self.files.iter().find(|file| file.name == name);
        found.map_or(0, |file| file.bytes)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// The folder, locked while it lives.
#[derive(Debug)]
pub(crate) struct Shelf {
    path: PathBuf,
    folder: File,
    /// Stands for the plan of this attempt.
    plan: String,
}

impl Shelf {
    /// Opens the folder for parts of this encoder, and empties it unless it was filled by the same
    /// plan.
    ///
    /// # Errors
    /// A [`Failure`] that names the folder.
    pub(crate) fn open(
        path: PathBuf,
        identity: &Identity<'_>,
        encoder: Encoder,
    ) -> Result<Self, Failure> {
        let folder = File::open(&path).map_err(|error| io_failure("cannot open", &path, &error))?;
        if rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive)
            == Err(rustix::io::Errno::WOULDBLOCK)
        {
            let message = format!("{} is in use by another attempt", path.display());
            return Err(Failure::retryable(Cause::Error, message));
        }
        // The folder may be new: its own name must outlive a power cut too.
        if let Some(parent) = path.parent() {
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(|error| io_failure("cannot sync", parent, &error))?;
        }
        let text = serde_json::to_string(&(FORMAT, identity)).expect("it is made of plain values");
        let shelf = Self { path, folder, plan: sum_of(text.as_bytes()) };
        let is_same = read_text(&shelf.path.join(PLAN)).is_ok_and(|stored| stored == text);
        shelf.sweep(|name| name == ENCODERS || (is_same && !name.ends_with(PASSING)))?;
        let mut encoders = encoders_of(&shelf.path);
        if encoders.last() != Some(&encoder) {
            encoders.retain(|other| *other != encoder);
            encoders.push(encoder);
            let text = serde_json::to_string(&encoders).expect("they are names");
            shelf.write(ENCODERS, &text)?;
        }
        if !is_same {
            shelf.write(PLAN, &text)?;
        }
        Ok(shelf)
    }

    /// Removes what is not to be kept.
    fn sweep(&self, is_kept: impl Fn(&str) -> bool) -> Result<(), Failure> {
        let failed = |error: io::Error| io_failure("cannot clear", &self.path, &error);
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_str().is_some_and(&is_kept) {
                continue;
            }
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            let path = entry.path();
            let removed =
                if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(failed)?;
        }
        Ok(())
    }

    /// The record of a part whose files are what they were when they were put here; whatever
    /// else has the name of the part is removed.
    ///
    /// # Errors
    /// A [`Failure`] when it cannot be removed.
    pub(crate) fn take(&self, part: &str, names: &[String]) -> Result<Option<Record>, Failure> {
        self.take_named(part, (part, names))
    }

    /// The same of a part that is whole and was not checked.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(crate) fn take_unchecked(
        &self,
        part: &str,
        names: &[String],
    ) -> Result<Option<Record>, Failure> {
        self.take_named(&unchecked(part), (part, names))
    }

    fn take_named(&self, folder: &str, part: (&str, &[String])) -> Result<Option<Record>, Failure> {
        let path = self.path.join(folder);
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let record = self.proven(&path, part);
        if record.is_none() {
            self.sweep(|name| name != folder)?;
        }
        Ok(record)
    }

    /// Removes a part, checked or not.
    ///
    /// # Errors
    /// A [`Failure`] that names the folder.
    pub(crate) fn remove(&self, part: &str) -> Result<(), Failure> {
        let other = unchecked(part);
        self.sweep(|name| name != part && name != other)
    }

    fn proven(&self, folder: &Path, (part, names): (&str, &[String])) -> Option<Record> {
        let text = read_text(&folder.join(RECORD)).ok()?;
        let record: Record = serde_json::from_str(&text).ok()?;
        let is_own = record.plan == self.plan
            && record.part == part
            && record.files.iter().map(|file| &file.name).eq(names);
        let is_whole = |file: &Filed| {
            open_regular(&folder.join(&file.name))
                .and_then(|found| filed(&file.name, found))
                .is_ok_and(|found| found == *file)
        };
        (is_own && record.files.iter().all(is_whole)).then_some(record)
    }

    /// An empty folder in which a part can be made.
    ///
    /// # Errors
    /// A [`Failure`] that names the folder.
    pub(crate) fn begin(&self, part: &str) -> Result<PathBuf, Failure> {
        let passing = format!("{part}{PASSING}");
        self.sweep(|name| name != passing)?;
        self.remove(part)?;
        let path = self.path.join(passing);
        fs::create_dir(&path).map_err(|error| io_failure("cannot make", &path, &error))?;
        Ok(path)
    }

    /// Makes a part durable under its name.
    ///
    /// # Errors
    /// A [`Failure`] that names the file.
    pub(crate) fn put(
        &self,
        part: &str,
        names: &[String],
        record: Record,
    ) -> Result<Record, Failure> {
        self.keep((part, names), record, part)
    }

    /// Makes a part durable that is still to be checked.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(crate) fn put_unchecked(
        &self,
        part: &str,
        names: &[String],
        record: Record,
    ) -> Result<Record, Failure> {
        self.keep((part, names), record, &unchecked(part))
    }

    fn keep(
        &self,
        (part, names): (&str, &[String]),
        mut record: Record,
        folder: &str,
    ) -> Result<Record, Failure> {
        let passing = self.path.join(format!("{part}{PASSING}"));
        (record.plan, record.part) = (self.plan.clone(), part.to_owned());
        for name in names {
            let path = passing.join(name);
            let failed = |error: io::Error| io_failure("cannot sync", &path, &error);
            let file = open_regular(&path).map_err(failed)?;
            file.sync_all().map_err(failed)?;
            record.files.push(filed(name, file).map_err(failed)?);
        }
        let text = text_of(&record);
        let failed = |error: io::Error| io_failure("cannot keep", &passing, &error);
        write_synced(&passing.join(RECORD), &text).map_err(failed)?;
        self.rename(&passing, folder).map_err(failed)?;
        Ok(record)
    }

    /// Puts a part into its place that was checked, with what that has found.
    ///
    /// # Errors
    /// A [`Failure`] that names the folder.
    pub(crate) fn accept(&self, part: &str, record: &Record) -> Result<(), Failure> {
        let from = self.path.join(unchecked(part));
        let failed = |error: io::Error| io_failure("cannot keep", &from, &error);
        let passing = from.join(format!("{RECORD}{PASSING}"));
        write_synced(&passing, &text_of(record)).map_err(failed)?;
        fs::rename(&passing, from.join(RECORD)).map_err(failed)?;
        self.rename(&from, part).map_err(failed)
    }

    /// Both what is in a folder and its new name outlive a power cut.
    fn rename(&self, from: &Path, name: &str) -> io::Result<()> {
        File::open(from)?.sync_all()?;
        fs::rename(from, self.path.join(name))?;
        self.folder.sync_all()
    }

    /// Where a file of a part lies that is still to be checked.
    pub(crate) fn path_of_unchecked(&self, part: &str, name: &str) -> PathBuf {
        self.path.join(unchecked(part)).join(name)
    }

    /// Where a file of a finished part lies.
    pub(crate) fn path_of(&self, part: &str, name: &str) -> PathBuf {
        self.path.join(part).join(name)
    }

    /// Where a file of this attempt's own lies.
    pub(crate) fn own(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file of this attempt's own.
    ///
    /// # Errors
    /// A [`Failure`] that names the file.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let (passing, path) = (self.path.join(format!("{name}{PASSING}")), self.path.join(name));
        let failed = |error: io::Error| io_failure("cannot write", &path, &error);
        write_synced(&passing, text).map_err(failed)?;
        fs::rename(&passing, &path).map_err(failed)?;
        self.folder.sync_all().map_err(failed)?;
        Ok(path)
    }

    /// Why an earlier attempt found that this film must be encoded in one go.
    pub(crate) fn whole(&self) -> Option<String> {
        read_text(&self.path.join(WHOLE)).ok()
    }

    /// Gives the chunks up, for this attempt and the following ones.
    ///
    /// # Errors
    /// A [`Failure`] that names the folder.
    pub(crate) fn give_up(&self, reason: &str) -> Result<(), Failure> {
        self.write(WHOLE, reason)?;
        self.sweep(|name| [WHOLE, PLAN, ENCODERS].contains(&name))
    }
}

fn unchecked(part: &str) -> String {
    format!("{part}{UNCHECKED}")
}

fn text_of(record: &Record) -> String {
    serde_json::to_string(record).expect("it is made of plain values")
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Only a regular file: nothing is followed, and a pipe is not waited for.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open_regular(path)?.take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn filed(name: &str, mut file: File) -> io::Result<Filed> {
    let mut sum = Sum::default();
    let mut buffer = vec![0; 1 << 16];
    loop {
        // Filled up, so that the sum does not depend on how much one call reads.
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        sum.add(&buffer[..filled]);
        if filled < buffer.len() {
            return Ok(Filed { name: name.to_owned(), bytes: sum.bytes, sum: sum.text() });
        }
    }
}

/// FNV-1a over words of eight bytes: finds what disks and accidents do, not what an enemy does
/// who can write here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    hash: u64,
    bytes: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, bytes: 0 }
    }
}

impl Sum {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut eight = [0; 8];
            eight[..word.len()].copy_from_slice(word);
            let mixed = (self.hash ^ u64::from_le_bytes(eight)).wrapping_mul(0x0100_0000_01b3);
            // The multiplication alone carries nothing down from the upper bits.
            self.hash = mixed ^ (mixed >> 29);
        }
        self.bytes += u64::try_from(bytes.len()).unwrap_or(0);
    }

    pub(crate) fn text(&self) -> String {
        format!("{:016x}-{}", self.hash, self.bytes)
    }
}

fn sum_of(bytes: &[u8]) -> String {
    let mut sum = Sum::default();
    sum.add(bytes);
    sum.text()
}
