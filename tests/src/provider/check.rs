//! Judges a run by the provider's journal alone.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// One request.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// When it had arrived.
    pub at: Duration,
    /// `submit`, `again` (the same key), `poll`, `result`, `cancel`, `download`, `refused`,
    /// `unproved` or `unknown`.
    pub kind: String,
    /// The operation.
    pub op: String,
    /// The job's tag.
    pub tag: String,
    /// Under whose limit it is: `submit`, `poll`, `download`, `cancel` or `unknown`.
    pub class: String,
    /// The number of the connection that it came on.
    pub connection: u64,
    /// The answer said that the operation has ended.
    pub ended: bool,
    /// All of it.
    pub all: Value,
}

impl Line {
    /// Whether the state that was told is success.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.all["state"] == "done"
    }

    /// Whether a file was sent to its end.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.all["whole"] == true
    }

    /// Whether a link was refused for good.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.all["expired"] == true
    }
}

pub(super) fn read(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).expect("the simulator writes it");
    // The last line may be half written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| line_of(serde_json::from_str(line).expect("JSON"))).collect()
}

pub(super) fn line_of(all: Value) -> Line {
    let text = |name: &str| all[name].as_str().unwrap_or_default().to_owned();
    Line {
        at: Duration::from_micros(all["at_us"].as_u64().unwrap_or(0)),
        kind: text("kind"),
        op: text("op"),
        tag: text("tag"),
        class: text("class"),
        connection: all["connection"].as_u64().unwrap_or(0),
        ended: all["ended"] == true,
        all,
    }
}

/// Operations that were accepted more than once for the same tag.
#[must_use]
pub fn paid_twice(journal: &[Line]) -> Vec<String> {
    let mut accepted: BTreeMap<&str, u32> = BTreeMap::new();
    for line in journal.iter().filter(|line| line.kind == "submit") {
        *accepted.entry(&line.tag).or_default() += 1;
    }
    accepted.into_iter().filter(|(_, times)| *times > 1).map(|(tag, _)| tag.to_owned()).collect()
}

/// Polls of operations after the provider had said that they have ended. One more is allowed for
/// each file that was refused, and one that was under way when the process was killed.
#[must_use]
pub fn asked_after_the_end(journal: &[Line], spare: usize) -> Vec<String> {
    let mut late: BTreeMap<&str, usize> = BTreeMap::new();
    let mut ended: BTreeSet<&str> = BTreeSet::new();
    for line in journal.iter().filter(|line| line.kind == "poll") {
        if ended.contains(line.op.as_str()) {
            *late.entry(&line.op).or_default() += 1;
        }
        if line.ended {
            ended.insert(&line.op);
        }
    }
    late.into_iter().filter(|(_, times)| *times > spare).map(|(op, _)| op.to_owned()).collect()
}

/// Tags that were accepted and whose end was never told.
#[must_use]
pub fn forgotten(journal: &[Line]) -> Vec<String> {
    let ended: BTreeSet<&str> =
        journal.iter().filter(|line| line.ended).map(|line| line.tag.as_str()).collect();
    let accepted: BTreeSet<&str> =
        journal.iter().filter(|line| line.kind == "submit").map(|line| line.tag.as_str()).collect();
    accepted.difference(&ended).map(|tag| (*tag).to_owned()).collect()
}

/// The largest number of requests of these kinds or classes within any window of this length.
#[must_use]
pub fn most_within(journal: &[Line], kinds: &[&str], window: Duration) -> usize {
    let mut times: Vec<Duration> = journal
        .iter()
        .filter(|line| kinds.iter().any(|kind| line.kind == *kind || line.class == *kind))
        .map(|line| line.at)
        .collect();
    times.sort_unstable();
    let mut start = 0;
    let mut most = 0;
    for (end, at) in times.iter().enumerate() {
        while *at - times[start] >= window {
            start += 1;
        }
        most = most.max(end + 1 - start);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at_ms: u64, kind: &str, op: &str, ended: bool) -> Line {
        let (kind, op) = (kind.to_owned(), op.to_owned());
        let tag = format!("t-{op}");
        let at = Duration::from_millis(at_ms);
        Line { at, kind, op, tag, ended, ..Line::default() }
    }

    #[test]
    fn each_breach_is_seen() {
        let mut journal = vec![
            line(0, "submit", "1", false),
            line(100, "poll", "1", false),
            line(200, "poll", "1", true),
        ];
        assert!(paid_twice(&journal).is_empty() && forgotten(&journal).is_empty());
        assert!(asked_after_the_end(&journal, 0).is_empty());
        assert_eq!(most_within(&journal, &["poll"], Duration::from_millis(100)), 1);
        assert_eq!(most_within(&journal, &["poll"], Duration::from_millis(101)), 2);
        journal.push(line(300, "submit", "1", false));
        journal.push(line(400, "poll", "1", true));
        journal.push(line(500, "submit", "2", false));
        assert_eq!(paid_twice(&journal), ["t-1"]);
        assert_eq!(asked_after_the_end(&journal, 0), ["1"]);
        assert!(asked_after_the_end(&journal, 1).is_empty());
        assert_eq!(forgotten(&journal), ["t-2"]);
    }
}
