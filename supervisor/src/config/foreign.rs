//! Names that users already have in their environment, with the meaning that they have there:
//! a bare number of time is in milliseconds.
//!
//! A prefixed variable wins over them, they win over the file; those that speak of every type
//! yield to a type that sets its own. What cannot be read is refused, never guessed.

use super::environment::variable_of;
use super::keys::{Kind, key_of};
use super::layers::Layers;
use super::problem::{Origin, Reason, Warning};
use super::unit::Span;
use std::collections::BTreeMap;
use toml::Value;

/// Names whose value replaces one key.
const ONE_KEY: [(&str, &str, Meaning); 3] = [
    ("MAX_CONCURRENT_JOBS", "running_max", Meaning::AsKey),
    ("DISABLE_BACKGROUND_WORKERS", "workers_enabled", Meaning::Disable),
    ("INSTANCE_ID", "instance", Meaning::AsKey),
];

/// Names of two pollers that are one here.
const POLLS: [&str; 2] = ["WORKER_POLLING_INTERVAL", "TASK_PROCESSOR_POLLING_INTERVAL"];

/// Names whose value holds for every type that does not set its own.
const EVERY_TYPE: [(&str, &str, Meaning); 3] = [
    ("MAX_WORKERS", "workers.max", Meaning::AsKey),
    ("MIN_WORKERS", "workers.min", Meaning::AsKey),
    ("WORKER_TIMEOUT", "timeout", Meaning::Milliseconds),
];

const WITHOUT_EFFECT: [&str; 3] = ["REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Meaning {
    /// What the key takes.
    AsKey,
    /// True and its synonyms switch the key off.
    Disable,
    /// A bare number of milliseconds, or a duration with units.
    Milliseconds,
}

/// Takes over what is set. An empty variable counts as not set.
pub(crate) fn apply(
    environment: &BTreeMap<String, String>,
    layers: &mut Layers,
    warnings: &mut Vec<Warning>,
) {
    let set = |name: &'static str| {
        let text = environment.get(name).map(|text| text.trim())?;
        (!text.is_empty()).then_some((name, text))
    };
    for (name, path, meaning) in ONE_KEY {
        if let Some((_, text)) = set(name).filter(|_| !is_set_by_variable(layers, path))
            && let Some(value) = read(name, text, path, meaning, layers, warnings)
        {
            layers.set(path, value, Origin::Environment { name: name.into() });
        }
    }
    apply_polls(POLLS.into_iter().filter_map(set), layers, warnings);
    for (name, end, meaning) in EVERY_TYPE {
        let Some((_, text)) = set(name) else { continue };
        let Some(value) = read(name, text, &format!("types.*.{end}"), meaning, layers, warnings)
        else {
            continue;
        };
        for job_type in layers.type_names() {
            let path = format!("types.{job_type}.{end}");
            if layers.origin(&path).is_none() {
                layers.set(&path, value.clone(), Origin::Environment { name: name.into() });
            }
        }
    }
    let names: Vec<&str> = WITHOUT_EFFECT.into_iter().filter(|name| set(name).is_some()).collect();
    if !names.is_empty() {
        let names = names.join(", ");
        let text = format!("{names}: read, but this version sends no events to Redis");
        warnings.push(Warning { text });
    }
}

/// Both names set the base of the one fallback poll; the shorter interval wins.
fn apply_polls<'a>(
    set: impl Iterator<Item = (&'static str, &'a str)>,
    layers: &mut Layers,
    warnings: &mut Vec<Warning>,
) {
    const PATH: &str = "poll.idle_min";
    if is_set_by_variable(layers, PATH) {
        return;
    }
    let read: Vec<(Span, &str)> = set
        .filter_map(|(name, text)| {
            let value = read(name, text, PATH, Meaning::Milliseconds, layers, warnings)?;
            Some((value.as_str()?.parse().ok()?, name))
        })
        .collect();
    let Some((shortest, name)) = read.iter().min() else { return };
    if read.iter().any(|(span, _)| span != shortest) {
        let names = POLLS.join(" and ");
        let text = format!("{names} differ: both set poll.idle_min, {shortest} is used");
        warnings.push(Warning { text });
    }
    let origin = Origin::Environment { name: (*name).into() };
    layers.set(PATH, Value::from(shortest.to_string()), origin);
}

fn is_set_by_variable(layers: &Layers, path: &str) -> bool {
    matches!(layers.origin(path), Some(Origin::Environment { .. }))
}

/// The value that `text` stands for; `None` after it was refused.
fn read(
    name: &str,
    text: &str,
    path: &str,
    meaning: Meaning,
    layers: &mut Layers,
    warnings: &mut Vec<Warning>,
) -> Option<Value> {
    let kind = &key_of(path).expect("foreign names stand for known keys").kind;
    let (value, expected) = match meaning {
        Meaning::AsKey => (Some(kind.read(text)), kind.expected()),
        Meaning::Disable => {
            let value = as_switch(text).map(|disabled| Value::Boolean(!disabled));
            (value, "true, false, 1, 0, yes, no, on or off".into())
        }
        Meaning::Milliseconds => {
            let bare: Option<u64> = text.parse().ok();
            let span = bare.map(Span::from_millis).or_else(|| text.parse().ok());
            if bare.is_some_and(|millis| millis < 1_000) {
                let text = format!("{name} = {text} is read as milliseconds");
                warnings.push(Warning { text });
            }
            let value = span.map(|span| Value::from(span.to_string()));
            (value, format!("a number of milliseconds, or {}", kind.expected()))
        }
    };
    let value = value.filter(|value| kind.accepts(value));
    if value.is_none() {
        let remedy = match (name, kind) {
            ("MAX_WORKERS", Kind::Count(..)) => {
                "; DISABLE_BACKGROUND_WORKERS=true runs none".to_owned()
            }
            _ if path.contains('*') => String::new(),
            _ => format!("; {} would win over it", variable_of(path)),
        };
        let reason = Reason::Expected(format!("{expected}{remedy}"));
        layers.refuse_variable(name, Some(text), reason);
    }
    value
}

fn as_switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "y" | "t" => Some(true),
        "false" | "0" | "no" | "off" | "n" | "f" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigError, LoadOptions};
    use std::time::Duration;

    fn load(file: &str, variables: &[(&str, &str)]) -> Result<(Config, Vec<String>), String> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("shiftboss.toml"), file).expect("written");
        let mut options = LoadOptions::plain(folder.path());
        options.environment =
            variables.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
        let loaded = Config::load(&options).map_err(|error: ConfigError| error.to_string())?;
        Ok((loaded.0, loaded.1.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn names_that_users_have_keep_their_meaning() {
        let (config, warnings) = load(
            "running_max = 1\ninstance = \"file\"",
            &[
                ("MAX_CONCURRENT_JOBS", "3"),
                ("DISABLE_BACKGROUND_WORKERS", "Yes"),
                ("WORKER_POLLING_INTERVAL", "5000"),
                ("MAX_WORKERS", "7"),
                ("MIN_WORKERS", "1"),
                ("WORKER_TIMEOUT", "300000"),
                ("INSTANCE_ID", "node-2"),
            ],
        )
        .expect("accepted");
        assert_eq!(warnings, Vec::<String>::new());
        let settings = config.policy_settings();
        assert_eq!((settings.running_max, settings.workers_enabled), (Some(3), false));
        assert_eq!(settings.poll.idle_min, Duration::from_secs(5));
        for job_type in settings.types.values() {
            assert_eq!((job_type.workers_min, job_type.workers_max), (1, 7));
            assert_eq!(job_type.timeout, Some(Duration::from_secs(300)));
        }
        assert_eq!(config.instance, "node-2");
        assert_eq!(config.origin("instance").to_string(), "environment INSTANCE_ID");
    }

    #[test]
    fn a_prefixed_name_wins_over_a_foreign_one_and_a_type_keeps_its_own() {
        let (config, _) = load(
            "[types.encode]\nworkers = { max = 3 }\ntimeout = \"1h\"",
            &[
                ("MAX_WORKERS", "9"),
                ("WORKER_TIMEOUT", "5m"),
                ("MAX_CONCURRENT_JOBS", "3"),
                ("SHIFTBOSS_RUNNING_MAX", "4"),
                ("WORKER_POLLING_INTERVAL", "broken"),
                ("SHIFTBOSS_POLL__IDLE_MIN", "2s"),
            ],
        )
        .expect("accepted");
        assert_eq!(config.running_max, Some(4));
        assert_eq!(config.poll.idle_min.to_string(), "2s");
        assert_eq!((config.types["encode"].workers.max, config.types["noop"].workers.max), (3, 9));
        assert_eq!(config.types["encode"].timeout.to_string(), "1h");
        assert_eq!(config.types["command"].timeout.to_string(), "5m");
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_name_value_and_remedy() {
        let refusal = |name, text| load("", &[(name, text)]).expect_err(name);
        assert_eq!(
            refusal("MAX_WORKERS", "0"),
            "environment MAX_WORKERS = \"0\": expected a whole number from 1 to 10000; \
             DISABLE_BACKGROUND_WORKERS=true runs none"
        );
        let text = refusal("DISABLE_BACKGROUND_WORKERS", "maybe");
        assert!(text.contains("= \"maybe\": expected true, false, 1, 0"), "{text}");
        let text = refusal("WORKER_POLLING_INTERVAL", "fast");
        assert!(text.contains("expected a number of milliseconds, or a duration"), "{text}");
        assert!(text.ends_with("SHIFTBOSS_POLL__IDLE_MIN would win over it"), "{text}");
        refusal("INSTANCE_ID", "a/b");
        refusal("MAX_CONCURRENT_JOBS", "-1");
        refusal("WORKER_TIMEOUT", "0");
    }

    #[test]
    fn doubtful_values_get_a_warning() {
        let (config, warnings) = load(
            "",
            &[
                ("REDIS_HOST", "localhost"),
                ("REDIS_PASSWORD", "s3cret"),
                ("WORKER_TIMEOUT", "30"),
                ("WORKER_POLLING_INTERVAL", "30000"),
                ("TASK_PROCESSOR_POLLING_INTERVAL", "10000"),
                ("MAX_CONCURRENT_JOBS", ""),
            ],
        )
        .expect("accepted");
        let text = warnings.join("\n");
        assert!(text.contains("REDIS_HOST, REDIS_PASSWORD: read") && !text.contains("s3cret"));
        assert!(text.contains("WORKER_TIMEOUT = 30 is read as milliseconds"), "{text}");
        assert!(text.contains("differ: both set poll.idle_min, 10s is used"), "{text}");
        assert_eq!(config.poll.idle_min.to_string(), "10s");
        assert_eq!(config.running_max, None);
    }
}
