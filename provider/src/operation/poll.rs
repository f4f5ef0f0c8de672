//! Judges what a provider says of an operation that it has.

use super::{Answer, Call, Now, Operation, Step};
use crate::description::{Poll, Sign};
use serde_json::Value;

/// Answers in a row that the operation is not known before that is believed: some providers
/// answer so for a moment after they have accepted one.
const UNKNOWN_MAX: u32 = 5;

/// What a state means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// It waits or runs.
    Runs,
    /// It has succeeded.
    Done,
    /// It has failed.
    Failed,
    /// Somebody has stopped it.
    Cancelled,
}

impl Operation {
    pub(super) fn on_polled(&mut self, now: Now, answer: &Answer, out: &mut Vec<Step>) {
        let provider = std::sync::Arc::clone(&self.provider);
        let Some(poll) = &provider.poll else { return };
        self.polls = self.polls.saturating_add(1);
        let told = answer.told(&provider);
        let asked = answer.hint.pause.max(answer.hint.poll_after);
        let Some(body) = answer.body.as_ref().filter(|_| (200..300).contains(&answer.status))
        else {
            // Another 4xx would be answered the same way for ever; 401 and 403 are about the
            // credential, which a person can mend while the operation goes on.
            let is_unknown = matches!(answer.status, 400..=499)
                && !matches!(answer.status, 401 | 403 | 408 | 425 | 429);
            if is_unknown && self.troubles + 1 >= UNKNOWN_MAX {
                return self
                    .fail_for_good(format!("{} does not know it: {told}", provider.name), out);
            }
            return self.retry(now, Call::Poll, told, asked, out);
        };
        self.troubles = 0;
        self.last_error.clear();
        self.take(poll, body);
        match meaning(poll, body) {
            Meaning::Done => self.on_done(now, body, out),
            Meaning::Failed => {
                self.fail_for_good(format!("{} failed it: {told}", provider.name), out);
            }
            Meaning::Cancelled => {
                let text = format!("{} was told by somebody else to stop it", provider.name);
                self.fail_for_good(text, out);
            }
            Meaning::Runs => {
                if let Some(limit) = self.is_spent(now) {
                    let id = self.record.known.get("id").map_or("", String::as_str);
                    let word = &self.word;
                    let text = format!("given up after {limit}; operation {id} is still {word}");
                    return self.fail(text, out);
                }
                let delay = match answer.hint.poll_after {
                    Some(after) => after.max(self.delay(1)),
                    None => self.delay(self.polls),
                };
                self.wait(Call::Poll, now.at + delay, out);
            }
        }
    }

    fn take(&mut self, poll: &Poll, body: &Value) {
        for (name, pointer) in &poll.take {
            if let Some(text) = pointer.find_text(body) {
                self.record.known.insert(name.clone(), text);
            }
        }
        let word = poll.status.find_text(body).unwrap_or_else(|| "no state".to_owned());
        self.word = super::cut(&word, 60).to_owned();
        let number = poll.progress.as_ref().and_then(|pointer| pointer.find(body));
        if let Some(number) = number.and_then(Value::as_f64) {
            self.progress = Some((number / poll.progress_full).clamp(0.0, 1.0));
        }
    }

    fn on_done(&mut self, now: Now, body: &Value, out: &mut Vec<Step>) {
        if self.provider.result.fetch.is_some() {
            self.wait(Call::Fetch, now.at, out);
        } else {
            self.on_result(now, body, out);
        }
    }

    pub(super) fn on_fetched(&mut self, now: Now, answer: &Answer, out: &mut Vec<Step>) {
        let told = answer.told(&self.provider);
        match (&answer.body, answer.status) {
            (Some(body), 200..=299) => self.on_result(now, body, out),
            (_, 400..=499) if !matches!(answer.status, 401 | 403 | 408 | 425 | 429) => {
                self.fail_for_good(format!("{} has no result: {told}", self.provider.name), out);
            }
            _ => self.retry(now, Call::Fetch, told, answer.hint.pause, out),
        }
    }
}

fn meaning(poll: &Poll, body: &Value) -> Meaning {
    if poll.fail_if.iter().any(|sign: &Sign| sign.shows(body)) {
        return Meaning::Failed;
    }
    let Some(state) = poll.status.find(body) else { return Meaning::Runs };
    let is_in = |words: &[Value]| words.contains(state);
    if is_in(&poll.map.done) {
        Meaning::Done
    } else if is_in(&poll.map.failed) {
        Meaning::Failed
    } else if is_in(&poll.map.cancelled) {
        Meaning::Cancelled
    } else {
        Meaning::Runs
    }
}
