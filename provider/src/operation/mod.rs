//! One operation at a provider: what has happened to it in, what to do next out.
//!
//! Paying once is here: nothing is sent before the intent is durable, nothing is done with an id
//! before it is durable, and a submission whose fate is unknown is settled by the provider's own
//! means or by a person. The phases are [`Phase`]; `submit.rs`, `poll.rs` and `files.rs` judge.

mod files;
mod poll;
mod record;
mod submit;
mod words;

pub use files::{FileDone, FileError, Item, Link};
pub use record::{Record, Resolution, Stage};
pub use words::{Answer, Call, Ending, Event, Loss, Now, Step, Stop};

use crate::Moment;
use crate::description::Provider;
use crate::pace::Pace;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Longest text of a provider's that is kept, bytes.
const TEXT_BYTES_MAX: usize = 600;

/// Tries of telling the provider to stop.
const CANCEL_TRIES_MAX: u32 = 3;

/// Where an operation stands. Each phase says what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It was made. Ended by [`Event::Begin`].
    Made,
    /// It waits to send this. Ended by its turn.
    Waiting(Call),
    /// Its record is being stored. Ended by [`Event::Stored`], and then this is sent or waited for.
    Storing(Call),
    /// A request is under way. Ended by its answer, or by giving up.
    Calling(Call),
    /// Nothing more happens.
    Over,
}

/// One operation.
#[derive(Debug)]
pub struct Operation {
    provider: Arc<Provider>,
    record: Record,
    phase: Phase,
    seed: u64,
    /// Raised by every turn: an answer to an older one is of no interest.
    turn: u32,
    stop: Option<Stop>,
    /// When it was submitted, or begun here.
    began: Moment,
    polls: u32,
    /// Failures in a row of what it does now.
    troubles: u32,
    /// A token was refused once: the next one is the last try.
    was_denied: bool,
    /// Tries of the provider's to stop, or of a file; renewals of links.
    tries: u32,
    renewals: u32,
    wants_files: bool,
    /// The provider's word for its state.
    word: String,
    progress: Option<f64>,
    last_error: String,
    next: Moment,
    items: Vec<Item>,
    files: Vec<FileDone>,
    value: Option<Value>,
    cost: Option<Value>,
}

impl Operation {
    /// One that has not begun. `seed` spreads its delays; `wants_files` says that links are to be
    /// downloaded.
    #[must_use]
    pub fn new(provider: Arc<Provider>, record: Record, seed: u64, wants_files: bool) -> Self {
        Self {
            provider,
            record,
            phase: Phase::Made,
            seed,
            turn: 0,
            stop: None,
            began: Moment::ZERO,
            polls: 0,
            troubles: 0,
            was_denied: false,
            tries: 0,
            renewals: 0,
            wants_files,
            word: String::new(),
            progress: None,
            last_error: String::new(),
            next: Moment::ZERO,
            items: Vec::new(),
            files: Vec::new(),
            value: None,
            cost: None,
        }
    }

    /// What is durable of it, or is becoming so.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Its provider.
    #[must_use]
    pub fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// The number of its latest turn.
    #[must_use]
    pub fn turn(&self) -> u32 {
        self.turn
    }

    /// Whether it keeps the turn that it was given, to send when its intent is durable.
    #[must_use]
    pub fn holds_turn(&self) -> bool {
        self.phase == Phase::Storing(Call::Submit)
    }

    /// The item that is to be downloaded.
    #[must_use]
    pub fn item(&self, at: usize) -> Option<&Item> {
        self.items.get(at)
    }

    /// How far it is, from 0 to 1, when the provider says so.
    #[must_use]
    pub fn progress(&self) -> Option<f64> {
        self.progress
    }

    /// Where it stands, in one line for people.
    #[must_use]
    pub fn note(&self, now: Moment) -> String {
        let mut note = self.provider.name.clone();
        if let Some(id) = self.record.known.get("id") {
            note = format!("{note} {}", cut(id, 100));
        }
        let doing = match self.phase {
            Phase::Made | Phase::Over => "",
            Phase::Waiting(Call::Submit) => "waits to be submitted",
            Phase::Storing(_) | Phase::Calling(Call::Submit) => "is being submitted",
            Phase::Waiting(Call::Lookup) | Phase::Calling(Call::Lookup) => "is looked for",
            Phase::Waiting(Call::Poll | Call::Fetch) | Phase::Calling(Call::Poll | Call::Fetch) => {
                self.word.as_str()
            }
            Phase::Waiting(Call::Download(_)) | Phase::Calling(Call::Download(_)) => "downloads",
            Phase::Waiting(Call::Cancel) | Phase::Calling(Call::Cancel) => "is being cancelled",
        };
        if !doing.is_empty() {
            note = format!("{note}: {doing}");
        }
        if self.polls > 0 {
            note = format!("{note}, polls {}", self.polls);
        }
        if let Phase::Waiting(_) = self.phase {
            let wait = self.next.saturating_sub(now).as_secs();
            note = format!("{note}, next in {wait} s");
        }
        if !self.last_error.is_empty() {
            note = format!("{note}, last error: {}", self.last_error);
        }
        note
    }

    /// Takes in what has happened, and adds what to do to `out`.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Step>) {
        match event {
            Event::Begin => self.begin(now, out),
            Event::Turn => self.take_turn(now, out),
            Event::Stored => self.on_stored(now, out),
            Event::NotStored => self.finish(Ending::Released, out),
            Event::Stop(stop) => self.on_stop(now, stop, out),
            Event::Answered(answer) => match self.phase {
                Phase::Calling(Call::Submit) => self.on_submitted(now, &answer, out),
                Phase::Calling(Call::Lookup) => self.on_looked_up(now, &answer, out),
                Phase::Calling(Call::Poll) => self.on_polled(now, &answer, out),
                Phase::Calling(Call::Fetch) => self.on_fetched(now, &answer, out),
                Phase::Calling(Call::Cancel) => self.on_cancel_answered(now, &answer, out),
                Phase::Calling(Call::Download(_))
                | Phase::Made
                | Phase::Waiting(_)
                | Phase::Storing(_)
                | Phase::Over => {}
            },
            Event::Lost(loss) => match self.phase {
                Phase::Calling(Call::Submit) => self.on_submit_lost(now, loss, out),
                Phase::Calling(Call::Cancel) => self.retry_cancel(now, loss.why, out),
                Phase::Calling(_) if loss.is_final => self.fail(loss.why, out),
                Phase::Calling(call) => self.retry(now, call, loss.why, None, out),
                Phase::Made | Phase::Waiting(_) | Phase::Storing(_) | Phase::Over => {}
            },
            Event::Downloaded(done) => {
                if let Phase::Calling(Call::Download(at)) = self.phase {
                    self.on_downloaded(now, at, done, out);
                }
            }
        }
    }

    fn take_turn(&mut self, now: Now, out: &mut Vec<Step>) {
        let Phase::Waiting(call) = self.phase else { return };
        if call == Call::Submit {
            self.record.stage = Stage::Submitting;
            self.record.resolution = None;
            self.record.since_ms = now.wall_ms;
            self.began = now.at;
            self.store(call, out);
        } else {
            self.send(call, out);
        }
    }

    fn on_stored(&mut self, now: Now, out: &mut Vec<Step>) {
        let Phase::Storing(call) = self.phase else { return };
        match (self.stop, call) {
            (Some(stop), Call::Submit) => {
                // Nothing was sent: the next attempt need not wonder.
                self.record.stage = Stage::New;
                out.push(Step::Store(Box::new(self.record.clone())));
                self.finish(stopped(stop), out);
            }
            (Some(Stop::Release), _) => self.finish(Ending::Released, out),
            (Some(Stop::Cancel), _) => self.begin_cancel(now, out),
            (None, Call::Submit) => self.send(call, out),
            (None, _) if self.provider.poll.is_none() => self.resume_answer(now, out),
            (None, _) => {
                let first = self.delay(0);
                self.wait(call, now.at + first, out);
            }
        }
    }

    fn on_stop(&mut self, now: Now, stop: Stop, out: &mut Vec<Step>) {
        if self.stop.is_some() {
            return;
        }
        self.stop = Some(stop);
        match (self.phase, stop) {
            // What they bring is waited for: it says whether the provider has it.
            (Phase::Storing(_) | Phase::Calling(Call::Submit | Call::Lookup), _)
            | (Phase::Over, _) => {}
            (Phase::Made | Phase::Waiting(_) | Phase::Calling(_), Stop::Release) => {
                self.finish(Ending::Released, out);
            }
            (Phase::Made, Stop::Cancel) => self.finish(Ending::Cancelled, out),
            (Phase::Waiting(_) | Phase::Calling(_), Stop::Cancel) => match self.record.stage {
                Stage::New => self.finish(Ending::Cancelled, out),
                Stage::Submitting => {
                    let why =
                        "the job was cancelled before it was known whether the provider has it";
                    self.hold(why, out);
                }
                Stage::Submitted => self.begin_cancel(now, out),
            },
        }
    }

    fn begin_cancel(&mut self, now: Now, out: &mut Vec<Step>) {
        if self.provider.cancel.is_none() {
            self.finish(Ending::Cancelled, out);
            return;
        }
        self.tries = 0;
        self.wait(Call::Cancel, now.at, out);
    }

    fn on_cancel_answered(&mut self, now: Now, answer: &Answer, out: &mut Vec<Step>) {
        match answer.status {
            408 | 429 | 500..=599 => self.retry_cancel(now, answer.told(&self.provider), out),
            // Gone, over, or not to be stopped any more: there is nothing left to tell.
            _ => {
                self.store_fresh(out);
                self.finish(Ending::Cancelled, out);
            }
        }
    }

    fn retry_cancel(&mut self, now: Now, why: String, out: &mut Vec<Step>) {
        self.tries += 1;
        self.last_error = why;
        if self.tries >= CANCEL_TRIES_MAX {
            self.finish(Ending::Cancelled, out);
        } else {
            self.wait(Call::Cancel, now.at + Duration::from_millis(500), out);
        }
    }

    /// Tries the same again later.
    fn retry(
        &mut self,
        now: Now,
        call: Call,
        why: String,
        asked: Option<Duration>,
        out: &mut Vec<Step>,
    ) {
        self.troubles = self.troubles.saturating_add(1);
        self.last_error = cut(&why, TEXT_BYTES_MAX).to_owned();
        if let Some(limit) = self.is_spent(now) {
            let id = self.record.known.get("id").map_or("none", String::as_str);
            self.fail(format!("given up after {limit}; operation {id}; last error: {why}"), out);
            return;
        }
        let delay = self.delay(self.troubles).max(asked.unwrap_or_default());
        self.wait(call, now.at + delay, out);
    }

    /// Which bound of polling it has reached.
    fn is_spent(&self, now: Now) -> Option<String> {
        let poll = self.provider.poll.as_ref();
        let (attempts, deadline) = poll
            .map_or((100, Duration::from_secs(86_400)), |poll| (poll.attempts, poll.deadline.0));
        if self.polls.max(self.troubles) >= attempts {
            return Some(format!("{attempts} tries"));
        }
        let age = now.at.saturating_sub(self.began);
        (age >= deadline).then(|| format!("{} s", deadline.as_secs()))
    }

    fn delay(&self, look: u32) -> Duration {
        let pace = match &self.provider.poll {
            Some(poll) => Pace {
                first: poll.first.0,
                min: poll.every.min.0,
                max: poll.every.max.0,
                factor: poll.every.factor,
                jitter: poll.every.jitter,
            },
            None => Pace {
                first: Duration::ZERO,
                min: Duration::from_secs(1),
                max: Duration::from_secs(60),
                factor: 1.5,
                jitter: 0.1,
            },
        };
        pace.delay(look, self.seed)
    }

    fn wait(&mut self, call: Call, due: Moment, out: &mut Vec<Step>) {
        self.phase = Phase::Waiting(call);
        self.next = due;
        self.turn = self.turn.wrapping_add(1);
        out.push(Step::Queue { class: call.class(), due });
    }

    fn store(&mut self, then: Call, out: &mut Vec<Step>) {
        self.phase = Phase::Storing(then);
        out.push(Step::Store(Box::new(self.record.clone())));
    }

    fn send(&mut self, call: Call, out: &mut Vec<Step>) {
        self.phase = Phase::Calling(call);
        self.turn = self.turn.wrapping_add(1);
        out.push(Step::Send(call));
    }

    fn fail(&mut self, message: String, out: &mut Vec<Step>) {
        self.finish(Ending::Failed { permanent: true, message }, out);
    }

    /// The provider is through with it: a person who retries the job wants a new operation.
    fn fail_for_good(&mut self, message: String, out: &mut Vec<Step>) {
        self.store_fresh(out);
        self.fail(message, out);
    }

    fn store_fresh(&mut self, out: &mut Vec<Step>) {
        let (provider, key) = (self.record.provider.clone(), format!("{}-again", self.record.key));
        out.push(Step::Store(Box::new(Record::new(provider, key))));
    }

    fn hold(&mut self, why: &str, out: &mut Vec<Step>) {
        let reason = format!(
            "{}: {why}; look there for key {} and decide with `shiftboss provider resolve`: \
             --adopt OP when it has it, --resubmit when it has not",
            self.provider.name, self.record.key
        );
        self.finish(Ending::Held(reason), out);
    }

    fn finish(&mut self, ending: Ending, out: &mut Vec<Step>) {
        self.phase = Phase::Over;
        self.turn = self.turn.wrapping_add(1);
        out.push(Step::Finish(ending));
    }
}

fn stopped(stop: Stop) -> Ending {
    match stop {
        Stop::Cancel => Ending::Cancelled,
        Stop::Release => Ending::Released,
    }
}

/// The longest start of `text` that has at most `bytes_max` bytes.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests;
