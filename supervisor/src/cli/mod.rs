//! The command line: arguments in, one exit code out.

mod args;
mod client;
mod error;
mod logs;
mod operate;
mod output;
mod provider;
mod show;
mod story;
mod submit;
mod wait;

use crate::config::{Config, LoadOptions};
use args::{Arguments, Command};
use clap::{CommandFactory, Parser};
pub use error::Error;
use output::{Output, table};
use std::io::Write;
use std::process::ExitCode;

/// Everything that a command needs.
struct Context {
    config: Config,
    json: bool,
    out: Output,
}

/// Runs the program: reads its arguments, does what they say, tells what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(done) = crate::selftest::stand_in() {
        return if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, too, and clap knows where to print which.
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_told() {
                // With standard error closed there is nobody left to tell.
                let _ = writeln!(std::io::stderr(), "shiftboss: {}", chain(&error));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// An error and its causes, without saying anything twice.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        let last = text.rsplit(": ").next().unwrap_or_default();
        if !text.contains(&cause_text) && !cause_text.ends_with(last) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// The manual from the definitions of the arguments: its first page, or all of them as files.
fn manual(folder: Option<&std::path::Path>) -> Result<(), Error> {
    let Some(folder) = folder else {
        let mut text = Vec::new();
        let page = clap_mangen::Man::new(Arguments::command());
        page.render(&mut text).map_err(Error::Print)?;
        return Output::new().raw(&text);
    };
    let pages = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), folder));
    pages.map_err(|error| {
        Error::Failed(format!("cannot write manual pages into {}: {error}", folder.display()))
    })
}

fn run(arguments: Arguments) -> Result<(), Error> {
    match &arguments.command {
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "shiftboss", &mut text);
            return Output::new().raw(&text);
        }
        Command::Man { out } => return manual(out.as_deref()),
        Command::Config { what: args::ConfigCommand::Schema } => {
            return Output::new().line(&format!("{:#}", crate::config::schema()));
        }
        // What runs inside a cage reads no configuration.
        Command::Selftest(args::Selftest { inside: Some(plan), .. }) => {
            return crate::selftest::be_hostile(plan).map_err(Error::Print);
        }
        _ => {}
    }
    let options = LoadOptions::from_process(arguments.config)?;
    let (config, warnings) = Config::load(&options)?;
    if let Command::Run = arguments.command {
        crate::logging::start(&config.log);
        return Ok(crate::daemon::run(config, warnings, options)?);
    }
    let context = Context { config, json: arguments.json, out: Output::new() };
    match arguments.command {
        Command::Run | Command::Completions { .. } | Command::Man { .. } => Ok(()),
        Command::Encode(encode) => submit::encode(&context, &encode),
        Command::Submit(submit) => submit::submit(&context, submit),
        Command::Jobs(jobs) => show::jobs(&context, &jobs),
        Command::Job { id } => story::job(&context, id),
        Command::Logs { id, follow } => logs::logs(&context, id, follow),
        Command::Wait(ids) => wait::wait(&context, &ids.ids),
        Command::Cancel(ids) => operate::cancel(&context, &ids.ids),
        Command::Retry(ids) => operate::retry(&context, &ids.ids),
        Command::Status => show::status(&context),
        Command::Workers => show::workers(&context),
        Command::Types => show::types(&context),
        Command::Pause { job_type } => operate::pause(&context, job_type),
        Command::Resume { job_type } => operate::resume(&context, job_type),
        Command::Drain => operate::drain(&context),
        Command::Upgrade => operate::upgrade(&context),
        Command::Config { what } => show::config(&context, what, &warnings),
        Command::Db { what } => operate::database(&context, what),
        Command::Provider { what } => provider::run(&context, what),
        Command::Doctor => show::doctor(&context),
        Command::Selftest(arguments) => show::selftest(&context, &arguments),
    }
}
