//! Opening a file by a path that holds no link, whoever changes folders meanwhile.
//!
//! `openat2` does it in one call, but a service manager (`RestrictSUIDSGID=`) and some containers
//! answer it as a kernel without it would. Then the path is walked, one held folder at a time.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::{Errno, Result};
use std::path::{Component, Path};

/// The kernel asks to try again when a folder above was renamed meanwhile.
const TRIES: usize = 100;

/// Opens an absolute path in which nothing may be a link.
///
/// # Errors
/// `ELOOP` for a link or `..` in it, else what the kernel says.
pub(crate) fn open_without_links(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    if !path.is_absolute() {
        return Err(Errno::INVAL);
    }
    open(CWD, path, flags, Mode::empty(), resolve)
}

/// Opens or makes a file in a folder or below it, without links and not outside.
///
/// # Errors
/// As above, and `EXDEV` for an absolute path.
pub(super) fn open_beneath(
    folder: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    if path.is_absolute() {
        return Err(Errno::XDEV);
    }
    open(folder, path, flags, mode, resolve)
}

/// Opens a file of the system, whose links are root's own and followed.
///
/// # Errors
/// What the kernel says.
pub(super) fn open_of_system(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        Err(Errno::NOSYS) => openat(CWD, path, flags, Mode::empty()),
        opened => opened,
    }
}

fn open(
    folder: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    for _ in 0..TRIES {
        match openat2(&folder, path, flags, mode, resolve) {
            Err(Errno::AGAIN) => {}
            Err(Errno::NOSYS) => return walk(folder, path, flags, mode),
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}

/// Each name is opened in the folder that is held, and is no link: so no step leads elsewhere.
fn walk(folder: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let held = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let start = if path.is_absolute() { "/" } else { "." };
    let mut at = openat(folder, start, held, Mode::empty())?;
    let mut parts =
        path.components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
    let Some(mut name) = parts.next() else {
        return openat(&at, ".", flags, mode);
    };
    loop {
        let Component::Normal(text) = name else { return Err(Errno::LOOP) };
        let Some(next) = parts.next() else {
            let opened = openat(&at, text, flags | OFlags::NOFOLLOW, mode)?;
            // With O_PATH the kernel hands out the link itself.
            let kind = FileType::from_raw_mode(fstat(&opened)?.st_mode);
            return if kind == FileType::Symlink { Err(Errno::LOOP) } else { Ok(opened) };
        };
        at = openat(&at, text, held, Mode::empty()).map_err(|error| {
            // What the kernel says of a link where a folder must be.
            if error == Errno::NOTDIR { Errno::LOOP } else { error }
        })?;
        name = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

    type Way<'a> = &'a dyn Fn(&Path) -> Result<OwnedFd>;

    #[test]
    fn both_ways_open_the_same_and_refuse_links_and_what_lies_above() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let dir = dir.path().canonicalize().expect("it is there");
        std::fs::create_dir_all(dir.join("a/b")).expect("the folder is ours");
        std::fs::write(dir.join("a/b/film"), "x").expect("the folder is ours");
        symlink("a", dir.join("link")).expect("the folder is ours");
        symlink("film", dir.join("a/b/last")).expect("the folder is ours");
        let inode = dir.join("a/b/film").metadata().expect("it was written").ino();
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let none = Mode::empty();
        let ways: [Way<'_>; 2] =
            [&|path| openat2(CWD, path, PATH, none, resolve), &|path| walk(CWD, path, PATH, none)];
        for way in ways {
            let opened = way(&dir.join("a/b/film")).expect("it holds no link");
            assert_eq!(fstat(&opened).expect("it is open").st_ino, inode);
            for refused in ["link/b/film", "a/b/last", "link"] {
                assert_eq!(way(&dir.join(refused)).err(), Some(Errno::LOOP), "{refused}");
            }
            assert_eq!(way(&dir.join("a/none/film")).err(), Some(Errno::NOENT));
            assert!(way(Path::new("/")).is_ok());
        }
        assert_eq!(walk(CWD, &dir.join("a/../a"), PATH, none).err(), Some(Errno::LOOP));
        let folder = openat(CWD, &dir, PATH | OFlags::DIRECTORY, none).expect("it is ours");
        let made = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        walk(&folder, Path::new("a/new"), made, Mode::from_raw_mode(0o644)).expect("it is made");
        assert!(dir.join("a/new").is_file());
        for refused in ["/etc/passwd", "../x"] {
            assert!(open_beneath(&folder, Path::new(refused), PATH, none).is_err(), "{refused}");
        }
    }
}
