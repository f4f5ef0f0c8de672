//! Control groups that supervisors of tests made: found by their names, emptied and removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What the names of their groups start with; 16 hexadecimal digits follow.
const PREFIX: &str = "shiftboss-";

/// The group in which supervisors that we start make theirs; `None` where none can be made.
#[must_use]
pub fn parent() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    })?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let parent = mount.join(own.trim_start_matches('/'));
    let trial = parent.join(format!("shiftboss-tests-{}", std::process::id()));
    fs::create_dir(&trial).and_then(|()| fs::remove_dir(&trial)).ok()?;
    Some(parent)
}

/// The groups whose names stand in a text, such as a supervisor's log.
#[must_use]
pub fn named_in(text: &str) -> Vec<PathBuf> {
    let Some(parent) = parent() else { return Vec::new() };
    let digits = |rest: &str| {
        let mark = rest.get(..16)?;
        mark.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| format!("{PREFIX}{mark}"))
    };
    let mut names: Vec<_> = text.split(PREFIX).skip(1).filter_map(digits).collect();
    names.sort();
    names.dedup();
    names.into_iter().map(|name| parent.join(name)).filter(|dir| dir.is_dir()).collect()
}

/// Kills everything in a group and removes it with all below it.
pub fn remove(dir: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while dir.is_dir() && Instant::now() < deadline {
        let _ = fs::write(dir.join("cgroup.kill"), "1");
        for group in below(dir).iter().rev() {
            let _ = fs::remove_dir(group);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes in a group and below it.
#[must_use]
pub fn processes(dir: &Path) -> Vec<i32> {
    let lists = below(dir).into_iter().map(|group| fs::read_to_string(group.join("cgroup.procs")));
    lists.flatten().flat_map(|list| list.lines().flat_map(str::parse).collect::<Vec<_>>()).collect()
}

/// A group and all below it, parents first.
#[must_use]
pub fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut at = 0;
    while let Some(group) = found.get(at).cloned() {
        let entries = fs::read_dir(&group).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        found.extend(folders.map(|entry| entry.path()));
        at += 1;
    }
    found
}
