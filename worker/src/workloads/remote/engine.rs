//! The one loop: what arrives, whose turn it is, what was answered. Everything that waits is an
//! entry in a heap; only requests under way are tasks, at most [`IN_FLIGHT_MAX`] of them.

use super::credential::Credentials;
use super::download::{Errand, Fetched};
use super::entry::{Entry, Start};
use super::lag::Lag;
use super::providers::Providers;
use super::rates::Rates;
use super::send::{Bounds, Lane};
use crate::workload::crowd::{Arrival, Arrivals, Ended, Guest};
use shiftboss_protocol::job::{Attempt, Cause, Failure, JobId};
use shiftboss_protocol::message::StopReason;
use shiftboss_provider::operation::{Answer, Call, Ending, Event, Loss, Now, Step, Stop};
use shiftboss_provider::queue::{Line, Queue, Turn, Verdict};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Requests under way at once, and so connections that are used.
const IN_FLIGHT_MAX: usize = 256;

/// What this clock starts at, so that operations from before this process have a moment too.
const EPOCH: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Longest wait for a state, a result or a cancel.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// The largest answer that holds no files, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The largest answer that may hold files in base64, bytes.
const INLINE_BYTES_MAX: usize = 64 << 20;

/// A pause where a provider asks for one and does not say how long.
const PAUSE_UNTOLD: Duration = Duration::from_secs(1);

/// How long an attempt waits whose provider cannot be used as this host is set up.
const UNUSABLE_RETRY_MS: u64 = 60_000;

/// Looks after operations until the process ends.
pub(super) fn keep(providers: Arc<Providers>, arrivals: &Arrivals) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(8)
        .build()
        .expect("the kernel gives an epoll");
    runtime.block_on(Engine::new(providers).run(arrivals));
}

struct Engine {
    providers: Arc<Providers>,
    credentials: Arc<Credentials>,
    started: Instant,
    queue: Queue,
    rates: Rates,
    lag: Lag,
    lanes: HashMap<String, (Line, Lane)>,
    entries: HashMap<u64, Entry>,
    numbers: HashMap<(JobId, Attempt), u64>,
    next: u64,
    tasks: JoinSet<Done>,
}

/// A request that has ended.
struct Done {
    number: u64,
    /// The operation's turn that it belongs to.
    of: u32,
    turn: Turn,
    brought: Brought,
}

enum Brought {
    Answer(Result<Answer, Loss>),
    File(Fetched),
}

impl Engine {
    fn new(providers: Arc<Providers>) -> Self {
        let rates = Rates::new(providers.rates_dir.clone(), providers.boot, EPOCH);
        Self {
            providers,
            rates,
            lag: Lag::default(),
            credentials: Arc::default(),
            started: Instant::now(),
            queue: Queue::new(IN_FLIGHT_MAX),
            lanes: HashMap::new(),
            entries: HashMap::new(),
            numbers: HashMap::new(),
            next: 0,
            tasks: JoinSet::new(),
        }
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        Now { at: EPOCH + self.started.elapsed(), wall_ms }
    }

    async fn run(mut self, arrivals: &Arrivals) {
        let woken = Arc::new(Notify::new());
        let wake = Arc::clone(&woken);
        arrivals.on_arrival(move || wake.notify_one());
        loop {
            for arrival in arrivals.take() {
                self.on_arrival(arrival);
            }
            while let Some(done) = self.tasks.try_join_next() {
                self.on_done(done.expect("a request that panics ends the worker"));
            }
            let mut now = self.now();
            while let Some(turn) = self.queue.pop(now.at) {
                self.lag.note(&turn);
                self.on_turn(turn);
                now = self.now();
            }
            let told_again = self.lag.tell(now.at, &mut self.queue, arrivals);
            let next = self
                .queue
                .next(now.at)
                .map_or(Duration::from_secs(3_600), |next| next.saturating_sub(now.at));
            tokio::select! {
                () = woken.notified() => {}
                Some(done) = self.tasks.join_next() => {
                    self.on_done(done.expect("a request that panics ends the worker"));
                }
                () = tokio::time::sleep(next.min(told_again)) => {}
            }
        }
    }

    fn on_arrival(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Assigned(guest) => self.begin(guest),
            Arrival::Stopped(key) => {
                let Some(number) = self.numbers.get(&key).copied() else { return };
                let reason = self.entries[&number].guest.context().stop_reason();
                let stop = match reason {
                    Some(StopReason::Released) | None => Stop::Release,
                    Some(StopReason::Cancelled | StopReason::Timeout | StopReason::Stalled) => {
                        Stop::Cancel
                    }
                };
                self.say(number, Event::Stop(stop));
            }
            Arrival::Stored { key, number: stored, stale } => {
                let Some(number) = self.numbers.get(&key).copied() else { return };
                let is_awaited = self.entries[&number].awaited == stored;
                if stale {
                    self.say(number, Event::NotStored);
                } else if is_awaited {
                    self.say(number, Event::Stored);
                }
            }
        }
    }

    fn begin(&mut self, guest: Guest) {
        let begun = Start::read(&guest).and_then(|start| {
            let usable = self.lane(&start.payload.provider)?;
            Ok((start, usable))
        });
        match begun {
            Ok((start, (line, lane))) => {
                let (number, key) = (self.next, guest.key());
                self.next += 1;
                self.entries.insert(number, Entry::new(guest, &lane.provider, line, start));
                self.numbers.insert(key, number);
                self.say(number, Event::Begin);
            }
            Err(failure) => guest.finish(Ended::Failure(failure)),
        }
    }

    /// How to speak to a provider, made for its first operation.
    fn lane(&mut self, name: &str) -> Result<(Line, Lane), Failure> {
        if let Some((line, lane)) = self.lanes.get(name) {
            return Ok((*line, lane.clone()));
        }
        let no_such = |why| Failure::permanent(Cause::Payload, format!("provider {name:?}: {why}"));
        let unusable = |why| Failure {
            retry_after_ms: Some(UNUSABLE_RETRY_MS),
            ..Failure::retryable(Cause::FailedStart, format!("provider {name}: {why}"))
        };
        let provider = Arc::clone(self.providers.get(name).map_err(no_such)?);
        if let Some(why) = self.providers.secrets.lack(&provider.secrets()) {
            return Err(unusable(why));
        }
        let lane = Lane::new(&provider, &self.providers, &self.credentials).map_err(unusable)?;
        let line = self.queue.add(&provider.limits);
        let now = self.now().at;
        self.rates.resume(name, (&mut self.queue, line), now).map_err(unusable)?;
        self.lanes.insert(name.to_owned(), (line, lane.clone()));
        Ok((line, lane))
    }

    fn on_turn(&mut self, turn: Turn) {
        let number = turn.operation;
        let Some(entry) = self.entries.get_mut(&number) else {
            self.give_back(&turn);
            return;
        };
        entry.turn = Some(turn);
        self.say(number, Event::Turn);
    }

    /// Its turn was not used.
    fn give_back(&mut self, turn: &Turn) {
        let at = self.now().at;
        self.queue.ended(turn, at, false, Verdict::Unknown);
    }

    /// Tells an operation what has happened, and does what it wants.
    fn say(&mut self, number: u64, event: Event) {
        let now = self.now();
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let mut steps = Vec::new();
        entry.operation.handle(now, event, &mut steps);
        for step in steps {
            self.take_step(number, step);
        }
        let secrets = &self.providers.secrets;
        let Some(entry) = self.entries.get_mut(&number) else { return };
        entry.tell(now.at, |text| secrets.mask(text));
        if !entry.operation.holds_turn()
            && let Some(turn) = entry.turn.take()
        {
            self.give_back(&turn);
        }
    }

    fn take_step(&mut self, number: u64, step: Step) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        match step {
            Step::Queue { class, due } => self.queue.push(entry.line, class, number, due),
            Step::Store(mut record) => {
                if let Ok(Some(request)) = entry.request(Call::Submit, &|_| Some(String::new())) {
                    record.request = request.digest();
                }
                match entry.guest.checkpoint(&record.to_bytes()) {
                    Ok(stored) => entry.awaited = stored,
                    Err(failure) => self.end(number, Ended::Failure(failure)),
                }
            }
            Step::Send(call) => self.send(number, call),
            Step::Finish(ending) => {
                let ended = self.ended(ending);
                self.end(number, ended);
            }
        }
    }

    fn send(&mut self, number: u64, call: Call) {
        let at = self.now().at;
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let Some(turn) = entry.turn.take() else { return };
        let Some((_, lane)) = self.lanes.get(&entry.operation.provider().name) else { return };
        let (lane, of) = (lane.clone(), entry.operation.turn());
        self.queue.sent(&turn, at);
        self.rates.note(&turn, self.queue.place(&turn));
        let request = entry.request(call, &|name| self.providers.secrets.get(name));
        let request = match request {
            Ok(request) => request,
            Err(why) => {
                let loss = Loss { may_have_arrived: false, is_final: true, why };
                let brought = Brought::Answer(Err(loss));
                self.tasks.spawn(async move { Done { number, of, turn, brought } });
                return;
            }
        };
        if let Call::Download(at) = call {
            let (Some(item), Some(target)) = (entry.operation.item(at).cloned(), &entry.target)
            else {
                return;
            };
            let (target, part) = ((**target).clone(), entry.part.clone());
            let errand = Errand { lane, item, url: request, target, at, part };
            self.tasks.spawn(async move {
                let brought = Brought::File(errand.run().await);
                Done { number, of, turn, brought }
            });
        } else if let Some(request) = request {
            let bounds = bounds(&lane, call);
            self.tasks.spawn(async move {
                let brought = Brought::Answer(lane.ask(request, bounds).await);
                Done { number, of, turn, brought }
            });
        }
    }

    fn on_done(&mut self, done: Done) {
        let Done { number, of, turn, brought } = done;
        let now = self.now();
        let (arrived, verdict) = judge(&brought);
        self.queue.ended(&turn, now.at, arrived, verdict);
        self.rates.note(&turn, self.queue.place(&turn));
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let event = match brought {
            Brought::Answer(Ok(answer)) => {
                if let Some(pause) = pause(&answer) {
                    self.queue.pause(entry.line, turn.class, now.at + pause);
                }
                Event::Answered(answer)
            }
            Brought::Answer(Err(loss)) => Event::Lost(loss),
            Brought::File((done, part)) => {
                entry.part = part;
                Event::Downloaded(done)
            }
        };
        if entry.operation.turn() == of {
            self.say(number, event);
        }
    }

    fn ended(&self, ending: Ending) -> Ended {
        let mask = |text: &str| self.providers.secrets.mask(text);
        match ending {
            Ending::Done(result) => {
                let text = result.to_string();
                let masked = mask(&text);
                let result = if masked == text { Some(result) } else { None };
                Ended::Success(
                    result.or_else(|| serde_json::from_str(&masked).ok()).unwrap_or_default(),
                )
            }
            Ending::Failed { permanent: true, message } => {
                Ended::Failure(Failure::permanent(Cause::Error, mask(&message)))
            }
            Ending::Failed { permanent: false, message } => {
                Ended::Failure(Failure::retryable(Cause::Error, mask(&message)))
            }
            Ending::Held(reason) => Ended::Held(mask(&reason)),
            Ending::Cancelled => Ended::Failure(Failure::retryable(Cause::Cancelled, "stopped")),
            Ending::Released => {
                Ended::Failure(Failure::retryable(Cause::Released, "goes on with the next attempt"))
            }
        }
    }

    fn end(&mut self, number: u64, ended: Ended) {
        let Some(entry) = self.entries.remove(&number) else { return };
        self.numbers.remove(&entry.guest.key());
        self.queue.remove(number);
        if let Some(turn) = &entry.turn {
            self.give_back(turn);
        }
        entry.guest.finish(ended);
    }
}

fn bounds(lane: &Lane, call: Call) -> Bounds {
    let provider = &lane.provider;
    let holds_files = provider.result.inline.is_some()
        || (call == Call::Submit && provider.poll.is_none())
        || call == Call::Fetch;
    let bytes_max = if holds_files { INLINE_BYTES_MAX } else { ANSWER_BYTES_MAX };
    let time_max = match call {
        Call::Submit => provider.submit.timeout.0,
        Call::Lookup | Call::Poll | Call::Fetch | Call::Download(_) | Call::Cancel => {
            ANSWER_TIME_MAX
        }
    };
    Bounds { bytes_max, time_max }
}

/// Whether the request has arrived, and what it says of its host.
fn judge(brought: &Brought) -> (bool, Verdict) {
    match brought {
        Brought::Answer(Ok(answer)) if answer.status >= 500 => (true, Verdict::Failed),
        Brought::Answer(Ok(_)) => (true, Verdict::Worked),
        Brought::Answer(Err(loss)) if loss.is_final => (false, Verdict::Unknown),
        Brought::Answer(Err(_)) => (false, Verdict::Failed),
        Brought::File((Ok(_), _)) => (true, Verdict::Worked),
        Brought::File((Err(_), _)) => (false, Verdict::Unknown),
    }
}

/// How long nothing of its class is sent after this answer.
fn pause(answer: &Answer) -> Option<Duration> {
    match answer.status {
        429 => Some(answer.hint.pause.unwrap_or(PAUSE_UNTOLD)),
        _ => answer.hint.pause,
    }
}
