//! The configuration: a file, the environment over it, defaults below it, checked as a whole.
//!
//! [`Config::load`] gives plain data in which every relation holds, or one report of everything
//! that is wrong. It reads at most one file and creates nothing. [`keys`] lists what can be
//! written, [`layers`] merges it, [`relation`] holds the rules between values.

mod environment;
mod file;
mod foreign;
mod job_type;
mod keys;
mod layers;
mod place;
mod problem;
mod relation;
mod shown;
mod unit;

pub use file::{Log, LogFormat, LogLevel, Poll, Retention, Tools, WalMode, schema};
pub use job_type::{
    Confine, JobType, Limits, Network, Recycle, Restart, Retry, Roots, Stopping, Variables, Workers,
};
pub use keys::profile::{Bounded, Profile, Rendition};
pub use problem::{ConfigError, Origin, Problem, Reason, Warning};
pub(crate) use shown::toml_text;
pub use shown::{ReloadDifferences, ShownValue, reload_differences};
pub use unit::{Forever, NoLimit, Size, Span, SpanOr};

use crate::policy::settings::{PollSettings, Settings, TypeSettings};
use file::{ConfigFile, Overlay, default_log, default_poll, default_retention};
use layers::Layers;
use serde::Serialize;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// What loading depends on besides files, so that it never looks at the process by itself.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The file that the command line names.
    pub config: Option<PathBuf>,
    /// All variables.
    pub environment: BTreeMap<String, String>,
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// The file that is read when no other is found.
    pub system_config: PathBuf,
    /// Our own program, beside which the worker program is looked for.
    pub executable: Option<PathBuf>,
    /// The user that we run as.
    pub uid: u32,
    /// CPUs that we may use, at least 1.
    pub cpus: u32,
    /// Memory of this machine, bytes; `None` where it cannot be known.
    pub memory_bytes: Option<u64>,
}

impl LoadOptions {
    /// What this process sees. `config` is the file that its command line names.
    ///
    /// # Errors
    /// The process has no working directory.
    pub fn from_process(config: Option<PathBuf>) -> Result<Self, ConfigError> {
        // Text that is not UTF-8 keeps a mark in it, which no key accepts.
        let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            config,
            environment: std::env::vars_os().map(|(n, t)| (text(n), text(t))).collect(),
            cwd: std::env::current_dir().map_err(ConfigError::WorkingDirectory)?,
            system_config: "/etc/shiftboss/shiftboss.toml".into(),
            executable: std::env::current_exe().ok(),
            uid: own_uid(),
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            memory_bytes: own_memory(),
        })
    }

    /// An empty environment in `cwd`, for tests.
    #[cfg(test)]
    pub(crate) fn plain(cwd: &Path) -> Self {
        Self {
            config: None,
            environment: BTreeMap::new(),
            cwd: cwd.to_owned(),
            system_config: cwd.join("there-is-no-system-file"),
            executable: None,
            uid: 1_000,
            cpus: 4,
            memory_bytes: Some(16 << 30),
        }
    }
}

/// The resolved configuration. All paths are absolute, except programs that are looked up in
/// PATH.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// The SQLite database that holds the job table.
    pub database: PathBuf,
    /// Put before the names of all our tables: up to 32 letters, digits and `_`.
    pub table_prefix: String,
    /// Whether somebody else's database may be switched to WAL mode.
    pub wal: WalMode,
    /// Name of this supervisor among those that share the database: 1 to 32 letters, digits,
    /// `-` and `_`.
    pub instance: String,
    /// Scratch, outcomes and logs: on a disk, not in memory.
    pub work_dir: PathBuf,
    /// Parent of the instances' directories of sockets and locks, see [`Self::instance_dir`].
    pub runtime_dir: PathBuf,
    /// The worker program of every type that names no other.
    pub worker: PathBuf,
    /// Most attempts at once over all types that count; `None`: no cap.
    pub running_max: Option<u32>,
    /// False: nothing is claimed and no worker is started.
    pub workers_enabled: bool,
    /// Programs that workloads use.
    pub tools: Tools,
    /// The supervisor's own log, and the logs of attempts.
    pub log: Log,
    /// The fallback poll.
    pub poll: Poll,
    /// How long finished jobs are kept.
    pub retention: Retention,
    /// Job types by name, the built-in ones always among them.
    pub types: BTreeMap<String, JobType>,
    /// What ladders are to be like, by name.
    pub profiles: BTreeMap<String, Profile>,
    /// The file that was read, if there was one.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    #[serde(skip)]
    origins: BTreeMap<String, Origin>,
}

impl Config {
    /// Reads the first file found, lays the environment over it and checks the whole.
    ///
    /// # Errors
    /// The file cannot be read, or values are refused: the report names all of them.
    pub fn load(options: &LoadOptions) -> Result<(Self, Vec<Warning>), ConfigError> {
        let mut layers = Layers::default();
        let mut warnings = Vec::new();
        let mut file = None;
        if let Some((path, text)) = place::read_file(options)? {
            layers.read_file(&path, text);
            file = Some(path);
        }
        environment::apply(&options.environment, &mut layers);
        foreign::apply(&options.environment, &mut layers, &mut warnings);
        layers.check(&options.cwd);
        // Rules between values are checked only where each value is fine alone: a default in
        // the place of a refused value would give rise to contradictions that nobody wrote.
        let typed = layers.take_problems();
        let typed = if typed.is_empty() { layers.typed() } else { return refused(typed) };
        let Some(typed) = typed else { return refused(layers.take_problems()) };

        let (mut config, places) = Self::resolve(typed, &layers, options);
        config.file = file;
        warnings.extend(relation::check(&mut config, &mut layers, options));
        let problems = layers.take_problems();
        if !problems.is_empty() {
            return refused(problems);
        }
        config.origins = layers.into_origins();
        for (key, origin) in places {
            config.origins.entry(key.to_owned()).or_insert(origin);
        }
        Ok((config, warnings))
    }

    /// Lays what was written over the defaults, and tells where the places came from that no key
    /// sets.
    fn resolve(
        written: ConfigFile,
        layers: &Layers,
        options: &LoadOptions,
    ) -> (Self, [(&'static str, Origin); 2]) {
        let database = written.database.unwrap_or_else(|| options.cwd.join("shiftboss.db"));
        let (work_dir, work_origin) = place::work_dir(options, &database);
        let (runtime_dir, runtime_origin) = place::runtime_dir(options, &database);
        let mut config = Self {
            table_prefix: written.table_prefix.unwrap_or_default(),
            wal: written.wal.unwrap_or(WalMode::Default),
            instance: written.instance.unwrap_or_else(|| "main".into()),
            work_dir: written.work_dir.unwrap_or(work_dir),
            runtime_dir: written.runtime_dir.unwrap_or(runtime_dir),
            worker: written.worker.unwrap_or_else(|| place::worker(options)),
            running_max: written.running_max,
            workers_enabled: written.workers_enabled.unwrap_or(true),
            tools: Tools { ffmpeg: "ffmpeg".into(), ffprobe: "ffprobe".into() },
            log: default_log(),
            poll: default_poll(),
            retention: default_retention(),
            types: BTreeMap::new(),
            profiles: BTreeMap::new(),
            file: None,
            origins: BTreeMap::new(),
            database,
        };
        config.tools.overlay(written.tools.unwrap_or_default());
        config.log.overlay(written.log.unwrap_or_default());
        config.poll.overlay(written.poll.unwrap_or_default());
        config.retention.overlay(written.retention.unwrap_or_default());
        let mut types = written.types.unwrap_or_default();
        for name in layers.type_names() {
            let written = types.remove(&name).unwrap_or_default();
            // In the order of their names: `encode` is there when `keying` asks for it.
            let encode = config.types.get("encode");
            let mut job_type = JobType::of_type(&name, &written, encode, options.cpus);
            job_type.overlay(written);
            config.types.insert(name, job_type);
        }
        config.profiles = Profile::all_of(written.profiles.unwrap_or_default());
        (config, [("work_dir", work_origin), ("runtime_dir", runtime_origin)])
    }

    /// What the policy is told.
    #[must_use]
    pub fn policy_settings(&self) -> Settings {
        Settings {
            poll: PollSettings {
                idle_min: self.poll.idle_min.duration(),
                idle_max: self.poll.idle_max.duration(),
                factor: self.poll.factor,
                stagger_max: self.poll.stagger_max.duration(),
            },
            running_max: self.running_max,
            workers_enabled: self.workers_enabled,
            types: self.types.keys().map(|name| (name.clone(), self.type_settings(name))).collect(),
        }
    }

    fn type_settings(&self, name: &str) -> TypeSettings {
        let job_type = &self.types[name];
        let mut hasher = DefaultHasher::new();
        self.worker_of(name).hash(&mut hasher);
        (&self.tools.ffmpeg, &self.tools.ffprobe).hash(&mut hasher);
        (self.log.attempt_max.bytes(), job_type.grace.term.millis()).hash(&mut hasher);
        (&job_type.roots.read, &job_type.roots.write, &job_type.env.0).hash(&mut hasher);
        let limits = &job_type.limits;
        (limits.files, limits.pids, limits.cpu.map(f64::to_bits)).hash(&mut hasher);
        limits.cpu_weight.hash(&mut hasher);
        (limits.io_read.map(Size::bytes), limits.io_write.map(Size::bytes)).hash(&mut hasher);
        (limits.file_size.map(Size::bytes), limits.memory.map(Size::bytes)).hash(&mut hasher);
        (job_type.confine, &job_type.network, &job_type.devices).hash(&mut hasher);
        if job_type.workload == "remote" {
            self.providers_dir().map(|folder| place::listing(&folder)).hash(&mut hasher);
        }
        if job_type.workload == "encode" {
            let profiles = self.profiles.iter();
            profiles.for_each(|(name, one)| (name, one.payload()).hash(&mut hasher));
        }
        TypeSettings { start_mark: hasher.finish(), ..job_type.settings() }
    }

    /// Where the value of a key came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Takes over from a newly read configuration what may change while the supervisor runs;
    /// [`reload_differences`] names the rest, which keeps its value until the next start.
    pub fn take_over(&mut self, new: Self) {
        self.running_max = new.running_max;
        self.workers_enabled = new.workers_enabled;
        self.worker = new.worker;
        self.tools = new.tools;
        self.log.attempt_max = new.log.attempt_max;
        self.poll = new.poll;
        self.retention = new.retention;
        self.types = new.types;
        self.origins = new.origins;
    }

    /// The worker program of a type.
    #[must_use]
    pub fn worker_of(&self, job_type: &str) -> &Path {
        let own = self.types.get(job_type).and_then(|job_type| job_type.worker.as_deref());
        own.unwrap_or(&self.worker)
    }

    /// The directory of this instance's sockets and locks.
    #[must_use]
    pub fn instance_dir(&self) -> PathBuf {
        self.runtime_dir.join(&self.instance)
    }

    /// Files and folders that no payload may name, each as it is written and without links.
    #[must_use]
    pub fn private_paths(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.work_dir.clone(), self.runtime_dir.clone(), self.lock_file()];
        paths.extend(self.file.clone());
        for ending in ["", "-wal", "-shm", "-journal"] {
            paths.push(place::beside(&self.database, ending));
        }
        paths.extend(paths.iter().map(|path| place::real_path(path)).collect::<Vec<_>>());
        paths.sort();
        paths.dedup();
        paths
    }
}

/// The user that this process runs as. It only chooses a name below /tmp, whose ownership is
/// checked by whoever makes it, so that 0 where there is no /proc does no harm.
fn own_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map_or(0, |facts| facts.uid())
}

/// The machine's memory, as the kernel tells everybody.
fn own_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn refused<T>(problems: Vec<Problem>) -> Result<T, ConfigError> {
    Err(ConfigError::Refused(problems))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(folder: &Path, text: &str) -> (Config, Vec<Warning>) {
        std::fs::write(folder.join("shiftboss.toml"), text).expect("written");
        Config::load(&LoadOptions::plain(folder)).expect("accepted")
    }

    #[test]
    fn without_any_configuration_there_are_defaults_that_work() {
        let folder = tempfile::tempdir().expect("a folder");
        let (config, warnings) =
            Config::load(&LoadOptions::plain(folder.path())).expect("defaults are accepted");
        assert_eq!(warnings, []);
        assert_eq!(config.database, folder.path().join("shiftboss.db"));
        assert_eq!(config.work_dir, folder.path().join("shiftboss.db.work"));
        assert_eq!(config.lock_file(), folder.path().join("shiftboss.db.main.lock"));
        assert_eq!(config.file, None);
        let settings = config.policy_settings();
        assert_eq!(
            settings.types.keys().collect::<Vec<_>>(),
            ["command", "encode", "keying", "noop", "remote"]
        );
        assert_eq!((settings.running_max, settings.workers_enabled), (None, true));
    }

    #[test]
    fn paths_of_the_file_are_relative_to_its_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("etc")).expect("made");
        let path = folder.path().join("etc/s.toml");
        std::fs::write(
            &path,
            "database = \"./a.db\"\nworker = \"w\"\n[types.encode]\n\
                               worker = \"bin/e\"",
        )
        .expect("written");
        let mut options = LoadOptions::plain(folder.path());
        options.config = Some("etc/s.toml".into());
        options.environment.insert("SHIFTBOSS_WORK_DIR".into(), "work".into());
        let (config, _) = Config::load(&options).expect("accepted");
        assert_eq!(config.database, folder.path().join("etc/a.db"));
        assert_eq!(config.work_dir, folder.path().join("work"));
        assert_eq!(config.worker_of("noop"), Path::new("w"));
        assert_eq!(config.worker_of("encode"), folder.path().join("etc/bin/e"));
        assert_eq!(config.file, Some(path));
    }

    #[test]
    fn a_process_sees_itself() {
        let options = LoadOptions::from_process(None).expect("a test has a working directory");
        assert!(options.cwd.is_absolute() && options.cpus >= 1 && options.executable.is_some());
        let own = tempfile::tempfile().and_then(|file| file.metadata()).expect("a file of ours");
        assert_eq!(options.uid, std::os::unix::fs::MetadataExt::uid(&own));
    }

    #[test]
    fn our_own_files_are_private_under_every_name() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("real")).expect("made");
        std::os::unix::fs::symlink("real", folder.path().join("link")).expect("linked");
        let (config, _) = load(folder.path(), "database = \"link/s.db\"");
        let private = config.private_paths();
        let real = std::fs::canonicalize(folder.path()).expect("exists");
        for name in ["link/s.db", "real/s.db", "real/s.db-wal", "real/s.db.main.lock"] {
            assert!(private.contains(&real.join(name)), "{name} in {private:?}");
        }
        assert!(private.contains(&folder.path().join("shiftboss.toml")));
    }

    #[test]
    fn a_refused_value_hides_no_other_and_invents_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "wal = 1\n[types.x]\nworkload = 5\n[poll]\nidle_min = \"1d\"\nidle_max = 2";
        std::fs::write(folder.path().join("shiftboss.toml"), text).expect("written");
        let Err(ConfigError::Refused(problems)) = Config::load(&LoadOptions::plain(folder.path()))
        else {
            panic!("wrong values are refused");
        };
        let keys: Vec<_> = problems.iter().filter_map(|problem| problem.key.as_deref()).collect();
        assert_eq!(keys, ["poll.idle_max", "types.x.workload", "wal"]);
    }

    #[test]
    fn the_example_of_the_contract_is_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        let (config, mut warnings) = load(folder.path(), CONTRACT);
        warnings.retain(|warning| !warning.text.contains("does not exist"));
        let text = config.types["encode"].limits.memory.map(|size| size.to_string());
        assert_eq!(text.as_deref(), Some("4GiB"));
        assert_eq!(warnings, []);
        assert_eq!(config.policy_settings().types["encode"].retry.jitter, 0.2);
    }

    const CONTRACT: &str = r#"
database = "/var/lib/shiftboss/shiftboss.db"
[poll]
idle_min = "1s"
idle_max = "5m"
factor = 2.0
stagger_max = "5s"
[types.encode]
workload = "encode"
workers = { min = 0, max = 2, warm = 0, idle = "5m" }
concurrency = 1
priority = 0
timeout = "2h"
stall_timeout = "2m"
orphan_grace = "10m"
max_attempts = 3
retry = { base = "1s", max = "60s", factor = 2.0, jitter = 0.2 }
limits = { memory = "4GiB", cpu = 2.0, pids = 64, files = 1024, file_size = "50GiB" }
confine = "best-effort"
network = "none"
roots = { read = ["/srv/in"], write = ["/srv/out"] }
grace = { drain = "30s", term = "10s" }
poison_after = 3
restart = { burst = 5, within = "60s", base = "100ms", max = "60s", healthy_after = "10s" }
recycle = { after_jobs = 0, above_memory = "0B" }
[retention]
succeeded = "7d"
failed = "30d"
cancelled = "7d"
logs = "7d"
"#;

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn loading_never_panics(
            text in "([a-z_.\"\\[\\]]{1,12}( = |\n)[0-9a-z\"{}]{0,6}\n?){0,4}",
            name in "SHIFTBOSS_(TYPES|POLL|ENV|_|X|[A-Z]){0,6}",
            value in ".{0,9}",
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join("shiftboss.toml"), text).expect("written");
            let mut options = LoadOptions::plain(folder.path());
            options.environment.insert(name, value);
            if let Err(error) = Config::load(&options) {
                proptest::prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
