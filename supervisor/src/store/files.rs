//! Whether the files that a connection has open are still the ones that everybody else sees.
//!
//! SQLite itself goes on writing into a database that was deleted or replaced, and says that all
//! is well. Looked at by name alone: opening the database here would drop this process's locks.

use super::connection::Db;
use super::error::Error;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What makes a file this file and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// What is found where a file of ours should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// No database.
    Database,
    /// Another database.
    Replaced,
    /// No `-wal` file, or another one in which nobody has written.
    Log,
    /// Another `-wal` file in which somebody has written.
    LogReplaced,
}

/// The database and its log as they were when the connection was opened.
#[derive(Debug)]
pub(super) struct Files {
    database: (PathBuf, FileId),
    log: (PathBuf, FileId),
}

/// The file of that name; `None` when there is none.
fn identity(path: &Path) -> Result<Option<FileId>, Error> {
    match std::fs::metadata(path) {
        Ok(facts) => Ok(Some(FileId { device: facts.dev(), inode: facts.ino() })),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::CannotSee { path: path.to_owned(), source }),
    }
}

/// True when a descriptor of this process is that file; true where that cannot be found out.
fn is_open(id: FileId) -> bool {
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else { return true };
    // By their links, which lead to the files themselves whatever their names are by now.
    descriptors.flatten().any(|one| identity(&one.path()).is_ok_and(|found| found == Some(id)))
}

impl Files {
    /// The files of a connection that has just been opened and has read or written.
    ///
    /// # Errors
    /// The database or its log was replaced while it was being opened.
    pub(super) fn of(db: &Db) -> Result<Self, Error> {
        // The log lies beside the file itself, not beside a link to it.
        let real = db.conn.path().map_or_else(|| db.path.clone(), PathBuf::from);
        let mut log = real.into_os_string();
        log.push("-wal");
        let log = PathBuf::from(log);
        let gone = |what| Error::Gone { path: db.path.clone(), what };
        let database = identity(&db.path)?.ok_or(gone(Gone::Database))?;
        let log_id = identity(&log)?.ok_or(gone(Gone::Log))?;
        for (id, what) in [(database, Gone::Replaced), (log_id, Gone::LogReplaced)] {
            if !is_open(id) {
                return Err(gone(what));
            }
        }
        Ok(Self { database: (db.path.clone(), database), log: (log, log_id) })
    }

    /// Looks whether all is as it was.
    ///
    /// # Errors
    /// [`Error::Gone`] says what is not; [`Error::CannotSee`].
    pub(super) fn check(&self) -> Result<(), Error> {
        let (path, expected) = &self.database;
        let gone = |what| Err(Error::Gone { path: path.clone(), what });
        match identity(path)? {
            None => return gone(Gone::Database),
            Some(found) if found != *expected => return gone(Gone::Replaced),
            Some(_) => {}
        }
        let (log, expected) = &self.log;
        match std::fs::metadata(log) {
            Ok(facts) if (FileId { device: facts.dev(), inode: facts.ino() }) == *expected => {
                Ok(())
            }
            Ok(facts) if facts.len() > 0 => gone(Gone::LogReplaced),
            Ok(_) => gone(Gone::Log),
            Err(error) if error.kind() == ErrorKind::NotFound => gone(Gone::Log),
            Err(source) => Err(Error::CannotSee { path: log.clone(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{OpenOptions, WalPolicy};
    use super::*;

    fn found(files: &Files) -> Option<Gone> {
        match files.check() {
            Ok(()) => None,
            Err(Error::Gone { what, .. }) => Some(what),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn what_is_moved_away_replaced_and_put_back_is_seen() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let [path, aside, log, log_aside] =
            ["jobs.db", "aside", "jobs.db-wal", "log-aside"].map(|name| dir.path().join(name));
        let (prefix, wal) = (String::new(), WalPolicy::Require);
        let options = OpenOptions { path: path.clone(), prefix, wal, network_fs: None };
        let db = Db::open_writer(&options).expect("opened");
        let files = Files::of(&db).expect("both exist");
        let rename = |from: &Path, to: &Path| std::fs::rename(from, to).expect("they are ours");
        assert_eq!(found(&files), None);
        rename(&path, &aside);
        assert_eq!(found(&files), Some(Gone::Database));
        std::fs::write(&path, "another").expect("written");
        assert_eq!(found(&files), Some(Gone::Replaced));
        assert!(Files::of(&db).is_err(), "nobody has the other one open");
        rename(&aside, &path);
        assert_eq!(found(&files), None);
        rename(&log, &log_aside);
        assert_eq!(found(&files), Some(Gone::Log));
        std::fs::write(&log, "").expect("written");
        assert_eq!(found(&files), Some(Gone::Log));
        std::fs::write(&log, "another").expect("written");
        assert_eq!(found(&files), Some(Gone::LogReplaced));
        rename(&log_aside, &log);
        assert_eq!(found(&files), None);
    }

    #[test]
    fn the_log_of_a_linked_database_lies_beside_the_file_itself() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let [real, link] = ["real.db", "link.db"].map(|name| dir.path().join(name));
        std::os::unix::fs::symlink(&real, &link).expect("links work");
        let (prefix, wal) = (String::new(), WalPolicy::Require);
        let options = OpenOptions { path: link, prefix, wal, network_fs: None };
        let db = Db::open_writer(&options).expect("opened");
        let files = Files::of(&db).expect("both exist");
        assert_eq!(found(&files), None);
        assert!(files.log.0.ends_with("real.db-wal"), "{files:?}");
    }
}
