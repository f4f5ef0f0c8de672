//! The frame of an op that makes files: what an earlier attempt had finished is put into place,
//! else all is made in a staging folder, stored as a list, and published.

use super::super::host::{Host, go_on};
use super::publish::{self, Staging};
use crate::attempt::Job;
use crate::path::{check_write, parse_path};
use serde_json::Value;
use shiftboss_protocol::job::Failure;
use std::path::{Path, PathBuf};

/// Where an attempt stands before it has made anything.
#[derive(Debug)]
pub(crate) enum Begun<'a> {
    /// An earlier attempt had made and checked all; this is the job's result.
    Finished(Value),
    /// Everything is to be made.
    Open(Delivery<'a>),
}

/// The way of an attempt's files into the output folder.
#[derive(Debug)]
pub(crate) struct Delivery<'a> {
    job: &'a Job,
    output_dir: PathBuf,
}

/// Files that were made and checked, by their names in the staging folder, and what the job's
/// result says of them.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) names: Vec<String>,
    pub(crate) result: Value,
}

/// Checks the output folder that the payload names, and finishes what was stored.
///
/// # Errors
/// A permanent [`Failure`] that names `output_dir`, a retryable one when a rename fails.
pub(crate) fn begin<'a>(
    job: &'a Job,
    host: &dyn Host,
    output_dir: &str,
) -> Result<Begun<'a>, Failure> {
    let output_dir = parse_path("output_dir", output_dir)?;
    let output_dir = check_write(host.settings(), "output_dir", &output_dir)?;
    if let Some(result) = publish::finish(job.checkpoint.as_deref(), &output_dir, job.id.0)? {
        host.log("an earlier attempt had verified its outputs: they are in place now");
        return Ok(Begun::Finished(result));
    }
    Ok(Begun::Open(Delivery { job, output_dir }))
}

impl Delivery<'_> {
    /// Where the file of this name will be.
    pub(crate) fn target(&self, name: &str) -> PathBuf {
        self.output_dir.join(name)
    }

    /// Runs `make` on a staging folder and publishes what it made.
    ///
    /// # Errors
    /// The [`Failure`] of `make` or of publishing; nothing is left in the output folder then,
    /// unless the outputs are complete and only their renaming was interrupted.
    pub(crate) fn deliver(
        &self,
        host: &dyn Host,
        make: impl FnOnce(&Staging) -> Result<Ready, Failure>,
    ) -> Result<Value, Failure> {
        go_on(host)?;
        let staging = Staging::open(&self.output_dir, self.job.id.0, self.job.attempt.0)?;
        let list = make(&staging).and_then(|ready| {
            // What is stored is finished, by this attempt or the next: the last moment to stop.
            go_on(host)?;
            let list = staging.seal(&ready.names, ready.result)?;
            let stored =
                serde_json::to_vec(&list).expect("the list is made of strings and numbers");
            host.checkpoint(&stored)?;
            Ok(list)
        });
        let list = match list {
            Ok(list) => list,
            Err(failure) => {
                staging.discard();
                return Err(failure);
            }
        };
        staging.publish(&list, &self.output_dir)?;
        staging.discard();
        Ok(list.result)
    }
}

/// A file of the staging folder that only this attempt reads; gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Note(PathBuf);

impl Note {
    /// The file of this name, which cannot be that of an output.
    pub(crate) fn new(staging: &Staging, name: &str) -> Self {
        Self(staging.path_of(&format!(".{name}")))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        // The staging folder is removed with all that is in it anyway.
        let _ = std::fs::remove_file(&self.0);
    }
}
