//! Listings: jobs, workers, types, status, configuration, doctor, self-test.

use super::args::{ConfigCommand, Jobs, Selftest};
use super::client::Client;
use super::{Context, Error, table};
use crate::config::Warning;
use crate::doctor::{self, Verdict};
use crate::os::ladder;
use crate::selftest;
use crate::store::reader::Reader;
use serde_json::{Value, json};
use shiftboss_protocol::control::{JobFilter, Request};

pub(super) fn jobs(context: &Context, jobs: &Jobs) -> Result<(), Error> {
    let filter =
        JobFilter { state: jobs.state, job_type: jobs.job_type.clone(), limit: jobs.limit };
    let rows = match Client::connect(&context.config) {
        Ok(mut client) => client.ask_json(&Request::Jobs(filter))?,
        Err(Error::NoSupervisor(_)) => Value::Array(reader(context)?.jobs(&filter)?),
        Err(error) => return Err(error),
    };
    if context.json {
        return context.out.line(&rows.to_string());
    }
    let empty = Vec::new();
    let cells: Vec<_> = rows.as_array().unwrap_or(&empty).iter().map(job_cells).collect();
    let head = ["ID", "TYPE", "STATE", "PRIO", "ATTEMPT", "PROGRESS", "CREATED", "NOTE"];
    context.out.line(&table::aligned(&head, &cells, &[0, 3, 4, 5]))
}

fn job_cells(row: &Value) -> Vec<String> {
    let running = row["state"] == "running";
    let progress = row["progress"].as_f64().filter(|_| running);
    let note = if running { &row["progress_note"] } else { &row["last_error"] };
    vec![
        table::plain(&row["id"]),
        table::plain(&row["type"]),
        table::plain(&row["state"]),
        table::plain(&row["priority"]),
        table::plain(&row["attempt"]),
        progress.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0)),
        table::time(&row["created_at"]),
        table::short(note.as_str().unwrap_or_default(), 60),
    ]
}

/// The database, for when no supervisor runs; says so.
pub(super) fn reader(context: &Context) -> Result<Reader, Error> {
    let reader = quiet_reader(context)?;
    let database = context.config.database.display();
    context.out.remark(&format!("no supervisor runs: read from {database}"));
    Ok(reader)
}

/// The same, without a word: for looks that repeat.
pub(super) fn quiet_reader(context: &Context) -> Result<Reader, Error> {
    let config = &context.config;
    if !config.database.exists() {
        return Err(Error::NoSupervisor(format!(
            "{}, and there is no database {}",
            config.instance_dir().join("control.sock").display(),
            config.database.display()
        )));
    }
    Ok(Reader::open(&config.database, &config.table_prefix)?)
}

pub(super) fn status(context: &Context) -> Result<(), Error> {
    let status = Client::connect(&context.config)?.ask_json(&Request::Status)?;
    if context.json {
        return context.out.line(&status.to_string());
    }
    let cap =
        status["running_max"].as_i64().map_or_else(String::new, |cap| format!(" of at most {cap}"));
    let lines = [
        ("state", table::plain(&status["state"])),
        ("instance", table::plain(&status["instance"])),
        ("pid", table::plain(&status["pid"])),
        (
            "version",
            format!(
                "{} (SQLite {})",
                table::plain(&status["version"]),
                table::plain(&status["sqlite"])
            ),
        ),
        ("running for", table::span(status["uptime_ms"].as_i64().unwrap_or(0))),
        ("database", table::plain(&status["database"])),
        ("logs and scratch", table::plain(&status["work_dir"])),
        ("workers", table::plain(&status["workers"])),
        ("attempts running", format!("{}{cap}", table::plain(&status["running"]))),
        ("fallback poll every", table::span(status["poll_interval_ms"].as_i64().unwrap_or(0))),
        (
            "notices commits",
            if status["notices_foreign_commits"] == true { "yes" } else { "no" }.to_owned(),
        ),
        ("trouble", status["trouble"].as_str().unwrap_or("none").to_owned()),
    ];
    for (name, value) in lines {
        context.out.line(&format!("{name:<20} {value}"))?;
    }
    if status["poll_lag_ms"].is_number() {
        context.out.line(&format!("{:<20} {}", "poll lag", lag(&status["poll_lag_ms"])))?;
    }
    // Said only while there is one: what wants a person's attention stands out.
    for one in status["breakers"].as_array().into_iter().flatten() {
        let name = format!("breaker of {}", table::plain(&one["type"]));
        context.out.line(&format!("{name:<20} {}", table::plain(&one["breaker"])))?;
    }
    Ok(())
}

pub(super) fn workers(context: &Context) -> Result<(), Error> {
    let rows = Client::connect(&context.config)?.ask_json(&Request::Workers)?;
    if context.json {
        return context.out.line(&rows.to_string());
    }
    let cells = |row: &Value| {
        let attempts = row["attempts"].as_array().map_or_else(String::new, |list| {
            let first: Vec<_> = list.iter().take(8).map(|one| table::plain(&one["job"])).collect();
            let more = list.len().saturating_sub(8);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{more}", first.join(" "))
        });
        vec![
            table::plain(&row["id"]),
            table::plain(&row["type"]),
            table::plain(&row["slot"]),
            table::plain(&row["pid"]),
            table::plain(&row["state"]),
            row["cpu"].as_f64().map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.0} %")),
            row["memory"].as_u64().map_or_else(|| "-".to_owned(), table::size),
            lag(&row["gauges"]["poll_lag_ms"]),
            table::time(&row["started_at"]),
            attempts,
        ]
    };
    let rows: Vec<_> = rows.as_array().into_iter().flatten().map(cells).collect();
    let head =
        ["ID", "TYPE", "SLOT", "PID", "STATE", "CPU", "MEMORY", "POLL LAG", "STARTED", "JOBS"];
    context.out.line(&table::aligned(&head, &rows, &[0, 2, 3, 5, 6, 7]))
}

/// How much later than wanted operations are asked for, milliseconds, where that is told.
fn lag(milliseconds: &Value) -> String {
    milliseconds.as_f64().map_or_else(|| "-".to_owned(), |lag| format!("{:.1} s", lag / 1_000.0))
}

pub(super) fn types(context: &Context) -> Result<(), Error> {
    let rows = Client::connect(&context.config)?.ask_json(&Request::Types)?;
    if context.json {
        return context.out.line(&rows.to_string());
    }
    let cells = |row: &Value| {
        vec![
            table::plain(&row["type"]),
            table::plain(&row["state"]),
            format!(
                "{}/{}",
                table::plain(&row["workers"]),
                table::plain(&row["limits"]["workers"])
            ),
            table::plain(&row["waiting"]),
            format!(
                "{}/{}",
                table::plain(&row["running"]),
                table::plain(&row["limits"]["running"])
            ),
            lag(&row["poll_lag_ms"]),
            table::plain(&row["breaker"]),
        ]
    };
    let rows: Vec<_> = rows.as_array().into_iter().flatten().map(cells).collect();
    let head = ["TYPE", "STATE", "WORKERS", "WAITING", "RUNNING", "POLL LAG", "BREAKER"];
    context.out.line(&table::aligned(&head, &rows, &[2, 3, 4, 5]))
}

pub(super) fn config(
    context: &Context,
    what: ConfigCommand,
    warnings: &[Warning],
) -> Result<(), Error> {
    let file = context.config.file.as_ref().map(|file| file.display().to_string());
    match what {
        // Needs no configuration; answered before one was read.
        ConfigCommand::Schema => Ok(()),
        ConfigCommand::Reload => {
            let answer = Client::connect(&context.config)?.ask_json(&Request::Reload)?;
            let text = answer["message"].as_str().unwrap_or_default().to_owned();
            context.out.line(&if context.json { answer.to_string() } else { text })
        }
        ConfigCommand::Check if context.json => {
            context.config.check_host(&ladder::probe())?;
            let warnings: Vec<_> = warnings.iter().map(|one| one.text.as_str()).collect();
            context.out.line(&json!({ "file": file, "ok": true, "warnings": warnings }).to_string())
        }
        ConfigCommand::Check => {
            context.config.check_host(&ladder::probe())?;
            for warning in warnings {
                context.out.line(&format!("warning: {}", warning.text))?;
            }
            let file = file.unwrap_or_else(|| "no file, defaults and environment".to_owned());
            context.out.line(&format!("configuration is fine ({file})"))
        }
        ConfigCommand::Show if context.json => {
            let shown = json!(context.config.show());
            context.out.line(&shown.to_string())
        }
        ConfigCommand::Show => {
            for value in context.config.show() {
                context.out.line(&value.to_string())?;
            }
            Ok(())
        }
    }
}

/// Exit code 1 when something will not work.
pub(super) fn doctor(context: &Context) -> Result<(), Error> {
    let findings = doctor::examine(&context.config);
    let bad = findings.iter().any(|one| one.verdict == Verdict::Problem);
    if context.json {
        context.out.line(&json!(findings).to_string())?;
    } else {
        let mut area = "";
        for one in &findings {
            if one.area != area {
                area = one.area;
                context.out.line(area)?;
            }
            let mark = match one.verdict {
                Verdict::Ok => "ok     ",
                Verdict::Note => "note   ",
                Verdict::Problem => "PROBLEM",
            };
            context.out.line(&format!("  {mark}  {}: {}", one.check, one.found))?;
            if let Some(remedy) = &one.remedy {
                context.out.line(&format!("           {remedy}"))?;
            }
        }
    }
    if bad { Err(Error::JobFailed) } else { Ok(()) }
}

/// What does not belong to the table is cut at this many characters.
const HAPPENED_MAX: usize = 70;

/// `shiftboss selftest`: runs it and prints its table.
pub(super) fn selftest(context: &Context, arguments: &Selftest) -> Result<(), Error> {
    let options = selftest::Options {
        types: arguments.types.clone(),
        live: arguments.live,
        outside: arguments.outside,
        keep: arguments.keep,
    };
    let report = selftest::run(&context.config, &options)
        .map_err(|error| Error::Failed(format!("the self-test could not be run: {error}")))?;
    let counts = selftest::count(&report.rows);
    if context.json {
        context.out.line(&json!(report.rows).to_string())?;
    } else {
        let row = |row: &selftest::Row| {
            let happened = table::short(&row.happened, HAPPENED_MAX);
            [&row.job_type, row.attempt, row.expected, &happened, word(row.verdict), row.tries]
                .map(str::to_owned)
                .to_vec()
        };
        let rows: Vec<Vec<String>> = report.rows.iter().map(row).collect();
        let head = ["TYPE", "ATTEMPT", "EXPECTED", "HAPPENED", "VERDICT", "TRIES TO"];
        context.out.line(&table::aligned(&head, &rows, &[]))?;
        context.out.line(&format!(
            "{} attempts: {} denied, {} got through, {} could not be made, {} skipped",
            report.rows.len(),
            counts.denied,
            counts.got_through,
            counts.not_tried,
            counts.skipped
        ))?;
    }
    if let Some(kept) = &report.kept {
        context.out.remark(&format!("what was staged is left in {}", kept.display()));
    }
    if counts.got_through + counts.not_tried == 0 {
        return Ok(());
    }
    Err(Error::Failed(format!(
        "{} attempts got through and {} could not be made: do not run hostile files like this; \
         `shiftboss doctor` says what this host lacks",
        counts.got_through, counts.not_tried
    )))
}

const fn word(verdict: selftest::Verdict) -> &'static str {
    match verdict {
        selftest::Verdict::Denied => "denied",
        selftest::Verdict::GotThrough => "GOT THROUGH",
        selftest::Verdict::NotTried => "NOT TRIED",
        selftest::Verdict::Skipped => "skipped",
    }
}
