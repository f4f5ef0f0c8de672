//! The database: its library, its file system, its health, and whether commits are noticed.

use super::{Finding, Verdict};
use crate::config::Config;
use crate::os::dirs;
use crate::os::watch::Watch;
use crate::store::care;
use std::path::Path;
use std::time::{Duration, Instant};

/// An event of our own commit comes within microseconds.
const NOTICED_WITHIN: Duration = Duration::from_secs(1);

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::new(
        "database",
        "SQLite library",
        Verdict::Ok,
        format!("{} (built in)", crate::store::sqlite_version()),
    )];
    let folder = config.database.parent().unwrap_or(Path::new("/"));
    if let Some(name) = dirs::network_file_system(folder) {
        findings.push(
            Finding::new("database", "file system", Verdict::Problem, format!("{name}, a network"))
                .remedy("move the database to a local disk: WAL mode loses data on a network"),
        );
    }
    findings.push(notices(folder));
    if config.database.exists() {
        findings.push(health(config));
    } else {
        let found = format!(
            "{} does not exist yet; it is made at the first start",
            config.database.display()
        );
        findings.push(Finding::new("database", "health", Verdict::Ok, found));
    }
    findings
}

fn health(config: &Config) -> Finding {
    match care::check(&config.database, &config.table_prefix, care::Depth::Quick) {
        Ok(report) if report.problems.is_empty() => {
            let found = format!("sound, schema version {}, {} jobs", report.schema, report.jobs);
            Finding::new("database", "health", Verdict::Ok, found)
        }
        Ok(report) => {
            let found = report.problems.join("; ");
            Finding::new("database", "health", Verdict::Problem, found)
                .remedy("restore a backup: shiftboss db restore FILE")
        }
        Err(error) => Finding::new("database", "health", Verdict::Problem, error.to_string()),
    }
}

/// Commits to a database of our own beside the real one, and waits for the event.
fn notices(folder: &Path) -> Finding {
    let check = "commits of other programs are noticed";
    let name = format!(".shiftboss-doctor-{}.db", std::process::id());
    let trial = folder.join(name);
    let result = try_notice(&trial);
    for ending in ["", "-wal", "-shm"] {
        let mut path = trial.clone().into_os_string();
        path.push(ending);
        let _ = std::fs::remove_file(path);
    }
    match result {
        Ok(true) => Finding::new("database", check, Verdict::Ok, "by inotify on the -wal file"),
        Ok(false) => Finding::new("database", check, Verdict::Note, "no event came")
            .remedy("the table is polled at least once a second on this file system"),
        Err(reason) => Finding::new("database", check, Verdict::Problem, reason),
    }
}

fn try_notice(trial: &Path) -> Result<bool, String> {
    let commit = care::Trial::open(trial).map_err(|error| error.to_string())?;
    let mut watch = Watch::new(trial).map_err(|error| format!("inotify: {error}"))?;
    commit.commit().map_err(|error| error.to_string())?;
    let deadline = Instant::now() + NOTICED_WITHIN;
    while Instant::now() < deadline {
        if watch.take().map_err(|error| error.to_string())? {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(false)
}
