//! `wait`, and `--wait` of the commands that insert: live progress until jobs end.

use super::client::{self, Client};
use super::{Context, Error, table};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use shiftboss_protocol::job::{JobId, JobState};
use std::collections::BTreeMap;
use std::io::IsTerminal;

/// Waits until all jobs are final, through restarts and upgrades of the supervisor.
///
/// # Errors
/// [`Error::JobFailed`] when one failed or was cancelled, or does not exist.
pub(super) fn wait(context: &Context, ids: &[i64]) -> Result<(), Error> {
    let ids: Vec<JobId> = ids.iter().copied().map(JobId).collect();
    let mut client = Client::connect(&context.config)?;
    let mut screen = Screen::new(context);
    let watched = loop {
        match client.watch(&ids, |row| screen.show(row)) {
            Err(Error::SupervisorLeft(_)) => {}
            watched => break watched,
        }
        screen.remark(client::WAITING_FOR_SUCCESSOR);
        match client::find_successor(&context.config, client::SUCCESSOR_WITHIN) {
            Ok(next) => client = next,
            Err(error) => break Err(error),
        }
    };
    screen.clear();
    watched?;
    let mut failed = false;
    for id in &ids {
        let row = screen.rows.get(&id.0);
        failed |= !tell_end(context, *id, row)?;
    }
    if failed { Err(Error::JobFailed) } else { Ok(()) }
}

/// What a person sees while waiting: a line per job on a terminal, else a line per change.
struct Screen<'a> {
    context: &'a Context,
    bars: Option<MultiProgress>,
    bar_of: BTreeMap<i64, ProgressBar>,
    told: BTreeMap<i64, (String, i64)>,
    rows: BTreeMap<i64, Value>,
}

impl<'a> Screen<'a> {
    fn new(context: &'a Context) -> Self {
        let live = !context.json && std::io::stderr().is_terminal();
        Self {
            context,
            bars: live.then(MultiProgress::new),
            bar_of: BTreeMap::new(),
            told: BTreeMap::new(),
            rows: BTreeMap::new(),
        }
    }

    fn show(&mut self, row: &Value) -> Result<(), Error> {
        let id = row["id"].as_i64().unwrap_or(0);
        self.rows.insert(id, row.clone());
        if let Some(bars) = &self.bars {
            let bar = self.bar_of.entry(id).or_insert_with(|| bars.add(new_bar(id)));
            let percent = row["progress"].as_f64().unwrap_or(0.0) * 100.0;
            bar.set_position((percent * 10.0) as u64);
            bar.set_message(words(row));
            return Ok(());
        }
        // Every change of state, and every ten percent: a log that stays readable.
        if row["state"].is_null() {
            // There is no such job, which is told at the end.
            return Ok(());
        }
        let state = table::plain(&row["state"]);
        let tenth = (row["progress"].as_f64().unwrap_or(0.0) * 10.0) as i64;
        let news = (format!("{state}/{}/{}", row["attempt"], breaker(row)), tenth);
        if self.told.get(&id) != Some(&news) {
            self.told.insert(id, news);
            if self.context.json {
                self.context.out.line(&row.to_string())?;
            } else if !JobState::parse(&state).is_some_and(JobState::is_final) {
                self.context.out.remark(&format!("job {id}: {}", words(row)));
            }
        }
        Ok(())
    }

    /// A line that stays, above what moves.
    fn remark(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| self.context.out.remark(text)),
            None => self.context.out.remark(text),
        }
    }

    fn clear(&mut self) {
        for bar in self.bar_of.values() {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(id: i64) -> ProgressBar {
    // Shown only once it is among the others: drawn alone before, it would leave a line behind.
    let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::hidden());
    let style = ProgressStyle::with_template("{prefix} [{bar:24}] {msg}");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(format!("job {id}"));
    bar
}

/// What is worth a line of its own among the reasons to wait.
fn breaker(row: &Value) -> bool {
    row["why_waiting"].as_str().is_some_and(|why| why.contains("breaker"))
}

/// State, percent and the workload's own words.
fn words(row: &Value) -> String {
    let state = table::plain(&row["state"]);
    let attempt = row["attempt"].as_i64().unwrap_or(0);
    let again = if attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
    let percent = row["progress"].as_f64().map(|share| format!(" {:.1} %", share * 100.0));
    let note = row["progress_note"].as_str().filter(|note| !note.is_empty());
    let note = note.map_or_else(String::new, |note| format!(", {note}"));
    if state == JobState::Running.as_str() {
        format!("{state}{again}{}{note}", percent.unwrap_or_default())
    } else {
        let error =
            row["last_error"].as_str().map(|it| format!(", last error: {}", table::short(it, 100)));
        let why = row["why_waiting"].as_str().map(|why| format!(", {}", table::short(why, 160)));
        format!("{state}{again}{}{}", why.unwrap_or_default(), error.unwrap_or_default())
    }
}

/// Says how a job ended; true when it succeeded.
fn tell_end(context: &Context, id: JobId, row: Option<&Value>) -> Result<bool, Error> {
    let state = row.and_then(|row| JobState::parse(row["state"].as_str()?));
    let (Some(row), Some(state)) = (row, state) else {
        if !context.json {
            context.out.line(&format!("job {id}: there is no such job"))?;
        }
        return Ok(false);
    };
    if context.json {
        return Ok(state == JobState::Succeeded);
    }
    let took =
        row["finished_at"].as_i64().zip(row["started_at"].as_i64()).map(|(end, start)| end - start);
    let took = took.map_or_else(String::new, |ms| format!(" in {}", table::span(ms)));
    let error = row["last_error"].as_str().unwrap_or_default();
    match state {
        JobState::Succeeded => {
            context.out.line(&format!("job {id} succeeded{took}"))?;
            for output in outputs(&row["result"]) {
                context.out.line(&output)?;
            }
        }
        JobState::Failed => context.out.line(&format!("job {id} failed: {error}"))?,
        JobState::Cancelled => context.out.line(&format!("job {id} was cancelled"))?,
        JobState::Blocked
        | JobState::Scheduled
        | JobState::Available
        | JobState::Running
        | JobState::Held => context.out.line(&format!("job {id} is {state}"))?,
    }
    Ok(state == JobState::Succeeded)
}

/// What people want to know of an encode's result: the verdict, the files, a line each.
pub(super) fn outputs(result: &Value) -> Vec<String> {
    let texts = |key: &str| result[key].as_array().cloned().unwrap_or_default().into_iter();
    let verdict = result["verdict"].as_str().map(|verdict| format!("  the file is {verdict}"));
    let reasons = texts("reasons").map(|reason| format!("  - {}", table::plain(&reason)));
    let files = texts("outputs").map(|one| {
        let size = table::size(one["bytes"].as_u64().unwrap_or(0));
        let shape = match (one["width"].as_u64(), one["height"].as_u64()) {
            (Some(width), Some(height)) => format!("{width}x{height}, "),
            _ => String::new(),
        };
        format!("  {} ({shape}{size})", table::plain(&one["path"]))
    });
    verdict.into_iter().chain(reasons).chain(files).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_running_job_tells_percent_and_note() {
        let row = json!({ "id": 1, "state": "running", "attempt": 2, "progress": 0.255,
                          "progress_note": "48 fps, eta 12s" });
        assert_eq!(words(&row), "running (attempt 2) 25.5 %, 48 fps, eta 12s");
        let row = json!({ "id": 1, "state": "scheduled", "attempt": 1, "last_error": "a\nb" });
        assert_eq!(words(&row), "scheduled, last error: a...");
    }

    #[test]
    fn a_result_is_told_by_its_files_or_its_verdict() {
        let files = json!({ "outputs": [
            { "path": "/o/a.mp4", "width": 640, "height": 360, "bytes": 2048 },
            { "path": "/o/a.vtt", "bytes": 100 },
        ] });
        assert_eq!(outputs(&files), ["  /o/a.mp4 (640x360, 2.0 KiB)", "  /o/a.vtt (100 B)"]);
        let verdict = json!({ "verdict": "damaged", "reasons": ["it is cut"] });
        assert_eq!(outputs(&verdict), ["  the file is damaged", "  - it is cut"]);
        assert!(outputs(&json!({ "exit_code": 0 })).is_empty());
    }
}
