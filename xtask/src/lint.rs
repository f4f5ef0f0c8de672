//! What is checked without running anything: format, clippy, dependencies.

use crate::place::Place;
use crate::step;
use anyhow::Result;

/// The version that is installed where none is: newer ones may judge differently.
const DENY_VERSION: &str = "0.20.2";

/// Runs all checks; the first that fails ends it.
pub(crate) fn run(place: &Place) -> Result<()> {
    step::run("check the format", place.cargo().args(["fmt", "--all", "--check"]))?;
    step::run(
        "run clippy",
        place
            .cargo()
            .args(["clippy", "--workspace", "--all-targets", "--locked"])
            .args(["--", "--deny", "warnings"]),
    )?;
    if !step::succeeds(place.cargo().args(["deny", "--version"])) {
        step::run(
            "install cargo-deny (some minutes, once)",
            place.cargo().args(["install", "--locked", "cargo-deny", "--version", DENY_VERSION]),
        )?;
    }
    // Licences are read from the sources of all targets' packages, not only this machine's.
    step::run("fetch all dependencies", place.cargo().args(["fetch", "--locked"]))?;
    step::run(
        "check the dependencies",
        place
            .cargo()
            .args(["deny", "--offline", "--log-level", "error"])
            .args(["check", "bans", "licenses", "sources"]),
    )
}
