//! Running other programs, one named and timed step at a time.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

/// Says in one line what comes next, on the stream that programs use for such lines, so that
/// both stay in order.
pub(crate) fn say(what: &str) {
    eprintln!("\n==> {what}");
}

/// Runs a program with our own streams; any exit but 0 is an error.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    let status = run_to_end(what, command)?;
    if !status.success() {
        bail!("cannot {what}: {} ended with {status}", words(command));
    }
    Ok(())
}

/// Runs a program with our own streams and returns how it ended.
pub(crate) fn run_to_end(what: &str, command: &mut Command) -> Result<ExitStatus> {
    say(what);
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot {what}: cannot run {}", words(command)))?;
    eprintln!("    {what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(status)
}

/// Whether a program can be run and ends with 0, shown to nobody.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Standard output of a program that must end with 0; its errors go to our own.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", words(command)))?;
    if !output.status.success() {
        bail!("{} ended with {}", words(command), output.status);
    }
    Ok(output.stdout)
}

/// The command as a person would type it, for messages only.
fn words(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut text = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}
