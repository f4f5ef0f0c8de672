//! The policy's notices as log lines: what happened, to what, what happens next.

use crate::policy::event::{Action, Notice};
use crate::policy::poll::Pace;
use shiftboss_protocol::message::StopReason;
use tracing::{debug, info, trace, warn};

pub(super) fn trace(action: &Action) {
    trace!(?action, "policy");
}

pub(super) fn tell(notice: &Notice) {
    match notice {
        Notice::Pace(pace) => tell_pace(*pace),
        Notice::Starting { .. }
        | Notice::Found { .. }
        | Notice::Retiring { .. }
        | Notice::Left { .. } => tell_worker(notice),
        Notice::Died { .. } | Notice::BreakerOpened { .. } | Notice::BreakerClosed(_) => {
            tell_death(notice);
        }
        Notice::AttemptFailed { job, attempt, job_type, what, next, retry_in } => {
            let (job, attempt) = (job.0, attempt.0);
            let job_type = &**job_type;
            let retry_in_ms = retry_in.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(0));
            warn!(job, attempt, job_type, retry_in_ms, "job {job} failed: {what}; {next}");
        }
        Notice::Stopping { job, attempt, reason } => {
            let why = match reason {
                StopReason::Cancelled => "it was cancelled",
                StopReason::Timeout => "it ran longer than its timeout",
                StopReason::Stalled => "it made no progress within its stall timeout",
                StopReason::Released => "it is taken back",
            };
            info!(job = job.0, attempt = attempt.0, "stopping job {job}: {why}");
        }
        Notice::Stale { job, attempt } => info!(
            job = job.0,
            attempt = attempt.0,
            "an outcome of job {job} came too late: another attempt or a change of its row came \
             first; it was dropped"
        ),
        Notice::RowLost(job) => warn!(
            job = job.0,
            "the row of job {job} was deleted or taken over while it ran; it is stopped"
        ),
        Notice::UnknownTypes(count) => {
            warn!(
                count,
                "{count} jobs of types that are not configured were failed; last_error of each \
                 names the types that are"
            );
        }
        Notice::Late { worker, silent } => warn!(
            worker = worker.0,
            silent_s = silent.as_secs(),
            "worker {worker} is late with its heartbeat; it is killed if it stays silent"
        ),
        Notice::Draining { running } => {
            info!(running, "draining: no new jobs are started, running ones may finish");
        }
    }
}

fn tell_pace(pace: Pace) {
    match pace {
        Pace::Same => {}
        Pace::BackoffEngaged(interval) => {
            let next_s = interval.as_secs_f64();
            info!(
                next_s,
                "nothing to do: idle backoff engaged, the next fallback poll comes in {next_s} s \
                 and each later one later"
            );
        }
        Pace::BackoffReleased(interval) => {
            let interval_s = interval.as_secs_f64();
            info!(
                interval_s,
                "work seen: idle backoff released, the fallback poll comes every {interval_s} s \
                 again"
            );
        }
    }
}

fn tell_worker(notice: &Notice) {
    match notice {
        Notice::Starting { worker, job_type, why } => {
            info!(worker = worker.0, job_type = &**job_type, "starting worker {worker}: {why}");
        }
        Notice::Retiring { worker, job_type, why } => {
            info!(worker = worker.0, job_type = &**job_type, "stopping worker {worker}: {why}");
        }
        Notice::Found { worker, job_type, pid, attempts } => info!(
            worker = worker.0,
            job_type = &**job_type,
            pid,
            attempts,
            "worker {worker} has outlived its supervisor; it goes on when it connects"
        ),
        Notice::Left { worker, job_type } => {
            debug!(worker = worker.0, job_type = &**job_type, "worker {worker} has stopped");
        }
        _ => {}
    }
}

fn tell_death(notice: &Notice) {
    match notice {
        Notice::Died { worker, job_type, what, restart_in } => {
            let restart_in_ms = u64::try_from(restart_in.as_millis()).unwrap_or(u64::MAX);
            let job_type = &**job_type;
            let when = match restart_in_ms {
                0 => "at once".to_owned(),
                ms => format!("in {ms} ms"),
            };
            warn!(
                worker = worker.0,
                job_type,
                restart_in_ms,
                "{what}; what it held goes back to the table, another worker may start {when}"
            );
        }
        Notice::BreakerOpened { job_type, cause, probe_in } => {
            let (job_type, probe_in_s) = (&**job_type, probe_in.as_secs());
            warn!(
                job_type,
                probe_in_s,
                "workers of type {job_type} die too often ({cause}): none is started \
                             before a probe"
            );
        }
        Notice::BreakerClosed(job_type) => {
            let job_type = &**job_type;
            info!(job_type, "workers of type {job_type} are healthy again");
        }
        _ => {}
    }
}
