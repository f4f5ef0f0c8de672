//! What workers say: who they are when they connect, and everything after that.

use super::record;
use crate::config::{Confine, Size};
use crate::daemon::{Daemon, start};
use crate::link::worker::{ConnectionId, FromWorker, Outbox};
use crate::os::failpoint::{self, Place};
use crate::os::process::{facts, peer};
use crate::policy::claim::WorkerId;
use crate::policy::event::Event;
use crate::store::op::Op;
use shiftboss_protocol::PROTOCOL_VERSION;
use shiftboss_protocol::confine::{InForce, Wall};
use shiftboss_protocol::job::{Attempt, JobId};
use shiftboss_protocol::message::{
    GAUGE_NAME_BYTES_MAX, GAUGES_MAX, Gauge, Hello, LogLevel, Receipt, ReceiptOf, Settings,
    SupervisorMessage, Welcome, WorkerMessage,
};
use std::fs::File;
use std::path::{Path, PathBuf};
use subtle::ConstantTimeEq;

/// What a worker may have written on its standard error before the file is cut.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

impl Daemon {
    pub(in crate::daemon) fn on_worker(&mut self, message: FromWorker) {
        match message {
            FromWorker::Hello { connection, pid, hello, outbox } => {
                self.on_hello(connection, pid, hello, outbox);
            }
            FromWorker::Messages(connection, messages) => {
                let Some(worker) = self.fleet.by_connection.get(&connection).copied() else {
                    return;
                };
                for message in messages {
                    self.on_message(worker, message);
                }
            }
            FromWorker::Ended(connection, reason) => self.on_connection_ended(connection, reason),
        }
    }

    fn on_connection_ended(&mut self, connection: ConnectionId, reason: Option<String>) {
        let Some(worker) = self.fleet.by_connection.remove(&connection) else { return };
        if let Some(dying) = self.fleet.dying.get_mut(&worker) {
            dying.on_connection_ended();
            self.look_after_dying();
            return;
        }
        let mut next = None;
        if let Some(one) = self.fleet.processes.get_mut(&worker) {
            one.connection = None;
            next = one.next_hello.take();
        }
        if let Some(reason) = reason {
            let reason = format!("it broke the protocol: {reason}");
            self.handle(Event::WorkerBroken { worker, reason });
        } else if let Some((connection, hello, outbox)) = next {
            self.welcome_worker(worker, connection, &hello, outbox);
        }
    }

    /// Who is it? The process must be one that we hold, spawned by us or by a supervisor before
    /// us, and it must say the token that went to it through its pipe.
    fn on_hello(&mut self, connection: ConnectionId, pid: u32, hello: Hello, outbox: Outbox) {
        let known = self.fleet.by_pid.get(&pid).copied();
        let Some(worker) = known else {
            // Once: a worker of a dead supervisor tries again ten times a second.
            if self.fleet.last_stranger.replace(pid) != Some(pid) {
                tracing::warn!(pid, "a process that is no worker of ours said Hello; refused");
            }
            return;
        };
        let Some(one) = self.fleet.processes.get_mut(&worker) else { return };
        let token = super::hash_of(&hello.token);
        if !bool::from(one.token_sha256.ct_eq(&token)) || one.job_type != hello.job_type {
            tracing::warn!(pid, worker = worker.0, "a Hello without the right token; refused");
            return;
        }
        if one.connection.is_some() {
            // It has left its old connection, which is read to the end first: what it said there
            // counts before what it says now.
            one.next_hello = Some((connection, hello, outbox));
            return;
        }
        self.welcome_worker(worker, connection, &hello, outbox);
    }

    fn welcome_worker(
        &mut self,
        worker: WorkerId,
        connection: ConnectionId,
        hello: &Hello,
        outbox: Outbox,
    ) {
        let refused = if hello.protocol == PROTOCOL_VERSION {
            String::new()
        } else {
            format!(
                "this supervisor speaks protocol version {PROTOCOL_VERSION}, the worker program \
                 ({}) speaks {}: install the same version of both",
                hello.program, hello.protocol
            )
        };
        let Some(one) = self.fleet.processes.get_mut(&worker) else { return };
        one.connection = Some((connection, outbox));
        one.owners.insert(self.instance.clone());
        let is_back = std::mem::replace(&mut one.was_welcome, true);
        one.group = peer::group(one.process.pid());
        let job_type = one.job_type.clone();
        let slot = one.bounds.slot.as_ref().map(|slot| slot.dir().to_owned());
        self.fleet.by_connection.insert(connection, worker);
        self.handle(Event::WorkerHeard(worker));
        failpoint::reach(Place::Greeted);
        let welcome = self.welcome(worker, (&job_type, slot.as_deref()), refused.clone());
        self.send(worker, &SupervisorMessage::Welcome(welcome));
        if refused.is_empty() && is_back {
            let attempts = hello.held.len();
            tracing::info!(worker = worker.0, attempts, "worker {worker} is back");
            let held = hello.held.iter().copied().collect();
            self.handle(Event::WorkerBack { worker, held });
        } else if !refused.is_empty() && is_back {
            tracing::warn!(worker = worker.0, "worker {worker} cannot be taken over: {refused}");
            self.handle(Event::WorkerOutdated(worker));
        } else if !refused.is_empty() {
            self.handle(Event::WorkerBroken { worker, reason: refused });
        }
    }

    fn welcome(
        &self,
        worker: WorkerId,
        (job_type, slot): (&str, Option<&Path>),
        refused: String,
    ) -> Welcome {
        let config = &self.config;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let one = config.types.get(job_type);
        let roots = |pick: fn(&crate::config::Roots) -> &Vec<PathBuf>| {
            one.map_or_else(Vec::new, |one| {
                pick(&one.roots).iter().map(|path| text(path)).collect()
            })
        };
        let [scratch, logs, outcomes] = start::folders_of(config, job_type);
        let settings = Settings {
            worker: worker.0,
            owner: self.instance.clone(),
            scratch_dir: text(&scratch),
            logs_dir: text(&logs),
            term_grace_ms: one.map_or(10_000, |one| one.grace.term.millis()),
            log_bytes_max: config.log.attempt_max.bytes(),
            read_roots: roots(|roots| &roots.read),
            write_roots: roots(|roots| &roots.write),
            forbidden: config.private_paths().iter().map(|path| text(path)).collect(),
            ffmpeg: text(Path::new(&config.tools.ffmpeg)),
            ffprobe: text(Path::new(&config.tools.ffprobe)),
            orphan_grace_ms: one.map_or(600_000, |one| one.orphan_grace.millis()),
            outcomes_dir: text(&outcomes),
            program_files_max: one.and_then(|one| one.limits.files).unwrap_or(0),
            cgroup_slot: slot.map(text).unwrap_or_default(),
            program_processes_max: one.and_then(|one| one.limits.pids).unwrap_or(0),
            program_cpus_max: one.and_then(|one| one.limits.cpu).unwrap_or(0.0),
            program_file_bytes_max: one.and_then(|it| it.limits.file_size).map_or(0, Size::bytes),
            confine: one.map_or_else(Default::default, |one| one.confine.into()),
            network: one.map_or_else(Default::default, |one| (&one.network).into()),
            devices: one
                .map_or_else(Vec::new, |one| one.devices.iter().map(|path| text(path)).collect()),
            providers_dir: config.providers_dir().as_deref().map(text).unwrap_or_default(),
            sessions_dir: text(&config.runtime_dir.join("sessions")),
            profiles: config
                .profiles
                .iter()
                .map(|(name, profile)| (name.clone(), profile.payload()))
                .collect(),
        };
        Welcome {
            protocol: PROTOCOL_VERSION,
            refused,
            workload: one.map_or_else(|| job_type.to_owned(), |one| one.workload.clone()),
            concurrency: one.map_or(1, |one| one.concurrency),
            settings: serde_json::to_string(&settings).expect("plain data has a JSON form"),
        }
    }

    fn on_message(&mut self, worker: WorkerId, message: WorkerMessage) {
        match message {
            WorkerMessage::Hello(_) => {
                let reason = "it broke the protocol: a second Hello".to_owned();
                self.handle(Event::WorkerBroken { worker, reason });
            }
            WorkerMessage::Ready(ready) if self.is_too_free(worker, &ready.confinement) => {
                let reason = too_free(&ready.confinement);
                self.handle(Event::WorkerBroken { worker, reason });
            }
            WorkerMessage::Ready(ready) => {
                let abilities = ready.abilities.join(", ");
                tracing::info!(worker = worker.0, abilities, "worker {worker} is ready");
                let confinement = self.confinement(worker, &ready.confinement).as_str().into();
                self.handle(Event::WorkerReady { worker, confinement });
            }
            WorkerMessage::Heartbeat => {
                if let Some(one) = self.fleet.processes.get(&worker) {
                    cut(&one.output);
                }
                self.handle(Event::WorkerHeard(worker));
            }
            WorkerMessage::Progress { job, attempt, fraction, note } => {
                if self.is_running(worker, (job, attempt)) {
                    self.live.progress(job, attempt, fraction, note);
                    self.handle(Event::Progress { worker, job, attempt });
                }
            }
            WorkerMessage::Checkpoint { job, attempt, data } => {
                self.checkpoint(worker, job, attempt, data)
            }
            WorkerMessage::Started { job, attempt, launcher_pid } => {
                tracing::debug!(
                    job = job.0,
                    attempt = attempt.0,
                    worker = worker.0,
                    launcher_pid,
                    "a program of job {job} is being launched"
                );
                failpoint::reach(Place::Launched);
                self.on_started(worker, (job, attempt), launcher_pid);
                self.handle(Event::WorkerHeard(worker));
            }
            WorkerMessage::Finished { job, attempt, outcome, usage } => {
                failpoint::reach(Place::Finished);
                self.on_ended(worker, (job, attempt));
                self.look_at_worker(worker);
                self.handle(Event::Finished { worker, job, attempt, outcome, usage });
            }
            WorkerMessage::Confined { job, attempt, confinement } => {
                if self.is_running(worker, (job, attempt)) {
                    let confinement = self.confinement(worker, &confinement);
                    self.store.send(Op::Confined { job, attempt, confinement });
                }
            }
            WorkerMessage::Gauges(gauges) => self.on_gauges(worker, gauges),
            WorkerMessage::Log { level, job, text } => log(worker, level, job, &text),
        }
    }

    fn on_gauges(&mut self, worker: WorkerId, gauges: Vec<Gauge>) {
        if let Some(one) = self.fleet.processes.get_mut(&worker) {
            one.gauges = gauges.into_iter().filter_map(kept).take(GAUGES_MAX).collect();
        }
    }

    /// What holds a worker or a program by its own words, and what holds it from outside.
    fn confinement(&self, worker: WorkerId, said: &str) -> String {
        let bounds = self.fleet.processes.get(&worker).map(|one| &one.bounds);
        bounds.map_or_else(|| said.to_owned(), |bounds| bounds.confinement(said))
    }

    /// Whether a worker of a type that requires confinement has not put it on, by its own words:
    /// another library, or none, may know nothing of it.
    fn is_too_free(&self, worker: WorkerId, said: &str) -> bool {
        let one = self.fleet.processes.get(&worker);
        let job_type = one.and_then(|one| self.config.types.get(&one.job_type));
        job_type.is_some_and(|one| one.confine == Confine::Require) && !is_confined(said)
    }

    /// Whether the worker may still say something of this attempt.
    fn is_running(&self, worker: WorkerId, (job, attempt): (JobId, Attempt)) -> bool {
        let run = self.crew.run_view(self.clock.now(), job);
        run.is_some_and(|run| run.worker == worker && run.attempt == attempt && !run.ended)
    }

    /// Remembers the launcher for our successor; and for us, where it will not become our child
    /// when its worker dies.
    fn on_started(&mut self, worker: WorkerId, key: (JobId, Attempt), launcher_pid: u32) {
        let Some(one) = self.fleet.processes.get_mut(&worker) else { return };
        let parent = one.process.pid();
        if facts::stat(launcher_pid).is_none_or(|stat| stat.parent != parent) {
            // It has ended already, or it is not the worker's to name.
            return;
        }
        let (dir, boot_id) = (&self.fleet.record_dir, &self.fleet.boot_id);
        record::write_launcher(dir, key, launcher_pid, boot_id);
        if !one.is_child
            && let Some(launcher) = record::launcher(dir, key, boot_id)
        {
            one.launchers.insert(key, launcher);
        }
    }

    /// The attempt's tree is dead: its launcher need not be known any longer.
    fn on_ended(&mut self, worker: WorkerId, key: (JobId, Attempt)) {
        let Some(one) = self.fleet.processes.get_mut(&worker) else { return };
        one.launchers.remove(&key);
        record::remove_launcher(&self.fleet.record_dir, key);
    }

    fn checkpoint(&mut self, worker: WorkerId, job: JobId, attempt: Attempt, data: Vec<u8>) {
        if self.is_running(worker, (job, attempt)) {
            self.store.send(Op::Checkpoint { job, attempt, data });
        } else {
            let receipt = Receipt { job, attempt, of: ReceiptOf::Checkpoint, stale: true };
            self.send(worker, &SupervisorMessage::Recorded { receipts: vec![receipt] });
        }
        self.handle(Event::WorkerHeard(worker));
    }
}

fn log(worker: WorkerId, level: LogLevel, job: Option<JobId>, text: &str) {
    let job = job.map(|job| job.0);
    match level {
        LogLevel::Debug => tracing::debug!(worker = worker.0, job, "{text}"),
        LogLevel::Info => tracing::info!(worker = worker.0, job, "{text}"),
        LogLevel::Warn => tracing::warn!(worker = worker.0, job, "{text}"),
    }
}

/// A gauge that is shown as it is: a worker may say anything.
fn kept(gauge: Gauge) -> Option<(String, f64)> {
    let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    let Gauge { name, value } = gauge;
    let is_name = (1..=GAUGE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain);
    (is_name && value.is_finite()).then_some((name, value))
}

fn cut(output: &File) {
    if output.metadata().is_ok_and(|facts| facts.len() > OUTPUT_BYTES_MAX) {
        // Opened for appending, so the worker's next line goes to the new end.
        let _ = output.set_len(0);
    }
}

fn too_free(said: &str) -> String {
    format!(
        "its type requires confinement, and it says that it has {said}: `shiftboss doctor` tells \
         what a missing wall needs; who names none needs this version's library; confine = \
         \"best-effort\" goes without"
    )
}

/// What every worker of the library puts on, whether or not it starts programs.
fn is_confined(said: &str) -> bool {
    let in_force = InForce::parse(said);
    let has = |wall| in_force.holds().contains(&wall);
    has(Wall::Seccomp) && has(Wall::NoNewPrivs) && in_force.missing().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_kept_when_it_can_be_shown_as_it_is() {
        let kept = |name: &str, value| kept(Gauge { name: name.to_owned(), value });
        assert_eq!(kept("poll_lag_ms", 1.5), Some(("poll_lag_ms".to_owned(), 1.5)));
        for (name, value) in [
            ("", 1.0),
            ("Lag", 1.0),
            ("\u{1b}[2J", 1.0),
            (&"x".repeat(GAUGE_NAME_BYTES_MAX + 1), 1.0),
            ("lag", f64::NAN),
            ("lag", f64::INFINITY),
        ] {
            assert_eq!(kept(name, value), None, "{name} {value}");
        }
    }

    #[test]
    fn a_worker_is_confined_when_nothing_is_missing_of_what_all_put_on() {
        assert!(is_confined("seccomp, no-new-privs"));
        assert!(is_confined("user-ns, mount-ns, landlock-7, seccomp, no-new-privs, rlimits"));
        for said in ["", "none", "user-ns, mount-ns", "seccomp, no-new-privs; missing: net-ns (no)"]
        {
            assert!(!is_confined(said), "{said}");
        }
    }
}
