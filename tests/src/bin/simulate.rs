//! `cargo xtask simulate`: plays many seeds of the simulated policy, or replays one as a timeline.
#![expect(clippy::print_stdout, reason = "this program talks to a person at a terminal")]
#![expect(clippy::print_stderr, reason = "this program talks to a person at a terminal")]

use shiftboss_tests::simulation::{Report, Sabotage, Wish, play, shrink};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const HELP: &str = "\
simulate [--seeds N] [--steps M] [--from SEED] [--sabotage NAME]
    plays N seeds (100) from SEED (1), each with M steps (5000) before its quiet end
simulate --replay SEED [--steps M] [--sabotage NAME]
    prints the whole history of one seed as a timeline
NAME is a deliberate breakage, or `all` to play every one until it is found
";

/// Failing seeds after which no more are played.
const FAILURES_MAX: usize = 5;

struct Arguments {
    seeds: u64,
    steps: u64,
    from: u64,
    replay: Option<u64>,
    sabotage: Option<String>,
}

fn main() -> ExitCode {
    let arguments = match read() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("simulate: {problem}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match (arguments.replay, arguments.sabotage.as_deref()) {
        (Some(seed), name) => match name.map(find).transpose() {
            Ok(sabotage) => replay(seed, arguments.steps, sabotage),
            Err(problem) => refuse(&problem),
        },
        (None, Some("all")) => sabotage_all(&arguments),
        (None, name) => match name.map(find).transpose() {
            Ok(sabotage) => play_many(&arguments, sabotage),
            Err(problem) => refuse(&problem),
        },
    }
}

fn refuse(problem: &str) -> ExitCode {
    eprintln!("simulate: {problem}");
    ExitCode::from(2)
}

fn read() -> Result<Option<Arguments>, String> {
    let mut arguments =
        Arguments { seeds: 100, steps: 5_000, from: 1, replay: None, sabotage: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if matches!(&*word, "-h" | "--help" | "help") {
            return Ok(None);
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.replace('_', "").parse::<u64>();
        let number = || number().map_err(|_| format!("{word} {value}: must be a number"));
        match &*word {
            "--seeds" => arguments.seeds = number()?,
            "--steps" => arguments.steps = number()?,
            "--from" => arguments.from = number()?,
            "--replay" => arguments.replay = Some(number()?),
            "--sabotage" => arguments.sabotage = Some(value),
            _ => return Err(format!("unknown option {word}")),
        }
    }
    Ok(Some(arguments))
}

fn find(name: &str) -> Result<Sabotage, String> {
    let all = Sabotage::ALL.map(|one| format!("{one:?}"));
    let at = all.iter().position(|one| one == name);
    let found = at.and_then(|at| Sabotage::ALL.get(at).copied());
    found.ok_or_else(|| format!("--sabotage {name}: must be one of {}", all.join(", ")))
}

fn replay(seed: u64, steps: u64, sabotage: Option<Sabotage>) -> ExitCode {
    let report = play(&Wish { seed, steps, sabotage, keeps_history: true });
    for line in &report.history {
        println!("{line}");
    }
    println!("seed {seed}: {} steps, hash {:016x}", report.steps, report.hash);
    match report.violation {
        None => ExitCode::SUCCESS,
        Some(what) => {
            println!("VIOLATION after {} steps: {what}", report.steps);
            ExitCode::FAILURE
        }
    }
}

fn play_many(arguments: &Arguments, sabotage: Option<Sabotage>) -> ExitCode {
    let started = Instant::now();
    let (mut steps, mut simulated) = (0, Duration::ZERO);
    let mut seen = BTreeMap::<&'static str, u64>::new();
    let mut failed: Vec<Report> = Vec::new();
    let mut played = 0;
    for seed in arguments.from..arguments.from + arguments.seeds {
        let wish = Wish { seed, steps: arguments.steps, sabotage, keeps_history: false };
        let report = play(&wish);
        played += 1;
        steps += report.steps;
        simulated += report.simulated;
        for (what, count) in &report.seen {
            *seen.entry(what).or_default() += count;
        }
        if let Some(what) = &report.violation {
            println!("seed {seed}: VIOLATION after {} steps: {what}", report.steps);
            failed.push(report);
        }
        if failed.len() >= FAILURES_MAX {
            break;
        }
    }
    for (what, count) in &seen {
        println!("{count:>12}  {what}");
    }
    let seconds = started.elapsed().as_secs_f64();
    let hours = simulated.as_secs() / 3_600;
    println!(
        "{played} seeds from {}, {steps} steps, {hours} simulated hours, {seconds:.1} s, {:.0} \
         steps/s, {} violations",
        arguments.from,
        steps as f64 / seconds,
        failed.len()
    );
    let Some(shortest) = failed.iter().min_by_key(|report| report.steps) else {
        return ExitCode::SUCCESS;
    };
    let wish = Wish { seed: shortest.seed, steps: arguments.steps, sabotage, keeps_history: false };
    let (wish, report) = shrink(&wish, shortest);
    println!(
        "smallest: {} steps: {}\nits timeline: cargo xtask simulate --replay {} --steps {}",
        report.steps,
        report.violation.as_deref().unwrap_or_default(),
        wish.seed,
        wish.steps
    );
    ExitCode::FAILURE
}

/// Plays each breakage until a seed finds it.
fn sabotage_all(arguments: &Arguments) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for kind in Sabotage::ALL {
        let mut steps = 0;
        let found = (arguments.from..arguments.from + arguments.seeds).find_map(|seed| {
            let sabotage = Some(kind);
            let wish = Wish { seed, steps: arguments.steps, sabotage, keeps_history: false };
            let report = play(&wish);
            steps += report.steps;
            report.violation.map(|what| (seed, what))
        });
        match found {
            Some((seed, what)) => println!("{kind:?}: seed {seed}, {steps} steps in all: {what}"),
            None => {
                println!("{kind:?}: NOT FOUND in {} seeds", arguments.seeds);
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
