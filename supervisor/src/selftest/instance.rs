//! The supervisor that the hostile jobs are given to: a private one, with the confinement of the
//! loaded configuration, or the one that runs. Spoken to through the command line, as users do.

use super::attempts::started;
use super::plan::Victim;
use super::stand_in;
use super::world::World;
use crate::config::{Config, LoadOptions, toml_text};
use crate::os::{failpoint, ladder};
use crate::policy::settings::require::Piece;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a supervisor may take to answer, or a job to end.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Limits of the hostile jobs where the configuration sets none, so that there are some to break.
const LIMITS: &[(&str, &str)] = &[("files", "256"), ("file_size", "\"8MiB\"")];
/// The same of those that need controllers.
const KERNEL_LIMITS: &[(&str, &str)] = &[("memory", "\"256MiB\""), ("pids", "128")];

/// A supervisor.
pub(super) struct Instance {
    program: PathBuf,
    file: Option<PathBuf>,
    child: Option<Child>,
    /// Its configuration.
    pub(super) config: Config,
}

/// What became of a job.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) state: String,
    pub(super) error: String,
    pub(super) cause: String,
}

impl Instance {
    /// The supervisor that runs with the loaded configuration.
    pub(super) fn live(program: &Path, config: &Config) -> io::Result<Self> {
        let file = config.file.clone();
        let config = config.clone();
        let instance = Self { program: program.to_owned(), file, child: None, config };
        instance.json(&["status"])?;
        Ok(instance)
    }

    /// A private one in the staged world.
    pub(super) fn private(program: &Path, loaded: &Config, world: &World) -> io::Result<Self> {
        let file = world.path("shiftboss.toml");
        std::fs::write(&file, private_text(loaded, world))?;
        let mut options =
            LoadOptions::from_process(Some(file.clone())).map_err(io::Error::other)?;
        options.environment.clear();
        let (config, _) = Config::load(&options).map_err(io::Error::other)?;
        let log = std::fs::File::create(world.path("supervisor.log"))?;
        let mut instance =
            Self { program: program.to_owned(), file: Some(file), child: None, config };
        let mut command = instance.command(&["run"]);
        // A secret that must not reach any program.
        command.env("SELFTEST_SECRET", &world.secret);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        instance.child = Some(command.spawn()?);
        let log = world.path("supervisor.log");
        instance.wait_until_it_answers().map_err(|error| {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            io::Error::other(format!("{error}: {}", said.trim()))
        })?;
        Ok(instance)
    }

    fn wait_until_it_answers(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.json(&["status"]).is_ok() {
                return Ok(());
            }
            let child = self.child.as_mut().expect("a private supervisor was started");
            if let Some(status) = child.try_wait()? {
                return Err(io::Error::other(format!("the private supervisor ended: {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the private supervisor does not answer"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        if self.child.is_some() || self.file.is_some() {
            command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
            command.envs(failpoint::lacking().map(|words| (failpoint::LACK_VARIABLE, words)));
        }
        if let Some(file) = &self.file {
            command.arg("--config").arg(file);
        }
        command.args(arguments);
        command
    }

    /// What a command of ours prints as JSON.
    pub(super) fn json(&self, arguments: &[&str]) -> io::Result<Value> {
        let output = self.command(arguments).arg("--json").stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(io::Error::other(format!("shiftboss {}: {said}", arguments.join(" "))));
        }
        serde_json::from_slice(&output.stdout).map_err(io::Error::other)
    }

    /// Inserts a job and returns its number.
    pub(super) fn submit(
        &self,
        job_type: &str,
        payload: &Value,
        options: &[&str],
    ) -> io::Result<i64> {
        let payload = payload.to_string();
        let mut arguments = vec!["submit", job_type, "--payload", &payload];
        arguments.extend(["--max-attempts", "1"].iter().chain(options));
        let answer = self.json(&arguments)?;
        answer["id"].as_i64().ok_or_else(|| io::Error::other(format!("odd answer: {answer}")))
    }

    /// Waits until a job's row says what `wanted` looks for.
    fn wait(&self, id: i64, wanted: impl Fn(&Value) -> bool) -> io::Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let row = self.json(&["job", &id.to_string()])?;
            if wanted(&row) {
                return Ok(row);
            }
            if Instant::now() > deadline {
                let state = row["state"].as_str().unwrap_or_default();
                return Err(io::Error::other(format!("job {id} is still {state}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits for the end of a job.
    pub(super) fn end(&self, id: i64) -> io::Result<Ended> {
        let row = self.wait(id, |row| !row["finished_at"].is_null())?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let attempts = row["attempts"].as_array().cloned().unwrap_or_default();
        let last = attempts.last().cloned().unwrap_or(Value::Null);
        Ok(Ended {
            state: text(&row["state"]),
            error: text(&row["last_error"]),
            cause: text(&last["cause"]),
        })
    }

    /// Cancels a job.
    pub(super) fn cancel(&self, id: i64) -> io::Result<()> {
        self.json(&["cancel", &id.to_string()]).map(|_| ())
    }

    /// Starts a job whose program sleeps; returns its number, its worker and its program.
    pub(super) fn sibling(&self, job_type: &str) -> io::Result<(i64, Victim, Victim)> {
        // In its scratch folder lies something to be found.
        let script = "echo x > found; exec sleep 1200";
        let id = self.submit(job_type, &json!({ "argv": ["sh", "-c", script] }), &[])?;
        let row = self.wait(id, |row| {
            row["state"] == "running" && worker_of(row).is_some_and(|pid| program_of(pid).is_some())
        })?;
        let worker = worker_of(&row).and_then(victim);
        let program = worker.and_then(|worker| program_of(worker.pid)).and_then(victim);
        match (worker, program) {
            (Some(worker), Some(program)) => Ok((id, worker, program)),
            _ => Err(io::Error::other(format!("the program of job {id} cannot be found"))),
        }
    }

    /// The supervisor's own process.
    pub(super) fn supervisor(&self) -> io::Result<Victim> {
        let status = self.json(&["status"])?;
        let pid = status["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.and_then(victim)
            .ok_or_else(|| io::Error::other(format!("the supervisor's pid is not in {status}")))
    }

    /// Folder of a job's logs.
    pub(super) fn logs(&self, job_type: &str, id: i64) -> PathBuf {
        self.config.work_dir.join("logs").join(job_type).join(id.to_string())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Ok(pid) = i32::try_from(child.id()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            // Twice: the second signal waits for no job.
            for _ in 0..2 {
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
                std::thread::sleep(LOOK_EVERY);
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = child.kill();
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn victim(pid: i32) -> Option<Victim> {
    started(pid).map(|started| Victim { pid, started })
}

fn worker_of(row: &Value) -> Option<i32> {
    let attempts = row["attempts"].as_array()?;
    attempts.last()?["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok())
}

/// The sleeping program below a worker.
fn program_of(worker: i32) -> Option<i32> {
    let mut waiting = vec![worker];
    while let Some(pid) = waiting.pop() {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim() == "sleep" {
            return Some(pid);
        }
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok().into_iter().flatten();
        for task in tasks.flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            waiting.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    None
}

/// The private supervisor's configuration: places in the staged world, and of each type what the
/// loaded configuration says about its confinement and limits.
fn private_text(loaded: &Config, world: &World) -> String {
    let quoted = |path: &Path| toml_text(&json!(path));
    let mut text = String::new();
    for (key, path) in [
        ("database", world.path("jobs.db")),
        ("work_dir", world.path("work")),
        ("runtime_dir", world.path("run")),
        ("worker", loaded.worker.clone()),
    ] {
        let _ = writeln!(text, "{key} = {}", quoted(&path));
    }
    let _ = writeln!(text, "[tools]");
    let _ = writeln!(text, "ffmpeg = {}", quoted(&world.path("tools").join(stand_in::FFMPEG)));
    let _ = writeln!(text, "ffprobe = {}", quoted(&world.path("tools").join(stand_in::FFPROBE)));
    let _ = writeln!(text, "[log]\nattempt_max = \"1MiB\"\n[poll]\nstagger_max = \"0s\"");
    // Called while this process has one thread, as it must: it tries things out in children.
    let rungs = ladder::probe();
    let has = |piece: Piece| rungs.iter().any(|rung| rung.piece == piece && rung.offered);
    let has_controllers = has(Piece::Memory) && has(Piece::Pids);
    for (name, job_type) in &loaded.types {
        if !matches!(job_type.workload.as_str(), "command" | "encode") || job_type.worker.is_some()
        {
            continue;
        }
        let told = serde_json::to_value(job_type).unwrap_or_default();
        let _ = writeln!(text, "[types.{}]", toml_text(&json!(name)));
        let _ = writeln!(text, "workload = {}", toml_text(&told["workload"]));
        let _ = writeln!(text, "workers = {{ min = 0, max = 4 }}\nmax_attempts = 1");
        let _ = writeln!(text, "grace = {{ drain = \"1s\", term = \"1s\" }}");
        for key in ["confine", "network", "devices"] {
            if !told[key].is_null() {
                let _ = writeln!(text, "{key} = {}", toml_text(&told[key]));
            }
        }
        let _ = writeln!(text, "limits = {{ {} }}", limits(&told["limits"], has_controllers));
    }
    text
}

/// The type's limits, and where it has none, some to break.
fn limits(told: &Value, has_controllers: bool) -> String {
    let mut limits: Vec<String> = Vec::new();
    let written = |key: &str| !told[key].is_null();
    for (key, value) in told.as_object().into_iter().flatten().filter(|(_, it)| !it.is_null()) {
        limits.push(format!("{key} = {}", toml_text(value)));
    }
    let kernel = KERNEL_LIMITS.iter().filter(|_| has_controllers);
    for (key, value) in LIMITS.iter().chain(kernel).filter(|(key, _)| !written(key)) {
        limits.push(format!("{key} = {value}"));
    }
    limits.join(", ")
}
