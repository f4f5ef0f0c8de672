//! What the guests' checks came to.

use super::image::Suite;

/// One line of a guest's results.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Passed(&'a str),
    Failed(&'a str),
    Skipped(&'a str),
    Note(&'a str),
    /// A job whose enqueueing was acknowledged.
    Acknowledged(u64),
    /// A job that was seen succeeded, and with which attempt.
    Done(u64, u64),
    /// None of these: damaged on its way.
    Garbled(&'a str),
}

impl<'a> Line<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        let garbled = || Self::Garbled(text);
        let Some((word, rest)) = text.split_once(' ') else { return garbled() };
        match word {
            "ok" => Self::Passed(rest),
            "FAIL" => Self::Failed(rest),
            "SKIP" => Self::Skipped(rest),
            "note" => Self::Note(rest),
            "ack" => rest.parse().map_or_else(|_| garbled(), Self::Acknowledged),
            "done" => {
                let mut numbers = rest.split(' ').map(str::parse);
                match (numbers.next(), numbers.next(), numbers.next()) {
                    (Some(Ok(job)), Some(Ok(attempt)), None) => Self::Done(job, attempt),
                    _ => garbled(),
                }
            }
            _ => garbled(),
        }
    }
}

/// Checks by how they ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) passed: usize,
    /// Guest, check and why.
    pub(crate) failed: Vec<String>,
    /// Check and why.
    pub(crate) skipped: Vec<String>,
}

impl Verdict {
    /// Nothing could be tried: counted as one that was skipped.
    pub(crate) fn nothing(reason: &str) -> Self {
        Self { skipped: vec![format!("vm: {reason}")], ..Self::default() }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }

    /// A check that needs no guest.
    pub(super) fn judge(&mut self, name: &str, holds: bool) {
        if holds {
            self.passed += 1;
        } else {
            self.failed.push(format!("vm: {name}"));
        }
        eprintln!("    {} {name}", if holds { "ok  " } else { "FAIL" });
    }

    pub(super) fn fail(&mut self, suite: Suite, what: &str) {
        self.failed.push(format!("vm: {} {what}", suite.name()));
    }

    /// Counts a line and shows it.
    pub(super) fn take(&mut self, suite: Suite, boot: u32, line: &Line<'_>) {
        let place = |text: &str| format!("vm: {} boot {boot}: {text}", suite.name());
        match line {
            Line::Passed(text) => {
                self.passed += 1;
                eprintln!("    ok   {text}");
            }
            Line::Failed(text) => {
                self.failed.push(place(text));
                eprintln!("    FAIL {text}");
            }
            Line::Skipped(text) => {
                self.skipped.push(place(text));
                eprintln!("    skip {text}");
            }
            Line::Note(text) => eprintln!("         {text}"),
            Line::Acknowledged(_) | Line::Done(..) => {}
            Line::Garbled(text) => {
                self.failed.push(place(&format!("not a result: {text}")));
                eprintln!("    FAIL not a result: {text}");
            }
        }
    }

    /// What failed and what was skipped, each with its reason.
    pub(crate) fn print_reasons(&self) {
        for (word, lines) in [("SKIPPED", &self.skipped), ("FAILED", &self.failed)] {
            for line in lines {
                println!("{word}: {line}");
            }
        }
    }

    pub(super) fn print(&self) {
        self.print_reasons();
        let (failed, skipped) = (self.failed.len(), self.skipped.len());
        println!("\n{} passed, {failed} failed, {skipped} skipped", self.passed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_guest_are_told_apart_and_half_ones_are_failures() {
        assert_eq!(Line::parse("ok crash.adopted"), Line::Passed("crash.adopted"));
        assert_eq!(Line::parse("FAIL a: is 1, wanted 2"), Line::Failed("a: is 1, wanted 2"));
        assert_eq!(Line::parse("ack 17"), Line::Acknowledged(17));
        assert_eq!(Line::parse("done 17 2"), Line::Done(17, 2));
        for text in ["ack", "ack x", "done 1", "done 1 2 3", "okay", ""] {
            assert_eq!(Line::parse(text), Line::Garbled(text));
        }
        let mut verdict = Verdict::default();
        verdict.take(Suite::Trixie, 0, &Line::parse("okay"));
        verdict.take(Suite::Trixie, 0, &Line::parse("ok start"));
        verdict.take(Suite::Trixie, 0, &Line::parse("SKIP limit: no controllers"));
        assert_eq!((verdict.passed, verdict.failed.len(), verdict.skipped.len()), (1, 1, 1));
    }
}
