//! Reads a description and checks it: every refusal names the key, its line and what is allowed.

use crate::description::{Auth, Command, Dedupe, Provider};
use crate::measure::Span;
use crate::template::{Name, Source, Template};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use toml::de::{DeTable, DeValue};
use url::Url;

/// The largest description, bytes.
pub const BYTES_MAX: usize = 256 << 10;

/// The most words of a command that prints a token, and bytes of them together.
const ARGUMENTS_MAX: usize = 64;
const ARGUMENT_BYTES_MAX: usize = 16 << 10;

/// Why a description is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, or the name of a shipped description.
    pub file: String,
    /// From 1; 0 where no line is meant.
    pub line: usize,
    /// `poll.every.min`; empty where the text is no TOML.
    pub key: String,
    /// What is wrong and what is allowed.
    pub sentence: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, key, sentence } = self;
        let colon = if key.is_empty() { "" } else { ": " };
        write!(f, "{file}:{line}: {key}{colon}{sentence}")
    }
}

/// Reads the description in `text`, which is called `file` in problems and must name itself
/// `name`.
///
/// # Errors
/// The first thing that is wrong, or all contradictions between keys.
pub fn load(file: &str, name: &str, text: &str) -> Result<Provider, Vec<Problem>> {
    let problem = |line, key: &str, sentence: String| Problem {
        file: file.to_owned(),
        line,
        key: key.to_owned(),
        sentence,
    };
    if text.len() > BYTES_MAX {
        let sentence =
            format!("a description of {} bytes, at most {BYTES_MAX} are read", text.len());
        return Err(vec![problem(0, "", sentence)]);
    }
    let provider: Provider = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        vec![problem(line_at(text, at), &key_at(text, at), message)]
    })?;
    let mut found = Vec::new();
    check(&provider, name, &mut |key, sentence| {
        found.push(problem(line_of(text, key), key, sentence));
    });
    if found.is_empty() { Ok(provider) } else { Err(found) }
}

fn line_at(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The innermost key whose value holds this byte.
fn key_at(text: &str, at: usize) -> String {
    let Ok(table) = DeTable::parse(text) else { return String::new() };
    let mut key = Vec::new();
    let mut table = Some(table.get_ref());
    while let Some(level) = table.take() {
        for (name, value) in level {
            // The span of a table with a header is the header alone.
            let is_here = value.span().contains(&at) || name.span().contains(&at);
            if is_here || holds(value.get_ref(), at) {
                key.push(name.get_ref().to_string());
                table = as_table(value.get_ref());
                break;
            }
        }
    }
    key.join(".")
}

fn holds(value: &DeValue<'_>, at: usize) -> bool {
    as_table(value).is_some_and(|table| {
        table.iter().any(|(name, value)| {
            name.span().contains(&at) || value.span().contains(&at) || holds(value.get_ref(), at)
        })
    })
}

fn as_table<'a, 'b>(value: &'a DeValue<'b>) -> Option<&'a DeTable<'b>> {
    match value {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

/// The line of a key such as `auth.command`, or of the nearest one above it that was written; 0 in
/// a text that is no TOML.
#[must_use]
pub fn line_of(text: &str, key: &str) -> usize {
    let Ok(table) = DeTable::parse(text) else { return 0 };
    let mut level = Some(table.get_ref());
    let mut line = 1;
    for word in key.split('.') {
        let found = level.and_then(|table| table.iter().find(|(name, _)| name.get_ref() == word));
        let Some((name, value)) = found else { break };
        line = line_at(text, name.span().start);
        level = as_table(value.get_ref());
    }
    line
}

/// What a contradiction is told to: its key and its sentence.
type Tell<'a> = dyn FnMut(&str, String) + 'a;

fn check(provider: &Provider, name: &str, tell: &mut Tell<'_>) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if provider.name.is_empty() || !provider.name.chars().all(is_word) {
        tell("name", "must be letters, digits, \"-\" and \"_\"".to_owned());
    } else if provider.name != name {
        tell("name", format!("is {:?}, and the file is called {name}.toml", provider.name));
    }
    check_base(provider, tell);
    check_addresses(provider, tell);
    check_authority(provider, tell);
    if let Auth::Command(command) = &provider.auth {
        check_command(command, tell);
    }
    check_numbers(provider, tell);
    check_flow(provider, tell);
    check_names(provider, tell);
    check_secrets(provider, tell);
}

fn check_base(provider: &Provider, tell: &mut Tell<'_>) {
    match Url::parse(&provider.base) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            tell("base", format!("has scheme {:?}, only https and http are spoken", url.scheme()));
        }
        Ok(url) if url.host_str().is_none() => tell("base", "has no host".to_owned()),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            tell("base", "holds a credential: write `auth` with a secret's name".to_owned());
        }
        // A key must not cross a network in the clear; on the host's own loopback it may.
        Ok(url)
            if url.scheme() == "http"
                && provider.auth != Auth::None
                && provider.private.is_empty() =>
        {
            tell(
                "base",
                "is http, and `auth` would send a secret in the clear: use https".to_owned(),
            );
        }
        Ok(_) if provider.base.ends_with('/') => {
            tell("base", "ends with \"/\": templates go on with \"{base}/\"".to_owned());
        }
        Ok(_) => {}
        Err(error) => tell("base", format!("{:?} is no URL: {error}", provider.base)),
    }
}

fn check_addresses(provider: &Provider, tell: &mut Tell<'_>) {
    for text in &provider.private {
        if text.parse::<IpAddr>().is_err() && text.parse::<SocketAddr>().is_err() {
            tell(
                "private",
                format!("{text:?} is no address such as \"10.0.0.7\" or \"127.0.0.1:8080\""),
            );
        }
    }
}

fn check_authority(provider: &Provider, tell: &mut Tell<'_>) {
    let Some(path) = &provider.ca_file else { return };
    if !path.starts_with('/') {
        tell("ca_file", format!("{path:?} is no absolute path"));
    } else if !provider.base.starts_with("https:") {
        tell("ca_file", "is for TLS, and `base` is not https".to_owned());
    }
}

/// What is run is written in the description, word by word: nothing of a job gets into it.
fn check_command(command: &Command, tell: &mut Tell<'_>) {
    let argv = &command.command;
    match argv.first() {
        None => tell("auth.command", "must name a program".to_owned()),
        Some(program) if !program.starts_with('/') || program.split('/').any(|it| it == "..") => {
            tell("auth.command", format!("{program:?} is no absolute path of a program"));
        }
        Some(_) => {}
    }
    let bytes: usize = argv.iter().map(String::len).sum();
    if argv.len() > ARGUMENTS_MAX || bytes > ARGUMENT_BYTES_MAX {
        let words = argv.len();
        let most = format!("at most {ARGUMENTS_MAX} words of {ARGUMENT_BYTES_MAX} bytes together");
        tell("auth.command", format!("{words} words of {bytes} bytes: {most} are allowed"));
    }
    if argv.iter().any(|word| word.contains('\0')) {
        tell("auth.command", "holds a zero byte".to_owned());
    }
    if argv.iter().any(|word| word.contains("{secret:")) {
        let text = "every process of the host can read a program's arguments: name the secret in \
                    `auth.env`";
        tell("auth.command", text.to_owned());
    }
    for (name, value) in &command.env {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_name = name.starts_with(|c: char| !c.is_ascii_digit()) && name.chars().all(is_word);
        if !is_name {
            tell("auth.env", format!("{name:?} is no name of a variable"));
        }
        if value.names().any(|name| !matches!(name.of, Source::Secret(_))) {
            tell("auth.env", format!("{name} may name secrets only, as {{secret:NAME}}"));
        }
    }
    let mut bounded = |key: &str, Span(span): Span, most_s: u64| {
        if span.as_secs() < 1 || span.as_secs_f64() > most_s as f64 {
            let text = format!("{} ms: from 1s to {most_s}s are allowed", span.as_millis());
            tell(key, text);
        }
    };
    bounded("auth.ttl", command.ttl, 86_400);
    bounded("auth.timeout", command.timeout, 120);
    let is_of_header = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if command.header.is_empty() || !command.header.chars().all(is_of_header) {
        tell("auth.header", format!("{:?} is no name of a header", command.header));
    }
    let is_of_value = |c: char| c.is_ascii_graphic() || c == ' ';
    if command.prefix.len() > 100 || !command.prefix.chars().all(is_of_value) {
        tell("auth.prefix", "at most 100 bytes of visible ASCII and spaces are allowed".to_owned());
    }
}

fn check_numbers(provider: &Provider, tell: &mut Tell<'_>) {
    if !(1..=256).contains(&provider.limits.in_flight) {
        let number = provider.limits.in_flight;
        tell("limits.in_flight", format!("{number}: from 1 to 256 are allowed"));
    }
    let Some(poll) = &provider.poll else { return };
    let every = &poll.every;
    if !(1.0..=10.0).contains(&every.factor) {
        tell("poll.every.factor", format!("{}: from 1 to 10 is allowed", every.factor));
    }
    if !(0.0..=0.5).contains(&every.jitter) {
        tell("poll.every.jitter", format!("{}: from 0 to 0.5 is allowed", every.jitter));
    }
    let told = |Span(span): Span| format!("{} ms", span.as_millis());
    if every.min.0.is_zero() || every.min > every.max {
        let (min, max) = (told(every.min), told(every.max));
        tell("poll.every.min", format!("{min}: must be above 0 and at most `max`, {max}"));
    }
    if !(poll.progress_full.is_finite() && poll.progress_full > 0.0) {
        tell("poll.progress_full", "must be above 0".to_owned());
    }
    if poll.attempts == 0 {
        tell("poll.attempts", "must be at least 1".to_owned());
    }
}

fn check_flow(provider: &Provider, tell: &mut Tell<'_>) {
    let submit = &provider.submit;
    if provider.poll.is_some() && !submit.take.contains_key("id") {
        tell("submit.take", "must take `id`: what is polled has one".to_owned());
    }
    if let Some(poll) = &provider.poll
        && poll.map.done.is_empty()
    {
        tell("poll.map", "must say with `done` which words mean success".to_owned());
    }
    if provider.poll.is_none() && provider.cancel.is_some() {
        tell(
            "cancel",
            "needs `poll`: without it an operation is over when it is answered".to_owned(),
        );
    }
    if provider.download.is_some() && provider.result.items.is_none() {
        tell("download", "needs `result.items`: there is nothing to download".to_owned());
    }
    if submit.ok.is_empty() {
        tell("submit.ok", "must name a status".to_owned());
    }
    let has_key =
        submit.body.as_ref().is_some_and(|body| body.names().iter().any(|one| is_key(one)));
    if submit.dedupe == Dedupe::Body && !has_key {
        tell("submit.dedupe", "kind \"body\" needs `{key}` in `submit.body`".to_owned());
    }
    let sends_key = has_key || matches!(submit.dedupe, Dedupe::Header { .. });
    if submit.lookup.is_some() && !sends_key {
        tell("submit.lookup", "needs a `{key}` that was sent: in `submit.body`".to_owned());
    }
}

fn is_key(name: &Name) -> bool {
    name.of == Source::Known("key".to_owned())
}

/// Names that nothing defines would fail every operation, one by one.
fn check_names(provider: &Provider, tell: &mut Tell<'_>) {
    let first = ["base", "job", "key"];
    let mut check = |key: &str, names: Vec<&Name>, taken: &[&str]| {
        for name in names {
            let Source::Known(word) = &name.of else { continue };
            if !first.contains(&word.as_str()) && !taken.contains(&word.as_str()) {
                let mut all: Vec<_> =
                    first.iter().chain(taken).map(|one| format!("{{{one}}}")).collect();
                all.sort();
                tell(
                    key,
                    format!("{{{word}}} is nothing that is known here, only {}", all.join(", ")),
                );
            }
        }
    };
    let submit = &provider.submit;
    let of = |template: &'_ Template| template.names().cloned().collect::<Vec<_>>();
    let mut check_template = |key: &str, template: &Template, taken: &[&str]| {
        let names = of(template);
        check(key, names.iter().collect(), taken);
    };
    check_template("submit.url", &submit.url, &[]);
    let headers = provider.headers.values().chain(submit.headers.values());
    for template in headers {
        check_template("headers", template, &[]);
    }
    if let Some(lookup) = &submit.lookup {
        check_template("submit.lookup.url", &lookup.url, &[]);
    }
    for template in submit.adopt.values() {
        check_template("submit.adopt", template, &["id"]);
    }
    let mut taken: Vec<&str> = submit.take.keys().map(String::as_str).collect();
    if let Some(poll) = &provider.poll {
        check_template("poll.url", &poll.url, &taken);
        if let Some(cancel) = &provider.cancel {
            check_template("cancel.url", &cancel.url, &taken);
        }
        taken.extend(poll.take.keys().map(String::as_str));
    }
    if let Some(fetch) = &provider.result.fetch {
        check_template("result.fetch", fetch, &taken);
    }
    if let Some(url) = provider.download.as_ref().and_then(|download| download.url.as_ref()) {
        taken.push("url");
        check_template("download.url", url, &taken);
    }
    if let Some(body) = &submit.body {
        check("submit.body", body.names(), &[]);
    }
    if let Some(body) = provider.poll.as_ref().and_then(|poll| poll.body.as_ref()) {
        let taken: Vec<&str> = submit.take.keys().map(String::as_str).collect();
        check("poll.body", body.names(), &taken);
    }
}

/// A secret in a URL or a body would reach logs and the provider's own records.
fn check_secrets(provider: &Provider, tell: &mut Tell<'_>) {
    let mut check = |key: &str, names: Vec<&Name>| {
        if names.iter().any(|name| matches!(name.of, Source::Secret(_))) {
            tell(key, "names a secret: only `auth` and `headers` may".to_owned());
        }
    };
    check("submit.url", provider.submit.url.names().collect());
    check("submit.body", provider.submit.body.as_ref().map_or_else(Vec::new, |body| body.names()));
    if let Some(poll) = &provider.poll {
        check("poll.url", poll.url.names().collect());
        check("poll.body", poll.body.as_ref().map_or_else(Vec::new, |body| body.names()));
    }
    if let Some(cancel) = &provider.cancel {
        check("cancel.url", cancel.url.names().collect());
    }
}

impl Provider {
    /// Names of all secrets that it uses.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let templates = self.headers.values().chain(self.submit.headers.values());
        let mut names: Vec<String> = templates.flat_map(secrets_of).collect();
        match &self.auth {
            Auth::None => {}
            Auth::Header { value, .. } => names.extend(secrets_of(value)),
            Auth::Bearer { secret } | Auth::Google { secret, .. } => names.push(secret.clone()),
            Auth::JwtHs256 { issuer, secret, .. } => names.extend([issuer.clone(), secret.clone()]),
            Auth::Command(command) => names.extend(command.env.values().flat_map(secrets_of)),
        }
        names.sort();
        names.dedup();
        names
    }
}

fn secrets_of(template: &Template) -> Vec<String> {
    let secrets = template.names().filter_map(|name| match &name.of {
        Source::Secret(name) => Some(name.clone()),
        Source::Input(_) | Source::Known(_) => None,
    });
    secrets.collect()
}

#[cfg(test)]
mod tests;
