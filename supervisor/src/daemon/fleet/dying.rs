//! From the end of a worker's process to the moment at which its jobs may be given back:
//! everything that it said was heard, and everything that it started is gone.

use super::record::{self, Launcher};
use super::recovery::{self, key_of};
use super::{WorkerProcess, outcomes};
use crate::daemon::Daemon;
use crate::daemon::inputs::Input;
use crate::link::worker::ConnectionId;
use crate::os::cgroup::slot::OutOfMemory;
use crate::os::process::{facts, leftovers, orphans};
use crate::policy::claim::WorkerId;
use crate::policy::crew::in_units;
use crate::policy::event::{Event, Exit};
use shiftboss_protocol::job::{Attempt, JobId};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How much of a worker's standard error is shown as its last words.
const LAST_WORDS_BYTES: u64 = 1500;

/// A dead worker's connection must end this soon; a copy of it held by somebody else must not
/// keep its jobs.
const CONNECTION_ENDS_WITHIN: Duration = Duration::from_secs(1);

/// First and longest pause between two looks at what a dead worker left behind.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A launcher whose worker is dead kills its tree at once; one that takes longer is killed with
/// its session.
const LAUNCHERS_END_WITHIN: Duration = Duration::from_secs(2);

/// A worker whose process has ended.
pub(super) struct Dying {
    worker: WorkerProcess,
    exit: Exit,
    connection: Option<ConnectionId>,
    since: Instant,
    pub(super) next_look: Instant,
    gap: Duration,
    sweep: Sweep,
}

/// Whether what the worker started has been looked for by its environment: needed where it was
/// not our child, so that its orphans do not become our children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sweep {
    NotYet,
    UnderWay,
    Done,
}

impl Daemon {
    pub(in crate::daemon) fn on_process_ended(&mut self, worker: WorkerId) {
        let Some(one) = self.fleet.processes.remove(&worker) else { return };
        let ended = one.process.reap().unwrap_or_default();
        self.fleet.by_pid.remove(&one.process.pid());
        let now = Instant::now();
        let connection = one.connection.as_ref().map(|(connection, _)| *connection);
        let exit = Exit {
            code: ended.code,
            signal: ended.signal,
            last_words: last_words(&one.output),
            out_of_memory: None,
        };
        let _ = std::fs::remove_file(&one.lock);
        let _ = std::fs::remove_file(&one.record);
        if let Some(slot) = &one.bounds.slot {
            // Its programs, wherever they have got to: nothing leaves its group.
            slot.kill();
        }
        let dying = Dying {
            worker: one,
            exit,
            connection,
            since: now,
            next_look: now,
            gap: LOOK_AGAIN.0,
            sweep: Sweep::NotYet,
        };
        self.fleet.dying.insert(worker, dying);
        self.look_after_dying();
    }

    /// A worker is gone when its process has ended, its connection was read to its end, and
    /// nothing that it started is left. Only then are its jobs given back.
    pub(in crate::daemon) fn look_after_dying(&mut self) {
        let now = Instant::now();
        if self.fleet.dying.values().all(|one| one.next_look > now) {
            return;
        }
        let swept = orphans::sweep(&self.fleet.pids());
        let mut gone = Vec::new();
        let mut to_sweep = Vec::new();
        for (worker, one) in &mut self.fleet.dying {
            let open = one.connection.is_some() && now < one.since + CONNECTION_ENDS_WITHIN;
            let alone = swept && one.is_empty() && (one.worker.is_child || one.is_alone(now));
            match one.sweep {
                Sweep::NotYet if alone && !open && !one.worker.is_child => {
                    one.sweep = Sweep::UnderWay;
                    to_sweep.push(*worker);
                }
                Sweep::NotYet | Sweep::Done if alone && !open => gone.push(*worker),
                Sweep::NotYet | Sweep::UnderWay | Sweep::Done => {}
            }
            one.next_look = now + one.gap;
            one.gap = (one.gap * 2).min(LOOK_AGAIN.1);
        }
        self.fleet.remove_slots();
        for worker in to_sweep {
            self.sweep_by_environment(worker);
        }
        for worker in gone {
            self.forget_dead(worker);
        }
    }

    /// Looks for programs of a worker that was not our child, on a thread: it reads the
    /// environment of every process of this host.
    fn sweep_by_environment(&self, worker: WorkerId) {
        let Some(one) = self.fleet.dying.get(&worker) else { return };
        let owners = one.worker.owners.clone();
        let keys = self.attempts_of(worker);
        let inputs = self.inputs.clone();
        let sweep = move || {
            let left = leftovers::end(&|_, environment| {
                let owner = environment.get(leftovers::OWNER_VARIABLE);
                owner.is_some_and(|owner| owners.contains(owner))
                    && key_of(environment).is_some_and(|key| keys.contains(&key))
            });
            let _ = inputs.send(Input::Swept(worker, left));
        };
        if let Err(error) = std::thread::Builder::new().name("sweep".to_owned()).spawn(sweep) {
            tracing::error!(%error, "cannot look for the programs of worker {worker}");
            let _ = self.inputs.send(Input::Swept(worker, Vec::new()));
        }
    }

    pub(in crate::daemon) fn on_swept(&mut self, worker: WorkerId, left: &[u32]) {
        let Some(one) = self.fleet.dying.get_mut(&worker) else { return };
        if left.is_empty() {
            one.sweep = Sweep::Done;
        } else {
            tracing::error!(
                pids = ?left,
                "programs of worker {worker} do not end; its jobs are kept until they do"
            );
            one.sweep = Sweep::NotYet;
        }
        one.next_look = Instant::now();
        self.look_after_dying();
    }

    fn forget_dead(&mut self, worker: WorkerId) {
        let Some(mut one) = self.fleet.dying.remove(&worker) else { return };
        if let Some(connection) = one.connection {
            self.fleet.by_connection.remove(&connection);
        }
        if one.exit.code.is_none() && one.exit.signal.is_none() {
            // Whoever reaps it may have been slower than its pidfd.
            let ended = one.worker.process.reap().unwrap_or_default();
            (one.exit.code, one.exit.signal) = (ended.code, ended.signal);
        }
        if let Some(slot) = one.worker.bounds.slot.take() {
            one.exit.out_of_memory = slot.worker_out_of_memory().map(exceeded);
            self.fleet.unremoved.push(slot);
            self.fleet.remove_slots();
        }
        let keys = self.attempts_of(worker);
        let its = (&one.worker.owners, one.worker.job_type.as_str(), one.worker.is_child);
        self.take_written_outcomes(worker, its, &keys);
        for key in keys {
            record::remove_launcher(&self.fleet.record_dir, key);
        }
        self.handle(Event::WorkerExited { worker, exit: one.exit });
    }

    /// Outcomes that the worker wrote down before it ended count before its death does.
    fn take_written_outcomes(
        &mut self,
        worker: WorkerId,
        (owners, job_type, is_child): (&BTreeSet<String>, &str, bool),
        keys: &BTreeSet<(JobId, Attempt)>,
    ) {
        if keys.is_empty() {
            return;
        }
        for (key, files) in outcomes::list(&self.config) {
            // A worker that was taken over may know an owner between the first and the last.
            let is_its = |file: &outcomes::OutcomeFile| {
                let of_our_name = recovery::name_of(&file.owner) == Some(&self.config.instance);
                let by_owner = owners.contains(&file.owner) || (!is_child && of_our_name);
                file.job_type == job_type && by_owner
            };
            let files: Vec<_> = files.into_iter().filter(|file| is_its(file)).collect();
            let files = files.into_iter();
            for file in files.filter(|_| keys.contains(&key)) {
                let Some(stored) = outcomes::read(&file, key) else { continue };
                self.fleet.written.insert(key, file.path);
                let (job, attempt) = key;
                let (outcome, usage) = (stored.outcome, stored.usage);
                self.handle(Event::Finished { worker, job, attempt, outcome, usage });
            }
        }
    }

    fn attempts_of(&self, worker: WorkerId) -> BTreeSet<(JobId, Attempt)> {
        let views = self.crew.workers_view();
        let view = views.into_iter().find(|one| one.id == worker);
        view.map(|one| one.attempts.into_iter().collect()).unwrap_or_default()
    }
}

impl Dying {
    /// The connection has been read to its end.
    pub(super) fn on_connection_ended(&mut self) {
        self.connection = None;
        self.next_look = Instant::now();
    }

    /// True once nothing is left in the worker's control group. What was born while a kernel
    /// without `cgroup.kill` swept it is killed now.
    fn is_empty(&self) -> bool {
        let Some(slot) = &self.worker.bounds.slot else { return true };
        slot.kill();
        !slot.is_populated()
    }

    /// True once no launcher of the worker is left. One that hangs is killed with its session.
    fn is_alone(&mut self, now: Instant) -> bool {
        let hurry = now >= self.since + LAUNCHERS_END_WITHIN;
        let launchers: &mut BTreeMap<_, Launcher> = &mut self.worker.launchers;
        launchers.retain(|_, one| {
            let ended = facts::has_ended(one.pidfd.as_fd());
            !(ended || (hurry && facts::end_session(one.pidfd.as_fd(), one.pid)))
        });
        launchers.is_empty()
    }
}

/// What a worker did that the kernel killed for want of memory.
fn exceeded(told: OutOfMemory) -> String {
    let peak = told.peak.map_or_else(String::new, |bytes| format!(" (peak {})", in_units(bytes)));
    match told.limit {
        Some(limit) => format!("exceeded its memory limit of {}{peak}", in_units(limit)),
        None => format!("met a machine without free memory{peak}"),
    }
}

/// The last lines that the worker wrote on its standard error, on one line.
fn last_words(output: &File) -> String {
    let mut file = output;
    let length = output.metadata().map_or(0, |facts| facts.len());
    let _ = file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)));
    let mut bytes = Vec::new();
    let _ = file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}
