//! Builds a world of its own, or enters another one: mounts, namespaces, roots.

use super::super::kernel::{Arg, call, clone_with, clone3_with, numbers};
use super::reading::of_init;
use super::{Attempt, NO_PROCESS, attempt, errno, must_fail};
use crate::selftest::verdict::{Denial, Outcome};
use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;

/// Refused; `ENOSPC` is how a limit of 0 user namespaces says no.
const NO_NAMESPACE: Denial =
    Denial::Errno(&[libc::EPERM, libc::EACCES, libc::ENOSYS, libc::ENOSPC]);
/// Refused, or the namespace's file cannot be opened.
const NO_ENTRANCE: Denial =
    Denial::Errno(&[libc::EPERM, libc::EACCES, libc::ENOSYS, libc::ENOENT, libc::ESRCH]);
const REFUSED: Denial = NO_NAMESPACE;

const AT_FDCWD: i64 = libc::AT_FDCWD as i64;

pub(super) const ATTEMPTS: &[Attempt] = &[
    attempt("mount-tmpfs", "mount a file system in scratch", REFUSED, |_| {
        mount(c"none", c"tmpfs", 0)
    }),
    attempt("mount-proc", "mount another /proc in scratch", REFUSED, |_| {
        mount(c"none", c"proc", 0)
    }),
    attempt("mount-bind", "bind / into scratch", REFUSED, |_| {
        mount(c"/", c"none", i64::try_from(libc::MS_BIND).unwrap_or(0))
    }),
    attempt("remount-root", "make / writable", REFUSED, |_| {
        // On the scratch folder, which is no mount or one that is writable already: the right
        // is checked first.
        let flags = i64::try_from(libc::MS_REMOUNT | libc::MS_BIND).unwrap_or(0);
        mount(c"none", c"none", flags)
    }),
    attempt("unmount", "unmount", REFUSED, |_| {
        let detach = i64::from(libc::MNT_DETACH);
        let _ = fs::create_dir("mount");
        let path = Arg::Text(c"mount");
        must_fail(call(libc::SYS_umount2, &mut [path, Arg::Number(detach)]))
    }),
    attempt("new-mount", "open a file system by the new calls", REFUSED, |_| {
        must_fail(call(libc::SYS_fsopen, &mut [Arg::Text(c"tmpfs"), Arg::Number(0)]))
    }),
    attempt("clone-tree", "clone the tree of mounts", REFUSED, |_| {
        const OPEN_TREE_CLONE: i64 = 1;
        let flags = Arg::Number(OPEN_TREE_CLONE);
        must_fail(call(libc::SYS_open_tree, &mut [Arg::Number(AT_FDCWD), Arg::Text(c"/"), flags]))
    }),
    attempt("move-mount", "move a mount", REFUSED, |_| {
        let (from, to) = (Arg::Text(c"mount"), Arg::Text(c"mount"));
        let at = || Arg::Number(AT_FDCWD);
        must_fail(call(libc::SYS_move_mount, &mut [at(), from, at(), to, Arg::Number(0)]))
    }),
    attempt("pick-mount", "take hold of the root's configuration", REFUSED, |_| {
        let at = Arg::Number(AT_FDCWD);
        must_fail(call(libc::SYS_fspick, &mut [at, Arg::Text(c"/"), Arg::Number(0)]))
    }),
    attempt("change-mount", "change what a mount forbids", REFUSED, |_| {
        // `struct mount_attr`: what to set, what to clear, propagation, user namespace. Clears
        // read-only on a folder that is no mount.
        let mut attributes = [0; 32];
        attributes[8] = 1;
        let (at, path) = (Arg::Number(AT_FDCWD), Arg::Text(c"mount"));
        let bytes = Arg::Bytes(&mut attributes);
        must_fail(call(
            libc::SYS_mount_setattr,
            &mut [at, path, Arg::Number(0), bytes, Arg::Number(32)],
        ))
    }),
    attempt("pivot-root", "exchange the root", REFUSED, |_| {
        must_fail(call(libc::SYS_pivot_root, &mut [Arg::Text(c"."), Arg::Text(c".")]))
    }),
    attempt("chroot", "change the root", REFUSED, |_| {
        must_fail(call(libc::SYS_chroot, &mut [Arg::Text(c".")]))
    }),
    attempt("unshare-user", "make a user namespace", NO_NAMESPACE, |_| {
        unshare(libc::CLONE_NEWUSER)
    }),
    attempt("unshare-mount", "make a mount namespace", NO_NAMESPACE, |_| {
        unshare(libc::CLONE_NEWNS)
    }),
    attempt("unshare-pid", "make a pid namespace", NO_NAMESPACE, |_| unshare(libc::CLONE_NEWPID)),
    attempt("unshare-net", "make a network namespace", NO_NAMESPACE, |_| {
        unshare(libc::CLONE_NEWNET)
    }),
    attempt("unshare-ipc", "make an IPC namespace", NO_NAMESPACE, |_| unshare(libc::CLONE_NEWIPC)),
    attempt("unshare-uts", "make a namespace of names", NO_NAMESPACE, |_| {
        unshare(libc::CLONE_NEWUTS)
    }),
    attempt("unshare-cgroup", "make a cgroup namespace", NO_NAMESPACE, |_| {
        unshare(libc::CLONE_NEWCGROUP)
    }),
    attempt("unshare-time", "make a time namespace", NO_NAMESPACE, |_| unshare(0x80)),
    attempt("clone-user", "clone into a user namespace", NO_NAMESPACE, |_| {
        must_fail(clone_with(i64::from(libc::CLONE_NEWUSER)))
    }),
    attempt("clone-mount", "clone into a mount namespace", NO_NAMESPACE, |_| {
        must_fail(clone_with(i64::from(libc::CLONE_NEWNS)))
    }),
    attempt("clone3-user", "clone3 into a user namespace", NO_NAMESPACE, |_| {
        must_fail(clone3_with(u64::from(libc::CLONE_NEWUSER.unsigned_abs())))
    }),
    attempt("clone3-net", "clone3 into a network namespace", NO_NAMESPACE, |_| {
        must_fail(clone3_with(u64::from(libc::CLONE_NEWNET.unsigned_abs())))
    }),
    attempt("enter-own-net", "enter a namespace by its file", NO_ENTRANCE, |_| {
        enter("/proc/self/ns/net")
    }),
    attempt("enter-init-mount", "enter the mount namespace of pid 1", NO_ENTRANCE, |scene| {
        of_init(scene, || enter("/proc/1/ns/mnt"))
    }),
    attempt("enter-host-mount", "enter the supervisor's mount namespace", NO_ENTRANCE, |scene| {
        enter(&format!("/proc/{}/ns/mnt", scene.plan.supervisor.pid))
    }),
    attempt(
        "enter-by-descriptor",
        "enter the supervisor's world by a pidfd",
        NO_PROCESS,
        |scene| {
            let pid = i64::from(scene.plan.supervisor.pid);
            must_fail(
                numbers(libc::SYS_pidfd_open, &[pid, 0]).and_then(|open| {
                    numbers(libc::SYS_setns, &[open, i64::from(libc::CLONE_NEWNS)])
                }),
            )
        },
    ),
];

/// Mounts on a folder in scratch, and unmounts what should not have been possible.
fn mount(source: &CStr, kind: &CStr, flags: i64) -> Outcome {
    let _ = fs::create_dir("mount");
    let (source, kind) = (Arg::Text(source), Arg::Text(kind));
    let target = Arg::Text(c"mount");
    let mounted =
        call(libc::SYS_mount, &mut [source, target, kind, Arg::Number(flags), Arg::Number(0)]);
    if mounted.is_ok() {
        let detach = Arg::Number(i64::from(libc::MNT_DETACH));
        let _ = call(libc::SYS_umount2, &mut [Arg::Text(c"mount"), detach]);
    }
    must_fail(mounted)
}

fn unshare(flag: i32) -> Outcome {
    must_fail(numbers(libc::SYS_unshare, &[i64::from(flag)]))
}

fn enter(path: &str) -> Outcome {
    match File::open(path) {
        Ok(file) => must_fail(numbers(libc::SYS_setns, &[i64::from(file.as_raw_fd()), 0])),
        Err(error) => errno(&error),
    }
}
