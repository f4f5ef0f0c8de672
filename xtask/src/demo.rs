//! The demo: a real supervisor and a real encode, in a folder of its own.
//!
//! Everything it makes is under `demo-output/`. The supervisor is always ended and waited for,
//! also after Ctrl-C; one that already serves the demo's database (`--keep` in another terminal)
//! is used and left alone.

mod film;
mod outputs;
pub(crate) mod provider;
mod supervisor;

use crate::place::Place;
use crate::{programs, step};
use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use supervisor::Supervisor;

/// What a shell reports for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;
const RENDITIONS: &str = "1080p,720p,480p";
/// How often a condition outside this process is looked at.
pub(crate) const GLANCE: Duration = Duration::from_millis(50);

/// What was asked for on the command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    file: Option<PathBuf>,
    out: Option<PathBuf>,
    keep: Keep,
}

/// Whether the supervisor outlives the encode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Keep {
    #[default]
    Stop,
    UntilInterrupted,
}

impl Wish {
    /// Reads `[FILE] [--out DIR] [--keep]`, in any order.
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Self> {
        let mut wish = Self::default();
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            match word.to_str() {
                Some("--keep") => wish.keep = Keep::UntilInterrupted,
                Some("--out") => {
                    let folder = rest.next().context("--out needs a folder")?;
                    wish.out = Some(PathBuf::from(folder));
                }
                Some(option) if option.starts_with("--") => {
                    bail!("unknown option {option}: demo takes [FILE] [--out DIR] [--keep]");
                }
                _ if wish.file.is_some() => bail!("demo takes one FILE, got {word:?} as well"),
                _ => wish.file = Some(PathBuf::from(word)),
            }
        }
        Ok(wish)
    }
}

/// The folder of the demo and what its programs are told.
#[derive(Debug)]
pub(crate) struct Stage {
    folder: PathBuf,
    program: PathBuf,
    interrupted: Arc<AtomicBool>,
}

impl Stage {
    fn new(place: &Place, folder: &str) -> Self {
        Self {
            folder: place.root.join(folder),
            program: place.release("shiftboss"),
            interrupted: Arc::default(),
        }
    }

    fn database(&self) -> PathBuf {
        self.folder.join("shiftboss.db")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("supervisor.log")
    }

    /// A command of the program `shiftboss`, aimed at the demo's database and at nothing else
    /// that this machine or this shell may have set up for another one.
    fn shiftboss(&self) -> Command {
        const HONOURED: &[&str] = &[
            "MAX_CONCURRENT_JOBS",
            "DISABLE_BACKGROUND_WORKERS",
            "WORKER_POLLING_INTERVAL",
            "TASK_PROCESSOR_POLLING_INTERVAL",
            "MAX_WORKERS",
            "MIN_WORKERS",
            "WORKER_TIMEOUT",
            "INSTANCE_ID",
            "RUNTIME_DIRECTORY",
            "STATE_DIRECTORY",
            "NOTIFY_SOCKET",
        ];
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("SHIFTBOSS_") || HONOURED.contains(&&*text) {
                command.env_remove(&name);
            }
        }
        command
            .current_dir(&self.folder)
            .env("SHIFTBOSS_CONFIG", self.folder.join("shiftboss.toml"))
            .env("SHIFTBOSS_DATABASE", self.database());
        command
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

/// Builds, encodes, shows. The exit code is that of `shiftboss encode --wait`.
pub(crate) fn run(place: &Place, wish: &Wish) -> Result<ExitCode> {
    programs::install_missing(programs::FOR_DEMO)?;
    let stage = Stage::new(place, "demo-output");
    let given = wish.file.as_deref().map(film::check).transpose()?;
    build(place)?;
    make_folder(&stage)?;
    let film = match given {
        Some(film) => film::within_reach(&film, &stage.folder.join("input"))?,
        None => film::sample(&stage.folder.join("sample.mp4"))?,
    };
    let out = destination(wish, &stage, &film)?;

    // Until here Ctrl-C ends us at once; from here on there is somebody to be stopped first.
    watch_for_signals(&stage)?;
    let mut supervisor = Supervisor::start_or_find(&stage)?;
    let status = encode(&stage, &film, &out)?;
    let is_cut_short = stage.is_interrupted();
    if is_cut_short {
        supervisor::cancel_latest(&stage);
    } else {
        show(&stage, &out, status)?;
        if wish.keep == Keep::UntilInterrupted {
            supervisor.wait_for_interrupt(&stage)?;
        }
    }
    supervisor.stop()?;
    explain(place, &stage, &out);
    Ok(match status.code().and_then(|code| u8::try_from(code).ok()) {
        _ if is_cut_short => ExitCode::from(EXIT_INTERRUPTED),
        Some(code) => ExitCode::from(code),
        None => ExitCode::FAILURE,
    })
}

fn watch_for_signals(stage: &Stage) -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stage.interrupted))
            .with_context(|| format!("cannot watch for signal {signal}"))?;
    }
    Ok(())
}

/// The release build: a demo of the debug build would show the speed of something else.
fn build(place: &Place) -> Result<()> {
    if !place.release("shiftboss").exists() {
        step::say("the first build compiles SQLite and takes some minutes");
    }
    let mut command = place.cargo();
    command.args(["build", "--release", "--locked"]);
    command.args(["--package", "shiftboss", "--package", "shiftboss-worker"]);
    step::run("build the supervisor and the worker (release)", &mut command)
}

fn make_folder(stage: &Stage) -> Result<()> {
    let folder = &stage.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if let Some(reason) = film::out_of_reach(folder)? {
        bail!("cannot run the demo in {}: {reason}; run it as that user", folder.display());
    }
    let config = folder.join("shiftboss.toml");
    let database = stage.database();
    let database = database.to_str().context("cannot run the demo: its path is not UTF-8")?;
    // A JSON string is a TOML basic string.
    let line = format!("database = {}\n", serde_json::Value::from(database));
    std::fs::write(&config, line).with_context(|| format!("cannot write {}", config.display()))
}

/// Where the renditions go, absolute: `shiftboss encode` runs in another folder than we do.
fn destination(wish: &Wish, stage: &Stage, film: &Path) -> Result<PathBuf> {
    let out = match &wish.out {
        Some(out) => std::path::absolute(out)
            .with_context(|| format!("cannot tell where {} is", out.display()))?,
        None => stage.folder.join(film.file_stem().context("the film's path names no file")?),
    };
    let parent = out.parent().unwrap_or(&out);
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    Ok(out)
}

/// Runs the encode in the foreground, with its live progress line on our own terminal.
fn encode(stage: &Stage, film: &Path, out: &Path) -> Result<ExitStatus> {
    step::say(&format!("encode {} to {RENDITIONS}", film.display()));
    let mut child = stage
        .shiftboss()
        .arg("encode")
        .arg(film)
        .arg("--out")
        .arg(out)
        .args(["--renditions", RENDITIONS, "--wait"])
        .spawn()
        .with_context(|| format!("cannot run {}", stage.program.display()))?;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for shiftboss encode")? {
            return Ok(status);
        }
        if stage.is_interrupted() {
            // A terminal's Ctrl-C reached it as well; a signal sent to us alone did not.
            supervisor::terminate(&child)?;
            return child.wait().context("cannot wait for shiftboss encode");
        }
        std::thread::sleep(GLANCE);
    }
}

fn show(stage: &Stage, out: &Path, status: ExitStatus) -> Result<()> {
    if let Some(id) = supervisor::latest_job(stage)? {
        step::run_to_end("show the job", stage.shiftboss().args(["job", &id.to_string()]))?;
    }
    if status.success() {
        step::say(&format!("what is in {}", out.display()));
        print!("{}", outputs::table(out)?);
    } else {
        eprintln!("\nthe encode ended with {status}; the supervisor's last lines:");
        eprintln!("{}", supervisor::tail_of_log(stage));
    }
    Ok(())
}

fn explain(place: &Place, stage: &Stage, out: &Path) {
    let program = place.release("shiftboss");
    let [program, database] = [&program, &stage.database()]
        .map(|path| path.strip_prefix(&place.root).unwrap_or(path).display().to_string());
    println!("\nresults    {}", out.display());
    println!("log        {}", stage.log().display());
    println!("database   {}", stage.database().display());
    println!("\nTry next, in {}:", place.root.display());
    println!("  cargo xtask demo --keep        # leaves the supervisor running; then, elsewhere:");
    println!("  SHIFTBOSS_DATABASE={database} {program} jobs");
    println!(
        "  sqlite3 {database} \\\n    \"INSERT INTO jobs(type, payload) \
         VALUES ('command', '{{\\\"argv\\\":[\\\"true\\\"]}}')\""
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Wish> {
        Wish::parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn file_and_options_may_come_in_any_order() -> Result<()> {
        let wish = parse(&["--out", "x", "film.mp4", "--keep"])?;
        assert_eq!(wish.file.as_deref(), Some(Path::new("film.mp4")));
        assert_eq!(wish.out.as_deref(), Some(Path::new("x")));
        assert_eq!(wish.keep, Keep::UntilInterrupted);
        assert_eq!(parse(&[])?, Wish::default());
        Ok(())
    }

    #[test]
    fn what_the_demo_does_not_know_is_refused() {
        assert!(parse(&["--fast"]).is_err());
        assert!(parse(&["a.mp4", "b.mp4"]).is_err());
        assert!(parse(&["--out"]).is_err());
    }
}
