//! Many operations at providers that err in every way, while the worker and the supervisor are
//! killed at random. What happened is judged by the providers' journals alone
//! ([`super::verdict`]); what the job table says is compared with that afterwards.

use super::verdict::{Rules, ended, judge};
use super::{Behaviour, Shape, Simulator, check, quick};
use crate::Stage;
use crate::chaos::Report;
use crate::chaos::random::Random;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Each finds an operation whose answer was lost in its own way: by a key that is sent again, in
/// a list, and not at all.
const SHAPES: [Shape; 3] = [Shape::Generic, Shape::Kling, Shape::Replicate];

/// Requests of each class that each provider allows in a second.
const LIMITS: [(&str, usize); 3] = [("submit", 20), ("poll", 60), ("download", 30)];

/// How long no operation may end before they count as stuck.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a supervisor may be away, with what its worker was told in the meantime.
const UNSETTLED: Duration = Duration::from_secs(10);

/// Silence after the end: a request that comes in it comes too late.
const SILENCE: Duration = Duration::from_secs(1);

/// What to play.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// Decides who is killed when, and what the providers do.
    pub seed: u64,
    /// Operations, over all providers.
    pub operations: usize,
    /// Longest time between two kills, milliseconds.
    pub calm_ms: u64,
}

/// Plays it to its end and judges it.
///
/// # Panics
/// When the stage cannot be set up.
#[must_use]
pub fn rage(storm: &Storm) -> Report {
    let mut random = Random::new(storm.seed);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let began = Instant::now();
    let (mut stage, simulators) = set_up(storm);
    stage.start();
    let jobs = insert(&stage, storm, &mut random);
    let is_stuck = strike_until_over(&mut stage, storm, &mut random, &mut counts);
    std::thread::sleep(SILENCE);
    let journals: Vec<_> = simulators.iter().map(Simulator::journal).collect();
    let mut violations = Vec::new();
    for (shape, journal) in SHAPES.into_iter().zip(&journals) {
        let rules = Rules {
            limits: LIMITS.to_vec(),
            window: Duration::from_secs(1),
            finds: shape != Shape::Replicate,
            unsettled: UNSETTLED,
        };
        let told = judge(journal, &rules);
        violations.extend(told.into_iter().map(|what| format!("{}: {what}", shape.name())));
        violations.extend(contradictions(&stage, &jobs, shape, journal));
        count(journal, &mut counts);
    }
    if is_stuck {
        let left = stage.count(UNFINISHED);
        let seconds = PATIENCE.as_secs();
        violations.push(format!("{left} jobs left, and none has ended for {seconds} s"));
    }
    violations.extend(stage.log().lines().filter(|line| line.contains("panicked")).map(Into::into));
    let held = stage.count("state = 'held'");
    counts.insert("jobs held".to_owned(), u64::try_from(held).unwrap_or(0));
    counts.insert("seconds".to_owned(), began.elapsed().as_secs());
    if !violations.is_empty() {
        violations.push(format!("the run's files are kept in {}", keep(&stage).display()));
    }
    Report { counts, violations }
}

fn set_up(storm: &Storm) -> (Stage, Vec<Simulator>) {
    let stage = Stage::dark("");
    let behaviour = Behaviour {
        polls: 4,
        lost_submits: 60,
        lost_polls: 30,
        errors: 30,
        refusals: 30,
        pages: 20,
        slow: 50,
        twice: 30,
        expired: 50,
        broken_files: 50,
        seed: storm.seed,
        ..Behaviour::default()
    };
    let start = |shape| Simulator::start(shape, &behaviour, &stage.path(""));
    let simulators: Vec<_> = SHAPES.into_iter().map(start).collect();
    for simulator in &simulators {
        simulator.describe(&stage.path(""), |text| limited(&quick(text)));
    }
    let ports: Vec<_> = simulators.iter().map(|simulator| simulator.port).collect();
    let secrets = SHAPES.iter().flat_map(|shape| shape.secrets());
    let secrets: Vec<_> = secrets.map(|name| format!("{name} = \"sk-simulated\"")).collect();
    stage.reconfigure(
        "",
        &format!(
            "[types.remote]\nnetwork = {{ tcp = {ports:?} }}\nroots = {{ write = [{:?}] }}\n\
             env = {{ {} }}\nmax_attempts = 100000\nrestart = {{ burst = 1000, within = \"60s\", \
             base = \"1ms\", max = \"100ms\", healthy_after = \"10s\" }}",
            stage.file(""),
            secrets.join(", ")
        ),
    );
    (stage, simulators)
}

/// A description with our limits.
fn limited(text: &str) -> String {
    let (before, after) = text.split_once("[limits]").expect("each has limits");
    let (_, after) = after.split_once("\n[").expect("a section follows");
    let limits: Vec<_> =
        LIMITS.iter().map(|(class, count)| format!("{class} = \"{count}/1s\"")).collect();
    format!("{before}[limits]\n{}\n\n[{after}", limits.join("\n"))
}

/// A job of a storm.
struct Job {
    id: i64,
    shape: Shape,
    tag: String,
    /// Its operation fails at the provider.
    fails: bool,
}

fn insert(stage: &Stage, storm: &Storm, random: &mut Random) -> Vec<Job> {
    let mut database = stage.database();
    let insert = database.transaction().expect("it waits for the supervisor");
    let mut jobs = Vec::new();
    for at in 0..storm.operations {
        let shape = SHAPES[at % SHAPES.len()];
        let (tag, fails) = (format!("{}-{at}", shape.name()), random.percent(10));
        let mode = if fails { "fail" } else { "" };
        let payload = json!({
            "provider": shape.name(), "input": shape.input(&tag, mode),
            "output_dir": stage.file(""), "name": tag,
        });
        let sql = "INSERT INTO jobs(type, payload) VALUES ('remote', ?1)";
        insert.execute(sql, [payload.to_string()]).expect("inserted");
        jobs.push(Job { id: insert.last_insert_rowid(), shape, tag, fails });
    }
    insert.commit().expect("committed");
    jobs
}

const UNFINISHED: &str = "state NOT IN ('succeeded', 'failed', 'held', 'cancelled')";

fn strike_until_over(
    stage: &mut Stage,
    storm: &Storm,
    random: &mut Random,
    counts: &mut BTreeMap<String, u64>,
) -> bool {
    let (mut fewest, mut since) = (i64::MAX, Instant::now());
    loop {
        let next = Instant::now() + random.millis(storm.calm_ms / 8, storm.calm_ms);
        while Instant::now() < next {
            let left = stage.count(UNFINISHED);
            if left == 0 {
                return false;
            }
            if left < fewest {
                (fewest, since) = (left, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let (worker, supervisor) = match random.below(10) {
            0..5 => (true, false),
            5..8 => (false, true),
            _ => (true, true),
        };
        if worker && kill_worker(stage) {
            *counts.entry("worker killed".to_owned()).or_default() += 1;
        }
        if supervisor {
            stage.signal(Signal::SIGKILL);
            stage.wait_for_end();
            stage.start();
            *counts.entry("supervisor killed".to_owned()).or_default() += 1;
        }
    }
}

/// There is at most one, and it is not there all the time.
fn kill_worker(stage: &Stage) -> bool {
    let workers = stage.json(&["workers", "--json"]);
    let pid = workers[0]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    pid.is_some_and(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok())
}

/// Where the table and the journal tell different stories.
fn contradictions(
    stage: &Stage,
    jobs: &[Job],
    shape: Shape,
    journal: &[check::Line],
) -> Vec<String> {
    let ended = ended(journal);
    let mut wrong = Vec::new();
    for Job { id, tag, fails, .. } in jobs.iter().filter(|job| job.shape == shape) {
        let Some(row) = stage.job(*id) else {
            wrong.push(format!("job {id} is gone"));
            continue;
        };
        let file = std::fs::metadata(stage.file(&format!("{tag}.mp4")));
        let has_file = file.is_ok_and(|file| file.len() == 100_000);
        let has_ended = ended.contains(tag);
        let is_well = match row.state.as_str() {
            "succeeded" => has_ended && has_file && !fails,
            "failed" => has_ended && *fails,
            // Only where nobody can find out what became of a submission: the intent was durable,
            // and whether the request was sent before a death is not known here.
            "held" => match shape {
                Shape::Replicate => !has_ended,
                Shape::Kling => !journal.iter().any(|line| line.tag == *tag),
                _ => false,
            },
            _ => false,
        };
        if !is_well {
            let end = if has_ended { "has ended" } else { "has not ended" };
            let (state, error) = (row.state, row.last_error);
            wrong.push(format!("job {id} is {state}, and {tag} {end} in the journal: {error}"));
        }
    }
    wrong
}

fn count(journal: &[check::Line], counts: &mut BTreeMap<String, u64>) {
    for line in journal {
        *counts.entry(format!("requests: {}", line.kind)).or_default() += 1;
        for what in ["lost", "twice", "slow", "expired"] {
            if line.all[what] == true {
                *counts.entry(format!("of these {what}")).or_default() += 1;
            }
        }
    }
    for (class, _) in LIMITS {
        let most = check::most_within(journal, &[class], Duration::from_secs(1)) as u64;
        let entry = counts.entry(format!("most in a second: {class}")).or_default();
        *entry = most.max(*entry);
    }
}

fn keep(stage: &Stage) -> std::path::PathBuf {
    let place = std::env::temp_dir().join(format!("shiftboss-storm-{}", std::process::id()));
    let _ = std::process::Command::new("cp").arg("-a").arg(stage.path("")).arg(&place).status();
    place
}
