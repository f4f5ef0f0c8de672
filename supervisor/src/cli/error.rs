//! Why a command did not do what it was asked, and the exit code for that.

use crate::config::ConfigError;
use std::io;

/// What ends a command early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The words are off in a way that clap cannot know.
    #[error("{0}")]
    Usage(String),
    /// Nobody listens on the control socket.
    #[error(
        "no supervisor answers at {0}: start one with `shiftboss run`, or name its configuration"
    )]
    NoSupervisor(String),
    /// The supervisor went away in the middle.
    #[error("the supervisor stopped {0}")]
    SupervisorLeft(&'static str),
    /// It says no, or something else went wrong that the sentence tells.
    #[error("{0}")]
    Failed(String),
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The supervisor does not start.
    #[error(transparent)]
    Daemon(#[from] crate::daemon::Error),
    /// The database says no.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The job failed or was cancelled; that has been told already.
    #[error("")]
    JobFailed,
    /// Nobody reads what is printed any more.
    #[error("")]
    Closed,
    /// Something cannot be printed, for another reason.
    #[error("cannot print")]
    Print(#[source] io::Error),
}

impl Error {
    /// The program's exit code.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::JobFailed | Self::Failed(_) | Self::Store(_) | Self::Print(_) => 1,
            Self::Usage(_) => 2,
            Self::NoSupervisor(_) | Self::SupervisorLeft(_) => 3,
            Self::Config(_) => 100,
            Self::Daemon(error) if error.is_refused_configuration() => 100,
            Self::Daemon(_) => 1,
        }
    }

    /// True when nothing more is to be said.
    pub(super) fn is_told(&self) -> bool {
        matches!(self, Self::JobFailed | Self::Closed)
    }
}
