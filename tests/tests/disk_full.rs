//! A disk that is really full: what cannot be stored is refused or kept, and never told as done.

use nix::sys::signal::Signal;
use rusqlite::{Connection, ErrorCode};
use shiftboss_tests::{Stage, is_root, skip, wait_until};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A file system of four MiB; gone with this value.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).expect("the folder is ours");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "shiftboss-test"]).arg(&at);
        mount.status().is_ok_and(|status| status.success()).then_some(Self(at))
    }

    /// Leaves room for so many bytes.
    fn fill(&self, free: usize) {
        let mut file = File::create(self.0.join("ballast")).expect("it can be made");
        // The first write that brings an error has filled the disk.
        let mut bytes = 0;
        while let Ok(written @ 1..) = file.write(&[0; 4096]) {
            bytes += written;
        }
        let left = bytes.saturating_sub(free);
        file.set_len(left as u64).expect("it gets shorter");
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("ballast")).expect("it is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A stage whose database lies on a disk of its own, also found under its usual name.
struct Small {
    stage: Stage,
    disk: Disk,
    _work: tempfile::TempDir,
}

fn stage_on_a_small_disk(test: &str) -> Option<Small> {
    if !is_root() {
        skip(test, "only root may mount a small file system");
        return None;
    }
    let work = tempfile::tempdir().expect("a folder can be made");
    let types = "[types.command]\nmax_attempts = 1\nworkers = { max = 2 }";
    let mut stage = Stage::dark(&format!("work_dir = {:?}\n{types}", work.path()));
    let Some(disk) = Disk::mount(stage.path("disk")) else {
        skip(test, "this kernel or container does not let us mount a tmpfs");
        return None;
    };
    std::fs::write(disk.0.join("jobs.db"), "").expect("there is room");
    std::os::unix::fs::symlink(disk.0.join("jobs.db"), stage.path("jobs.db")).expect("linked");
    stage.start();
    Some(Small { stage, disk, _work: work })
}

#[test]
fn a_full_disk_refuses_new_jobs_keeps_outcomes_and_claims_nothing_before_it_is_stored() {
    let name = "a_full_disk_refuses_new_jobs_keeps_outcomes_and_claims_nothing";
    let Some(Small { mut stage, disk, _work }) = stage_on_a_small_disk(name) else { return };
    let (go, runs) = (stage.file("go"), stage.file("runs"));
    let (go_shown, runs_shown) = (go.display(), runs.display());
    // Its result is larger than what the log has room for.
    let result = "x".repeat(50_000);
    std::fs::write(stage.file("result"), format!("{{\"result\": {{\"text\": \"{result}\"}}}}\n"))
        .expect("the folder is ours");
    let script = format!(
        "echo run >> {runs_shown}; while [ ! -e {go_shown} ]; do sleep 0.02; done; cat {}",
        stage.file("result").display()
    );
    let mut payload = stage.script(&script);
    payload["progress"] = serde_json::json!({ "json_lines": true });
    let large = stage.insert("command", &payload.to_string());
    wait_until("the program runs", || runs.exists());
    disk.fill(8192);

    let text = serde_json::json!({ "argv": ["true"], "stdin": "y".repeat(150_000) }).to_string();
    std::fs::write(stage.path("payload"), &text).expect("the folder is ours");
    let payload = format!("@{}", stage.path("payload").display());
    let refused = stage.run(&["submit", "command", "--payload", &payload]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing was stored") && said.contains("full"), "{said}");
    let foreign = stage.database();
    let insert = "INSERT INTO jobs(type, payload) VALUES ('command', ?1)";
    let error = foreign.execute(insert, [&text]).expect_err("there is no room");
    assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DiskFull));

    std::fs::write(&go, "").expect("the folder is ours");
    wait_until("the disk is told", || stage.trouble().contains("full"));
    assert_eq!(stage.job(large).expect("it is there").state, "running");
    let small = insert_small(&foreign, &runs);
    let since = Instant::now();
    wait_until("it was tried again", || since.elapsed() > Duration::from_secs(3));
    let lines = std::fs::read_to_string(&runs).expect("one runs");
    assert_eq!(lines, "run\n", "nothing starts before its claim is stored");
    disk.empty();

    let row = stage.wait_for_state(large, "succeeded");
    assert_eq!(row.attempt, 1);
    assert!(row.result.is_some_and(|text| text.contains(&result)), "its result is whole");
    wait_until("the trouble is over", || stage.trouble().is_empty());
    let submitted = stage.run(&["submit", "command", "--payload", &payload]);
    assert!(submitted.status.success(), "{submitted:?}");
    if let Some(small) = small {
        stage.wait_for_state(small, "succeeded");
    }
    wait_until("all has ended", || stage.count("state <> 'succeeded'") == 0);
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.wait_for_end(), Some(0));
    drop(foreign);
    assert!(stage.run(&["db", "check"]).status.success());
    // The stage looks at its database once more: the disk goes last.
    drop(stage);
    drop(disk);
}

/// A small job that may still fit: while the large outcome waits, its claim must wait, too.
fn insert_small(foreign: &Connection, runs: &Path) -> Option<i64> {
    let script = format!("echo run >> {}", runs.display());
    let payload =
        serde_json::json!({ "argv": ["sh", "-c", script], "write": [runs.parent()] }).to_string();
    let insert = "INSERT INTO jobs(type, payload) VALUES ('command', ?1)";
    foreign.execute(insert, [payload]).ok().map(|_| foreign.last_insert_rowid())
}
