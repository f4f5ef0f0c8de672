//! The worker processes: spawned, recognised when they connect, heard ([`hear`]), seen gone
//! ([`dying`]), held in control groups ([`slots`]); and taken over ([`takeover`]) from a supervisor
//! before us ([`recovery`]), by what it put on record ([`record`]) and what its workers wrote down
//! ([`outcomes`]).

mod age;
mod dying;
mod hear;
mod memory;
mod outcomes;
mod record;
pub(in crate::daemon) mod recovery;
pub(in crate::daemon) mod slots;
mod takeover;

use super::Daemon;
use super::carry::PendingTake;
use super::inputs::Input;
use crate::config::{Config, JobType, Network};
use crate::link::worker::{ConnectionId, Outbox};
use crate::os::cgroup::slot::Slot;
use crate::os::cgroup::tree::Tree;
use crate::os::failpoint::{self, Place};
use crate::os::host::{self, random_bytes};
use crate::os::lock;
use crate::os::process::spawn::{self, LOCK_FD, TOKEN_FD};
use crate::os::process::{Process, facts, leftovers, peer};
use crate::os::readiness::Readiness;
use crate::policy::claim::WorkerId;
use dying::Dying;
use memory::Looking;
use record::{Launcher, WorkerRecord};
use sha2::{Digest, Sha256};
use shiftboss_protocol::job::{Attempt, JobId};
use shiftboss_protocol::message::{Hello, SupervisorMessage, TOKEN_BYTES};
use slots::{Bounds, Groups, Throttling, limits_of};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Programs found by name are looked up here, whatever the supervisor's own PATH is.
pub(super) const PROGRAM_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All worker processes of this supervisor.
pub(super) struct Fleet {
    processes: BTreeMap<WorkerId, WorkerProcess>,
    by_pid: HashMap<u32, WorkerId>,
    by_connection: HashMap<ConnectionId, WorkerId>,
    /// The process whose Hello was refused last.
    last_stranger: Option<u32>,
    /// Workers that have ended, until everything of theirs is gone.
    dying: BTreeMap<WorkerId, Dying>,
    /// A look at the table that the policy wants, sent after the outcomes of this turn.
    pub(super) take: PendingTake,
    /// Outcomes that were read from files, which go when they are stored.
    written: HashMap<(JobId, Attempt), PathBuf>,
    record_dir: PathBuf,
    boot_id: String,
    groups: Groups,
    throttling: Throttling,
    looking: Looking,
    /// Groups of workers that are gone, which the kernel has not let go yet.
    unremoved: Vec<Slot>,
    own_group: Option<String>,
    /// Part of every file name, so that workers of supervisors before us keep theirs.
    mark: String,
}

struct WorkerProcess {
    process: Process,
    token_sha256: [u8; 32],
    job_type: String,
    connection: Option<(ConnectionId, Outbox)>,
    /// A connection that waits for the end of the one before it.
    next_hello: Option<(ConnectionId, Hello, Outbox)>,
    /// It was welcomed once, by us or by a supervisor before us.
    was_welcome: bool,
    /// Its cgroup, known when it is welcomed.
    group: Option<String>,
    /// Whether we can wait for it, and get its orphans.
    is_child: bool,
    /// Instances under which its programs were started.
    owners: BTreeSet<String>,
    /// Launchers of its programs, where it is not our child.
    launchers: BTreeMap<(JobId, Attempt), Launcher>,
    output: File,
    lock: PathBuf,
    record: PathBuf,
    bounds: Bounds,
    /// What it last said of itself.
    gauges: BTreeMap<String, f64>,
}

/// What is stored of a token: a hash says nothing to whoever reads it.
fn hash_of(token: &[u8; TOKEN_BYTES]) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl Fleet {
    /// What a worker last said of itself.
    pub(super) fn gauges(&self, worker: WorkerId) -> Option<&BTreeMap<String, f64>> {
        self.processes.get(&worker).map(|one| &one.gauges)
    }

    /// How much later than wanted operations are asked for, milliseconds: the worst of the workers
    /// of a type, or of all. `None`: no worker tells it.
    pub(super) fn poll_lag_ms(&self, job_type: Option<&str>) -> Option<f64> {
        let is_its = |one: &&WorkerProcess| job_type.is_none_or(|name| one.job_type == name);
        let told = self.processes.values().filter(is_its);
        told.filter_map(|one| one.gauges.get("poll_lag_ms").copied()).reduce(f64::max)
    }

    /// A fleet without workers, of the instance with this id.
    pub(super) fn new(config: &Config, instance: &str, groups: Groups) -> Self {
        Self {
            processes: BTreeMap::new(),
            by_pid: HashMap::new(),
            by_connection: HashMap::new(),
            last_stranger: None,
            dying: BTreeMap::new(),
            take: None,
            written: HashMap::new(),
            record_dir: super::start::record_dir(config, &config.instance),
            boot_id: host::boot_id(),
            groups,
            throttling: Throttling::default(),
            looking: Looking::default(),
            unremoved: Vec::new(),
            own_group: peer::group(std::process::id()),
            mark: instance.rsplit('-').next().unwrap_or(instance).to_owned(),
        }
    }

    /// The outcomes of these attempts are stored: their files are not needed any more.
    pub(super) fn forget_written(&mut self, keys: impl IntoIterator<Item = (JobId, Attempt)>) {
        for path in keys.into_iter().filter_map(|key| self.written.remove(&key)) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// How many worker processes there are.
    pub(super) fn count(&self) -> usize {
        self.processes.len()
    }

    pub(super) fn send(&self, worker: WorkerId, message: &SupervisorMessage) -> Result<(), String> {
        let outbox = self.processes.get(&worker).and_then(|one| one.connection.as_ref());
        match outbox {
            Some((_, outbox)) => outbox.send(message).map_err(|error| error.to_string()),
            // It has ended already; its end is on its way to the policy.
            None => Ok(()),
        }
    }

    pub(super) fn terminate(&self, worker: WorkerId) {
        if let Some(one) = self.processes.get(&worker) {
            one.process.terminate();
        }
    }

    pub(super) fn kill(&self, worker: WorkerId) {
        if let Some(one) = self.processes.get(&worker) {
            one.process.kill();
            if let Some(slot) = &one.bounds.slot {
                slot.kill();
            }
        }
    }

    fn throttled_us(&self, worker: WorkerId) -> Option<u64> {
        self.processes.get(&worker)?.bounds.slot.as_ref()?.throttled_us()
    }

    /// Removes the groups of workers that are gone, as far as the kernel lets them go.
    fn remove_slots(&mut self) {
        self.unremoved.retain(|slot| slot.remove().is_err());
    }

    /// Our groups, for a thread that looks after a neighbour's.
    pub(super) fn tree(&self) -> Option<Tree> {
        self.groups.as_ref().ok().cloned()
    }

    /// Nothing of ours runs any more: our group goes too.
    pub(super) fn dismantle(&mut self) {
        self.remove_slots();
        if let Ok(tree) = &self.groups {
            tree.dismantle();
        }
    }

    /// True for the process id of a worker that has not been reaped.
    pub(super) fn is_worker(&self, pid: u32) -> bool {
        self.by_pid.contains_key(&pid)
    }

    /// The cgroup of this process.
    pub(super) fn own_group(&self) -> Option<&str> {
        self.own_group.as_deref()
    }

    /// The cgroups of all workers that were welcomed.
    pub(super) fn groups(&self) -> impl Iterator<Item = &str> {
        self.processes.values().filter_map(|one| one.group.as_deref())
    }

    /// Process ids of all workers that have not been reaped.
    fn pids(&self) -> BTreeSet<u32> {
        self.by_pid.keys().copied().collect()
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        let dying = self.dying.values().map(|one| one.next_look);
        dying.chain(self.looking.next()).min()
    }
}

impl Daemon {
    /// Starts the process of a worker; returns its process id, or why there is none.
    pub(super) fn spawn(
        &mut self,
        worker: WorkerId,
        job_type: &str,
        slot: u32,
    ) -> Result<u32, String> {
        let process = self.start_process(worker, job_type, slot).map_err(|error| chain(&*error))?;
        let pid = process.process.pid();
        self.fleet.by_pid.insert(pid, worker);
        self.announce_end(worker, &process.process);
        self.fleet.processes.insert(worker, process);
        Ok(pid)
    }

    fn start_process(
        &self,
        worker: WorkerId,
        job_type: &str,
        slot: u32,
    ) -> Result<WorkerProcess, Box<dyn std::error::Error>> {
        let program = find_program(self.config.worker_of(job_type))?;
        let output = self.worker_output(job_type, slot)?;
        let name = format!("{}.{worker}", self.fleet.mark);
        let lock = super::start::lock_dir(&self.config).join(format!("{name}.lock"));
        let held = self.worker_lock(worker, &lock)?;
        let token: [u8; TOKEN_BYTES] = random_bytes();
        let mut env = vec![
            format!("PATH={PROGRAM_PATH}"),
            "LANG=C.UTF-8".to_owned(),
            format!("{}={}", leftovers::OWNER_VARIABLE, self.instance),
        ];
        let lacking = failpoint::lacking();
        env.extend(lacking.map(|words| format!("{}={words}", failpoint::WORKER_LACK_VARIABLE)));
        if let Some(one) = self.config.types.get(job_type) {
            env.extend(environment_of(one));
        }
        let unknown = JobType::of_workload(job_type, 1);
        let configured = self.config.types.get(job_type).unwrap_or(&unknown);
        let limits = limits_of(&self.config, configured);
        let limited = (&limits, configured.confine);
        let mut bounds = Bounds::make(&self.fleet.groups, limited, (job_type, slot))?;
        // A folder that cannot be opened is told when the process cannot be put into it.
        let cradle = bounds.slot.as_ref().and_then(|slot| slot.cradle().ok());
        let started = spawn::spawn(&spawn::Command {
            program: &program,
            args: &self.arguments(job_type),
            env: &env,
            token: &token,
            lock: held.file().as_fd(),
            output: output.as_fd(),
            group: cradle.as_ref().map(AsFd::as_fd),
        })?;
        let process = started.process;
        if !started.is_in_group
            && let Err(reason) = bounds.take_in(limited, &process)
        {
            process.kill();
            return Err(reason.into());
        }
        failpoint::reach(Place::Spawned);
        // The worker has its copy of the lock now; ours ends here, so that the lock ends with it.
        drop(held);
        let token_sha256 = hash_of(&token);
        let record = record::worker_path(&self.fleet.record_dir, &name);
        let group = bounds.slot.as_ref();
        self.put_on_record(&record, (&lock, group), &process, token_sha256, (job_type, slot));
        Ok(WorkerProcess {
            process,
            token_sha256,
            job_type: job_type.to_owned(),
            connection: None,
            next_hello: None,
            was_welcome: false,
            group: None,
            is_child: true,
            owners: BTreeSet::from([self.instance.clone()]),
            launchers: BTreeMap::new(),
            output,
            lock,
            record,
            bounds,
            gauges: BTreeMap::new(),
        })
    }

    fn arguments(&self, job_type: &str) -> Vec<String> {
        let socket = super::start::worker_socket(&self.config);
        [
            ("--socket", socket.to_string_lossy().into_owned()),
            ("--type", job_type.to_owned()),
            ("--token-fd", TOKEN_FD.to_string()),
            ("--lock-fd", LOCK_FD.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }

    /// Without its record a worker ends with this supervisor; everything else goes on.
    fn put_on_record(
        &self,
        path: &Path,
        (lock, group): (&Path, Option<&Slot>),
        process: &Process,
        token_sha256: [u8; 32],
        (job_type, slot): (&str, u32),
    ) {
        let pid = process.pid();
        // It has ended already when it has no status: then nobody needs a record.
        let Some(stat) = facts::stat(pid) else { return };
        let configured = self.config.types.get(job_type);
        let record = WorkerRecord {
            version: record::RECORD_VERSION,
            boot_id: self.fleet.boot_id.clone(),
            pid,
            start_ticks: stat.start_ticks,
            token_sha256,
            job_type: job_type.to_owned(),
            slot,
            workload: configured.map_or_else(String::new, |one| one.workload.clone()),
            concurrency: configured.map_or(1, |one| one.concurrency),
            started_ms: self.clock.now().unix_ms,
            owners: BTreeSet::from([self.instance.clone()]),
            lock: lock.to_owned(),
            group: group.map(|slot| slot.dir().to_owned()),
        };
        if let Err(error) = record.write(path) {
            tracing::warn!(
                path = %path.display(),
                %error,
                "cannot put a worker on record: it would not outlive this supervisor"
            );
        }
    }

    fn worker_lock(&self, worker: WorkerId, path: &Path) -> Result<lock::Held, String> {
        match lock::acquire(path, &format!("worker {worker} of {}\n", self.instance)) {
            Ok(Some(held)) => Ok(held),
            Ok(None) => {
                Err(format!("lock {} is held by a process that should be gone", path.display()))
            }
            Err(error) => Err(format!("cannot make lock {}: {error}", path.display())),
        }
    }

    fn worker_output(&self, job_type: &str, slot: u32) -> Result<File, String> {
        let file = self.open_output(job_type, slot)?;
        // The last words of an earlier worker were told when it ended.
        let _ = file.set_len(0);
        Ok(file)
    }

    fn open_output(&self, job_type: &str, slot: u32) -> Result<File, String> {
        let path = super::start::worker_logs(&self.config).join(format!("{job_type}-{slot}.log"));
        let file = File::options().create(true).append(true).read(true).open(&path);
        file.map_err(|error| format!("cannot open {}: {error}", path.display()))
    }

    /// Reports the end of the process as an input.
    fn announce_end(&self, worker: WorkerId, process: &Process) {
        let inputs = self.inputs.clone();
        let notice = process.exit_notice().and_then(Readiness::new);
        tokio::spawn(async move {
            if let Ok(notice) = notice {
                let _ = notice.wait().await;
            }
            let _ = inputs.send(Input::Ended(worker));
        });
    }
}

/// The worker program as an absolute path: a bare name is looked up in our own PATH.
/// The variables of a type. One that asks providers needs more: where it may use TCP only, names
/// are asked for by TCP (resolv.conf(5)), and secrets may be systemd's credentials.
fn environment_of(one: &JobType) -> Vec<String> {
    let mut env: Vec<_> = one.env.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if one.workload != "remote" {
        return env;
    }
    if matches!(one.network, Network::Tcp(_)) {
        env.push("RES_OPTIONS=use-vc".to_owned());
    }
    if let Ok(folder) = std::env::var("CREDENTIALS_DIRECTORY") {
        env.push(format!("CREDENTIALS_DIRECTORY={folder}"));
    }
    env
}

fn find_program(program: &Path) -> Result<PathBuf, String> {
    if program.components().count() > 1 {
        return Ok(program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            format!(
                "worker program {} is neither beside shiftboss nor in PATH: install it or set \
                 worker = \"/path/to/it\"",
                program.display()
            )
        })
}

/// An error and its causes as one sentence.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
