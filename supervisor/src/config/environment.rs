//! `SHIFTBOSS_SECTION__KEY`: every key of the file as a variable, over what the file says.
//!
//! Names of types are matched without regard to case and with `_` for `-`. A variable with our
//! prefix that means nothing is refused: a typing error must not be taken for a setting.

use super::keys::{KEYS, key_of};
use super::layers::{Layers, check_name};
use super::problem::{Origin, Reason};
use std::collections::BTreeMap;

/// What every variable of ours starts with.
pub(crate) const PREFIX: &str = "SHIFTBOSS_";

/// Ours, but not settings: they choose the file, filter the log, or tell programs their job.
const NOT_KEYS: [&str; 5] =
    ["SHIFTBOSS_CONFIG", "SHIFTBOSS_JOB", "SHIFTBOSS_ATTEMPT", "SHIFTBOSS_OWNER", "SHIFTBOSS_LOG"];

/// Takes over every variable with our prefix.
pub(crate) fn apply(environment: &BTreeMap<String, String>, layers: &mut Layers) {
    for (name, text) in environment {
        let is_ours = name.starts_with(PREFIX)
            && !NOT_KEYS.contains(&name.as_str())
            && !name.starts_with("SHIFTBOSS_TEST_");
        if !is_ours {
            continue;
        }
        match path_of(name, layers) {
            Ok(path) => {
                let key = key_of(&path).expect("path_of returns known keys");
                let origin = Origin::Environment { name: name.clone() };
                layers.set(&path, key.kind.read(text), origin);
            }
            // The text is left out: a misspelt name may hold a secret.
            Err(reason) => layers.refuse_variable(name, None, reason),
        }
    }
}

/// The key that a variable sets.
fn path_of(name: &str, layers: &Layers) -> Result<String, Reason> {
    let parts: Vec<&str> = name[PREFIX.len()..].split("__").collect();
    let mut path: Vec<String> = parts.iter().map(|part| part.to_ascii_lowercase()).collect();
    if path[0] == "types" && path.len() > 2 {
        path[1] = type_named(&path[1], layers)?;
        check_name("types", &path[1])?;
        if path[2] == "env" && path.len() > 3 {
            // Names of variables keep their case, and may hold the separator.
            path.truncate(3);
            path.push(parts[3..].join("__"));
            check_name("types.x.env", &path[3])?;
        }
    }
    let path = path.join(".");
    match key_of(&path) {
        Some(_) => Ok(path),
        None => Err(Reason::UnknownVariable { nearest: nearest_variable(name) }),
    }
}

/// The known type that a part of a variable names, or a new one of that name in lower case.
fn type_named(part: &str, layers: &Layers) -> Result<String, Reason> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let known = layers.type_names();
    let mut matching = known.iter().filter(|name| plain(name) == plain(part));
    match (matching.next(), matching.next()) {
        (Some(one), Some(other)) => Err(Reason::Contradiction(format!(
            "could mean type {one} or type {other}, set it in the file"
        ))),
        (Some(one), None) => Ok(one.clone()),
        (None, _) => Ok(part.to_owned()),
    }
}

/// The variable that sets a key.
pub(crate) fn variable_of(path: &str) -> String {
    let name = path.replace('.', "__").replace('-', "_").to_ascii_uppercase();
    format!("{PREFIX}{name}")
}

fn nearest_variable(name: &str) -> String {
    let owner = name.strip_prefix("SHIFTBOSS_TYPES__").and_then(|rest| rest.split("__").next());
    let owner = owner.filter(|owner| !owner.is_empty()).unwrap_or("encode");
    KEYS.iter()
        .map(|key| variable_of(&key.path.replacen('*', owner, 1).replace('*', "NAME")))
        .max_by(|a, b| {
            let likeness = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
            likeness(a).total_cmp(&likeness(b))
        })
        .expect("the table of keys is not empty")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn layers(file: &str, variables: &[(&str, &str)]) -> Layers {
        let mut layers = Layers::default();
        layers.read_file(Path::new("/x/s.toml"), file.to_owned());
        let own = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        apply(&variables.iter().map(own).collect(), &mut layers);
        layers.check(Path::new("/cwd"));
        layers
    }

    fn sentence(file: &str, variable: (&str, &str)) -> String {
        let problems = layers(file, &[variable]).take_problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].to_string()
    }

    #[test]
    fn every_key_can_be_set_by_a_variable() {
        for key in KEYS {
            let path = key.path.replacen('*', "encode", 1).replace('*', "NAME");
            let found = path_of(&variable_of(&path), &Layers::default());
            assert_eq!(found, Ok(path));
        }
    }

    #[test]
    fn a_variable_wins_over_the_file() {
        let layers = layers("database = \"/a\"", &[("SHIFTBOSS_DATABASE", "b.db")]);
        assert_eq!(layers.text("database"), Some("/cwd/b.db"));
        let origin = layers.origin("database").expect("written").to_string();
        assert_eq!(origin, "environment SHIFTBOSS_DATABASE");
    }

    #[test]
    fn types_are_matched_without_case_and_with_underscores() {
        let file = "[types.Image-Gen]\nworkload = \"command\"";
        let layers = layers(file, &[("SHIFTBOSS_TYPES__IMAGE_GEN__TIMEOUT", "5m")]);
        assert_eq!(layers.text("types.Image-Gen.timeout"), Some("5m"));
    }

    #[test]
    fn names_of_variables_of_a_type_keep_their_case() {
        let layers = layers("", &[("SHIFTBOSS_TYPES__ENCODE__ENV__http_proxy__x", "p")]);
        assert_eq!(layers.text("types.encode.env.http_proxy__x"), Some("p"));
    }

    #[test]
    fn an_unknown_variable_is_refused_naming_the_nearest() {
        assert_eq!(
            sentence("", ("SHIFTBOSS_POLL_IDLE_MIN", "2s")),
            "environment SHIFTBOSS_POLL_IDLE_MIN: unknown variable, the nearest known one is \
             SHIFTBOSS_POLL__IDLE_MIN"
        );
        let text = sentence("", ("SHIFTBOSS_TYPES__ENCODE__WORKERS", "{}"));
        assert!(text.ends_with("SHIFTBOSS_TYPES__ENCODE__WORKER"), "{text}");
    }

    #[test]
    fn an_ambiguous_type_is_refused_naming_both() {
        let file = "[types.a-b]\nworkload = \"noop\"\n[types.a_b]\nworkload = \"noop\"";
        let text = sentence(file, ("SHIFTBOSS_TYPES__A_B__CONCURRENCY", "2"));
        assert!(text.contains("could mean type a-b or type a_b"), "{text}");
    }

    #[test]
    fn a_wrong_value_names_the_variable_the_key_and_the_value() {
        assert_eq!(
            sentence("", ("SHIFTBOSS_RUNNING_MAX", "many")),
            "environment SHIFTBOSS_RUNNING_MAX: running_max = \"many\": expected a whole number \
             from 1 to 1000000"
        );
    }

    #[test]
    fn variables_that_are_not_settings_are_left_alone() {
        let names = NOT_KEYS.into_iter().chain(["SHIFTBOSS_TEST_CGROUP", "SHIFT", "PATH"]);
        let variables: Vec<_> = names.map(|name| (name, "anything")).collect();
        assert_eq!(layers("", &variables).take_problems(), []);
    }
}
