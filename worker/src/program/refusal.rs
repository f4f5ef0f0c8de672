//! Why a program was not started, in words for the person who wrote the job.

use super::Program;
use crate::launcher::{Access, CageOrder, Step};
use shiftboss_protocol::job::{Cause, Failure};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What an order named, by the places that a launcher's report speaks of.
#[derive(Debug)]
pub(super) struct Refusals {
    shown: Vec<(PathBuf, Access)>,
    devices: Vec<PathBuf>,
}

impl Refusals {
    pub(super) fn of(cage: &CageOrder) -> Self {
        let path = |bytes: &Vec<u8>| PathBuf::from(OsStr::from_bytes(bytes));
        Self {
            shown: cage.shown.iter().map(|shown| (path(&shown.real), shown.access)).collect(),
            devices: cage.devices.iter().map(path).collect(),
        }
    }

    /// The failure that a report of a program that never ran stands for.
    pub(super) fn not_started(
        &self,
        program: &Program,
        step: Step,
        errno: i32,
        reason: &str,
    ) -> Failure {
        let name = program.argv.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        match step {
            Step::Program => not_executed(program, errno),
            Step::WorkingDirectory => {
                let folder = program.cwd.as_deref().unwrap_or(Path::new("the scratch folder"));
                let shown = folder.display();
                permanent(format!("cannot start {name}: working directory {shown}: {reason}"))
            }
            // Another attempt may meet a kernel, or a supervisor, that lets it.
            Step::Group => Failure::retryable(
                Cause::FailedStart,
                format!("cannot start {name}: it cannot be put into its control group: {reason}"),
            ),
            Step::Confinement => permanent(format!("cannot confine {name}: {reason}")),
            Step::Shown(at) => {
                let Some((path, access)) = at_number(&self.shown, at) else {
                    return permanent(format!("cannot start {name}: {reason}"));
                };
                let why = not_shown(path, *access, errno, reason);
                permanent(format!("cannot start {name}: {} {why}", path.display()))
            }
            Step::Device(at) => {
                let device = at_number(&self.devices, at).map(|path| path.display().to_string());
                let device = device.unwrap_or_default();
                permanent(format!("cannot start {name}: device {device}: {reason}"))
            }
        }
    }
}

fn at_number<T>(list: &[T], at: u32) -> Option<&T> {
    list.get(usize::try_from(at).ok()?)
}

fn permanent(message: String) -> Failure {
    Failure::permanent(Cause::FailedStart, message)
}

/// Why a path could not be shown.
fn not_shown(path: &Path, access: Access, errno: i32, reason: &str) -> String {
    match errno {
        libc::EACCES => {
            let what = match access {
                Access::Connect | Access::Read => "be read",
                Access::Write => "be written",
            };
            let whose = path.ancestors().find_map(|one| blocks(one, access, one == path));
            let whose = whose.map(|text| format!(": {text}")).unwrap_or_default();
            format!(
                "cannot {what} by a job{whose}; jobs have the rights of the supervisor's user \
                 without the privileges of root"
            )
        }
        libc::ESTALE | libc::ELOOP => "was changed while the job was started".to_owned(),
        _ => format!("cannot be shown: {reason}"),
    }
}

/// Owner and mode of what is in the way, if this is.
fn blocks(path: &Path, access: Access, is_itself: bool) -> Option<String> {
    let found = path.metadata().ok()?;
    let wanted = match (is_itself, access) {
        (false, _) => 0o1,
        (true, Access::Connect | Access::Read) if found.is_dir() => 0o5,
        (true, Access::Connect | Access::Read) => 0o4,
        (true, Access::Write) if found.is_dir() => 0o3,
        (true, Access::Write) => 0o2,
    };
    if rights(&found) & wanted == wanted {
        return None;
    }
    let (owner, group, mode) = (found.uid(), found.gid(), found.mode() & 0o7777);
    let shown = path.display();
    Some(format!("{shown} belongs to user {owner} and group {group} with mode {mode:04o}"))
}

/// The bits of the mode that are for this user, three of them.
fn rights(found: &Metadata) -> u32 {
    let mode = found.mode();
    let is_own_group = nix::unistd::getegid().as_raw() == found.gid();
    if nix::unistd::geteuid().as_raw() == found.uid() {
        mode >> 6 & 0o7
    } else if is_own_group {
        mode >> 3 & 0o7
    } else {
        mode & 0o7
    }
}

/// Why it could not be executed.
fn not_executed(program: &Program, errno: i32) -> Failure {
    let name = program.argv.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    let error = std::io::Error::from_raw_os_error(errno);
    let (is_permanent, reason) = match errno {
        libc::ENOENT if name.contains('/') => (
            true,
            "the file or the interpreter that it names does not exist, or is not shown to the \
             job"
            .to_owned(),
        ),
        libc::ENOENT => (true, "no such program in PATH".to_owned()),
        libc::EACCES => (true, "the file is not executable for the supervisor's user".to_owned()),
        libc::ENOEXEC => (true, "the file is no program".to_owned()),
        libc::E2BIG => (true, "arguments and environment are larger than the host allows".into()),
        libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG | libc::EISDIR | libc::EPERM => {
            (true, error.to_string())
        }
        _ => (false, error.to_string()),
    };
    let message = format!("cannot start {name}: {reason}");
    if is_permanent {
        Failure::permanent(Cause::FailedStart, message)
    } else {
        Failure::retryable(Cause::FailedStart, message)
    }
}
