//! What the next supervisor must know of our workers: one file per worker in the runtime
//! directory, one per program that runs. Workers never see them, and they end with the boot.
//!
//! A record proves nothing by itself: the process must have the recorded start time, still hold
//! its lock, and say the token whose hash stands here.

use crate::os::dirs;
use crate::os::lock::{Holder, holder};
use crate::os::process::facts::Seen;
use crate::os::process::{Process, facts};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shiftboss_protocol::job::{Attempt, JobId};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Written into every record. One of another version is not understood: its worker is ended.
pub(super) const RECORD_VERSION: u32 = 1;

/// No record is larger, bytes.
const RECORD_BYTES_MAX: u64 = 64 << 10;

/// What the names of the two kinds of file end with.
const WORKER_SUFFIX: &str = ".worker";
const LAUNCHER_SUFFIX: &str = ".launcher";
/// One that is being written: it comes last, so that no reader takes it for one of the others.
const UNFINISHED_SUFFIX: &str = ".new";

/// A worker process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WorkerRecord {
    pub(super) version: u32,
    /// The boot in which its process number means something.
    pub(super) boot_id: String,
    pub(super) pid: u32,
    pub(super) start_ticks: u64,
    /// SHA-256 of its token.
    pub(super) token_sha256: [u8; 32],
    pub(super) job_type: String,
    pub(super) slot: u32,
    pub(super) workload: String,
    pub(super) concurrency: u32,
    pub(super) started_ms: i64,
    /// Instances that spawned it or took it over: its programs and outcomes carry their names,
    /// and so does its own environment.
    #[serde(default)]
    pub(super) owners: BTreeSet<String>,
    /// The file that it holds a lock on for life.
    pub(super) lock: PathBuf,
    /// The group that its own and its programs' groups lie in.
    #[serde(default)]
    pub(super) group: Option<PathBuf>,
}

/// A launcher: its exit comes last in its program's tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LauncherRecord {
    boot_id: String,
    pid: u32,
    start_ticks: u64,
}

/// A launcher that runs: its number is also that of its session.
#[derive(Debug)]
pub(super) struct Launcher {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
}

/// What became of a worker on record.
#[derive(Debug)]
pub(super) enum Found {
    /// It lives and is held.
    Lives(Process),
    /// Its lock is held and no process has its number: it lives where this supervisor cannot reach
    /// it, for example in a container of its own.
    Elsewhere,
    /// It has ended.
    Gone,
}

/// Where a worker's record lies; `name` is that of its lock, without the ending.
pub(super) fn worker_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{WORKER_SUFFIX}"))
}

impl WorkerRecord {
    /// Whether it lives. The lock decides: the worker alone holds it, and for life. So its number
    /// is its own while the lock is held, also where `/proc` does not show the process.
    pub(super) fn find(&self, boot_id: &str) -> Found {
        let is_readable = self.version == RECORD_VERSION && self.boot_id == boot_id;
        if !is_readable || holder(&self.lock) != Holder::Somebody {
            return Found::Gone;
        }
        match facts::look(self.pid, self.start_ticks) {
            Seen::Same(pidfd) | Seen::Hidden(pidfd) => {
                Process::held(self.pid, pidfd).map_or(Found::Elsewhere, Found::Lives)
            }
            // Its end may have come between the two questions.
            Seen::Gone if holder(&self.lock) == Holder::Somebody => Found::Elsewhere,
            Seen::Gone => Found::Gone,
        }
    }

    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        write(path, self)
    }
}

/// All records of workers, with their files. What is none is removed.
pub(super) fn workers(dir: &Path) -> Vec<(PathBuf, WorkerRecord)> {
    files(dir, WORKER_SUFFIX).filter_map(|path| Some((path.clone(), read(&path)?))).collect()
}

/// Every instance that the workers on record have or had.
pub(super) fn owners(dir: &Path) -> BTreeSet<String> {
    workers(dir).into_iter().flat_map(|(_, record)| record.owners).collect()
}

/// Remembers the launcher of an attempt's program.
pub(super) fn write_launcher(dir: &Path, key: (JobId, Attempt), pid: u32, boot_id: &str) {
    // One that has ended already needs no record.
    let Some(stat) = facts::stat(pid) else { return };
    let record = LauncherRecord { boot_id: boot_id.to_owned(), pid, start_ticks: stat.start_ticks };
    if let Err(error) = write(&launcher_path(dir, key), &record) {
        tracing::warn!(
            job = key.0.0,
            %error,
            "cannot record the launcher of job {}: a successor of this supervisor finds its \
             program by its environment only",
            key.0
        );
    }
}

pub(super) fn remove_launcher(dir: &Path, key: (JobId, Attempt)) {
    let _ = fs::remove_file(launcher_path(dir, key));
}

/// The launcher of an attempt, while it runs and is known to be it.
pub(super) fn launcher(dir: &Path, key: (JobId, Attempt), boot_id: &str) -> Option<Launcher> {
    match look_for_launcher(dir, key, boot_id)? {
        (pid, Seen::Same(pidfd)) => Some(Launcher { pid, pidfd }),
        (_, Seen::Hidden(_) | Seen::Gone) => None,
    }
}

/// The number of an attempt's launcher, when a process has it that `/proc` does not show: it may
/// be the launcher, so it is waited for, and it may be another process, so it is not killed.
pub(super) fn hidden_launcher(dir: &Path, key: (JobId, Attempt), boot_id: &str) -> Option<u32> {
    match look_for_launcher(dir, key, boot_id)? {
        (pid, Seen::Hidden(_)) => Some(pid),
        (_, Seen::Same(_) | Seen::Gone) => None,
    }
}

fn look_for_launcher(dir: &Path, key: (JobId, Attempt), boot_id: &str) -> Option<(u32, Seen)> {
    let record: LauncherRecord = read(&launcher_path(dir, key))?;
    (record.boot_id == boot_id).then(|| (record.pid, facts::look(record.pid, record.start_ticks)))
}

/// Attempts whose launchers are on record.
pub(super) fn launched(dir: &Path) -> Vec<(JobId, Attempt)> {
    files(dir, LAUNCHER_SUFFIX)
        .filter_map(|path| {
            let (job, attempt) = path.file_stem()?.to_str()?.split_once('-')?;
            Some((JobId(job.parse().ok()?), Attempt(attempt.parse().ok()?)))
        })
        .collect()
}

fn launcher_path(dir: &Path, (job, attempt): (JobId, Attempt)) -> PathBuf {
    dir.join(format!("{job}-{attempt}{LAUNCHER_SUFFIX}"))
}

fn files(dir: &Path, suffix: &'static str) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(move |path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(suffix))
    })
}

/// Removes what a supervisor was about to write when it died. Call it only for the folder of an
/// instance whose supervisor this is.
pub(super) fn remove_unfinished(dir: &Path) {
    for path in files(dir, UNFINISHED_SUFFIX) {
        let _ = fs::remove_file(path);
    }
}

/// Written beside its place and renamed: a reader finds all of it or nothing. Not synced, since
/// it means nothing after a power cut.
fn write(path: &Path, record: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(record).map_err(io::Error::other)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(UNFINISHED_SUFFIX);
    let temporary = PathBuf::from(temporary);
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options
        .open(&temporary)
        .and_then(|mut file| io::Write::write_all(&mut file, &text))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A record that is cut, somebody else's, or no record at all is removed and told.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let found = open(path).and_then(|file| {
        let mut text = Vec::new();
        file.take(RECORD_BYTES_MAX).read_to_end(&mut text)?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    });
    match found {
        Ok(record) => Some(record),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "not a record of ours, removed");
            let _ = fs::remove_file(path);
            None
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if !dirs::is_own_file(path)? {
        return Err(io::Error::other("not a file of this supervisor's user"));
    }
    File::open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(dir: &Path, pid: u32) -> WorkerRecord {
        WorkerRecord {
            version: RECORD_VERSION,
            boot_id: "boot".to_owned(),
            pid,
            start_ticks: facts::stat(pid).expect("it runs").start_ticks,
            token_sha256: [7; 32],
            job_type: "command".to_owned(),
            slot: 3,
            workload: "command".to_owned(),
            concurrency: 1,
            started_ms: 5,
            owners: BTreeSet::from(["main-1".to_owned()]),
            lock: dir.join("lock"),
            group: Some(dir.join("command-3")),
        }
    }

    #[test]
    fn a_worker_is_found_by_start_time_boot_and_lock() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let written = record(dir.path(), std::process::id());
        written.write(&worker_path(dir.path(), "a.1")).expect("written");
        let (_, read) = workers(dir.path()).pop().expect("it is there");
        assert_eq!(read, written);
        let later = WorkerRecord { start_ticks: read.start_ticks + 1, ..read.clone() };
        let newer = WorkerRecord { version: RECORD_VERSION + 1, ..read.clone() };
        assert!(matches!(read.find("boot"), Found::Gone), "nobody holds the lock");
        let lock = crate::os::lock::acquire(&read.lock, "").expect("it can be made");
        assert!(matches!(read.find("boot"), Found::Lives(_)));
        assert!(matches!(read.find("another boot"), Found::Gone));
        assert!(matches!(later.find("boot"), Found::Elsewhere), "the lock is held all the same");
        assert!(matches!(newer.find("boot"), Found::Gone));
        drop(lock);
        assert!(matches!(later.find("boot"), Found::Gone));
    }

    #[test]
    fn what_is_no_record_is_removed() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let path = |name: &str| worker_path(dir.path(), name);
        record(dir.path(), std::process::id()).write(&path("whole")).expect("written");
        let text = fs::read(path("whole")).expect("it is there");
        fs::write(path("cut"), &text[..text.len() / 2]).expect("written");
        fs::write(path("garbage"), [0xFF; 100]).expect("written");
        std::os::unix::fs::symlink(path("whole"), path("link")).expect("links work");
        assert_eq!(workers(dir.path()).len(), 1);
        assert!(path("whole").exists());
        assert!(!path("cut").exists() && !path("garbage").exists());
        assert!(fs::symlink_metadata(path("link")).is_err());
    }

    #[test]
    fn what_was_not_written_whole_is_no_record_and_is_removed() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let written = record(dir.path(), std::process::id());
        written.write(&worker_path(dir.path(), "whole")).expect("written");
        for name in ["a.1.worker.new", "6-1.launcher.new", "6-1.new"] {
            fs::write(dir.path().join(name), "").expect("written");
        }
        assert_eq!(workers(dir.path()).len(), 1);
        assert!(launched(dir.path()).is_empty());
        remove_unfinished(dir.path());
        let left = fs::read_dir(dir.path()).expect("it is there").count();
        assert_eq!(left, 1, "the whole one alone");
        // A folder in the way: neither it nor anything else is left.
        fs::create_dir(worker_path(dir.path(), "folder")).expect("made");
        written.write(&worker_path(dir.path(), "folder")).expect_err("a folder is in the way");
        assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 2);
    }

    #[test]
    fn launchers_are_found_by_their_attempt() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let key = (JobId(4), Attempt(2));
        write_launcher(dir.path(), key, std::process::id(), "boot");
        assert_eq!(launched(dir.path()), [key]);
        assert_eq!(launcher(dir.path(), key, "boot").expect("it runs").pid, std::process::id());
        assert!(launcher(dir.path(), key, "another boot").is_none());
        remove_launcher(dir.path(), key);
        assert!(launched(dir.path()).is_empty());
    }
}
