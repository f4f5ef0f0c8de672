//! Locks that say who is alive: open-file-description locks, which end with the last copy of
//! the descriptor and can be queried without being taken.

use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Pause between two tries.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A lock that is held until it is dropped (in every process that has a copy of it).
#[derive(Debug)]
pub struct Held(File);

impl Held {
    /// The open file, to be passed on.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.0
    }
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody: it could be taken.
    Nobody,
    /// Somebody; also when the file exists but cannot be opened.
    Somebody,
    /// There is no such file.
    NoFile,
}

/// Takes the lock on `path`, whose file is made when missing and then holds `note`.
/// `None` when somebody else has it.
///
/// # Errors
/// When the file cannot be made or written.
pub fn acquire(path: &Path, note: &str) -> io::Result<Option<Held>> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let lock = whole_file();
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => {}
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    file.set_len(0)?;
    (&file).write_all(note.as_bytes())?;
    Ok(Some(Held(file)))
}

/// As [`acquire`], but waits so long for a holder to go: a process that was killed while it started
/// another one leaves a child which holds a copy of the lock until it executes its program.
///
/// # Errors
/// As [`acquire`].
pub fn acquire_within(path: &Path, note: &str, wait: Duration) -> io::Result<Option<Held>> {
    let deadline = Instant::now() + wait;
    loop {
        let held = acquire(path, note)?;
        if held.is_some() || Instant::now() >= deadline {
            return Ok(held);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Who holds the lock on `path`? Never takes it, so that asking disturbs nobody.
#[must_use]
pub fn holder(path: &Path) -> Holder {
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Holder::NoFile,
        Err(_) => return Holder::Somebody,
    };
    let mut lock = whole_file();
    match fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)) {
        Ok(_) if i32::from(lock.l_type) == libc::F_UNLCK => Holder::Nobody,
        Ok(_) | Err(_) => Holder::Somebody,
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_that_goes_is_waited_for_and_one_that_stays_is_not_for_ever() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let path = dir.path().join("lock");
        let held = acquire(&path, "me").expect("it can be made").expect("nobody has it");
        let within = |ms| acquire_within(&path, "you", Duration::from_millis(ms)).expect("ours");
        assert!(within(20).is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| within(60_000));
            drop(held);
            assert!(waiting.join().expect("no panic").is_some());
        });
    }

    #[test]
    fn a_lock_is_held_until_dropped_and_asking_does_not_take_it() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let path = dir.path().join("lock");
        assert_eq!(holder(&path), Holder::NoFile);
        let held = acquire(&path, "me").expect("it can be made").expect("nobody has it");
        assert_eq!(holder(&path), Holder::Somebody);
        assert!(acquire(&path, "you").expect("it can be opened").is_none());
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "me");
        drop(held);
        assert_eq!(holder(&path), Holder::Nobody);
        assert!(acquire(&path, "you").expect("it can be opened").is_some());
    }
}
