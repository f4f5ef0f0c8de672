//! Outcomes on disk: written while there is no supervisor to tell, deleted with the receipt.
//!
//! A folder that is missing or full costs nothing but the second place: the outcome stays in
//! memory, and writing is tried again now and then.

use super::Held;
use crate::attempt::Key;
use crate::serve::start::print_error;
use shiftboss_protocol::message::WorkerMessage;
use shiftboss_protocol::stored::{STORED_OUTCOME_VERSION, StoredOutcome, TEMPORARY_SUFFIX};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Time between two tries of what could not be written.
const RETRY: Duration = Duration::from_secs(2);

/// What the thread that writes outcomes waits for and remembers.
#[derive(Default)]
pub(super) struct Outcomes {
    is_wanted: Mutex<bool>,
    changed: Condvar,
    /// Held while files are written: by that thread, or by the main thread before it leaves.
    writing: Mutex<Writing>,
}

#[derive(Default)]
struct Writing {
    has_complained: bool,
}

/// One outcome that is not on disk, or under the name of an earlier owner.
struct Unwritten {
    stored: StoredOutcome,
    folder: PathBuf,
    path: PathBuf,
    old: Option<PathBuf>,
}

impl Outcomes {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_wanted.lock().expect("nothing panics while it holds this flag")
    }

    /// Something is to be written.
    pub(super) fn wake(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    /// Waits until something is to be written, or for `retry`.
    fn wait(&self, retry: Option<Duration>) {
        let lock = "nothing panics while it holds this flag";
        let mut is_wanted = self.lock();
        match retry {
            Some(retry) if !*is_wanted => {
                (is_wanted, _) = self.changed.wait_timeout(is_wanted, retry).expect(lock);
            }
            Some(_) => {}
            None => {
                is_wanted = self.changed.wait_while(is_wanted, |wanted| !*wanted).expect(lock);
            }
        }
        *is_wanted = false;
    }

    /// Deletes files of settled outcomes. The supervisor may have done so already.
    pub(super) fn remove(&self, files: &[PathBuf]) {
        for file in files {
            remove(file);
        }
    }
}

impl Held {
    /// The thread that writes outcomes while there is no supervisor.
    pub(crate) fn keep_outcomes(&self) {
        let mut retry = None;
        loop {
            self.outcomes.wait(retry);
            let is_orphaned = self.lock().is_orphaned;
            retry = (is_orphaned && !self.store_outcomes()).then_some(RETRY);
        }
    }

    /// Writes every outcome that has no receipt. False: some of it could not be written.
    pub(crate) fn store_outcomes(&self) -> bool {
        let writing = self.outcomes.writing.lock();
        let mut writing = writing.expect("nothing panics while it writes outcomes");
        let mut first_error = None;
        for key in self.keys() {
            let Some(unwritten) = self.unwritten(key) else { continue };
            match write(&unwritten) {
                Ok(()) => self.on_written(key, unwritten),
                Err(error) => first_error = first_error.or(Some((unwritten.path, error))),
            }
        }
        let Some((path, error)) = first_error else {
            writing.has_complained = false;
            return true;
        };
        if !writing.has_complained {
            let path = path.display();
            let what = format!("cannot write outcome {path}: {error}");
            print_error(&format!("{what}; it is kept in memory and tried again"));
        }
        writing.has_complained = true;
        false
    }

    fn unwritten(&self, key: Key) -> Option<Unwritten> {
        let entries = self.lock();
        let entry = entries.by_key.get(&key)?;
        let Some(WorkerMessage::Finished { job, attempt, outcome, usage }) = &entry.finished else {
            return None;
        };
        let folder = PathBuf::from(&entries.settings.outcomes_dir);
        if folder.as_os_str().is_empty() {
            return None;
        }
        let stored = StoredOutcome {
            version: STORED_OUTCOME_VERSION,
            owner: entries.settings.owner.clone(),
            job: *job,
            attempt: *attempt,
            outcome: outcome.clone(),
            usage: *usage,
            job_type: self.job_type.clone(),
        };
        let path = folder.join(stored.name().file_name());
        let old = entry.file.clone();
        (old.as_ref() != Some(&path)).then_some(Unwritten { stored, folder, path, old })
    }

    fn on_written(&self, key: Key, written: Unwritten) {
        let mut entries = self.lock();
        let Some(entry) = entries.by_key.get_mut(&key) else {
            // Its receipt came meanwhile.
            drop(entries);
            remove(&written.path);
            return;
        };
        entry.file = Some(written.path);
        drop(entries);
        if let Some(old) = written.old {
            remove(&old);
        }
    }
}

/// Either the whole file is there afterwards, also after a power cut, or none of that name.
fn write(unwritten: &Unwritten) -> io::Result<()> {
    let Unwritten { stored, folder, path, .. } = unwritten;
    let bytes = stored.encode().map_err(io::Error::other)?;
    let mut temporary = path.clone().into_os_string();
    temporary.push(TEMPORARY_SUFFIX);
    let temporary = PathBuf::from(temporary);
    let written = write_whole(&temporary, &bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        remove(&temporary);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A file that is gone already is no error; one that cannot be deleted is found to be settled by
/// the next supervisor, which deletes it.
fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftboss_protocol::job::{Attempt, JobId, Outcome, Usage};

    fn unwritten(folder: &Path) -> Unwritten {
        let stored = StoredOutcome {
            version: STORED_OUTCOME_VERSION,
            owner: "main-1".into(),
            job: JobId(7),
            attempt: Attempt(2),
            outcome: Outcome::Cancelled,
            usage: Usage::default(),
            job_type: "noop".into(),
        };
        let path = folder.join(stored.name().file_name());
        Unwritten { stored, folder: folder.to_owned(), path, old: None }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("folder").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_written_outcome_is_whole_and_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let unwritten = unwritten(folder.path());
        // As a worker leaves it that was killed while it wrote.
        fs::write(folder.path().join("main-1.7.2.outcome.tmp"), "half").expect("file");
        write(&unwritten).expect("written");
        assert_eq!(names(folder.path()), ["main-1.7.2.outcome"]);
        let bytes = fs::read(&unwritten.path).expect("file");
        assert_eq!(StoredOutcome::decode(&bytes).expect("an outcome"), unwritten.stored);
    }

    #[test]
    fn an_outcome_that_cannot_get_its_name_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("main-1.7.2.outcome")).expect("in the way");
        write(&unwritten(folder.path())).expect_err("in the way");
        assert_eq!(names(folder.path()), ["main-1.7.2.outcome"]);
    }

    #[test]
    fn the_writer_hears_of_what_came_while_it_wrote() {
        let outcomes = Outcomes::default();
        outcomes.wake();
        outcomes.wait(None);
        assert!(!*outcomes.lock());
        outcomes.wake();
        outcomes.wait(Some(Duration::from_secs(3600)));
        assert!(!*outcomes.lock());
    }
}
