//! `shiftboss provider`: descriptions of providers, tried without sending anything; and the
//! decision about an operation whose fate is unknown.

use super::args::ProviderCommand;
use super::{Context, Error, operate, submit, table};
use serde::Deserialize;
use serde_json::{Value, json};
use shiftboss_protocol::control::Request;
use shiftboss_protocol::job::JobId;
use shiftboss_provider::description::{Auth, Provider};
use shiftboss_provider::hint;
use shiftboss_provider::load::{line_of, load};
use shiftboss_provider::operation::{
    Answer, Call, Event, FileDone, Item, Link, Now, Operation, Record, Resolution, Step,
};
use shiftboss_provider::request::{self, Request as HttpRequest};
use shiftboss_provider::shipped;
use shiftboss_provider::template::Scope;
use shiftboss_provider::token::custody;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What stands in the place of a secret.
const MASK: &str = "***";

/// Steps of a replay after which it is ended: an operation that goes in a circle.
const STEPS_MAX: usize = 100_000;

pub(super) fn run(context: &Context, what: ProviderCommand) -> Result<(), Error> {
    match what {
        ProviderCommand::List => list(context),
        ProviderCommand::Check { files } => check(context, &files),
        ProviderCommand::Try { name, input, id } => try_out(context, (&name, id), input.as_deref()),
        ProviderCommand::Replay { name, answers } => replay(context, &name, &answers),
        ProviderCommand::Resolve { id, adopt, resubmit: _ } => resolve(context, id, adopt),
    }
}

/// A description as it was found.
struct Found {
    name: String,
    file: String,
    read: Result<Provider, String>,
}

fn read(file: &str, name: &str, text: &str) -> Found {
    let read = load(file, name, text).map_err(|problems| {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    });
    Found { name: name.to_owned(), file: file.to_owned(), read }
}

fn read_file(path: &Path) -> Found {
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let file = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let found = read(&file, name, &text);
            let read = found.read.and_then(|one| {
                let line = line_of(&text, "auth.command");
                let wrong = |why: String| format!("{file}:{line}: auth.command: {why}");
                check_custody(path, &one).map(|()| one).map_err(wrong)
            });
            Found { read, ..found }
        }
        Err(error) => {
            let why = format!("{file}: cannot be read: {error}");
            Found { name: name.to_owned(), file, read: Err(why) }
        }
    }
}

/// Checks that a command which gives tokens, and the file that names it, are the operator's.
fn check_custody(file: &Path, provider: &Provider) -> Result<(), String> {
    let Auth::Command(command) = &provider.auth else { return Ok(()) };
    let program = Path::new(&command.command[0]);
    check_places(file).map_err(|why| format!("names a command to run, and {why}"))?;
    check_places(program)?;
    let mode = std::fs::metadata(program).map_or(0, |facts| facts.mode());
    if mode & 0o111 == 0 {
        return Err(format!("{} cannot be executed", program.display()));
    }
    Ok(())
}

fn check_places(path: &Path) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let own = std::fs::metadata("/proc/self").map_or(0, |facts| facts.uid());
    let real = path.canonicalize().map_err(told)?;
    if !real.is_file() {
        return Err(format!("{} is no regular file", path.display()));
    }
    let ways = path.ancestors().skip(1).chain(real.ancestors());
    for place in ways.filter(|place| !place.as_os_str().is_empty()) {
        let facts = place.metadata().map_err(told)?;
        let (owner, is_folder) = (facts.uid(), facts.is_dir());
        // Which user the service runs as is not known to root here; the service itself looks too.
        let user = if own == 0 { owner } else { own };
        let facts = custody::Facts { owner, mode: facts.mode(), is_folder };
        custody::judge(&place.display().to_string(), facts, user)?;
    }
    Ok(())
}

/// All descriptions; those of the configuration's folder in the place of shipped ones.
fn all(context: &Context) -> Result<BTreeMap<String, Found>, Error> {
    let mut found = BTreeMap::new();
    for (name, text) in shipped::ALL {
        found.insert((*name).to_owned(), read("shipped", name, text));
    }
    let Some(folder) = context.config.providers_dir() else { return Ok(found) };
    let failed =
        |error: std::io::Error| Error::Failed(format!("cannot read {}: {error}", folder.display()));
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            let one = read_file(&path);
            found.insert(one.name.clone(), one);
        }
    }
    Ok(found)
}

fn list(context: &Context) -> Result<(), Error> {
    let found = all(context)?;
    if context.json {
        let row = |one: &Found| match &one.read {
            Ok(provider) => json!({
                "name": one.name, "file": one.file, "about": provider.about,
                "base": provider.base, "secrets": provider.secrets(),
                "command": program(provider), "error": null,
            }),
            Err(why) => json!({ "name": one.name, "file": one.file, "error": why }),
        };
        return context.out.line(&Value::Array(found.values().map(row).collect()).to_string());
    }
    let row = |one: &Found| match &one.read {
        Ok(provider) => vec![
            one.name.clone(),
            provider.base.clone(),
            program(provider).into_iter().chain(provider.secrets()).collect::<Vec<_>>().join(", "),
            provider.about.clone(),
        ],
        Err(why) => {
            vec![one.name.clone(), "wrong".to_owned(), String::new(), table::short(why, 80)]
        }
    };
    let rows: Vec<_> = found.values().map(row).collect();
    context.out.line(&table::aligned(&["NAME", "BASE", "SECRETS", "ABOUT"], &rows, &[]))
}

/// The program that gives its tokens. Not its arguments: they are nobody's business in a list.
fn program(provider: &Provider) -> Option<String> {
    match &provider.auth {
        Auth::Command(command) => command.command.first().cloned(),
        _ => None,
    }
}

fn check(context: &Context, files: &[PathBuf]) -> Result<(), Error> {
    let found = if files.is_empty() {
        all(context)?.into_values().collect()
    } else {
        files.iter().map(|path| read_file(path)).collect::<Vec<_>>()
    };
    let wrong: Vec<_> = found.iter().filter_map(|one| one.read.as_ref().err()).cloned().collect();
    if !wrong.is_empty() {
        return Err(Error::Failed(wrong.join("\n")));
    }
    context.out.line(&format!("{} descriptions are well", found.len()))
}

fn get(context: &Context, name: &str) -> Result<Provider, Error> {
    let mut found = all(context)?;
    let names = found.keys().cloned().collect::<Vec<_>>().join(", ");
    match found.remove(name).map(|one| one.read) {
        Some(Ok(provider)) => Ok(provider),
        Some(Err(why)) => Err(Error::Failed(why)),
        None => Err(Error::Usage(format!("no provider is called {name:?}; there are: {names}"))),
    }
}

fn try_out(
    context: &Context,
    (name, id): (&str, String),
    input: Option<&str>,
) -> Result<(), Error> {
    let provider = get(context, name)?;
    let input = submit::payload(input.unwrap_or("{}"))?;
    let input: Value = serde_json::from_str(&input)
        .map_err(|error| Error::Usage(format!("the input is not JSON: {error}")))?;
    let mut known = BTreeMap::from([
        ("base".to_owned(), provider.base.clone()),
        ("job".to_owned(), "1".to_owned()),
        ("key".to_owned(), "sb-random-key".to_owned()),
    ]);
    let taken = provider.submit.take.keys().chain(provider.poll.iter().flat_map(|p| p.take.keys()));
    for name in taken {
        // What the provider would name; addresses are its own.
        let value = if name.ends_with("url") {
            format!("{}/{name}", provider.base)
        } else {
            name.to_uppercase()
        };
        known.insert(name.clone(), value);
    }
    known.insert("id".to_owned(), id);
    let secret = |_: &str| Some(MASK.to_owned());
    let calls = [
        ("submit", Call::Submit, true),
        ("lookup", Call::Lookup, provider.submit.lookup.is_some()),
        ("poll", Call::Poll, provider.poll.is_some()),
        ("result", Call::Fetch, provider.result.fetch.is_some()),
        ("cancel", Call::Cancel, provider.cancel.is_some()),
    ];
    for (word, call, is_there) in calls {
        if !is_there {
            continue;
        }
        let scope = Scope { input: &input, known: &known, secret: &secret };
        let request = request::build(&provider, call, scope)
            .map_err(|why| Error::Failed(format!("{name}: {word}: {why}")))?;
        context.out.line(&shown(word, &provider, &request))?;
    }
    Ok(())
}

fn shown(word: &str, provider: &Provider, request: &HttpRequest) -> String {
    let mut text = format!("# {word}\n{} {}\n", request.method.as_str(), request.url);
    if let Some((name, prefix)) = provider.auth.header().filter(|_| request.to_provider) {
        text.push_str(&format!("{name}: {prefix}{MASK}\n"));
    }
    for (name, value) in &request.headers {
        text.push_str(&format!("{name}: {value}\n"));
    }
    if let Some((kind, bytes)) = &request.body {
        text.push_str(&format!("content-type: {kind}\n\n{}\n", String::from_utf8_lossy(bytes)));
    }
    text
}

/// A recorded answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<Value>,
}

fn read_answers(path: &Path) -> Result<Vec<Answer>, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::Failed(format!("cannot read {}: {error}", path.display())))?;
    let mut answers = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let recorded: Recorded = serde_json::from_str(line).map_err(|error| {
            Error::Usage(format!("{}:{}: no recorded answer: {error}", path.display(), at + 1))
        })?;
        let find = |name: &str| {
            let found = recorded.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str())
        };
        let hint = hint::read(find, matches!(recorded.status, 429 | 503), SystemTime::now());
        let unreadable = if recorded.body.is_none() { "no JSON" } else { "" }.to_owned();
        answers.push(Answer { status: recorded.status, hint, body: recorded.body, unreadable });
    }
    Ok(answers)
}

fn replay(context: &Context, name: &str, path: &Path) -> Result<(), Error> {
    let provider = Arc::new(get(context, name)?);
    let mut answers = read_answers(path)?.into_iter();
    let record = Record::new(name.to_owned(), "sb-replay".to_owned());
    let mut operation = Operation::new(Arc::clone(&provider), record, 0, true);
    let mut now = Now { at: Duration::from_secs(1), wall_ms: 1 };
    let mut steps = Vec::new();
    operation.handle(now, Event::Begin, &mut steps);
    for _ in 0..STEPS_MAX {
        let Some(step) = steps.pop() else { break };
        steps.clear();
        let event = match step {
            Step::Queue { due, .. } => {
                now.at = now.at.max(due);
                Event::Turn
            }
            Step::Store(_) => Event::Stored,
            Step::Send(Call::Download(at)) => {
                let link = operation.item(at).map_or("", |item| match item {
                    Item::Link(Link(url)) => url.as_str(),
                    Item::Inline(_) => "in the answer",
                });
                context.out.line(&format!("{:>8.1} s  download {link}", now.at.as_secs_f64()))?;
                Event::Downloaded(Ok(FileDone { path: format!("file-{at}"), bytes: 0 }))
            }
            Step::Send(call) => {
                let Some(answer) = answers.next() else {
                    return Err(Error::Failed(format!(
                        "no answer is recorded for the next {call:?}"
                    )));
                };
                let (at, status) = (now.at.as_secs_f64(), answer.status);
                context.out.line(&format!("{at:>8.1} s  {call:?}: status {status}"))?;
                Event::Answered(answer)
            }
            Step::Finish(ending) => return context.out.line(&format!("{ending:?}")),
        };
        operation.handle(now, event, &mut steps);
    }
    Err(Error::Failed(format!("the operation has not ended after {STEPS_MAX} steps")))
}

fn resolve(context: &Context, id: i64, adopt: Option<String>) -> Result<(), Error> {
    let how = adopt.clone().map_or(Resolution::Resubmit, Resolution::Adopt);
    let request = Request::Resolve { job: JobId(id), operation: adopt };
    operate::act(context, &request, |direct| direct.resolve(JobId(id), &how))
}
