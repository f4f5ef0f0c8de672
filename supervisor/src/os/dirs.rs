//! Folders that must be ours alone, and the file systems that SQLite cannot be trusted on.

use nix::unistd::getuid;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made or looked at.
    #[error("cannot make folder {0}")]
    Make(PathBuf, #[source] io::Error),
    /// Somebody else made it, perhaps to listen in.
    #[error("folder {0} belongs to user {1}, not to us: remove it or set runtime_dir")]
    Foreign(PathBuf, u32),
    /// It is a link or a file.
    #[error("{0} is not a folder: remove it or set runtime_dir")]
    NotAFolder(PathBuf),
}

/// Makes `path` and its missing parents, for our user alone (mode 0700), and checks that the
/// last one really is ours: under /tmp anybody could have made it first.
///
/// # Errors
/// Any [`Error`].
pub fn private(path: &Path) -> Result<(), Error> {
    let make = |error| Error::Make(path.to_owned(), error);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(make)?;
    let facts = fs::symlink_metadata(path).map_err(make)?;
    if !facts.is_dir() {
        return Err(Error::NotAFolder(path.to_owned()));
    }
    if facts.uid() != getuid().as_raw() {
        return Err(Error::Foreign(path.to_owned(), facts.uid()));
    }
    if facts.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(make)?;
    }
    Ok(())
}

/// The folders in a folder by name, links left out. A folder that cannot be read has none.
#[must_use]
pub fn folders_in(path: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect()
}

/// True when `path` is a file, not a link, and belongs to our user.
///
/// # Errors
/// When it cannot be looked at.
pub fn is_own_file(path: &Path) -> io::Result<bool> {
    let facts = fs::symlink_metadata(path)?;
    Ok(facts.is_file() && facts.uid() == getuid().as_raw())
}

/// Opens `path` for reading if it is a file, not a link, and belongs to our user. Does not wait
/// for a pipe that lies there.
///
/// # Errors
/// When it cannot be opened.
pub fn open_own_file(path: &Path) -> io::Result<Option<File>> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(None),
        opened => opened?,
    };
    let facts = file.metadata()?;
    Ok((facts.is_file() && facts.uid() == getuid().as_raw()).then_some(file))
}

/// File systems by the magic numbers of linux/magic.h.
const NETWORK: [(u32, &str); 6] = [
    (0x6969, "nfs"),
    (0xFF53_4D42, "cifs"),
    (0xFE53_4D42, "smb2"),
    (0x517B, "smb"),
    (0x0102_1997, "9p"),
    (0x00C3_6400, "ceph"),
];

const TMPFS: u32 = 0x0102_1994;

/// The name of the network file system that `path` lies on, if it lies on one: locks and
/// shared memory of SQLite's WAL mode do not work there.
#[must_use]
pub fn network_file_system(path: &Path) -> Option<&'static str> {
    let magic = magic(path)?;
    NETWORK.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name)
}

/// True when `path` lies in memory: what is stored there is gone after a power cut.
#[must_use]
pub fn is_tmpfs(path: &Path) -> bool {
    magic(path) == Some(TMPFS)
}

fn magic(path: &Path) -> Option<u32> {
    let facts = rustix::fs::statfs(path).ok()?;
    // The field is signed on some architectures; the magic numbers have 32 bits.
    Some(facts.f_type as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_folder_is_closed_to_others_also_when_it_was_open() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let path = dir.path().join("a/b");
        private(&path).expect("it can be made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        private(&path).expect("it exists");
        let mode = fs::metadata(&path).expect("it exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_link_is_no_private_folder() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).expect("links work");
        assert!(matches!(private(&link), Err(Error::NotAFolder(_))));
    }
}
