//! The tables: made, brought up to date, and told apart from other people's.
//!
//! `schema.sql` is version 1; a later version is one more migration and never an edit of an
//! old one. The version lies in our own `meta`, so `user_version` stays the user's.

use super::connection::Db;
use super::error::Error;
use crate::os::failpoint::{self, Place};
use rusqlite::OptionalExtension;

/// Migrations in order; the number of a version is its place, from 1.
const MIGRATIONS: [&str; 2] = [include_str!("schema.sql"), THROTTLED];

/// How long an attempt's programs waited because their CPU limit was used up, milliseconds.
const THROTTLED: &str = "ALTER TABLE {p}attempts ADD COLUMN throttled_ms INTEGER";

/// The newest schema version that this program knows.
pub const VERSION: i64 = MIGRATIONS.len() as i64;

/// In `meta`: tells our table of that name from others.
const APPLICATION: (&str, &str) = ("application", "shiftboss");

/// The columns of `jobs` and `attempts` that this program reads or writes.
const COLUMNS: [(&str, &[&str]); 2] =
    [("jobs", &super::view::JOBS), ("attempts", &super::view::ATTEMPTS)];

/// Checks that the prefix can begin a table name.
///
/// # Errors
/// [`Error::BadPrefix`].
pub fn check_prefix(prefix: &str) -> Result<(), Error> {
    let good = prefix.len() <= 32
        && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !prefix.starts_with(|first: char| first.is_ascii_digit())
        && !prefix.to_ascii_lowercase().starts_with("sqlite_");
    if good { Ok(()) } else { Err(Error::BadPrefix { prefix: prefix.to_owned() }) }
}

/// Makes the tables or brings them up to date. Changes nothing when they are.
///
/// # Errors
/// [`Error::ForeignTable`], [`Error::NewerSchema`], or what SQLite says.
pub(super) fn migrate(db: &Db) -> Result<(), Error> {
    if version(db)? == VERSION {
        return check_columns(db);
    }
    // Asked again inside: two supervisors may start on one empty database.
    db.batch("BEGIN IMMEDIATE", "begin the making of tables")?;
    let done = migrate_within(db).and_then(|()| db.batch("COMMIT", "commit the tables"));
    if done.is_err() && !db.conn.is_autocommit() {
        db.batch("ROLLBACK", "undo the making of tables")?;
    }
    done?;
    check_columns(db)
}

/// The version of the tables; 0 when there are none.
///
/// # Errors
/// [`Error::ForeignTable`], [`Error::NewerSchema`], or what SQLite says.
pub(super) fn version(db: &Db) -> Result<i64, Error> {
    // One snapshot for all questions: another program may be making the tables just now.
    let snapshot = db.conn.is_autocommit().then(|| db.conn.unchecked_transaction()).transpose();
    let snapshot = snapshot.map_err(|e| db.error("begin to read the schema", e))?;
    let found = find_ours(db);
    drop(snapshot);
    let Some(found) = found? else { return Ok(0) };
    if found > VERSION {
        return Err(Error::NewerSchema { path: db.path.clone(), found, known: VERSION });
    }
    Ok(found)
}

fn migrate_within(db: &Db) -> Result<(), Error> {
    let from = version(db)?;
    for (sql, number) in MIGRATIONS.iter().zip(1_i64..).filter(|(_, number)| *number > from) {
        let action = format!("bring the tables to schema version {number}");
        db.batch(&db.prefixed(sql), &action)?;
    }
    let mut put = db
        .statement(
            "INSERT INTO {p}meta (key, value) VALUES (?1, ?2)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )
        .map_err(|e| db.error("prepare the schema version", e))?;
    for (key, value) in [APPLICATION, ("schema_version", &VERSION.to_string())] {
        put.execute((key, value)).map_err(|e| db.error("store the schema version", e))?;
    }
    failpoint::reach(Place::Migration);
    Ok(())
}

/// The version in our `meta`; `None` when none of our names is taken.
fn find_ours(db: &Db) -> Result<Option<i64>, Error> {
    let mut taken = Vec::new();
    for name in ["meta", "jobs", "attempts", "instances"] {
        let names = columns(db, name)?;
        if !names.is_empty() {
            taken.push((name, names));
        }
    }
    let Some((first, names)) = taken.first() else { return Ok(None) };
    if *first != "meta" {
        return Err(foreign(db, first, format!("there is no {} beside it", db.table("meta"))));
    }
    if *names != ["key", "value"] {
        return Err(foreign(db, "meta", "it has other columns".to_owned()));
    }
    let value = |key: &str| {
        let sql = db.prefixed("SELECT CAST(value AS TEXT) FROM {p}meta WHERE key = ?1");
        let found = db.conn.query_row(&sql, [key], |row| row.get::<_, Option<String>>(0));
        found.optional().map(Option::flatten).map_err(|e| db.error("read the schema version", e))
    };
    if value(APPLICATION.0)?.as_deref() != Some(APPLICATION.1) {
        return Err(foreign(db, "meta", "it lacks our mark".to_owned()));
    }
    let version = value("schema_version")?.and_then(|text| text.parse().ok());
    let wrong = || foreign(db, "meta", "its schema_version is not a number".to_owned());
    version.map(Some).ok_or_else(wrong)
}

fn check_columns(db: &Db) -> Result<(), Error> {
    for (table, wanted) in COLUMNS {
        let found = columns(db, table)?;
        if let Some(missing) = wanted.iter().find(|name| !found.iter().any(|one| one == *name)) {
            return Err(foreign(db, table, format!("it lacks the column {missing}")));
        }
    }
    Ok(())
}

fn foreign(db: &Db, table: &str, why: String) -> Error {
    Error::ForeignTable { path: db.path.clone(), table: db.table(table), why }
}

/// Names of a table's columns; none when there is no such table.
fn columns(db: &Db, table: &str) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    let listed = db.conn.pragma(None, "table_info", db.table(table), |row| {
        names.push(row.get(1)?);
        Ok(())
    });
    listed.map_err(|e| db.error("describe the tables", e))?;
    Ok(names)
}
