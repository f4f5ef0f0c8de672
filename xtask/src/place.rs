//! Where things are: the repository, cargo, what cargo builds, what the demo leaves.

use crate::step;
use anyhow::{Context, Result};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository that this program was started from.
#[derive(Debug)]
pub(crate) struct Place {
    /// The folder of the workspace's Cargo.toml, absolute.
    pub(crate) root: PathBuf,
    /// Cargo's target directory, absolute; `CARGO_TARGET_DIR` and cargo's configuration count.
    pub(crate) target: PathBuf,
    cargo: OsString,
}

impl Place {
    /// Asks cargo. Fails when the program was not started by `cargo xtask`.
    pub(crate) fn find() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .context("cannot tell where the repository is: run this as cargo xtask")?;
        let root = Path::new(&manifest)
            .parent()
            .context("cannot tell where the repository is: xtask has no folder above it")?
            .to_path_buf();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut place = Self { target: root.join("target"), root, cargo };
        place.target = place.ask_target()?;
        Ok(place)
    }

    /// A cargo command that runs in the repository, whatever folder the person stands in.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = self.bare_cargo();
        // A relative path in the person's own variable would mean another folder from here.
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// A built program of the release profile.
    pub(crate) fn release(&self, program: &str) -> PathBuf {
        self.target.join("release").join(program)
    }

    fn ask_target(&self) -> Result<PathBuf> {
        let mut command = self.bare_cargo();
        command.args(["metadata", "--no-deps", "--format-version", "1", "--offline"]);
        command.arg("--manifest-path").arg(self.root.join("Cargo.toml"));
        let answer: Value = serde_json::from_slice(&step::output(&mut command)?)
            .context("cannot read the answer of cargo metadata")?;
        let target = answer["target_directory"]
            .as_str()
            .context("cannot find target_directory in the answer of cargo metadata")?;
        Ok(PathBuf::from(target))
    }

    fn bare_cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        // Set by `cargo run` for this package; a build script must not see them as its own.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        command
    }
}
