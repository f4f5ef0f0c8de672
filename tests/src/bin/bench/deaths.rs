//! What a death costs in time and work: `adoption` of ten workers by the next supervisor, `rerun`
//! of a job whose worker was killed, `resume` of a film whose encode was killed.

use crate::figures::{Spread, head, latencies, latencies_head, now_micros, row, say};
use crate::film::{self, Film};
use crate::restart::{DAY_MICROS, time_of_day};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use shiftboss_tests::{Stage, wait_for, wait_until};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// Workers that are taken over.
const WORKERS: usize = 10;
const ADOPTIONS: usize = 12;
const RERUNS: usize = 60;
const RESUMES: usize = 3;
const CHUNKS: u64 = 10;

/// No delay of the restart policy, and no job that was killed too often.
const PATIENT: &str = "poison_after = 0\nrestart = { base = \"1ms\", max = \"1ms\", burst = 1000 }";

/// Who is killed in the middle of an encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victims {
    Worker,
    SupervisorAndWorker,
}

const FILM: Film = Film {
    name: "film.mp4",
    size: "640x480",
    seconds: "20",
    codec: &["-c:v", "libx264", "-preset", "ultrafast", "-g", "15"],
};

pub(crate) fn adoption() {
    let workers = format!("[types.command]\nworkers = {{ min = {WORKERS}, max = {WORKERS} }}");
    let mut stage = Stage::new(&workers);
    let go = stage.file("go");
    let script = format!("while [ ! -e {} ]; do sleep 1; done", go.display());
    let jobs: Vec<i64> = (0..WORKERS).map(|_| stage.shell(&script)).collect();
    for job in &jobs {
        wait_until("its program runs", || !stage.programs_of(*job).is_empty());
    }
    let (mut killed, mut upgraded) = (Vec::new(), Vec::new());
    for _ in 0..ADOPTIONS {
        stage.signal(Signal::SIGKILL);
        stage.wait_for_end();
        // The workers look for the next one at their longest gap by now.
        std::thread::sleep(Duration::from_millis(500));
        let ready = ready(&stage);
        let began = now_micros();
        stage.start();
        killed.push(until_all_are_back(&stage, ready, began));
        let ready = self::ready(&stage);
        let began = now_micros();
        assert!(stage.run(&["upgrade"]).status.success(), "{}", stage.log());
        upgraded.push(until_all_are_back(&stage, ready, began));
    }
    std::fs::write(&go, "").expect("the folder is ours");
    for job in jobs {
        assert_eq!(stage.wait_for_state(job, "succeeded").attempt, 1, "it was not taken over");
    }
    latencies_head();
    let what = "kill -9: start of the next supervisor's process to the last of 10 workers back \
                with its attempt (target: 500000)";
    latencies(what, &Spread::of(killed));
    let what = "`shiftboss upgrade`: start of that command to the same (target: 500000)";
    latencies(what, &Spread::of(upgraded));
}

/// How many times a worker has said Ready, by the supervisor's log.
fn ready(stage: &Stage) -> usize {
    stage.log().matches("is ready").count()
}

fn until_all_are_back(stage: &Stage, before: usize, began: f64) -> f64 {
    wait_until("all are back", || ready(stage) == before + WORKERS);
    let busy = || {
        let workers = stage.json(&["workers", "--json"]);
        let busy = |one: &&Value| one["state"] == "busy";
        workers.as_array().map_or(0, |all| all.iter().filter(busy).count())
    };
    wait_until("all are busy", || busy() == WORKERS);
    let log = stage.log();
    let last = log.lines().rfind(|line| line.contains("is ready")).expect("found above");
    since(began, time_of_day(last))
}

/// From a moment of the wall clock to a time of day, microseconds.
fn since(began: f64, time: f64) -> f64 {
    let took = time - began % DAY_MICROS;
    if took < 0.0 { took + DAY_MICROS } else { took }
}

pub(crate) fn rerun() {
    latencies_head();
    for (workers, what) in [
        (
            "workers = { min = 2, max = 2 }",
            "kill -9 of a worker to its program's start in \
          another, which was ready (target: p99 100000)",
        ),
        ("workers = { max = 1 }", "the same, the other worker started for it (target: p99 100000)"),
    ] {
        let stage = Stage::new(&format!("[types.command]\n{workers}\n{PATIENT}"));
        latencies(what, &Spread::of((0..RERUNS).map(|_| run_again(&stage))));
    }
}

/// Kills the worker of a job, and says when the job's next attempt began.
fn run_again(stage: &Stage) -> f64 {
    let starts = stage.file("starts");
    let script = format!(
        "date +%s%6N >> {}; [ $SHIFTBOSS_ATTEMPT -gt 1 ] || exec sleep 300",
        starts.display()
    );
    let begun = || -> Vec<f64> {
        let text = std::fs::read_to_string(&starts).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| line.parse().expect("a number")).collect()
    };
    let before = begun().len();
    let job = stage.shell(&script);
    wait_until("it runs", || begun().len() == before + 1);
    let worker = wait_for("its attempt is stored", || stage.attempts(job).pop()).pid;
    let idle = || {
        let workers = stage.json(&["workers", "--json"]);
        workers.as_array().is_some_and(|all| all.iter().any(|one| one["state"] == "idle"))
    };
    let spare = stage.json(&["types", "--json"]);
    let spare = spare.as_array().into_iter().flatten().find(|one| one["type"] == "command");
    if spare.is_some_and(|one| one["limits"]["workers"] == 2) {
        wait_until("another worker is ready", idle);
    }
    let killed = now_micros();
    kill(Pid::from_raw(worker), Signal::SIGKILL).expect("it lives");
    wait_until("it runs again", || begun().len() == before + 2);
    let done = stage.wait_for_state(job, "succeeded");
    assert_eq!((done.attempt, done.crash_count), (2, 1));
    begun()[before + 1] - killed
}

pub(crate) fn resume() {
    if !film::is_possible() {
        return;
    }
    let mut stage = Stage::new("");
    let film = FILM.make(&stage);
    say(&format!(
        "Film: {}; 240p, 144p, in {CHUNKS} chunks of 2 s, one at a time.\n",
        FILM.describe()
    ));
    head(&[
        "kill -9 of",
        "finished before",
        "begun before",
        "taken over",
        "finished twice",
        "encoded again",
    ]);
    for round in 0..RESUMES {
        for victims in [Victims::Worker, Victims::SupervisorAndWorker] {
            let output = stage.path(&format!("out-{round}-{victims:?}"));
            let payload = json!({
                "op": "ladder", "input": film, "output_dir": output, "preset": "veryfast",
                "renditions": ["240p", "144p"], "chunk_seconds": 2,
            });
            let job = stage.insert("encode", &payload.to_string());
            // Another moment each time.
            let wanted = 2 + 2 * round;
            resume_once(&mut stage, job, wanted, victims);
        }
    }
}

/// Chunks that are encoded, some still to be checked, by name and inode: one that is made again has
/// another inode.
fn finished(stage: &Stage, job: i64) -> BTreeSet<(String, u64)> {
    let made = chunks(stage, job).into_iter().filter(|(name, _)| !name.ends_with(".part"));
    let plain = |name: String| name.trim_end_matches(".unchecked").to_owned();
    made.map(|(name, inode)| (plain(name), inode)).collect()
}

fn chunks(stage: &Stage, job: i64) -> BTreeSet<(String, u64)> {
    let kept = stage.path(&format!("jobs.db.work/scratch/encode/{job}-kept"));
    let entries = std::fs::read_dir(kept).into_iter().flatten().flatten();
    let facts = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        Some((name, entry.metadata().ok()?.ino()))
    };
    entries.filter_map(facts).filter(|(name, _)| name.starts_with("chunk-")).collect()
}

fn resume_once(stage: &mut Stage, job: i64, wanted: usize, victims: Victims) {
    wait_until("chunks are finished, and another has begun", || {
        let state = stage.job(job).expect("it is there").state;
        assert!(state != "succeeded" && state != "failed", "too quick");
        let finished = finished(stage, job).len();
        finished >= wanted && chunks(stage, job).len() > finished
    });
    let worker = stage.attempts(job).pop().expect("an attempt runs").pid;
    if victims == Victims::SupervisorAndWorker {
        stage.signal(Signal::SIGKILL);
    }
    kill(Pid::from_raw(worker), Signal::SIGKILL).expect("it lives");
    let mut seen = finished(stage, job);
    let before = seen.len();
    let begun = chunks(stage, job).len() - before;
    if victims == Victims::SupervisorAndWorker {
        stage.wait_for_end();
        stage.start();
    }
    let row_of_job = wait_for("the film is done", || {
        seen.extend(finished(stage, job));
        stage.job(job).filter(|row| row.state == "succeeded" || row.state == "failed")
    });
    let result: Value = serde_json::from_str(&row_of_job.result.unwrap_or_default())
        .unwrap_or_else(|_| panic!("{}", row_of_job.last_error));
    assert_eq!((row_of_job.attempt, result["chunks"].as_u64()), (2, Some(CHUNKS)));
    let taken_over = result["resumed"].as_u64().expect("a number");
    let names: BTreeSet<_> = seen.iter().map(|(name, _)| name).collect();
    let twice = seen.len() - names.len();
    row(&[
        match victims {
            Victims::Worker => "worker".to_owned(),
            Victims::SupervisorAndWorker => "supervisor and worker".to_owned(),
        },
        before.to_string(),
        begun.to_string(),
        taken_over.to_string(),
        twice.to_string(),
        format!("**{}** (target: 1)", begun + twice),
    ]);
}
