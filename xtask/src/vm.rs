//! The virtual machine: `cargo xtask vm` boots Debian with real systemd and control groups,
//! installs our package there, and runs the acceptance of the service, power cuts included.
//!
//! `image/` holds what builds the guest, `guest/` what runs in it, one script a subject. Nothing of
//! the host is changed: QEMU and the image lie in a cache folder, the guest has no network.

mod guest;
mod image;
mod machine;
mod power;
mod verdict;

use crate::place::Place;
use crate::{deb, programs};
use anyhow::{Context, Result, bail};
use guest::Guest;
use image::{Image, Suite};
use std::ffi::OsString;
use std::process::ExitCode;
pub(crate) use verdict::Verdict;

const CUTS_OF_ALL: u32 = 20;

/// What was asked for on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    suites: Vec<Suite>,
    cuts: u32,
    seed: Option<u64>,
    profile: deb::Profile,
    keep: bool,
    /// Figures are checked from below too: for a host that does nothing else.
    figures: bool,
}

impl Wish {
    /// Reads `[--suite SUITE] [--cuts N] [--seed S] [--all] [--debug] [--keep]`.
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Self> {
        let mut wish = Self { profile: deb::Profile::Release, figures: true, ..Self::short() };
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            let mut value = || {
                let value = rest.next().and_then(|value| value.to_str());
                value.with_context(|| format!("{} needs a value", word.to_string_lossy()))
            };
            match word.to_str() {
                Some("--suite") => wish.suites = vec![Suite::parse(value()?)?],
                Some("--cuts") => wish.cuts = value()?.parse().context("--cuts needs a number")?,
                Some("--seed") => {
                    wish.seed = Some(value()?.parse().context("--seed needs a number")?);
                }
                Some("--all") => {
                    wish.suites = vec![Suite::Trixie, Suite::Bookworm];
                    wish.cuts = CUTS_OF_ALL;
                }
                Some("--debug") => wish.profile = deb::Profile::Debug,
                Some("--keep") => wish.keep = true,
                _ => bail!(
                    "vm takes [--suite trixie|bookworm] [--cuts N] [--seed S] [--all] [--debug] \
                     [--keep], got {word:?}"
                ),
            }
        }
        Ok(wish)
    }

    /// The pass that belongs to the tests: one guest, one cut, programs that are built already.
    pub(crate) fn short() -> Self {
        Self {
            suites: vec![Suite::Trixie],
            cuts: 1,
            seed: None,
            profile: deb::Profile::Debug,
            keep: false,
            figures: false,
        }
    }
}

/// Runs it and prints the counts as its last line; the exit code is 1 when a check failed.
pub(crate) fn run(place: &Place, wish: &Wish) -> Result<ExitCode> {
    let verdict = match why_not() {
        Some(reason) => Verdict::nothing(&reason),
        None => {
            deb::build(place, wish.profile)?;
            acceptance(place, wish)?
        }
    };
    verdict.print();
    Ok(if verdict.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Why no virtual machine can run here, when that shows without trying.
pub(crate) fn why_not() -> Option<String> {
    if std::env::var("SHIFTBOSS_TEST_VM").is_ok_and(|value| value == "no") {
        return Some("SHIFTBOSS_TEST_VM=no".to_owned());
    }
    if !programs::is_root() {
        return Some("not root, and building a guest needs root".to_owned());
    }
    if !cfg!(target_arch = "x86_64") {
        return Some("the guest is made for x86-64 only".to_owned());
    }
    ["apt-get", "dpkg-deb", "mke2fs", "perl", "xz", "setpriv"]
        .iter()
        .find(|program| programs::find_program(program).is_none())
        .map(|program| format!("{program} is missing"))
}

/// All guests, one after the other, with programs that are built.
pub(crate) fn acceptance(place: &Place, wish: &Wish) -> Result<Verdict> {
    let package = |version: &str| {
        let version = Some(version.to_owned());
        let packing = deb::Packing::Quick;
        deb::package(place, &deb::Wish { version, profile: wish.profile, packing })
    };
    // Not the file that `cargo xtask deb` makes: that one stays as it is.
    let version = concat!(env!("CARGO_PKG_VERSION"), "+test");
    let older = package(version)?;
    let newer = package(concat!(env!("CARGO_PKG_VERSION"), "+test.next"))?;
    let sources = place.root.join("xtask/src/vm");
    let mut verdict = Verdict::default();
    let content = || std::fs::read(&older).with_context(|| format!("cannot read {older:?}"));
    let first = content()?;
    package(version)?;
    verdict.judge("package.reproducible", first == content()?);
    for &suite in &wish.suites {
        let image = match Image::find_or_build(&sources.join("image"), suite)? {
            Ok(image) => image,
            Err(reason) => {
                verdict.add(Verdict::nothing(&format!("{}: {reason}", suite.name())));
                continue;
            }
        };
        let guest = Guest {
            suite,
            image,
            scripts: sources.join("guest"),
            packages: [older.clone(), newer.clone()],
            folder: place.target.join("vm").join(suite.name()),
            figures: wish.figures,
        };
        verdict.add(guest.run(wish.cuts, wish.seed.unwrap_or_else(power::any_seed), wish.keep)?);
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_both_guests_and_twenty_cuts_and_single_words_change_it() {
        let parse =
            |words: &[&str]| Wish::parse(&words.iter().map(OsString::from).collect::<Vec<_>>());
        let all = parse(&["--all", "--cuts", "3", "--seed", "7"]).expect("all are known");
        assert_eq!(all.suites, [Suite::Trixie, Suite::Bookworm]);
        assert_eq!((all.cuts, all.seed), (3, Some(7)));
        assert_eq!(parse(&["--all"]).expect("known").cuts, CUTS_OF_ALL);
        assert!(parse(&["--suite", "sid"]).is_err());
        assert!(parse(&["--cuts"]).is_err());
        assert!(parse(&["--fast"]).is_err());
    }
}
