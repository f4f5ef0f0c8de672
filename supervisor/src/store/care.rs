//! Care of the database file: check, backup, restore; and a trial commit for `doctor`.
//!
//! Everything goes through SQLite: opening or copying the file by other means in a process that
//! uses it would drop that process's locks.

use super::connection::{Db, OpenOptions};
use super::error::Error;
use super::schema;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much is read to find damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Pages and their order (`quick_check`): about the speed of the disk.
    Quick,
    /// Indexes against their tables too (`integrity_check`).
    Full,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Version of our tables.
    pub schema: i64,
    /// Rows of jobs.
    pub jobs: i64,
    /// Damage and broken rules, in words; empty when all is well.
    pub problems: Vec<String>,
}

/// Problems named in a report, at most.
const PROBLEMS_MAX: u32 = 20;

/// Rules that hold between rows whoever writes them, and what breaks each.
const RULES: [(&str, &str); 3] = [
    (
        "running jobs without an open attempt",
        "SELECT count(*) FROM {jobs} j WHERE state = 'running' AND NOT EXISTS (SELECT 1 FROM \
         {attempts} a WHERE a.job_id = j.id AND a.attempt = j.attempt AND a.ended_at IS NULL)",
    ),
    (
        "open attempts of jobs that do not run",
        "SELECT count(*) FROM {attempts} a JOIN {jobs} j ON j.id = a.job_id WHERE a.ended_at IS \
         NULL AND (j.state <> 'running' OR j.attempt <> a.attempt)",
    ),
    (
        "unfinished jobs that share a unique_key",
        "SELECT count(*) FROM (SELECT 1 FROM {jobs} WHERE unique_key IS NOT NULL AND finished_at \
         IS NULL GROUP BY unique_key HAVING count(*) > 1)",
    ),
];

/// Reads the whole database for damage, while others use it.
///
/// # Errors
/// It cannot be opened, or holds no job table of ours.
pub fn check(path: &Path, prefix: &str, depth: Depth) -> Result<Report, Error> {
    let db = Db::open_reader(path, prefix)?;
    let schema = schema::version(&db)?;
    let number = |sql: &str| {
        let sql =
            sql.replace("{jobs}", &db.table("jobs")).replace("{attempts}", &db.table("attempts"));
        db.conn.query_row(&sql, [], |row| row.get::<_, i64>(0)).map_err(|e| db.error("check", e))
    };
    let jobs = number("SELECT count(*) FROM {jobs}")?;
    let mut problems = Vec::new();
    let pragma = match depth {
        Depth::Quick => format!("PRAGMA quick_check({PROBLEMS_MAX})"),
        Depth::Full => format!("PRAGMA integrity_check({PROBLEMS_MAX})"),
    };
    let damage = || -> rusqlite::Result<Vec<String>> {
        db.conn.prepare(&pragma)?.query_map([], |row| row.get(0))?.collect()
    };
    let lines = damage().map_err(|e| db.error("check", e))?;
    problems.extend(lines.into_iter().filter(|line| line != "ok"));
    for (what, sql) in RULES {
        let count = number(sql)?;
        if count > 0 {
            problems.push(format!("{count} {what}"));
        }
    }
    Ok(Report { schema, jobs, problems })
}

/// Writes a consistent copy of the database to `target`, while others use it. The copy is one
/// file without a log.
///
/// # Errors
/// `target` exists, or cannot be written; the database cannot be read.
pub fn backup(path: &Path, prefix: &str, target: &Path) -> Result<(), Error> {
    if target.exists() {
        let text = format!("cannot back up to {}: it exists, name another file", target.display());
        return Err(Error::Refused(text));
    }
    let db = Db::open_reader(path, prefix)?;
    let text = target.to_str().ok_or_else(|| {
        Error::Refused(format!("cannot back up to {}: its name is not UTF-8", target.display()))
    })?;
    // VACUUM INTO reads one snapshot and writes the copy durably before it returns.
    db.pragma("query_only", false)?;
    let copy = db.conn.execute("VACUUM INTO ?1", [text]);
    copy.map(|_| ()).map_err(|e| db.error(&format!("back up to {}", target.display()), e))
}

/// Pages copied before others get their turn.
const PAGES_PER_STEP: i32 = 1000;

/// Puts a backup in the place of the database's content, after a backup of that content to
/// `safety`; a damaged database is moved there as it is. No supervisor may run: the caller has
/// made sure. Running jobs of the backup are given back at the next start.
///
/// # Errors
/// The backup is damaged or holds no job table of ours; the database is locked or not writable.
pub fn restore(options: &OpenOptions, from: &Path, safety: &Path) -> Result<Report, Error> {
    let report = check(from, &options.prefix, Depth::Full)?;
    if !report.problems.is_empty() {
        let text = format!(
            "cannot restore {}: it is damaged ({}); the database was not changed",
            from.display(),
            report.problems.join("; ")
        );
        return Err(Error::Refused(text));
    }
    if options.path.exists() {
        match backup(&options.path, &options.prefix, safety) {
            Err(error) if error.is_damage() => set_aside(&options.path, safety)?,
            done => done?,
        }
    }
    let source = Db::open_reader(from, &options.prefix)?;
    let mut target = Db::open_writer(options)?;
    let failed = |e| super::connection::explain("restore the backup into it", &options.path, e);
    {
        let copy = Backup::new(&source.conn, &mut target.conn).map_err(failed)?;
        while copy.step(PAGES_PER_STEP).map_err(failed)? != StepResult::Done {}
    }
    drop(target);
    // Opened again: the copy has brought the source's journal mode with it.
    Db::open_writer(options)?;
    Ok(report)
}

/// Moves a database and what belongs to it out of the way: only its name changes.
fn set_aside(path: &Path, safety: &Path) -> Result<(), Error> {
    let named = |path: &Path, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    // A copy that was begun is of no use.
    let _ = std::fs::remove_file(safety);
    for end in ["-shm", "-wal", ""] {
        let (from, to) = (named(path, end), named(safety, end));
        match std::fs::rename(&from, &to) {
            Err(error) if end.is_empty() || error.kind() != std::io::ErrorKind::NotFound => {
                let (from, to) = (from.display(), to.display());
                return Err(Error::Refused(format!("cannot move {from} to {to}: {error}")));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// A database of our own, for finding out whether commits are noticed.
#[derive(Debug)]
pub struct Trial {
    conn: Connection,
    path: PathBuf,
}

impl Trial {
    /// Makes an empty database in WAL mode; the caller removes its files.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |e| super::connection::explain("make a trial database", path, e);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
        conn.busy_timeout(Duration::from_secs(1)).map_err(failed)?;
        conn.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t(x)").map_err(failed)?;
        Ok(Self { conn, path: path.to_owned() })
    }

    /// Commits one row.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn commit(&self) -> Result<(), Error> {
        let failed = |e| super::connection::explain("commit to a trial database", &self.path, e);
        self.conn.execute_batch("INSERT INTO t VALUES (1)").map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::WalPolicy;
    use super::super::direct::Direct;
    use super::super::reader::Reader;
    use super::*;
    use shiftboss_protocol::control::NewJob;
    use shiftboss_protocol::job::JobId;

    fn options(path: &Path) -> OpenOptions {
        OpenOptions {
            path: path.to_owned(),
            prefix: String::new(),
            wal: WalPolicy::Require,
            network_fs: None,
        }
    }

    fn insert(path: &Path, tag: &str) -> JobId {
        let direct = Direct::open(&options(path)).expect("opens");
        let job = NewJob {
            job_type: "noop".to_owned(),
            payload: "{}".to_owned(),
            tags: Some(tag.to_owned()),
            ..NewJob::default()
        };
        direct.enqueue(&[job]).expect("inserted")[0]
    }

    #[test]
    fn a_backup_brings_back_what_it_saw_and_keeps_what_it_replaces() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let [live, copy, safety] =
            ["live.db", "copy.db", "safety.db"].map(|it| dir.path().join(it));
        let first = insert(&live, "first");
        backup(&live, "", &copy).expect("copied while in use");
        assert!(matches!(backup(&live, "", &copy), Err(Error::Refused(_))));
        let second = insert(&live, "second");
        let report = restore(&options(&live), &copy, &safety).expect("restored");
        assert_eq!((report.jobs, report.problems), (1, vec![]));
        let reader = Reader::open(&live, "").expect("opens");
        assert!(reader.job(first).expect("read").is_some());
        assert!(reader.job(second).expect("read").is_none());
        assert_eq!(check(&safety, "", Depth::Full).expect("sound").jobs, 2);
        assert_eq!(check(&live, "", Depth::Full).expect("sound").problems, [""; 0]);
    }

    #[test]
    fn what_is_no_backup_changes_nothing() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let [live, text, safety] = ["live.db", "text", "safety.db"].map(|it| dir.path().join(it));
        insert(&live, "kept");
        std::fs::write(&text, "no database at all, by no means").expect("written");
        restore(&options(&live), &text, &safety).expect_err("refused");
        assert_eq!(check(&live, "", Depth::Full).expect("sound").jobs, 1);
        assert!(!safety.exists());
    }
}
