//! What a run has left, read once.

use super::Evidence;
use crate::chaos::journal::Line;
use rusqlite::{Connection, Row};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// All of it, by job.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) jobs: BTreeMap<i64, Job>,
    pub(super) attempts: BTreeMap<i64, Vec<Attempt>>,
    pub(super) promises: BTreeMap<i64, Promise>,
    pub(super) lines: BTreeMap<i64, Vec<Line>>,
    pub(super) cancelled: BTreeSet<i64>,
    /// What SQLite finds wrong with its file.
    pub(super) damage: Vec<String>,
}

/// A row of `jobs`.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) state: String,
    pub(super) attempt: i64,
    pub(super) error: String,
}

/// A row of `attempts`.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) attempt: i64,
    pub(super) started_at: i64,
    pub(super) ended_at: Option<i64>,
    pub(super) outcome: Option<String>,
    pub(super) cause: Option<String>,
}

/// What is known of a job whose insert was acknowledged.
#[derive(Debug)]
pub(super) struct Promise {
    pub(super) kind: String,
    /// How it ends, unless it is cancelled.
    pub(super) state: String,
    /// Why it fails, where it does.
    pub(super) causes: Vec<String>,
    /// Its program writes down its start and its end.
    pub(super) journalled: bool,
    /// Where its films are, and how many pictures each has.
    pub(super) output: Option<(PathBuf, u64)>,
}

impl Facts {
    pub(super) fn read(evidence: &Evidence) -> Result<Self, String> {
        let mut facts = Self::default();
        facts.read_database(&evidence.database).map_err(|error| format!("database: {error}"))?;
        for text in lines(&evidence.journals.deeds())? {
            let line: Line = text.parse()?;
            facts.lines.entry(line.job).or_default().push(line);
        }
        for text in lines(&evidence.journals.cancelled())? {
            facts.cancelled.insert(text.parse().map_err(|_| format!("no job: {text}"))?);
        }
        for text in lines(&evidence.journals.accepted())? {
            let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let id = value["id"].as_i64().ok_or_else(|| format!("no id: {text}"))?;
            if facts.promises.insert(id, Promise::new(&value)).is_some() {
                return Err(format!("job {id} was acknowledged twice"));
            }
        }
        Ok(facts)
    }

    fn read_database(&mut self, path: &Path) -> rusqlite::Result<()> {
        let database = Connection::open(path)?;
        let text = |row: &Row<'_>| row.get::<_, String>(0);
        self.damage = rows(&database, "PRAGMA integrity_check", text)?;
        self.damage.retain(|line| line != "ok");
        let sql = "SELECT id, state, attempt, coalesce(last_error, '') FROM jobs";
        let job = |row: &Row<'_>| {
            Ok((row.get(0)?, Job { state: row.get(1)?, attempt: row.get(2)?, error: row.get(3)? }))
        };
        self.jobs = rows(&database, sql, job)?.into_iter().collect();
        let sql = "SELECT job_id, attempt, started_at, ended_at, outcome, cause FROM attempts
            ORDER BY 1, 2";
        let attempt = |row: &Row<'_>| {
            let attempt = Attempt {
                attempt: row.get(1)?,
                started_at: row.get(2)?,
                ended_at: row.get(3)?,
                outcome: row.get(4)?,
                cause: row.get(5)?,
            };
            Ok((row.get::<_, i64>(0)?, attempt))
        };
        for (job, attempt) in rows(&database, sql, attempt)? {
            self.attempts.entry(job).or_default().push(attempt);
        }
        Ok(())
    }

    pub(super) fn attempts_of(&self, job: i64) -> &[Attempt] {
        self.attempts.get(&job).map_or(&[], Vec::as_slice)
    }

    pub(super) fn lines_of(&self, job: i64) -> &[Line] {
        self.lines.get(&job).map_or(&[], Vec::as_slice)
    }
}

impl Promise {
    fn new(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let causes = value["causes"].as_array().cloned().unwrap_or_default();
        let output = value["output"].as_str().map(PathBuf::from);
        Self {
            kind: text("kind"),
            state: text("state"),
            causes: causes.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            journalled: value["journalled"] == true,
            output: output.zip(value["frames"].as_u64()),
        }
    }
}

fn rows<T>(
    database: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    database.prepare(sql)?.query_map([], read)?.collect()
}

/// Lines of a journal; none where nobody wrote one.
fn lines(path: &Path) -> Result<Vec<String>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}
