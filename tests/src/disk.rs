//! A small file system in memory, so that a full and a read-only disk can be tried.

use crate::skip;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mounted file system; unmounted in the end.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts a file system of so many MiB on a folder; `None` (and a skip) where that is not
    /// allowed.
    #[must_use]
    pub fn mount(test: &str, path: &Path, mib: u32) -> Option<Self> {
        let size = format!("size={mib}m");
        if mount(&["-t", "tmpfs", "-o", &size, "none"], path) {
            return Some(Self { path: path.to_owned() });
        }
        skip(test, "no file system can be mounted here (needs root)");
        None
    }

    /// Fills it to the last byte; the room comes back with [`Self::empty`].
    ///
    /// # Panics
    /// When it cannot be written at all.
    pub fn fill(&self) {
        let file = File::options().append(true).create(true).open(self.path.join("filler"));
        let mut file = file.expect("an empty file fits");
        for size in [1 << 16, 1 << 10, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Gives the room of [`Self::fill`] back.
    ///
    /// # Panics
    /// When it was not filled.
    pub fn empty(&self) {
        std::fs::remove_file(self.path.join("filler")).expect("it was filled");
    }

    /// Forbids writing.
    ///
    /// # Panics
    /// When that fails.
    pub fn make_read_only(&self) {
        assert!(mount(&["-o", "remount,ro"], &self.path), "{} stays", self.path.display());
    }
}

fn mount(options: &[&str], path: &Path) -> bool {
    let mut command = Command::new("mount");
    let status = command.args(options).arg(path).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process on its way out may still have something open there.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
