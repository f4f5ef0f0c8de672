//! From being told to run a program to its end, in a cage, beside what the same two executions
//! take without one.

use crate::figures::{Spread, latencies, latencies_head, micros, row};
use shiftboss_tests::{built, spawn_quiet};
use shiftboss_worker::program::{Lines, Program, run_program, use_launcher};
use shiftboss_worker::{Attempt, AttemptContext, Job, JobId, Settings};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const ROUNDS: usize = 300;

struct Silent;

impl Lines for Silent {
    fn on_stdout(&mut self, _: &[u8]) {}
    fn on_stderr(&mut self, _: &[u8]) {}
}

pub(crate) fn cage() {
    let worker = built("shiftboss-worker");
    use_launcher(&worker).expect("it was built");
    let folder = tempfile::tempdir().expect("a folder can be made");
    let context = context(folder.path());
    let program = Program { argv: vec!["true".into()], ..Program::default() };
    let (mut caged, mut bare, mut confinement) = (Vec::new(), Vec::new(), String::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let ended = run_program(&context, &program, &mut Silent).expect("it can be started");
        caged.push(micros(start.elapsed()));
        assert_eq!(ended.exit_code, Some(0));
        confinement = ended.confinement;
        // The launcher is an execution of this image too.
        let start = Instant::now();
        for command in [Command::new(&worker).arg("--version"), &mut Command::new("true")] {
            spawn_quiet(command).wait().expect("it is ours");
        }
        bare.push(micros(start.elapsed()));
    }
    let (caged, bare) = (Spread::of(caged), Spread::of(bare));
    latencies_head();
    latencies("`true` in its cage, from the call to the end of its tree", &caged);
    latencies("floor: the launcher's image and `true`, one after the other", &bare);
    let added = caged.median() - bare.median();
    row(&[format!("the cage adds (target: 10000): p50 {added:.0}")]);
    row(&[format!("in force: {confinement}")]);
}

fn context(folder: &Path) -> AttemptContext {
    let text = |name: &str| folder.join(name).display().to_string();
    let settings =
        Settings { scratch_dir: text("scratch"), logs_dir: text("logs"), ..Settings::default() };
    let job = Job {
        id: JobId(1),
        attempt: Attempt(1),
        job_type: "command".to_owned(),
        payload: "{}".to_owned(),
        checkpoint: None,
    };
    AttemptContext::unattached(settings, &job)
}
