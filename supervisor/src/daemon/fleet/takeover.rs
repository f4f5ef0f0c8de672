//! Takes over what a supervisor before us left: its workers as ours, and outcomes without a worker.

use super::WorkerProcess;
use super::age::{self, WorkerAge};
use super::recovery::{Living, Recovery, Written};
use super::slots::{Bounds, limits_of};
use crate::daemon::Daemon;
use crate::os::process::facts;
use crate::policy::claim::{TakenJob, WorkerId};
use crate::policy::crew::{FoundRun, Survivor};
use crate::policy::event::{Event, Exit};
use crate::store::OwnedJob;
use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

impl Daemon {
    /// Takes over what a supervisor before us left.
    pub(in crate::daemon) fn take_over(&mut self, recovery: Recovery) {
        for one in recovery.living {
            self.take_over_worker(one);
        }
        let mut by_type = BTreeMap::<String, Vec<Written>>::new();
        for one in recovery.written {
            by_type.entry(one.job.job_type.clone()).or_default().push(one);
        }
        for (job_type, written) in by_type {
            self.store_written(&job_type, written);
        }
    }

    fn take_over_worker(&mut self, one: Living) {
        let Living { process, mut record, record_path, jobs, launchers, owners, slot } = one;
        // On record before it is welcomed: from then on its programs carry our name.
        record.owners.extend(owners.iter().cloned().chain([self.instance.clone()]));
        if let Err(error) = record.write(&record_path) {
            tracing::warn!(%error, "cannot note on record that a worker was taken over");
        }
        let output = match self.open_output(&record.job_type, record.slot) {
            Ok(output) => output,
            Err(error) => {
                // It is not needed for the work, only for last words.
                tracing::warn!(error, "a worker that is taken over keeps its own log");
                match File::open("/dev/null") {
                    Ok(null) => null,
                    Err(_) => return,
                }
            }
        };
        let worker = self.crew.reserve_worker();
        let age = facts::age(record.start_ticks);
        let age = WorkerAge { started_ms: record.started_ms, age };
        let now_ms = self.clock.now().unix_ms;
        let run =
            |job: &OwnedJob| found_run(worker, job, age::ran_for(now_ms, job.started_at_ms, age));
        let runs = jobs.iter().map(run).collect();
        let pid = process.pid();
        let job_type = self.config.types.get(&record.job_type);
        let limits = job_type.map(|one| limits_of(&self.config, one)).unwrap_or_default();
        let found = WorkerProcess {
            is_child: facts::stat(pid).is_some_and(|stat| stat.parent == std::process::id()),
            process,
            token_sha256: record.token_sha256,
            job_type: record.job_type.clone(),
            connection: None,
            next_hello: None,
            was_welcome: true,
            group: None,
            owners,
            launchers,
            output,
            lock: record.lock,
            record: record_path,
            bounds: Bounds::found(slot, &limits),
            gauges: BTreeMap::new(),
        };
        self.fleet.by_pid.insert(pid, worker);
        self.announce_end(worker, &found.process);
        self.fleet.processes.insert(worker, found);
        self.handle(Event::WorkerFound(Survivor {
            worker,
            job_type: record.job_type.as_str().into(),
            slot: record.slot,
            pid: Some(pid),
            started_ms: record.started_ms,
            workload: record.workload,
            concurrency: record.concurrency,
            runs,
        }));
    }

    /// Outcomes of workers that are gone, as if their worker had said them just before its end.
    fn store_written(&mut self, job_type: &str, written: Vec<Written>) {
        let worker = self.crew.reserve_worker();
        let run = |one: &Written| found_run(worker, &one.job, Duration::ZERO);
        let runs: Vec<_> = written.iter().map(run).collect();
        tracing::info!(
            job_type,
            jobs = runs.len(),
            "workers wrote outcomes down while there was no supervisor; they are stored now"
        );
        self.handle(Event::WorkerFound(Survivor {
            worker,
            job_type: job_type.into(),
            slot: 0,
            pid: None,
            started_ms: self.clock.now().unix_ms,
            workload: String::new(),
            concurrency: u32::try_from(runs.len()).unwrap_or(u32::MAX),
            runs,
        }));
        for one in written {
            let (job, attempt) = (one.job.job, one.job.attempt);
            self.fleet.written.insert((job, attempt), one.path);
            let (outcome, usage) = (one.stored.outcome, one.stored.usage);
            self.handle(Event::Finished { worker, job, attempt, outcome, usage });
        }
        self.handle(Event::WorkerExited { worker, exit: Exit::default() });
    }
}

fn found_run(worker: WorkerId, job: &OwnedJob, ran_for: Duration) -> FoundRun {
    FoundRun {
        taken: TakenJob {
            job: job.job,
            attempt: job.attempt,
            job_type: job.job_type.as_str().into(),
            worker,
            failures: job.failures,
            crash_count: job.crash_count,
            attempts_max: job.attempts_max,
            timeout_ms: job.timeout_ms,
        },
        ran_for,
        cancel_asked: job.cancel_requested,
    }
}
