//! The things that a program will see, each looked up once and held by a descriptor.

use super::lookup::{open_of_system, open_without_links};
use super::order::Access;
use super::view::{Item, View, path_of};
use super::{Refusal, Step, capabilities, confinement};
use rustix::fs::{FileType, OFlags, fstat};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const OPEN: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// One of them.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) item: Item,
    /// An `O_PATH` descriptor; a link has none.
    pub(super) opened: Option<OwnedFd>,
    pub(super) is_folder: bool,
}

/// Opens all that the view names.
///
/// Without effective capabilities, because the program will have none: what root reaches only
/// by them must not be shown as if the program could use it.
pub(super) fn open_all(view: &View) -> Result<Vec<Source>, Refusal> {
    capabilities::without(|| {
        view.0.iter().filter_map(|item| open(item).transpose()).collect::<Result<Vec<_>, _>>()
    })
    .map_err(confinement)?
}

fn open(item: &Item) -> Result<Option<Source>, Refusal> {
    let source = |opened: OwnedFd| -> rustix::io::Result<Source> {
        let kind = FileType::from_raw_mode(fstat(&opened)?.st_mode);
        let is_folder = kind == FileType::Directory;
        Ok(Source { item: item.clone(), opened: Some(opened), is_folder })
    };
    match item {
        Item::Link { .. } => {
            Ok(Some(Source { item: item.clone(), opened: None, is_folder: false }))
        }
        Item::Public(path) => Ok(open_of_system(path, OPEN).and_then(source).ok()),
        Item::Device { path, named } => match (open_without_links(path, OPEN), named) {
            (Ok(opened), _) => Ok(source(opened).ok()),
            // A host without /dev/full is a strange host, but programs run on it.
            (Err(_), None) => Ok(None),
            (Err(error), Some(at)) => Err(refuse(Step::Device(number(*at)), error.into())),
        },
        Item::Shown { at, shown } => {
            let refuse = |error: io::Error| refuse(Step::Shown(number(*at)), error);
            let opened = open_without_links(path_of(&shown.real), OPEN)
                .map_err(|error| refuse(error.into()))?;
            let stat = fstat(&opened).map_err(|error| refuse(error.into()))?;
            if (stat.st_dev, stat.st_ino) != (shown.device, shown.inode) {
                return Err(refuse(io::Error::from_raw_os_error(libc::ESTALE)));
            }
            let source = source(opened).map_err(|error| refuse(error.into()))?;
            may_use(&source, shown.access).map_err(refuse)?;
            Ok(Some(source))
        }
    }
}

/// Whether this user may use it as the order says.
fn may_use(source: &Source, access: Access) -> io::Result<()> {
    let Some(opened) = &source.opened else { return Ok(()) };
    let mode = match (access, source.is_folder) {
        (Access::Connect | Access::Read, true) => libc::R_OK | libc::X_OK,
        (Access::Connect | Access::Read, false) => libc::R_OK,
        (Access::Write, true) => libc::W_OK | libc::X_OK,
        (Access::Write, false) => libc::W_OK,
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_EACCESS;
    // SAFETY: the kernel reads an empty text that ends with a zero byte.
    #[expect(unsafe_code, reason = "no safe wrapper takes a descriptor alone")]
    let result = unsafe {
        libc::syscall(libc::SYS_faccessat2, opened.as_raw_fd(), c"".as_ptr(), mode, flags)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn refuse(step: Step, error: io::Error) -> Refusal {
    Refusal { step, error }
}

fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::order::Shown;
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    /// What comes of an order that shows `path`, of which the worker saw `seen`.
    fn open_one(path: &Path, seen: &Path) -> Result<Vec<Source>, Refusal> {
        let stat = seen.metadata().expect("it is there");
        let bytes = path.as_os_str().as_bytes().to_vec();
        let shown = Shown {
            path: bytes.clone(),
            real: bytes,
            device: stat.dev(),
            inode: stat.ino(),
            access: Access::Read,
        };
        open_all(&View(vec![Item::Shown { at: 3, shown }]))
    }

    fn errno(path: &Path, seen: &Path) -> Option<i32> {
        let refusal = open_one(path, seen).expect_err("it is refused");
        assert_eq!(refusal.step, Step::Shown(3));
        refusal.error.raw_os_error()
    }

    #[test]
    fn what_is_shown_is_the_file_that_was_checked() {
        let folder = tempfile::tempdir().expect("folder");
        let (film, other) = (folder.path().join("film"), folder.path().join("other"));
        for path in [&film, &other] {
            std::fs::write(path, "x").expect("file");
        }
        assert_eq!(open_one(&film, &film).expect("it is the same").len(), 1);
        assert_eq!(errno(&film, &other), Some(libc::ESTALE));
        std::fs::rename(&other, &film).expect("replaced");
        assert_eq!(errno(&film, folder.path()), Some(libc::ESTALE));
    }

    #[test]
    fn no_link_is_followed_wherever_it_leads() {
        let folder = tempfile::tempdir().expect("folder");
        let film = folder.path().join("film");
        std::fs::write(&film, "x").expect("file");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).expect("link");
        assert_eq!(errno(&link, folder.path()), Some(libc::ELOOP));
        assert_eq!(errno(&link.join("film"), &film), Some(libc::ELOOP));
    }
}
