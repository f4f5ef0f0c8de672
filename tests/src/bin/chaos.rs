//! `chaos [--minutes N] [--seed S]`: a run with real processes in which everything dies at
//! random, judged by what it leaves on disk. `chaos --operations N [--seed S]`: so many operations
//! at providers that err, judged by the providers' journals. `cargo xtask chaos` builds all and
//! starts it.

use shiftboss_tests::chaos::{Plan, Report, run};
use shiftboss_tests::provider::storm::{Storm, rage};
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const USAGE: &str = "usage: chaos [--minutes N | --operations N] [--seed S]";

/// What is asked for.
struct Wish {
    plan: Plan,
    /// Operations at providers instead of jobs of all kinds.
    operations: Option<usize>,
}

fn main() -> ExitCode {
    let wish = match wish(std::env::args().skip(1)) {
        Ok(wish) => wish,
        Err(reason) => {
            say(&format!("{reason}; {USAGE}"));
            return ExitCode::from(2);
        }
    };
    let Plan { seed, length } = wish.plan;
    let report = match wish.operations {
        Some(operations) => {
            say(&format!("seed {seed}, {operations} operations"));
            rage(&Storm { seed, operations, calm_ms: 2_000 })
        }
        None => {
            say(&format!("seed {seed}, faults for {} s", length.as_secs()));
            run(&wish.plan)
        }
    };
    tell(seed, &report)
}

fn tell(seed: u64, report: &Report) -> ExitCode {
    for (what, count) in &report.counts {
        say(&format!("{count:>7}  {what}"));
    }
    for violation in &report.violations {
        say(&format!("VIOLATION: {violation}"));
    }
    say(&format!("seed {seed}: {} violations", report.violations.len()));
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn wish(mut arguments: impl Iterator<Item = String>) -> Result<Wish, String> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut plan = Plan { seed: clock.as_secs(), length: Duration::from_secs(60) };
    let mut operations = None;
    while let Some(word) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{word} needs a value"))?;
        match &*word {
            "--seed" => plan.seed = value.parse().map_err(|_| format!("{value} is no seed"))?,
            "--minutes" => {
                let minutes: f64 = value.parse().map_err(|_| format!("{value} is no number"))?;
                plan.length = Duration::try_from_secs_f64(minutes * 60.0)
                    .map_err(|error| format!("{minutes} minutes: {error}"))?;
            }
            "--operations" => {
                let number: usize = value.parse().map_err(|_| format!("{value} is no number"))?;
                operations = Some(number).filter(|number| (1..=10_000).contains(number));
                operations.ok_or_else(|| format!("{number} operations: 1 to 10000 are allowed"))?;
            }
            _ => return Err(format!("unknown option {word}")),
        }
    }
    Ok(Wish { plan, operations })
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
