//! Judges a run by what is on disk: the database, the journals, the outputs. It knows nothing of
//! the code that was tried, only what README promises.

mod facts;
mod rules;
#[cfg(test)]
mod tests;

use super::journal::Journals;
use facts::Facts;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a run has left.
#[derive(Debug)]
pub struct Evidence {
    /// The job table.
    pub database: PathBuf,
    /// What programs and producers wrote down.
    pub journals: Journals,
    /// Folders in which nothing may be left.
    pub empty: Vec<PathBuf>,
    /// Processes of the run that still live.
    pub left: Vec<String>,
}

/// Everything that is wrong, in sentences.
#[must_use]
pub fn check(evidence: &Evidence) -> Vec<String> {
    let mut wrong: Vec<String> =
        evidence.left.iter().map(|one| format!("still lives: {one}")).collect();
    wrong.extend(rules::leftovers(&evidence.empty));
    match Facts::read(evidence) {
        Ok(facts) => wrong.extend(rules::ALL.iter().flat_map(|rule| rule(&facts))),
        Err(error) => wrong.push(error),
    }
    wrong
}

/// How much there was, for the report.
#[must_use]
pub fn count(evidence: &Evidence) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let Ok(facts) = Facts::read(evidence) else { return counts };
    let mut add = |what: String| *counts.entry(what).or_default() += 1;
    for promise in facts.promises.values() {
        add(format!("jobs acknowledged: {}", promise.kind));
    }
    for job in facts.jobs.values() {
        add(format!("jobs {}", job.state));
    }
    for attempt in facts.attempts.values().flatten() {
        add(format!("attempts {}", attempt.outcome.as_deref().unwrap_or("open")));
    }
    counts
}
