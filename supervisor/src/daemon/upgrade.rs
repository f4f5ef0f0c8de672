//! Handing over: this supervisor ends and its workers go on, to be taken over by the next one.

use super::{Daemon, Leaving};
use crate::config::Config;
use shiftboss_protocol::control::Response;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// What the kernel appends to the name of a program whose file was replaced.
const DELETED: &str = " (deleted)";

/// The program that lies where ours was started from, and our arguments.
pub(super) fn successor() -> io::Result<(PathBuf, Vec<OsString>)> {
    let own = std::env::current_exe()?.into_os_string();
    let own = match own.to_str().and_then(|name| name.strip_suffix(DELETED)) {
        Some(name) => PathBuf::from(name),
        None => PathBuf::from(own),
    };
    Ok((own, std::env::args_os().skip(1).collect()))
}

impl Daemon {
    /// Ends this supervisor after what is queued for the table is stored.
    pub(super) fn hand_over(&mut self, by: &str, how: Leaving) {
        if self.exiting {
            return;
        }
        tracing::info!(by, "handing over: nothing is stopped");
        self.leaving = how;
        self.exiting = true;
    }

    /// Refuses what could not start again; else this process becomes the program that lies
    /// where ours lay.
    pub(super) fn upgrade(&mut self, by: &str) -> Response {
        let refused = match (Config::load(&self.options), successor()) {
            (Err(error), _) => format!("the configuration would be refused: {error}"),
            (Ok(_), Err(error)) => format!("cannot find this program: {error}"),
            (Ok(_), Ok((program, _))) if !program.is_file() => {
                format!("{} is not there", program.display())
            }
            (Ok(_), Ok(_)) => {
                self.hand_over(by, Leaving::Upgrade);
                return Response::Done;
            }
        };
        tracing::warn!(by, "no upgrade, this supervisor goes on: {refused}");
        Response::Refused(format!("this supervisor goes on: {refused}"))
    }
}
