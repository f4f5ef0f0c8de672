//! Judges a run in which workers died, by the provider's journal alone: it does not know when
//! anybody was killed, or what the job table says.
//!
//! Whether a client has died is seen by its connections: no connection lasts from one life of it
//! to the next. What a client was told shortly before its death it may ask again, because nobody
//! can have made it durable; everything else must have been remembered.

use super::check::{Line, most_within, paid_twice};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the provider expects of its clients.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Requests of a class that it allows in every window.
    pub limits: Vec<(&'static str, usize)>,
    /// The window.
    pub window: Duration,
    /// An operation whose answer was lost can be found: by its key, or in a list. Else it may be
    /// left alone, for nobody knows that it is there.
    pub finds: bool,
    /// What a client was told so shortly before its death may be lost: it is about as long as
    /// its supervisor may be away, who makes it durable.
    pub unsettled: Duration,
}

/// What is wrong; empty is good.
#[must_use]
pub fn judge(journal: &[Line], rules: &Rules) -> Vec<String> {
    let mut wrong: Vec<_> =
        paid_twice(journal).iter().map(|tag| format!("{tag} was paid twice")).collect();
    for (class, count) in &rules.limits {
        let most = most_within(journal, &[class], rules.window);
        if most > *count {
            let window = rules.window;
            wrong.push(format!("{most} requests of class {class} in {window:?}, {count} allowed"));
        }
    }
    let lives = Lives::of(journal);
    for (op, lines) in by_op(journal) {
        let told: Vec<_> = lines.iter().map(|at| (&journal[*at], lives.of[*at])).collect();
        wrong.extend(judge_one(&told, &lives, rules).map(|what| format!("{op}: {what}")));
    }
    for line in journal.iter().filter(|line| line.kind == "unproved" || line.kind == "unknown") {
        wrong.push(format!("a request that is {}: {}", line.kind, line.all));
    }
    wrong
}

/// Tags of operations that ended, with their files where they have some.
#[must_use]
pub fn ended(journal: &[Line]) -> BTreeSet<String> {
    let is_over = |line: &&Line| line.is_whole() || (line.ended && !line.is_done());
    journal.iter().filter(is_over).map(|line| line.tag.clone()).collect()
}

fn by_op(journal: &[Line]) -> BTreeMap<&str, Vec<usize>> {
    let mut by_op: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, line) in journal.iter().enumerate().filter(|(_, line)| !line.op.is_empty()) {
        by_op.entry(&line.op).or_default().push(at);
    }
    by_op
}

/// The lives of the client.
struct Lives {
    /// Of each line, the life that it is from.
    of: Vec<usize>,
    /// When each was heard last.
    ends: Vec<Duration>,
}

impl Lives {
    fn of(journal: &[Line]) -> Self {
        let mut last: BTreeMap<u64, usize> = BTreeMap::new();
        for (at, line) in journal.iter().enumerate() {
            last.insert(line.connection, at);
        }
        let (mut of, mut ends, mut lasts_until) = (Vec::new(), Vec::new(), 0);
        for (at, line) in journal.iter().enumerate() {
            if at > lasts_until || at == 0 {
                ends.push(line.at);
            }
            lasts_until = lasts_until.max(last[&line.connection]);
            of.push(ends.len() - 1);
            if let Some(end) = ends.last_mut() {
                *end = line.at.max(*end);
            }
        }
        Self { of, ends }
    }

    /// Whether what was told at `at` in this life may have been lost with it.
    fn may_have_lost(&self, life: usize, at: Duration, rules: &Rules) -> bool {
        self.ends[life].saturating_sub(at) < rules.unsettled
    }
}

/// How far an operation is, as the client must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Runs,
    Done,
    Over,
}

/// What is wrong with one operation.
fn judge_one(lines: &[(&Line, usize)], lives: &Lives, rules: &Rules) -> Option<String> {
    let (first, mut life) = *lines.first()?;
    let (mut told, mut since, mut polled) = (Told::Runs, first.at, false);
    for (line, of) in lines {
        if *of != life && told == Told::Over && !lives.may_have_lost(life, since, rules) {
            let age = (lives.ends[life] - since).as_secs();
            return Some(format!("a {} after its end, {age} s old at a death", line.class));
        }
        if *of != life {
            (life, told) = (*of, Told::Runs);
        }
        match (told, line.class.as_str()) {
            (Told::Over, class) => return Some(format!("a {class} after its end")),
            (Told::Done, "poll") => return Some("a poll after it was done".to_owned()),
            (Told::Runs | Told::Done, "submit") if polled => {
                return Some("a submission after its id was known".to_owned());
            }
            (Told::Runs | Told::Done, _) => {}
        }
        polled |= line.class == "poll" && line.kind != "lookup";
        since = line.at;
        told = match told {
            _ if line.is_whole() => Told::Over,
            // Only another poll brings another link.
            _ if line.is_expired() => Told::Runs,
            _ if line.ended && line.is_done() => Told::Done,
            _ if line.ended => Told::Over,
            told => told,
        };
    }
    let is_alone = lines.iter().all(|(line, _)| line.class == "submit");
    let may_be_unknown = !rules.finds
        && is_alone
        && (first.all["lost"] == true || lives.may_have_lost(life, first.at, rules));
    (told != Told::Over && !may_be_unknown).then(|| format!("forgotten: {told:?} is all it knows"))
}

#[cfg(test)]
mod tests;
