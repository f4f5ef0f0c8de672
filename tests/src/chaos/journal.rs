//! Journals of a run, one line per fact, appended by a single write, so that a kill -9 leaves
//! whole lines: what programs did, what was acknowledged, what was asked to be cancelled.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where the journals of a run lie.
#[derive(Clone, Debug)]
pub struct Journals(PathBuf);

/// What a program wrote down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It began.
    Start,
    /// It was done; true when it then ended with 0.
    End(bool),
    /// When it began, somebody of an earlier attempt still held the job's lock.
    Overlap,
}

/// A line of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of a line")]
pub struct Line {
    pub deed: Deed,
    pub job: i64,
    pub attempt: i64,
    pub pid: i32,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub at_ns: i64,
}

/// What the names of wishes begin with.
const WISH: &str = "kill-worker-";

impl Journals {
    /// Journals in a folder.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// What programs wrote.
    #[must_use]
    pub fn deeds(&self) -> PathBuf {
        self.0.join("deeds")
    }

    /// Jobs whose insert was acknowledged, as JSON lines.
    #[must_use]
    pub fn accepted(&self) -> PathBuf {
        self.0.join("accepted")
    }

    /// Jobs that somebody asked to cancel.
    #[must_use]
    pub fn cancelled(&self) -> PathBuf {
        self.0.join("cancelled")
    }

    /// The file whose lock the processes of a job's attempt hold.
    #[must_use]
    pub fn lock(&self, job: i64) -> PathBuf {
        self.0.join("locks").join(job.to_string())
    }

    /// Wishes that the worker of this attempt be killed: no program reaches it itself.
    ///
    /// # Errors
    /// When the wish cannot be written.
    pub fn wish(&self, job: i64, attempt: i64) -> io::Result<()> {
        File::create(self.0.join(format!("{WISH}{job}-{attempt}"))).map(drop)
    }

    /// Wishes that were not granted yet: the file of each, its job and its attempt.
    #[must_use]
    pub fn wishes(&self) -> Vec<(PathBuf, i64, i64)> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let wish = |entry: std::fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let (job, attempt) = name.strip_prefix(WISH)?.split_once('-')?;
            Some((entry.path(), job.parse().ok()?, attempt.parse().ok()?))
        };
        entries.filter_map(wish).collect()
    }

    /// Appends a line of a program.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn note(&self, deed: Deed, job: i64, attempt: i64) -> io::Result<()> {
        let word = match deed {
            Deed::Start => "start",
            Deed::End(true) => "end-ok",
            Deed::End(false) => "end-bad",
            Deed::Overlap => "overlap",
        };
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let at_ns = now.tv_sec * 1_000_000_000 + now.tv_nsec;
        let pid = std::process::id();
        append(&self.deeds(), &format!("{word} {job} {attempt} {pid} {at_ns}"))
    }
}

/// Appends one line.
///
/// # Errors
/// When the file cannot be written.
pub fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = File::options().append(true).create(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("not a line of a journal: {text:?}");
        let words: Vec<&str> = text.split(' ').collect();
        let [deed, numbers @ ..] = &words[..] else { return Err(wrong()) };
        let deed = match *deed {
            "start" => Deed::Start,
            "end-ok" => Deed::End(true),
            "end-bad" => Deed::End(false),
            "overlap" => Deed::Overlap,
            _ => return Err(wrong()),
        };
        let numbers: Result<Vec<i64>, _> = numbers.iter().map(|one| one.parse()).collect();
        match numbers.map_err(|_| wrong())?[..] {
            [job, attempt, pid, at_ns] => {
                let pid = i32::try_from(pid).map_err(|_| wrong())?;
                Ok(Self { deed, job, attempt, pid, at_ns })
            }
            _ => Err(wrong()),
        }
    }
}
