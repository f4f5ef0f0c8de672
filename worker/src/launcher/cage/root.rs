//! A root of the cage's own: an empty file system in memory on which all that the program may
//! see is mounted, everything read-only but what it may write.

use super::lookup::open_beneath;
use super::order::Access;
use super::source::Source;
use super::view::Item;
use rustix::fs::{Mode, OFlags, fstat, mkdirat, open, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{fchdir, pivot_root};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

/// Where the new root is put together: a folder of which it is known that it exists. What it
/// hides meanwhile is held by descriptors.
const PLACE: &str = "/usr";

/// Mount points only.
const ROOT: &str = "mode=0755,size=1m,nr_inodes=4096";

/// Private to the cage, gone with it. Memory: it counts as the program's where a control group
/// counts, and this is the bound where none does.
const TMP: &str = "mode=1777,size=256m,nr_inodes=65536";
const SHM: &str = "mode=1777,size=256m,nr_inodes=4096";

/// Of a new `/proc`: processes that the program could not trace are not to be seen, pid 1 of
/// the cage among them. The older way, of kernels before 5.8, does not bind the group of root.
const PROC: &str = "hidepid=ptraceable";
const PROC_OLD: &str = "hidepid=2";

/// What `/proc` tells about the host, or offers to its root.
const HIDDEN: &[&str] = &[
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "slabinfo",
    "sysrq-trigger",
    "timer_list",
    "vmallocinfo",
];

/// Links that programs expect in /dev.
const DEV_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

const PRIVATE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Makes the root of this process and of its mount namespace one that shows only `sources`.
///
/// # Errors
/// The kernel refuses a step; the root is the old one then.
pub(super) fn change(sources: &[Source], has_own_pids: bool) -> io::Result<()> {
    // First: nothing that is mounted here may show up anywhere else, and nothing of the host
    // here.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // Before anything is mounted: a copy made later would hold that too.
    let copies = sources.iter().map(copy).collect::<io::Result<Vec<_>>>()?;
    mount_tmpfs(PLACE, ROOT)?;
    let done = build(sources.iter().zip(copies), has_own_pids).and_then(|root| enter(&root));
    if done.is_err() {
        // What was hidden is there again. Only after a failure, so no open file is in it.
        let _ = unmount(PLACE, UnmountFlags::DETACH);
        let _ = std::env::set_current_dir("/");
    }
    done
}

fn build<'a>(
    shown: impl Iterator<Item = (&'a Source, Option<OwnedFd>)>,
    has_own_pids: bool,
) -> io::Result<OwnedFd> {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(PLACE, folder, Mode::empty())?;
    fchdir(&root)?;
    for name in ["tmp", "dev", "dev/shm", "proc", "var", "run"] {
        mkdirat(&root, name, Mode::from_raw_mode(0o755))?;
    }
    symlinkat("../tmp", &root, "var/tmp")?;
    for (name, target) in DEV_LINKS {
        symlinkat(*target, &root, Path::new("dev").join(name))?;
    }
    // Before anything is mounted below /tmp, which it would hide.
    mount_tmpfs("tmp", TMP)?;
    mount_tmpfs("dev/shm", SHM)?;
    for (source, copy) in shown {
        show(&root, source, copy)?;
    }
    // While the old /proc is there: the kernel lets nobody mount a new one who does not see
    // a whole one. A container's is not whole: then there is none.
    if has_own_pids && mount_proc(&root).is_err() {
        // Nor is there half of one, in which something could not be hidden or be written.
        let _ = unmount("proc", UnmountFlags::DETACH);
    }
    set_attributes(root.as_fd(), READ_ONLY, Depth::This)?;
    Ok(root)
}

fn mount_tmpfs(place: &str, options: &str) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    Ok(mount("tmpfs", place, "tmpfs", PRIVATE, options.as_c_str())?)
}

fn mount_proc(root: &OwnedFd) -> io::Result<()> {
    let flags = PRIVATE | MountFlags::NOEXEC;
    let with = |options: &str| {
        let options = std::ffi::CString::new(options).expect("it is a constant without zeros");
        mount("proc", "proc", "proc", flags, options.as_c_str())
    };
    with(PROC).or_else(|_| with(PROC_OLD))?;
    let null = open_place(root, Path::new("dev/null"), OFlags::empty())?;
    for name in HIDDEN {
        let place = Path::new("proc").join(name);
        if let Ok(at) = open_place(root, &place, OFlags::empty()) {
            attach(&clone(null.as_fd(), DEVICE, Depth::This)?, &at)?;
        }
    }
    // Root owns the kernel's switches in it, also without any capability: so nobody writes.
    let proc = open_place(root, Path::new("proc"), OFlags::empty())?;
    set_attributes(proc.as_fd(), READ_ONLY | libc::MOUNT_ATTR_NOEXEC, Depth::This)
}

/// The old root goes, and with it every way to what was not shown.
fn enter(root: &OwnedFd) -> io::Result<()> {
    fchdir(root)?;
    // The old root is put on top of the new one, where the next call takes it away.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}

/// Whether an attribute is for one mount or for all below it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    This,
    All,
}

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | WRITABLE;
const WRITABLE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
/// Writing to a device is not writing to its file system, but changing its mode is.
const DEVICE: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;

/// A detached copy of what a source holds, with attributes that nobody in the cage can undo.
fn copy(source: &Source) -> io::Result<Option<OwnedFd>> {
    let attributes = match &source.item {
        Item::Link { .. } => return Ok(None),
        Item::Public(_) => READ_ONLY,
        Item::Device { .. } => DEVICE,
        Item::Shown { shown, .. } => match shown.access {
            Access::Connect | Access::Read => READ_ONLY,
            Access::Write => WRITABLE,
        },
    };
    let depth = if source.is_folder { Depth::All } else { Depth::This };
    let made = source.opened.as_ref().map(|opened| clone(opened.as_fd(), attributes, depth));
    made.transpose().map_err(|error| unseen(source, &error))
}

fn show(root: &OwnedFd, source: &Source, copy: Option<OwnedFd>) -> io::Result<()> {
    let path = source.item.path();
    if let Item::Link { target, .. } = &source.item {
        return Ok(symlinkat(target, root, path.strip_prefix("/").unwrap_or(path))?);
    }
    let Some(copy) = copy else { return Ok(()) };
    make_place(root, path, source.is_folder)
        .and_then(|place| attach(&copy, &place))
        .map_err(|error| unseen(source, &error))
}

fn unseen(source: &Source, error: &io::Error) -> io::Error {
    io::Error::other(format!("cannot show {}: {error}", source.item.path().display()))
}

/// The mount point `path` in the new root, made where it is missing.
fn make_place(root: &OwnedFd, path: &Path, is_folder: bool) -> io::Result<OwnedFd> {
    let mut names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        Component::RootDir | Component::CurDir | Component::ParentDir | Component::Prefix(_) => {
            None
        }
    });
    let Some(last) = names.next_back() else {
        return Err(io::Error::other("the root itself cannot be shown"));
    };
    let mut at = root.try_clone()?;
    for name in names {
        at = step(&at, Path::new(name), true)?;
    }
    step(&at, Path::new(last), is_folder)
}

fn step(at: &OwnedFd, name: &Path, is_folder: bool) -> io::Result<OwnedFd> {
    let kind = if is_folder { OFlags::DIRECTORY } else { OFlags::empty() };
    let look = || open_place(at, name, kind);
    match look() {
        Err(Errno::NOENT) if is_own(at)? => {}
        other => return Ok(other?),
    }
    if is_folder {
        mkdirat(at, name, Mode::from_raw_mode(0o755))?;
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        open_beneath(at, name, flags, Mode::from_raw_mode(0o644))?;
    }
    Ok(look()?)
}

/// Within the new root, whatever links are there: what is mounted already may be a folder that
/// somebody else writes to.
fn open_place(folder: &OwnedFd, path: &Path, kind: OFlags) -> rustix::io::Result<OwnedFd> {
    open_beneath(folder, path, OFlags::PATH | OFlags::CLOEXEC | kind, Mode::empty())
}

/// Whether this folder is on a file system of the cage's own: nothing is made in a folder of
/// the host.
fn is_own(at: &OwnedFd) -> io::Result<bool> {
    let device = fstat(at)?.st_dev;
    let own = ["/", "/tmp", "/dev/shm"].iter().filter_map(|name| {
        let path = Path::new(PLACE).join(name.trim_start_matches('/'));
        Some(rustix::fs::stat(path).ok()?.st_dev)
    });
    Ok(own.into_iter().any(|one| one == device))
}

fn clone(source: BorrowedFd<'_>, attributes: u64, depth: Depth) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    // With what is mounted below: the kernel shows no folder without its locked mounts, which
    // may be there to hide something.
    flags.set(OpenTreeFlags::AT_RECURSIVE, depth == Depth::All);
    let tree = open_tree(source, "", flags)?;
    // Before it can be seen anywhere.
    set_attributes(tree.as_fd(), attributes, depth)?;
    Ok(tree)
}

fn attach(copy: &OwnedFd, place: &OwnedFd) -> io::Result<()> {
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(copy, "", place, "", empty)?)
}

fn set_attributes(mount: BorrowedFd<'_>, attributes: u64, depth: Depth) -> io::Result<()> {
    let recursive = if depth == Depth::All { libc::AT_RECURSIVE } else { 0 };
    let wanted =
        libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the kernel reads an empty text that ends with a zero byte, and one structure of
    // the given size; both outlive the call.
    #[expect(unsafe_code, reason = "no safe wrapper of mount_setattr exists")]
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
