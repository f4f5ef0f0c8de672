//! What the user wrote, from every place that it can be written in: one value per key, the
//! later place over the earlier, each with its origin. Refused values are kept as problems, so
//! that one report names them all.

use super::file::ConfigFile;
use super::job_type::BUILT_IN;
use super::keys::{KEYS, Kind, is_section, is_type_name, is_variable_name, key_of};
use super::problem::{Origin, Problem, Reason, excerpt, line_of};
use super::shown::toml_text;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Value;
use toml::de::{DeTable, DeValue};

/// A written value.
#[derive(Debug)]
struct Leaf {
    value: Value,
    origin: Origin,
    /// Where the value stands in the file, in bytes.
    span: Option<Range<usize>>,
}

/// Everything that was written so far.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    leaves: BTreeMap<String, Leaf>,
    types: BTreeSet<String>,
    file: Option<(PathBuf, String)>,
    problems: Vec<Problem>,
}

impl Layers {
    /// Reads the text of the file at `path`, the first and weakest layer.
    pub(crate) fn read_file(&mut self, path: &Path, text: String) {
        let parsed = DeTable::parse(&text).and_then(|spans| Ok((spans, toml::from_str(&text)?)));
        self.file = Some((path.to_owned(), text.clone()));
        match parsed {
            Ok((spans, values)) => self.take_table("", spans.get_ref(), &values),
            Err(error) => {
                let message = error.message().lines().collect::<Vec<_>>().join(", ");
                let span = error.span().unwrap_or_default();
                self.refuse_in_file(None, None, &span, Reason::Syntax(message));
            }
        }
    }

    fn take_table(&mut self, parent: &str, spans: &DeTable<'_>, values: &toml::Table) {
        for (name, spanned) in spans {
            let at = name.span();
            let name: &str = name.get_ref();
            let path = if parent.is_empty() { name.into() } else { format!("{parent}.{name}") };
            let value = values.get(name).expect("both were read from the same text");
            if let Err(reason) = check_name(parent, name) {
                self.refuse_in_file(Some(path), None, &at, reason);
            } else if key_of(&path).is_some() {
                let origin = self.origin_at(&at);
                let leaf = Leaf { value: value.clone(), origin, span: Some(spanned.span()) };
                self.leaves.insert(path, leaf);
            } else if !is_section(&path) {
                let nearest = nearest_key(&path);
                self.refuse_in_file(Some(path), None, &at, Reason::UnknownKey { nearest });
            } else if let (DeValue::Table(spans), Value::Table(values)) = (spanned.get_ref(), value)
            {
                if parent == "types" {
                    self.types.insert(name.to_owned());
                }
                self.take_table(&path, spans, values);
            } else {
                let reason = Reason::Expected("a table of keys".into());
                self.refuse_in_file(Some(path), Some(value), &spanned.span(), reason);
            }
        }
    }

    fn origin_at(&self, span: &Range<usize>) -> Origin {
        let (path, text) = self.file.as_ref().expect("only a file has spans");
        Origin::File { path: path.clone(), line: line_of(text, span.start) }
    }

    fn refuse_in_file(
        &mut self,
        key: Option<String>,
        value: Option<&Value>,
        span: &Range<usize>,
        reason: Reason,
    ) {
        let origin = self.origin_at(span);
        // The values of variables may be secrets, and the report goes to a log.
        let is_secret = key.as_ref().is_some_and(|key| key.contains(".env."));
        let excerpt = self.file.as_ref().map(|(_, text)| excerpt(text, span));
        let (value, excerpt) = if is_secret { (None, None) } else { (value, excerpt) };
        let value = value.map(one_line);
        self.problems.push(Problem { origin, key, value, reason, excerpt });
    }

    /// Sets a key over what was written before.
    pub(crate) fn set(&mut self, path: &str, value: Value, origin: Origin) {
        if let Some((name, _)) = path.strip_prefix("types.").and_then(|rest| rest.split_once('.')) {
            self.types.insert(name.to_owned());
        }
        self.leaves.insert(path.to_owned(), Leaf { value, origin, span: None });
    }

    /// Where the value of a key was written, if it was.
    pub(crate) fn origin(&self, path: &str) -> Option<&Origin> {
        self.leaves.get(path).map(|leaf| &leaf.origin)
    }

    /// A written value as text, if the key was written and is a text.
    #[cfg(test)]
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.leaves.get(path).and_then(|leaf| leaf.value.as_str())
    }

    /// The built-in types and those that were written.
    pub(crate) fn type_names(&self) -> BTreeSet<String> {
        BUILT_IN.into_iter().map(str::to_owned).chain(self.types.iter().cloned()).collect()
    }

    /// Refuses what was written at `path`, or what is missing there.
    pub(crate) fn refuse(&mut self, path: &str, reason: Reason) {
        let key = Some(path.to_owned());
        match self.leaves.get(path) {
            Some(Leaf { value, span: Some(span), .. }) => {
                let (value, span) = (value.clone(), span.clone());
                self.refuse_in_file(key, Some(&value), &span, reason);
            }
            Some(Leaf { value, origin, span: None }) => {
                let value = Some(one_line(value));
                let origin = origin.clone();
                self.problems.push(Problem { origin, key, value, reason, excerpt: None });
            }
            None => self.problems.push(Problem {
                origin: self.origin_of_section(path),
                key,
                value: None,
                reason,
                excerpt: None,
            }),
        }
    }

    /// Where the first key beside a missing one was written.
    fn origin_of_section(&self, path: &str) -> Origin {
        let Some(end) = path.rfind('.') else { return Origin::Default };
        let beside = self.leaves.iter().filter(|(other, _)| other.starts_with(&path[..=end]));
        let first = beside.min_by_key(|(_, leaf)| leaf.span.as_ref().map(|span| span.start));
        first.map_or(Origin::Default, |(_, leaf)| leaf.origin.clone())
    }

    /// Refuses the text of a variable that stands for no single key.
    pub(crate) fn refuse_variable(&mut self, name: &str, text: Option<&str>, reason: Reason) {
        self.problems.push(Problem {
            origin: Origin::Environment { name: name.to_owned() },
            key: None,
            value: text.map(|text| one_line(&Value::from(text))),
            reason,
            excerpt: None,
        });
    }

    /// Refuses every value of a wrong type, form or range, and makes paths absolute: beside the
    /// file that names them, below `cwd` when a variable does.
    pub(crate) fn check(&mut self, cwd: &Path) {
        let mut refused = Vec::new();
        for (path, leaf) in &mut self.leaves {
            let kind = &key_of(path).expect("only known keys are taken").kind;
            if !kind.accepts(&leaf.value) {
                refused.push((path.clone(), Reason::Expected(kind.expected())));
            } else if matches!(kind, Kind::Path | Kind::Program) {
                let base = match &leaf.origin {
                    Origin::File { path, .. } => path.parent().unwrap_or(cwd),
                    Origin::Environment { .. } | Origin::Default => cwd,
                };
                let text = leaf.value.as_str().expect("the check saw a text");
                if matches!(kind, Kind::Path) || text.contains('/') {
                    let absolute: PathBuf = base.join(text).components().collect();
                    leaf.value = Value::from(absolute.to_string_lossy().into_owned());
                }
            }
        }
        for (path, reason) in refused {
            self.refuse(&path, reason);
        }
    }

    /// All written values in their types. To be called when [`Self::check`] refused nothing.
    pub(crate) fn typed(&mut self) -> Option<ConfigFile> {
        let mut root = toml::Table::new();
        for (path, leaf) in &self.leaves {
            let (sections, name) = path.rsplit_once('.').unwrap_or(("", path));
            let mut table = &mut root;
            for section in sections.split('.').filter(|section| !section.is_empty()) {
                let entry = table.entry(section).or_insert_with(|| toml::Table::new().into());
                table = entry.as_table_mut().expect("no key is also a section");
            }
            table.insert(name.to_owned(), leaf.value.clone());
        }
        match serde_path_to_error::deserialize(Value::Table(root)) {
            Ok(typed) => Some(typed),
            // The table of keys and the structs disagree: still the user gets key and origin.
            Err(error) => {
                let path = error.path().to_string();
                let path = path.split('[').next().unwrap_or_default().to_owned();
                let reason = Reason::Contradiction(error.inner().message().to_owned());
                self.refuse(&path, reason);
                None
            }
        }
    }

    /// What was refused so far.
    pub(crate) fn take_problems(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.problems)
    }

    /// Full names of all written keys.
    #[cfg(test)]
    pub(crate) fn written(&self) -> impl Iterator<Item = &str> {
        self.leaves.keys().map(String::as_str)
    }

    /// The origin of every written key.
    pub(crate) fn into_origins(self) -> BTreeMap<String, Origin> {
        self.leaves.into_iter().map(|(path, leaf)| (path, leaf.origin)).collect()
    }
}

/// A value as TOML on one line, shortened where it is long.
fn one_line(value: &Value) -> String {
    const CHARS_MAX: usize = 160;
    let text = serde_json::to_value(value).map_or_else(|_| value.to_string(), |v| toml_text(&v));
    match text.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

/// Refuses names of types and variables, and quoted names that look like a path of keys.
pub(crate) fn check_name(parent: &str, name: &str) -> Result<(), Reason> {
    let is_environment = parent.starts_with("types.") && parent.ends_with(".env");
    if parent == "types" && !is_type_name(name) {
        let form = "a type name of letters, digits, single - and _, at most 64";
        Err(Reason::Expected(form.into()))
    } else if is_environment && !is_variable_name(name) {
        let form = "the name of a variable, which cannot start with SHIFTBOSS_";
        Err(Reason::Expected(form.into()))
    } else if name.contains('.') {
        Err(Reason::UnknownKey { nearest: nearest_key(name) })
    } else {
        Ok(())
    }
}

/// The known key or section that looks most like `path`: its last word counts most.
fn nearest_key(path: &str) -> String {
    let words: Vec<&str> = path.split('.').collect();
    let owner = if words[0] == "types" && words.len() > 2 { words[1] } else { "encode" };
    let mut known: BTreeSet<String> = BUILT_IN.map(|name| format!("types.{name}")).into();
    for key in KEYS {
        let path = key.path.replacen('*', owner, 1).replace('*', "NAME");
        known.extend(path.match_indices('.').map(|(at, _)| path[..at].to_owned()));
        known.insert(path);
    }
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let likeness = |candidate: &str| {
        let (other_parent, other) = candidate.rsplit_once('.').unwrap_or(("", candidate));
        let near = if parent == other_parent { 0.3 } else { 0.0 };
        near + strsim::normalized_damerau_levenshtein(name, other)
    };
    let best = known.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    best.expect("the table of keys is not empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let mut layers = Layers::default();
        layers.read_file(Path::new("/x/s.toml"), text.to_owned());
        layers.check(Path::new("/cwd"));
        layers.take_problems().iter().map(Problem::to_string).collect()
    }

    fn first_line(text: &str) -> String {
        let all = problems(text);
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].lines().next().expect("a sentence").to_owned()
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_line_and_the_nearest_key() {
        let unknown = |key: &str, nearest: &str, line: u32| {
            format!("/x/s.toml:{line}: {key}: unknown key, the nearest known one is {nearest}")
        };
        for (text, key, nearest, line) in [
            ("\ndatabse = \"x\"", "databse", "database", 2),
            ("idle_min = \"1s\"", "idle_min", "poll.idle_min", 1),
            ("[pol]\nidle_min = \"1s\"", "pol", "poll", 1),
            ("[encode]", "encode", "types.encode", 1),
            ("[types.x]\ncuncurrency = 1", "types.x.cuncurrency", "types.x.concurrency", 2),
            ("[types.x]\nmemory = \"1GiB\"", "types.x.memory", "types.x.limits.memory", 2),
            ("\"poll.idle_min\" = \"1s\"", "poll.idle_min", "poll.idle_min", 1),
        ] {
            assert_eq!(first_line(text), unknown(key, nearest, line), "{text}");
        }
    }

    #[test]
    fn a_wrong_value_is_shown_with_its_line_and_a_caret() {
        let text = "[types.encode]\nlimits = { cpu = 2, memory = \"4GB5\" }\n";
        assert_eq!(
            problems(text),
            ["/x/s.toml:2: types.encode.limits.memory = \"4GB5\": expected a size such as \
              \"512MiB\" or \"4GiB\", at least 16MiB\n  \
              2 | limits = { cpu = 2, memory = \"4GB5\" }\n    \
                |                              ^^^^^^"]
        );
    }

    #[test]
    fn text_that_is_not_toml_is_refused_with_its_line() {
        let sentence = first_line("a = 1\nb = \n");
        assert!(sentence.starts_with("/x/s.toml:2: not valid TOML: "), "{sentence}");
        let sentence = first_line("wal = \"switch\"\nwal = \"switch\"");
        assert!(sentence.starts_with("/x/s.toml:2: not valid TOML: "), "{sentence}");
    }

    #[test]
    fn names_and_sections_are_checked() {
        let sentence = first_line("[types.\"a b\".workers]\nmin = 1");
        assert!(sentence.contains("expected a type name"), "{sentence}");
        let sentence = first_line("poll = 5");
        assert_eq!(sentence, "/x/s.toml:1: poll = 5: expected a table of keys");
        let sentence = first_line("[types.x.env]\nSHIFTBOSS_JOB = \"1\"");
        assert!(sentence.contains("cannot start with SHIFTBOSS_"), "{sentence}");
    }

    #[test]
    fn all_problems_of_a_file_are_reported_together() {
        assert_eq!(problems("a = 1\nwal = 2\n[poll]\nfactor = 0.1\nidle_min = \"x\"").len(), 4);
    }

    #[test]
    fn a_refused_value_is_told_on_one_line_and_secrets_not_at_all() {
        let sentence = first_line("wal = \"\"\"a\nb\"\"\"");
        assert!(sentence.contains("wal = \"a\\nb\": expected"), "{sentence}");
        let sentence = first_line(&format!("wal = \"{}\"", "x".repeat(5_000)));
        assert!(sentence.len() < 300, "{sentence}");
        let text = problems("[types.encode.env]\nKEY = 12345").join("\n");
        assert!(text.contains("types.encode.env.KEY: expected") && !text.contains("12345"));
    }
}
