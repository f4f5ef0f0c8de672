//! Room and permissions of folders.

use nix::unistd::{AccessFlags, access};
use std::io;
use std::path::Path;

/// Room on the file system of a folder, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What we may still use.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// Room on the file system that holds `path`.
///
/// # Errors
/// When there is no such path.
pub fn room(path: &Path) -> io::Result<Room> {
    let facts = rustix::fs::statvfs(path)?;
    Ok(Room { free: facts.f_bavail * facts.f_frsize, total: facts.f_blocks * facts.f_frsize })
}

/// Whether we may read, write and search the folder.
#[must_use]
pub fn is_usable(folder: &Path) -> bool {
    access(folder, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}
