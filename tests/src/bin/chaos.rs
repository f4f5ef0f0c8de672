//! `chaos [--minutes N] [--seed S]`: a run with real processes in which everything dies at
//! random, judged by what it leaves on disk. `cargo xtask chaos` builds all and starts it.

use shiftboss_tests::chaos::{Plan, run};
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn main() -> ExitCode {
    let plan = match plan(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(reason) => {
            say(&format!("{reason}; usage: chaos [--minutes N] [--seed S]"));
            return ExitCode::from(2);
        }
    };
    say(&format!("seed {}, faults for {} s", plan.seed, plan.length.as_secs()));
    let report = run(&plan);
    for (what, count) in &report.counts {
        say(&format!("{count:>7}  {what}"));
    }
    for violation in &report.violations {
        say(&format!("VIOLATION: {violation}"));
    }
    say(&format!("seed {}: {} violations", plan.seed, report.violations.len()));
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn plan(mut arguments: impl Iterator<Item = String>) -> Result<Plan, String> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut plan = Plan { seed: clock.as_secs(), length: Duration::from_secs(60) };
    while let Some(word) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{word} needs a value"))?;
        match &*word {
            "--seed" => plan.seed = value.parse().map_err(|_| format!("{value} is no seed"))?,
            "--minutes" => {
                let minutes: f64 = value.parse().map_err(|_| format!("{value} is no number"))?;
                plan.length = Duration::try_from_secs_f64(minutes * 60.0)
                    .map_err(|error| format!("{minutes} minutes: {error}"))?;
            }
            _ => return Err(format!("unknown option {word}")),
        }
    }
    Ok(plan)
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
