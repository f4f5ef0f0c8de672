//! A [`Host`] that runs programs directly, and a folder for one test.

use super::super::host::Host;
use super::super::ladder;
use crate::attempt::Job;
use crate::program::{Ended, Lines, Program};
use crate::{Failure, Settings, StopReason};
use serde_json::{Value, json};
use shiftboss_protocol::job::{Attempt, JobId};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Stands in for an attempt and its supervisor.
#[derive(Debug, Default)]
pub(super) struct Stage {
    pub(super) settings: Settings,
    pub(super) progress: Mutex<Vec<(Option<f64>, String)>>,
    pub(super) checkpoint: Mutex<Option<Vec<u8>>>,
    /// Stop with this reason once a progress note contains this text.
    pub(super) stop_at: Option<(&'static str, StopReason)>,
    pub(super) stopped: Mutex<Option<StopReason>>,
    /// This file appears at that moment.
    pub(super) touch_at_stop: Option<PathBuf>,
    /// Checkpoints fail: the supervisor is gone.
    pub(super) no_checkpoints: bool,
    /// What outlives the attempt.
    pub(super) kept: Option<PathBuf>,
    pub(super) logged: Mutex<Vec<String>>,
    /// Rename this file to that once a progress note contains this text.
    pub(super) rename_at: Option<(&'static str, PathBuf, PathBuf)>,
}

impl Host for Stage {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn run(&self, program: &Program, lines: &mut dyn Lines) -> Result<Ended, Failure> {
        let started = Instant::now();
        let stdin = if program.stop_word.is_some() { Stdio::piped() } else { Stdio::null() };
        let here = Path::new(".").to_owned();
        let mut child = Command::new(&program.argv[0])
            .args(&program.argv[1..])
            .current_dir(program.cwd.as_ref().unwrap_or(&here))
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ffmpeg is installed on every machine that runs these tests");
        let (sender, receiver) = channel();
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let stderr_sender = sender.clone();
        std::thread::spawn(move || send_lines(stdout, &sender, true));
        std::thread::spawn(move || send_lines(stderr, &stderr_sender, false));
        let mut stdin = child.stdin.take();
        let mut stopped = None;
        while let Ok((is_stdout, line)) = receiver.recv() {
            if is_stdout {
                lines.on_stdout(&line)
            } else {
                lines.on_stderr(&line)
            }
            if let (Some(reason), Some(pipe), Some(word)) =
                (self.stop_reason(), stdin.as_mut(), program.stop_word.as_ref())
                && stopped.is_none()
            {
                // It may have ended by itself meanwhile: then nobody stopped it.
                stopped = pipe.write_all(word).is_ok().then_some(reason);
            }
        }
        let status = child.wait().expect("the child is ours");
        Ok(Ended {
            exit_code: status.code(),
            signal: status.signal(),
            stopped,
            timed_out: false,
            wall: started.elapsed(),
            cpu: Duration::ZERO,
            stderr_tail: String::new(),
            stdout_tail: String::new(),
            confinement: String::new(),
        })
    }

    fn progress(&self, fraction: Option<f64>, note: &str) {
        if let Some((text, reason)) = self.stop_at
            && note.contains(text)
        {
            *self.stopped.lock().expect("no test panics with it") = Some(reason);
            if let Some(file) = &self.touch_at_stop {
                std::fs::write(file, "").expect("the temporary folder can be written");
            }
        }
        if let Some((text, from, to)) = &self.rename_at
            && note.contains(text)
            && from.exists()
        {
            std::fs::rename(from, to).expect("the temporary folder can be written");
        }
        self.progress.lock().expect("no test panics with it").push((fraction, note.to_owned()));
    }

    fn checkpoint(&self, data: &[u8]) -> Result<(), Failure> {
        if self.no_checkpoints {
            return Err(Failure::retryable(crate::Cause::Crash, "the supervisor is gone"));
        }
        *self.checkpoint.lock().expect("no test panics with it") = Some(data.to_vec());
        Ok(())
    }

    fn stop_reason(&self) -> Option<StopReason> {
        *self.stopped.lock().expect("no test panics with it")
    }

    fn log(&self, text: &str) {
        self.logged.lock().expect("no test panics with it").push(text.to_owned());
    }

    fn kept(&self) -> Result<PathBuf, Failure> {
        let folder = self.kept.as_ref().expect("only tests of long films have chunks");
        std::fs::create_dir_all(folder).expect("the temporary folder can be written");
        Ok(folder.clone())
    }

    fn remove_kept(&self) {
        if let Some(folder) = &self.kept
            && folder.exists()
        {
            std::fs::remove_dir_all(folder).expect("the temporary folder can be written");
        }
    }
}

fn send_lines(stream: impl Read, sender: &Sender<(bool, Vec<u8>)>, is_stdout: bool) {
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        if sender.send((is_stdout, line)).is_err() {
            return;
        }
    }
}

/// A folder with films, and the ladder over them.
#[derive(Debug)]
pub(super) struct Studio {
    folder: TempDir,
}

impl Studio {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("the temporary folder can be written") }
    }

    pub(super) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Names of everything in the output folder, hidden ones too.
    pub(super) fn outputs(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path("out")) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("the folder can be listed").file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    pub(super) fn job(&self, input: &Path, more: &Value) -> Job {
        let mut payload = json!({
            "op": "ladder",
            "input": super::super::output::names::path_text(input),
            "output_dir": self.path("out"),
            "preset": "ultrafast",
        });
        let fields = more.as_object().expect("tests give an object").clone();
        payload.as_object_mut().expect("it is an object").extend(fields);
        Job {
            id: JobId(7),
            attempt: Attempt(1),
            job_type: "encode".to_owned(),
            payload: payload.to_string(),
            checkpoint: None,
        }
    }

    /// Runs the ladder once.
    pub(super) fn run(&self, input: &Path, more: &Value) -> Result<Value, Failure> {
        ladder::run(&self.job(input, more), &Stage::default())
    }

    /// Runs the ladder, which must succeed and leave nothing but its outputs.
    pub(super) fn encode(&self, input: &Path, more: &Value) -> Value {
        let result = self.run(input, more).expect("the film is good");
        let listed = result["outputs"].as_array().expect("outputs are listed");
        assert_eq!(self.outputs().len(), listed.len(), "{:?}", self.outputs());
        result
    }

    /// Runs the ladder, which must fail for good and leave nothing; returns the sentence.
    pub(super) fn refuse(&self, input: &Path, more: &Value) -> String {
        let failure = self.run(input, more).expect_err("the film is bad");
        assert!(failure.permanent, "{failure:?}");
        assert_eq!(self.outputs(), Vec::<String>::new());
        failure.message
    }
}

/// Makes a film with ffmpeg; `arguments` are split at spaces.
pub(super) fn ffmpeg(arguments: &str, output: &Path) {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y"])
        .args(arguments.split_whitespace())
        .arg(output)
        .status()
        .expect("ffmpeg is installed on every machine that runs these tests");
    assert!(status.success(), "ffmpeg {arguments}");
}

/// Copies `film` into `turned`, to be shown turned by so many degrees.
pub(super) fn turn(film: &Path, degrees: u32, arguments: &str, turned: &Path) {
    let film = film.display();
    ffmpeg(&format!("-i {film} {arguments} -c copy -metadata:s:v rotate={degrees}"), turned);
    if ffprobe("-show_entries stream_side_data=rotation", turned).is_empty() {
        // The option came with 6.0; versions since then ignore the tag.
        ffmpeg(&format!("-display_rotation {degrees} -i {film} {arguments} -c copy"), turned);
    }
}

/// One value per line of what ffprobe says about `path`.
pub(super) fn ffprobe(arguments: &str, path: &Path) -> Vec<String> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "csv=p=0"])
        .args(arguments.split_whitespace())
        .arg(path)
        .output()
        .expect("ffprobe is installed on every machine that runs these tests");
    let text = String::from_utf8_lossy(&output.stdout);
    let values = text.lines().map(|line| line.trim_end_matches(',').to_owned());
    values.filter(|value| !value.is_empty()).collect()
}

/// What a filter says of each picture of a film beside another film, behind `key`.
pub(super) fn scores((filter, key): (&str, &str), one: &Path, other: &Path) -> Vec<f64> {
    let stats = one.with_extension(filter);
    let graph = format!("[0:v][1:v]{filter}=stats_file={}", stats.display());
    let inputs = format!("-i {} -i {}", one.display(), other.display());
    ffmpeg(&format!("{inputs} -lavfi {graph} -f null"), Path::new("-"));
    let text = std::fs::read_to_string(stats).expect("ffmpeg wrote it");
    let score = |line: &str| line.split(key).nth(1)?.split(' ').next()?.parse().ok();
    text.lines().map(|line| score(line).expect("every line has it")).collect()
}

/// The first `percent` of `path` under another name.
pub(super) fn cut(path: &Path, percent: usize, to: &Path) {
    let bytes = std::fs::read(path).expect("the film was made");
    std::fs::write(to, &bytes[..bytes.len() * percent / 100]).expect("the folder can be written");
}
