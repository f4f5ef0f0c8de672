//! What changes rows: each function works inside a transaction that its caller began.
//!
//! None of them commits, waits or reports: the writer thread and `direct` do. A function that
//! fails may have changed some rows; its caller rolls back.

pub(super) mod enqueue;
pub(super) mod instances;
pub(super) mod moves;
pub(super) mod prune;
pub(super) mod requests;
pub(super) mod take;

use super::connection::Db;
use super::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

/// Most rows that one operation changes in one transaction, so that it stays below 20 ms.
pub(super) const ROWS_MAX: usize = 500;

/// Longest text stored about an error, in bytes.
const ERROR_BYTES_MAX: usize = 16 << 10;

/// The wall clock in unix milliseconds, as the table stores it.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The text, cut at a character when it is longer than `bytes_max`, and saying so.
pub(super) fn bounded(text: &str, bytes_max: usize) -> String {
    const CUT: &str = " [cut]";
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes_max.saturating_sub(CUT.len()));
    format!("{}{CUT}", text.get(..end).unwrap_or_default())
}

/// A number of rows as SQLite takes it.
fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// A stored number that should fit: what somebody wrote by hand may not.
fn saturated(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

/// Adds what was being done to a statement's error.
trait During<T> {
    fn during(self, db: &Db, action: &str) -> Result<T, Error>;
}

impl<T> During<T> for rusqlite::Result<T> {
    fn during(self, db: &Db, action: &str) -> Result<T, Error> {
        self.map_err(|e| db.error(action, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(bounded("short", 10), "short");
        let cut = bounded(&"ö".repeat(20), 17);
        assert!(cut.len() <= 17 && cut.starts_with("öö") && cut.ends_with(" [cut]"), "{cut}");
    }
}
