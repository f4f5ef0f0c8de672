//! Control groups, version 2: they limit what workers and programs use, and kill whole trees.
//!
//! [`tree`] finds the group that is ours to divide, [`slot`] makes the groups of one worker,
//! [`group`] kills, watches and removes any group; one file per controller. Every function
//! takes a folder, so that it can be tried on an ordinary one.

pub mod cpu;
pub mod group;
pub mod io;
pub mod memory;
pub mod pids;
pub mod slot;
pub mod tree;

use std::fmt;
use std::path::{Path, PathBuf};

/// What divides one resource among groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    /// CPU time.
    Cpu,
    /// Memory and swap.
    Memory,
    /// Processes and threads.
    Pids,
    /// Bytes read from disks and written to them.
    Io,
}

impl Controller {
    /// All that we use.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Memory, Self::Pids, Self::Io];

    /// The kernel's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Io => "io",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why something cannot be had here, and what would bring it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What was found, without full stop.
    pub why: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.why, self.remedy)
    }
}

/// Why a group is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made.
    #[error("cannot make control group {}", .0.display())]
    Make(PathBuf, #[source] std::io::Error),
    /// A file of it cannot be written.
    #[error("cannot write {file} = {value} in control group {}", .dir.display())]
    Write {
        /// The group.
        dir: PathBuf,
        /// The file.
        file: &'static str,
        /// What was to be written.
        value: String,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// A file of it cannot be read.
    #[error("cannot read {file} of control group {}", .dir.display())]
    Read {
        /// The group.
        dir: PathBuf,
        /// The file.
        file: &'static str,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// The kernel took the value and keeps another one.
    #[error("control group {} keeps {file} = {kept} instead of {value}", .dir.display())]
    NotKept {
        /// The group.
        dir: PathBuf,
        /// The file.
        file: &'static str,
        /// What was written.
        value: String,
        /// What is read back.
        kept: String,
    },
    /// A process cannot be moved into it.
    #[error("cannot put process {pid} into control group {}", .dir.display())]
    Join {
        /// The group.
        dir: PathBuf,
        /// The process.
        pid: u32,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// What an earlier worker left in it does not end.
    #[error("processes of an earlier worker in control group {} do not end", .0.display())]
    Occupied(PathBuf),
}

/// Writes a file of a group.
fn write(dir: &Path, file: &'static str, value: &str) -> Result<(), Error> {
    // Not `fs::write`: a file that does not exist must not be made, in a real group it cannot be.
    let written = std::fs::File::options()
        .write(true)
        .truncate(true)
        .open(dir.join(file))
        .and_then(|mut open| std::io::Write::write_all(&mut open, value.as_bytes()));
    written.map_err(|source| Error::Write {
        dir: dir.to_owned(),
        file,
        value: value.to_owned(),
        source,
    })
}

/// Writes a limit and reads it back: only what the kernel says afterwards is in force.
fn keep(dir: &Path, file: &'static str, value: &str) -> Result<(), Error> {
    write(dir, file, value)?;
    let kept = read(dir, file)?;
    if kept == value {
        return Ok(());
    }
    Err(Error::NotKept { dir: dir.to_owned(), file, value: value.to_owned(), kept })
}

/// The text of a file of a group, without the line's end.
fn read(dir: &Path, file: &'static str) -> Result<String, Error> {
    let text = std::fs::read_to_string(dir.join(file));
    let text = text.map_err(|source| Error::Read { dir: dir.to_owned(), file, source })?;
    Ok(text.trim_end().to_owned())
}

/// The number behind `key` in a file of lines `key number`; `None` where there is none.
fn count(dir: &Path, file: &'static str, key: &str) -> Option<u64> {
    let text = read(dir, file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An ordinary folder with these files, in the place of a group.
    pub(crate) fn fake(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder can be made");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("the folder is ours");
        }
        dir
    }

    pub(crate) fn text(dir: &Path, file: &str) -> String {
        std::fs::read_to_string(dir.join(file)).expect("it is there")
    }

    #[test]
    fn a_file_that_the_kernel_does_not_offer_is_not_made() {
        let dir = fake(&[]);
        let error = write(dir.path(), "memory.max", "1").expect_err("there is no such file");
        assert!(error.to_string().starts_with("cannot write memory.max = 1 in control group /"));
        assert!(!dir.path().join("memory.max").exists());
    }

    #[test]
    fn a_limit_that_is_not_kept_is_an_error_that_shows_both_values() {
        let dir = fake(&[]);
        // Takes everything and shows something else, like a kernel that rounds.
        std::os::unix::fs::symlink("/dev/null", dir.path().join("pids.max")).expect("a link");
        let error = keep(dir.path(), "pids.max", "9").expect_err("nothing is kept");
        assert!(error.to_string().ends_with("keeps pids.max =  instead of 9"), "{error}");
    }

    #[test]
    fn a_count_is_found_by_its_whole_name() {
        let dir = fake(&[("memory.events", "oom 1\noom_kill 3\noom_group_kill 2\n")]);
        let of = |key| count(dir.path(), "memory.events", key);
        assert_eq!(
            (of("oom"), of("oom_kill"), of("oom_"), of("max")),
            (Some(1), Some(3), None, None)
        );
        assert_eq!(count(dir.path(), "pids.events", "max"), None);
    }
}
