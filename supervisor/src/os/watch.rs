//! Notices commits of other programs, and a database that is moved, deleted or replaced: inotify
//! on the `-wal` file and on its folder.
//!
//! An event comes before the commit is visible (measured), so it only means "look soon and
//! again": the store re-checks with doubling gaps.

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A watch on one database's `-wal` file.
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
    wal: PathBuf,
    wal_name: OsString,
    database_name: OsString,
    file: Option<WatchDescriptor>,
}

impl Watch {
    /// Watches the `-wal` file of `database`, also before it exists.
    ///
    /// # Errors
    /// When the kernel has no room for another watch (`fs.inotify.max_user_watches`), or the
    /// folder cannot be read.
    pub fn new(database: &Path) -> io::Result<Self> {
        // SQLite puts its files beside the database itself, not beside a link to it.
        let database = std::fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
        let mut wal = database.as_os_str().to_owned();
        wal.push("-wal");
        let wal = PathBuf::from(wal);
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "the path has no file name");
        let wal_name = wal.file_name().ok_or_else(invalid)?.to_owned();
        let database_name = database.file_name().ok_or_else(invalid)?.to_owned();
        let folder = match wal.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let names = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
        inotify.add_watch(folder, names | AddWatchFlags::IN_ONLYDIR)?;
        let mut watch = Self { inotify, wal, wal_name, database_name, file: None };
        watch.follow_file();
        Ok(watch)
    }

    /// The last connection to close deletes the file, the next one makes another.
    fn follow_file(&mut self) {
        self.file = self.inotify.add_watch(&self.wal, AddWatchFlags::IN_MODIFY).ok();
    }

    /// Readable when something has come.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn notice(&self) -> io::Result<OwnedFd> {
        self.inotify.as_fd().try_clone_to_owned()
    }

    /// Takes what has come; true when the file may have changed, or the database may be
    /// another. Does not block.
    ///
    /// # Errors
    /// When the watch is broken for good.
    pub fn take(&mut self) -> io::Result<bool> {
        let mut touched = false;
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => return Ok(touched),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in events {
                let overflow = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                let named = event.name.as_ref() == Some(&self.wal_name);
                if named || event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    self.follow_file();
                }
                touched |= overflow || named || Some(event.wd) == self.file;
                touched |= event.name.as_ref() == Some(&self.database_name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_to_the_log_are_noticed_also_after_it_was_replaced() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let database = dir.path().join("jobs.db");
        let wal = dir.path().join("jobs.db-wal");
        let mut watch = Watch::new(&database).expect("inotify works");
        assert!(!watch.take().expect("it works"));
        std::fs::write(dir.path().join("other"), b"x").expect("writable");
        assert!(!watch.take().expect("it works"));
        for _ in 0..2 {
            std::fs::write(&wal, b"x").expect("writable");
            assert!(watch.take().expect("it works"));
            assert!(!watch.take().expect("it works"));
            std::fs::OpenOptions::new()
                .append(true)
                .open(&wal)
                .and_then(|mut file| std::io::Write::write_all(&mut file, b"y"))
                .expect("writable");
            assert!(watch.take().expect("it works"));
            std::fs::remove_file(&wal).expect("removable");
            assert!(watch.take().expect("it works"));
        }
    }
    #[test]
    fn a_database_that_is_moved_away_or_replaced_is_noticed() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let database = dir.path().join("jobs.db");
        let aside = dir.path().join("aside");
        std::fs::write(&database, b"x").expect("writable");
        let mut watch = Watch::new(&database).expect("inotify works");
        std::fs::rename(&database, &aside).expect("it is ours");
        assert!(watch.take().expect("it works"));
        std::fs::rename(&aside, &database).expect("it is ours");
        assert!(watch.take().expect("it works"));
        std::fs::remove_file(&database).expect("removable");
        assert!(watch.take().expect("it works"));
        assert!(!watch.take().expect("it works"));
    }
}
