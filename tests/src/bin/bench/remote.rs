//! Ten thousand provider operations in one worker: what they hold, what polling them costs, how
//! far the rate is kept, and when a killed worker polls again. The provider is another process on
//! the same cores; all times and rates are those of its journal.

use crate::figures::{head, row, say};
use crate::process::{resident, threads};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use shiftboss_tests::provider::{Behaviour, Shape, Simulator, check};
use shiftboss_tests::{Stage, children, wait_for, wait_until};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const OPERATIONS: usize = 10_000;

/// How long each rate is watched.
const WATCHED: Duration = Duration::from_secs(30);

pub(crate) fn remote() {
    head(&[
        "polls allowed",
        "in flight",
        "RSS MiB",
        "anon MiB",
        "CPU % of a core",
        "polls/s",
        "most in a window of 1 s",
        "connections",
        "fair share s",
        "p50 s",
        "p99 s",
        "kill -9 to next poll ms",
        "resubmitted",
    ]);
    for (rate, in_flight, latency_ms) in [(10, 64, 0), (2_000, 256, 50), (2_500, 256, 50)] {
        measure(rate, in_flight, latency_ms);
    }
    say(
        "\nTargets: 64 MiB, 5 % at 10 polls/s, 9.9 to 10 of 10; 2,000 polls/s where more are allowed; \
         500 ms; 0.",
    );
}

fn measure(rate: usize, in_flight: u32, latency_ms: u64) {
    let shape = Shape::Generic;
    let mut stage = Stage::dark("");
    let behaviour = Behaviour { latency_ms, ..Behaviour::default() };
    let simulator = Simulator::start(shape, &behaviour, &stage.path(""));
    simulator.describe(&stage.path(""), |text| {
        text.replace("submit = \"10/1s\"", "submit = \"5000/1s\"")
            .replace("\"100/1s\"", &format!("\"{rate}/1s\"\nin_flight = {in_flight}"))
            .replace("[poll]", "[poll]\nfirst = \"1s\"\nevery = { min = \"1s\", max = \"1s\" }")
    });
    let (port, env) = (simulator.port, simulator.env());
    stage.reconfigure("", &format!("[types.remote]\nnetwork = {{ tcp = [{port}] }}\n{env}"));
    stage.start();
    let mut database = stage.database();
    let insert = database.transaction().expect("nobody else writes");
    for at in 0..OPERATIONS {
        let input = shape.input(&format!("t{at}"), "for-ever");
        let payload = json!({ "provider": "generic", "input": input }).to_string();
        let sql = "INSERT INTO jobs(type, payload) VALUES ('remote', ?1)";
        insert.execute(sql, [payload]).expect("inserted");
    }
    insert.commit().expect("committed");
    wait_until("all are submitted", || count(&simulator.journal(), "submit") == OPERATIONS);
    let worker = || wait_for("there is a worker", || children(stage.pid()).first().copied());
    let pid = worker();
    // What the submissions have left behind in connections and buffers settles.
    std::thread::sleep(Duration::from_secs(5));
    let (cpu, before, began) = (nanos(pid), simulator.journal().len(), Instant::now());
    std::thread::sleep(WATCHED);
    let (used, took) = (nanos(pid) - cpu, began.elapsed());
    let (rss, anon) = resident(pid);
    let journal = simulator.journal();
    let watched = &journal[before..];
    let gaps = gaps(watched);
    let at = |percent: usize| {
        let seconds = gaps.get(gaps.len().saturating_sub(1) * percent / 100);
        seconds.map_or_else(|| "-".to_owned(), |gap| format!("{:.2}", gap.as_secs_f64()))
    };
    let killed = killed_to_polled(&simulator, pid);
    let submits = count(&simulator.journal(), "submit") + count(&simulator.journal(), "again");
    let connections = watched.iter().filter_map(|line| line.all["open"].as_u64()).max();
    row(&[
        format!("{rate}/s"),
        in_flight.to_string(),
        format!("{:.1}", rss as f64 / 1_024.0),
        format!("{:.1}", anon as f64 / 1_024.0),
        format!("{:.1}", 100.0 * used as f64 / took.as_nanos() as f64),
        format!("{:.2}", count(watched, "poll") as f64 / took.as_secs_f64()),
        check::most_within(watched, &["poll"], Duration::from_secs(1)).to_string(),
        connections.unwrap_or(0).to_string(),
        format!("{:.1}", OPERATIONS as f64 / rate as f64),
        at(50),
        at(99),
        killed.as_millis().to_string(),
        (submits - OPERATIONS).to_string(),
    ]);
}

fn count(journal: &[check::Line], kind: &str) -> usize {
    journal.iter().filter(|line| line.kind == kind).count()
}

fn nanos(pid: i32) -> u64 {
    threads(pid).values().map(|thread| thread.nanos).sum()
}

/// Times between two polls of the same operation, the shortest first.
fn gaps(journal: &[check::Line]) -> Vec<Duration> {
    let mut last: BTreeMap<&str, Duration> = BTreeMap::new();
    let mut gaps = Vec::new();
    for line in journal.iter().filter(|line| line.kind == "poll") {
        if let Some(before) = last.insert(&line.op, line.at) {
            gaps.push(line.at - before);
        }
    }
    gaps.sort_unstable();
    gaps
}

/// From the kill of the worker to the first poll of its successor, by this clock.
fn killed_to_polled(simulator: &Simulator, pid: i32) -> Duration {
    let killed = Instant::now();
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
    // What was under way when it died arrives within a moment.
    let seen = wait_for("the last requests have come", || {
        let seen = simulator.journal_bytes();
        std::thread::sleep(Duration::from_millis(5));
        (simulator.journal_bytes() == seen).then_some(seen)
    });
    wait_until("it polls again", || simulator.journal_bytes() > seen);
    killed.elapsed()
}
