//! The demo's supervisor: started, waited for, stopped, never left behind.
//!
//! It has a process group of its own, so that a terminal's Ctrl-C reaches it only through us,
//! after the job was cancelled: a drain that waits for half an encode is no answer to Ctrl-C.

use super::{GLANCE, Stage};
use crate::step;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The longest a supervisor may take to answer after it was started.
const START: Duration = Duration::from_secs(30);
/// The longest it may take to stop: its drain grace of 30 s, the next grace of 10 s, and some.
const STOP: Duration = Duration::from_secs(60);
const TAIL_LINES: usize = 20;

/// A supervisor that serves the demo's database.
#[derive(Debug)]
pub(super) enum Supervisor {
    /// Ours: we end it.
    Started(Running),
    /// Somebody else's, for example of `--keep` in another terminal.
    Found,
}

/// A child that is killed when it was not stopped properly.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    log: PathBuf,
}

impl Supervisor {
    /// Returns when it answers on its control socket.
    pub(super) fn start_or_find(stage: &Stage) -> Result<Self> {
        if answers(stage) {
            step::say("a supervisor already serves the demo's database: it is used");
            return Ok(Self::Found);
        }
        Self::start(stage)
    }

    /// Returns when it answers; refused by itself where another one serves the database.
    pub(super) fn start(stage: &Stage) -> Result<Self> {
        step::say(&format!("start the supervisor, log in {}", stage.log().display()));
        let log = File::create(stage.log())
            .with_context(|| format!("cannot write {}", stage.log().display()))?;
        let errors = log.try_clone().context("cannot share the supervisor's log")?;
        let child = stage
            .shiftboss()
            .arg("run")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", stage.program.display()))?;
        let mut running = Running { child, log: stage.log() };
        running.wait_for_answer(stage)?;
        Ok(Self::Started(running))
    }

    /// Keeps it running until Ctrl-C, or until it ends by itself.
    pub(super) fn wait_for_interrupt(&mut self, stage: &Stage) -> Result<()> {
        step::say("the supervisor runs until Ctrl-C");
        while !stage.is_interrupted() {
            if let Self::Started(running) = self
                && let Some(status) = running.ended_within(Duration::ZERO)?
            {
                bail!("the supervisor ended by itself with {status}:\n{}", running.tail());
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Asks it to stop and waits for its end.
    pub(super) fn stop(self) -> Result<()> {
        let Self::Started(mut running) = self else {
            return Ok(());
        };
        step::say("stop the supervisor");
        terminate(&running.child)?;
        match running.ended_within(STOP)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the supervisor ended with {status}:\n{}", running.tail()),
            None => bail!(
                "the supervisor did not stop within {} s of SIGTERM and is killed:\n{}",
                STOP.as_secs(),
                running.tail()
            ),
        }
    }
}

impl Running {
    fn wait_for_answer(&mut self, stage: &Stage) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for the supervisor")? {
                bail!("the supervisor ended at its start with {status}:\n{}", self.tail());
            }
            if answers(stage) {
                return Ok(());
            }
            if stage.is_interrupted() {
                bail!("interrupted");
            }
            if Instant::now() >= deadline {
                bail!(
                    "the supervisor does not answer after {} s:\n{}",
                    START.as_secs(),
                    self.tail()
                );
            }
            std::thread::sleep(GLANCE);
        }
    }

    fn ended_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.child.try_wait().context("cannot wait for the supervisor")?;
            if ended.is_some() || Instant::now() >= deadline {
                return Ok(ended);
            }
            std::thread::sleep(GLANCE);
        }
    }

    fn tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `stop` it has been waited for and there is nothing to kill: both calls then do
        // nothing. On every other way out it must not outlive us.
        if let Ok(None) = self.child.try_wait() {
            let gone = terminate(&self.child).and_then(|()| self.ended_within(STOP));
            if !matches!(gone, Ok(Some(_))) {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

/// Cancels the newest encode if it is not final, so that the stop that follows is quick.
pub(super) fn cancel_latest(stage: &Stage) {
    step::say("interrupted: cancel the job");
    match latest_job(stage) {
        Ok(Some(id)) => {
            // Fails when the job is final by now, which is as good.
            step::succeeds(stage.shiftboss().args(["cancel", &id.to_string()]));
        }
        Ok(None) => {}
        Err(error) => eprintln!("xtask: {error:#}"),
    }
}

/// The id of the newest encode of this database.
pub(super) fn latest_job(stage: &Stage) -> Result<Option<i64>> {
    let text = step::output(
        stage.shiftboss().args(["jobs", "--type", "encode", "--limit", "1", "--json"]),
    )?;
    let jobs: Value =
        serde_json::from_slice(&text).context("cannot read what shiftboss jobs --json prints")?;
    Ok(jobs[0]["id"].as_i64())
}

/// The last lines of the supervisor's log.
pub(super) fn tail_of_log(stage: &Stage) -> String {
    tail(&stage.log())
}

/// SIGTERM to a child that was not waited for, so that its number cannot be another's.
pub(super) fn terminate(child: &Child) -> Result<()> {
    // `kill` of the shell: the program of that name is missing on small systems.
    let mut command = Command::new("sh");
    command.args(["-c", "kill -TERM \"$1\"", "sh", &child.id().to_string()]);
    step::output(&mut command).map(drop).context("cannot send SIGTERM")
}

fn answers(stage: &Stage) -> bool {
    step::succeeds(stage.shiftboss().arg("status"))
}

fn tail(log: &std::path::Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(TAIL_LINES);
    lines[first..].join("\n")
}
