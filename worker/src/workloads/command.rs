//! The `command` workload: runs one program and tells how it ended.

mod ending;
mod progress;

use crate::attempt::{AttemptContext, Job};
use crate::launcher::is_system;
use crate::path::{check_read, check_write, parse_path};
use crate::program::{self, Place, Program, run_program};
use crate::workload::{Workload, parse_payload};
use progress::Watcher;
use serde::Deserialize;
use serde_json::Value;
use shiftboss_protocol::job::{Cause, Failure};
use shiftboss_protocol::message::Settings;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// Runs the program that the payload names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Command;

/// What a `command` job says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    argv: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cwd: Option<String>,
    stdin: Option<String>,
    #[serde(default)]
    read: Vec<String>,
    #[serde(default)]
    write: Vec<String>,
    progress: Option<progress::Source>,
}

impl Workload for Command {
    fn name(&self) -> &'static str {
        "command"
    }

    fn starts_programs(&self) -> bool {
        true
    }

    fn set_up(&self, _settings: &Settings) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    fn run(&self, job: &Job, context: &AttemptContext) -> Result<Value, Failure> {
        let payload: Payload = parse_payload(job)?;
        check_words(&payload)?;
        let (read, write) = read_paths(context.settings(), &payload)?;
        let mut watcher = Watcher::new(payload.progress.as_ref(), context.clone())?;
        let program = Program {
            cwd: read_cwd(context.settings(), payload.cwd.as_deref())?,
            argv: payload.argv.into_iter().map(Into::into).collect(),
            env: payload.env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            read,
            write,
            stdin: payload.stdin.map(String::into_bytes),
            log_name: Some("command".to_owned()),
            ..Program::default()
        };
        let ended = run_program(context, &program, &mut watcher)?;
        ending::result(&program, &ended, watcher.into_result())
    }
}

fn refuse(field: &str, reason: &str) -> Failure {
    Failure::permanent(Cause::Payload, format!("payload field {field}: {reason}"))
}

/// What the kernel could not be told, and names that are not the job's to set.
fn check_words(payload: &Payload) -> Result<(), Failure> {
    if payload.argv.first().is_none_or(String::is_empty) {
        return Err(refuse("argv", "must name a program"));
    }
    if let Some(at) = payload.argv.iter().position(|word| word.contains('\0')) {
        return Err(refuse(&format!("argv[{at}]"), "holds a zero byte"));
    }
    for (name, value) in &payload.env {
        let field = format!("env.{name}");
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(refuse(&field, "is no name of an environment variable"));
        }
        if name.starts_with("SHIFTBOSS_") {
            return Err(refuse(&field, "names starting with SHIFTBOSS_ are the supervisor's"));
        }
        if value.contains('\0') {
            return Err(refuse(&field, "holds a zero byte"));
        }
    }
    Ok(())
}

/// What the program is shown. A folder to be written is made where its parent exists, as for
/// every output.
fn read_paths(settings: &Settings, payload: &Payload) -> Result<(Vec<Place>, Vec<Place>), Failure> {
    let (mut read, mut write) = (Vec::new(), Vec::new());
    for (at, text) in payload.read.iter().enumerate() {
        let field = format!("read[{at}]");
        let named = parse_path(&field, text)?;
        read.push(Place::checked(&named, &check_read(settings, &field, &named)?));
    }
    for (at, text) in payload.write.iter().enumerate() {
        let field = format!("write[{at}]");
        let named = parse_path(&field, text)?;
        let real = check_write(settings, &field, &named)?;
        match std::fs::create_dir(&real) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(refuse(&field, &format!("cannot be made: {error}")));
            }
            _ => {}
        }
        write.push(Place::checked(&named, &real));
    }
    if let Some(named) = find_program(payload) {
        let is_shown = |place: &Place| named.starts_with(&place.named);
        if !is_system(&named) && !read.iter().chain(&write).any(is_shown) {
            read.push(Place::checked(&named, &check_read(settings, "argv[0]", &named)?));
        }
    }
    Ok((read, write))
}

/// The program itself, where the payload or a link of the system's names one that is not the
/// system's: no more than the type may read. One that does not exist is told when it is started.
fn find_program(payload: &Payload) -> Option<PathBuf> {
    let name = payload.argv.first()?;
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_absolute() && path.exists());
    }
    let path = payload.env.get("PATH").map_or(program::PATH, String::as_str);
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file())?;
    if is_system(&found) { found.canonicalize().ok() } else { Some(found) }
}

/// A program may work where it may read or write.
fn read_cwd(settings: &Settings, text: Option<&str>) -> Result<Option<PathBuf>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let path = parse_path("cwd", text)?;
    let real = check_read(settings, "cwd", &path)
        .or_else(|failure| check_write(settings, "cwd", &path).map_err(|_| failure))?;
    if real.is_dir() { Ok(Some(real)) } else { Err(refuse("cwd", "is not a folder")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftboss_protocol::job::{Attempt, JobId};

    fn refusal(payload: &str) -> String {
        let job = Job {
            id: JobId(1),
            attempt: Attempt(1),
            job_type: "command".into(),
            payload: payload.into(),
            checkpoint: None,
        };
        let context = AttemptContext::unattached(Settings::default(), &job);
        let failure = Command.run(&job, &context).expect_err("refused");
        assert!(failure.permanent, "{failure:?}");
        assert_eq!(failure.cause, Cause::Payload);
        failure.message
    }

    #[test]
    fn a_payload_that_does_not_fit_names_its_field() {
        for (payload, field) in [
            ("{}", "argv"),
            (r#"{"argv":[]}"#, "argv"),
            (r#"{"argv":["true"],"argc":1}"#, "argc"),
            (r#"{"argv":["true"],"env":{"A=B":"x"}}"#, "env.A=B"),
            (r#"{"argv":["true"],"env":{"SHIFTBOSS_JOB":"9"}}"#, "env.SHIFTBOSS_JOB"),
            (r#"{"argv":["true\u0000"]}"#, "argv[0]"),
            (r#"{"argv":["true"],"cwd":"tmp"}"#, "cwd"),
            (r#"{"argv":["true"],"cwd":"/etc/passwd"}"#, "cwd"),
            (r#"{"argv":["true"],"read":["/","film"]}"#, "read[1]"),
            (r#"{"argv":["true"],"write":["file://there/x"]}"#, "write[0]"),
            (r#"{"argv":["true"],"progress":{"regex":"("}}"#, "progress.regex"),
            (r#"{"argv":["true"],"progress":{"regex":"x"}}"#, "progress.regex"),
            ("{", "JSON"),
        ] {
            let message = refusal(payload);
            assert!(message.contains(field), "{payload}: {message}");
        }
    }
}
