//! The mix of jobs, each with what may come of it.

use super::journal::Journals;
use super::random::Random;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What jobs are made of.
#[derive(Clone, Debug)]
pub(super) struct Props {
    pub(super) program: PathBuf,
    pub(super) journals: Journals,
    /// Where encodes put what they make.
    pub(super) outputs: PathBuf,
    /// A short and a long film; without FFmpeg there are none.
    pub(super) films: Option<[Film; 2]>,
}

/// A film and how many pictures it has.
#[derive(Clone, Debug)]
pub(super) struct Film {
    pub(super) path: PathBuf,
    pub(super) frames: u64,
}

/// A job to be inserted.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) job_type: &'static str,
    pub(super) payload: Value,
    pub(super) attempts_max: Option<i64>,
    pub(super) timeout_ms: Option<i64>,
    pub(super) delay_ms: i64,
    /// For the journal of what was acknowledged, without the job's id.
    promise: Value,
}

/// Causes that a fault from outside may give to an attempt of a job that fails by itself.
const UNLUCKY: [&str; 6] = ["exit_code", "signal", "timeout", "error", "failed_start", "stalled"];

impl Wanted {
    /// The line of the journal once the insert was acknowledged.
    pub(super) fn accepted(&self, id: i64) -> String {
        let mut line = self.promise.clone();
        line["id"] = json!(id);
        line.to_string()
    }

    fn script(props: &Props, kind: &str, steps: &[&str]) -> Self {
        let mut argv = vec![shown(&props.program), shown(props.journals.folder())];
        argv.extend(steps.iter().map(|step| (*step).to_owned()));
        Self {
            job_type: "command",
            payload: json!({
                "argv": argv, "read": [shown(&props.program)],
                "write": [shown(props.journals.folder())],
            }),
            attempts_max: None,
            timeout_ms: None,
            delay_ms: 0,
            promise: json!({ "kind": kind, "state": "succeeded", "journalled": true }),
        }
    }

    fn plain(kind: &'static str, payload: Value) -> Self {
        Self {
            job_type: kind,
            payload,
            attempts_max: None,
            timeout_ms: None,
            delay_ms: 0,
            promise: json!({ "kind": kind, "state": "succeeded" }),
        }
    }

    /// It cannot succeed, and fails for one of these causes.
    fn fails(mut self, causes: &[&str]) -> Self {
        self.promise["state"] = json!("failed");
        self.promise["causes"] = json!(causes);
        self
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The next job; `serial` is different for each.
pub(super) fn choose(random: &mut Random, props: &Props, serial: u64) -> Wanted {
    let sleep = format!("sleep:{}", 100 + random.below(1500));
    let script = |kind, steps: &[&str]| Wanted::script(props, kind, steps);
    match random.below(100) {
        0..30 => script("quick", &[]),
        30..46 => script("sleep", &[&sleep]),
        46..54 => Wanted::plain("noop", json!({})),
        54..62 => Wanted::plain("crowd", json!("wait")),
        62..68 => script("daemon", &["daemon", &sleep]),
        68..72 => script("forks", &["forks:4", &sleep]),
        72..76 => deaf(props),
        76..81 => {
            let job = script("crasher", &[&sleep, "exit:3"]).fails(&UNLUCKY);
            Wanted { attempts_max: Some(2), ..job }
        }
        81..86 => script("flaky", &["fail-until:3"]),
        86..90 => script("killer", &["kill-worker-until:3", &sleep]),
        90..92 => script("memory", &["alloc:40", &sleep]),
        92..94 => Wanted { delay_ms: 3000, ..script("delayed", &[&sleep]) },
        94 => {
            let job = script("poison", &["kill-worker"]).fails(&["poison"]);
            Wanted { job_type: "fragile", ..job }
        }
        kind => encode(props, serial, kind >= 98),
    }
}

/// It hears no SIGTERM, and would run for a minute.
fn deaf(props: &Props) -> Wanted {
    let mut job = Wanted::script(props, "deaf", &["sleep:60000"]).fails(&UNLUCKY);
    let argv = job.payload["argv"].as_array().cloned().unwrap_or_default();
    let shell = ["sh", "-c", "trap '' TERM; exec \"$0\" \"$@\""].map(Value::from);
    job.payload["argv"] = shell.into_iter().chain(argv).collect();
    Wanted { attempts_max: Some(1), timeout_ms: Some(700), ..job }
}

fn encode(props: &Props, serial: u64, is_long: bool) -> Wanted {
    let Some([short, long]) = &props.films else { return Wanted::script(props, "quick", &[]) };
    let film = if is_long { long } else { short };
    let output = shown(&props.outputs.join(serial.to_string()));
    let payload = json!({ "op": "ladder", "input": shown(&film.path), "output_dir": output,
        "renditions": ["144p"], "preset": "ultrafast", "chunk_seconds": 2 });
    let kind = if is_long { "chunks" } else { "encode" };
    let promise = json!({ "kind": kind, "state": "succeeded", "output": output,
        "frames": film.frames });
    Wanted { job_type: "encode", promise, ..Wanted::plain("encode", payload) }
}
