//! Signals that steer the supervisor, with who sent them.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use std::io;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT: drain, and hurry at the second one.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR2: end at once and leave the workers to the next supervisor.
    HandOver,
}

/// A signal that came.
#[derive(Clone, Debug)]
pub struct Signal {
    /// What it asks for.
    pub request: Request,
    /// Its name and sender, for the log.
    pub text: String,
}

/// Calls `on_signal` for every signal, from a thread of its own, until it says false.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn listen(mut on_signal: impl FnMut(Signal) -> bool + Send + 'static) -> io::Result<()> {
    let mut signals = SignalsInfo::<WithOrigin>::new([SIGHUP, SIGINT, SIGTERM, SIGUSR2])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for origin in &mut signals {
            let request = match origin.signal {
                SIGHUP => Request::Reload,
                SIGUSR2 => Request::HandOver,
                _ => Request::Stop,
            };
            let name = signal_hook::low_level::signal_name(origin.signal).unwrap_or("signal");
            let text = match origin.process {
                Some(process) => format!("{name} from pid {} (uid {})", process.pid, process.uid),
                None => name.to_owned(),
            };
            if !on_signal(Signal { request, text }) {
                break;
            }
        }
    })?;
    Ok(())
}
