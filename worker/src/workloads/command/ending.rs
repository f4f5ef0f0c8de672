//! What the end of a program means for its job.

use crate::program::{Ended, Program};
use serde_json::{Value, json};
use shiftboss_protocol::job::{Cause, Failure};
use std::fmt::Write as _;

/// Last lines of standard error that go into a failure's message.
const LINES_MAX: usize = 10;

/// The job's result, or its failure. `said` is the result that the program printed itself.
pub(super) fn result(
    program: &Program,
    ended: &Ended,
    said: Option<Value>,
) -> Result<Value, Failure> {
    let name = program.argv.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    if ended.stopped.is_some() || ended.timed_out {
        // A program that ends well when it is told to end has not done its work.
        return Err(Failure::retryable(Cause::Released, format!("{name} was stopped")));
    }
    if ended.exit_code == Some(0) {
        let wall_ms = u64::try_from(ended.wall.as_millis()).unwrap_or(u64::MAX);
        let own = || json!({"exit_code": 0, "wall_ms": wall_ms, "stdout_tail": ended.stdout_tail});
        return Ok(said.unwrap_or_else(own));
    }
    let (cause, how) = match (ended.exit_code, ended.signal) {
        (Some(code), _) => (Cause::ExitCode, format!("ended with exit code {code}")),
        (None, Some(signal)) => (cause_of(signal), format!("was ended by {}", describe(signal))),
        (None, None) => (Cause::Error, "ended in an unknown way".to_owned()),
    };
    let mut message = format!("{name} {how}");
    let lines: Vec<_> = ended.stderr_tail.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES_MAX)..];
    if !last.is_empty() {
        let _ = write!(message, "; it last wrote: {}", last.join("\n"));
    }
    let (exit_code, signal) = (ended.exit_code, ended.signal);
    Err(Failure { exit_code, signal, ..Failure::retryable(cause, message) })
}

fn cause_of(signal: i32) -> Cause {
    match signal {
        libc::SIGXCPU | libc::SIGXFSZ => Cause::Limit,
        libc::SIGSYS => Cause::ForbiddenSyscall,
        _ => Cause::Signal,
    }
}

fn describe(signal: i32) -> String {
    let meaning = match signal {
        libc::SIGXCPU => " (its CPU time limit)",
        libc::SIGXFSZ => " (its file size limit)",
        libc::SIGSYS => " (a forbidden system call)",
        libc::SIGSEGV | libc::SIGBUS => " (it used memory that is not its own)",
        libc::SIGABRT => " (it gave up by itself)",
        _ => "",
    };
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(name) => format!("signal {signal}, {name}{meaning}"),
        Err(_) => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ended() -> Ended {
        Ended {
            exit_code: None,
            signal: None,
            stopped: None,
            timed_out: false,
            wall: Duration::from_millis(12),
            cpu: Duration::from_millis(5),
            stderr_tail: (0..30).map(|line| format!("line {line}\n")).collect(),
            stdout_tail: "done".into(),
            confinement: String::new(),
        }
    }

    fn failure(ended: &Ended) -> Failure {
        let program = Program { argv: vec!["work".into()], ..Program::default() };
        result(&program, ended, None).expect_err("failed")
    }

    #[test]
    fn an_exit_code_is_told_with_the_last_lines() {
        let failure = failure(&Ended { exit_code: Some(3), ..ended() });
        assert_eq!((failure.cause, failure.exit_code), (Cause::ExitCode, Some(3)));
        assert!(failure.message.starts_with("work ended with exit code 3; "));
        assert!(failure.message.contains("line 29") && !failure.message.contains("line 19\n"));
        assert!(!failure.permanent);
    }

    #[test]
    fn limits_and_forbidden_calls_are_told_apart_from_other_signals() {
        for (signal, cause, name) in [
            (libc::SIGSEGV, Cause::Signal, "SIGSEGV"),
            (libc::SIGXCPU, Cause::Limit, "SIGXCPU"),
            (libc::SIGXFSZ, Cause::Limit, "SIGXFSZ"),
            (libc::SIGSYS, Cause::ForbiddenSyscall, "SIGSYS"),
            (40, Cause::Signal, "signal 40"),
        ] {
            let failure = failure(&Ended { signal: Some(signal), ..ended() });
            assert_eq!((failure.cause, failure.signal), (cause, Some(signal)));
            assert!(failure.message.contains(name), "{}", failure.message);
        }
    }

    #[test]
    fn a_program_that_was_stopped_has_not_succeeded() {
        use shiftboss_protocol::message::StopReason;
        let stopped = Some(StopReason::Cancelled);
        failure(&Ended { exit_code: Some(0), stopped, ..ended() });
    }
}
