//! The resolved configuration as a flat list of keys: what `shiftboss config show` prints, and
//! what two configurations are compared by when a running supervisor reads its file again.

use super::Config;
use super::keys::{KEYS, key_of};
use super::problem::Origin;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// One key with its value. [`fmt::Display`] prints a line of TOML.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownValue {
    /// Full name, such as `types.encode.workers.max`.
    pub key: String,
    /// The value in force; null when nothing is set. Values of variables are hidden.
    pub value: Value,
    /// Where it came from; in JSON as text.
    pub origin: Origin,
}

impl fmt::Display for ShownValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = &self.origin;
        match &self.value {
            Value::Null => write!(f, "# {} is not set", self.key),
            value if self.key.contains(".env.") => write!(f, "# {} is {value}", self.key),
            value => write!(f, "{} = {}  # {origin}", self.key, toml_text(value)),
        }
    }
}

/// A JSON value in the spelling of TOML, on one line.
pub(crate) fn toml_text(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let field = |(name, value)| format!("{name} = {}", toml_text(value));
            format!("{{ {} }}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        Value::Array(values) => {
            format!("[{}]", values.iter().map(toml_text).collect::<Vec<_>>().join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// Which changes a running supervisor takes over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadDifferences {
    /// Keys whose new value holds from now on: limits for new workers, retention, poll, ...
    /// A type that came or went is named alone, as `types.NAME`.
    pub applied: Vec<String>,
    /// Keys whose new value needs a restart.
    pub needs_restart: Vec<String>,
}

impl ReloadDifferences {
    /// What a person is told.
    #[must_use]
    pub fn sentence(&self) -> String {
        let applied = match &self.applied[..] {
            [] => "nothing to take over".to_owned(),
            keys => format!("took over {}", keys.join(", ")),
        };
        match &self.needs_restart[..] {
            [] => applied,
            keys => {
                format!("{applied}; these keep their values until a restart: {}", keys.join(", "))
            }
        }
    }
}

/// Compares the configuration in force with one that was read again.
#[must_use]
pub fn reload_differences(old: &Config, new: &Config) -> ReloadDifferences {
    let (old_values, new_values) = (old.flat(), new.flat());
    let mut keys: Vec<&String> = old_values.keys().chain(new_values.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut differences = ReloadDifferences::default();
    for key in keys {
        if old_values.get(key) == new_values.get(key) {
            continue;
        }
        let name = key.strip_prefix("types.").and_then(|rest| rest.split('.').next());
        let whole = name
            .filter(|name| old.types.contains_key(*name) != new.types.contains_key(*name))
            .map(|name| format!("types.{name}"));
        let is_live = key_of(key).is_some_and(|key| key.live);
        let list = if is_live { &mut differences.applied } else { &mut differences.needs_restart };
        let key = whole.unwrap_or_else(|| key.clone());
        if list.last() != Some(&key) {
            list.push(key);
        }
    }
    differences
}

impl Config {
    /// Every key with its value and origin, in the order of the reference file.
    #[must_use]
    pub fn show(&self) -> Vec<ShownValue> {
        let mut flat = self.flat();
        let mut shown = Vec::new();
        for key in KEYS.iter().filter(|key| !key.path.contains('*')) {
            shown.push(self.shown(key.path.to_owned(), flat.remove(key.path)));
        }
        for name in self.types.keys() {
            for key in KEYS.iter().filter(|key| key.path.starts_with("types.*")) {
                let path = key.path.replacen('*', name, 1);
                match path.strip_suffix('*') {
                    None => {
                        let value = flat.remove(&path);
                        shown.push(self.shown(path, value));
                    }
                    Some(section) => shown.extend(
                        flat.keys()
                            .filter(|key| key.starts_with(section))
                            .map(|key| self.shown(key.clone(), Some("hidden".into()))),
                    ),
                }
            }
        }
        shown
    }

    fn shown(&self, key: String, value: Option<Value>) -> ShownValue {
        let value = value.unwrap_or_default();
        ShownValue { origin: self.origin(&key), key, value }
    }

    /// All values that are set, by the full names of their keys.
    pub(super) fn flat(&self) -> BTreeMap<String, Value> {
        let mut flat = BTreeMap::new();
        let whole = serde_json::to_value(self).expect("plain data always serialises");
        flatten("", whole, &mut flat);
        flat
    }
}

fn flatten(path: &str, value: Value, flat: &mut BTreeMap<String, Value>) {
    match value {
        Value::Null => {}
        Value::Object(fields) if path.is_empty() || key_of(path).is_none() => {
            for (name, value) in fields {
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                flatten(&path, value, flat);
            }
        }
        value => {
            flat.insert(path.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::LoadOptions;
    use super::*;
    use std::path::Path;

    fn load(folder: &Path, text: &str, variables: &[(&str, &str)]) -> Config {
        std::fs::write(folder.join("shiftboss.toml"), text).expect("written");
        let mut options = LoadOptions::plain(folder);
        options.environment =
            variables.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
        Config::load(&options).expect("accepted").0
    }

    const TEXT: &str = "\n[types.encode]\nnetwork = { tcp = [443] }\nlimits.memory = \"1GiB\"\n\
                        env.KEY = \"s3cret\"\nroots.read = [\"/in\"]\n";

    #[test]
    fn every_value_is_shown_with_its_origin() {
        let folder = tempfile::tempdir().expect("a folder");
        let variables = [("SHIFTBOSS_RUNNING_MAX", "8"), ("STATE_DIRECTORY", "/state")];
        let shown = load(folder.path(), TEXT, &variables).show();
        let line = |key: &str| {
            let found = shown.iter().find(|value| value.key == key).expect(key);
            found.to_string().replace(&format!("{}/", folder.path().display()), "")
        };
        assert_eq!(line("running_max"), "running_max = 8  # environment SHIFTBOSS_RUNNING_MAX");
        assert_eq!(line("work_dir"), "work_dir = \"/state\"  # environment STATE_DIRECTORY");
        assert_eq!(line("poll.idle_max"), "poll.idle_max = \"5m\"  # default");
        assert_eq!(line("poll.factor"), "poll.factor = 2.0  # default");
        assert_eq!(
            line("types.encode.network"),
            "types.encode.network = { tcp = [443] }  # shiftboss.toml:3"
        );
        assert_eq!(line("types.encode.limits.cpu"), "# types.encode.limits.cpu is not set");
        assert_eq!(line("types.encode.env.KEY"), "# types.encode.env.KEY is \"hidden\"");
        let json = serde_json::to_string(&shown).expect("JSON");
        assert!(json.contains("shiftboss.toml:4\"") && !json.contains("s3cret"), "{json}");
    }

    #[test]
    fn what_is_shown_can_be_read_as_a_file_and_means_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = load(folder.path(), &TEXT.replace("env.KEY = \"s3cret\"", ""), &[]);
        let lines: Vec<String> = config.show().iter().map(ToString::to_string).collect();
        let again = load(folder.path(), &lines.join("\n"), &[]);
        assert_eq!(again.flat(), config.flat());
    }

    #[test]
    fn a_reload_tells_what_it_takes_over_and_what_needs_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let old = load(folder.path(), TEXT, &[]);
        let changed = TEXT.replace("1GiB", "2GiB").replace("s3cret", "other");
        let text = format!(
            "database = \"/other.db\"\ninstance = \"b\"\npoll.factor = 3\n\
             [types.new]\nworkload = \"noop\"\n{changed}priority = 5"
        );
        let new = load(folder.path(), &text, &[]);
        let differences = reload_differences(&old, &new);
        assert_eq!(
            differences.applied,
            [
                "poll.factor",
                "types.encode.env.KEY",
                "types.encode.limits.memory",
                "types.encode.priority",
                "types.keying.env.KEY",
                "types.keying.limits.memory",
                "types.keying.priority",
                "types.new"
            ]
        );
        // Both directories follow the database when they are not set.
        let restart = ["database", "instance", "runtime_dir", "work_dir"];
        assert_eq!(differences.needs_restart, restart);
        assert_eq!(reload_differences(&old, &old), ReloadDifferences::default());
    }

    #[test]
    fn what_is_told_as_taken_over_really_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = load(folder.path(), "", &[]);
        let text = "worker = \"w\"\nrunning_max = 2\nworkers_enabled = false\n\
                    database = \"other.db\"\n[tools]\nffmpeg = \"f\"\nffprobe = \"g\"\n\
                    [log]\nattempt_max = \"1MiB\"\nlevel = \"debug\"\n[poll]\n\
                    idle_min = \"2s\"\nidle_max = \"1h\"\nfactor = 3.0\nstagger_max = \"1s\"\n\
                    [retention]\nsucceeded = \"1d\"\nfailed = \"1d\"\ncancelled = \"1d\"\n\
                    logs = \"1d\"\n[types.new]\nworkload = \"noop\"\n[types.encode]\n\
                    roots.read = [\"/in\"]\n";
        let new = load(folder.path(), text, &[]);
        let first = reload_differences(&config, &new);
        let plain = |path: &&str| !path.contains('*');
        let live: Vec<_> = KEYS.iter().filter(|key| key.live).map(|key| key.path).collect();
        for path in live.into_iter().filter(plain) {
            assert!(first.applied.iter().any(|key| key == path), "{path}: {first:?}");
        }
        config.take_over(new.clone());
        let second = reload_differences(&config, &new);
        assert_eq!(second.applied, Vec::<String>::new());
        assert_eq!(second.needs_restart, first.needs_restart);
        assert!(second.sentence().contains("until a restart: database, "), "{second:?}");
    }

    #[test]
    fn workers_are_told_apart_by_what_they_were_started_with() {
        let folder = tempfile::tempdir().expect("a folder");
        let mark = |text: &str| {
            let settings = load(folder.path(), text, &[]).policy_settings();
            settings.types["encode"].start_mark
        };
        let plain = mark("");
        assert_eq!(mark("[types.encode]\npriority = 3\nworkers.max = 7"), plain);
        for text in [
            "worker = \"w\"",
            "tools.ffmpeg = \"f\"",
            "[types.encode]\nroots.read = [\"/in\"]",
            "[types.encode]\nroots.write = [\"/in\"]",
            "[types.encode]\nenv.KEY = \"x\"",
            "[types.encode]\ngrace.term = \"1s\"",
            "[types.encode]\nlimits.files = 64",
            "[types.encode]\nlimits.file_size = \"1MiB\"",
            "[types.encode]\nnetwork = \"host\"",
            "[types.encode]\nnetwork = { tcp = [443] }",
            "[types.encode]\ndevices = [\"/dev/null\"]",
        ] {
            assert_ne!(mark(text), plain, "{text}");
        }
    }
}
