//! The stage: folder, configuration, supervisor, database.

use crate::processes::{output_of, processes};
use crate::{Disk, built, groups, wait_for, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::{Connection, OptionalExtension};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A supervisor's world. Everything in it ends with it.
#[derive(Debug)]
pub struct Stage {
    supervisor: Option<Child>,
    /// More supervisors on the same database.
    others: Vec<Child>,
    /// Where the folder is a small file system: unmounted before the folder is removed.
    disk: Option<Disk>,
    dir: tempfile::TempDir,
}

/// A row of `jobs`.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the columns of the table")]
pub struct Job {
    pub state: String,
    pub attempt: i64,
    pub failures: i64,
    pub crash_count: i64,
    pub owner: Option<String>,
    pub result: Option<String>,
    pub last_error: String,
}

/// A row of `attempts`.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the columns of the table")]
pub struct Attempt {
    pub attempt: i64,
    pub pid: i32,
    pub outcome: Option<String>,
    pub cause: Option<String>,
    pub confinement: Option<String>,
    pub cpu_ms: Option<i64>,
    pub memory_peak: Option<i64>,
}

impl Stage {
    /// A stage with a supervisor that runs; `extra` is TOML that its configuration ends with.
    #[must_use]
    pub fn new(extra: &str) -> Self {
        let mut stage = Self::dark(extra);
        stage.start();
        stage
    }

    /// A stage whose supervisor has not been started.
    ///
    /// # Panics
    /// When no folder can be made.
    #[must_use]
    pub fn dark(extra: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("sb").tempdir().expect("a folder can be made");
        Self::in_folder(dir, None, extra)
    }

    /// A stage whose whole folder is a file system of its own of so many MiB; `None` (and a
    /// skip) where none can be mounted.
    ///
    /// # Panics
    /// When no folder can be made.
    #[must_use]
    pub fn on_disk(test: &str, mib: u32, extra: &str) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("sb").tempdir().expect("a folder can be made");
        let disk = Disk::mount(test, dir.path(), mib)?;
        Some(Self::in_folder(dir, Some(disk), extra))
    }

    /// The file system of [`Self::on_disk`].
    ///
    /// # Panics
    /// When the stage has none.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("the stage is on a disk of its own")
    }

    fn in_folder(dir: tempfile::TempDir, disk: Option<Disk>, extra: &str) -> Self {
        let stage = Self { supervisor: None, others: Vec::new(), disk, dir };
        let worker = built("shiftboss-worker");
        let mut text = format!("worker = {worker:?}\nruntime_dir = {:?}\n", stage.path("run"));
        let _ = write!(text, "database = {:?}\n{extra}\n", stage.path("jobs.db"));
        if !extra.contains("[poll]") {
            text.push_str("[poll]\nstagger_max = \"0s\"\n");
        }
        std::fs::write(stage.path("shiftboss.toml"), text).expect("the folder is ours");
        std::fs::create_dir(stage.file("")).expect("the folder is ours");
        stage
    }

    /// A path on the stage.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path in the folder that the programs of [`Self::shell`] see and write.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path("files").join(name)
    }

    /// The payload of a command that runs a shell script, which may write in [`Self::file`].
    #[must_use]
    pub fn script(&self, script: &str) -> Value {
        serde_json::json!({ "argv": ["sh", "-c", script], "write": [self.file("")] })
    }

    /// A command of ours with this stage's configuration and nothing else.
    #[must_use]
    pub fn shiftboss(&self, args: &[&str]) -> Command {
        let mut command = Command::new(built("shiftboss"));
        command.args(args).env_clear().current_dir(self.dir.path());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("SHIFTBOSS_CONFIG", self.path("shiftboss.toml"));
        command
    }

    /// Appends TOML to the configuration, or replaces what `old` was.
    ///
    /// # Panics
    /// When the configuration cannot be written, or does not hold `old`.
    pub fn reconfigure(&self, old: &str, new: &str) {
        let path = self.path("shiftboss.toml");
        let text = std::fs::read_to_string(&path).expect("the folder is ours");
        assert!(text.contains(old), "{old:?} is not in {text}");
        let text =
            if old.is_empty() { format!("{text}{new}\n") } else { text.replacen(old, new, 1) };
        std::fs::write(&path, text).expect("the folder is ours");
    }

    /// Runs a command of ours to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        output_of(&mut self.shiftboss(args))
    }

    /// What a command of ours prints as JSON.
    ///
    /// # Panics
    /// When it prints something else.
    #[must_use]
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{args:?}: {text} {error}"))
    }

    /// What `status` says is wrong; empty when nothing is.
    ///
    /// # Panics
    /// When no supervisor answers.
    #[must_use]
    pub fn trouble(&self) -> String {
        self.json(&["status", "--json"])["trouble"].as_str().unwrap_or_default().to_owned()
    }

    /// Starts the supervisor and waits until it answers.
    ///
    /// # Panics
    /// When it does not; its log is part of the message.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts the supervisor with more variables in its environment.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_with(&mut self, env: &[(&str, &str)]) {
        let child = self.spawn_supervisor("log", env);
        self.supervisor = Some(child);
        self.wait_until_it_answers();
    }

    /// Starts the supervisor as the last arguments of another command, that becomes it.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_within(&mut self, wrapper: &[&str]) {
        self.spawn_within(wrapper);
        self.wait_until_it_answers();
    }

    /// The same without waiting for it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn_within(&mut self, wrapper: &[&str]) {
        let ours = self.shiftboss(&["run"]);
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(ours.get_program()).args(ours.get_args());
        command.env_clear().envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.supervisor = Some(self.spawn_logged(command.current_dir(self.dir.path()), "log"));
    }

    fn spawn_logged(&self, command: &mut Command, log: &str) -> Child {
        let log = File::options().append(true).create(true).open(self.path(log));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(log.expect("the folder is ours"));
        command.spawn().expect("the program can be started")
    }

    fn wait_until_it_answers(&mut self) {
        wait_until("the supervisor answers", || {
            let child = self.supervisor.as_mut().expect("it was started");
            let ended = child.try_wait().expect("it is ours");
            assert!(ended.is_none(), "the supervisor ended at once: {}", self.log());
            self.run(&["status"]).status.success()
        });
    }

    /// Starts a supervisor with more variables in its environment, without waiting for it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn_supervisor(&self, log: &str, env: &[(&str, &str)]) -> Child {
        self.spawn_logged(self.shiftboss(&["run"]).envs(env.iter().copied()), log)
    }

    /// Keeps another supervisor until the end of the stage.
    pub fn keep(&mut self, other: Child) {
        self.others.push(other);
    }

    /// Process id of the supervisor.
    ///
    /// # Panics
    /// When none was started.
    #[must_use]
    pub fn pid(&self) -> i32 {
        let child = self.supervisor.as_ref().expect("it was started");
        i32::try_from(child.id()).expect("process ids are small")
    }

    /// Sends the supervisor a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid()), signal);
    }

    /// Waits until the supervisor has ended; returns its exit code.
    ///
    /// # Panics
    /// When none was started, or it does not end.
    pub fn wait_for_end(&mut self) -> Option<i32> {
        let mut child = self.supervisor.take().expect("it was started");
        wait_for("the supervisor ends", || child.try_wait().expect("it is ours")).code()
    }

    /// What the supervisor has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A connection of a program that knows nothing of us.
    ///
    /// # Panics
    /// When the database cannot be opened.
    #[must_use]
    pub fn database(&self) -> Connection {
        let connection = Connection::open(self.path("jobs.db")).expect("it can be opened");
        connection.busy_timeout(Duration::from_secs(30)).expect("it can be set");
        connection
    }

    /// Inserts a job as any program would.
    ///
    /// # Panics
    /// When the table refuses it.
    pub fn insert(&self, job_type: &str, payload: &str) -> i64 {
        let database = self.database();
        let sql = "INSERT INTO jobs(type, payload) VALUES (?1, ?2)";
        database.execute(sql, [job_type, payload]).expect("inserted");
        database.last_insert_rowid()
    }

    /// Inserts a job that runs a shell script.
    pub fn shell(&self, script: &str) -> i64 {
        self.insert("command", &self.script(script).to_string())
    }

    /// A row of `jobs`; `None` when it is gone.
    ///
    /// # Panics
    /// When the table cannot be read.
    #[must_use]
    pub fn job(&self, id: i64) -> Option<Job> {
        let sql = "SELECT state, attempt, failures, crash_count, owner, result, \
                   coalesce(last_error, '') FROM jobs WHERE id = ?1";
        let row = self.database().query_row(sql, [id], |row| {
            Ok(Job {
                state: row.get(0)?,
                attempt: row.get(1)?,
                failures: row.get(2)?,
                crash_count: row.get(3)?,
                owner: row.get(4)?,
                result: row.get(5)?,
                last_error: row.get(6)?,
            })
        });
        row.optional().expect("the table can be read")
    }

    /// The attempts of a job.
    ///
    /// # Panics
    /// When the table cannot be read.
    #[must_use]
    pub fn attempts(&self, id: i64) -> Vec<Attempt> {
        let database = self.database();
        let sql = "SELECT attempt, pid, outcome, cause, confinement, cpu_ms, memory_peak \
                   FROM attempts WHERE job_id = ?1 ORDER BY 1";
        let mut statement = database.prepare(sql).expect("the table is there");
        let rows = statement.query_map([id], |row| {
            Ok(Attempt {
                attempt: row.get(0)?,
                pid: row.get(1)?,
                outcome: row.get(2)?,
                cause: row.get(3)?,
                confinement: row.get(4)?,
                cpu_ms: row.get(5)?,
                memory_peak: row.get(6)?,
            })
        });
        rows.expect("it can be read").collect::<Result<_, _>>().expect("rows are whole")
    }

    /// Waits until a job is in a state.
    ///
    /// # Panics
    /// When it does not get there; the log is part of the message.
    pub fn wait_for_state(&self, id: i64, state: &str) -> Job {
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(&format!("job {id} is {state}"), || {
                self.job(id).filter(|job| job.state == state)
            })
        }));
        found.unwrap_or_else(|_| panic!("job {id} is {:?}, log:\n{}", self.job(id), self.log()))
    }

    /// How many jobs answer to a condition.
    ///
    /// # Panics
    /// When the condition is not SQL.
    #[must_use]
    pub fn count(&self, condition: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM jobs WHERE {condition}");
        self.database().query_row(&sql, [], |row| row.get(0)).expect("the condition is SQL")
    }

    /// Every id that a supervisor of this stage ever had; none where there is no table.
    fn owners(&self) -> Vec<String> {
        let Ok(database) = Connection::open(self.path("jobs.db")) else { return Vec::new() };
        let _ = database.busy_timeout(Duration::from_secs(1));
        let sql = "SELECT DISTINCT instance FROM attempts";
        let Ok(mut statement) = database.prepare(sql) else { return Vec::new() };
        let rows = statement.query_map([], |row| row.get(0));
        rows.map(|rows| rows.flatten().collect()).unwrap_or_default()
    }

    /// Names in the folders of outcomes that workers could tell nobody.
    #[must_use]
    pub fn outcomes(&self) -> Vec<String> {
        let of_types = std::fs::read_dir(self.path("jobs.db.work/outcomes")).expect("it is there");
        let folders = of_types.flatten().map(|entry| entry.path());
        let entries = folders.flat_map(|path| std::fs::read_dir(path).into_iter().flatten());
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Waits for one under its own name: before that the file is not whole, and a worker that is
    /// killed then has not written anything down.
    pub fn wait_until_written_down(&self) {
        wait_until("the outcome is written down", || {
            self.outcomes().iter().any(|name| name.ends_with(".outcome"))
        });
    }

    /// Processes whose environment says that they work for a job of this stage's database.
    #[must_use]
    pub fn programs_of(&self, id: i64) -> Vec<i32> {
        let job = format!("SHIFTBOSS_JOB={id}");
        let home = self.dir.path().to_string_lossy().into_owned();
        processes(|environment| {
            environment.contains(&job)
                && environment.iter().any(|one| one.starts_with("HOME=") && one.contains(&home))
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "log of the supervisor:\n{}", self.log());
        }
        let owners = self.owners();
        for child in self.supervisor.take().into_iter().chain(self.others.drain(..)) {
            end(child);
        }
        // Programs that outlived their supervisor: only those that carry its cookie.
        let cookies: Vec<_> = owners.iter().map(|id| format!("SHIFTBOSS_OWNER={id}")).collect();
        for pid in processes(|environment| cookies.iter().any(|one| environment.contains(one))) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // A supervisor that was killed leaves its control groups to the next one.
        let entries = std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten();
        let logs = entries.filter(|one| one.file_name().to_string_lossy().contains("log"));
        for log in logs.filter_map(|one| std::fs::read_to_string(one.path()).ok()) {
            groups::named_in(&log).iter().for_each(|dir| groups::remove(dir));
        }
    }
}

/// Ends a supervisor: the second signal takes running jobs back at once, the third kills.
fn end(mut child: Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids are small"));
    for _ in 0..3 {
        // Once it was waited for, its number may belong to somebody else.
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = kill(pid, Signal::SIGTERM);
        for _ in 0..30 {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}
