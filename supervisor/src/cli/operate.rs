//! Commands that change something: cancel, retry, pause, resume, drain, db.

use super::args::DbCommand;
use super::client::{Client, LOOK_EVERY, SUCCESSOR_WITHIN, unexpected};
use super::{Context, Error, submit};
use crate::config::Config;
use crate::os::lock::{Holder, holder};
use crate::store::care::{self, Depth};
use crate::store::direct::Direct;
use serde_json::{Value, json};
use shiftboss_protocol::control::{ActionTaken, Request, Response};
use shiftboss_protocol::job::JobId;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub(super) fn cancel(context: &Context, ids: &[i64]) -> Result<(), Error> {
    let ids: Vec<_> = ids.iter().copied().map(JobId).collect();
    act(context, &Request::Cancel(ids.clone()), |direct| direct.cancel(&ids))
}

pub(super) fn retry(context: &Context, ids: &[i64]) -> Result<(), Error> {
    let ids: Vec<_> = ids.iter().copied().map(JobId).collect();
    act(context, &Request::Retry(ids.clone()), |direct| direct.retry(&ids))
}

/// Through the supervisor, or in the table itself when none runs.
pub(super) fn act(
    context: &Context,
    request: &Request,
    directly: impl FnOnce(&Direct) -> Result<Vec<ActionTaken>, crate::store::Error>,
) -> Result<(), Error> {
    let actions = match Client::connect(&context.config) {
        Ok(mut client) => match client.ask(request)? {
            Response::Actions(actions) => actions,
            other => return Err(unexpected(&other)),
        },
        Err(Error::NoSupervisor(_)) if context.config.database.exists() => {
            directly(&Direct::open(&submit::open_options(context))?)?
        }
        Err(error) => return Err(error),
    };
    let all = actions.iter().all(|one| one.ok);
    if context.json {
        let row =
            |one: &ActionTaken| json!({ "id": one.id.0, "ok": one.ok, "message": one.message });
        let rows: Vec<Value> = actions.iter().map(row).collect();
        context.out.line(&Value::Array(rows).to_string())?;
    } else {
        for one in &actions {
            context.out.line(&one.message)?;
        }
    }
    if all { Ok(()) } else { Err(Error::JobFailed) }
}

pub(super) fn pause(context: &Context, job_type: String) -> Result<(), Error> {
    let text = format!("type {job_type} is paused: running jobs go on, none is started");
    done(context, &Request::Pause(job_type), &text)
}

pub(super) fn resume(context: &Context, job_type: String) -> Result<(), Error> {
    let text = format!("type {job_type} goes on");
    done(context, &Request::Resume(job_type), &text)
}

pub(super) fn drain(context: &Context) -> Result<(), Error> {
    let text =
        "the supervisor drains: it starts no jobs, and stops when the running ones have ended";
    done(context, &Request::Drain, text)
}

pub(super) fn upgrade(context: &Context) -> Result<(), Error> {
    let mut client = Client::connect(&context.config)?;
    let before = client.ask_json(&Request::Status)?;
    match client.ask(&Request::Upgrade) {
        // It may be gone before its answer is out.
        Ok(_) | Err(Error::SupervisorLeft(_)) => {}
        Err(error) => return Err(error),
    }
    let after = wait_for_successor(context, &before["instance"])?;
    let workers = after["workers"].as_u64().unwrap_or(0);
    if context.json {
        let row = json!({
            "from": before["version"], "to": after["version"], "pid": after["pid"],
            "workers": workers,
        });
        return context.out.line(&row.to_string());
    }
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    context.out.line(&format!(
        "version {} became {} (pid {}); workers that went on meanwhile: {workers}",
        word(&before["version"]),
        word(&after["version"]),
        after["pid"],
    ))
}

fn wait_for_successor(context: &Context, before: &Value) -> Result<Value, Error> {
    let deadline = Instant::now() + SUCCESSOR_WITHIN;
    loop {
        let status = Client::connect(&context.config)
            .and_then(|mut client| client.ask_json(&Request::Status));
        if let Ok(status) = status
            && status["instance"] != *before
        {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(Error::Failed(format!(
                "no new supervisor answered within {} s: see its log; the workers wait for the \
                 next start (orphan_grace)",
                SUCCESSOR_WITHIN.as_secs()
            )));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn done(context: &Context, request: &Request, text: &str) -> Result<(), Error> {
    Client::connect(&context.config)?.ask(request)?;
    if context.json {
        context.out.line(&json!({ "ok": true, "message": text }).to_string())
    } else {
        context.out.line(text)
    }
}

pub(super) fn database(context: &Context, what: DbCommand) -> Result<(), Error> {
    let config = &context.config;
    match what {
        DbCommand::Check => {
            let report = care::check(&config.database, &config.table_prefix, Depth::Full)?;
            tell_report(context, &config.database, &report)?;
            if report.problems.is_empty() { Ok(()) } else { Err(Error::JobFailed) }
        }
        DbCommand::Backup { file } => {
            care::backup(&config.database, &config.table_prefix, &file)?;
            let text = format!("backed up to {}", file.display());
            tell(context, &json!({ "file": file }), &text)
        }
        DbCommand::Restore { file } => restore(context, &file),
    }
}

fn restore(context: &Context, file: &Path) -> Result<(), Error> {
    let config = &context.config;
    if let Some(lock) = living_supervisor(config) {
        return Err(Error::Failed(format!(
            "cannot restore {} while a supervisor runs on it ({} is held): stop it first",
            config.database.display(),
            lock.display()
        )));
    }
    let mut safety = config.database.clone().into_os_string();
    safety.push(format!(".before-restore-{}", crate::clock::unix_ms()));
    let safety = PathBuf::from(safety);
    let report = care::restore(&submit::open_options(context), file, &safety)?;
    let text = format!(
        "restored {} jobs from {}; what was there before is in {}",
        report.jobs,
        file.display(),
        safety.display()
    );
    tell(context, &json!({ "jobs": report.jobs, "before": safety }), &text)
}

/// The lock of a supervisor that lives on this database, of whatever name.
fn living_supervisor(config: &Config) -> Option<PathBuf> {
    let locks = config.instance_names().into_iter().map(|name| config.lock_file_of(&name));
    locks.into_iter().find(|path| holder(path) == Holder::Somebody)
}

fn tell_report(context: &Context, path: &Path, report: &care::Report) -> Result<(), Error> {
    let ok = report.problems.is_empty();
    let row = json!({
        "ok": ok, "schema": report.schema, "jobs": report.jobs, "problems": report.problems,
    });
    let words = if ok { "sound".to_owned() } else { report.problems.join("\n  ") };
    let (jobs, schema) = (report.jobs, report.schema);
    let text = format!("{} (schema version {schema}, {jobs} jobs): {words}", path.display());
    tell(context, &row, &text)
}

fn tell(context: &Context, row: &Value, text: &str) -> Result<(), Error> {
    if context.json { context.out.line(&row.to_string()) } else { context.out.line(text) }
}
