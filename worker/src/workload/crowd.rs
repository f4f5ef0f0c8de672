//! Workloads that look after many attempts at once, on one thread: ten thousand operations that
//! mostly wait need no thread each.
//!
//! What happens to the attempts comes in through [`Arrivals`]; each attempt is a [`Guest`] that
//! reports and ends it. The library keeps its promises as for any other workload: every attempt
//! ends, checkpoints are told when they are durable, and a crowd that panics ends the worker.

use crate::attempt::{AttemptContext, Job, Key};
use crate::connection::Outbox;
use crate::held::{Held, Returned, Task};
use serde_json::Value;
use shiftboss_protocol::job::{Cause, Failure};
use shiftboss_protocol::message::{Gauge, WorkerMessage};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Looks after all attempts of a worker.
pub trait Crowd: Send + Sync {
    /// Called once, on a thread of its own, when the worker is sealed. Must not return: the
    /// worker ends when it does.
    fn keep(&self, arrivals: &Arrivals);
}

/// Something that has happened to an attempt.
#[derive(Debug)]
pub enum Arrival {
    /// It begins.
    Assigned(Guest),
    /// It must stop: [`AttemptContext::stop_reason`] says why. Said at least once, and perhaps
    /// also before its beginning or after its end.
    Stopped(Key),
    /// Checkpoints of it are settled.
    Stored {
        /// Which attempt.
        key: Key,
        /// How many of its checkpoints, in their order.
        number: u64,
        /// True when the attempt is no longer the job's: this one was not stored.
        stale: bool,
    },
}

/// What has happened, in its order.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    desk: Arc<Desk>,
    /// Whom gauges are told; nobody in tests.
    outbox: Option<Arc<Outbox>>,
}

/// Where arrivals wait. Those who bring them never wait.
#[derive(Default)]
pub(crate) struct Desk {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    arrivals: Vec<Arrival>,
    wake: Option<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds the desk")
    }

    pub(crate) fn bring(&self, arrival: Arrival) {
        let mut waiting = self.lock();
        waiting.arrivals.push(arrival);
        if let Some(wake) = &waiting.wake {
            wake();
        }
        drop(waiting);
        self.changed.notify_all();
    }
}

impl Arrivals {
    pub(crate) fn telling(outbox: Arc<Outbox>) -> Self {
        Self { desk: Arc::default(), outbox: Some(outbox) }
    }

    /// Tells people how the worker is doing, such as `("poll_lag_ms", 12.0)`: `shiftboss workers
    /// --json` shows the latest. May be lost, never blocks; once a second is often enough.
    pub fn tell_gauges(&self, gauges: &[(&str, f64)]) {
        let Some(outbox) = &self.outbox else { return };
        let gauges =
            gauges.iter().map(|(name, value)| Gauge { name: (*name).to_owned(), value: *value });
        outbox.send_unless_full(&WorkerMessage::Gauges(gauges.collect()));
    }

    /// Has `wake` called after each arrival, by whoever brings it, under a lock: it must return
    /// at once.
    pub fn on_arrival(&self, wake: impl Fn() + Send + Sync + 'static) {
        let mut waiting = self.desk.lock();
        wake();
        waiting.wake = Some(Box::new(wake));
    }

    /// Takes what has arrived, without waiting.
    #[must_use]
    pub fn take(&self) -> Vec<Arrival> {
        std::mem::take(&mut self.desk.lock().arrivals)
    }

    /// Takes what has arrived, and waits for it at most `timeout`.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> Vec<Arrival> {
        let waiting = self.desk.lock();
        let (mut waiting, _) = self
            .desk
            .changed
            .wait_timeout_while(waiting, timeout, |waiting| waiting.arrivals.is_empty())
            .expect("nothing panics while it holds the desk");
        std::mem::take(&mut waiting.arrivals)
    }

    pub(crate) fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }
}

/// How an attempt of a crowd ends.
#[derive(Clone, Debug)]
pub enum Ended {
    /// With this result.
    Success(Value),
    /// Without one; a reason to stop, when there is one, decides the outcome.
    Failure(Failure),
    /// Whether it was done is unknown, and trying again could do harm: a person must decide,
    /// also where the attempt was to stop.
    Held(String),
}

/// An attempt in the care of a crowd. Dropped without an end it ends as a failure.
pub struct Guest {
    job: Job,
    context: AttemptContext,
    /// `None` once it has ended, and in tests.
    held: Option<Arc<Held>>,
    checkpoints: u64,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("key", &self.key()).finish_non_exhaustive()
    }
}

impl Guest {
    /// Takes a task for running it; `None` when it ended while it was queued.
    pub(crate) fn admit(task: Task, held: &Arc<Held>, desk: &Arc<Desk>) -> Option<Self> {
        if !task.state.begin() {
            return None;
        }
        task.state.tell(desk);
        let context = AttemptContext { state: task.state };
        Some(Self { job: task.job, context, held: Some(Arc::clone(held)), checkpoints: 0 })
    }

    /// One without a supervisor, for tests of crowds: nothing is sent, and no receipt comes.
    #[must_use]
    pub fn unattached(context: AttemptContext, job: Job) -> Self {
        Self { job, context, held: None, checkpoints: 0 }
    }

    /// What names it.
    #[must_use]
    pub fn key(&self) -> Key {
        (self.job.id, self.job.attempt)
    }

    /// What it was given.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Takes what it was given, so that a payload which was read need not be held.
    pub fn take_payload(&mut self) -> (String, Option<Vec<u8>>) {
        (std::mem::take(&mut self.job.payload), self.job.checkpoint.take())
    }

    /// How it talks to its supervisor.
    #[must_use]
    pub fn context(&self) -> &AttemptContext {
        &self.context
    }

    /// Sends a checkpoint and does not wait. Its number comes back in [`Arrival::Stored`] once it
    /// is durable; between two supervisors that waits for the next one.
    ///
    /// # Errors
    /// A [`Failure`] when it is too large or too many wait.
    pub fn checkpoint(&mut self, data: &[u8]) -> Result<u64, Failure> {
        crate::attempt::check_checkpoint(data)?;
        self.context.state.send_checkpoint(data)?;
        self.checkpoints += 1;
        Ok(self.checkpoints)
    }

    /// Ends it. What was sent before goes first.
    pub fn finish(mut self, ended: Ended) {
        self.end(ended);
    }

    fn end(&mut self, ended: Ended) {
        let Some(held) = self.held.take() else { return };
        let returned = match ended {
            Ended::Success(result) => Returned::Success(result.to_string()),
            Ended::Failure(failure) => Returned::Failure(failure),
            Ended::Held(reason) => Returned::Held(reason),
        };
        self.context.state.close_group();
        self.context.remove_scratch();
        held.finish(&self.context.state, returned);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let lost = Failure::retryable(Cause::Error, "the workload lost the attempt");
        self.end(Ended::Failure(lost));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftboss_protocol::job::{Attempt, JobId};

    #[test]
    fn what_arrived_before_somebody_listened_wakes_him_too() {
        let arrivals = Arrivals::default();
        let key = (JobId(1), Attempt(1));
        arrivals.desk().bring(Arrival::Stopped(key));
        let (sender, receiver) = std::sync::mpsc::channel();
        arrivals.on_arrival(move || sender.send(()).expect("it is listened to"));
        receiver.try_recv().expect("woken for what waits");
        arrivals.desk().bring(Arrival::Stopped(key));
        receiver.try_recv().expect("woken for what comes");
        assert_eq!(arrivals.take().len(), 2);
        assert!(arrivals.wait(Duration::ZERO).is_empty());
    }
}
