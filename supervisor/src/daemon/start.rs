//! The order of starting. Every step says what to do when it fails.

use super::fleet::{Fleet, recovery, slots};
use super::inputs::Input;
use super::live::Live;
use super::neighbours::Neighbours;
use super::queries::Queries;
use super::retention::Retention;
use super::{Daemon, Leaving, PATIENCE, Sources};
use crate::clock::{Clock, unix_ms};
use crate::config::{Config, ConfigError, LoadOptions, WalMode};
use crate::os::ladder::Rung;
use crate::os::process::{orphans, spawn};
use crate::os::readiness::Readiness;
use crate::os::watch::Watch;
use crate::os::{dirs, host, lock, signals};
use crate::policy::crew::Crew;
use crate::store::Error as StoreError;
use crate::store::writer::{self, Started};
use crate::store::{InstanceRow, OpenOptions, WalPolicy};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// Why the supervisor does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// tokio cannot be started.
    #[error("cannot start the event loop")]
    Runtime(#[source] std::io::Error),
    /// A folder cannot be used.
    #[error(transparent)]
    Folder(#[from] dirs::Error),
    /// Another supervisor of this name runs on this database.
    #[error(
        "another supervisor named {name} runs on database {database} (it holds {lock}): stop it, \
         or start this one under another name with INSTANCE_ID"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// The database.
        database: PathBuf,
        /// Its lock file.
        lock: PathBuf,
    },
    /// The lock file cannot be made.
    #[error("cannot make lock file {0}: its folder must exist and be writable")]
    Lock(PathBuf, #[source] std::io::Error),
    /// A type requires what this host does not offer.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The job table is refused.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// A socket cannot be opened.
    #[error(transparent)]
    Link(#[from] crate::link::Error),
    /// The program that should have taken this one's place could not.
    #[error("cannot become the new supervisor program; the workers wait for the next start")]
    Successor(#[source] std::io::Error),
    /// Something of the process itself cannot be set up.
    #[error("cannot {0}")]
    Process(&'static str, #[source] std::io::Error),
    /// Not at the start: it stopped without being able to store everything.
    #[error("stopped while the job table could not be written: {0}")]
    Unstored(String),
}

impl Error {
    /// True when the same configuration can never start: systemd must not try again.
    #[must_use]
    pub fn is_refused_configuration(&self) -> bool {
        match self {
            Self::Folder(_) | Self::NameTaken { .. } | Self::Link(_) | Self::Config(_) => true,
            // What such a file holds, or forbids, does not change by trying again.
            Self::Store(StoreError::NotADatabase { .. } | StoreError::ReadOnly { .. }) => true,
            Self::Store(error) => !error.is_trouble() || error.is_damage(),
            Self::Lock(_, error) => matches!(
                error.kind(),
                ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied | ErrorKind::NotFound
            ),
            Self::Runtime(_) | Self::Process(..) | Self::Successor(_) | Self::Unstored(_) => false,
        }
    }
}

/// Where this instance's workers connect, below their own folder: it is all that they see.
pub(super) fn worker_dir(config: &Config) -> PathBuf {
    config.instance_dir().join("w")
}

pub(super) fn worker_socket(config: &Config) -> PathBuf {
    worker_dir(config).join("worker.sock")
}

/// The locks that workers hold for life. Not below [`worker_dir`]: none is to touch another's.
pub(super) fn lock_dir(config: &Config) -> PathBuf {
    config.instance_dir().join("locks")
}

/// Where clients connect.
fn control_socket(config: &Config) -> PathBuf {
    config.instance_dir().join("control.sock")
}

/// Where programs' output goes: a folder per type, in it one per job. So are scratch and outcomes
/// divided, because a sealed worker sees those of its type.
pub(super) fn logs_dir(config: &Config) -> PathBuf {
    config.work_dir.join("logs")
}

pub(super) fn worker_logs(config: &Config) -> PathBuf {
    config.work_dir.join("workers")
}

pub(super) fn scratch_dir(config: &Config) -> PathBuf {
    config.work_dir.join("scratch")
}

/// Where workers write outcomes down that they can tell nobody.
pub(super) fn outcomes_dir(config: &Config) -> PathBuf {
    config.work_dir.join("outcomes")
}

/// What workers of this type see of scratch, logs and outcomes. They are made here; a worker that
/// finds one missing says what it could not do.
pub(super) fn folders_of(config: &Config, job_type: &str) -> [PathBuf; 3] {
    [scratch_dir(config), logs_dir(config), outcomes_dir(config)].map(|base| {
        let folder = base.join(job_type);
        if let Err(error) = dirs::private(&folder) {
            tracing::warn!("workers of type {job_type} will miss a folder: {error}");
        }
        folder
    })
}

/// Where the next supervisor of this name finds our workers. Not below [`worker_dir`].
pub(super) fn record_dir(config: &Config, instance: &str) -> PathBuf {
    config.runtime_dir.join(instance).join("records")
}

pub(super) fn remove_sockets(config: &Config) {
    for path in [control_socket(config), worker_socket(config)] {
        let _ = std::fs::remove_file(path);
    }
}

pub(super) async fn start(
    config: Config,
    options: LoadOptions,
    ladder: Vec<Rung>,
) -> Result<(Daemon, Sources), Error> {
    let clock = Clock::start();
    let (inputs, input_queue) = mpsc::unbounded_channel();
    listen_to_signals(&inputs)?;
    let instance = instance_row(&config, clock.now().unix_ms);
    make_folders(&config)?;
    let held = take_name(&config, &instance.id)?;
    spawn::keep_descriptors_private()
        .map_err(|error| Error::Process("keep descriptors from workers", error))?;
    orphans::adopt_orphans().map_err(|error| Error::Process("adopt orphans", error))?;
    let mut watch = open_watch(&config);
    let started = open_store(&config, &instance, &inputs)?;
    let watched = prove_watch(watch.as_mut()).await;
    let mut neighbours = Neighbours::new(&config);
    let groups = slots::set_up(&config);
    let looked = (recovery::Moment::Start, groups.as_ref().ok());
    let recovery = recovery::recover(&config, &started.others, &started.handle, looked);
    neighbours.postpone(&recovery.postponed);
    let (workers, worker_queue) = mpsc::channel(256);
    let (calls, call_queue) = mpsc::channel(64);
    crate::link::worker::serve(&worker_socket(&config), workers)?;
    let uid = options.uid;
    crate::link::control::serve(&control_socket(&config), uid, calls)?;
    let queries = Queries::start(config.database.clone(), config.table_prefix.clone())
        .map_err(|error| Error::Process("start the thread for queries", error))?;
    let paused: BTreeSet<String> = started.paused.iter().cloned().collect();
    let seed = u64::from_le_bytes(host::random_bytes());
    let crew = Crew::new(clock.now(), config.policy_settings(), &paused, seed);
    announce(&config, &instance, watched, &paused);
    announce_settings(&config, &ladder);
    let daemon = Daemon {
        options,
        ladder,
        crew,
        store: started.handle,
        store_thread: Some(started.thread),
        queries,
        retention: Retention::start(clock.now()),
        manager: super::service::Manager::from_environment(),
        inputs,
        fleet: Fleet::new(&config, &instance.id, groups),
        neighbours,
        recovery: Some(recovery),
        live: Live::default(),
        parcels: HashMap::new(),
        pending: VecDeque::new(),
        moves: Vec::new(),
        started_ms: unix_ms(),
        instance: instance.id,
        watched,
        trouble: None,
        stops: 0,
        exiting: false,
        leaving: Leaving::Stop,
        unstored: None,
        _lock: held,
        clock,
        config,
    };
    let sources = Sources { inputs: input_queue, workers: worker_queue, calls: call_queue, watch };
    Ok((daemon, sources))
}

fn listen_to_signals(inputs: &mpsc::UnboundedSender<Input>) -> Result<(), Error> {
    let inputs = inputs.clone();
    signals::listen(move |signal| inputs.send(Input::Signal(signal)).is_ok())
        .map_err(|error| Error::Process("listen to signals", error))
}

fn instance_row(config: &Config, now_ms: i64) -> InstanceRow {
    let boot_id = host::boot_id();
    let random = u32::from_le_bytes(host::random_bytes());
    let boot: String = boot_id.chars().take(8).collect();
    InstanceRow {
        id: format!("{}-{boot}-{random:08x}", config.instance),
        boot_id,
        host: host::host_name(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at_ms: now_ms,
    }
}

fn make_folders(config: &Config) -> Result<(), Error> {
    // Made with the work folder beside the database, a folder that was never meant would do.
    if let Some(folder) = config.database.parent().filter(|folder| !folder.is_dir()) {
        let (path, folder) = (config.database.clone(), folder.to_owned());
        return Err(StoreError::NoFolder { path, folder }.into());
    }
    // Each level is checked: under /tmp anybody could have made any of them first.
    if let Some(parent) = config.runtime_dir.parent()
        && parent.file_name().is_some_and(|name| name.to_string_lossy().starts_with("shiftboss"))
    {
        dirs::private(parent)?;
    }
    for path in [&config.runtime_dir, &config.instance_dir(), &worker_dir(config)] {
        dirs::private(path)?;
    }
    dirs::private(&lock_dir(config))?;
    dirs::private(&record_dir(config, &config.instance))?;
    for path in [&config.work_dir, &logs_dir(config), &worker_logs(config), &scratch_dir(config)] {
        dirs::private(path)?;
    }
    dirs::private(&outcomes_dir(config))?;
    if dirs::is_tmpfs(&config.work_dir) {
        tracing::warn!(
            work_dir = %config.work_dir.display(),
            "work_dir lies in memory (tmpfs): logs and unfinished outputs are lost by a power cut; \
             set work_dir to a folder on a disk"
        );
    }
    Ok(())
}

/// How long the child of a supervisor that was killed may hold its name.
const NAME_WAIT: Duration = Duration::from_secs(2);

fn take_name(config: &Config, id: &str) -> Result<lock::Held, Error> {
    let path = config.lock_file();
    let note = format!("{id} pid {}\n", std::process::id());
    match lock::acquire_within(&path, &note, NAME_WAIT) {
        Ok(Some(held)) => Ok(held),
        Ok(None) => Err(Error::NameTaken {
            name: config.instance.clone(),
            database: config.database.clone(),
            lock: path,
        }),
        Err(error) => Err(Error::Lock(path, error)),
    }
}

fn open_watch(config: &Config) -> Option<(Readiness, Watch)> {
    let ready = |watch: Watch| Ok((Readiness::new(watch.notice()?)?, watch));
    let watch = Watch::new(&config.database).and_then(ready);
    if let Err(error) = &watch {
        tracing::warn!(
            %error,
            "commits of other programs cannot be noticed; the table is polled at least once a \
             second instead (fs.inotify.max_user_watches may be used up)"
        );
    }
    watch.ok()
}

fn open_store(
    config: &Config,
    instance: &InstanceRow,
    inputs: &mpsc::UnboundedSender<Input>,
) -> Result<Started, Error> {
    let folder = config.database.parent().map(PathBuf::from).unwrap_or_default();
    let options = OpenOptions {
        path: config.database.clone(),
        prefix: config.table_prefix.clone(),
        wal: match config.wal {
            WalMode::Default => WalPolicy::Require,
            WalMode::Switch => WalPolicy::Switch,
        },
        network_fs: dirs::network_file_system(&folder).map(str::to_owned),
    };
    let inputs = inputs.clone();
    let events = Box::new(move |event| {
        // The receiver outlives the store; a late event has nobody to care for it.
        let _ = inputs.send(Input::Store(event));
    });
    Ok(writer::start(options, instance.clone(), events)?)
}

/// The store has just written its instance row: the watch must have seen that.
async fn prove_watch(watch: Option<&mut (Readiness, Watch)>) -> bool {
    let Some((ready, watch)) = watch else { return false };
    let noticed = async {
        while matches!(watch.take(), Ok(false)) {
            if ready.wait().await.is_err() {
                return false;
            }
        }
        true
    };
    let seen = tokio::time::timeout(PATIENCE, noticed).await.unwrap_or(false);
    if !seen {
        tracing::warn!(
            "our own first commit was not noticed on this file system; the table is polled at \
             least once a second instead"
        );
    }
    seen
}

fn announce(config: &Config, instance: &InstanceRow, watched: bool, paused: &BTreeSet<String>) {
    tracing::info!(
        instance = instance.id,
        version = instance.version,
        sqlite = crate::store::sqlite_version(),
        database = %config.database.display(),
        work_dir = %config.work_dir.display(),
        control = %control_socket(config).display(),
        watched,
        "started"
    );
    for name in paused {
        tracing::info!(job_type = name, "type {name} is paused; `shiftboss resume {name}` goes on");
    }
}

/// What is switched off, and the pace of the fallback poll: at the start and after a reload.
pub(super) fn announce_settings(config: &Config, ladder: &[Rung]) {
    if !config.workers_enabled {
        tracing::warn!(
            "all workers are switched off ({}): jobs wait until that is changed",
            config.origin("workers_enabled")
        );
    }
    for (name, _) in config.types.iter().filter(|(_, one)| !one.enabled) {
        let origin = config.origin(&format!("types.{name}.enabled"));
        let text = format!("type {name} is switched off ({origin}): its jobs wait");
        tracing::warn!(job_type = name, "{text}");
    }
    for (name, pieces) in config.lacks(ladder) {
        let words: Vec<_> = pieces.iter().map(|piece| piece.word()).collect();
        tracing::warn!(
            job_type = name,
            "work of type {name} runs without {}, which this host does not offer: `shiftboss \
             doctor` names the remedies",
            words.join(", ")
        );
    }
    let poll = &config.poll;
    tracing::info!(
        "fallback poll: the table is looked at every {} (active interval, {}), while idle ever \
         more seldom up to every {}; commits of other programs are noticed in between",
        poll.idle_min,
        config.origin("poll.idle_min"),
        poll.idle_max
    );
}
