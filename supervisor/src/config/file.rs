//! What can be written in the file, section by section: each section is declared once and gives
//! the typed form that is read (every key optional), the resolved form (every key set), and the
//! step from one to the other.

use super::job_type::{JobTypeFile, Variables};
use super::keys::profile::{ProfileFile, Rendition};
use super::unit::{Forever, NoLimit, Size, Span, SpanOr};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A resolved value that what was written can replace, wholly or in part.
pub(crate) trait Overlay {
    /// The form in which it is written.
    type Written;
    /// Takes over what was written.
    fn overlay(&mut self, written: Self::Written);
}

/// Types whose written form replaces them whole.
macro_rules! leaf {
    ($($type:ty),* $(,)?) => {$(
        impl Overlay for $type {
            type Written = Self;
            fn overlay(&mut self, written: Self) {
                *self = written;
            }
        }
    )*};
}
leaf!(bool, u32, i64, f64, String, PathBuf, Vec<PathBuf>, Span, Size, Variables);
leaf!(SpanOr<NoLimit>, SpanOr<Forever>, WalMode, LogLevel, LogFormat);
leaf!(super::job_type::Confine, super::job_type::Network, Vec<Rendition>, Vec<String>);

impl<T> Overlay for Option<T> {
    type Written = T;
    fn overlay(&mut self, written: T) {
        *self = Some(written);
    }
}

/// Declares a section in its two forms.
macro_rules! section {
    ($(#[$about:meta])* $name:ident, $file:ident {
        $($(#[$doc:meta])* $field:ident: $type:ty,)*
    }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
        }

        $(#[$about])*
        #[derive(Clone, Debug, Default, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        #[schemars(title = "")]
        pub(crate) struct $file {
            $(
                $(#[$doc])*
                pub(crate) $field: Option<<$type as crate::config::file::Overlay>::Written>,
            )*
        }

        impl crate::config::file::Overlay for $name {
            type Written = $file;
            fn overlay(&mut self, written: $file) {
                $(if let Some(value) = written.$field {
                    crate::config::file::Overlay::overlay(&mut self.$field, value);
                })*
            }
        }
    };
}
pub(crate) use section;

section! {
    /// The fallback poll of the table, for changes that no wake-up announced.
    Poll, PollFile {
        /// Base interval, and the interval after work.
        idle_min: Span,
        /// The longest interval that idle backoff reaches.
        idle_max: Span,
        /// What the interval is multiplied with when a poll found nothing, at least 1.
        factor: f64,
        /// Largest random delay of a first poll and of the start of a warm spare.
        stagger_max: Span,
    }
}

section! {
    /// How long finished jobs and their logs are kept.
    Retention, RetentionFile {
        /// Jobs that succeeded.
        succeeded: SpanOr<Forever>,
        /// Jobs that failed.
        failed: SpanOr<Forever>,
        /// Jobs that were cancelled.
        cancelled: SpanOr<Forever>,
        /// Logs of attempts.
        logs: SpanOr<Forever>,
    }
}

section! {
    /// The supervisor's own log, and the logs of attempts.
    Log, LogFile {
        /// Least weight of a line that is logged.
        level: LogLevel,
        /// How a line looks.
        format: LogFormat,
        /// Largest log file of one stream of one attempt before it is rotated.
        attempt_max: Size,
    }
}

section! {
    /// Programs that workloads use: a path, or a name that is looked up in PATH.
    Tools, ToolsFile {
        /// ffmpeg.
        ffmpeg: PathBuf,
        /// ffprobe.
        ffprobe: PathBuf,
    }
}

pub(super) const fn default_log() -> Log {
    Log { level: LogLevel::Info, format: LogFormat::Auto, attempt_max: Size::from_bytes(16 << 20) }
}

pub(super) const fn default_poll() -> Poll {
    Poll {
        idle_min: Span::from_secs(1),
        idle_max: Span::from_secs(300),
        factor: 2.0,
        stagger_max: Span::from_secs(5),
    }
}

pub(super) const fn default_retention() -> Retention {
    const DAY: u64 = 86_400;
    Retention {
        succeeded: SpanOr::from_secs(7 * DAY),
        failed: SpanOr::from_secs(30 * DAY),
        cancelled: SpanOr::from_secs(7 * DAY),
        logs: SpanOr::from_secs(7 * DAY),
    }
}

/// What happens to a database that is not in WAL mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WalMode {
    /// Only a database that we make, or that holds nothing else, is put into WAL mode.
    Default,
    /// Somebody else's database is switched too: every program that opens it must cope.
    Switch,
}

/// Weight of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Somebody should look.
    Warn,
    /// For the record.
    Info,
    /// For somebody who looks for a fault.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Journal fields when standard error is the journal, else text.
    Auto,
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
    /// Fields of the systemd journal.
    Journal,
}

/// The whole file as it is read. Its keys are documented at [`super::Config`].
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "shiftboss.toml")]
pub(crate) struct ConfigFile {
    /// The SQLite database that holds the job table.
    pub(crate) database: Option<PathBuf>,
    /// Put before the names of all our tables.
    pub(crate) table_prefix: Option<String>,
    /// Whether somebody else's database may be switched to WAL mode.
    pub(crate) wal: Option<WalMode>,
    /// Name of this supervisor among those that share the database.
    pub(crate) instance: Option<String>,
    /// Scratch, outcomes and logs: on a disk, not in memory.
    pub(crate) work_dir: Option<PathBuf>,
    /// Sockets and locks.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// The worker program of every type that names no other.
    pub(crate) worker: Option<PathBuf>,
    /// Most attempts at once over all types that count.
    pub(crate) running_max: Option<u32>,
    /// False: nothing is claimed and no worker is started.
    pub(crate) workers_enabled: Option<bool>,
    /// Programs that workloads use.
    pub(crate) tools: Option<ToolsFile>,
    /// The supervisor's own log, and the logs of attempts.
    pub(crate) log: Option<LogFile>,
    /// The fallback poll.
    pub(crate) poll: Option<PollFile>,
    /// How long finished jobs are kept.
    pub(crate) retention: Option<RetentionFile>,
    /// Job types by name.
    pub(crate) types: Option<BTreeMap<String, JobTypeFile>>,
    /// What ladders are to be like, by name.
    pub(crate) profiles: Option<BTreeMap<String, ProfileFile>>,
}

/// The JSON Schema of the file, for editors and for `shiftboss config schema`.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(ConfigFile).into()
}

#[cfg(test)]
mod tests {
    use super::super::keys::{KEYS, key_of};
    use super::super::layers::Layers;
    use super::super::{Config, LoadOptions, Warning};
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Full names of all leaves below a schema, with `*` for free names.
    fn leaves(root: &Value, node: &Value, path: &str, found: &mut BTreeSet<String>) {
        let options = node.get("anyOf").and_then(Value::as_array);
        let node = options.and_then(|options| options.first()).unwrap_or(node);
        let node = match node.get("$ref").and_then(Value::as_str) {
            Some(reference) => root.pointer(&reference[1..]).expect("a definition"),
            None => node,
        };
        let join = |name: &str| match path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        let free = node.get("additionalProperties").filter(|value| value.is_object());
        if let Some(properties) = node.get("properties").and_then(Value::as_object) {
            for (name, property) in properties {
                leaves(root, property, &join(name), found);
            }
        } else if let Some(property) = free {
            leaves(root, property, &join("*"), found);
        } else {
            found.insert(path.to_owned());
        }
    }

    #[test]
    fn the_schema_and_the_table_of_keys_name_the_same_keys() {
        let schema = schema();
        let mut found = BTreeSet::new();
        leaves(&schema, &schema, "", &mut found);
        let keys: BTreeSet<String> = KEYS.iter().map(|key| key.path.to_owned()).collect();
        assert_eq!(found, keys);
    }

    #[test]
    fn the_schema_refuses_unknown_keys_and_says_what_keys_mean() {
        let schema = schema();
        assert_eq!(schema["additionalProperties"], Value::Bool(false));
        let text = schema.to_string();
        assert!(text.contains("Base interval, and the interval after work."), "{text}");
        assert!(text.contains("1h30m"), "{text}");
    }

    const REFERENCE: &str = include_str!("../../../systemd/shiftboss.toml");

    /// The reference file with only section headers and the lines that start with one of
    /// `marks`, without the mark.
    fn reference(marks: &[&str]) -> String {
        let uncommented = |line: &str| {
            let marked = marks.iter().find_map(|mark| line.strip_prefix(mark));
            let name = marked.and_then(|rest| rest.split_once(" = ")).map(|(name, _)| name);
            let is_key = name.is_some_and(|name| {
                name.chars().all(|c| c.is_ascii_lowercase() || "_.".contains(c))
            });
            marked.filter(|_| is_key).map(str::to_owned)
        };
        let line = |line: &str| {
            if line.starts_with('[') { Some(line.to_owned()) } else { uncommented(line) }
        };
        REFERENCE.lines().filter_map(line).collect::<Vec<_>>().join("\n")
    }

    fn load(text: &str, folder: &Path) -> (Config, Vec<Warning>) {
        std::fs::write(folder.join("shiftboss.toml"), text).expect("written");
        Config::load(&LoadOptions::plain(folder)).expect("accepted")
    }

    #[test]
    fn every_default_that_the_reference_file_states_is_true() {
        let folder = tempfile::tempdir().expect("a folder");
        let (stated, _) = load(&reference(&["# "]), folder.path());
        let (built_in, _) = load("", folder.path());
        assert_eq!(stated.flat(), built_in.flat());
    }

    #[test]
    fn the_reference_file_names_every_key_and_its_examples_are_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = reference(&["# ", "#: "]);
        load(&text, folder.path());
        let mut layers = Layers::default();
        layers.read_file(Path::new("reference"), text);
        let shipped = ["database", "work_dir", "runtime_dir"];
        let named: BTreeSet<&str> =
            layers.written().chain(shipped).filter_map(key_of).map(|key| key.path).collect();
        let keys: BTreeSet<&str> = KEYS.iter().map(|key| key.path).collect();
        assert_eq!(named, keys);
    }

    #[test]
    fn the_reference_file_as_shipped_is_accepted_without_a_warning() {
        let folder = tempfile::tempdir().expect("a folder");
        let (config, mut warnings) = load(REFERENCE, folder.path());
        // The package makes the media folder; here it is not there.
        warnings.retain(|warning| !warning.text.contains("does not exist"));
        assert_eq!(warnings, []);
        assert_eq!(config.database, Path::new("/var/lib/shiftboss/shiftboss.db"));
        assert!(!config.types["command"].enabled);
    }
}
