//! The sentence that answers "why is my job not running?".

use super::crew::Crew;
use super::time::Now;
use shiftboss_protocol::job::{JobId, JobState};

/// What is known of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFacts {
    /// The row.
    pub job: JobId,
    /// Its type.
    pub job_type: String,
    /// Its state.
    pub state: JobState,
    /// Unix milliseconds before which it does not start.
    pub run_at_ms: i64,
    /// Failures so far.
    pub failures: u32,
    /// Instance that runs it.
    pub owner: Option<String>,
}

/// Why the job does not run, for people; `None` when it runs here or is final.
#[must_use]
pub fn why_waiting(crew: &Crew, now: Now, row: &RowFacts) -> Option<String> {
    match row.state {
        JobState::Succeeded | JobState::Failed | JobState::Cancelled => None,
        JobState::Blocked => Some("it waits for other jobs to end".to_owned()),
        JobState::Held => Some(
            "its outcome is unknown: somebody must decide by `shiftboss retry` or \
             `shiftboss cancel`"
                .to_owned(),
        ),
        JobState::Running => running_elsewhere(crew, now, row),
        JobState::Scheduled => {
            let seconds = now.until(row.run_at_ms).as_secs();
            Some(if row.failures > 0 {
                let times = if row.failures == 1 { "time" } else { "times" };
                format!("it failed {} {times} and is tried again in {seconds} s", row.failures)
            } else {
                format!("it is to start in {seconds} s")
            })
        }
        JobState::Available => Some(crew.why_available(now, row.job, &row.job_type)),
    }
}

fn running_elsewhere(crew: &Crew, now: Now, row: &RowFacts) -> Option<String> {
    if crew.run_view(now, row.job).is_some() {
        return None;
    }
    let owner = row.owner.as_deref().unwrap_or("nobody");
    Some(format!("it runs under another supervisor, {owner}"))
}
