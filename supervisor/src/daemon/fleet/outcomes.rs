//! Outcomes that workers wrote down because there was no supervisor to tell.

use super::recovery::name_of;
use crate::config::Config;
use crate::daemon::start::outcomes_dir;
use crate::os::dirs;
use crate::store::OwnedJob;
use shiftboss_protocol::job::{Attempt, JobId};
use shiftboss_protocol::stored::{
    STORED_OUTCOME_BYTES_MAX, STORED_OUTCOME_SUFFIX, StoredOutcome, StoredOutcomeName,
};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// An outcome file, by its name and place.
#[derive(Debug)]
pub(super) struct OutcomeFile {
    /// The owner that the worker named.
    pub(super) owner: String,
    /// The type whose workers may write there.
    pub(super) job_type: String,
    pub(super) path: PathBuf,
}

/// All outcome files, by attempt: names only, nothing is read.
pub(super) fn list(config: &Config) -> BTreeMap<(JobId, Attempt), Vec<OutcomeFile>> {
    let mut found = BTreeMap::<_, Vec<_>>::new();
    let of_types = dirs::folders_in(&outcomes_dir(config));
    let entries = of_types.iter().flat_map(|(job_type, folder)| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(move |entry| (job_type, entry))
    });
    for (job_type, entry) in entries {
        let name = entry.file_name();
        let parsed = name
            .to_str()
            .filter(|name| name.ends_with(STORED_OUTCOME_SUFFIX))
            .and_then(StoredOutcomeName::parse);
        if let Some(StoredOutcomeName { owner, job, attempt }) = parsed {
            let (job_type, path) = (job_type.clone(), entry.path());
            found.entry((job, attempt)).or_default().push(OutcomeFile { owner, job_type, path });
        }
    }
    found
}

/// Whether a file may speak for a row: it lies where workers of the row's type write, and its
/// worker named the owner that it knew. A supervisor that
/// took the row over and died before it welcomed the worker has made itself the owner of a row
/// whose worker never heard of it, so an earlier owner of the same name speaks for it, too; but
/// not from before the attempt began, when a restored database counted other attempts.
pub(super) fn is_of(job: &OwnedJob, file: &OutcomeFile) -> bool {
    let (by, path) = (file.owner.as_str(), file.path.as_path());
    if file.job_type != job.job_type {
        return false;
    }
    if by == job.owner || job.instance.as_deref() == Some(by) {
        return true;
    }
    let written = fs::metadata(path).and_then(|facts| facts.modified()).ok();
    let began = u64::try_from(job.started_at_ms).unwrap_or(0);
    let began = SystemTime::UNIX_EPOCH + Duration::from_millis(began);
    name_of(by) == name_of(&job.owner) && written.is_some_and(|written| written >= began)
}

/// The outcome in a file, if it holds what its name says. One that does not is told and left to
/// the sweep: the attempt counts as lost then.
pub(super) fn read(file: &OutcomeFile, key: (JobId, Attempt)) -> Option<StoredOutcome> {
    let path = file.path.as_path();
    let read = || -> Result<StoredOutcome, String> {
        let opened = dirs::open_own_file(path).map_err(|error| error.to_string())?;
        let opened = opened.ok_or("not a file of this supervisor's user")?;
        let mut bytes = Vec::new();
        let limit = STORED_OUTCOME_BYTES_MAX as u64 + 1;
        opened.take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        let stored = StoredOutcome::decode(&bytes).map_err(|error| super::chain(&error))?;
        if stored.owner == file.owner && (stored.job, stored.attempt) == key {
            Ok(stored)
        } else {
            Err("it holds another attempt than its name says".to_owned())
        }
    };
    match read() {
        Ok(stored) => Some(stored),
        Err(reason) => {
            tracing::warn!(
                path = %path.display(),
                job = key.0.0,
                reason,
                "cannot use the outcome that a worker wrote down; its attempt counts as lost"
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_speaks_for_the_row_also_under_an_owner_between_the_first_and_the_last() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let path = dir.path().join("file");
        fs::write(&path, "").expect("written");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let now_ms = i64::try_from(now.as_millis()).expect("small");
        let job = |started_at_ms| OwnedJob {
            job: JobId(1),
            attempt: Attempt(1),
            owner: "main-boot-3".to_owned(),
            instance: Some("main-boot-1".to_owned()),
            job_type: "command".to_owned(),
            failures: 0,
            crash_count: 0,
            attempts_max: None,
            timeout_ms: None,
            started_at_ms,
            cancel_requested: false,
            worker: None,
            pid: None,
        };
        let (earlier, later) = (job(now_ms - 5000), job(now_ms + 5000));
        let by = |owner: &str, job_type: &str| OutcomeFile {
            owner: owner.to_owned(),
            job_type: job_type.to_owned(),
            path: path.clone(),
        };
        for owner in ["main-boot-1", "main-boot-3"] {
            let file = by(owner, "command");
            assert!(is_of(&earlier, &file) && is_of(&later, &file));
            assert!(!is_of(&earlier, &by(owner, "remote")), "forged by a worker of another type");
        }
        assert!(is_of(&earlier, &by("main-boot-2", "command")));
        let file = by("main-boot-2", "command");
        assert!(!is_of(&later, &file), "written before the attempt began");
        assert!(!is_of(&earlier, &by("other-boot-2", "command")));
        let gone = OutcomeFile { path: dir.path().join("gone"), ..by("main-boot-2", "command") };
        assert!(!is_of(&earlier, &gone));
    }
}
