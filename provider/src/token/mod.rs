//! Tokens that a program of the operator's prints: what it may print, and what of its complaints
//! may be told. [`purse`] decides how long a token is used and when the next one is made.
//!
//! Nothing here repeats what was printed on standard output: it may be a secret in any form.

pub mod custody;
pub mod purse;

use crate::description::Command;
use crate::template::Pointer;
use serde_json::Value;
use std::fmt;
use std::time::Duration;

/// The largest output that is read, bytes.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// The longest token, bytes: servers refuse longer headers.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// The longest that a token is believed to hold.
pub const HOLDS_MAX: Duration = Duration::from_secs(86_400);

/// A number of an expiry from this on is a moment in Unix seconds, not a length.
const UNIX_SECONDS_MIN: f64 = 1e9;

/// From this on it is one in milliseconds.
const UNIX_MILLISECONDS_MIN: f64 = 1e11;

/// Most that is told of standard error, characters.
const WORDS_CHARS_MAX: usize = 200;

/// Where usual programs put a token, and beside it until when it holds: kubectl's plugins (an
/// `ExecCredential`), `gcloud config config-helper`, `az account get-access-token`, whatever prints
/// the answer of an OAuth 2.0 server (RFC 6749), and the rest.
const USUAL: &[(&str, &[&str])] = &[
    ("/status/token", &["/status/expirationTimestamp"]),
    ("/credential/access_token", &["/credential/token_expiry"]),
    ("/accessToken", &["/expires_on"]),
    ("/access_token", &["/expires_in", "/expiry"]),
    ("/token", &["/expiry", "/expires_at"]),
];

/// A token, as it was printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// It.
    pub value: String,
    /// How long it holds from now on, where that was said; at most [`HOLDS_MAX`].
    pub holds_for: Option<Duration>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("holds_for", &self.holds_for).finish_non_exhaustive()
    }
}

/// Reads what the program of `command` has printed: the token as the only line, or a JSON object
/// that holds it. `wall_ms` is the wall clock, milliseconds since 1970.
///
/// # Errors
/// A sentence that goes on from "the program ...", without anything of the output.
pub fn read(output: &[u8], command: &Command, wall_ms: u64) -> Result<Token, String> {
    let text = std::str::from_utf8(output).map_err(|_| "printed something that is no text")?;
    let text = text.trim();
    if text.starts_with('{') {
        return read_object(text, command, wall_ms);
    }
    if command.token.is_some() || command.expiry.is_some() {
        return Err("printed no JSON object, in which `token` and `expiry` could be".to_owned());
    }
    match text.lines().filter(|line| !line.trim().is_empty()).count() {
        0 => Err("printed nothing".to_owned()),
        1 => Ok(Token { value: checked(text)?, holds_for: None }),
        lines => Err(format!("printed {lines} lines: a token is the only line, or in JSON")),
    }
}

fn read_object(text: &str, command: &Command, wall_ms: u64) -> Result<Token, String> {
    let object: Value =
        serde_json::from_str(text).map_err(|_| "printed something that begins like JSON")?;
    let at = |place: &str| object.pointer(place).filter(|found| !found.is_null());
    let usual = USUAL.iter().find(|(token, _)| at(token).is_some());
    let value = match (&command.token, usual) {
        (Some(place), _) => place.find(&object),
        (None, Some((token, _))) => at(token),
        (None, None) => None,
    };
    let Some(Value::String(value)) = value else {
        return Err("printed JSON without a token: `token` says where it is".to_owned());
    };
    let expiry = match (&command.token, &command.expiry, usual) {
        (_, Some(place), _) => Pointer::find(place, &object),
        (None, None, Some((_, places))) => places.iter().find_map(|place| at(place)),
        _ => None,
    };
    let holds_for = expiry.map(|expiry| holds_for(expiry, wall_ms)).transpose()?;
    Ok(Token { value: checked(value.trim())?, holds_for })
}

/// How long a token holds whose end is told by `expiry`.
fn holds_for(expiry: &Value, wall_ms: u64) -> Result<Duration, String> {
    let wall = wall_ms as f64 / 1e3;
    let number = match expiry {
        Value::String(text) => text.trim().parse::<f64>().ok(),
        other => other.as_f64(),
    };
    let moment = || expiry.as_str()?.trim().parse::<jiff::Timestamp>().ok();
    let seconds = match number {
        Some(number) if number >= UNIX_MILLISECONDS_MIN => number / 1e3 - wall,
        Some(number) if number >= UNIX_SECONDS_MIN => number - wall,
        Some(number) => number,
        None => match moment() {
            Some(moment) => moment.as_millisecond() as f64 / 1e3 - wall,
            None => {
                return Err("printed JSON whose expiry is neither a moment (RFC 3339, or Unix \
                            seconds) nor a number of seconds"
                    .to_owned());
            }
        },
    };
    if seconds.is_nan() || seconds < 1.0 {
        let ago = (0.0 - seconds).max(0.0);
        return Err(format!("printed a token that has ended, {ago:.0} s ago"));
    }
    Ok(Duration::from_secs_f64(seconds.min(HOLDS_MAX.as_secs_f64())))
}

/// A token may hold what a header may; no space, because sentences have some, and nothing that
/// JSON writes otherwise, so that it is found wherever it is repeated.
fn checked(value: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    if value.is_empty() {
        return Err("printed JSON with an empty token".to_owned());
    }
    if value.len() > TOKEN_BYTES_MAX {
        let bytes = value.len();
        return Err(format!(
            "printed a token of {bytes} bytes, at most {TOKEN_BYTES_MAX} are sent"
        ));
    }
    if !value.bytes().all(is_allowed) {
        return Err("printed no token: it has spaces, quotes or what is not ASCII".to_owned());
    }
    Ok(value.to_owned())
}

/// The last line that a program has written on standard error, short, and without words that look
/// like secrets: long ones of letters and digits, and what is said to be one.
#[must_use]
pub fn last_words(error: &[u8]) -> String {
    let text = String::from_utf8_lossy(error);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let mut told = String::new();
    let mut before = String::new();
    let mut rest = line;
    while !rest.is_empty() {
        let end = rest.find(|letter| !is_of_word(letter)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        told.push_str(if is_secret(word, &before) { "***" } else { word });
        let end = behind.find(is_of_word).unwrap_or(behind.len());
        let (gap, behind) = behind.split_at(end);
        told.extend(gap.chars().map(|letter| if letter.is_control() { ' ' } else { letter }));
        before = format!("{}{}", word.to_ascii_lowercase(), gap.trim_end());
        rest = behind;
    }
    match told.char_indices().nth(WORDS_CHARS_MAX) {
        Some((at, _)) => format!("{}...", &told[..at]),
        None => told,
    }
}

fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.' | '+' | '~' | '/')
}

/// `before` is the word before it in lower case, and what stands between them.
fn is_secret(word: &str, before: &str) -> bool {
    const NAMES: [&str; 6] = ["token", "password", "passwd", "secret", "key", "credential"];
    let is_named = before.ends_with([':', '=', '"', '\''])
        && NAMES.iter().any(|name| before.contains(name))
        || before == "bearer"
        || before == "basic";
    let is_long = word.len() >= 16
        && !word.starts_with('/')
        && word.contains(|letter: char| letter.is_ascii_digit())
        && word.contains(|letter: char| letter.is_alphabetic());
    !word.is_empty() && (is_named || is_long)
}

#[cfg(test)]
mod tests;
