//! How long an attempt that is taken over has run. The table says by the wall clock when it
//! started, and that clock may have been set since.

use std::time::Duration;

/// What the clocks may differ by without having been set: times are taken one after the other.
const TOLERANCE_MS: i64 = 2_000;

/// What is known of the worker that runs the attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerAge {
    /// When it was started, by the wall clock of then, unix milliseconds.
    pub(super) started_ms: i64,
    /// How long its process has existed, by the clock that nobody sets.
    pub(super) age: Duration,
}

/// How long an attempt has run that started at `started_ms` by the wall clock of then.
///
/// Its worker tells whether the clock was set while it lived. Whether that was before or after
/// the attempt's start nobody knows: of what is possible the shorter time is taken, so that no
/// attempt is stopped too early. The worker keeps the limit itself, by its own clock.
pub(super) fn ran_for(now_ms: i64, started_ms: i64, worker: WorkerAge) -> Duration {
    let age_ms = i64::try_from(worker.age.as_millis()).unwrap_or(i64::MAX);
    let by_clock = now_ms.saturating_sub(started_ms);
    let set_by = now_ms.saturating_sub(worker.started_ms).saturating_sub(age_ms);
    let possible = -TOLERANCE_MS..=age_ms.saturating_add(TOLERANCE_MS);
    let ran_ms = [by_clock, by_clock.saturating_sub(set_by)]
        .into_iter()
        .filter(|ran| possible.contains(ran))
        .min()
        .unwrap_or(0)
        .clamp(0, age_ms);
    Duration::from_millis(u64::try_from(ran_ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;

    /// A worker started 50 minutes ago, its attempt 10 minutes ago; now the clock shows 100 h.
    fn after(worker_start: i64, attempt_start: i64) -> i64 {
        let age = Duration::from_secs(50 * 60);
        let worker = WorkerAge { started_ms: worker_start, age };
        let ran = ran_for(100 * HOUR, attempt_start, worker);
        i64::try_from(ran.as_millis()).expect("small")
    }

    #[test]
    fn a_clock_that_was_not_set_tells_how_long_an_attempt_has_run() {
        let (worker, attempt) = (100 * HOUR - 50 * MINUTE, 100 * HOUR - 10 * MINUTE);
        assert_eq!(after(worker, attempt), 10 * MINUTE);
        assert_eq!(after(worker + 900, attempt), 10 * MINUTE, "a small error is no jump");
    }

    #[test]
    fn a_clock_that_was_set_an_hour_or_years_forward_makes_no_attempt_older() {
        for jump in [HOUR, 24 * 365 * HOUR] {
            let (worker, attempt) = (100 * HOUR - 50 * MINUTE, 100 * HOUR - 10 * MINUTE);
            assert_eq!(after(worker - jump, attempt - jump), 10 * MINUTE);
            // Set before the attempt started.
            assert_eq!(after(worker - jump, attempt), 10 * MINUTE);
        }
    }

    #[test]
    fn a_clock_that_was_set_an_hour_back_makes_no_attempt_younger() {
        let (worker, attempt) = (100 * HOUR - 50 * MINUTE, 100 * HOUR - 10 * MINUTE);
        assert_eq!(after(worker + HOUR, attempt + HOUR), 10 * MINUTE);
        assert_eq!(after(worker + HOUR, attempt), 10 * MINUTE);
    }

    #[test]
    fn no_attempt_is_older_than_its_worker() {
        let now = 100 * HOUR;
        assert_eq!(after(now - 50 * MINUTE, now - 3 * HOUR), 0);
        assert_eq!(after(now - 50 * MINUTE, i64::MIN), 0);
        assert_eq!(after(i64::MIN, i64::MAX), 0);
    }
}
