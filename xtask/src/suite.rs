//! All tests: build every program, run them, close with the counts.
//!
//! cargo does not build another package's programs for a tests crate, so they are built first.
//! nextest hides what a passing test prints, so a test that cannot run appends its line
//! `SKIPPED: <test>: <reason>` to the file named by `SHIFTBOSS_TEST_SKIPS`; the lines are shown and
//! counted as skipped. One pass of the virtual machine's checks comes last.

use crate::place::Place;
use crate::{programs, step, vm};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};

const SKIPS: &str = "SHIFTBOSS_TEST_SKIPS";

/// How many tests ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// Runs the tests that `filter` lets through, all when it is empty. The exit code is the test
/// runner's own.
pub(crate) fn run(place: &Place, filter: &[OsString]) -> Result<ExitCode> {
    programs::install_missing(programs::FOR_TESTS)?;
    build(place)?;
    let skips = place.target.join("test-skips.txt");
    std::fs::write(&skips, "").with_context(|| format!("cannot empty {}", skips.display()))?;

    let mut counts = Counts::default();
    let mut status = None;
    if has_nextest(place) {
        if filter.is_empty() {
            // nextest runs no examples of the documentation.
            let ended = run_libtest(place, &["--doc".into()], &skips, &mut counts)?;
            status = status.or((!ended.success()).then_some(ended));
        }
        let ended = run_nextest(place, filter, &skips, &mut counts)?;
        status = status.or((!ended.success()).then_some(ended));
    } else {
        step::say("cargo-nextest is not installed: falling back to cargo test");
        let ended = run_libtest(place, filter, &skips, &mut counts)?;
        status = (!ended.success()).then_some(ended);
    }

    let text = std::fs::read_to_string(&skips)
        .with_context(|| format!("cannot read {}", skips.display()))?;
    // Who names tests means those.
    let guest = if filter.is_empty() { in_guest(place) } else { vm::Verdict::default() };
    let guest_failed = !guest.failed.is_empty();
    close(counts, &text, &guest);
    Ok(match status {
        None if guest_failed => ExitCode::FAILURE,
        None => ExitCode::SUCCESS,
        Some(status) => match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(code) if code != 0 => ExitCode::from(code),
            // Ended by a signal: there is no code to pass on.
            _ => ExitCode::FAILURE,
        },
    })
}

/// Programs and tests in one go: asked for apart, they would resolve features apart and compile
/// part of the tree twice.
fn build(place: &Place) -> Result<()> {
    let mut command = place.cargo();
    command.args(["build", "--workspace", "--bins", "--tests", "--locked"]);
    step::run("build all programs and tests", &mut command)
}

fn has_nextest(place: &Place) -> bool {
    step::succeeds(place.cargo().args(["nextest", "--version"]))
}

fn run_nextest(
    place: &Place,
    filter: &[OsString],
    skips: &Path,
    counts: &mut Counts,
) -> Result<ExitStatus> {
    // nextest's own store is in the workspace, whatever `CARGO_TARGET_DIR` says. A run that ends
    // before its first test writes no report: an old one must not speak for it.
    let report = place.root.join("target/nextest/default/junit.xml");
    if report.exists() {
        std::fs::remove_file(&report)
            .with_context(|| format!("cannot remove {}", report.display()))?;
    }
    let mut command = place.cargo();
    command.args(["nextest", "run", "--workspace", "--locked"]).args(filter).env(SKIPS, skips);
    let status = step::run_to_end("run the tests", &mut command)?;
    match std::fs::read_to_string(&report) {
        Ok(text) => counts.add(
            counts_of_report(&text)
                .with_context(|| format!("cannot find the counts in {}", report.display()))?,
        ),
        Err(error) if status.success() => {
            return Err(error).context(format!("cannot read {}", report.display()));
        }
        // It ended before any test, and has said why.
        Err(_) => {}
    }
    Ok(status)
}

/// `cargo test`, its output shown as it comes and read for its counts.
fn run_libtest(
    place: &Place,
    arguments: &[OsString],
    skips: &Path,
    counts: &mut Counts,
) -> Result<ExitStatus> {
    step::say("run cargo test");
    let mut child = place
        .cargo()
        .args(["test", "--workspace", "--no-fail-fast", "--locked"])
        .args(arguments)
        .env(SKIPS, skips)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let stdout = child.stdout.take().expect("standard output was asked for as a pipe");
    let mut own = std::io::stdout();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read what cargo test prints")?;
        own.write_all(&line).and_then(|()| own.write_all(b"\n")).context("cannot print")?;
        if let Some(found) = counts_of_line(&String::from_utf8_lossy(&line)) {
            counts.add(found);
        }
    }
    child.wait().context("cannot wait for cargo test")
}

/// The short pass in a virtual machine, with the programs that the tests have built. Machinery
/// that breaks is a failure like any other; where none can run, that is one skipped test.
fn in_guest(place: &Place) -> vm::Verdict {
    if let Some(reason) = vm::why_not() {
        return vm::Verdict::nothing(&reason);
    }
    vm::acceptance(place, &vm::Wish::short()).unwrap_or_else(|error| vm::Verdict {
        failed: vec![format!("vm: {error:#}")],
        ..vm::Verdict::default()
    })
}

/// Prints the skipped tests and the closing line, which must be the last line of all.
fn close(mut counts: Counts, skips: &str, guest: &vm::Verdict) {
    let lines: Vec<&str> = skips.lines().filter(|line| !line.trim().is_empty()).collect();
    if !lines.is_empty() {
        println!("\nTests that could not run here:");
        for line in &lines {
            println!("{line}");
        }
    }
    counts.move_skipped(&lines);
    guest.print_reasons();
    counts.add(Counts {
        passed: guest.passed,
        failed: guest.failed.len(),
        skipped: guest.skipped.len(),
    });
    println!("\n{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// The runner took these tests for passed ones. A test may give several reasons: it is one.
    fn move_skipped(&mut self, lines: &[&str]) {
        let tests: BTreeSet<&str> = lines
            .iter()
            .map(|line| {
                let rest = line.trim_start().strip_prefix("SKIPPED:").unwrap_or(line).trim_start();
                rest.split_once(": ").map_or(rest, |(test, _)| test)
            })
            .collect();
        let moved = tests.len().min(self.passed);
        self.passed -= moved;
        self.skipped += moved;
    }
}

/// The counts in the root element of a JUnit report: `<testsuites ... tests="7" failures="1"
/// errors="0">`.
fn counts_of_report(xml: &str) -> Option<Counts> {
    let start = xml.find("<testsuites")?;
    let element = xml[start..].split('>').next()?;
    let number = |name: &str| -> Option<usize> {
        let (_, rest) = element.split_once(&format!(" {name}=\""))?;
        rest.split('"').next()?.parse().ok()
    };
    let failed = number("failures")? + number("errors")?;
    Some(Counts { passed: number("tests")?.checked_sub(failed)?, failed, skipped: 0 })
}

/// The counts in a closing line of libtest: `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
fn counts_of_line(line: &str) -> Option<Counts> {
    let (_, rest) = line.trim().strip_prefix("test result:")?.split_once(". ")?;
    let number = |word: &str| -> Option<usize> {
        rest.split(';').find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    Some(Counts {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number("ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_nextest_gives_passed_and_failed() {
        let xml = "<?xml version=\"1.0\"?>\n<testsuites name=\"nextest-run\" tests=\"7\" \
                   failures=\"1\" errors=\"2\" uuid=\"x\">\n<testsuite name=\"a\" tests=\"99\"/>";
        let expected = Counts { passed: 4, failed: 3, skipped: 0 };
        assert_eq!(counts_of_report(xml), Some(expected));
        assert_eq!(counts_of_report("<testsuites name=\"cut"), None);
    }

    #[test]
    fn the_closing_line_of_libtest_gives_all_three_counts() {
        let line = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 9 filtered out";
        let expected = Counts { passed: 3, failed: 1, skipped: 2 };
        assert_eq!(counts_of_line(line), Some(expected));
        assert_eq!(counts_of_line("test a_b ... ok"), None);
    }

    #[test]
    fn a_test_that_could_not_run_counts_as_skipped_once_and_not_as_passed() {
        let mut counts = Counts { passed: 5, failed: 0, skipped: 0 };
        counts.move_skipped(&[
            "SKIPPED: limits::memory: no cgroup controllers",
            "SKIPPED: limits::memory: not root",
            "SKIPPED: escape::mount: no user namespaces",
        ]);
        assert_eq!(counts, Counts { passed: 3, failed: 0, skipped: 2 });
    }
}
