//! A worker's life: start, Hello, Welcome, set-up, Ready, jobs, and the ways out.
//!
//! Single-threaded until Ready, because confinement covers the calling thread only. Then the
//! main thread waits for the events that end the worker (`serve/life.rs`), while another hears
//! one supervisor after another (`serve/contact.rs`); see `held.rs` for what it holds.

mod contact;
pub(crate) mod life;
pub(crate) mod start;

use crate::connection::{self, Outbox};
use crate::held::Held;
use crate::launcher;
use crate::runner::Runner;
use crate::seal;
use crate::timer::{self, Alarm};
use crate::workload::Workload;
use contact::Contact;
use life::{End, Event, Life, Limits, RECEIPTS_WAIT, Step};
use shiftboss_protocol::PROTOCOL_VERSION;
use shiftboss_protocol::message::{Hello, Ready, Settings, Welcome, WorkerMessage};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;
use start::{Arguments, Start};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Instant;

/// Exit code of a usage error: starting again cannot help.
const EXIT_USAGE: u8 = 100;

/// Exit code after a fault of this program.
const EXIT_FAULT: u8 = 101;

/// The `main` of a worker program: serves one supervisor with these workloads.
///
/// The supervisor starts the program with everything that it needs; started by hand it says so
/// and exits with code 100. The program is also its own launcher (see [`crate::program`]), so
/// call this first, before anything is printed or any thread is started.
#[must_use]
pub fn run(workloads: &[&'static dyn Workload]) -> ExitCode {
    match start::read_arguments(std::env::args_os().skip(1)) {
        Start::Launch => launcher::serve(),
        Start::Broker => launcher::serve_as_broker(),
        Start::Version(text) => {
            start::print(&text);
            ExitCode::SUCCESS
        }
        Start::Refused(sentence) => {
            say(&sentence);
            ExitCode::from(EXIT_USAGE)
        }
        Start::Serve(arguments) => serve(&arguments, workloads).unwrap_or_else(|sentence| {
            say(&sentence);
            ExitCode::FAILURE
        }),
    }
}

/// Standard error is the worker's own bounded log file.
fn say(sentence: &str) {
    start::print_error(sentence);
}

fn serve(arguments: &Arguments, workloads: &[&'static dyn Workload]) -> Result<ExitCode, String> {
    let (token, _lock) = launcher::take_inherited(arguments.token_fd, arguments.lock_fd)
        .map_err(|error| format!("cannot take the inherited descriptors: {error}"))?;
    launcher::remember_image()
        .map_err(|error| format!("cannot open this program's own image: {error}"))?;
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        job_type: arguments.job_type.clone(),
        token,
        held: Vec::new(),
        program: start::version(),
    };
    let (mut connection, welcome) =
        connection::open(&arguments.socket, hello.clone()).map_err(|error| chain(&error))?;
    let settings = read_settings(&welcome)?;
    let workload = find(workloads, &welcome)?;
    let abilities = workload
        .set_up(&settings)
        .map_err(|reason| format!("workload {} cannot be set up: {reason}", workload.name()))?;
    let signals =
        Signals::new([SIGTERM]).map_err(|error| format!("cannot handle SIGTERM: {error}"))?;
    // After set-up, which may look for tools and models anywhere; before the first thread.
    let confinement = if workload.starts_programs() {
        seal::ease()?
    } else {
        seal::put_on(&settings, &arguments.socket)?
    };
    let confinement = confinement.to_string();
    let ready = Ready { confinement, abilities };
    connection.say(&WorkerMessage::Ready(ready.clone())).map_err(|error| chain(&error))?;

    let (events, event) = mpsc::channel();
    let life = Life::new(Limits::of(&settings));
    let held = Arc::new(Held::new(
        arguments.job_type.clone(),
        Arc::new(settings),
        Arc::new(Outbox::default()),
        Arc::new(Alarm::default()),
        events,
    ));
    let runner = Runner::start(workload, Arc::clone(&held), welcome.concurrency)?;
    start_keepers(&held, signals)?;
    let (socket, workload) = (arguments.socket.clone(), workload.name());
    let contact = Contact { socket, hello, ready, workload, held: Arc::clone(&held), runner };
    contact.start(connection)?;
    Ok(wait_for_the_end(&held, &event, life))
}

fn read_settings(welcome: &Welcome) -> Result<Settings, String> {
    serde_json::from_str(&welcome.settings)
        .map_err(|error| format!("cannot read the settings in Welcome: {error}"))
}

fn speaks_another(protocol: u32) -> String {
    format!("the supervisor speaks protocol {protocol}, this worker {PROTOCOL_VERSION}")
}

fn find(
    workloads: &[&'static dyn Workload],
    welcome: &Welcome,
) -> Result<&'static dyn Workload, String> {
    if welcome.protocol != PROTOCOL_VERSION {
        return Err(speaks_another(welcome.protocol));
    }
    let found = workloads.iter().find(|workload| workload.name() == welcome.workload);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = workloads.iter().map(|workload| workload.name()).collect();
        format!("no workload {:?} in this worker, it has: {}", welcome.workload, names.join(", "))
    })
}

fn start_keepers(held: &Arc<Held>, mut signals: Signals) -> Result<(), String> {
    let (keeper, alarm) = (Arc::clone(held), Arc::clone(&held.alarm));
    start_thread(held, "timer", move || timer::run(&keeper, &alarm))?;
    let keeper = Arc::clone(held);
    start_thread(held, "outcomes", move || keeper.keep_outcomes())?;
    let terminated = held.events.clone();
    start_thread(held, "signals", move || {
        for _ in signals.forever() {
            let _ = terminated.send(Event::Terminated);
        }
    })
}

/// Starts a thread without which the worker would only be half alive: when it panics, the
/// whole process ends.
pub(crate) fn start_thread(
    held: &Arc<Held>,
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<(), String> {
    let events = held.events.clone();
    let guarded = move || {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            let _ = events.send(Event::Broken);
        }
    };
    match thread::Builder::new().name(name.to_owned()).spawn(guarded) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("cannot start thread {name}: {error}")),
    }
}

/// Waits until the worker may go, and says with which code.
fn wait_for_the_end(held: &Held, events: &Receiver<Event>, mut life: Life) -> ExitCode {
    loop {
        let event = match life.deadline() {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => events.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        let step = match event {
            Ok(event) => life.on(Instant::now(), event),
            Err(RecvTimeoutError::Timeout) => life.on_deadline(Instant::now()),
            Err(RecvTimeoutError::Disconnected) => Step::Exit(End::Fault),
        };
        match step {
            Step::Wait => {}
            Step::Stop(reason) => {
                held.leave(reason);
                held.release_all();
            }
            Step::Abandon(reason) => {
                held.outbox.close();
                held.leave(reason);
                held.release_all();
            }
            Step::Exit(end) => return leave(held, end),
        }
    }
}

fn leave(held: &Held, end: End) -> ExitCode {
    let code = match end {
        End::Success => ExitCode::SUCCESS,
        End::Failure => ExitCode::FAILURE,
        // Whatever has panicked may hold what the rest needs.
        End::Fault => return ExitCode::from(EXIT_FAULT),
    };
    if !held.is_empty() {
        held.outbox.flush(RECEIPTS_WAIT);
    }
    // Also when nothing is held: a file that is being written is deleted again before the exit.
    if !held.store_outcomes() {
        say("outcomes that no supervisor has recorded are lost: they could not be written");
    }
    code
}

/// The error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
