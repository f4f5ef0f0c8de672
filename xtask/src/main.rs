//! The commands of this repository: `cargo xtask help` lists them.
//!
//! A command line program for people who work on Shiftboss or try it for the first time; no part
//! of what is installed. What each command needs from the system is in `programs`.
#![expect(clippy::print_stdout, reason = "this program talks to a person at a terminal")]
#![expect(clippy::print_stderr, reason = "this program talks to a person at a terminal")]

mod deb;
mod demo;
mod lint;
mod place;
mod programs;
mod step;
mod suite;
mod vm;

use anyhow::{Context, Result, bail};
use place::Place;
use std::ffi::OsString;
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  setup                             find the programs that the project needs; install the missing
                                    ones when root, else print the line to type
  demo [FILE] [--out DIR] [--keep]  build, start a supervisor of its own in demo-output/, encode
                                    FILE (or a made-up film of 30 seconds) to 1080p, 720p and
                                    480p, show what came out, stop the supervisor.
                                    --keep leaves it running until Ctrl-C
  provider [--keep]                 operations at a provider that does not exist, in
                                    demo-output/provider/: described, submitted, polled,
                                    downloaded. --keep leaves both running until Ctrl-C
  test [-- FILTER...]               build all programs, run all tests (cargo-nextest where it is
                                    installed); FILTER goes to the test runner
  bench [NAME...]                   run a benchmark of the tests crate: its program `bench` lists
                                    the names and does the measuring
  simulate [--seeds N] [--steps M] [--replay SEED] [--sabotage NAME|all]
                                    play the policy in simulated worlds of crashes; --replay
                                    prints the timeline of one seed
  chaos [--minutes N | --operations N] [--seed S]
                                    real processes die, stop, fill the disk and lock the database
                                    at random; what is left on disk is judged. --operations: those
                                    of providers that err, judged by the providers' journals
  deb [--version VERSION] [--debug] make the Debian package in target/debian/; another version and
                                    programs of a debug build are for tests
  vm [--suite trixie|bookworm] [--cuts N] [--seed S] [--all] [--debug] [--keep]
                                    boot Debian in QEMU, install our package there, run the
                                    acceptance of the service and cut the power; --all takes both
                                    suites and 20 cuts each; --keep keeps the disk
  lint                              format check, clippy, dependency rules (installs cargo-deny
                                    when it is missing)
  ci                                lint, then test
  help                              this text
";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.to_string_lossy(), rest),
        None => ("help".into(), arguments),
    };
    if matches!(&*command, "help" | "--help" | "-h") || asks_for_help(rest) {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    match &*command {
        "setup" => {
            no_arguments("setup", rest)?;
            programs::install_missing(programs::FOR_TESTS)?;
        }
        "demo" => return demo::run(&Place::find()?, &demo::Wish::parse(rest)?),
        "provider" => {
            return demo::provider::run(&Place::find()?, demo::provider::parse(rest)?);
        }
        "test" => return suite::run(&Place::find()?, after_dashes(rest)?),
        "bench" => bench(&Place::find()?, rest)?,
        "simulate" => return simulate(&Place::find()?, rest),
        "chaos" => return chaos(&Place::find()?, rest),
        "deb" => {
            deb::run(&Place::find()?, &deb::Wish::parse(rest)?)?;
        }
        "vm" => return vm::run(&Place::find()?, &vm::Wish::parse(rest)?),
        "lint" => {
            no_arguments("lint", rest)?;
            lint::run(&Place::find()?)?;
        }
        "ci" => {
            no_arguments("ci", rest)?;
            let place = Place::find()?;
            lint::run(&place)?;
            return suite::run(&place, &[]);
        }
        other => bail!("unknown command {other:?}: cargo xtask help lists them"),
    }
    Ok(ExitCode::SUCCESS)
}

/// A `--help` behind `--` belongs to the test runner.
fn asks_for_help(rest: &[OsString]) -> bool {
    rest.iter().take_while(|word| *word != "--").any(|word| word == "--help" || word == "-h")
}

fn no_arguments(command: &str, rest: &[OsString]) -> Result<()> {
    match rest.first() {
        Some(word) => bail!("{command} takes no arguments, got {word:?}"),
        None => Ok(()),
    }
}

fn after_dashes(rest: &[OsString]) -> Result<&[OsString]> {
    match rest.split_first() {
        None => Ok(rest),
        Some((dashes, filter)) if dashes == "--" => Ok(filter),
        Some((word, _)) => bail!("test takes its filter after --, got {word:?}"),
    }
}

fn bench(place: &Place, names: &[OsString]) -> Result<()> {
    let mut command = place.cargo();
    command.args(["build", "--release", "--workspace", "--bins"]);
    step::run("build the programs to be measured (release)", &mut command)?;
    let mut command = place.cargo();
    command.args(["run", "--release", "--package", "shiftboss-tests", "--bin", "bench", "--"]);
    step::run("run the benchmark", command.args(names)).context("cannot run the benchmark")
}

fn simulate(place: &Place, arguments: &[OsString]) -> Result<ExitCode> {
    let package = ["--release", "--package", "shiftboss-tests", "--bin", "simulate"];
    step::run("build the simulation (release)", place.cargo().arg("build").args(package))?;
    let mut command = place.cargo();
    command.arg("run").arg("--quiet").args(package).arg("--").args(arguments);
    let status = step::run_to_end("run the simulation", &mut command)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Not a release build: only debug builds have the places at which they die when told to.
fn chaos(place: &Place, options: &[OsString]) -> Result<ExitCode> {
    step::run("build all programs", place.cargo().args(["build", "--workspace", "--bins"]))?;
    let mut command = std::process::Command::new(place.target.join("debug/chaos"));
    let status = step::run_to_end("run chaos", command.args(options))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
