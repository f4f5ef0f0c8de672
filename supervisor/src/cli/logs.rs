//! `shiftboss logs ID`: what the programs of a job's newest attempt wrote.

use super::client::{self, Client};
use super::{Context, Error, show, story};
use crate::config::Config;
use serde_json::{Value, json};
use shiftboss_protocol::control::Request;
use shiftboss_protocol::job::JobId;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks while following: a person's patience, not a program's.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// Where a job of this type has its logs.
fn folder(config: &Config, row: &Value, id: i64) -> PathBuf {
    let job_type = row["type"].as_str().unwrap_or_default();
    config.work_dir.join("logs").join(job_type).join(id.to_string())
}

/// Log files of an attempt, `<attempt>.<program>.<out|err>`, rotated ones first.
fn files(folder: &Path, attempt: i64) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let prefix = format!("{attempt}.");
    let mut files: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)))
        .map(|entry| entry.path())
        .collect();
    files.sort_by_key(|path| {
        let name = path.to_string_lossy().into_owned();
        let rotated = name.ends_with(".1");
        (name.trim_end_matches(".1").to_owned(), !rotated)
    });
    files
}

pub(super) fn logs(context: &Context, id: i64, follow: bool) -> Result<(), Error> {
    let mut printer = Printer { context, seen: BTreeMap::new(), last: None };
    let mut alone_since = None;
    let mut place;
    loop {
        // Asked before the files are read: what was written until the end is then read too.
        let row = if follow {
            followed(context, id, &mut alone_since)?
        } else {
            story::read(context, id)?
        };
        let attempt = row["attempt"].as_i64().unwrap_or(0);
        place = folder(&context.config, &row, id);
        for file in files(&place, attempt) {
            printer.print_news(&file, attempt)?;
        }
        if !follow || !row["finished_at"].is_null() {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    printer.print_rests()?;
    if printer.seen.is_empty() {
        context.out.remark(&format!(
            "job {id} has no logs in {}: it has not started a program, or they were removed by age",
            place.display()
        ));
    }
    Ok(())
}

/// The job, also while there is no supervisor: its programs go on then and write.
fn followed(context: &Context, id: i64, alone_since: &mut Option<Instant>) -> Result<Value, Error> {
    let asked = Client::connect(&context.config)
        .and_then(|mut client| client.ask_json(&Request::Job(JobId(id))));
    match asked {
        Err(Error::NoSupervisor(_) | Error::SupervisorLeft(_)) => {}
        answer => {
            *alone_since = None;
            return answer;
        }
    }
    if alone_since.is_none() {
        context.out.remark(client::WAITING_FOR_SUCCESSOR);
    }
    let since = *alone_since.get_or_insert_with(Instant::now);
    let row = story::of_table(&show::quiet_reader(context)?, id)?;
    if row["finished_at"].is_null() && since.elapsed() >= client::SUCCESSOR_WITHIN {
        return Err(client::no_successor());
    }
    Ok(row)
}

/// What was printed of a log file.
struct Seen {
    attempt: i64,
    name: String,
    at: u64,
    /// The begin of a line whose end is not written yet; only lines in JSON wait for it.
    rest: Vec<u8>,
}

struct Printer<'a> {
    context: &'a Context,
    /// By inode: a rotated file keeps its own under another name.
    seen: BTreeMap<u64, Seen>,
    last: Option<u64>,
}

impl Printer<'_> {
    /// Prints what a file holds beyond what was printed of it.
    fn print_news(&mut self, path: &Path, attempt: i64) -> Result<(), Error> {
        let Ok(mut file) = File::open(path) else { return Ok(()) };
        let Ok(inode) = file.metadata().map(|facts| facts.ino()) else { return Ok(()) };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let new = || Seen { attempt, name: name.clone(), at: 0, rest: Vec::new() };
        let seen = self.seen.entry(inode).or_insert_with(new);
        let _ = file.seek(SeekFrom::Start(seen.at));
        let mut chunk = vec![0; CHUNK];
        while let Ok(count) = file.read(&mut chunk) {
            if count == 0 {
                break;
            }
            seen.at += count as u64;
            if self.context.json {
                seen.rest.extend_from_slice(&chunk[..count]);
                print_lines(self.context, seen)?;
                continue;
            }
            if self.last.replace(inode) != Some(inode) {
                self.context.out.line(&format!("==> {name} <=="))?;
            }
            self.context.out.raw(&chunk[..count])?;
        }
        Ok(())
    }

    /// Lines that never got their end.
    fn print_rests(&mut self) -> Result<(), Error> {
        for seen in self.seen.values_mut().filter(|seen| !seen.rest.is_empty()) {
            seen.rest.push(b'\n');
            print_lines(self.context, seen)?;
        }
        Ok(())
    }
}

/// Prints the whole lines of what was read as JSON, and keeps the rest.
fn print_lines(context: &Context, seen: &mut Seen) -> Result<(), Error> {
    let Some(end) = seen.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
    let rest = seen.rest.split_off(end + 1);
    let whole = std::mem::replace(&mut seen.rest, rest);
    for line in String::from_utf8_lossy(&whole).lines() {
        let row = json!({ "attempt": seen.attempt, "file": seen.name, "line": line });
        context.out.line(&row.to_string())?;
    }
    Ok(())
}

/// The last lines of the logs of a job's newest attempt.
pub(super) fn last_lines(config: &Config, row: &Value, id: i64, most: usize) -> Vec<String> {
    let attempt = row["attempt"].as_i64().unwrap_or(0);
    let files = files(&folder(config, row, id), attempt);
    let error = |path: &&PathBuf| path.to_string_lossy().trim_end_matches(".1").ends_with(".err");
    let written = |path: &&PathBuf| path.metadata().is_ok_and(|facts| facts.len() > 0);
    // What a program says on standard error tells more; the rest is shown when that is empty.
    let mut chosen: Vec<_> = files.iter().filter(error).filter(written).collect();
    if chosen.is_empty() {
        chosen = files.iter().collect();
    }
    let mut lines = Vec::new();
    for path in chosen {
        let Ok(mut file) = File::open(path) else { continue };
        let length = file.metadata().map_or(0, |facts| facts.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(CHUNK as u64)));
        let mut bytes = Vec::new();
        let _ = file.take(CHUNK as u64).read_to_end(&mut bytes);
        lines.extend(String::from_utf8_lossy(&bytes).lines().map(str::to_owned));
    }
    lines.split_off(lines.len().saturating_sub(most))
}
