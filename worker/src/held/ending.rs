//! The outcome of an attempt: decided by what its workload returned and why it was stopped.

use crate::attempt::cut;
use shiftboss_protocol::frame::TEXT_BYTES_MAX;
use shiftboss_protocol::job::{Cause, Failure, Outcome};
use shiftboss_protocol::message::StopReason;

/// Longest message of a failure, bytes; the rest is cut off.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// How a workload came back.
#[derive(Debug)]
pub(crate) enum Returned {
    /// With a result, JSON text.
    Success(String),
    /// With a failure, or it panicked.
    Failure(Failure),
    /// Without knowing whether it was done.
    Held(String),
    /// It was stopped before it was called.
    NotRun,
}

/// A success stays one, and so does doubt. Else the reason to stop, when there is one, decides.
pub(super) fn outcome_of(returned: Returned, stop: Option<StopReason>, timeout_ms: u64) -> Outcome {
    let failure = match returned {
        Returned::Success(result) if result.len() <= TEXT_BYTES_MAX => {
            return Outcome::Succeeded { result };
        }
        Returned::Success(result) => {
            let bytes = result.len();
            return Outcome::Failed(Failure::permanent(
                Cause::Error,
                format!("result of {bytes} bytes, at most {TEXT_BYTES_MAX} are stored"),
            ));
        }
        Returned::Held(reason) => {
            return Outcome::Held { reason: cut(&reason, MESSAGE_BYTES_MAX).to_owned() };
        }
        Returned::Failure(failure) => Some(failure),
        Returned::NotRun => None,
    };
    match stop {
        None => Outcome::Failed(failure.map_or_else(
            || Failure::retryable(Cause::Error, "the attempt was not run"),
            |failure| Failure {
                message: cut(&failure.message, MESSAGE_BYTES_MAX).to_owned(),
                ..failure
            },
        )),
        Some(StopReason::Cancelled) => Outcome::Cancelled,
        Some(StopReason::Released) => {
            Outcome::Released { reason: "stopped by the supervisor or its worker".to_owned() }
        }
        Some(StopReason::Timeout) => {
            let allowed = match timeout_ms {
                0 => "its timeout".to_owned(),
                limit => format!("its timeout of {limit} ms"),
            };
            let message = format!("stopped because it ran longer than {allowed}");
            Outcome::Failed(Failure::retryable(Cause::Timeout, message))
        }
        Some(StopReason::Stalled) => Outcome::Failed(Failure::retryable(
            Cause::Stalled,
            "stopped because it made no progress within its stall timeout",
        )),
    }
}
