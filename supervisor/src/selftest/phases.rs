//! The hostile jobs, one after another, and what the host sees of each.

use super::attempts;
use super::instance::{Ended, Instance};
use super::plan::{Phase, Plan};
use super::report::{Row, read_lines, rows};
use super::verdict::Verdict;
use super::world::World;
use crate::config::Network;
use serde_json::json;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long what a job left behind may take to be gone after it is said to have ended: it is seen
/// gone before that.
const GONE_WITHIN: Duration = Duration::from_millis(500);

/// A hostile job of a type.
pub(super) struct Stand<'a> {
    pub(super) world: &'a World,
    pub(super) instance: &'a Instance,
    pub(super) plan: &'a Plan,
    pub(super) job_type: &'a str,
}

/// A phase that ended.
struct Done {
    ended: Ended,
    logs: PathBuf,
    output: PathBuf,
    /// Everything on standard output.
    text: String,
}

/// Causes of a job whose program was not started: nothing was bounded by that.
const NEVER_BEGAN: [&str; 2] = ["payload", "failed_start"];

impl Stand<'_> {
    fn is_encode(&self) -> bool {
        self.instance.config.types[self.job_type].workload == "encode"
    }

    /// Every phase of this type, as rows.
    pub(super) fn run(&self, kernel_limits: Result<(), String>) -> io::Result<Vec<Row>> {
        let mut rows = self.attempts()?;
        rows.push(self.flood()?);
        rows.push(self.outlive()?);
        rows.push(self.stubborn()?);
        if self.is_encode() {
            rows.push(self.false_output()?);
            return Ok(rows);
        }
        for (phase, attempt, tries) in [
            (Phase::ForkBomb, "fork-bomb", "start processes without end"),
            (Phase::MemoryBomb, "memory-bomb", "take memory without end"),
            (Phase::TmpfsBomb, "tmpfs-bomb", "take memory by files without end"),
            (Phase::CacheBomb, "cache-bomb", "fill the cache of files beyond the limit"),
        ] {
            rows.push(match &kernel_limits {
                Ok(()) => self.bomb(phase, attempt, tries)?,
                Err(reason) => {
                    self.row(attempt, tries, "bounded", (Verdict::Skipped, reason.clone()))
                }
            });
        }
        Ok(rows)
    }

    fn row(
        &self,
        attempt: &'static str,
        tries: &'static str,
        expected: &'static str,
        (verdict, happened): (Verdict, String),
    ) -> Row {
        Row { job_type: self.job_type.to_owned(), attempt, tries, expected, happened, verdict }
    }

    fn submit(&self, phase: Phase, name: &str, options: &[&str]) -> io::Result<Done> {
        let name = format!("{}-{name}", self.job_type);
        let input = self.world.write_plan(&name, phase, self.plan)?;
        let output = self.world.output(&name)?;
        let payload = if self.is_encode() {
            json!({ "op": "ladder", "input": input, "output_dir": output, "renditions": ["144p"] })
        } else {
            let program = self.world.program();
            json!({
                "argv": [program, "selftest", "--inside", input],
                "read": [program, input, self.world.setuid_copy()],
                "write": [output],
            })
        };
        let id = self.instance.submit(self.job_type, &payload, options)?;
        let ended = self.instance.end(id)?;
        let logs = self.instance.logs(self.job_type, id);
        let text = standard_output(&logs);
        Ok(Done { ended, logs, output, text })
    }

    fn attempts(&self) -> io::Result<Vec<Row>> {
        let done = self.submit(Phase::Attempts, "attempts", &[])?;
        let (said, is_whole) = read_lines(&done.text);
        let mut proofs = self.world.traces(self.plan);
        proofs.extend(self.world.listeners.arrived());
        if let Some(damage) = self.world.damage() {
            proofs.push(("write-other-input", damage));
        }
        if let Some(leak) = self.world.leaks(&done.output) {
            proofs.push(("read-other-input", leak));
        }
        let network = &self.instance.config.types[self.job_type].network;
        let is_given = matches!(network, Network::Host);
        let mut rows = rows(self.job_type, attempts::all(), &said, &proofs, is_given);
        if !is_whole {
            let Ended { state, error, .. } = &done.ended;
            let happened = format!("the job {state}: {}", first_line(error));
            let tries = "come to the end of its attempts";
            rows.push(self.row("hostile-job", tries, "all made", (Verdict::NotTried, happened)));
        }
        Ok(rows)
    }

    /// However much a program writes, its logs stay bounded, and its supervisor answers.
    fn flood(&self) -> io::Result<Row> {
        let done = self.submit(Phase::Flood, "flood", &[])?;
        let attempt_max = self.instance.config.log.attempt_max.bytes();
        // Two streams, each a file and the one before it.
        let bound = 4 * attempt_max + (1 << 20);
        let size = size_of(&done.logs);
        let answers = self.instance.json(&["status"]);
        let verdict = match (size, answers) {
            (_, Err(error)) => (Verdict::GotThrough, format!("the supervisor: {error}")),
            (size, _) if size > bound => (Verdict::GotThrough, format!("{size} bytes of logs")),
            (size, _) if size < attempt_max / 2 => {
                (Verdict::NotTried, format!("only {size} bytes of logs: {}", done.ended.error))
            }
            (size, _) => (Verdict::Denied, format!("{} KiB of logs are kept", size >> 10)),
        };
        Ok(self.row("flood-logs", "write logs without end", "bounded", verdict))
    }

    fn outlive(&self) -> io::Result<Row> {
        let done = self.submit(Phase::Outlive, "outlive", &[])?;
        let verdict = if read_lines(&done.text).1 {
            self.nothing_left(done.ended.state)
        } else {
            (Verdict::NotTried, done.ended.error)
        };
        let tries = "leave a process behind that has forked twice into a session of its own";
        Ok(self.row("outlive", tries, "nothing left", verdict))
    }

    fn stubborn(&self) -> io::Result<Row> {
        let done = self.submit(Phase::Stubborn, "stubborn", &["--timeout", "2s"])?;
        let verdict = match (read_lines(&done.text).1, done.ended.cause.as_str()) {
            (false, _) => (Verdict::NotTried, done.ended.error),
            (true, "timeout") => self.nothing_left(done.ended.state),
            (true, cause) => (Verdict::GotThrough, format!("{cause}: {}", done.ended.error)),
        };
        let tries = "ignore every signal, in three processes of two sessions";
        Ok(self.row("ignore-signals", tries, "nothing left", verdict))
    }

    fn nothing_left(&self, state: String) -> (Verdict, String) {
        let deadline = Instant::now() + GONE_WITHIN;
        loop {
            match self.world.left_behind().as_slice() {
                [] => return (Verdict::Denied, format!("the job {state}, nothing is left")),
                left if Instant::now() > deadline => {
                    return (Verdict::GotThrough, format!("processes {left:?} are left"));
                }
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Links in the place of outputs must neither be followed nor published.
    fn false_output(&self) -> io::Result<Row> {
        let done = self.submit(Phase::FalseOutput, "false-output", &[])?;
        let verdict = match (read_lines(&done.text).1, self.world.leaks(&done.output)) {
            (_, Some(leak)) => (Verdict::GotThrough, leak),
            (false, None) => (Verdict::NotTried, done.ended.error),
            (true, None) if done.ended.state == "succeeded" => {
                (Verdict::GotThrough, "the job succeeded".to_owned())
            }
            (true, None) => (Verdict::Denied, first_line(&done.ended.error)),
        };
        let tries = "put a link to another job's input in the place of its output";
        Ok(self.row("false-output", tries, "not published", verdict))
    }

    /// Under the kernel's limits only: the bound must be the job's, and everybody else must live.
    fn bomb(&self, phase: Phase, attempt: &'static str, tries: &'static str) -> io::Result<Row> {
        let done = self.submit(phase, attempt, &["--timeout", "5m"])?;
        let must_live = phase == Phase::CacheBomb;
        let (said, is_whole) = (done.text.trim().to_owned(), read_lines(&done.text).1);
        let is_bounded = !said.contains("no end");
        let ended = &done.ended;
        let verdict = if let Err(error) = self.instance.json(&["status"]) {
            (Verdict::GotThrough, format!("the supervisor: {error}"))
        } else if NEVER_BEGAN.contains(&ended.cause.as_str()) {
            (Verdict::NotTried, format!("{}: {}", ended.cause, first_line(&ended.error)))
        } else if must_live && ended.state != "succeeded" {
            (Verdict::GotThrough, format!("{}: {}", ended.cause, first_line(&ended.error)))
        } else if is_whole && is_bounded {
            (Verdict::Denied, said)
        } else if !is_whole && !must_live && ended.state == "failed" && ended.cause != "timeout" {
            (Verdict::Denied, format!("{}: {}", ended.cause, first_line(&ended.error)))
        } else {
            (Verdict::GotThrough, format!("{} {said}", first_line(&ended.error)))
        };
        match self.nothing_left(String::new()) {
            (Verdict::Denied, _) => Ok(self.row(attempt, tries, "bounded", verdict)),
            left => Ok(self.row(attempt, tries, "bounded", left)),
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn standard_output(logs: &Path) -> String {
    let Ok(entries) = fs::read_dir(logs) else { return String::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let is_output = |path: &&PathBuf| path.extension().is_some_and(|end| end == "out");
    let texts = files.iter().filter(is_output).flat_map(fs::read);
    texts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
}

fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.flatten().flat_map(|entry| entry.metadata()).map(|facts| facts.len()).sum()
}
