//! One running program: a single thread that waits for its output, its input, its launcher and
//! the attempt's bell, and climbs the ladder of stopping when it must.

use super::group::{Counts, Group};
use super::output::{LogFile, Output};
use super::refusal::Refusals;
use super::setting::Setting;
use super::{Ended, Lines, Program};
use crate::attempt::{AttemptContext, Started};
use crate::launcher::{Launched, Report, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shiftboss_protocol::confine::InForce;
use shiftboss_protocol::job::{Cause, Failure};
use shiftboss_protocol::message::StopReason;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes read at once; also what a pipe holds.
const READ_BYTES: usize = 64 << 10;

/// Most that is read of a stream after the tree is dead, bytes: somebody outside of it may hold
/// the pipe open and go on writing. A pipe holds at most 1 MiB without privilege.
const REST_BYTES_MAX: usize = 1 << 20;

/// How long a launcher may take to kill its tree. One that takes longer was stopped itself, by
/// its program or an operator, and is killed.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// How far stopping has come.
#[derive(Clone, Copy, Debug)]
enum Rung {
    /// Nobody wants it to stop.
    Running,
    /// The stop word was written.
    Word { until: Instant },
    /// SIGTERM was sent.
    Term { until: Instant },
    /// SIGKILL was asked for.
    Kill { until: Instant },
}

struct Input {
    pipe: PipeWriter,
    waiting: Vec<u8>,
    /// For the stop word.
    stays_open: bool,
}

struct Stream {
    name: &'static str,
    pipe: Option<PipeReader>,
    output: Output,
}

pub(super) struct Session<'a> {
    context: &'a AttemptContext,
    program: &'a Program,
    launched: Launched,
    /// See [`Setting`].
    marks: Vec<Vec<u8>>,
    refusals: Refusals,
    started: Started<'a>,
    stdin: Option<Input>,
    stdout: Stream,
    stderr: Stream,
    rung: Rung,
    timeout_at: Option<Instant>,
    stopped: Option<StopReason>,
    timed_out: bool,
    /// The control group that it runs in, and what was counted there when it started.
    group: Option<Entered>,
}

/// A program's stay in its attempt's control group.
struct Entered {
    group: Arc<Group>,
    before: Counts,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.group.leave();
    }
}

impl<'a> Session<'a> {
    pub(super) fn start(
        context: &'a AttemptContext,
        program: &'a Program,
        setting: Setting,
        group: Option<Arc<Group>>,
    ) -> Result<Self, Failure> {
        if context.stop_reason().is_some() {
            let message = "the attempt must stop, no program was started";
            return Err(Failure::retryable(Cause::Released, message));
        }
        let refused = |error: io::Error| {
            let message = format!("cannot start the launcher of a program: {error}");
            Failure::retryable(Cause::FailedStart, message)
        };
        let (stdin, stdin_theirs) = open_input(program).map_err(refused)?;
        let (stdout, stdout_theirs) = Stream::open(context, program, "out").map_err(refused)?;
        let (stderr, stderr_theirs) = Stream::open(context, program, "err").map_err(refused)?;
        let streams = [stdin_theirs, stdout_theirs, stderr_theirs];
        let group = group.map(|group| Entered { before: group.enter(), group });
        let launched = Launched::start(&setting.order, streams).map_err(refused)?;
        let started = context.state.started(launched.pid());
        let rung = Rung::Running;
        let timeout_at = program.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let (stopped, timed_out) = (None, false);
        Ok(Self {
            context,
            program,
            launched,
            marks: setting.marks,
            refusals: setting.refusals,
            started,
            stdin,
            stdout,
            stderr,
            rung,
            timeout_at,
            stopped,
            timed_out,
            group,
        })
    }

    pub(super) fn run(mut self, lines: &mut dyn Lines) -> Result<Ended, Failure> {
        let bell = self.context.state.bell().map_err(|error| {
            let message = format!("cannot wait for the end of a program: {error}");
            Failure::retryable(Cause::FailedStart, message)
        })?;
        let mut chunk = vec![0; READ_BYTES];
        let report = loop {
            if !self.climb(Instant::now()) {
                break None;
            }
            self.wait(&bell.bell);
            self.write_input();
            self.stdout.read(self.context, &mut chunk, |line| lines.on_stdout(line));
            self.stderr.read(self.context, &mut chunk, |line| lines.on_stderr(line));
            match self.launched.report() {
                Ok(None) => {}
                Ok(Some(report)) => break Some(report),
                Err(_) => break None,
            }
        };
        drop(bell);
        self.finish(report, chunk, lines)
    }

    /// Takes the next step of stopping when it is time. False: the launcher itself hangs.
    fn climb(&mut self, now: Instant) -> bool {
        match self.rung {
            Rung::Running => {
                self.stopped = self.context.stop_reason();
                self.timed_out =
                    self.stopped.is_none() && self.timeout_at.is_some_and(|at| at <= now);
                if self.stopped.is_some() || self.timed_out {
                    // Not `now`: the thread may have lost its core between that and the reason,
                    // and the program's grace counts from the moment at which it is told.
                    self.begin_stop(Instant::now());
                }
            }
            Rung::Word { until } if until <= now => self.terminate(now),
            Rung::Term { until } if until <= now => {
                self.launched.ask(Request::Kill);
                self.rung = Rung::Kill { until: now + KILL_WAIT };
            }
            Rung::Kill { until } if until <= now => return false,
            Rung::Word { .. } | Rung::Term { .. } | Rung::Kill { .. } => {}
        }
        true
    }

    fn begin_stop(&mut self, now: Instant) {
        match (&self.program.stop_word, &mut self.stdin) {
            (Some(word), Some(input)) => {
                input.waiting.clone_from(word);
                input.stays_open = false;
                self.rung = Rung::Word { until: now + self.program.stop_word_grace };
                self.write_input();
            }
            _ => self.terminate(now),
        }
    }

    fn terminate(&mut self, now: Instant) {
        self.launched.ask(Request::Terminate);
        let grace = Duration::from_millis(self.context.settings().term_grace_ms);
        self.rung = Rung::Term { until: now + grace };
    }

    /// Sleeps until something is to be done.
    fn wait(&self, bell: &impl AsFd) {
        let mut waiting = vec![PollFd::new(&self.launched, PollFlags::IN)];
        let pipes = [&self.stdout.pipe, &self.stderr.pipe];
        waiting.extend(pipes.into_iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        if let Some(input) = self.stdin.as_ref().filter(|input| !input.waiting.is_empty()) {
            waiting.push(PollFd::new(&input.pipe, PollFlags::OUT));
        }
        // A bell rings on: it is listened to only until it is heard.
        let until = match self.rung {
            Rung::Running => {
                waiting.push(PollFd::new(bell, PollFlags::IN));
                self.timeout_at
            }
            Rung::Word { until } | Rung::Term { until } | Rung::Kill { until } => Some(until),
        };
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        // An interrupted wait only makes a round in which there is nothing to do.
        let _ = poll(&mut waiting, timeout.as_ref());
    }

    /// Writes what the pipe takes. A program that does not read it is no fault.
    fn write_input(&mut self) {
        let Some(input) = &mut self.stdin else { return };
        let is_done = match input.pipe.write(&input.waiting) {
            Ok(count) => {
                input.waiting.drain(..count);
                input.waiting.is_empty() && !input.stays_open
            }
            Err(error) => {
                !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
            }
        };
        if is_done {
            self.stdin = None;
        }
    }

    fn finish(
        mut self,
        report: Option<Report>,
        mut chunk: Vec<u8>,
        lines: &mut dyn Lines,
    ) -> Result<Ended, Failure> {
        let exit = match report {
            Some(_) => self.launched.wait(),
            None => {
                if let Some(entered) = &self.group {
                    entered.group.kill_last();
                }
                self.launched.sweep(&self.marks)
            }
        };
        // Its pid may be somebody else's from here on.
        drop(self.started);
        self.stdout.read_rest(self.context, &mut chunk, |line| lines.on_stdout(line));
        self.stderr.read_rest(self.context, &mut chunk, |line| lines.on_stderr(line));
        if let Some(Report::Ended { cpu_ms, memory_peak_bytes, confinement, .. }) = &report {
            self.context.state.add_usage(*cpu_ms, *memory_peak_bytes);
            if !confinement.is_empty() {
                self.context.state.confined(&InForce::parse(confinement));
            }
        }
        // One that was told to stop failed of that, whatever else it met.
        let was_told = self.stopped.is_some() || self.timed_out;
        if let Some(entered) = self.group.as_ref().filter(|_| !was_told)
            && let Some(failure) = entered.hit_limit(self.program, report.as_ref())
        {
            return Err(failure);
        }
        match report {
            Some(Report::NotStarted { step, errno, reason }) => {
                Err(self.refusals.not_started(self.program, step, errno, &reason))
            }
            Some(Report::Ended { exit_code, signal, wall_ms, cpu_ms, confinement, .. }) => {
                Ok(Ended {
                    exit_code,
                    signal,
                    stopped: self.stopped,
                    timed_out: self.timed_out,
                    wall: Duration::from_millis(wall_ms),
                    cpu: Duration::from_millis(cpu_ms),
                    stderr_tail: self.stderr.output.tail(),
                    stdout_tail: self.stdout.output.tail(),
                    confinement,
                })
            }
            None => {
                let how = exit.map_or_else(|error| error.to_string(), |status| status.to_string());
                let message = format!("the launcher of the program ended without a report: {how}");
                Err(Failure::retryable(Cause::Error, message))
            }
        }
    }
}

impl Entered {
    /// Set when the program hit a limit of its control group and did not succeed all the same.
    fn hit_limit(&self, program: &Program, report: Option<&Report>) -> Option<Failure> {
        let (exit_code, signal) = match report {
            Some(Report::Ended { exit_code, signal, .. }) => (*exit_code, *signal),
            Some(Report::NotStarted { .. }) | None => (None, None),
        };
        let name = program.argv.first().map(|name| name.to_string_lossy());
        let failure = self.group.failure_since(self.before, &name.unwrap_or_default())?;
        (exit_code != Some(0)).then_some(Failure { exit_code, signal, ..failure })
    }
}

impl Stream {
    fn open(
        context: &AttemptContext,
        program: &Program,
        name: &'static str,
    ) -> io::Result<(Self, OwnedFd)> {
        let (pipe, theirs) = io::pipe()?;
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let unlogged = program.unlogged.filter(|_| name == "out");
        let output = Output::new(open_log(context, program, name), unlogged);
        Ok((Self { name, pipe: Some(pipe), output }, theirs.into()))
    }

    /// Reads what is there, at most one chunk. True when there may be more.
    fn read(
        &mut self,
        context: &AttemptContext,
        chunk: &mut [u8],
        on_line: impl FnMut(&[u8]),
    ) -> bool {
        let Some(pipe) = &mut self.pipe else { return false };
        match pipe.read(chunk) {
            Ok(0) => {
                self.pipe = None;
                false
            }
            Ok(count) => {
                if let Err(error) = self.output.take(&chunk[..count], on_line) {
                    note_unlogged(context, self.name, &error);
                }
                true
            }
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }

    fn read_rest(
        &mut self,
        context: &AttemptContext,
        chunk: &mut [u8],
        mut on_line: impl FnMut(&[u8]),
    ) {
        for _ in 0..REST_BYTES_MAX.div_ceil(READ_BYTES) * 16 {
            if !self.read(context, chunk, &mut on_line) {
                break;
            }
        }
        if let Err(error) = self.output.finish(on_line) {
            note_unlogged(context, self.name, &error);
        }
    }
}

fn open_log(context: &AttemptContext, program: &Program, name: &'static str) -> Option<LogFile> {
    let log_name = program.log_name.as_deref()?;
    let attempt = context.state.key.1;
    let opened = context.logs_dir().map_err(|failure| io::Error::other(failure.message));
    let opened = opened.and_then(|folder| {
        let path = folder.join(format!("{attempt}.{log_name}.{name}"));
        LogFile::open(path, context.settings().log_bytes_max)
    });
    opened.map_err(|error| note_unlogged(context, name, &error)).ok()
}

fn note_unlogged(context: &AttemptContext, name: &str, error: &io::Error) {
    context.log(&format!("output .{name} of a program is no longer logged: {error}"));
}

/// Standard input: what the program shall read, a pipe for its stop word, or nothing.
fn open_input(program: &Program) -> io::Result<(Option<Input>, OwnedFd)> {
    if program.stdin.is_none() && program.stop_word.is_none() {
        return Ok((None, File::open("/dev/null")?.into()));
    }
    let (theirs, pipe) = io::pipe()?;
    rustix::io::ioctl_fionbio(&pipe, true)?;
    let waiting = program.stdin.clone().unwrap_or_default();
    let stays_open = program.stop_word.is_some();
    Ok((Some(Input { pipe, waiting, stays_open }), theirs.into()))
}
