//! The two small languages of a description: JSON Pointers into answers, and text with `{names}`.
//!
//! A name stands for a value of the job's input (`{input.prompt}`), for something known of the
//! operation (`{id}`, `{key}`, `{job}`, `{base}` and what `take` took) or for a secret. Nothing
//! is computed: `{id|before:/operations/}` and `{id|after:/}` cut, `{input.x?}` may be missing.

use percent::escape;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

mod percent;

/// A JSON Pointer (RFC 6901): empty for the whole, else it begins with `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pointer(String);

/// Text with `{names}` in it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template {
    parts: Vec<Part>,
}

/// A JSON value whose texts are templates. A text that is one name alone becomes that value
/// itself, also a list or an object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub enum Body {
    /// Text with names.
    Text(Template),
    /// A value without names.
    Plain(Value),
    /// Members in the order of their names.
    Map(Vec<(String, Body)>),
    /// Items.
    List(Vec<Body>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(Name),
}

/// One `{name}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// What it stands for.
    pub of: Source,
    cut: Option<Cut>,
    is_optional: bool,
    keeps_slashes: bool,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A value of the job's input, by its path in it; empty: the whole input.
    Input(Vec<String>),
    /// A secret, by its name.
    Secret(String),
    /// Something known of the operation.
    Known(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cut {
    Before(String),
    After(String),
}

/// Where names are looked up.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The job's input.
    pub input: &'a Value,
    /// What is known of the operation.
    pub known: &'a BTreeMap<String, String>,
    /// Finds a secret.
    pub secret: &'a dyn Fn(&str) -> Option<String>,
}

/// Values may be secrets.
impl std::fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

/// How a value is put into text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// As it is.
    Text,
    /// Into a path of a URL: everything but letters, digits and `-._~` is escaped.
    Path,
}

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let allowed = "a JSON Pointer is empty or begins with \"/\", and has \"~\" only as \"~0\" \
                       or \"~1\"";
        let starts_well = text.is_empty() || text.starts_with('/');
        let tildes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if starts_well && tildes { Ok(Self(text)) } else { Err(format!("{text:?}: {allowed}")) }
    }
}

impl Pointer {
    /// The value there, if there is one that is not null.
    #[must_use]
    pub fn find<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        value.pointer(&self.0).filter(|found| !found.is_null())
    }

    /// The text, number or truth there, as text.
    #[must_use]
    pub fn find_text(&self, value: &Value) -> Option<String> {
        self.find(value).and_then(plain_text)
    }
}

/// Text, numbers and truths as text; `None` for lists and objects.
#[must_use]
pub fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let (brace, behind) = (&rest[at..=at], &rest[at + 1..]);
            if behind.starts_with(brace) {
                literal.push_str(brace);
                rest = &behind[1..];
                continue;
            }
            let end = behind.find('}').filter(|_| brace == "{").ok_or_else(|| {
                format!("{text:?}: a brace without its partner; write {{{{ or }}}} for the sign")
            })?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            let name = Name::parse(&behind[..end]).map_err(|why| format!("{text:?}: {why}"))?;
            parts.push(Part::Name(name));
            rest = &behind[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }
}

impl Name {
    fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split('|');
        let first = words.next().unwrap_or_default();
        let (first, is_optional) =
            first.strip_suffix('?').map_or((first, false), |first| (first, true));
        let mut name =
            Self { of: Source::parse(first)?, cut: None, is_optional, keeps_slashes: false };
        for word in words {
            match word.split_once(':') {
                None if word == "path" => name.keeps_slashes = true,
                Some(("before", mark)) if !mark.is_empty() => {
                    name.cut = Some(Cut::Before(mark.to_owned()));
                }
                Some(("after", mark)) if !mark.is_empty() => {
                    name.cut = Some(Cut::After(mark.to_owned()));
                }
                _ => {
                    return Err(format!(
                        "{{{text}}}: unknown |{word}; there are |before:TEXT, |after:TEXT and |path"
                    ));
                }
            }
        }
        Ok(name)
    }
}

impl Source {
    fn parse(text: &str) -> Result<Self, String> {
        let is_word = |word: &str| {
            !word.is_empty()
                && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        };
        if let Some(name) = text.strip_prefix("secret:") {
            let name = Some(name).filter(|name| is_word(name));
            return name.map(|name| Self::Secret(name.to_owned())).ok_or_else(|| {
                format!("{{{text}}}: a secret's name has letters, digits, \"_\" and \"-\" only")
            });
        }
        let mut words = text.split('.').map(str::to_owned);
        if !text.split('.').all(is_word) {
            return Err(format!(
                "{{{text}}}: a name is letters, digits, \"_\" and \"-\", such as {{id}} or \
                 {{input.prompt}}"
            ));
        }
        if text == "input" || text.starts_with("input.") {
            return Ok(Self::Input(words.skip(1).collect()));
        }
        let word = words.next().unwrap_or_default();
        if words.next().is_some() {
            return Err(format!("{{{text}}}: only {{input...}} has parts"));
        }
        Ok(Self::Known(word))
    }
}

impl Template {
    /// All names in it.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.parts.iter().filter_map(|part| match part {
            Part::Name(name) => Some(name),
            Part::Text(_) => None,
        })
    }

    /// The text with every name replaced.
    ///
    /// # Errors
    /// A sentence that names what is missing or does not fit; never a value, it may be secret.
    pub fn text(&self, scope: Scope<'_>, into: Into) -> Result<String, String> {
        let mut text = String::new();
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Name(name) => {
                    let value = name.text(scope)?.unwrap_or_default();
                    // What a template begins with is an address of the provider's own making.
                    if into == Into::Text || at == 0 {
                        text.push_str(&value);
                    } else {
                        text.push_str(&name.escaped(&value)?);
                    }
                }
            }
        }
        Ok(text)
    }

    /// As [`Self::text`], but one name alone gives its value itself. `None`: it is optional and
    /// missing.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn value(&self, scope: Scope<'_>) -> Result<Option<Value>, String> {
        if let [Part::Name(name)] = self.parts.as_slice() {
            return match &name.of {
                Source::Input(path) if name.cut.is_none() => match find_input(scope.input, path) {
                    Some(value) => Ok(Some(value.clone())),
                    None if name.is_optional => Ok(None),
                    None => Err(name.missing()),
                },
                _ => Ok(name.text(scope)?.map(Value::String)),
            };
        }
        self.text(scope, Into::Text).map(|text| Some(Value::String(text)))
    }
}

fn find_input<'a>(input: &'a Value, path: &[String]) -> Option<&'a Value> {
    let found = path.iter().try_fold(input, |value, word| match value {
        Value::Array(items) => items.get(word.parse::<usize>().ok()?),
        other => other.get(word),
    });
    found.filter(|value| !value.is_null())
}

impl Name {
    fn text(&self, scope: Scope<'_>) -> Result<Option<String>, String> {
        let found = match &self.of {
            Source::Input(path) => match find_input(scope.input, path) {
                Some(value) => Some(plain_text(value).ok_or_else(|| {
                    format!("{}: is a list or an object, and stands within text", self.told())
                })?),
                None => None,
            },
            Source::Known(name) => scope.known.get(name).cloned(),
            Source::Secret(name) => (scope.secret)(name),
        };
        let Some(found) = found else {
            return if self.is_optional { Ok(None) } else { Err(self.missing()) };
        };
        let cut = match &self.cut {
            None => Some(found.as_str()),
            Some(Cut::Before(mark)) => found.split_once(mark.as_str()).map(|(before, _)| before),
            Some(Cut::After(mark)) => found.rsplit_once(mark.as_str()).map(|(_, after)| after),
        };
        cut.map(|text| Some(text.to_owned()))
            .ok_or_else(|| format!("{}: does not hold what it is cut at", self.told()))
    }

    fn escaped(&self, value: &str) -> Result<String, String> {
        let segments: Vec<_> =
            if self.keeps_slashes { value.split('/').collect() } else { vec![value] };
        // A URL parser would walk up at these, to a path that nobody wrote.
        if segments.iter().any(|segment| matches!(*segment, "." | ".." | "")) {
            return Err(format!("{}: is empty or walks up in a path", self.told()));
        }
        Ok(segments.into_iter().map(escape).collect::<Vec<_>>().join("/"))
    }

    fn missing(&self) -> String {
        match self.of {
            Source::Input(_) => format!("{} is missing in the job's input", self.told()),
            Source::Secret(_) => format!("{} was not found", self.told()),
            Source::Known(_) => format!("{} is not known of this operation", self.told()),
        }
    }

    fn told(&self) -> String {
        match &self.of {
            Source::Input(path) if path.is_empty() => "{input}".to_owned(),
            Source::Input(path) => format!("{{input.{}}}", path.join(".")),
            Source::Secret(name) => format!("secret {name}"),
            Source::Known(name) => format!("{{{name}}}"),
        }
    }
}

impl TryFrom<Value> for Body {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        Ok(match value {
            Value::String(text) => Self::Text(Template::try_from(text)?),
            Value::Array(items) => {
                Self::List(items.into_iter().map(Self::try_from).collect::<Result<_, _>>()?)
            }
            Value::Object(members) => {
                let members = members.into_iter();
                let members = members.map(|(key, value)| Ok((key, Self::try_from(value)?)));
                Self::Map(members.collect::<Result<_, String>>()?)
            }
            plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => Self::Plain(plain),
        })
    }
}

impl Body {
    /// The value with every name replaced; members and items that are optional and missing are
    /// left out.
    ///
    /// # Errors
    /// As [`Template::text`].
    pub fn value(&self, scope: Scope<'_>) -> Result<Option<Value>, String> {
        match self {
            Self::Text(template) => template.value(scope),
            Self::Plain(value) => Ok(Some(value.clone())),
            Self::Map(members) => {
                let mut map = serde_json::Map::new();
                for (key, body) in members {
                    if let Some(value) = body.value(scope)? {
                        map.insert(key.clone(), value);
                    }
                }
                Ok(Some(Value::Object(map)))
            }
            Self::List(items) => {
                let items = items.iter().filter_map(|item| item.value(scope).transpose());
                items.collect::<Result<Vec<_>, _>>().map(|items| Some(Value::Array(items)))
            }
        }
    }

    /// All names in it.
    #[must_use]
    pub fn names(&self) -> Vec<&Name> {
        match self {
            Self::Text(template) => template.names().collect(),
            Self::Plain(_) => Vec::new(),
            Self::Map(members) => members.iter().flat_map(|(_, body)| body.names()).collect(),
            Self::List(items) => items.iter().flat_map(Body::names).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
