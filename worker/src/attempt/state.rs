//! What the worker knows about one attempt: whether it runs, must stop, what it reported and
//! what it used. Shared by its context, the reader of the socket and the timer.

mod checkpoints;

use crate::connection::{Frames, Outbox};
use crate::launcher::Bell;
use crate::program::group::Group;
use crate::timer::Alarm;
use crate::workload::crowd::{Arrival, Desk};
use shiftboss_protocol::confine::{Confine, InForce};
use shiftboss_protocol::job::{Attempt, Cause, Failure, JobId, Usage};
use shiftboss_protocol::message::{LogLevel, Settings, StopReason, WorkerMessage};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What names an attempt everywhere.
pub(crate) type Key = (JobId, Attempt);

/// Least time between two progress messages of one attempt.
const PROGRESS_GAP: Duration = Duration::from_millis(500);

/// The supervisor enforces a timeout first; this much later the worker does, so that it holds
/// without a supervisor too.
const TIMEOUT_SLACK: Duration = Duration::from_secs(2);

/// How long the receipt of a checkpoint is waited for once the attempt must stop.
const LAST_CHECKPOINT_WAIT: Duration = Duration::from_secs(3);

/// Most checkpoints of one attempt that wait for their receipts: one per thread that is in
/// [`AttemptState::checkpoint`], and those that were waited for in vain.
const CHECKPOINTS_MAX: usize = 64;

pub(crate) struct AttemptState {
    pub(crate) key: Key,
    /// Those of the supervisor that assigned it: its folders stay where they are.
    pub(crate) settings: Arc<Settings>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) timeout_ms: u64,
    deadline: Option<Instant>,
    alarm: Arc<Alarm>,
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// What a next supervisor must hear is changed and said under one lock, so that it is said on
/// each connection either by the change or by [`Paused`].
#[derive(Default)]
struct Inner {
    phase: Phase,
    /// The instance that the attempt belongs to now.
    owner: String,
    stop: Option<StopReason>,
    stopped_at: Option<Instant>,
    bells: Vec<Arc<Bell>>,
    /// Who hears of stops and receipts, for an attempt of a crowd.
    desk: Option<Arc<Desk>>,
    /// Pids of the launchers that exist.
    launchers: Vec<u32>,
    /// What held around each program so far.
    confinement: Option<InForce>,
    /// Said and without a receipt, the oldest first.
    checkpoints: VecDeque<Vec<u8>>,
    checkpoints_recorded: u64,
    is_stale: bool,
    progress: Progress,
    has_scratch: bool,
    usage: Usage,
    programs: Programs,
}

/// Whether programs of the attempt have a control group.
#[derive(Default)]
enum Programs {
    /// None has been started.
    #[default]
    None,
    /// They are in this one.
    In(Arc<Group>),
    /// There is none for them, and that was told.
    Outside,
}

/// Where an attempt stands within its worker.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// No thread has taken it yet. Ended by a thread or by a stop.
    #[default]
    Queued,
    /// Ended by the workload's return.
    Running,
    /// Its outcome is decided: nothing more is said about it but Finished.
    Ended,
}

#[derive(Default)]
struct Progress {
    fraction: Option<f64>,
    note: String,
    sent_at: Option<Instant>,
    is_pending: bool,
}

impl Progress {
    fn message(&self, key: Key) -> WorkerMessage {
        let (job, attempt) = key;
        let (fraction, note) = (self.fraction, self.note.clone());
        WorkerMessage::Progress { job, attempt, fraction, note }
    }
}

/// Rings while it exists; see [`AttemptState::bell`].
pub(crate) struct StopBell<'a> {
    state: &'a AttemptState,
    pub(crate) bell: Arc<Bell>,
}

impl Drop for StopBell<'_> {
    fn drop(&mut self) {
        self.state.lock().bells.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
    }
}

/// Exists as long as the launcher that was told of; see [`AttemptState::started`].
pub(crate) struct Started<'a> {
    state: &'a AttemptState,
    launcher_pid: u32,
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        let launchers = &mut self.state.lock().launchers;
        if let Some(at) = launchers.iter().position(|pid| *pid == self.launcher_pid) {
            launchers.swap_remove(at);
        }
    }
}

/// An attempt that can neither change nor say anything, while a new connection is opened.
pub(crate) struct Paused<'a> {
    key: Key,
    inner: MutexGuard<'a, Inner>,
}

impl AttemptState {
    pub(crate) fn new(
        key: Key,
        settings: Arc<Settings>,
        outbox: Arc<Outbox>,
        alarm: Arc<Alarm>,
        timeout_ms: u64,
        now: Instant,
    ) -> Self {
        let allowed = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms) + TIMEOUT_SLACK);
        let deadline = allowed.and_then(|allowed| now.checked_add(allowed));
        let inner = Inner { owner: settings.owner.clone(), ..Inner::default() };
        let (inner, changed) = (Mutex::new(inner), Condvar::new());
        Self { key, settings, outbox, timeout_ms, deadline, alarm, inner, changed }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds an attempt's lock")
    }

    /// Takes the attempt for running it; false when it ended while it was queued.
    pub(crate) fn begin(&self) -> bool {
        let mut inner = self.lock();
        let is_queued = inner.phase == Phase::Queued;
        if is_queued {
            inner.phase = Phase::Running;
        }
        is_queued
    }

    /// Closes the attempt's mouth: after this only its Finished is sent.
    pub(crate) fn end(&self) -> (Option<StopReason>, Usage) {
        let mut inner = self.lock();
        inner.phase = Phase::Ended;
        (inner.stop, inner.usage)
    }

    /// Tells the attempt to stop. True when no thread has taken it yet: it has ended with this
    /// call, and the caller reports that. The first reason stays.
    pub(crate) fn stop(&self, reason: StopReason) -> bool {
        let mut inner = self.lock();
        if inner.phase == Phase::Ended || inner.stop.is_some() {
            return false;
        }
        inner.stop = Some(reason);
        inner.stopped_at = Some(Instant::now());
        for bell in &inner.bells {
            bell.ring();
        }
        if let Some(desk) = &inner.desk {
            desk.bring(Arrival::Stopped(self.key));
        }
        self.changed.notify_all();
        let was_queued = inner.phase == Phase::Queued;
        if was_queued {
            inner.phase = Phase::Ended;
        }
        was_queued
    }

    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        self.lock().stop
    }

    pub(crate) fn wait_for_stop(&self, timeout: Duration) -> Option<StopReason> {
        let inner = self.lock();
        let (inner, _) = self
            .changed
            .wait_timeout_while(inner, timeout, |inner| inner.stop.is_none())
            .expect("nothing panics while it holds an attempt's lock");
        inner.stop
    }

    /// A bell that rings when the attempt must stop (at once when it must already), for those
    /// who wait on descriptors.
    pub(crate) fn bell(&self) -> std::io::Result<StopBell<'_>> {
        let bell = Arc::new(Bell::new()?);
        let mut inner = self.lock();
        if inner.stop.is_some() {
            bell.ring();
        }
        inner.bells.push(Arc::clone(&bell));
        drop(inner);
        Ok(StopBell { state: self, bell })
    }

    pub(crate) fn progress(&self, now: Instant, fraction: Option<f64>, note: &str) {
        let mut inner = self.lock();
        let progress = &mut inner.progress;
        let is_same = progress.fraction == fraction && progress.note == note;
        if inner.phase != Phase::Running || (is_same && inner.progress.sent_at.is_some()) {
            return;
        }
        let progress = &mut inner.progress;
        progress.fraction = fraction;
        note.clone_into(&mut progress.note);
        let due = progress.sent_at.map_or(now, |sent_at| sent_at + PROGRESS_GAP);
        if due <= now {
            self.send_progress(now, progress);
        } else if !progress.is_pending {
            progress.is_pending = true;
            drop(inner);
            self.alarm.set(due);
        }
    }

    fn send_progress(&self, now: Instant, progress: &mut Progress) {
        progress.is_pending = false;
        progress.sent_at = Some(now);
        self.outbox.send(&progress.message(self.key));
    }

    /// Sends progress that was held back, and says when the timer must look again and whether
    /// the attempt's time is up.
    pub(crate) fn on_timer(&self, now: Instant) -> (Option<Instant>, bool) {
        let mut inner = self.lock();
        if inner.phase == Phase::Ended {
            return (None, false);
        }
        let mut next = None;
        if inner.progress.is_pending {
            let due = inner.progress.sent_at.map_or(now, |sent_at| sent_at + PROGRESS_GAP);
            if due <= now {
                self.send_progress(now, &mut inner.progress);
            } else {
                next = Some(due);
            }
        }
        if inner.stop.is_some() {
            return (next, false);
        }
        match self.deadline {
            Some(deadline) if deadline <= now => (next, true),
            Some(deadline) => (Some(next.map_or(deadline, |next| next.min(deadline))), false),
            None => (next, false),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// From now on this desk hears of stops and receipts.
    pub(crate) fn tell(&self, desk: &Arc<Desk>) {
        self.lock().desk = Some(Arc::clone(desk));
    }

    /// A stale receipt means that the job is somebody else's; the caller has stopped the attempt.
    pub(crate) fn on_checkpoint_recorded(&self, stale: bool) {
        let mut inner = self.lock();
        if inner.checkpoints.pop_front().is_some() {
            inner.checkpoints_recorded += 1;
        }
        inner.is_stale |= stale;
        if let Some(desk) = &inner.desk {
            let number = inner.checkpoints_recorded;
            desk.bring(Arrival::Stored { key: self.key, number, stale });
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// Tells of a launcher, now and to every next supervisor while the answer exists.
    pub(crate) fn started(&self, launcher_pid: u32) -> Started<'_> {
        let (job, attempt) = self.key;
        let mut inner = self.lock();
        self.outbox.send(&WorkerMessage::Started { job, attempt, launcher_pid });
        inner.launchers.push(launcher_pid);
        Started { state: self, launcher_pid }
    }

    /// Tells what confines a program of the attempt, when it is less than was known.
    pub(crate) fn confined(&self, by: &InForce) {
        let mut inner = self.lock();
        let known = inner.confinement.as_ref();
        let least = known.map_or_else(|| by.clone(), |known| known.least(by));
        if known != Some(&least) {
            self.outbox.send(&confined_message(self.key, &least));
            inner.confinement = Some(least);
        }
    }

    /// The owner that a program which starts now is told.
    pub(crate) fn owner(&self) -> String {
        self.lock().owner.clone()
    }

    pub(crate) fn pause(&self) -> Paused<'_> {
        Paused { key: self.key, inner: self.lock() }
    }

    pub(crate) fn add_usage(&self, cpu_ms: u64, memory_peak_bytes: u64) {
        let usage = &mut self.lock().usage;
        usage.cpu_ms = Some(usage.cpu_ms.unwrap_or(0).saturating_add(cpu_ms));
        usage.memory_peak_bytes = Some(usage.memory_peak_bytes.unwrap_or(0).max(memory_peak_bytes));
    }

    /// The control group of the attempt's programs, made for the first one.
    ///
    /// # Errors
    /// It cannot be made, and the type requires it.
    pub(crate) fn group(&self) -> Result<Option<Arc<Group>>, Failure> {
        let mut inner = self.lock();
        match &inner.programs {
            Programs::In(group) => return Ok(Some(Arc::clone(group))),
            Programs::Outside => return Ok(None),
            Programs::None if self.settings.cgroup_slot.is_empty() => return Ok(None),
            Programs::None => {}
        }
        match Group::make(Path::new(&self.settings.cgroup_slot)) {
            Ok(group) => {
                let group = Arc::new(group);
                inner.programs = Programs::In(Arc::clone(&group));
                Ok(Some(group))
            }
            Err(error) => {
                let slot = &self.settings.cgroup_slot;
                let text = format!("cannot make a control group for programs in {slot}: {error}");
                if self.settings.confine == Confine::Require {
                    return Err(Failure::retryable(Cause::FailedStart, text));
                }
                inner.programs = Programs::Outside;
                let (level, job) = (LogLevel::Warn, Some(self.key.0));
                self.outbox.send_unless_full(&WorkerMessage::Log { level, job, text });
                Ok(None)
            }
        }
    }

    /// No further program is started: what they used is counted, and their group removed.
    pub(crate) fn close_group(&self) {
        let mut inner = self.lock();
        let Programs::In(group) = std::mem::take(&mut inner.programs) else { return };
        let used = group.used();
        // The kernel's sums cover what nobody waited for, and memory that several share once.
        inner.usage.cpu_ms = used.cpu_ms.or(inner.usage.cpu_ms);
        inner.usage.memory_peak_bytes = used.memory_peak_bytes.or(inner.usage.memory_peak_bytes);
        drop(inner);
        drop(group);
    }

    pub(crate) fn note_scratch(&self) {
        self.lock().has_scratch = true;
    }

    pub(crate) fn has_scratch(&self) -> bool {
        self.lock().has_scratch
    }

    /// Wakes everybody who waits for something of this attempt, to look again.
    pub(crate) fn wake(&self) {
        // The lock orders this behind a waiter that has looked but does not wait yet.
        drop(self.lock());
        self.changed.notify_all();
    }
}

impl Paused<'_> {
    pub(crate) fn adopt(&mut self, owner: &str) {
        owner.clone_into(&mut self.inner.owner);
    }

    pub(crate) fn say_launchers(&self, frames: &mut Frames) {
        let (job, attempt) = self.key;
        for &launcher_pid in &self.inner.launchers {
            frames.push(&WorkerMessage::Started { job, attempt, launcher_pid });
        }
    }

    pub(crate) fn say_confinement(&self, frames: &mut Frames) {
        if let Some(confinement) = &self.inner.confinement {
            frames.push(&confined_message(self.key, confinement));
        }
    }

    /// Says what has no receipt yet.
    pub(crate) fn say_checkpoints(&self, frames: &mut Frames) {
        for data in &self.inner.checkpoints {
            frames.push(&checkpoint_message(self.key, data.clone()));
        }
    }

    /// Says how far the attempt is, if it ever did.
    pub(crate) fn say_progress(&mut self, frames: &mut Frames) {
        let progress = &mut self.inner.progress;
        if progress.sent_at.is_some() {
            frames.push(&progress.message(self.key));
            progress.is_pending = false;
            progress.sent_at = Some(Instant::now());
        }
    }
}

fn checkpoint_message(key: Key, data: Vec<u8>) -> WorkerMessage {
    let (job, attempt) = key;
    WorkerMessage::Checkpoint { job, attempt, data }
}

fn confined_message(key: Key, by: &InForce) -> WorkerMessage {
    let (job, attempt) = key;
    WorkerMessage::Confined { job, attempt, confinement: by.to_string() }
}

fn released(message: &str) -> Failure {
    Failure::retryable(Cause::Released, message)
}

impl std::fmt::Debug for AttemptState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttemptState").field("key", &self.key).finish_non_exhaustive()
    }
}
