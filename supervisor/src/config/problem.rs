//! What is wrong with a configuration, in sentences that name the place, the key, the value and
//! what is allowed; and where each value came from.

use serde::{Serialize, Serializer};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in, or worked out from the machine.
    Default,
    /// Written in a file.
    File {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// Set in the environment.
    Environment {
        /// The variable.
        name: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { name } => write!(f, "environment {name}"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a value is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The file is not TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// No key has this name.
    #[error("unknown key, the nearest known one is {nearest}")]
    UnknownKey {
        /// Full name of the key that looks most like it.
        nearest: String,
    },
    /// No variable has this name.
    #[error("unknown variable, the nearest known one is {nearest}")]
    UnknownVariable {
        /// The variable that looks most like it.
        nearest: String,
    },
    /// Wrong type, wrong form or out of range.
    #[error("expected {0}")]
    Expected(String),
    /// It contradicts another value or the machine.
    #[error("{0}")]
    Contradiction(String),
    /// This version does not do that.
    #[error("{0}")]
    NotOffered(String),
}

/// One refused value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub origin: Origin,
    /// Full name of the key, such as `types.encode.limits.memory`.
    pub key: Option<String>,
    /// The value as TOML text.
    pub value: Option<String>,
    /// Why it is refused.
    pub reason: Reason,
    /// The line of the file with the value marked, ready to print below the sentence.
    pub excerpt: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match &self.origin {
            Origin::Default => String::new(),
            Origin::File { .. } | Origin::Environment { .. } => format!("{}: ", self.origin),
        };
        match (&self.key, &self.value) {
            (Some(key), Some(value)) => write!(f, "{place}{key} = {value}: ")?,
            (Some(key), None) => write!(f, "{place}{key}: ")?,
            (None, Some(value)) => write!(f, "{} = {value}: ", self.origin)?,
            (None, None) => f.write_str(&place)?,
        }
        self.reason.fmt(f)?;
        match &self.excerpt {
            Some(excerpt) => write!(f, "\n{excerpt}"),
            None => Ok(()),
        }
    }
}

/// Why no configuration could be loaded. The program ends with exit code 100.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file exists or was asked for, and cannot be read.
    #[error("cannot read configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process has no working directory, so that relative paths mean nothing.
    #[error("cannot find the working directory")]
    WorkingDirectory(#[source] io::Error),
    /// Values are refused: at least one.
    #[error("{}", sentences(.0))]
    Refused(Vec<Problem>),
}

/// Every problem on lines of its own.
fn sentences(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Something that is accepted and that the user should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// One sentence, without a full stop.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The number of the line, from 1, in which byte `at` of `text` lies.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

/// The line in which `span` starts, with its part of the span underlined.
pub(crate) fn excerpt(text: &str, span: &Range<usize>) -> String {
    let at = span.start.min(text.len());
    let start = text.as_bytes()[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |n| n + 1);
    let end = text.as_bytes()[at..].iter().position(|b| *b == b'\n').map_or(text.len(), |n| at + n);
    let chars = |range: Range<usize>| text.get(range).map_or(1, |part| part.chars().count());
    let number = line_of(text, at).to_string();
    let marks = chars(at..span.end.clamp(at, end)).max(1);
    format!(
        "  {number} | {}\n  {:width$} | {:column$}{}",
        text.get(start..end).unwrap_or_default().trim_end(),
        "",
        "",
        "^".repeat(marks),
        width = number.len(),
        column = chars(start..at),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_underlines_the_value_and_survives_any_span() {
        let text = "a = 1\nmemory = \"4GB5\"\nb = 2\n";
        assert_eq!(excerpt(text, &(15..21)), "  2 | memory = \"4GB5\"\n    |          ^^^^^^");
        for start in 0..text.len() + 3 {
            for end in 0..text.len() + 3 {
                assert!(excerpt(text, &(start..end)).contains('^'));
            }
        }
        assert_eq!(excerpt("", &(0..0)), "  1 | \n    | ^");
    }

    #[test]
    fn a_problem_names_place_key_value_and_what_is_allowed() {
        let problem = Problem {
            origin: Origin::File { path: "/etc/shiftboss/shiftboss.toml".into(), line: 12 },
            key: Some("types.encode.limits.memory".into()),
            value: Some("\"4GB5\"".into()),
            reason: Reason::Expected(super::super::unit::SIZE_FORM.into()),
            excerpt: None,
        };
        assert_eq!(
            problem.to_string(),
            "/etc/shiftboss/shiftboss.toml:12: types.encode.limits.memory = \"4GB5\": expected a \
             size such as \"512MiB\" or \"4GiB\""
        );
    }
}
