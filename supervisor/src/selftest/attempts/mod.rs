//! The attempts: each a small function, what it tries, and how its denial must look.
//!
//! All of them are harmless where they get through, so that they can be made without a cage too,
//! to see that they would: what is opened is not written, what is mounted is unmounted, calls
//! that change the host get arguments that are refused after the right to make them was checked.

mod identity;
mod limits;
mod namespaces;
mod processes;
mod reading;
mod sockets;
mod surface;
mod writing;

pub(super) use reading::started;
pub(super) use writing::traces;

use super::plan::Plan;
use super::verdict::{Denial, Outcome};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// What an attempt knows.
pub(super) struct Scene {
    pub(super) plan: Plan,
    /// Descriptors besides the standard streams that were open when the program started.
    pub(super) inherited: Vec<i32>,
}

/// One attempt.
pub(super) struct Attempt {
    /// Its name, the same in every report.
    pub(super) name: &'static str,
    /// What it tries.
    pub(super) tries: &'static str,
    /// How its denial looks.
    pub(super) denial: Denial,
    /// True when it is about the network, which a type may be given.
    pub(super) network: bool,
    pub(super) run: fn(&Scene) -> Outcome,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All attempts, in the order in which they are made.
pub(super) fn all() -> impl Iterator<Item = &'static Attempt> {
    [
        identity::ATTEMPTS,
        reading::ATTEMPTS,
        writing::ATTEMPTS,
        sockets::ATTEMPTS,
        processes::ATTEMPTS,
        namespaces::ATTEMPTS,
        surface::ATTEMPTS,
        limits::ATTEMPTS,
    ]
    .into_iter()
    .flatten()
}

const fn attempt(
    name: &'static str,
    tries: &'static str,
    denial: Denial,
    run: fn(&Scene) -> Outcome,
) -> Attempt {
    Attempt { name, tries, denial, network: false, run }
}

/// What is not there, or not for this program.
const HIDDEN: Denial = Denial::Errno(&[libc::ENOENT, libc::EACCES, libc::EPERM]);
/// A call that this program may not make, or that seems not to exist.
const FORBIDDEN: Denial = Denial::Errno(&[libc::EPERM, libc::EACCES, libc::ENOSYS]);
/// A process that is not there, or not for this program.
const NO_PROCESS: Denial =
    Denial::Errno(&[libc::ESRCH, libc::EPERM, libc::EACCES, libc::ENOSYS, libc::ENOENT]);

/// Success is a hole.
fn must_fail<T>(result: io::Result<T>) -> Outcome {
    match result {
        Ok(_) => Outcome::Got("it succeeded".to_owned()),
        Err(error) => errno(&error),
    }
}

/// Success may be harmless; the host looks.
fn may_succeed<T>(result: io::Result<T>) -> Outcome {
    match result {
        Ok(_) => Outcome::Done("it succeeded inside".to_owned()),
        Err(error) => errno(&error),
    }
}

/// Whether a file is the null device, which the cage lays over what it cannot take away.
fn is_null(file: &File) -> bool {
    const NULL: u64 = libc::makedev(1, 3);
    file.metadata().is_ok_and(|it| it.file_type().is_char_device() && it.rdev() == NULL)
}

fn errno(error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        Some(number) => Outcome::Errno(number),
        None => Outcome::Unable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_enough_attempts_and_each_has_a_name_of_its_own() {
        let names: Vec<_> = all().map(|attempt| attempt.name).collect();
        let different: BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), different.len(), "{names:?}");
        assert!(names.len() >= 100, "{}", names.len());
        assert!(all().all(|attempt| !attempt.tries.is_empty()));
    }
}
