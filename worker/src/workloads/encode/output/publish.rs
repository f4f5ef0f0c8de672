//! Outputs appear all or none: FFmpeg writes into a staging folder inside the output folder,
//! and what was verified is renamed into place by a list that is stored first. The next
//! attempt finishes a stored list ([`finish`]) before it does anything else.

use super::parcel::{self, Parcel};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use shiftboss_protocol::job::{Cause, Failure};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What is to be renamed, and what the job's result is then. Stored as the job's checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RenameList {
    /// Name of the staging folder within the output folder.
    staging: String,
    files: Vec<Renamed>,
    /// The job's result once all are in place.
    pub(crate) result: serde_json::Value,
}

/// One file, or a folder with all that is in it. Its inode proves that what lies at the target is
/// what was staged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Renamed {
    name: String,
    /// Of a file; a folder's own size means nothing.
    bytes: u64,
    inode: u64,
    #[serde(default)]
    is_folder: bool,
}

impl Renamed {
    fn is_at(&self, folder: &OwnedFd) -> bool {
        let found = rustix::fs::statat(folder, self.name.as_str(), AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|at| {
            let is_folder = FileType::from_raw_mode(at.st_mode) == FileType::Directory;
            at.st_ino == self.inode
                && is_folder == self.is_folder
                && (is_folder || u64::try_from(at.st_size).is_ok_and(|size| size == self.bytes))
        })
    }

    fn rename(&self, from: &OwnedFd, to: &OwnedFd, output_dir: &Path) -> Result<(), Failure> {
        let renamed = if self.is_folder {
            parcel::rename(from, to, &self.name)
        } else {
            rustix::fs::renameat(from, self.name.as_str(), to, self.name.as_str())
        };
        renamed
            .map_err(|error| io_failure("cannot rename an output into", output_dir, &error.into()))
    }
}

/// The output folder, and in it the staging folder of one attempt, locked while it lives.
#[derive(Debug)]
pub(crate) struct Staging {
    output_dir: OwnedFd,
    folder: OwnedFd,
    name: String,
    path: PathBuf,
}

impl Staging {
    /// Makes the output folder when its parent exists, removes what earlier attempts of the
    /// job left, and makes the staging folder of this one.
    ///
    /// # Errors
    /// A [`Failure`] that names the folder.
    pub(crate) fn open(output_dir: &Path, job: i64, attempt: u32) -> Result<Self, Failure> {
        let failed = |action: &str, error: &io::Error| io_failure(action, output_dir, error);
        match std::fs::create_dir(output_dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("cannot make the output folder", &error)),
        }
        let directory = open_directory(rustix::fs::CWD, output_dir)
            .map_err(|error| failed("cannot open the output folder", &error.into()))?;
        remove_leftovers(&directory, output_dir, job)?;
        let name = folder_name(job, attempt);
        rustix::fs::mkdirat(&directory, &name, Mode::RWXU)
            .map_err(|error| failed("cannot make a staging folder in", &error.into()))?;
        let folder = open_directory(&directory, Path::new(&name))
            .map_err(|error| failed("cannot open the staging folder in", &error.into()))?;
        // Tells the attempts of another supervisor's job of the same number that it is in use.
        // Advisory, and file systems without locks exist: a lock that fails harms nothing.
        let _ = rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive);
        let path = output_dir.join(&name);
        Ok(Self { output_dir: directory, folder, name, path })
    }

    /// Where FFmpeg writes the file that will be called `name`.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder that FFmpeg writes into.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Size of a staged file. Only the file itself counts: a link or a pipe in its place is
    /// refused, and nothing is followed.
    ///
    /// # Errors
    /// A [`Failure`] that names the file.
    pub(crate) fn bytes_of(&self, name: &str) -> Result<u64, Failure> {
        let stat = rustix::fs::fstat(self.open_result(name)?)
            .map_err(|error| io_failure("cannot read", &self.path_of(name), &error.into()))?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    fn open_result(&self, name: &str) -> Result<File, Failure> {
        open_file(&self.folder, &self.path, name)
    }

    /// Makes the staged files durable and returns the list that moves them into place.
    ///
    /// # Errors
    /// A [`Failure`] that names the file, or a target that is a folder.
    pub(crate) fn seal(
        &self,
        names: &[String],
        result: serde_json::Value,
    ) -> Result<RenameList, Failure> {
        let mut files = Vec::new();
        for name in names {
            let file = self.open_result(name)?;
            let failed = |error: &io::Error| io_failure("cannot sync", &self.path_of(name), error);
            file.sync_all().map_err(|error| failed(&error))?;
            let stat = rustix::fs::fstat(&file).map_err(|error| failed(&error.into()))?;
            let target =
                rustix::fs::statat(&self.output_dir, name.as_str(), AtFlags::SYMLINK_NOFOLLOW);
            if target.is_ok_and(|at| FileType::from_raw_mode(at.st_mode) == FileType::Directory) {
                let message = format!("cannot publish {name}: a folder of that name is in the way");
                return Err(Failure::permanent(Cause::Error, message));
            }
            let bytes = u64::try_from(stat.st_size).unwrap_or(0);
            let inode = stat.st_ino;
            files.push(Renamed { name: name.clone(), bytes, inode, is_folder: false });
        }
        sync(&self.folder, &self.path)?;
        Ok(RenameList { staging: self.name.clone(), files, result })
    }

    /// Makes a folder in the staging folder, to be published as one.
    ///
    /// # Errors
    /// A [`Failure`] that names the folder.
    pub(crate) fn parcel(&self, name: &str) -> Result<Parcel, Failure> {
        Parcel::make(&self.folder, &self.path, name)
    }

    /// The same as [`Staging::seal`] for a folder.
    ///
    /// # Errors
    /// A [`Failure`] that names the file, or says what is in the way.
    pub(crate) fn seal_parcel(
        &self,
        parcel: &Parcel,
        result: serde_json::Value,
    ) -> Result<RenameList, Failure> {
        let inode = parcel.seal()?;
        parcel.may_replace(&self.output_dir)?;
        sync(&self.folder, &self.path)?;
        let name = parcel.name().to_owned();
        let files = vec![Renamed { name, bytes: 0, inode, is_folder: true }];
        Ok(RenameList { staging: self.name.clone(), files, result })
    }

    /// Removes the staging folder and what is in it; what cannot be removed now is removed by
    /// the job's next attempt.
    pub(crate) fn discard(self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }

    /// Renames every file of a stored list into place and makes that durable.
    ///
    /// # Errors
    /// A retryable [`Failure`]: the list is stored, the next attempt goes on with it.
    pub(crate) fn publish(&self, list: &RenameList, output_dir: &Path) -> Result<(), Failure> {
        for file in &list.files {
            file.rename(&self.folder, &self.output_dir, output_dir)?;
        }
        sync(&self.output_dir, output_dir)
    }
}

/// Goes on with the list that an earlier attempt stored. `None` when there is none, or when it
/// cannot be finished because a file is neither staged nor in place: then all is made anew.
///
/// # Errors
/// A retryable [`Failure`] when a rename or a sync fails.
pub(crate) fn finish(
    checkpoint: Option<&[u8]>,
    output_dir: &Path,
    job: i64,
) -> Result<Option<serde_json::Value>, Failure> {
    let list = checkpoint.and_then(|bytes| serde_json::from_slice::<RenameList>(bytes).ok());
    let Some(list) = list.filter(|list| is_own(list, job)) else { return Ok(None) };
    let Ok(directory) = open_directory(rustix::fs::CWD, output_dir) else { return Ok(None) };
    let staging = open_directory(&directory, Path::new(&list.staging)).ok();
    let is_staged = |file: &Renamed| staging.as_ref().is_some_and(|folder| file.is_at(folder));
    if !list.files.iter().all(|file| is_staged(file) || file.is_at(&directory)) {
        return Ok(None);
    }
    if let Some(staging) = staging.as_ref() {
        for file in list.files.iter().filter(|file| is_staged(file)) {
            file.rename(staging, &directory, output_dir)?;
        }
    }
    sync(&directory, output_dir)?;
    let _ = std::fs::remove_dir_all(output_dir.join(&list.staging));
    Ok(Some(list.result))
}

/// The stored list comes from a table that others can write: it may name nothing but files of
/// this job's staging folder.
fn is_own(list: &RenameList, job: i64) -> bool {
    let is_plain = |name: &str| !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    attempt_of(&list.staging, job).is_some()
        && !list.files.is_empty()
        && list.files.iter().all(|file| is_plain(&file.name))
}

fn folder_name(job: i64, attempt: u32) -> String {
    format!(".shiftboss-{job}-{attempt}")
}

fn attempt_of(name: &str, job: i64) -> Option<u32> {
    name.strip_prefix(&format!(".shiftboss-{job}-"))?.parse().ok()
}

fn remove_leftovers(directory: &OwnedFd, output_dir: &Path, job: i64) -> Result<(), Failure> {
    let failed = |error: io::Error| io_failure("cannot list the output folder", output_dir, &error);
    for entry in std::fs::read_dir(output_dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str().filter(|name| attempt_of(name, job).is_some()) else {
            continue;
        };
        let Ok(folder) = open_directory(directory, Path::new(name)) else { continue };
        let path = output_dir.join(name);
        let lock = rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive);
        if lock == Err(Errno::WOULDBLOCK) {
            let message = format!(
                "{} is in use: another supervisor runs a job of the same number with this output \
                 folder",
                path.display()
            );
            return Err(Failure::retryable(Cause::Error, message));
        }
        std::fs::remove_dir_all(&path)
            .map_err(|error| io_failure("cannot remove", &path, &error))?;
    }
    Ok(())
}

/// Opens a file in `folder`, which lies at `path`. Only the file itself: a link or a pipe in its
/// place is refused, and nothing is followed.
///
/// # Errors
/// A [`Failure`] that names the file.
pub(super) fn open_file(folder: &OwnedFd, path: &Path, name: &str) -> Result<File, Failure> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let path = path.join(name);
    let failed = |error: Errno| io_failure("cannot open", &path, &error.into());
    let file = rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&file).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        let message = format!("{} is not a regular file", path.display());
        return Err(Failure::permanent(Cause::Error, message));
    }
    Ok(File::from(file))
}

pub(super) fn open_directory(at: impl rustix::fd::AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

pub(super) fn sync(folder: &OwnedFd, path: &Path) -> Result<(), Failure> {
    match rustix::fs::fsync(folder) {
        // Some network file systems cannot sync folders, and say so this way.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(io_failure("cannot sync", path, &error.into())),
    }
}

/// What a person can change by hand is permanent; what passes by itself is retried.
pub(crate) fn io_failure(action: &str, path: &Path, error: &io::Error) -> Failure {
    let message = format!("{action} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::InvalidInput => Failure::permanent(Cause::Error, message),
        _ => Failure::retryable(Cause::Error, message),
    }
}
