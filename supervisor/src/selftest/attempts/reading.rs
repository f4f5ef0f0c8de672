//! Reads what is none of its business: files of the system, of other jobs, of the supervisor, and
//! what /proc says about other processes.

use super::super::plan::Victim;
use super::{Attempt, HIDDEN, Scene, attempt, errno, is_null};
use crate::selftest::verdict::{Denial, Outcome};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};

/// /proc of a process that is not there, or not for us; `ESRCH` when it is ending.
const NO_ENTRY: Denial =
    Denial::Errno(&[libc::ENOENT, libc::EACCES, libc::EPERM, libc::ESRCH, libc::EIO]);

pub(super) const ATTEMPTS: &[Attempt] = &[
    attempt("read-shadow", "open /etc/shadow", HIDDEN, |_| open("/etc/shadow")),
    attempt("read-gshadow", "open /etc/gshadow", HIDDEN, |_| open("/etc/gshadow")),
    attempt("list-root-home", "list /root", HIDDEN, |scene| list(scene, "/root")),
    attempt("list-logs", "list /var/log", HIDDEN, |scene| list(scene, "/var/log")),
    attempt("list-run", "list /run", HIDDEN, |scene| list(scene, "/run")),
    attempt("read-other-input", "read another job's input", HIDDEN, |scene| {
        read(&scene.plan.other_input)
    }),
    attempt("list-other-folder", "list another job's folder", HIDDEN, |scene| {
        list(scene, scene.plan.other_input.parent().unwrap_or(Path::new("/")))
    }),
    attempt("read-by-link", "read it over a symbolic link", HIDDEN, |scene| {
        let _ = std::fs::remove_file("link");
        match symlink(&scene.plan.other_input, "link") {
            Ok(()) => read("link"),
            Err(error) => Outcome::Unable(format!("no link can be made: {error}")),
        }
    }),
    attempt("read-by-dots", "read it by way of ../../..", HIDDEN, |scene| {
        let inside = scene.plan.other_input.strip_prefix("/").unwrap_or(&scene.plan.other_input);
        read(Path::new(&"../".repeat(40)).join(inside))
    }),
    attempt("read-by-proc-root", "read it over /proc/self/root", HIDDEN, |scene| {
        let inside = scene.plan.other_input.strip_prefix("/").unwrap_or(&scene.plan.other_input);
        read(Path::new("/proc/self/root").join(inside))
    }),
    attempt("read-by-parent-root", "read it over the root of the parent process", NO_ENTRY, |s| {
        let inside = s.plan.other_input.strip_prefix("/").unwrap_or(&s.plan.other_input);
        let parent = std::os::unix::process::parent_id();
        // The attempt's parent is the hostile program; its parent is what started that.
        read(Path::new("/proc").join(grandparent(parent)).join("root").join(inside))
    }),
    attempt("read-by-host-root", "read it over the root of the supervisor", NO_ENTRY, |scene| {
        let inside = scene.plan.other_input.strip_prefix("/").unwrap_or(&scene.plan.other_input);
        of_process(scene.plan.supervisor, |proc| read(proc.join("root").join(inside)))
    }),
    attempt("read-database", "read the database", HIDDEN, |scene| read(&scene.plan.database)),
    attempt("read-wal", "read the database's log", HIDDEN, |scene| {
        read(format!("{}-wal", scene.plan.database.display()))
    }),
    attempt("read-config", "read the configuration", HIDDEN, |scene| match &scene.plan.config {
        Some(path) => read(path),
        None => Outcome::Held("no file was read".to_owned()),
    }),
    attempt("list-work", "list the work folder", HIDDEN, |scene| list(scene, &scene.plan.work_dir)),
    attempt("list-logs-of-others", "list the logs of all jobs", HIDDEN, |scene| {
        list(scene, scene.plan.work_dir.join("logs"))
    }),
    attempt("list-outcomes", "list the outcomes of all workers", HIDDEN, |scene| {
        list(scene, scene.plan.work_dir.join("outcomes"))
    }),
    attempt("list-sibling-scratch", "list the sibling's scratch folder", HIDDEN, |scene| {
        list(scene, &scene.plan.sibling_scratch)
    }),
    attempt("list-runtime", "list the runtime folder", HIDDEN, |scene| {
        list(scene, &scene.plan.runtime_dir)
    }),
    attempt("list-records", "list the records of workers", HIDDEN, |scene| {
        list(scene, scene.plan.runtime_dir.join("records"))
    }),
    attempt("supervisor-environment", "read the supervisor's environment", NO_ENTRY, |s| {
        of_process(s.plan.supervisor, |proc| read(proc.join("environ")))
    }),
    attempt("supervisor-memory", "open the supervisor's memory", NO_ENTRY, |scene| {
        of_process(scene.plan.supervisor, |proc| open(proc.join("mem")))
    }),
    attempt("supervisor-maps", "read the supervisor's memory map", NO_ENTRY, |scene| {
        of_process(scene.plan.supervisor, |proc| read(proc.join("maps")))
    }),
    attempt("supervisor-files", "list the supervisor's descriptors", NO_ENTRY, |scene| {
        of_process(scene.plan.supervisor, |proc| list(scene, proc.join("fd")))
    }),
    attempt("supervisor-entry", "list the supervisor's /proc entry", NO_ENTRY, |scene| {
        of_process(scene.plan.supervisor, |proc| list(scene, proc))
    }),
    attempt("worker-environment", "read a worker's environment", NO_ENTRY, |scene| {
        of_process(scene.plan.worker, |proc| read(proc.join("environ")))
    }),
    attempt("worker-memory", "open a worker's memory", NO_ENTRY, |scene| {
        of_process(scene.plan.worker, |proc| open(proc.join("mem")))
    }),
    attempt("worker-files", "list a worker's descriptors", NO_ENTRY, |scene| {
        of_process(scene.plan.worker, |proc| list(scene, proc.join("fd")))
    }),
    attempt("sibling-environment", "read another program's environment", NO_ENTRY, |scene| {
        of_process(scene.plan.sibling, |proc| read(proc.join("environ")))
    }),
    attempt("sibling-memory", "open another program's memory", NO_ENTRY, |scene| {
        of_process(scene.plan.sibling, |proc| open(proc.join("mem")))
    }),
    attempt("sibling-files", "list another program's descriptors", NO_ENTRY, |scene| {
        of_process(scene.plan.sibling, |proc| list(scene, proc.join("fd")))
    }),
    attempt("init-environment", "read the environment of pid 1", NO_ENTRY, |scene| {
        of_init(scene, || read("/proc/1/environ"))
    }),
    attempt("init-memory", "open the memory of pid 1", NO_ENTRY, |scene| {
        of_init(scene, || open("/proc/1/mem"))
    }),
    attempt("init-files", "follow the descriptors of pid 1", NO_ENTRY, |scene| {
        of_init(scene, follow_descriptors)
    }),
    attempt("init-root", "list the root of pid 1", NO_ENTRY, |scene| {
        of_init(scene, || list(scene, "/proc/1/root/"))
    }),
    attempt("kernel-memory", "open /proc/kcore", HIDDEN, |_| open("/proc/kcore")),
    attempt("kernel-messages", "open /dev/kmsg", HIDDEN, |_| open("/dev/kmsg")),
    attempt("machine-memory", "open /dev/mem", HIDDEN, |_| open("/dev/mem")),
    attempt("block-devices", "find a disk in /dev", Denial::Seen, |_| block_devices()),
    attempt("control-groups", "list /sys/fs/cgroup", HIDDEN, |scene| list(scene, "/sys/fs/cgroup")),
    attempt("kernel-debug", "list /sys/kernel/debug", HIDDEN, |scene| {
        list(scene, "/sys/kernel/debug")
    }),
];

fn read(path: impl AsRef<Path>) -> Outcome {
    let mut bytes = [0; 64];
    match File::open(path).and_then(|mut file| file.read(&mut bytes)) {
        Ok(0) => Outcome::Held("it is empty".to_owned()),
        Ok(count) => Outcome::Got(format!("read {count} bytes")),
        Err(error) => errno(&error),
    }
}

fn open(path: impl AsRef<Path>) -> Outcome {
    match File::open(path) {
        Ok(file) if is_null(&file) => Outcome::Held("the null device lies there".to_owned()),
        Ok(_) => Outcome::Got("it could be opened".to_owned()),
        Err(error) => errno(&error),
    }
}

/// Entries that do not lead to what the job was given: those folders are there, with nothing else
/// in them.
fn list(scene: &Scene, path: impl AsRef<Path>) -> Outcome {
    let plan = &scene.plan;
    let mut own = vec![plan.own_input.clone(), plan.output.clone(), plan.setuid_copy.clone()];
    own.extend(std::env::current_dir());
    own.extend(std::env::args_os().next().map(PathBuf::from));
    let is_foreign = |entry: &PathBuf| !own.iter().any(|one| one.starts_with(entry));
    match std::fs::read_dir(&path) {
        Ok(entries) => {
            let entries = entries.flatten().map(|entry| path.as_ref().join(entry.file_name()));
            match entries.filter(is_foreign).count() {
                0 => Outcome::Held("nothing foreign is in it".to_owned()),
                count => Outcome::Got(format!("{count} entries")),
            }
        }
        Err(error) => errno(&error),
    }
}

/// Descriptors of pid 1 that can be followed; their numbers tell nothing.
fn follow_descriptors() -> Outcome {
    let entries = match std::fs::read_dir("/proc/1/fd") {
        Ok(entries) => entries,
        Err(error) => return errno(&error),
    };
    let mut refused = 0;
    for entry in entries.flatten() {
        if std::fs::read_link(entry.path()).is_ok() || File::open(entry.path()).is_ok() {
            return Outcome::Got(format!("{} leads somewhere", entry.path().display()));
        }
        refused += 1;
    }
    Outcome::Held(format!("{refused} numbers, and none can be followed"))
}

/// Looks at the /proc entry of a victim: inside a pid namespace its number may be somebody
/// else's, who started at another time.
fn of_process(victim: Victim, look: impl FnOnce(PathBuf) -> Outcome) -> Outcome {
    match started(victim.pid) {
        Some(started) if started != victim.started => {
            Outcome::Held("its number is that of a process of our own".to_owned())
        }
        _ => look(PathBuf::from(format!("/proc/{}", victim.pid))),
    }
}

/// Does something to the job's own pid 1. The host's is not touched: to see it is bad enough.
pub(super) fn of_init(scene: &Scene, act: impl FnOnce() -> Outcome) -> Outcome {
    match started(1) {
        Some(started) if Some(started) == scene.plan.host_init_started => {
            Outcome::Got("pid 1 is the host's".to_owned())
        }
        _ => act(),
    }
}

/// When a process started, clock ticks since boot.
pub(in crate::selftest) fn started(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold spaces.
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn grandparent(pid: u32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    after.split_whitespace().nth(1).unwrap_or("1").to_owned()
}

fn block_devices() -> Outcome {
    let Ok(entries) = std::fs::read_dir("/dev") else {
        return Outcome::Held("/dev cannot be listed".to_owned());
    };
    for entry in entries.flatten() {
        let is_disk = entry.file_type().is_ok_and(|kind| kind.is_block_device());
        if is_disk && File::open(entry.path()).is_ok() {
            return Outcome::Got(format!("{} can be opened", entry.path().display()));
        }
    }
    Outcome::Held("there is none".to_owned())
}
