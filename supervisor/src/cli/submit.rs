//! `submit` and `encode`: rows in, and perhaps waiting for them.

use super::args::{Encode, Submit};
use super::client::{Client, unexpected};
use super::{Context, Error, wait};
use crate::clock::unix_ms;
use crate::config::WalMode;
use crate::store::direct::Direct;
use crate::store::{OpenOptions, WalPolicy};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};
use shiftboss_protocol::control::{NewJob, Request, Response};
use shiftboss_protocol::job::JobId;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Jobs sent in one request: well below a frame, and a short transaction.
const BATCH: usize = 500;
const SETGID_AND_GROUP_WRITE: u32 = 0o2020;

/// Bytes of payloads sent in one request.
const BATCH_BYTES: usize = 256 << 10;

pub(super) fn submit(context: &Context, submit: Submit) -> Result<(), Error> {
    let run_at = match (submit.delay, submit.at) {
        (Some(delay), _) => {
            let delay = i64::try_from(delay.millis()).unwrap_or(i64::MAX);
            Some(unix_ms().saturating_add(delay))
        }
        (None, Some(at)) => Some(at.as_millisecond()),
        (None, None) => None,
    };
    let job = |payload: String| NewJob {
        job_type: submit.job_type.clone(),
        payload,
        priority: submit.priority,
        run_at,
        max_attempts: submit.max_attempts,
        timeout_ms: submit.timeout.map(|timeout| timeout.millis()),
        unique_key: submit.unique.clone(),
        tags: submit.tag.clone(),
    };
    let many = submit.from_file.is_some();
    let payloads = match &submit.from_file {
        Some(file) => lines_of(file)?,
        None => vec![payload(submit.payload.as_deref().unwrap_or("{}"))?],
    };
    let ids = insert(context, payloads.into_iter().map(job).collect())?;
    told(context, &ids, many, submit.wait)
}

pub(super) fn encode(context: &Context, encode: &Encode) -> Result<(), Error> {
    let input = absolute(&encode.file)?;
    let output = absolute(&encode.out)?;
    if !input.is_file() {
        return Err(Error::Failed(format!(
            "cannot encode {}: there is no such file",
            input.display()
        )));
    }
    make_folder(&output).map_err(|error| {
        Error::Failed(format!("cannot make output folder {}: {error}", output.display()))
    })?;
    let payload = ladder(encode, (&input, &output)).to_string();
    let job = NewJob { job_type: "encode".to_owned(), payload, ..NewJob::default() };
    let ids = insert(context, vec![job])?;
    told(context, &ids, false, encode.wait)
}

/// The payload of an encode. What was not said is left out: a profile says it then.
fn ladder(encode: &Encode, (input, output): (&Path, &Path)) -> Value {
    let mut payload = json!({
        "op": "ladder",
        "input": path_text(input),
        "output_dir": path_text(output),
    });
    let said = [
        ("renditions", Some(json!(encode.renditions)).filter(|_| !encode.renditions.is_empty())),
        ("format", encode.format.map(|format| json!(format.word()))),
        ("profile", encode.profile.as_ref().map(|name| json!(name))),
    ];
    for (key, value) in said {
        if let Some(value) = value {
            payload[key] = value;
        }
    }
    payload
}

/// Makes a folder and those above it, each as its parent is: the supervisor is often another user,
/// who must write there. One that root makes belongs to the owner of its parent; below a folder
/// that hands its group down (setgid), the group may write if it may there.
fn make_folder(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    make_folder(parent)?;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    let (above, made) = (parent.metadata()?, path.metadata()?);
    if made.uid() == 0 && (above.uid(), above.gid()) != (made.uid(), made.gid()) {
        chown(path, Some(above.uid()), Some(above.gid()))?;
    }
    if above.mode() & SETGID_AND_GROUP_WRITE == SETGID_AND_GROUP_WRITE {
        let mode = made.mode() | SETGID_AND_GROUP_WRITE;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Inserts through the supervisor, or into the table itself when none runs.
fn insert(context: &Context, jobs: Vec<NewJob>) -> Result<Vec<JobId>, Error> {
    match Client::connect(&context.config) {
        Ok(mut client) => {
            let mut ids = Vec::new();
            for batch in batches(jobs) {
                match client.ask(&Request::Submit(batch))? {
                    Response::Submitted(new) => ids.extend(new),
                    other => return Err(unexpected(&other)),
                }
            }
            Ok(ids)
        }
        Err(Error::NoSupervisor(_)) => {
            let direct = Direct::open(&open_options(context))?;
            let ids = direct.enqueue(&jobs)?;
            context.out.remark(&format!(
                "no supervisor runs: inserted into {} itself; it starts when one does \
                 (`shiftboss run`)",
                context.config.database.display()
            ));
            Ok(ids)
        }
        Err(error) => Err(error),
    }
}

pub(super) fn open_options(context: &Context) -> OpenOptions {
    let config = &context.config;
    let folder = config.database.parent().unwrap_or(Path::new("/"));
    OpenOptions {
        path: config.database.clone(),
        prefix: config.table_prefix.clone(),
        wal: match config.wal {
            WalMode::Default => WalPolicy::Require,
            WalMode::Switch => WalPolicy::Switch,
        },
        network_fs: crate::os::dirs::network_file_system(folder).map(str::to_owned),
    }
}

fn batches(jobs: Vec<NewJob>) -> Vec<Vec<NewJob>> {
    let mut batches = vec![Vec::new()];
    let mut bytes = 0;
    for job in jobs {
        let last = batches.last_mut().expect("there is always one");
        bytes += job.payload.len();
        if !last.is_empty() && (last.len() >= BATCH || bytes > BATCH_BYTES) {
            bytes = job.payload.len();
            batches.push(vec![job]);
        } else {
            last.push(job);
        }
    }
    batches
}

fn told(context: &Context, ids: &[JobId], many: bool, wait: bool) -> Result<(), Error> {
    let numbers: Vec<i64> = ids.iter().map(|id| id.0).collect();
    if context.json && many {
        let rows: Vec<Value> = numbers.iter().map(|id| json!({ "id": id })).collect();
        context.out.line(&Value::Array(rows).to_string())?;
    } else if context.json {
        for id in &numbers {
            context.out.line(&json!({ "id": id }).to_string())?;
        }
    } else if let ([first, .., last], true) = (&numbers[..], many) {
        let count = numbers.len();
        context.out.line(&format!("{count} jobs submitted, {first} to {last}"))?;
    } else if let Some(id) = numbers.first() {
        context.out.line(&format!("job {id} submitted"))?;
        if !wait {
            context.out.remark(&format!("follow it with `shiftboss wait {id}`"));
        }
    }
    if wait { wait::wait(context, &numbers) } else { Ok(()) }
}

/// The payload's text: itself, a file's, or standard input's. Checked here for being JSON,
/// while somebody is there to correct it.
pub(super) fn payload(text: &str) -> Result<String, Error> {
    let text = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| Error::Usage(format!("cannot read payload file {file}: {error}")))?,
        None if text == "-" => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Error::Usage(format!("cannot read standard input: {error}")))?;
            text
        }
        None => text.to_owned(),
    };
    checked(&text, "--payload")
}

fn checked(text: &str, place: &str) -> Result<String, Error> {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(text.trim().to_owned()),
        Err(error) => Err(Error::Usage(format!("{place} is not JSON: {error}"))),
    }
}

fn lines_of(file: &Path) -> Result<Vec<String>, Error> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::Usage(format!("cannot read {}: {error}", file.display())))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let payloads: Result<Vec<_>, _> =
        lines.map(|(at, line)| checked(line, &format!("{}:{}", file.display(), at + 1))).collect();
    match payloads? {
        none if none.is_empty() => {
            Err(Error::Usage(format!("{} holds no payloads, one a line", file.display())))
        }
        payloads => Ok(payloads),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path)
        .map_err(|error| Error::Usage(format!("cannot use path {}: {error}", path.display())))
}

/// What a file URI may carry as it is.
const KEPT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path as payloads carry it: itself, or a file URI when its name is not UTF-8.
fn path_text(path: &Path) -> String {
    match path.to_str() {
        Some(text) => text.to_owned(),
        None => format!("file://{}", percent_encode(path.as_os_str().as_bytes(), KEPT)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::Format;
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn paths_that_are_not_text_become_uris() {
        assert_eq!(path_text(Path::new("/a b/ü.mp4")), "/a b/ü.mp4");
        let odd = Path::new(OsStr::from_bytes(b"/a b/\xff.mp4"));
        assert_eq!(path_text(odd), "file:///a%20b/%FF.mp4");
    }

    #[test]
    fn what_was_not_said_is_left_to_the_profile() {
        let said = |renditions: &[&str], format, profile: Option<&str>| {
            let encode = Encode {
                file: "film.mp4".into(),
                out: "out".into(),
                renditions: renditions.iter().map(ToString::to_string).collect(),
                format,
                profile: profile.map(str::to_owned),
                wait: false,
            };
            ladder(&encode, (Path::new("/film.mp4"), Path::new("/out")))
        };
        let least = json!({"op": "ladder", "input": "/film.mp4", "output_dir": "/out"});
        assert_eq!(said(&[], None, None), least);
        let mut all = least;
        (all["renditions"], all["format"]) = (json!(["720p"]), json!("hls"));
        all["profile"] = json!("web");
        assert_eq!(said(&["720p"], Some(Format::Hls), Some("web")), all);
    }

    #[test]
    fn a_folder_for_outputs_is_made_as_its_parent_is() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
                .expect("it is ours");
        };
        let shared = dir.path().join("shared");
        std::fs::create_dir(&shared).expect("the folder is ours");
        set(&shared, 0o2770);
        let root = shared.metadata().expect("it was just made").uid() == 0;
        if root {
            chown(&shared, Some(65534), Some(65534)).expect("root may");
        }
        make_folder(&shared.join("a/b")).expect("it can be made");
        let (above, made) = (shared.metadata(), shared.join("a/b").metadata());
        let (above, made) = (above.expect("it is there"), made.expect("it was made"));
        assert_eq!((above.uid(), above.gid()), (made.uid(), made.gid()));
        assert_eq!(made.mode() & SETGID_AND_GROUP_WRITE, SETGID_AND_GROUP_WRITE);

        let open = dir.path().join("open");
        std::fs::create_dir(&open).expect("the folder is ours");
        set(&open, 0o1777);
        make_folder(&open.join("mine")).expect("it can be made");
        let mode = open.join("mine").metadata().expect("it was made").mode();
        assert_eq!(mode & 0o022, 0, "everybody's folder makes nothing else everybody's");
        make_folder(&open.join("mine")).expect("one that is there is enough");
    }

    #[test]
    fn many_jobs_are_sent_in_batches_and_none_is_lost() {
        let job = |bytes: usize| NewJob { payload: "x".repeat(bytes), ..NewJob::default() };
        let batches =
            batches((0..1201).map(|_| job(10)).chain((0..3).map(|_| job(200 << 10))).collect());
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [500, 500, 202, 1, 1]);
    }

    #[test]
    fn a_payload_that_is_no_json_is_refused_with_its_place() {
        let error = payload("{nope").expect_err("refused");
        assert!(error.to_string().starts_with("--payload is not JSON: "), "{error}");
        assert_eq!(error.exit_code(), 2);
        let dir = tempfile::tempdir().expect("a folder can be made");
        let file = dir.path().join("jobs.jsonl");
        std::fs::write(&file, "{}\n\n{\"a\":1}\n[\n").expect("written");
        let error = lines_of(&file).expect_err("refused");
        assert!(error.to_string().contains("jobs.jsonl:4 is not JSON"), "{error}");
    }
}
