//! Secrets by name: from the worker's environment, from a file that the environment names, or
//! from systemd's credentials. Read once, before the seal; never told.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

/// The largest secret that is read, bytes: a key file of a service account has about 2,300.
const BYTES_MAX: u64 = 64 << 10;

/// Shorter ones are not masked: they would be found in ordinary words.
const MASKED_BYTES_MIN: usize = 6;

/// Tokens that are remembered, to be masked.
const MADE_MAX: usize = 64;

/// What stands in the place of a secret.
const MASK: &str = "***";

/// Secrets that were found, and why others were not.
#[derive(Default)]
pub(super) struct Secrets {
    found: BTreeMap<String, String>,
    missing: BTreeMap<String, String>,
    /// Tokens that were made here, the latest last.
    made: RwLock<VecDeque<String>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.found.keys().collect();
        f.debug_struct("Secrets").field("found", &names).finish_non_exhaustive()
    }
}

impl Secrets {
    /// Looks for these.
    pub(super) fn read(names: &[String], variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut secrets = Self::default();
        for name in names {
            match find(name, variable) {
                Ok(value) => drop(secrets.found.insert(name.clone(), value)),
                Err(why) => drop(secrets.missing.insert(name.clone(), why)),
            }
        }
        secrets
    }

    /// This one.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.found.get(name).cloned()
    }

    /// Why a provider that needs these cannot be used.
    pub(super) fn lack(&self, names: &[String]) -> Option<String> {
        names.iter().find_map(|name| self.missing.get(name).cloned())
    }

    /// Masks this token too, from now on.
    pub(super) fn learn(&self, token: &str) {
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        made.retain(|known| known != token);
        made.push_back(token.to_owned());
        if made.len() > MADE_MAX {
            made.pop_front();
        }
    }

    /// `text` without any secret in it: providers repeat a key that they refuse.
    pub(super) fn mask(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        let all = self.found.values().chain(made.iter());
        for secret in all.filter(|secret| secret.len() >= MASKED_BYTES_MIN) {
            if masked.contains(secret.as_str()) {
                masked = masked.replace(secret.as_str(), MASK);
            }
        }
        masked
    }
}

fn find(name: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let told = |why: &str| {
        format!(
            "secret {name} {why}: set it in the type's `env`, name its file in `env.{name}_FILE`, \
             or give it as the systemd credential {name}"
        )
    };
    let value = if let Some(value) = variable(name) {
        value
    } else if let Some(path) = variable(&format!("{name}_FILE")) {
        read_file(Path::new(&path))
            .map_err(|why| told(&format!("cannot be read from {path}: {why}")))?
    } else {
        let folder = variable("CREDENTIALS_DIRECTORY").ok_or_else(|| told("is not set"))?;
        read_file(&Path::new(&folder).join(name)).map_err(|_| told("is not set"))?
    };
    let value = value.trim_end_matches(['\n', '\r']).to_owned();
    if value.is_empty() { Err(told("is empty")) } else { Ok(value) }
}

fn read_file(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > BYTES_MAX {
        return Err(format!("it has {size} bytes, at most {BYTES_MAX} are read"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(names: &[&str], variables: &[(&str, &str)]) -> Secrets {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let find = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Secrets::read(&names, &find)
    }

    #[test]
    fn a_secret_comes_from_the_environment_a_file_or_a_credential() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("C"), "from systemd\n").expect("written");
        std::fs::write(folder.path().join("f"), "from file\n").expect("written");
        let file = folder.path().join("f");
        let (folder, file) = (folder.path().to_str().expect("text"), file.to_str().expect("text"));
        let variables = [("A", "from env"), ("B_FILE", file), ("CREDENTIALS_DIRECTORY", folder)];
        let secrets = read(&["A", "B", "C", "D"], &variables);
        for (name, value) in [("A", "from env"), ("B", "from file"), ("C", "from systemd")] {
            assert_eq!(secrets.get(name).as_deref(), Some(value));
        }
        let why = secrets.lack(&["D".to_owned()]).expect("nowhere");
        assert!(why.starts_with("secret D is not set") && why.contains("D_FILE"), "{why}");
    }

    #[test]
    fn a_secret_is_in_no_text_that_is_told() {
        let secrets = read(&["A", "B"], &[("A", "sk-123456"), ("B", "")]);
        assert_eq!(secrets.mask("key sk-123456 is wrong"), "key *** is wrong");
        for number in 0..200 {
            secrets.learn(&format!("made-{number:03}"));
            secrets.learn("made-first");
        }
        let told = secrets.mask("made-first, made-199 and sk-123456 are wrong");
        assert_eq!(told, "***, *** and *** are wrong");
        assert!(!format!("{secrets:?}").contains("sk-123456"));
        assert!(secrets.lack(&["B".to_owned()]).expect("empty").contains("is empty"));
    }
}
