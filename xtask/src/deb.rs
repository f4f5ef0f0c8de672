//! The Debian package: `cargo xtask deb` makes `target/debian/shiftboss_<version>_<arch>.deb`.
//!
//! Needs dpkg-deb and nothing of debhelper. The same sources, toolchain and folders give the same
//! bytes: every time in the package is that of the last commit (or `SOURCE_DATE_EPOCH`).

mod control;
mod tree;

use crate::place::Place;
use crate::step;
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// The two programs that are installed, side by side: the supervisor looks for the worker there.
const PROGRAMS: [&str; 2] = ["shiftboss", "shiftboss-worker"];

/// What was asked for on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Another version than that of the workspace, for tests of upgrades.
    pub(crate) version: Option<String>,
    pub(crate) profile: Profile,
    pub(crate) packing: Packing,
}

/// How hard dpkg-deb tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Packing {
    #[default]
    Small,
    /// For tests, which unpack it once.
    Quick,
}

/// Which of cargo's profiles the programs are built with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Profile {
    #[default]
    Release,
    /// For tests: what a test run has built already.
    Debug,
}

impl Wish {
    /// Reads `[--version VERSION] [--debug]`.
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Self> {
        let mut wish = Self::default();
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            match word.to_str() {
                Some("--debug") => wish.profile = Profile::Debug,
                Some("--version") => {
                    let version = rest.next().and_then(|version| version.to_str());
                    let version = version.context("--version needs a version")?;
                    control::check_version(version)?;
                    wish.version = Some(version.to_owned());
                }
                _ => bail!("deb takes [--version VERSION] [--debug], got {word:?}"),
            }
        }
        Ok(wish)
    }
}

/// Builds the programs and the package.
pub(crate) fn run(place: &Place, wish: &Wish) -> Result<()> {
    if !step::succeeds(Command::new("dpkg-deb").arg("--version")) {
        bail!("dpkg-deb is missing: packages are made on Debian and what is derived from it");
    }
    build(place, wish.profile)?;
    package(place, wish).map(drop)
}

/// Builds the programs.
pub(crate) fn build(place: &Place, profile: Profile) -> Result<()> {
    let mut cargo = place.cargo();
    cargo.args(["build", "--locked", "--package", "shiftboss", "--package", "shiftboss-worker"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    step::run("build the programs of the package", &mut cargo)
}

/// Packs programs that are built; returns where the package lies.
pub(crate) fn package(place: &Place, wish: &Wish) -> Result<PathBuf> {
    let version = wish.version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    let folder = place.target.join("debian");
    let root = folder.join("root");
    if root.exists() {
        std::fs::remove_dir_all(&root)
            .with_context(|| format!("cannot empty {}", root.display()))?;
    }
    let time = commit_time(place)?;
    let architecture = step::output(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = String::from_utf8_lossy(&architecture).trim().to_owned();

    let tree = tree::Tree::new(&root, place, wish.profile);
    tree.fill(&control::changelog(place, &version, time)?)?;
    tree.describe(&version, &architecture)?;

    let file = folder.join(format!("shiftboss_{version}_{architecture}.deb"));
    let mut pack = Command::new("dpkg-deb");
    pack.args(match wish.packing {
        Packing::Small => ["-Zxz", "-z6"],
        Packing::Quick => ["-Zgzip", "-z1"],
    });
    pack.args(["--root-owner-group", "--build"]).arg(&root).arg(&file);
    step::run(&format!("pack version {version}"), pack.env("SOURCE_DATE_EPOCH", time.to_string()))?;
    eprintln!("    {}", file.display());
    Ok(file)
}

/// Seconds since 1970: `SOURCE_DATE_EPOCH`, else the last commit's.
fn commit_time(place: &Place) -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            let mut git = Command::new("git");
            git.arg("-C").arg(&place.root).args(["log", "-1", "--format=%ct"]);
            let time = step::output(&mut git).context(
                "cannot tell the time of the last commit: without git, set SOURCE_DATE_EPOCH",
            )?;
            String::from_utf8_lossy(&time).into_owned()
        }
    };
    text.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH = {text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_dpkg_would_refuse_is_refused_before_anything_is_built() {
        let parse =
            |words: &[&str]| Wish::parse(&words.iter().map(OsString::from).collect::<Vec<_>>());
        let wish = parse(&["--debug", "--version", "0.1.0+next"]).expect("both are known");
        assert_eq!(wish.profile, Profile::Debug);
        assert_eq!(wish.version.as_deref(), Some("0.1.0+next"));
        assert!(parse(&["--version", "next"]).is_err());
        assert!(parse(&["--version", "1.0 beta"]).is_err());
        assert!(parse(&["--version"]).is_err());
        assert!(parse(&["--fast"]).is_err());
    }
}
