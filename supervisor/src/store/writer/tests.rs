//! A writer without its thread, for tests that decide each step.

use super::*;
use crate::store::WalPolicy;
use std::sync::mpsc;

pub(in crate::store) type AfterCommit = Box<dyn FnOnce() -> rusqlite::Result<()> + Send>;

pub(in crate::store) struct Alone {
    writer: Writer,
    _folder: tempfile::TempDir,
}

pub(in crate::store) fn writer_alone() -> (Alone, Sender<Op>, Receiver<Event>) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let options = OpenOptions {
        path: folder.path().join("jobs.db"),
        prefix: String::new(),
        wal: WalPolicy::Require,
        network_fs: None,
    };
    let db = Db::open_writer(&options).expect("an empty folder takes a database");
    let files = Files::of(&db).expect("they are there");
    let (sender, receiver) = mpsc::channel();
    let (send, events) = mpsc::channel();
    let report = Box::new(move |event| drop(send.send(event)));
    let writer = Writer::new((db, files), "us".to_owned(), receiver, report);
    (Alone { writer, _folder: folder }, sender, events)
}

impl Alone {
    /// Queues these and works until nothing is left or trouble comes, then lets its gap pass.
    pub(in crate::store) fn accept_all(&mut self, ops: Vec<Op>) {
        for op in ops {
            self.writer.accept(op);
        }
        self.work();
    }

    fn work(&mut self) {
        loop {
            let before = self.writer.queue.len();
            let doubts = self.writer.doubt.is_some();
            if before == 0 {
                return;
            }
            self.writer.commit_group();
            let is_stuck = self.writer.queue.len() == before && !doubts;
            if is_stuck || self.writer.doubt.is_some() {
                return;
            }
        }
    }

    pub(in crate::store) fn accept_deferred(&mut self) {
        self.writer.queue_deferred(Instant::now() + DEFERRED_WAIT * 2);
        self.work();
    }

    pub(in crate::store) fn after_next_commit(
        &mut self,
        happens: impl FnOnce() -> rusqlite::Result<()> + Send + 'static,
    ) {
        self.writer.after_commit = Some(Box::new(happens));
    }

    pub(in crate::store) fn lose_next_commit_answer(&mut self) {
        self.after_next_commit(|| {
            let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
            Err(rusqlite::Error::SqliteFailure(error, None))
        });
    }

    /// Lets the waiting requests grow old.
    pub(in crate::store) fn age(&mut self, by: Duration) {
        for queued in &mut self.writer.queue {
            queued.since -= by;
        }
    }

    pub(in crate::store) fn queued(&self) -> usize {
        self.writer.queue.len()
    }

    pub(in crate::store) fn path(&self) -> &std::path::Path {
        &self.writer.db.path
    }

    pub(in crate::store) fn is_halted(&self) -> bool {
        self.writer.spell.halted().is_some()
    }

    /// Tries again, as the thread does when a gap is over.
    pub(in crate::store) fn retry(&mut self) {
        if !self.is_halted() {
            self.writer.commit_group();
        }
    }

    pub(in crate::store) fn groups(&self) -> u64 {
        self.writer.group
    }

    pub(in crate::store) fn batch(&self, sql: &str) {
        self.writer.db.batch(sql, "change the test's database").expect("the statement is good");
    }

    pub(in crate::store) fn limit_pages(&self) {
        let count = self.writer.db.conn.pragma_query_value(None, "page_count", |row| row.get(0));
        let count: i64 = count.expect("it can be read");
        self.writer.db.pragma("max_page_count", count + 2).expect("it can be set");
    }

    pub(in crate::store) fn unlimit_pages(&self) {
        self.writer.db.pragma("max_page_count", 1_000_000).expect("it can be set");
    }

    pub(in crate::store) fn count_jobs(&self) -> i64 {
        let sql = "SELECT count(*) FROM jobs";
        self.writer.db.conn.query_row(sql, [], |row| row.get(0)).expect("it can be counted")
    }
}
