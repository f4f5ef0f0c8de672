//! What a program is started with: arguments, environment, working directory.

use super::Program;
use super::group::Group;
use crate::attempt::AttemptContext;
use crate::launcher::{self, Order, Step};
use shiftboss_protocol::job::{Cause, Failure};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Where programs without a slash in their name are looked up.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names that nobody may forge: job, attempt and owner.
const MARKS: [&str; 3] = ["SHIFTBOSS_JOB", "SHIFTBOSS_ATTEMPT", "SHIFTBOSS_OWNER"];

/// How a program is started.
pub(super) struct Setting {
    /// The launcher's order, as a frame.
    pub(super) order: Vec<u8>,
    /// Entries of its environment that together no other attempt's programs have.
    pub(super) marks: Vec<Vec<u8>>,
}

/// The launcher's order for `program`, and how what it starts is recognised.
pub(super) fn setting(
    context: &AttemptContext,
    program: &Program,
    group: Option<&Group>,
) -> Result<Setting, Failure> {
    let scratch = context.scratch()?;
    let name = program.argv.first().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| cannot_start("no program is named"))?;
    let cwd = program.cwd.as_deref().unwrap_or(&scratch);
    let env = environment(context, program, &scratch);
    let texts = program.argv.iter().chain(env.iter().flat_map(|(name, value)| [name, value]));
    if texts.map(|text| text.as_bytes()).chain([cwd.as_os_str().as_bytes()]).any(has_zero) {
        return Err(cannot_start("an argument, a variable or the folder holds a zero byte"));
    }
    if let Some((name, _)) = env.iter().find(|(name, _)| !is_variable(name)) {
        return Err(cannot_start(&format!("{name:?} is no name of an environment variable")));
    }
    let is_mark = |name: &OsString| MARKS.iter().any(|mark| name == mark);
    let entry =
        |(name, value): &(OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
    let marks = env.iter().filter(|(name, _)| is_mark(name)).map(entry).collect();
    let limits = context.settings();
    let order = Order {
        argv: program.argv.iter().map(|word| word.as_bytes().to_vec()).collect(),
        env: env.into_iter().map(|(name, value)| (name.into_vec(), value.into_vec())).collect(),
        cwd: cwd.as_os_str().as_bytes().to_vec(),
        group: group.map_or_else(Vec::new, |group| group.dir().as_os_str().as_bytes().to_vec()),
        cpu_seconds_max: cpu_seconds_max(context.state.timeout_ms, limits.program_cpus_max),
        files_max: limits.program_files_max,
        file_bytes_max: limits.program_file_bytes_max,
    };
    let order = launcher::encode(&order).map_err(|error| {
        cannot_start(&format!("arguments and environment of {name:?} are too large: {error}"))
    })?;
    Ok(Setting { order, marks })
}

/// CPU time that no honest process of an attempt can use: what all CPUs that it may use give it
/// until its timeout, and a minute. It ends what goes on where nobody is left to watch the clock.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "far below 2^53 seconds; `as` saturates"
)]
fn cpu_seconds_max(timeout_ms: u64, cpus_max: f64) -> u64 {
    if timeout_ms == 0 {
        return 0;
    }
    let host = std::thread::available_parallelism().map_or(1, |cpus| cpus.get()) as f64;
    let cpus = if cpus_max > 0.0 { cpus_max.min(host) } else { host };
    ((timeout_ms.div_ceil(1_000) + 60) as f64 * cpus.max(1.0)).ceil() as u64
}

/// The fixed variables, then the program's own, then those that nobody may forge: the later
/// one wins.
fn environment(
    context: &AttemptContext,
    program: &Program,
    scratch: &Path,
) -> Vec<(OsString, OsString)> {
    let (job, attempt) = context.state.key;
    let mut env: Vec<(OsString, OsString)> = [
        ("PATH", OsStr::new(PATH)),
        ("HOME", scratch.as_os_str()),
        ("TMPDIR", scratch.as_os_str()),
        ("LANG", OsStr::new("C.UTF-8")),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into();
    env.extend(program.env.iter().cloned());
    // A program's own value for one of these would be no mark.
    env.retain(|(name, _)| MARKS.iter().all(|mark| name != mark));
    let values = [job.to_string(), attempt.to_string(), context.state.owner()];
    env.extend(MARKS.iter().zip(values).map(|(name, value)| (name.into(), value.into())));
    env
}

fn has_zero(text: &[u8]) -> bool {
    text.contains(&0)
}

/// What `setenv` accepts.
fn is_variable(name: &OsStr) -> bool {
    !name.is_empty() && !name.as_bytes().contains(&b'=')
}

fn cannot_start(reason: &str) -> Failure {
    Failure::permanent(Cause::FailedStart, format!("cannot start a program: {reason}"))
}

/// The failure that a report of a program that never ran stands for.
pub(super) fn not_started(program: &Program, step: Step, errno: i32) -> Failure {
    let name = program.argv.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    let error = std::io::Error::from_raw_os_error(errno);
    if step == Step::Group {
        let message = format!("cannot start {name}: it cannot be put into its control group: ");
        return Failure::retryable(Cause::FailedStart, format!("{message}{error}"));
    }
    if step == Step::WorkingDirectory {
        let folder = program.cwd.as_deref().unwrap_or(Path::new("the scratch folder"));
        let message = format!("cannot start {name}: working directory {}: ", folder.display());
        return Failure::permanent(Cause::FailedStart, format!("{message}{error}"));
    }
    let (is_permanent, reason) = match errno {
        libc::ENOENT if name.contains('/') => {
            (true, "the file or the interpreter that it names does not exist".to_owned())
        }
        libc::ENOENT => (true, "no such program in PATH".to_owned()),
        libc::EACCES => (true, "the file is not executable for the supervisor's user".to_owned()),
        libc::ENOEXEC => (true, "the file is no program".to_owned()),
        libc::E2BIG => (true, "arguments and environment are larger than the host allows".into()),
        libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG | libc::EISDIR | libc::EPERM => {
            (true, error.to_string())
        }
        _ => (false, error.to_string()),
    };
    let message = format!("cannot start {name}: {reason}");
    if is_permanent {
        Failure::permanent(Cause::FailedStart, message)
    } else {
        Failure::retryable(Cause::FailedStart, message)
    }
}
