//! Writes what is none of its business. What could be created is created under the plan's token,
//! so that the host finds it wherever it appears; what exists is opened for writing, and left.

use super::super::kernel::{Arg, call};
use super::{Attempt, FORBIDDEN, Scene, attempt, errno, is_null, may_succeed, must_fail};
use crate::selftest::plan::Plan;
use crate::selftest::verdict::{Denial, Outcome};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Nothing may appear outside; inside there may be a folder of that name.
const NOT_OUTSIDE: Denial =
    Denial::Contained(&[libc::ENOENT, libc::EACCES, libc::EPERM, libc::EROFS, libc::ENOTDIR]);
/// A file that may be read and not written, or not even seen.
const READ_ONLY: Denial = Denial::Errno(&[libc::EROFS, libc::EACCES, libc::EPERM, libc::ENOENT]);
/// No way between this file system and that file; `EBUSY` when that file is mounted alone.
const APART: Denial = Denial::Errno(&[
    libc::EROFS,
    libc::EACCES,
    libc::EPERM,
    libc::ENOENT,
    libc::EXDEV,
    libc::EBUSY,
]);

pub(super) const ATTEMPTS: &[Attempt] = &[
    attempt("create-outside", "create a file in a foreign folder", NOT_OUTSIDE, |scene| {
        create(scene, &scene.plan.outside)
    }),
    attempt("create-beside-other-input", "create a file beside another job's", NOT_OUTSIDE, |s| {
        create(s, s.plan.other_input.parent().unwrap_or(Path::new("/")))
    }),
    attempt("create-beside-input", "create a file beside its own input", NOT_OUTSIDE, |s| {
        create(s, s.plan.own_input.parent().unwrap_or(Path::new("/")))
    }),
    attempt("create-in-sibling", "create a file in another job's scratch", NOT_OUTSIDE, |scene| {
        create(scene, &scene.plan.sibling_scratch)
    }),
    attempt("create-in-work", "create a file in the work folder", NOT_OUTSIDE, |scene| {
        create(scene, &scene.plan.work_dir)
    }),
    attempt("forge-outcome", "create a file among the outcomes", NOT_OUTSIDE, |scene| {
        create(scene, &scene.plan.work_dir.join("outcomes"))
    }),
    attempt("forge-log", "create a file among the logs", NOT_OUTSIDE, |scene| {
        create(scene, &scene.plan.work_dir.join("logs"))
    }),
    attempt("create-in-runtime", "create a file in the runtime folder", NOT_OUTSIDE, |scene| {
        create(scene, &scene.plan.runtime_dir)
    }),
    attempt("create-beside-database", "create a file beside the database", NOT_OUTSIDE, |scene| {
        create(scene, scene.plan.database.parent().unwrap_or(Path::new("/")))
    }),
    attempt("create-in-tmp", "create a file in everybody's /tmp", NOT_OUTSIDE, |scene| {
        create(scene, Path::new("/tmp"))
    }),
    attempt("create-in-var-tmp", "create a file in everybody's /var/tmp", NOT_OUTSIDE, |scene| {
        create(scene, Path::new("/var/tmp"))
    }),
    attempt("create-in-shm", "create a file in everybody's /dev/shm", NOT_OUTSIDE, |scene| {
        create(scene, Path::new("/dev/shm"))
    }),
    attempt("create-in-etc", "create a file in /etc", NOT_OUTSIDE, |scene| {
        create(scene, Path::new("/etc"))
    }),
    attempt("create-in-usr", "create a file in /usr/lib", NOT_OUTSIDE, |scene| {
        create(scene, Path::new("/usr/lib"))
    }),
    attempt("create-in-root", "create a file in /", NOT_OUTSIDE, |scene| {
        create(scene, Path::new("/"))
    }),
    attempt("create-in-dev", "create a file in /dev", NOT_OUTSIDE, |scene| {
        create(scene, Path::new("/dev"))
    }),
    attempt("write-other-input", "open another job's input to write", READ_ONLY, |scene| {
        open_to_write(&scene.plan.other_input)
    }),
    attempt("write-database", "open the database to write", READ_ONLY, |scene| {
        open_to_write(&scene.plan.database)
    }),
    attempt("write-config", "open the configuration to write", READ_ONLY, |scene| {
        match &scene.plan.config {
            Some(path) => open_to_write(path),
            None => Outcome::Held("no file was read".to_owned()),
        }
    }),
    attempt("write-own-input", "open its own input to write", READ_ONLY, |scene| {
        open_to_write(&scene.plan.own_input)
    }),
    attempt("write-program", "open its own program to write", READ_ONLY, |_| {
        match std::env::current_exe().or_else(|_| {
            std::env::args_os()
                .next()
                .map(PathBuf::from)
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        }) {
            // A program that runs cannot be written anyway (ETXTBSY), so its mode is changed.
            Ok(path) => must_fail(
                fs::metadata(&path)
                    .and_then(|facts| fs::set_permissions(&path, facts.permissions())),
            ),
            Err(error) => errno(&error),
        }
    }),
    attempt("chmod-own-input", "change the mode of its own input", READ_ONLY, |scene| {
        let path = &scene.plan.own_input;
        must_fail(fs::metadata(path).and_then(|it| fs::set_permissions(path, it.permissions())))
    }),
    attempt("rename-own-input", "rename its own input", APART, |scene| {
        let to = scene.plan.own_input.with_file_name(format!("{}-renamed", scene.plan.token));
        let renamed = fs::rename(&scene.plan.own_input, &to);
        if renamed.is_ok() {
            let _ = fs::rename(&to, &scene.plan.own_input);
        }
        must_fail(renamed)
    }),
    attempt("write-by-link", "open another job's input to write, over a link", READ_ONLY, |s| {
        let _ = fs::remove_file("write-link");
        match symlink(&s.plan.other_input, "write-link") {
            Ok(()) => open_to_write(Path::new("write-link")),
            Err(error) => Outcome::Unable(format!("no link can be made: {error}")),
        }
    }),
    attempt("link-other-input", "hard link of another job's input", APART, |scene| {
        hard_link(&scene.plan.other_input)
    }),
    attempt("link-own-input", "hard link of its input, to write it there", APART, |scene| {
        hard_link(&scene.plan.own_input)
    }),
    attempt("steal-other-input", "rename another job's input into scratch", APART, |scene| {
        let stolen = fs::rename(&scene.plan.other_input, "stolen");
        if stolen.is_ok() {
            let _ = fs::rename("stolen", &scene.plan.other_input);
        }
        must_fail(stolen)
    }),
    attempt("rename-outside", "rename a file of its own out of scratch", APART, |scene| {
        let made = fs::write("mine", "x");
        if let Err(error) = made {
            return Outcome::Unable(format!("scratch cannot be written: {error}"));
        }
        let to = scene.plan.outside.join(format!("{}-rename", scene.plan.token));
        must_fail(fs::rename("mine", to))
    }),
    attempt("make-memory-device", "make a device node of the memory", FORBIDDEN, |_| {
        make_node(libc::S_IFCHR, libc::makedev(1, 1))
    }),
    attempt("make-disk-device", "make a device node of a disk", FORBIDDEN, |_| {
        make_node(libc::S_IFBLK, libc::makedev(8, 0))
    }),
    attempt("make-setuid", "give a file of its own the setuid bit", FORBIDDEN, |_| set_id(0o4755)),
    attempt("make-setgid", "give a file of its own the setgid bit", FORBIDDEN, |_| set_id(0o2755)),
    attempt("create-setuid", "create a file with the setuid bit", FORBIDDEN, |_| {
        let _ = fs::remove_file("made-setuid");
        let flags = i64::from(libc::O_CREAT | libc::O_WRONLY);
        let path = c"made-setuid";
        let at = i64::from(libc::AT_FDCWD);
        let made = call(
            libc::SYS_openat,
            &mut [Arg::Number(at), Arg::Text(path), Arg::Number(flags), Arg::Number(0o4755)],
        );
        let kept =
            fs::metadata("made-setuid").is_ok_and(|it| it.permissions().mode() & 0o4000 != 0);
        let _ = fs::remove_file("made-setuid");
        match made {
            Ok(_) if !kept => Outcome::Held("the bit was dropped".to_owned()),
            made => must_fail(made),
        }
    }),
    attempt("give-capability", "give a file of its own a capability", FORBIDDEN, |_| {
        give_capability()
    }),
    attempt("set-core-pattern", "open kernel.core_pattern to write", READ_ONLY, |_| {
        open_to_write(Path::new("/proc/sys/kernel/core_pattern"))
    }),
    attempt("set-modprobe", "open kernel.modprobe to write", READ_ONLY, |_| {
        open_to_write(Path::new("/proc/sys/kernel/modprobe"))
    }),
    attempt("set-overcommit", "open vm.overcommit_memory to write", READ_ONLY, |_| {
        open_to_write(Path::new("/proc/sys/vm/overcommit_memory"))
    }),
    attempt("set-pid-max", "open kernel.pid_max to write", READ_ONLY, |_| {
        open_to_write(Path::new("/proc/sys/kernel/pid_max"))
    }),
    attempt("set-user-namespaces", "open user.max_user_namespaces to write", READ_ONLY, |_| {
        open_to_write(Path::new("/proc/sys/user/max_user_namespaces"))
    }),
    attempt("magic-keys", "open /proc/sysrq-trigger to write", READ_ONLY, |_| {
        open_to_write(Path::new("/proc/sysrq-trigger"))
    }),
    attempt("power-state", "open /sys/power/state to write", READ_ONLY, |_| {
        open_to_write(Path::new("/sys/power/state"))
    }),
    attempt("uevent-helper", "open /sys/kernel/uevent_helper to write", READ_ONLY, |_| {
        open_to_write(Path::new("/sys/kernel/uevent_helper"))
    }),
    attempt("leave-cgroup", "open the root control group's list to write", READ_ONLY, |scene| {
        open_to_write(&cgroup_root(&scene.plan).join("cgroup.procs"))
    }),
    attempt("make-cgroup", "make a control group", NOT_OUTSIDE, |scene| {
        may_succeed(fs::create_dir(cgroup_root(&scene.plan).join(&scene.plan.token)))
    }),
    attempt("spare-me", "make itself the last victim of the OOM killer", READ_ONLY, |_| {
        must_fail(fs::write("/proc/self/oom_score_adj", "-900"))
    }),
];

/// Where each attempt that creates something would leave it: the host looks there.
pub(in crate::selftest) fn traces(plan: &Plan) -> Vec<(&'static str, PathBuf)> {
    let parent = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
    let folders = [
        ("create-outside", plan.outside.clone()),
        ("create-beside-other-input", parent(&plan.other_input)),
        ("create-beside-input", parent(&plan.own_input)),
        ("create-in-sibling", plan.sibling_scratch.clone()),
        ("create-in-work", plan.work_dir.clone()),
        ("forge-outcome", plan.work_dir.join("outcomes")),
        ("forge-log", plan.work_dir.join("logs")),
        ("create-in-runtime", plan.runtime_dir.clone()),
        ("create-beside-database", parent(&plan.database)),
        ("create-in-tmp", PathBuf::from("/tmp")),
        ("create-in-var-tmp", PathBuf::from("/var/tmp")),
        ("create-in-shm", PathBuf::from("/dev/shm")),
        ("create-in-etc", PathBuf::from("/etc")),
        ("create-in-usr", PathBuf::from("/usr/lib")),
        ("create-in-root", PathBuf::from("/")),
        ("create-in-dev", PathBuf::from("/dev")),
    ];
    let mut traces: Vec<_> =
        folders.into_iter().map(|(name, folder)| (name, trace(plan, &folder))).collect();
    traces.push(("rename-outside", plan.outside.join(format!("{}-rename", plan.token))));
    traces.push(("make-cgroup", cgroup_root(plan).join(&plan.token)));
    traces
}

/// What is created in a folder: the name tells the folder, for two may be the same inside.
fn trace(plan: &Plan, folder: &Path) -> PathBuf {
    let name = folder.to_string_lossy().replace('/', "_");
    folder.join(format!("{}{name}", plan.token))
}

fn cgroup_root(plan: &Plan) -> PathBuf {
    plan.cgroup_root.clone().unwrap_or_else(|| PathBuf::from("/sys/fs/cgroup"))
}

fn create(scene: &Scene, folder: &Path) -> Outcome {
    may_succeed(
        File::create_new(trace(&scene.plan, folder)).and_then(|mut file| file.write_all(b"x")),
    )
}

/// Opens and leaves: nothing is written, also where it could be.
fn open_to_write(path: &Path) -> Outcome {
    match fs::OpenOptions::new().append(true).open(path) {
        Ok(file) if is_null(&file) => Outcome::Held("the null device lies there".to_owned()),
        opened => must_fail(opened),
    }
}

fn hard_link(from: &Path) -> Outcome {
    let _ = fs::remove_file("hard-link");
    let linked = fs::hard_link(from, "hard-link");
    let _ = fs::remove_file("hard-link");
    must_fail(linked)
}

fn make_node(kind: libc::mode_t, device: libc::dev_t) -> Outcome {
    let _ = fs::remove_file("node");
    let number = i64::try_from(device).unwrap_or(0);
    let mode = i64::from(kind | 0o600);
    let made = call(
        libc::SYS_mknodat,
        &mut [
            Arg::Number(i64::from(libc::AT_FDCWD)),
            Arg::Text(c"node"),
            Arg::Number(mode),
            Arg::Number(number),
        ],
    );
    let _ = fs::remove_file("node");
    must_fail(made)
}

fn set_id(mode: u32) -> Outcome {
    if let Err(error) = fs::write("set-id", "x") {
        return Outcome::Unable(format!("scratch cannot be written: {error}"));
    }
    let changed = fs::set_permissions("set-id", fs::Permissions::from_mode(mode));
    let _ = fs::remove_file("set-id");
    must_fail(changed)
}

/// `security.capability` with all capabilities, in the form of version 2.
fn give_capability() -> Outcome {
    if let Err(error) = fs::write("capable", "x") {
        return Outcome::Unable(format!("scratch cannot be written: {error}"));
    }
    let path = CString::new(Path::new("capable").as_os_str().as_bytes()).expect("no zero in it");
    let mut value = [0xff_u8; 20];
    value[..4].copy_from_slice(&0x0200_0001_u32.to_le_bytes());
    let changed = call(
        libc::SYS_setxattr,
        &mut [
            Arg::Text(&path),
            Arg::Text(c"security.capability"),
            Arg::Bytes(&mut value),
            Arg::Number(20),
            Arg::Number(0),
        ],
    );
    let _ = fs::remove_file("capable");
    must_fail(changed)
}
