//! The log: to the journal with fields under systemd, else to standard error.

use crate::config::{Log, LogFormat};
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Our fields in the journal: `journalctl SHIFTBOSS_JOB=7`.
const FIELD_PREFIX: &str = "SHIFTBOSS";

/// Sets up the log of this process. `SHIFTBOSS_LOG` (a filter such as `debug` or
/// `shiftboss::policy=trace`) wins over the configured level.
pub fn start(log: &Log) {
    let filter = EnvFilter::try_from_env("SHIFTBOSS_LOG")
        .unwrap_or_else(|_| EnvFilter::new(log.level.as_str()));
    let registry = tracing_subscriber::registry().with(filter);
    let wants_journal = match log.format {
        LogFormat::Auto => is_journal(),
        LogFormat::Journal => true,
        LogFormat::Text | LogFormat::Json => false,
    };
    // Where there is no journal the text on standard error is better than nothing.
    let journal = wants_journal.then(tracing_journald::layer).and_then(Result::ok);
    let journal = journal.map(|layer| layer.with_field_prefix(Some(FIELD_PREFIX.to_owned())));
    // A second start in one process (tests) keeps the first log.
    let _ = if let Some(journal) = journal {
        registry.with(journal).try_init()
    } else if matches!(log.format, LogFormat::Json) {
        let json = tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr);
        registry.with(json).try_init()
    } else {
        let text = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false);
        registry.with(text).try_init()
    };
}

/// True when standard error is the very socket that systemd says leads to the journal.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(facts) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", facts.dev(), facts.ino())
}
