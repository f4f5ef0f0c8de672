//! `shiftboss job ID`: the whole story of one job.

use super::client::Client;
use super::{Context, Error, logs, show, table, wait};
use crate::store::reader::Reader;
use serde_json::Value;
use shiftboss_protocol::control::Request;
use shiftboss_protocol::job::JobId;

/// Lines of its newest log that are shown.
const LOG_LINES: usize = 8;

pub(super) fn job(context: &Context, id: i64) -> Result<(), Error> {
    let row = read(context, id)?;
    if context.json {
        return context.out.line(&row.to_string());
    }
    for line in story(&row) {
        context.out.line(&line)?;
    }
    let lines = logs::last_lines(&context.config, &row, id, LOG_LINES);
    if !lines.is_empty() {
        context.out.line("last lines of its log:")?;
        for line in lines {
            context.out.line(&format!("  {line}"))?;
        }
    }
    Ok(())
}

/// The job with its attempts, from the supervisor or else from the table.
pub(super) fn read(context: &Context, id: i64) -> Result<Value, Error> {
    match Client::connect(&context.config) {
        Ok(mut client) => client.ask_json(&Request::Job(JobId(id))),
        Err(Error::NoSupervisor(_)) => of_table(&show::reader(context)?, id),
        Err(error) => Err(error),
    }
}

/// The same from the table.
pub(super) fn of_table(reader: &Reader, id: i64) -> Result<Value, Error> {
    let row = reader.job(JobId(id))?;
    let mut row = row.ok_or_else(|| Error::Failed(format!("there is no job {id}")))?;
    row["attempts"] = Value::Array(reader.attempts(JobId(id))?);
    row["live"] = Value::Null;
    let waits = row["finished_at"].is_null();
    row["why_waiting"] = if waits {
        "no supervisor runs: start one with `shiftboss run`".into()
    } else {
        Value::Null
    };
    Ok(row)
}

fn story(row: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let mut tell = |name: &str, value: String| lines.push(format!("{name:<12} {value}"));
    tell("job", format!("{} of type {}", table::plain(&row["id"]), table::plain(&row["type"])));
    tell("state", state(row));
    if let Some(why) = row["why_waiting"].as_str() {
        tell("waits", why.to_owned());
    }
    tell("payload", table::short(&row["payload"].to_string(), 200));
    let times = [
        ("created", "created_at"),
        ("starts", "run_at"),
        ("started", "started_at"),
        ("ended", "finished_at"),
    ];
    for (name, column) in times {
        let due = column != "run_at" || row["state"] == "scheduled";
        if due && !row[column].is_null() {
            tell(name, table::time(&row[column]));
        }
    }
    let counts = ["priority", "attempt", "failures", "crash_count"];
    let counts: Vec<_> =
        counts.iter().map(|it| format!("{it} {}", table::plain(&row[*it]))).collect();
    tell("counts", counts.join(", "));
    for (name, column) in [("unique key", "unique_key"), ("tags", "tags")] {
        if let Some(text) = row[column].as_str() {
            tell(name, text.to_owned());
        }
    }
    if let Some(error) = row["last_error"].as_str() {
        tell("last error", error.replace('\n', "\n             "));
    }
    if !row["result"].is_null() {
        let outputs = wait::outputs(&row["result"]);
        if outputs.is_empty() {
            tell("result", table::short(&row["result"].to_string(), 400));
        } else {
            tell("result", format!("\n{}", outputs.join("\n")));
        }
    }
    lines.extend(attempts(&row["attempts"]));
    lines.extend(confinements(&row["attempts"]));
    lines
}

/// What confined each attempt, once for all attempts in a row of which the same is known.
fn confinements(list: &Value) -> Vec<String> {
    let mut told: Vec<(String, String, String)> = Vec::new();
    for one in list.as_array().into_iter().flatten() {
        let Some(text) = one["confinement"].as_str() else { continue };
        let number = table::plain(&one["attempt"]);
        match told.last_mut() {
            Some((_, last, known)) if known == text => *last = number,
            _ => told.push((number.clone(), number, text.to_owned())),
        }
    }
    let line = |(first, last, text): (String, String, String)| {
        let range = if first == last { first } else { format!("{first}-{last}") };
        format!("{:<12} {}", format!("confined {range}"), text.replace("; missing", "\n  missing"))
    };
    told.into_iter().map(line).collect()
}

fn state(row: &Value) -> String {
    let state = table::plain(&row["state"]);
    let percent = row["progress"].as_f64().filter(|_| state == "running");
    let percent = percent.map_or_else(String::new, |share| format!(" {:.1} %", share * 100.0));
    let note = row["progress_note"].as_str().filter(|note| state == "running" && !note.is_empty());
    let note = note.map_or_else(String::new, |note| format!(", {note}"));
    let stopping = if row["live"]["stopping"] == true { ", being stopped" } else { "" };
    format!("{state}{percent}{note}{stopping}")
}

fn attempts(list: &Value) -> Vec<String> {
    let Some(list) = list.as_array().filter(|list| !list.is_empty()) else { return Vec::new() };
    let cells = |one: &Value| {
        let ended = one["ended_at"].as_i64();
        let took =
            ended.zip(one["started_at"].as_i64()).map(|(end, start)| table::span(end - start));
        vec![
            table::plain(&one["attempt"]),
            one["outcome"].as_str().unwrap_or("running").to_owned(),
            table::plain(&one["cause"]),
            table::plain(&one["worker"]),
            table::time(&one["started_at"]),
            took.unwrap_or_else(|| "-".to_owned()),
            one["cpu_ms"].as_i64().map_or_else(|| "-".to_owned(), table::span),
            one["memory_peak"].as_u64().map_or_else(|| "-".to_owned(), table::size),
            table::short(one["error"].as_str().unwrap_or_default(), 80),
        ]
    };
    let head =
        ["ATTEMPT", "OUTCOME", "CAUSE", "WORKER", "STARTED", "TOOK", "CPU", "MEMORY", "ERROR"];
    let rows: Vec<_> = list.iter().map(cells).collect();
    table::aligned(&head, &rows, &[0, 3, 5, 6, 7]).lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_confined_the_attempts_is_told_once_for_all_that_are_alike() {
        let list = json!([
            { "attempt": 1, "confinement": "seccomp" },
            { "attempt": 2, "confinement": "seccomp" },
            { "attempt": 3, "confinement": "none; missing: user-ns (EPERM)" },
            { "attempt": 4, "confinement": null },
        ]);
        let expected = ["confined 1-2 seccomp", "confined 3   none\n  missing: user-ns (EPERM)"];
        assert_eq!(confinements(&list), expected);
        assert_eq!(confinements(&Value::Null), Vec::<String>::new());
    }
}
