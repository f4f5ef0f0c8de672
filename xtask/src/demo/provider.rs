//! First operations at a provider: one that does not exist, in a process of its own on loopback,
//! described by the shipped `generic.toml` at another address.

use super::supervisor::Supervisor;
use super::{Stage, make_folder, watch_for_signals};
use crate::place::Place;
use crate::step;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

const SIMULATOR: &str = "provider-simulator";
/// Polls of an operation until it is done: some seconds, at the description's pace.
const POLLS: u32 = 4;
const OPERATIONS: usize = 3;

/// Reads `[--keep]`; true when it was there.
pub(crate) fn parse(arguments: &[OsString]) -> Result<bool> {
    match arguments {
        [] => Ok(false),
        [word] if word == "--keep" => Ok(true),
        [word, ..] => bail!("provider takes [--keep], got {word:?}"),
    }
}

/// Builds, asks, shows. The exit code is that of `shiftboss submit --wait`.
pub(crate) fn run(place: &Place, keep: bool) -> Result<ExitCode> {
    let mut command = place.cargo();
    command.args(["build", "--release", "--locked", "--workspace", "--bin", "shiftboss"]);
    command.args(["--bin", "shiftboss-worker", "--bin", SIMULATOR]);
    step::run("build the supervisor, the worker and a provider that does not exist", &mut command)?;
    let stage = Stage::new(place, "demo-output/provider");
    watch_for_signals(&stage)?;
    make_folder(&stage)?;
    let results = stage.folder.join("results");
    std::fs::create_dir_all(&results)
        .with_context(|| format!("cannot make {}", results.display()))?;
    let simulator = Simulator::start(&place.release(SIMULATOR), &stage.folder)?;
    describe(place, &stage, (simulator.port, &results))?;
    let operations = stage.folder.join("operations.jsonl");
    write(&operations, &payloads(&results))?;

    let mut supervisor = Supervisor::start(&stage)?;
    let try_out = ["provider", "try", "generic", "--input", r#"{"prompt": "a cat"}"#];
    step::run("print what would be sent, the secret masked", stage.shiftboss().args(try_out))?;
    let mut submit = stage.shiftboss();
    submit.args(["submit", "remote", "--wait", "--from-file"]).arg(&operations);
    let what = format!("submit {OPERATIONS} operations, poll them, download what they made");
    let status = step::run_to_end(&what, &mut submit)?;
    explain(place, &stage, &results);
    if keep {
        supervisor.wait_for_interrupt(&stage)?;
    }
    supervisor.stop()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The provider's process; it ends with its standard input, so also when we are killed.
#[derive(Debug)]
struct Simulator {
    child: Child,
    port: u16,
}

impl Simulator {
    fn start(program: &Path, folder: &Path) -> Result<Self> {
        let journal = folder.join("requests.jsonl");
        step::say(&format!("start the provider; what it is asked goes to {}", journal.display()));
        let mut child = Command::new(program)
            .args(["generic".as_ref(), journal.as_os_str()])
            .arg(json!({ "polls": POLLS }).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let mut line = String::new();
        let output = child.stdout.take().context("its output is piped")?;
        BufReader::new(output).read_line(&mut line).context("cannot read the provider's port")?;
        let port = line.trim().parse();
        let port = port.with_context(|| format!("the provider says {line:?} instead of a port"))?;
        Ok(Self { child, port })
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configuration of the type, and the description of the provider beside it.
fn describe(place: &Place, stage: &Stage, (port, results): (u16, &Path)) -> Result<()> {
    let config = stage.folder.join("shiftboss.toml");
    let text = std::fs::read_to_string(&config)
        .with_context(|| format!("cannot read {}", config.display()))?;
    let results = results.to_str().context("cannot run here: the path is not UTF-8")?;
    // A JSON string is a TOML basic string.
    let results = Value::from(results);
    write(
        &config,
        &format!(
            "{text}\n[types.remote]\nnetwork = {{ tcp = [{port}] }}\n\
             roots = {{ write = [{results}] }}\nenv = {{ GENERIC_API_KEY = \"sk-simulated\" }}\n"
        ),
    )?;
    let shipped = place.root.join("provider/src/shipped/generic.toml");
    let text = std::fs::read_to_string(&shipped)
        .with_context(|| format!("cannot read {}", shipped.display()))?;
    let here = format!(
        "base = \"http://127.0.0.1:{port}\"\n# Else no address of this host may be asked.\n\
         private = [\"127.0.0.1:{port}\"]"
    );
    let line = text.lines().find(|line| line.starts_with("base = "));
    let line = line.with_context(|| format!("{} has no line `base =`", shipped.display()))?;
    let providers = stage.folder.join("providers");
    std::fs::create_dir_all(&providers)
        .with_context(|| format!("cannot make {}", providers.display()))?;
    write(&providers.join("generic.toml"), &text.replacen(line, &here, 1))
}

/// A job a line.
fn payloads(results: &Path) -> String {
    let payload = |at: usize| {
        json!({
            "provider": "generic",
            "input": { "prompt": format!("cat {at}") },
            "output_dir": results,
            "name": format!("cat-{at}"),
        })
    };
    (1..=OPERATIONS).map(|at| format!("{}\n", payload(at))).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn explain(place: &Place, stage: &Stage, results: &Path) {
    let here = |path: &Path| path.strip_prefix(&place.root).unwrap_or(path).display().to_string();
    let program = here(&place.release("shiftboss"));
    let config = here(&stage.folder.join("shiftboss.toml"));
    let operations = here(&stage.folder.join("operations.jsonl"));
    println!("\nresults     {}", results.display());
    println!("asked       {}", stage.folder.join("requests.jsonl").display());
    println!("provider    {}", stage.folder.join("providers/generic.toml").display());
    println!("log         {}", stage.log().display());
    println!("\nTry next, in {}:", place.root.display());
    println!("  cargo xtask provider --keep    # leaves both running; then, elsewhere:");
    println!("  export SHIFTBOSS_CONFIG={config}");
    println!("  {program} submit remote --from-file {operations}");
    println!("  {program} workers             # kill -9 its pid: no operation is submitted twice");
    println!("  {program} jobs --type remote");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_a_line_with_a_name_of_its_own() {
        let text = payloads(Path::new("/r"));
        let names: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["name"].clone())
            .collect();
        assert_eq!(names, ["cat-1", "cat-2", "cat-3"]);
        assert!(parse(&["--fast".into()]).is_err());
    }
}
