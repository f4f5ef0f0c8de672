//! A folder of outputs that is published by one rename, so that whoever reads it never finds
//! parts of two films in it.

use super::publish::{io_failure, open_directory, open_file, sync};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use shiftboss_protocol::job::{Cause, Failure};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Entries of one folder: several days of segments.
const ENTRIES_MAX: usize = 1_000_000;

/// A folder that is being filled.
#[derive(Debug)]
pub(crate) struct Parcel {
    folder: OwnedFd,
    name: String,
    path: PathBuf,
}

impl Parcel {
    pub(super) fn make(staging: &OwnedFd, within: &Path, name: &str) -> Result<Self, Failure> {
        let path = within.join(name);
        let failed = |error: Errno| io_failure("cannot make", &path, &error.into());
        let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
        rustix::fs::mkdirat(staging, name, mode).map_err(failed)?;
        let folder = open_directory(staging, Path::new(name)).map_err(failed)?;
        Ok(Self { folder, name: name.to_owned(), path })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it lies until it is published.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file in it; a link or a pipe is refused.
    ///
    /// # Errors
    /// A [`Failure`] that names the file.
    pub(crate) fn open(&self, name: &str) -> Result<File, Failure> {
        open_file(&self.folder, &self.path, name)
    }

    /// Writes a file, in place of one that is there.
    ///
    /// # Errors
    /// A [`Failure`] that names the file.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let passing = format!("{name}.new");
        rustix::fs::openat(&self.folder, passing.as_str(), flags, mode)
            .map_err(io::Error::from)
            .and_then(|file| File::from(file).write_all(text.as_bytes()))
            .and_then(|()| {
                Ok(rustix::fs::renameat(&self.folder, passing.as_str(), &self.folder, name)?)
            })
            .map_err(|error| io_failure("cannot write", &self.path.join(name), &error))
    }

    /// Names of all that is in it, sorted.
    ///
    /// # Errors
    /// A [`Failure`] that names the folder.
    pub(crate) fn names(&self) -> Result<Vec<String>, Failure> {
        names(&self.folder).map_err(|error| io_failure("cannot list", &self.path, &error))
    }

    /// Makes all of it durable; gives the folder's inode.
    pub(super) fn seal(&self) -> Result<u64, Failure> {
        for name in self.names()? {
            let failed =
                |error: io::Error| io_failure("cannot sync", &self.path.join(&name), &error);
            self.open(&name)?.sync_all().map_err(failed)?;
        }
        sync(&self.folder, &self.path)?;
        let stat = rustix::fs::fstat(&self.folder)
            .map_err(|error| io_failure("cannot read", &self.path, &error.into()))?;
        Ok(stat.st_ino)
    }

    /// A folder in its place is replaced when it was made by an encode before, and by nobody
    /// else: all that is in it has a name that such a folder's files have.
    pub(super) fn may_replace(&self, output_dir: &OwnedFd) -> Result<(), Failure> {
        let found = rustix::fs::statat(output_dir, self.name.as_str(), AtFlags::SYMLINK_NOFOLLOW);
        let Ok(found) = found else { return Ok(()) };
        let is_own = FileType::from_raw_mode(found.st_mode) == FileType::Directory
            && open_directory(output_dir, Path::new(&self.name))
                .map_err(io::Error::from)
                .and_then(|folder| names(&folder))
                .is_ok_and(|names| names.iter().all(|name| is_own(name)));
        if is_own {
            return Ok(());
        }
        let name = &self.name;
        let message = format!("cannot publish {name}: something else of that name is in the way");
        Err(Failure::permanent(Cause::Error, message))
    }
}

fn is_own(name: &str) -> bool {
    [".m3u8", ".m4s", "-init.mp4"].iter().any(|end| name.ends_with(end))
}

fn names(folder: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !matches!(name.as_str(), "." | "..") {
            names.push(name);
        }
        if names.len() > ENTRIES_MAX {
            return Err(io::Error::other(format!("it has more than {ENTRIES_MAX} entries")));
        }
    }
    names.sort();
    Ok(names)
}

/// Moves a folder to its place; one that is there already comes back in its stead.
pub(super) fn rename(from: &OwnedFd, to: &OwnedFd, name: &str) -> Result<(), Errno> {
    match rustix::fs::renameat(from, name, to, name) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    match rustix::fs::renameat_with(from, name, to, name, RenameFlags::EXCHANGE) {
        // Some file systems cannot exchange: for a moment there is none.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            rustix::fs::renameat(to, name, from, format!("before-{name}"))?;
            rustix::fs::renameat(from, name, to, name)
        }
        other => other,
    }
}
