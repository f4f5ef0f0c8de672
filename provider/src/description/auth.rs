//! How requests prove who sends them: the section `auth` of a description.

use crate::measure::Span;
use crate::template::{Pointer, Template};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How requests prove who sends them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Auth {
    /// They do not.
    #[default]
    None,
    /// By a header.
    Header {
        /// Its name.
        name: String,
        /// Its value, with a `{secret:...}`.
        value: Template,
    },
    /// By `Authorization: Bearer` and a secret.
    Bearer {
        /// The secret's name.
        secret: String,
    },
    /// By a token that is signed here with HMAC-SHA256 and renewed before it ends.
    JwtHs256 {
        /// The secret whose value is the issuer.
        issuer: String,
        /// The secret that signs.
        secret: String,
        /// How long a token holds.
        #[serde(default = "half_an_hour")]
        ttl: Span,
        /// How long before now it begins to hold.
        #[serde(default = "five_seconds")]
        skew: Span,
    },
    /// By a token of Google's for a service account, whose key file's text is the secret.
    Google {
        /// The secret whose value is the JSON of the key file.
        secret: String,
        /// What the token is for.
        #[serde(default = "google_scope")]
        scope: String,
    },
    /// By a token that a program of the operator's prints.
    Command(Command),
}

/// A program that prints a token, and how the token is sent. What it may print is
/// [`crate::token::read`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program, an absolute path, and its arguments, taken as they are written.
    pub command: Vec<String>,
    /// Its environment besides `PATH`, `HOME` and `LANG`; values may name secrets.
    #[serde(default)]
    pub env: BTreeMap<String, Template>,
    /// How long a token holds of which the program does not say it, from 2 seconds to a day.
    #[serde(default = "ten_minutes")]
    pub ttl: Span,
    /// How long the program may take, from 1 second to 2 minutes.
    #[serde(default = "half_a_minute")]
    pub timeout: Span,
    /// The header that the token is sent in.
    #[serde(default = "authorization")]
    pub header: String,
    /// What stands before it there.
    #[serde(default = "bearer")]
    pub prefix: String,
    /// Where the token is in an output that is JSON; nothing said: where usual programs put it.
    #[serde(default)]
    pub token: Option<Pointer>,
    /// Where it is said until when it holds; nothing said: where usual programs put it.
    #[serde(default)]
    pub expiry: Option<Pointer>,
}

impl Auth {
    /// Whether it is a token that is made anew when the provider refuses it.
    #[must_use]
    pub const fn is_renewed(&self) -> bool {
        match self {
            Self::JwtHs256 { .. } | Self::Google { .. } | Self::Command(_) => true,
            Self::None | Self::Header { .. } | Self::Bearer { .. } => false,
        }
    }

    /// The header that it comes in, and what stands there before the secret.
    #[must_use]
    pub fn header(&self) -> Option<(&str, &str)> {
        match self {
            Self::None => None,
            Self::Header { name, .. } => Some((name, "")),
            Self::Command(Command { header, prefix, .. }) => Some((header, prefix)),
            Self::Bearer { .. } | Self::JwtHs256 { .. } | Self::Google { .. } => {
                Some(("authorization", "Bearer "))
            }
        }
    }
}

fn five_seconds() -> Span {
    Span(Duration::from_secs(5))
}

fn half_a_minute() -> Span {
    Span(Duration::from_secs(30))
}

fn ten_minutes() -> Span {
    Span(Duration::from_secs(600))
}

fn half_an_hour() -> Span {
    Span(Duration::from_secs(1_800))
}

fn authorization() -> String {
    "authorization".to_owned()
}

fn bearer() -> String {
    "Bearer ".to_owned()
}

fn google_scope() -> String {
    "https://www.googleapis.com/auth/cloud-platform".to_owned()
}
