//! The program of chaos jobs: `journal-job FOLDER STEP...`. It holds the job's lock, as do all
//! its children, writes down its start and its end, and in between does what the steps say.

use rustix::io::{FdFlags, fcntl_setfd};
use shiftboss_tests::chaos::journal::{Deed, Journals, Line};
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            use std::io::Write as _;
            let _ = writeln!(io::stderr(), "journal-job: {error}");
            ExitCode::from(70)
        }
    }
}

fn run() -> io::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or_else(|| io::Error::other("no folder"))?;
    let journals = Journals::at(Path::new(&folder));
    let (job, attempt) = (number("SHIFTBOSS_JOB")?, number("SHIFTBOSS_ATTEMPT")?);
    let lock = File::options().create(true).append(true).open(journals.lock(job))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => journals.note(Deed::Overlap, job, attempt)?,
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Children keep the lock: whoever of this attempt lives on is an overlap, too.
    fcntl_setfd(&lock, FdFlags::empty())?;
    journals.note(Deed::Start, job, attempt)?;
    let mut code = 0;
    for step in arguments {
        let (word, value) = step.split_once(':').unwrap_or((&step, "0"));
        let value: u64 = value.parse().map_err(|_| io::Error::other(format!("step {step}")))?;
        match word {
            "sleep" => std::thread::sleep(Duration::from_millis(value)),
            "forks" => fork(&folder, value)?,
            "daemon" => daemon()?,
            "alloc" => fill_memory(value),
            "exit" => code = u8::try_from(value).unwrap_or(1),
            // The job fails until it was started so often.
            "fail-until" if starts(&journals, job)? < value => code = 1,
            "fail-until" => {}
            "kill-worker-until" if starts(&journals, job)? >= value => {}
            "kill-worker-until" => lose_worker(&journals, job, attempt)?,
            "kill-worker" => lose_worker(&journals, job, attempt)?,
            _ => return Err(io::Error::other(format!("unknown step {step}"))),
        }
    }
    journals.note(Deed::End(code == 0), job, attempt)?;
    Ok(ExitCode::from(code))
}

fn number(variable: &str) -> io::Result<i64> {
    let text = std::env::var(variable).map_err(io::Error::other)?;
    text.parse().map_err(io::Error::other)
}

/// How often the job was started, this time included.
fn starts(journals: &Journals, job: i64) -> io::Result<u64> {
    let text = std::fs::read_to_string(journals.deeds())?;
    let lines = text.lines().filter_map(|line| line.parse::<Line>().ok());
    Ok(lines.filter(|line| line.deed == Deed::Start && line.job == job).count() as u64)
}

fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A fork bomb of a bounded depth: each level starts two shells, which outlive this process.
fn fork(_: &str, depth: u64) -> io::Result<()> {
    let script = "d=$1; [ $d -gt 0 ] && { sh -c \"$0\" \"$0\" $((d-1)) & \
                  sh -c \"$0\" \"$0\" $((d-1)) & }; exec sleep 60";
    quiet("sh").args(["-c", script, script, &depth.to_string()]).spawn().map(drop)
}

/// Double-forks a process into a session of its own.
fn daemon() -> io::Result<()> {
    quiet("setsid").args(["--fork", "sleep", "60"]).status().map(drop)
}

fn fill_memory(mib: u64) {
    let bytes = usize::try_from(mib).unwrap_or(0) << 20;
    std::hint::black_box(vec![1_u8; bytes]);
}

/// Has the worker killed, and waits for the end that comes with it.
fn lose_worker(journals: &Journals, job: i64, attempt: i64) -> io::Result<()> {
    journals.wish(job, attempt)?;
    std::thread::sleep(Duration::from_secs(30));
    Ok(())
}
