//! What dpkg is told about the package: its control file and its changelog.

use crate::place::Place;
use crate::step;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

const MAINTAINER: &str = "The Shiftboss contributors <shiftboss@shiftboss.invalid>";

/// Refuses what dpkg refuses: a version begins with a digit and has no blanks.
pub(super) fn check_version(version: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".+~".contains(c);
    if !version.starts_with(|c: char| c.is_ascii_digit()) || !version.chars().all(allowed) {
        bail!("version {version:?}: a digit first, then letters, digits, and . + ~");
    }
    Ok(())
}

/// The control file. `kib` is what the installed files take.
pub(super) fn control(version: &str, architecture: &str, glibc: &str, kib: u64) -> String {
    format!(
        "Package: shiftboss
Version: {version}
Architecture: {architecture}
Maintainer: {MAINTAINER}
Installed-Size: {kib}
Pre-Depends: init-system-helpers (>= 1.54~)
Depends: libc6 (>= {glibc}), libgcc-s1, systemd | systemd-standalone-sysusers | adduser
Recommends: ffmpeg
Section: admin
Priority: optional
Description: supervisor of heavy and untrusted background work off a job table
 Shiftboss runs heavy, long and untrusted background work: FFmpeg encodes, any
 command, workers of your own. Jobs are rows of a table in an SQLite database
 that other programs write too. One supervisor process claims them and runs
 them in worker processes that are watched, limited and restarted. What was
 accepted is not lost when a worker, the supervisor or the machine dies.
 .
 The service is installed, but neither enabled nor started.
"
    )
}

/// The newest version of glibc that a program asks for: its symbols name theirs, `GLIBC_2.34`.
pub(super) fn glibc_of(program: &[u8]) -> Option<(u32, u32)> {
    const MARK: &[u8] = b"GLIBC_";
    program
        .windows(MARK.len())
        .enumerate()
        .filter(|(_, window)| *window == MARK)
        .filter_map(|(at, _)| {
            let rest = &program[at + MARK.len()..];
            let end = rest.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
            let mut parts = std::str::from_utf8(&rest[..end]).ok()?.split('.');
            Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        })
        .max()
}

/// CHANGELOG.md in Debian's form, as a native package has it.
pub(super) fn changelog(place: &Place, version: &str, time: u64) -> Result<String> {
    let path = place.root.join("CHANGELOG.md");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let date = step::output(
        Command::new("date").args(["--utc", "--rfc-email"]).arg(format!("--date=@{time}")),
    )?;
    let date = String::from_utf8_lossy(&date).trim().to_owned();
    Ok(format!(
        "shiftboss ({version}) unstable; urgency=medium\n\n{}\n -- {MAINTAINER}  {date}\n",
        changes(&text)
    ))
}

/// The points of the newest section, each `  * ...`, wrapped as they were.
fn changes(markdown: &str) -> String {
    let mut changes = String::new();
    let section = markdown.lines().skip_while(|line| !line.starts_with("## ")).skip(1);
    for line in section.take_while(|line| !line.starts_with("## ")) {
        let (mark, text) = match line.strip_prefix("- ") {
            Some(text) => ("  * ", text),
            None => ("    ", line.trim()),
        };
        if text.is_empty() {
            continue;
        }
        // Debian's form has lines of 80; ours of 100 are broken once.
        let mut rest = text;
        let mut indent = mark;
        while rest.len() > 76 {
            let Some(at) = rest[..floor(rest, 76)].rfind(' ') else { break };
            changes.push_str(&format!("{indent}{}\n", &rest[..at]));
            (rest, indent) = (&rest[at + 1..], "    ");
        }
        changes.push_str(&format!("{indent}{rest}\n"));
    }
    changes
}

/// The last place up to `at` where the text may be cut.
fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|&place| text.is_char_boundary(place)).unwrap_or(0)
}

/// The two licences in Debian's machine-readable form; MIT's text is the repository's own.
pub(super) fn copyright(root: &Path) -> Result<String> {
    let path = root.join("LICENSE-MIT");
    let mit = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let holder = mit
        .lines()
        .find_map(|line| line.strip_prefix("Copyright (c) "))
        .with_context(|| format!("no line of {} names a copyright", path.display()))?;
    let body = mit.lines().skip_while(|line| !line.starts_with("Permission"));
    let body: Vec<String> =
        body.map(|line| format!(" {}", if line.is_empty() { "." } else { line })).collect();
    Ok(format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: shiftboss

Files: *
Copyright: {holder}
License: Expat or Apache-2.0

License: Expat
{}

License: Apache-2.0
 On Debian systems the text of this licence is in
 /usr/share/common-licenses/Apache-2.0.
",
        body.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_that_a_program_names_is_found() {
        let program = b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_PRIVATE\0GLIBC_2.4\0GLIBC_2.3.4\0";
        assert_eq!(glibc_of(program), Some((2, 34)));
        assert_eq!(glibc_of(b"static"), None);
    }

    #[test]
    fn the_newest_section_becomes_debians_points() {
        let markdown =
            "# Changelog\n\n## Unreleased\n\n- One\n  more.\n- Two.\n\n## 0.0.1\n\n- Old.";
        assert_eq!(changes(markdown), "  * One\n    more.\n  * Two.\n");
    }

    #[test]
    fn a_long_line_of_the_changelog_is_broken_between_words() {
        let long = format!("## X\n- {}", "word ".repeat(30).trim_end());
        assert!(changes(&long).lines().all(|line| line.len() <= 80), "{}", changes(&long));
    }
}
