//! The folders of a run: made before it, and looked into after it.

use super::journal::Journals;
use super::mix::{Film, Props};
use crate::{Disk, Stage, built, has_program, skip};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Puts database and scratch on a small file system of their own, where that can be mounted.
pub(super) fn mount_disk(stage: &Stage, is_root: bool, mib: u32) -> Option<Disk> {
    let folder = stage.path("disk");
    std::fs::create_dir(&folder).expect("the folder is ours");
    let test = "chaos with a full disk";
    let disk = if is_root {
        Disk::mount(test, &folder, mib)
    } else {
        skip(test, "only root may mount a small file system");
        None
    };
    std::fs::write(folder.join("jobs.db"), "").expect("there is room");
    std::os::unix::fs::symlink(folder.join("jobs.db"), stage.path("jobs.db")).expect("linked");
    stage.reconfigure("[poll]", &format!("work_dir = {:?}\n[poll]", work(stage)));
    disk
}

fn work(stage: &Stage) -> PathBuf {
    stage.path("disk").join("work")
}

/// Journals, outputs and films: never on the small file system.
pub(super) fn props(stage: &Stage) -> Props {
    let (journals, outputs) = (stage.path("journals"), stage.path("out"));
    std::fs::create_dir_all(journals.join("locks")).expect("the folder is ours");
    std::fs::create_dir(&outputs).expect("the folder is ours");
    let films = has_program("ffmpeg") && has_program("ffprobe");
    let films = films.then(|| [film(stage, "short.mp4", 2), film(stage, "long.mp4", 12)]);
    Props { program: built("journal-job"), journals: Journals::at(&journals), outputs, films }
}

fn film(stage: &Stage, name: &str, seconds: u64) -> Film {
    let path = stage.path(name);
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-f", "lavfi", "-i"]);
    command.arg(format!("testsrc2=size=256x144:rate=10:duration={seconds}"));
    command.args(["-f", "lavfi", "-i", &format!("sine=duration={seconds}")]);
    command.args(["-pix_fmt", "yuv420p", "-preset", "ultrafast"]).arg(&path);
    let status = command.stdin(Stdio::null()).status().expect("ffmpeg can be started");
    assert!(status.success(), "{command:?}");
    Film { path, frames: seconds * 10 }
}

/// How many jobs have not ended; `None` where the table cannot be read.
pub(super) fn unfinished(stage: &Stage) -> Option<i64> {
    let sql = "SELECT count(*) FROM jobs WHERE finished_at IS NULL";
    stage.database().query_row(sql, [], |row| row.get(0)).ok()
}

/// Whether what supervisors remove a while after a job's end is gone.
pub(super) fn is_clean(stage: &Stage) -> bool {
    temporary(stage)
        .iter()
        .all(|folder| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none()))
}

/// Each has a folder per type.
fn temporary(stage: &Stage) -> Vec<PathBuf> {
    let bases = ["scratch", "outcomes"].map(|name| work(stage).join(name));
    let of_types = bases.iter().flat_map(|base| std::fs::read_dir(base).into_iter().flatten());
    of_types.flatten().map(|entry| entry.path()).collect()
}

/// Folders in which nothing may be left.
pub(super) fn empty_in_the_end(stage: &Stage, names: &[String]) -> Vec<PathBuf> {
    let of_instance = |name: &String| {
        let folder = stage.path("run").join(name);
        [folder.join("records"), folder.join("w")]
    };
    temporary(stage).into_iter().chain(names.iter().flat_map(of_instance)).collect()
}

/// Lines of the supervisors' logs that tell of a panic.
pub(super) fn panics(stage: &Stage, names: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for name in names {
        let bytes = std::fs::read(stage.path(&format!("log-{name}"))).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        found.extend(text.lines().filter(|line| line.contains("panicked")).map(str::to_owned));
    }
    found
}

/// Copies all that is needed to find out what went wrong.
pub(super) fn keep(stage: &Stage) -> PathBuf {
    let place = std::env::temp_dir().join(format!("shiftboss-chaos-{}", std::process::id()));
    let copy = |from: &Path| {
        let mut command = Command::new("cp");
        command.arg("-a").arg(from).arg(&place).stderr(Stdio::null()).status()
    };
    let _ = copy(&stage.path(""));
    place
}
