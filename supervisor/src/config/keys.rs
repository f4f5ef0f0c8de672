//! Every key that a user can write: its name, what its value must be, and whether a running
//! supervisor takes a change over.
//!
//! This table is what unknown keys, environment names, ranges, reload and `config show` go by;
//! a test in [`super::file`] holds it equal to the structs that are read.

pub(super) mod profile;

use super::unit::{Forever, NoLimit, SIZE_FORM, SPAN_FORM, Size, Span, SpanOr};
use shiftboss_protocol::media::{AUDIO_LAYOUTS, FORMATS, PRESETS};
use std::path::Path;
use toml::Value;

/// One key. A `*` in its path stands for the name of a job type, of a variable or of a profile.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    /// False: a change needs a restart.
    pub(crate) live: bool,
}

/// What a value must be.
#[derive(Debug)]
pub(crate) enum Kind {
    Flag,
    Count(i64, i64),
    Number(f64, f64),
    /// Least and largest length, in milliseconds.
    Time(u64, u64),
    /// The same, or "none".
    Limit(u64, u64),
    /// Any duration, or "forever".
    Kept,
    /// Least number of bytes.
    Bytes(u64),
    Word(&'static [&'static str]),
    /// A text with a rule, and the rule in words.
    Text(fn(&str) -> bool, &'static str),
    /// Made absolute: beside the file that names it, or below the working directory.
    Path,
    /// A path, or a bare name that is looked up in PATH.
    Program,
    Roots,
    Network,
    Devices,
    /// A value of another form, and the form in words.
    Form(fn(&Value) -> bool, &'static str),
}

const DAY: u64 = 86_400_000;
const YEAR: u64 = 366 * DAY;
const PREFIX_FORM: &str = "up to 32 letters, digits and _, not starting with a digit or sqlite_";
const NAME_FORM: &str = "1 to 32 letters, digits, - and _";
const TYPE_FORM: &str = "up to 64 letters, digits, single - and _, starting with a letter or digit";

const fn key(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, live: true }
}

const fn fixed(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, live: false }
}

/// All keys, in the order of the reference file.
pub(crate) const KEYS: &[Key] = &[
    fixed("database", Kind::Path),
    fixed("table_prefix", Kind::Text(is_table_prefix, PREFIX_FORM)),
    fixed("wal", Kind::Word(&["default", "switch"])),
    fixed("instance", Kind::Text(is_instance_name, NAME_FORM)),
    fixed("work_dir", Kind::Path),
    fixed("runtime_dir", Kind::Path),
    key("worker", Kind::Program),
    key("running_max", Kind::Count(1, 1_000_000)),
    key("workers_enabled", Kind::Flag),
    key("tools.ffmpeg", Kind::Program),
    key("tools.ffprobe", Kind::Program),
    fixed("log.level", Kind::Word(&["error", "warn", "info", "debug", "trace"])),
    fixed("log.format", Kind::Word(&["auto", "text", "json", "journal"])),
    key("log.attempt_max", Kind::Bytes(4_096)),
    key("poll.idle_min", Kind::Time(10, DAY)),
    key("poll.idle_max", Kind::Time(10, 7 * DAY)),
    key("poll.factor", Kind::Number(1.0, 1_000.0)),
    key("poll.stagger_max", Kind::Time(0, DAY)),
    key("retention.succeeded", Kind::Kept),
    key("retention.failed", Kind::Kept),
    key("retention.cancelled", Kind::Kept),
    key("retention.logs", Kind::Kept),
    key("types.*.enabled", Kind::Flag),
    key("types.*.workload", Kind::Text(is_type_name, TYPE_FORM)),
    key("types.*.worker", Kind::Program),
    key("types.*.counts_in_cap", Kind::Flag),
    key("types.*.workers.min", Kind::Count(0, 10_000)),
    key("types.*.workers.max", Kind::Count(1, 10_000)),
    key("types.*.workers.warm", Kind::Count(0, 10_000)),
    key("types.*.workers.idle", Kind::Time(0, YEAR)),
    key("types.*.concurrency", Kind::Count(1, 1_000_000)),
    key("types.*.priority", Kind::Count(-1_000_000_000, 1_000_000_000)),
    key("types.*.timeout", Kind::Limit(1, YEAR)),
    key("types.*.stall_timeout", Kind::Limit(1, YEAR)),
    key("types.*.orphan_grace", Kind::Time(0, YEAR)),
    key("types.*.max_attempts", Kind::Count(1, 1_000_000_000)),
    key("types.*.retry.base", Kind::Time(0, YEAR)),
    key("types.*.retry.max", Kind::Time(0, YEAR)),
    key("types.*.retry.factor", Kind::Number(1.0, 1_000.0)),
    key("types.*.retry.jitter", Kind::Number(0.0, 1.0)),
    key("types.*.limits.memory", Kind::Bytes(16 << 20)),
    key("types.*.limits.cpu", Kind::Number(0.01, 10_000.0)),
    key("types.*.limits.cpu_weight", Kind::Count(1, 10_000)),
    key("types.*.limits.pids", Kind::Count(4, 4_194_304)),
    key("types.*.limits.files", Kind::Count(64, 1_048_576)),
    key("types.*.limits.file_size", Kind::Bytes(1)),
    key("types.*.limits.io_read", Kind::Bytes(4_096)),
    key("types.*.limits.io_write", Kind::Bytes(4_096)),
    key("types.*.confine", Kind::Word(&["best-effort", "require"])),
    key("types.*.network", Kind::Network),
    key("types.*.devices", Kind::Devices),
    key("types.*.roots.read", Kind::Roots),
    key("types.*.roots.write", Kind::Roots),
    key("types.*.grace.drain", Kind::Time(0, YEAR)),
    key("types.*.grace.term", Kind::Time(0, DAY)),
    key("types.*.poison_after", Kind::Count(0, 1_000_000)),
    key("types.*.restart.burst", Kind::Count(1, 1_000_000)),
    key("types.*.restart.within", Kind::Time(1, YEAR)),
    key("types.*.restart.base", Kind::Time(0, YEAR)),
    key("types.*.restart.max", Kind::Time(0, YEAR)),
    key("types.*.restart.healthy_after", Kind::Time(0, YEAR)),
    key("types.*.recycle.after_jobs", Kind::Count(0, 1_000_000_000)),
    key("types.*.recycle.above_memory", Kind::Bytes(0)),
    key("types.*.claim_sync", Kind::Flag),
    key(
        "types.*.env.*",
        Kind::Text(|text| !text.contains('\0'), "a text that can be the value of a variable"),
    ),
    key("profiles.*.format", Kind::Word(&FORMATS)),
    key("profiles.*.renditions", Kind::Form(profile::are_renditions, profile::RENDITIONS_FORM)),
    key("profiles.*.codecs", Kind::Form(profile::are_codecs, profile::CODECS_FORM)),
    key("profiles.*.crf", Kind::Count(1, 63)),
    key("profiles.*.preset", Kind::Word(&PRESETS)),
    key("profiles.*.frame_rate_max", Kind::Number(1.0, 240.0)),
    key("profiles.*.audio_bitrate", Kind::Form(profile::is_audio_rate, profile::AUDIO_RATE_FORM)),
    key("profiles.*.audio_layout", Kind::Word(&AUDIO_LAYOUTS)),
    key("profiles.*.loudness", Kind::Number(-40.0, -5.0)),
    key("profiles.*.segment_seconds", Kind::Form(profile::is_segment, profile::SEGMENT_FORM)),
    key("profiles.*.chunk_seconds", Kind::Form(profile::is_chunk, profile::CHUNK_FORM)),
    key("profiles.*.stop_when_larger", Kind::Flag),
];

/// The key of a full name such as `types.encode.workers.max`.
pub(crate) fn key_of(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| is_match(key.path, path))
}

fn is_match(pattern: &str, path: &str) -> bool {
    let mut segments = path.split('.');
    pattern.split('.').all(|want| segments.next().is_some_and(|got| want == "*" || want == got))
        && segments.next().is_none()
}

/// True for `types`, `poll`, `types.encode.workers`: names that keys lie below.
pub(crate) fn is_section(path: &str) -> bool {
    let depth = path.split('.').count();
    KEYS.iter().any(|key| {
        let mut ends = key.path.match_indices('.').map(|(at, _)| at);
        ends.nth(depth - 1).is_some_and(|end| is_match(&key.path[..end], path))
    })
}

/// True for a name that a job type may have. `.` and double `_` stay out, so that keys and
/// variables name types without ambiguity.
pub(crate) fn is_type_name(name: &str) -> bool {
    let mut after_mark = true;
    (1..=64).contains(&name.len())
        && name.chars().all(|c| {
            let is_mark = c == '-' || c == '_';
            let fits = c.is_ascii_alphanumeric() || (is_mark && !after_mark);
            after_mark = is_mark;
            fits
        })
}

/// True for the name of a variable that a type may set for its workers.
pub(crate) fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && !name.starts_with("SHIFTBOSS_")
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_table_prefix(text: &str) -> bool {
    text.len() <= 32
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.to_ascii_lowercase().starts_with("sqlite_")
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_instance_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// U+FFFD marks what was not UTF-8 in a variable: the path would not be the one that was meant.
fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('~') && !text.contains(['\0', '\u{FFFD}'])
}

fn is_root(text: &str) -> bool {
    let path = Path::new(text);
    is_path(text) && path.is_absolute() && !path.components().any(|part| part.as_os_str() == "..")
}

fn is_device(text: &str) -> bool {
    is_root(text) && text.starts_with("/dev/") && text.len() > "/dev/".len()
}

impl Kind {
    /// True when the value has the right type, form and range.
    pub(crate) fn accepts(&self, value: &Value) -> bool {
        let text = value.as_str();
        let between = |span: Span, min, max| (min..=max).contains(&span.millis());
        match self {
            Self::Flag => value.is_bool(),
            Self::Count(min, max) => {
                value.as_integer().is_some_and(|count| (*min..=*max).contains(&count))
            }
            Self::Number(min, max) => as_number(value).is_some_and(|n| (*min..=*max).contains(&n)),
            Self::Time(min, max) => {
                text.and_then(|t| t.parse().ok()).is_some_and(|span| between(span, *min, *max))
            }
            Self::Limit(min, max) => text.is_some_and(|text| {
                text.parse::<SpanOr<NoLimit>>().is_ok()
                    && text.parse().map_or(true, |span| between(span, *min, *max))
            }),
            Self::Kept => text.is_some_and(|text| text.parse::<SpanOr<Forever>>().is_ok()),
            Self::Bytes(min) => text
                .and_then(|t| t.parse::<Size>().ok())
                .is_some_and(|size| size.bytes() >= *min && size.bytes() <= i64::MAX as u64),
            Self::Word(words) => text.is_some_and(|text| words.contains(&text)),
            Self::Text(rule, _) => text.is_some_and(rule),
            Self::Path | Self::Program => text.is_some_and(is_path),
            Self::Roots => value
                .as_array()
                .is_some_and(|roots| roots.iter().all(|r| r.as_str().is_some_and(is_root))),
            Self::Network => is_network(value),
            Self::Form(is_right, _) => is_right(value),
            Self::Devices => value
                .as_array()
                .is_some_and(|list| list.iter().all(|d| d.as_str().is_some_and(is_device))),
        }
    }

    /// What follows "expected" when a value is refused.
    pub(crate) fn expected(&self) -> String {
        let range = |min: u64, max: u64| {
            format!("{SPAN_FORM}, from {} to {}", Span::from_millis(min), Span::from_millis(max))
        };
        match self {
            Self::Flag => "true or false".into(),
            Self::Count(min, max) => format!("a whole number from {min} to {max}"),
            Self::Number(min, max) => format!("a number from {min} to {max}"),
            Self::Time(min, max) => range(*min, *max),
            Self::Limit(min, max) => format!("{}, or \"none\"", range(*min, *max)),
            Self::Kept => format!("{SPAN_FORM}, or \"forever\""),
            Self::Bytes(0 | 1) => SIZE_FORM.into(),
            Self::Bytes(min) => format!("{SIZE_FORM}, at least {}", Size::from_bytes(*min)),
            Self::Word(words) => format!("\"{}\"", words.join("\" or \"")),
            Self::Text(_, form) | Self::Form(_, form) => (*form).into(),
            Self::Path => "a path in UTF-8, written without ~".into(),
            Self::Program => "the path of a program, or a name to look up in PATH".into(),
            Self::Roots => "a list of absolute paths without \"..\"".into(),
            Self::Network => "\"none\", \"host\" or { tcp = [ports from 1 to 65535] }".into(),
            Self::Devices => "a list of paths below /dev without \"..\"".into(),
        }
    }

    /// The value that the text of an environment variable stands for. What cannot be read stays
    /// text, so that [`Kind::accepts`] refuses it like any other wrong value.
    pub(crate) fn read(&self, text: &str) -> Value {
        let as_toml = |text: &str| {
            let table: Option<toml::Table> = toml::from_str(&format!("value = {text}")).ok();
            table.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"))
        };
        let read = match self {
            Self::Flag | Self::Count(..) | Self::Number(..) | Self::Form(..) => {
                as_toml(text.trim())
            }
            Self::Network if text.trim_start().starts_with('{') => as_toml(text.trim()),
            Self::Roots | Self::Devices if text.trim_start().starts_with('[') => {
                as_toml(text.trim())
            }
            // As in PATH, which is what people write into a variable.
            Self::Roots | Self::Devices => {
                let roots = text.split(':').filter(|root| !root.is_empty());
                Some(Value::Array(roots.map(Value::from).collect()))
            }
            Self::Network
            | Self::Time(..)
            | Self::Limit(..)
            | Self::Kept
            | Self::Bytes(_)
            | Self::Word(_)
            | Self::Text(..)
            | Self::Path
            | Self::Program => None,
        };
        read.unwrap_or_else(|| Value::from(text))
    }
}

#[expect(clippy::cast_precision_loss, reason = "every whole number in range is exact")]
fn as_number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))
}

fn is_network(value: &Value) -> bool {
    match value {
        Value::String(word) => word == "none" || word == "host",
        Value::Table(table) => {
            let is_port =
                |port: &Value| port.as_integer().is_some_and(|port| (1..=65_535).contains(&port));
            table.len() == 1
                && table
                    .get("tcp")
                    .and_then(Value::as_array)
                    .is_some_and(|ports| !ports.is_empty() && ports.iter().all(is_port))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_and_keys_are_told_apart() {
        assert!(is_section("types") && is_section("types.x") && is_section("types.x.workers"));
        assert!(is_section("types.x.env") && is_section("poll"));
        assert!(!is_section("database") && !is_section("types.x.workers.max"));
        assert!(!is_section("nothing") && !is_section("types.x.network"));
        assert_eq!(key_of("types.x.env.A").map(|key| key.path), Some("types.*.env.*"));
        assert!(key_of("types.x").is_none() && key_of("types.x.workers.max.y").is_none());
    }

    #[test]
    fn every_kind_refuses_the_wrong_type_and_the_wrong_range() {
        let bad = [
            ("table_prefix", "\"a-b\""),
            ("table_prefix", "\"SQLite_x\""),
            ("instance", "\"\""),
            ("instance", "\"a b\""),
            ("database", "\"~/jobs.db\""),
            ("database", "5"),
            ("work_dir", "\"/\u{FFFD}\""),
            ("wal", "\"on\""),
            ("running_max", "0"),
            ("workers_enabled", "\"yes\""),
            ("poll.factor", "0.5"),
            ("poll.factor", "nan"),
            ("poll.idle_min", "30"),
            ("retention.failed", "\"none\""),
            ("types.x.timeout", "\"0s\""),
            ("types.x.retry.jitter", "1.5"),
            ("types.x.concurrency", "0"),
            ("types.x.limits.memory", "\"1MiB\""),
            ("types.x.roots.read", "[\"in\"]"),
            ("types.x.roots.read", "[\"/in/../etc\"]"),
            ("types.x.network", "{ udp = [53] }"),
            ("types.x.network", "{ tcp = [0] }"),
            ("types.x.network", "{ tcp = [] }"),
            ("types.x.network", "\"all\""),
            ("types.x.confine", "\"required\""),
            ("types.x.devices", "\"/dev/null\""),
            ("types.x.devices", "[\"/etc/passwd\"]"),
            ("types.x.devices", "[\"/dev/../etc/passwd\"]"),
            ("types.x.devices", "[\"/dev/\"]"),
        ];
        for (path, text) in bad {
            let kind = &key_of(path).expect("a known key").kind;
            let table: toml::Table = toml::from_str(&format!("v = {text}")).expect("TOML");
            assert!(!kind.accepts(&table["v"]), "{path} = {text}");
            assert!(!kind.expected().is_empty());
        }
    }

    #[test]
    fn variables_are_read_as_their_key_needs_them() {
        let read = |path: &str, text: &str| {
            let kind = &key_of(path).expect("a known key").kind;
            let value = kind.read(text);
            (kind.accepts(&value), value.to_string())
        };
        assert_eq!(read("running_max", " 4 "), (true, "4".into()));
        assert!(!read("running_max", "4\nx = 1").0 && !read("running_max", "\"4\"").0);
        assert_eq!(read("poll.factor", "2"), (true, "2".into()));
        assert_eq!(read("types.x.timeout", "none"), (true, "\"none\"".into()));
        assert_eq!(read("types.x.roots.read", "/a:/b"), (true, "[\"/a\", \"/b\"]".into()));
        assert_eq!(read("types.x.roots.read", "[\"/a\"]"), (true, "[\"/a\"]".into()));
        assert!(read("types.x.network", "{ tcp = [443] }").0 && read("types.x.network", "host").0);
        assert_eq!(read("types.x.devices", "/dev/null"), (true, "[\"/dev/null\"]".into()));
        assert_eq!(read("table_prefix", ""), (true, "\"\"".into()));
    }

    #[test]
    fn names_of_types_and_variables_are_unambiguous() {
        assert!(is_type_name("encode") && is_type_name("image-gen_2"));
        for name in ["", "-x", "a.b", "a__b", "a-_b", "ä"] {
            assert!(!is_type_name(name), "{name}");
        }
        assert!(is_variable_name("HTTP_PROXY"));
        assert!(!is_variable_name("SHIFTBOSS_JOB") && !is_variable_name("1A"));
    }
}
