//! From kill -9 of a warm idle worker to its replacement's Ready, by the supervisor's log,
//! beside what it takes to notice a death and to start a program that says a word.

use crate::figures::{Spread, latencies, latencies_head, micros, now_micros, say};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shiftboss_tests::{Stage, built, spawn_quiet, wait_for, wait_until};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 40;
pub(crate) const DAY_MICROS: f64 = 86_400e6;

pub(crate) fn restart() {
    let stage =
        Stage::new("[types.noop]\nworkers = { min = 1 }\nrestart = { healthy_after = \"100ms\" }");
    let worker = built("shiftboss-worker");
    let (mut product, mut small, mut same) = (Vec::new(), Vec::new(), Vec::new());
    // What confines a worker is recorded on its attempts.
    let job = stage.insert("noop", "{}");
    stage.wait_for_state(job, "succeeded");
    for round in 1..=ROUNDS {
        wait_until("a worker is ready", || stage.log().matches("is ready").count() == round);
        // Longer than `healthy_after`: this measures no delay of the policy.
        std::thread::sleep(Duration::from_millis(300));
        let pid = wait_for("it is listed", || {
            let workers = stage.json(&["workers", "--json"]);
            i32::try_from(workers[0]["pid"].as_i64()?).ok()
        });
        small.push(replace(Command::new("/bin/echo").arg("x")));
        same.push(replace(Command::new(&worker).arg("--version")));
        std::thread::sleep(Duration::from_millis(20));
        let killed = now_micros() % DAY_MICROS;
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
        wait_until("another is ready", || stage.log().matches("is ready").count() > round);
        let log = stage.log();
        let line = log.lines().rfind(|line| line.contains("is ready")).expect("found above");
        let took = time_of_day(line) - killed;
        product.push(if took < 0.0 { took + DAY_MICROS } else { took });
    }
    let starts = starts(&stage.log());
    let confinement = stage.database().query_row(
        "SELECT confinement FROM attempts ORDER BY job_id DESC LIMIT 1",
        [],
        |row| row.get::<_, String>(0),
    );
    say(&format!("The worker is confined by: {}\n", confinement.unwrap_or_default()));
    latencies_head();
    let what = "spawn of a sealed worker to its Ready, seal included (target: p50 10000)";
    latencies(what, &Spread::of(starts));
    let what =
        "kill -9 of a warm idle worker to its replacement's Ready (target: p50 10000 confined)";
    latencies(what, &Spread::of(product));
    let what = "floor: kill -9 of a child, wait, posix_spawn of /bin/echo, its first byte";
    latencies(what, &Spread::of(small));
    let what = "floor: the same with the worker program and `--version`";
    latencies(what, &Spread::of(same));
}

/// From the spawn of each worker to its Ready, by the log.
fn starts(log: &str) -> Vec<f64> {
    let mut starts = Vec::new();
    for worker in 1.. {
        let of = |text: &str| log.lines().find(|line| line.contains(text)).map(time_of_day);
        let begun = of(&format!("starting worker {worker}:"));
        let ready = of(&format!("worker {worker} is ready"));
        let (Some(begun), Some(ready)) = (begun, ready) else { break };
        starts.push(if ready < begun { ready - begun + DAY_MICROS } else { ready - begun });
    }
    starts
}

/// Kills a child and starts another one in its place, in microseconds to its first byte.
fn replace(replacement: &mut Command) -> f64 {
    let mut child = spawn_quiet(Command::new("sleep").arg("60"));
    std::thread::sleep(Duration::from_millis(5));
    let start = Instant::now();
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    let replacement = replacement.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut replacement = replacement.spawn().expect("the program can be started");
    let mut output = replacement.stdout.take().expect("it is piped");
    output.read_exact(&mut [0]).expect("it says a word");
    let took = start.elapsed();
    replacement.wait().expect("it is ours");
    micros(took)
}

/// Microseconds since midnight UTC of a line of the log.
pub(crate) fn time_of_day(line: &str) -> f64 {
    let (_, time) = line.split_once('T').expect("a line begins with its time");
    let number = |from: usize, to: usize| time[from..to].parse::<f64>().expect("digits");
    let seconds = number(0, 2) * 3600.0 + number(3, 5) * 60.0 + number(6, 8);
    seconds * 1e6 + number(9, 15)
}
