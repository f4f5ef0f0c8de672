//! Begins an operation: submits, adopts, or finds out whether a submission was accepted.

use super::{Answer, Call, Ending, Loss, Now, Operation, Resolution, Stage, Step, Stop};
use crate::description::{Dedupe, OnAmbiguous};
use crate::template::{Into, Pointer, Scope};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// The largest answer that is stored as it is, bytes; of a larger one its end is the result.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Under this name the answer of a provider that answers at once is kept.
const ANSWER: &str = "answer";

impl Operation {
    pub(super) fn begin(&mut self, now: Now, out: &mut Vec<Step>) {
        let age_ms = now.wall_ms.saturating_sub(self.record.since_ms);
        let was_sent = self.record.stage != Stage::New && self.record.since_ms > 0;
        let age = if was_sent { Duration::from_millis(age_ms) } else { Duration::ZERO };
        // A clock that has jumped makes an operation old, never from the future.
        self.began = now.at.saturating_sub(age);
        match (self.record.resolution.take(), self.record.stage) {
            (Some(Resolution::Adopt(id)), Stage::New | Stage::Submitting) => {
                self.adopt(now, id, out)
            }
            (Some(Resolution::Resubmit), Stage::Submitting) => {
                // Another operation than the one whose fate is unknown.
                self.record.key.push_str("-again");
                self.wait(Call::Submit, now.at, out);
            }
            (_, Stage::New) => self.wait(Call::Submit, now.at, out),
            (_, Stage::Submitting) => {
                self.settle(now, "the worker ended before the answer to its submission", out);
            }
            (_, Stage::Submitted) if self.provider.poll.is_none() => self.resume_answer(now, out),
            // At once: whoever submitted it may have waited since long before.
            (_, Stage::Submitted) => self.wait(Call::Poll, now.at, out),
        }
    }

    /// Takes over an operation that was submitted elsewhere.
    fn adopt(&mut self, now: Now, id: String, out: &mut Vec<Step>) {
        self.record.known.insert("id".to_owned(), id);
        let known = self.record.known.clone();
        let scope = Scope { input: &Value::Null, known: &known, secret: &|_| None };
        let provider = std::sync::Arc::clone(&self.provider);
        for (name, template) in &provider.submit.adopt {
            match template.text(scope, Into::Text) {
                Ok(text) => drop(self.record.known.insert(name.clone(), text)),
                Err(why) => return self.fail(format!("cannot adopt an operation: {why}"), out),
            }
        }
        if provider.poll.is_none() {
            let why = format!("{} answers at once: there is nothing to adopt", provider.name);
            return self.fail(why, out);
        }
        self.began = now.at;
        self.record.since_ms = now.wall_ms;
        self.record.stage = Stage::Submitted;
        self.store(Call::Poll, out);
    }

    pub(super) fn on_submitted(&mut self, now: Now, answer: &Answer, out: &mut Vec<Step>) {
        let provider = std::sync::Arc::clone(&self.provider);
        let submit = &provider.submit;
        let told = answer.told(&provider);
        if submit.ok.contains(&answer.status) {
            return match &answer.body {
                None => self.settle(now, &format!("its answer cannot be read: {told}"), out),
                Some(body) if submit.fail_if.iter().any(|sign| sign.shows(body)) => {
                    self.refused(format!("{} refused it: {told}", provider.name), out);
                }
                Some(body) => self.accepted(now, body, &submit.take, out),
            };
        }
        let is_denied = answer.status == 401 && provider.auth.is_renewed();
        let is_denied_first = is_denied && !std::mem::replace(&mut self.was_denied, is_denied);
        if is_denied_first || submit_may_be_repeated(&provider.errors.retry_submit, answer.status) {
            self.not_accepted(now, told, answer.hint.pause, out);
        } else if matches!(answer.status, 408 | 500..=599) {
            self.settle(now, &format!("it answered {told}"), out);
        } else {
            self.refused(format!("{} refused it: {told}", provider.name), out);
        }
    }

    pub(super) fn on_submit_lost(&mut self, now: Now, loss: Loss, out: &mut Vec<Step>) {
        if loss.is_final && !loss.may_have_arrived {
            self.refused(loss.why, out);
        } else if loss.may_have_arrived {
            self.settle(now, &format!("the answer was lost: {}", loss.why), out);
        } else {
            self.not_accepted(now, loss.why, None, out);
        }
    }

    /// The provider has it for certain not, and never will.
    fn refused(&mut self, why: String, out: &mut Vec<Step>) {
        self.record.stage = Stage::New;
        match self.stop {
            Some(Stop::Cancel) => self.finish(Ending::Cancelled, out),
            Some(Stop::Release) | None => self.fail(why, out),
        }
    }

    /// The provider has it for certain not: it is tried again.
    fn not_accepted(
        &mut self,
        now: Now,
        why: String,
        asked: Option<Duration>,
        out: &mut Vec<Step>,
    ) {
        self.record.stage = Stage::New;
        match self.stop {
            None => {
                // Durable too: else a crash while it waits would make this a question.
                out.push(Step::Store(Box::new(self.record.clone())));
                self.retry(now, Call::Submit, why, asked, out);
            }
            Some(stop) => {
                out.push(Step::Store(Box::new(self.record.clone())));
                self.finish(super::stopped(stop), out);
            }
        }
    }

    fn accepted(
        &mut self,
        now: Now,
        body: &Value,
        take: &BTreeMap<String, Pointer>,
        out: &mut Vec<Step>,
    ) {
        self.troubles = 0;
        self.last_error.clear();
        for (name, pointer) in take {
            if let Some(text) = pointer.find_text(body) {
                self.record.known.insert(name.clone(), text);
            }
        }
        if self.provider.poll.is_none() {
            self.on_answer_at_once(now, body, out);
        } else if self.record.known.get("id").is_some_and(|id| !id.is_empty()) {
            self.record.stage = Stage::Submitted;
            self.store(Call::Poll, out);
        } else {
            self.hold("it accepted the operation and named no id", out);
        }
    }

    /// The answer is the result, and was paid for: it is made durable like an id, if it can be.
    fn on_answer_at_once(&mut self, now: Now, body: &Value, out: &mut Vec<Step>) {
        let text = body.to_string();
        if text.len() > ANSWER_BYTES_MAX {
            return self.on_result(now, body, out);
        }
        self.record.known.insert(ANSWER.to_owned(), text);
        self.record.stage = Stage::Submitted;
        self.store(Call::Poll, out);
    }

    /// Goes on with an answer that an attempt has made durable.
    pub(super) fn resume_answer(&mut self, now: Now, out: &mut Vec<Step>) {
        let text = self.record.known.remove(ANSWER).unwrap_or_default();
        match serde_json::from_str(&text) {
            Ok(body) => self.on_result(now, &body, out),
            Err(_) => self.fail("the answer that was stored cannot be read".to_owned(), out),
        }
    }

    /// Whether the provider has it is unknown: asks the provider if it can be asked.
    pub(super) fn settle(&mut self, now: Now, why: &str, out: &mut Vec<Step>) {
        let provider = std::sync::Arc::clone(&self.provider);
        let submit = &provider.submit;
        self.last_error = super::cut(why, super::TEXT_BYTES_MAX).to_owned();
        if self.stop == Some(Stop::Release) {
            // The intent is durable: the next attempt settles it.
            self.finish(Ending::Released, out);
        } else if submit.lookup.is_some() {
            self.troubles += 1;
            let delay = self.delay(self.troubles);
            self.wait(Call::Lookup, now.at + delay, out);
        } else if self.stop == Some(Stop::Cancel) {
            self.hold(why, out);
        } else if submit.dedupe != Dedupe::None || submit.on_ambiguous == OnAmbiguous::Resubmit {
            self.retry(now, Call::Submit, why.to_owned(), None, out);
        } else {
            self.hold(why, out);
        }
    }

    pub(super) fn on_looked_up(&mut self, now: Now, answer: &Answer, out: &mut Vec<Step>) {
        let provider = std::sync::Arc::clone(&self.provider);
        let Some(lookup) = &provider.submit.lookup else { return };
        let Some(body) = answer.body.as_ref().filter(|_| answer.status == 200) else {
            let why = format!("cannot look for it: {}", answer.told(&provider));
            return match self.stop {
                Some(Stop::Release) => self.finish(Ending::Released, out),
                Some(Stop::Cancel) => self.hold(&why, out),
                None => self.retry(now, Call::Lookup, why, answer.hint.pause, out),
            };
        };
        let found = match lookup.items.find(body) {
            Some(Value::Array(items)) => items.iter().collect(),
            Some(one) => vec![one],
            None => Vec::new(),
        };
        let is_ours = |item: &&Value| lookup.key.find_text(item).as_ref() == Some(&self.record.key);
        match (found.into_iter().find(is_ours), self.stop) {
            (Some(item), _) => {
                let own = &lookup.take;
                let take = if own.is_empty() { &provider.submit.take } else { own };
                self.accepted(now, item, take, out);
            }
            (None, Some(Stop::Release)) => self.finish(Ending::Released, out),
            (None, Some(Stop::Cancel)) => self.finish(Ending::Cancelled, out),
            (None, None) if lookup.on_missing == OnAmbiguous::Resubmit => {
                self.not_accepted(now, "the provider does not know it".to_owned(), None, out);
            }
            (None, None) => self.hold("the answer was lost, and it does not list the key", out),
        }
    }
}

fn submit_may_be_repeated(statuses: &[u16], status: u16) -> bool {
    statuses.contains(&status)
}
