//! The folders of one attempt: scratch, which ends with it; what is kept for the job's next
//! attempt; and logs, which outlive the job.

use super::state::AttemptState;
use shiftboss_protocol::job::{Cause, Failure};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub(super) fn make_scratch(state: &AttemptState) -> Result<PathBuf, Failure> {
    let folder = scratch(state).ok_or_else(|| unnamed("scratch_dir"))?;
    make(&folder)?;
    state.note_scratch();
    Ok(folder)
}

pub(super) fn make_kept(state: &AttemptState) -> Result<PathBuf, Failure> {
    let folder = kept(state).ok_or_else(|| unnamed("scratch_dir"))?;
    make(&folder)?;
    Ok(folder)
}

pub(super) fn remove_kept(state: &AttemptState) -> io::Result<()> {
    match kept(state).map_or(Ok(()), fs::remove_dir_all) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The supervisor knows this name: it removes the folder once the job has ended.
fn kept(state: &AttemptState) -> Option<PathBuf> {
    let base = &state.settings.scratch_dir;
    (!base.is_empty()).then(|| Path::new(base).join(format!("{}-kept", state.key.0)))
}

pub(super) fn make_logs_dir(state: &AttemptState) -> Result<PathBuf, Failure> {
    let base = &state.settings.logs_dir;
    if base.is_empty() {
        return Err(unnamed("logs_dir"));
    }
    let folder = Path::new(base).join(state.key.0.to_string());
    make(&folder)?;
    Ok(folder)
}

/// Removes scratch, also where the program took its own rights away from folders in it.
pub(super) fn remove_scratch(state: &AttemptState) -> io::Result<()> {
    let Some(folder) = scratch(state).filter(|_| state.has_scratch()) else { return Ok(()) };
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_folders(&folder)?;
            fs::remove_dir_all(&folder)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn scratch(state: &AttemptState) -> Option<PathBuf> {
    let base = &state.settings.scratch_dir;
    let (job, attempt) = state.key;
    (!base.is_empty()).then(|| Path::new(base).join(format!("{job}-{attempt}")))
}

fn make(folder: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        Failure::retryable(
            Cause::Error,
            format!("cannot make folder {}: {error}", folder.display()),
        )
    })
}

fn unnamed(setting: &str) -> Failure {
    Failure::retryable(Cause::Error, format!("the supervisor named no {setting} to this worker"))
}

/// Gives this user its rights back on every folder below. The tree's processes are dead, so
/// nothing swaps a folder for a link meanwhile. The stack of folders is kept on the heap: a
/// program may have nested them deeper than a thread's stack allows.
fn open_folders(top: &Path) -> io::Result<()> {
    let mut open = vec![top.to_owned()];
    while let Some(folder) = open.pop() {
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(())
}
