//! The rows of a self-test: for people a table, for programs JSON.

use super::attempts::Attempt;
use super::hostile::{END, Line};
use super::verdict::{Outcome, Verdict, expectation, judge};
use serde::Serialize;
use std::collections::BTreeMap;

/// What came of one attempt in one type.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The job type whose program made it.
    #[serde(rename = "type")]
    pub job_type: String,
    /// Its name.
    pub attempt: &'static str,
    /// What it tried.
    pub tries: &'static str,
    /// What would be a denial.
    pub expected: &'static str,
    /// What happened.
    pub happened: String,
    /// The judgement.
    pub verdict: Verdict,
}

/// How many attempts ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Denied in the expected way.
    pub denied: usize,
    /// Got through.
    pub got_through: usize,
    /// Could not be made.
    pub not_tried: usize,
    /// Left out for a stated reason.
    pub skipped: usize,
}

/// Counts verdicts.
#[must_use]
pub fn count(rows: &[Row]) -> Counts {
    let of = |verdict: Verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    Counts {
        denied: of(Verdict::Denied),
        got_through: of(Verdict::GotThrough),
        not_tried: of(Verdict::NotTried),
        skipped: of(Verdict::Skipped),
    }
}

/// What the hostile program said, by attempt; and whether it came to its end.
pub(super) fn read_lines(text: &str) -> (BTreeMap<String, Outcome>, bool) {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let mut outcomes: BTreeMap<_, _> = lines.map(|line| (line.attempt, line.outcome)).collect();
    let is_whole = outcomes.remove(END).is_some();
    (outcomes, is_whole)
}

/// The rows of all attempts, with what the host saw outside. An attempt of which nothing was said
/// was not made.
pub(super) fn rows<'a>(
    job_type: &str,
    attempts: impl Iterator<Item = &'a Attempt>,
    said: &BTreeMap<String, Outcome>,
    proofs: &[(&'static str, String)],
    network_is_given: bool,
) -> Vec<Row> {
    let silence = Outcome::Unable("nothing was reported about it".to_owned());
    attempts
        .map(|attempt| {
            let outcome = said.get(attempt.name).unwrap_or(&silence);
            let proof = proofs.iter().find(|(name, _)| *name == attempt.name);
            let proof = proof.map(|(_, text)| text.as_str());
            let mut verdict = judge(attempt.denial, outcome, proof);
            let mut happened = match proof {
                Some(proof) => format!("{}; {proof}", outcome.text()),
                None => outcome.text(),
            };
            if attempt.network && network_is_given {
                verdict = Verdict::Skipped;
                happened = format!("the type is given the host's network ({happened})");
            }
            Row {
                job_type: job_type.to_owned(),
                attempt: attempt.name,
                tries: attempt.tries,
                expected: expectation(attempt.denial),
                happened,
                verdict,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::attempts;
    use super::*;

    #[test]
    fn what_was_not_reported_was_not_tried() {
        let (said, is_whole) =
            read_lines("not JSON\n{\"attempt\":\"su\",\"outcome\":{\"held\":\"x\"}}");
        assert!(!is_whole && said.len() == 1);
        let rows = rows("command", attempts::all(), &said, &[], false);
        let counts = count(&rows);
        assert_eq!(counts.denied, 1);
        assert_eq!(counts.not_tried, rows.len() - 1);
    }

    #[test]
    fn what_the_host_saw_outweighs_what_was_said() {
        let said = BTreeMap::from([("create-in-tmp".to_owned(), Outcome::Done(String::new()))]);
        let proofs = [("create-in-tmp", "a file is there".to_owned())];
        let of = |proofs: &[(&'static str, String)]| {
            let rows = rows("command", attempts::all(), &said, proofs, false);
            rows.iter().find(|row| row.attempt == "create-in-tmp").map(|row| row.verdict)
        };
        assert_eq!(of(&proofs), Some(Verdict::GotThrough));
        assert_eq!(of(&[]), Some(Verdict::Denied));
    }

    #[test]
    fn a_network_that_was_given_is_no_hole() {
        let said = BTreeMap::from([("udp-abroad".to_owned(), Outcome::Got(String::new()))]);
        let rows = rows("command", attempts::all(), &said, &[], true);
        let row = rows.iter().find(|row| row.attempt == "udp-abroad").expect("it is in the table");
        assert_eq!(row.verdict, Verdict::Skipped);
    }
}
