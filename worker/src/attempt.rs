//! One attempt as its workload sees it: the job, and the context through which it reports
//! progress, stores checkpoints and learns that it must stop.

mod folder;
mod state;

pub(crate) use state::{AttemptState, Key, Paused, Started};

use crate::connection::Outbox;
use crate::timer::Alarm;
use shiftboss_protocol::frame::TEXT_BYTES_MAX;
use shiftboss_protocol::job::{Attempt, Cause, Failure, JobId};
use shiftboss_protocol::message::{LogLevel, Settings, StopReason, WorkerMessage};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest line of [`AttemptContext::log`], bytes; the rest is cut off.
const LOG_BYTES_MAX: usize = 4 << 10;

/// Longest progress note, bytes; the rest is cut off.
const NOTE_BYTES_MAX: usize = 1 << 10;

/// What an attempt is given.
#[derive(Clone, Debug)]
pub struct Job {
    /// The row.
    pub id: JobId,
    /// This try of it.
    pub attempt: Attempt,
    /// Its type.
    pub job_type: String,
    /// JSON text, unchecked: read it with [`crate::parse_payload`].
    pub payload: String,
    /// What an earlier attempt stored.
    pub checkpoint: Option<Vec<u8>>,
}

/// How an attempt talks to its supervisor. Cheap to clone; every clone is the same attempt.
#[derive(Clone, Debug)]
pub struct AttemptContext {
    pub(crate) state: Arc<AttemptState>,
}

impl AttemptContext {
    /// A context without a supervisor, for tests of workloads: nothing is sent, checkpoints
    /// succeed at once, and nothing stops the attempt.
    #[must_use]
    pub fn unattached(settings: Settings, job: &Job) -> Self {
        let outbox = Arc::new(Outbox::unattached());
        let alarm = Arc::new(Alarm::default());
        let key = (job.id, job.attempt);
        let state = AttemptState::new(key, Arc::new(settings), outbox, alarm, 0, Instant::now());
        state.begin();
        Self { state: Arc::new(state) }
    }

    /// What the supervisor that assigned the attempt told this worker. A later one that takes
    /// the attempt over changes nothing here.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.state.settings
    }

    /// Says how far the attempt is: `fraction` from 0 to 1 where it can be known, and a short
    /// note for people. At most two a second are sent; the latest wins. Every call counts as
    /// progress for the stall timeout only when fraction or note changed.
    pub fn progress(&self, fraction: Option<f64>, note: &str) {
        let fraction = fraction.filter(|value| value.is_finite()).map(|value| value.clamp(0., 1.));
        self.state.progress(Instant::now(), fraction, cut(note, NOTE_BYTES_MAX));
    }

    /// Stores `data` for the next attempt and returns when it is durable. While there is no
    /// supervisor it waits for the next one.
    ///
    /// It is sent also when the attempt must stop, because what it says may be worth most then;
    /// its receipt is waited for a few seconds only.
    ///
    /// # Errors
    /// A [`Failure`] when it is too large, the attempt is stale, or the attempt must stop.
    pub fn checkpoint(&self, data: &[u8]) -> Result<(), Failure> {
        check_checkpoint(data)?;
        self.state.checkpoint(data)
    }

    /// Why this attempt must stop, once it must.
    #[must_use]
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.state.stop_reason()
    }

    /// Waits until the attempt must stop, at most `timeout`.
    #[must_use]
    pub fn wait_for_stop(&self, timeout: Duration) -> Option<StopReason> {
        self.state.wait_for_stop(timeout)
    }

    /// A line for the supervisor's log.
    pub fn log(&self, text: &str) {
        let text = cut(text, LOG_BYTES_MAX).to_owned();
        let job = Some(self.state.key.0);
        self.state.outbox.send_unless_full(&WorkerMessage::Log {
            level: LogLevel::Info,
            job,
            text,
        });
    }

    /// Scratch folder of this attempt, made at first use and removed when the attempt ends.
    ///
    /// # Errors
    /// A retryable [`Failure`] that names the folder.
    pub fn scratch(&self) -> Result<PathBuf, Failure> {
        folder::make_scratch(&self.state)
    }

    /// Folder of this job that outlives its attempts, made at first use: what is put there is
    /// there for the next one, also after a crash. Removed with [`Self::remove_kept`], or by the
    /// supervisor once the job has ended.
    ///
    /// # Errors
    /// A retryable [`Failure`] that names the folder.
    pub fn kept(&self) -> Result<PathBuf, Failure> {
        folder::make_kept(&self.state)
    }

    /// Removes the folder of [`Self::kept`] and all that is in it.
    pub fn remove_kept(&self) {
        if let Err(error) = folder::remove_kept(&self.state) {
            self.log(&format!("cannot remove what was kept for the next attempt: {error}"));
        }
    }

    /// Folder in which this attempt's log files lie; made at first use.
    ///
    /// # Errors
    /// A retryable [`Failure`] that names the folder.
    pub fn logs_dir(&self) -> Result<PathBuf, Failure> {
        folder::make_logs_dir(&self.state)
    }

    /// Removes what the attempt leaves in scratch.
    pub(crate) fn remove_scratch(&self) {
        if let Err(error) = folder::remove_scratch(&self.state) {
            self.log(&format!("cannot remove the scratch folder of this attempt: {error}"));
        }
    }
}

/// Refuses a checkpoint that cannot be stored.
pub(crate) fn check_checkpoint(data: &[u8]) -> Result<(), Failure> {
    if data.len() <= TEXT_BYTES_MAX {
        return Ok(());
    }
    Err(Failure::permanent(
        Cause::Error,
        format!("checkpoint of {} bytes, at most {TEXT_BYTES_MAX} are stored", data.len()),
    ))
}

/// The longest start of `text` that has at most `bytes_max` bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> AttemptContext {
        let job = Job {
            id: JobId(7),
            attempt: Attempt(1),
            job_type: "noop".into(),
            payload: "{}".into(),
            checkpoint: None,
        };
        AttemptContext::unattached(Settings::default(), &job)
    }

    #[test]
    fn an_unattached_attempt_stores_checkpoints_and_is_never_stopped() {
        let context = context();
        context.checkpoint(b"half").expect("no supervisor has to answer");
        assert_eq!(context.wait_for_stop(Duration::ZERO), None);
    }

    #[test]
    fn a_checkpoint_that_cannot_be_stored_is_refused_before_it_is_sent() {
        let failure = context().checkpoint(&vec![0; TEXT_BYTES_MAX + 1]).expect_err("too large");
        assert!(failure.permanent);
        assert!(failure.message.contains(&TEXT_BYTES_MAX.to_string()));
    }

    #[test]
    fn the_first_stop_reason_stays() {
        let context = context();
        context.state.stop(StopReason::Timeout);
        context.state.stop(StopReason::Cancelled);
        assert_eq!(context.stop_reason(), Some(StopReason::Timeout));
    }

    #[test]
    fn a_folder_that_was_not_named_is_a_clear_failure() {
        let failure = context().scratch().expect_err("no scratch_dir");
        assert!(failure.message.contains("scratch"), "{}", failure.message);
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("aä", 2), "a");
        assert_eq!(cut("aä", 3), "aä");
    }
}
