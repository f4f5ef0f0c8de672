//! A stage for scenarios with real processes: a supervisor on a database of its own in a
//! folder of its own. Scenarios wait for conditions, never for times.

pub mod chaos;
mod control;
mod disk;
pub mod groups;
mod processes;
pub mod provider;
pub mod simulation;
mod stage;
mod strace;

pub use control::Control;
pub use disk::Disk;
pub use processes::{children, output_of, spawn_quiet};
pub use stage::{Attempt, Job, Stage};
pub use strace::Strace;

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a condition may take: these machines are shared and slow at times.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `condition` gives something.
///
/// # Panics
/// When it does not within a minute; the message names `what`.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// As [`wait_for`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Tells that a test cannot run here, and why; the runner counts these.
pub fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED: {test}: {reason}\n");
    if let Some(file) = std::env::var_os("SHIFTBOSS_TEST_SKIPS")
        && let Ok(mut file) = std::fs::File::options().append(true).create(true).open(file)
    {
        let _ = file.write_all(line.as_bytes());
    }
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// True in debug builds, whose supervisor dies where it is told to; else it skips.
#[must_use]
pub fn has_failpoints(test: &str) -> bool {
    if !cfg!(debug_assertions) {
        skip(test, "a release build has no places at which it dies when told to");
    }
    cfg!(debug_assertions)
}

/// True when the program can be started.
#[must_use]
pub fn has_program(name: &str) -> bool {
    let mut command = Command::new(name);
    let version = if name.starts_with("ff") { "-version" } else { "--version" };
    command.arg(version).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}

/// True when we are root: /proc/self belongs to the effective user.
#[must_use]
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A program that cargo built: beside the folder of this test's own program.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test has a program");
    let own = own.parent().expect("a program lies in a folder");
    // Tests lie in deps/, the benchmark beside the other programs.
    let folder = if own.ends_with("deps") { own.parent().unwrap_or(own) } else { own };
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} was not built: run `cargo xtask test`, or `cargo build --workspace --bins` first",
        path.display()
    );
    path
}
