//! Takes more than it was given: descriptors, bytes of a file, memory through file systems.

use super::super::kernel::in_child;
use super::{Attempt, Scene, attempt};
use crate::selftest::verdict::{Denial, Outcome};
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Most bytes that a file system in memory may hold.
const TMPFS_BYTES_MAX: u64 = 2 << 30;

/// One more than the largest limit of open files that a type may set.
const FILES_TRIED_MAX: u64 = 70_000;

pub(super) const ATTEMPTS: &[Attempt] = &[
    attempt("open-files", "open files without end", Denial::Seen, open_files),
    attempt("large-file", "write a file without end", Denial::Seen, large_file),
    attempt("fill-tmp", "fill /tmp without end", Denial::Seen, |_| is_bounded("/tmp")),
    attempt("fill-shm", "fill /dev/shm without end", Denial::Seen, |_| is_bounded("/dev/shm")),
    attempt("fill-root", "fill the root without end", Denial::Seen, |_| {
        match File::create_new("/shiftboss-selftest-fill") {
            Ok(_) => {
                let _ = std::fs::remove_file("/shiftboss-selftest-fill");
                is_bounded("/")
            }
            Err(error) => Outcome::Held(format!("it cannot be written: {error}")),
        }
    }),
];

fn open_files(scene: &Scene) -> Outcome {
    let mut open = Vec::new();
    while (open.len() as u64) < FILES_TRIED_MAX {
        match File::open("/dev/null") {
            Ok(file) => open.push(file),
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
                let count = open.len() as u64;
                return if count <= scene.plan.files_max {
                    Outcome::Held(format!("no more after {count}"))
                } else {
                    Outcome::Got(format!("{count} files, {} are allowed", scene.plan.files_max))
                };
            }
            Err(error) => return Outcome::Unable(format!("/dev/null: {error}")),
        }
    }
    Outcome::Got(format!("{FILES_TRIED_MAX} files and no end"))
}

/// Writes twice the limit, in a child that the signal may end.
fn large_file(scene: &Scene) -> Outcome {
    let limit = scene.plan.file_bytes_max;
    if limit == 0 {
        return Outcome::Pointless("the type has no limit of file sizes".to_owned());
    }
    let written = in_child(|| {
        let chunk = vec![1; 1 << 20];
        let mut file = match File::create("large") {
            Ok(file) => file,
            Err(error) => return Outcome::Unable(format!("scratch cannot be written: {error}")),
        };
        for _ in 0..(2 * limit).div_ceil(1 << 20) {
            if let Err(error) = file.write_all(&chunk) {
                return Outcome::Errno(error.raw_os_error().unwrap_or(0));
            }
        }
        Outcome::Got(format!("{} bytes", 2 * limit))
    });
    let length = std::fs::metadata("large").map_or(0, |facts| facts.len());
    let _ = std::fs::remove_file("large");
    match written {
        Outcome::Killed(libc::SIGXFSZ) if length <= limit => {
            Outcome::Held(format!("ended by SIGXFSZ after {length} bytes"))
        }
        Outcome::Errno(libc::EFBIG) if length <= limit => {
            Outcome::Held(format!("no more after {length} bytes"))
        }
        Outcome::Unable(reason) => Outcome::Unable(reason),
        other => Outcome::Got(format!("{length} bytes: {}", other.text())),
    }
}

/// A folder in memory must have a size; one that cannot be written needs none.
fn is_bounded(folder: &str) -> Outcome {
    let trial = Path::new(folder).join("shiftboss-selftest-fill");
    let writable = File::create(&trial).is_ok();
    let _ = std::fs::remove_file(&trial);
    if !writable {
        return Outcome::Held("it cannot be written".to_owned());
    }
    match rustix::fs::statfs(folder) {
        Ok(facts) => {
            let size = facts.f_blocks.saturating_mul(u64::try_from(facts.f_bsize).unwrap_or(1));
            if size == 0 || size > TMPFS_BYTES_MAX {
                Outcome::Got(format!("{size} bytes may be written"))
            } else {
                Outcome::Held(format!("{} MiB at most", size >> 20))
            }
        }
        Err(error) => Outcome::Unable(error.to_string()),
    }
}
