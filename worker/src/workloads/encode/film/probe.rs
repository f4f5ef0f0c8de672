//! Runs ffprobe: what a film is ([`film`]), and how much of it is really there ([`scan`]).
//!
//! A truncated film is found here, before hours of encoding: containers that declare a length
//! or a number of frames are compared with the packets that the file holds.

use super::super::arguments::INPUT_GUARD;
use super::super::classify::{self, Stderr};
use super::super::host::Host;
use super::super::progress::time_text;
use super::super::tools::{self, Tools};
use super::facts::{self, Answer, Facts};
use super::scan::{self, Scan};
use super::truncation::{seconds, truncation};
use crate::program::{Lines, Place, Program};
use serde::de::DeserializeOwned;
use shiftboss_protocol::job::{Cause, Failure};
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

/// ffprobe's answer about a film takes kilobytes; a hostile file could make it endless.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Time to open a film on a slow disk.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// The slowest disk on which a whole film may still be read, bytes per second.
const READ_RATE_MIN: u64 = 2 << 20;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// A film, opened and read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Film {
    pub(crate) facts: Facts,
    pub(crate) scan: Scan,
    pub(crate) bytes: u64,
}

/// Opens the film and counts its packets.
///
/// # Errors
/// A permanent [`Failure`] when it is no film, or a truncated one.
pub(crate) fn film(
    host: &dyn Host,
    tools: &Tools,
    path: &Path,
    expected_ms: Option<u64>,
) -> Result<Film, Failure> {
    let bytes = size_of_file(path)?;
    host.progress(None, "opening the input");
    let answer = answer(host, tools, path)?;
    let refuse = |what: &str| {
        let message = format!("input {} {what}", path.display());
        Failure::permanent(Cause::Error, message)
    };
    if answer.is_still() {
        return Err(refuse("is a still picture, not a film"));
    }
    let mut facts = answer.facts().ok_or_else(|| refuse(answer.no_film()))?;
    let scan = Scan::with_clock(facts.video.stream, facts.video.rate);
    let mut scan = self::scan(host, tools, path, bytes, (("checking the input", None), scan))?;
    scan.pictures.sort();
    scan.take_begins(answer.begins());
    for beside in &mut facts.streams {
        let track = scan.tracks.get(&beside.stream);
        beside.packets = Some(track.map_or(0, |track| track.packets));
    }
    if facts::is_of_pictures(&facts.container) && scan.pictures.times_us.len() == 1 {
        return Err(refuse("is a still picture, not a film"));
    }
    // Some containers claim a rate that their packets do not keep.
    facts.video.irregular |= scan.off_clock > 0;
    let film = Film { facts, scan, bytes };
    match truncation(&film, expected_ms) {
        None => Ok(film),
        Some(reason) => {
            let message = format!("input {} {reason}", path.display());
            Err(Failure::permanent(Cause::Error, message))
        }
    }
}

/// Size of a regular file that is not empty, bytes.
///
/// # Errors
/// A permanent [`Failure`] that says what it is instead.
pub(crate) fn size_of_file(path: &Path) -> Result<u64, Failure> {
    let refuse = |reason: String| {
        Err(Failure::permanent(Cause::Error, format!("input {} {reason}", path.display())))
    };
    match path.metadata() {
        Err(error) => refuse(format!("cannot be opened: {error}")),
        Ok(metadata) if !metadata.is_file() => refuse("is not a regular file".to_owned()),
        Ok(metadata) if metadata.len() == 0 => refuse("is empty".to_owned()),
        Ok(metadata) => Ok(metadata.len()),
    }
}

/// ffprobe's answer about streams and container.
///
/// # Errors
/// A [`Failure`] that says why the file cannot be opened.
pub(crate) fn answer(host: &dyn Host, tools: &Tools, path: &Path) -> Result<Answer, Failure> {
    ask(host, tools, path, (INPUT_GUARD, facts::ENTRIES))
}

/// ffprobe's answer about `entries` of a file that `guard` lets it open.
///
/// # Errors
/// As [`answer`].
pub(crate) fn ask<T: DeserializeOwned>(
    host: &dyn Host,
    tools: &Tools,
    path: &Path,
    (guard, entries): (&[&str], &str),
) -> Result<T, Failure> {
    ask_within(host, tools, (path, path), (guard, &["-show_entries", entries]))
}

/// ffprobe's answer to these arguments about a file that leads to others in the folder `within`.
///
/// # Errors
/// As [`answer`].
pub(crate) fn ask_within<T: DeserializeOwned>(
    host: &dyn Host,
    tools: &Tools,
    (path, within): (&Path, &Path),
    (guard, arguments): (&[&str], &[&str]),
) -> Result<T, Failure> {
    struct Text {
        json: Vec<u8>,
        stderr: Stderr,
    }
    impl Lines for Text {
        fn on_stdout(&mut self, line: &[u8]) {
            if self.json.len() + line.len() < ANSWER_BYTES_MAX {
                self.json.extend_from_slice(line);
                self.json.push(b'\n');
            }
        }
        fn on_stderr(&mut self, line: &[u8]) {
            self.stderr.on_line(line);
        }
    }
    let mut text = Text { json: Vec::new(), stderr: Stderr::default() };
    let arguments: Vec<&str> = ["-of", "json"].iter().chain(arguments).copied().collect();
    let mut program = ffprobe((host, tools), guard, &arguments, path);
    if within != path {
        program.read.push(Place::from(within));
    }
    program.timeout = Some(OPEN_TIMEOUT);
    let ended = host.run(&program, &mut text)?;
    if let Some(failure) = classify::failure("ffprobe", path, &ended, &text.stderr) {
        return Err(failure);
    }
    serde_json::from_slice(&text.json).map_err(|error| {
        let message = format!("cannot read ffprobe's answer about {}: {error}", path.display());
        Failure::permanent(Cause::Error, message)
    })
}

/// What is shown while a file is read, and the share of the job at that time.
type Doing<'a> = (&'a str, Option<f64>);

/// Lists the packets of a file of `bytes` bytes into `scan`; `doing` is shown with how far it is.
///
/// # Errors
/// A [`Failure`] that says why the file cannot be read.
pub(crate) fn scan(
    host: &dyn Host,
    tools: &Tools,
    path: &Path,
    bytes: u64,
    (doing, scan): (Doing<'_>, Scan),
) -> Result<Scan, Failure> {
    list(host, tools, path, bytes, (doing, scan, &["-show_entries", scan::ENTRIES]))
}

/// Lists the pictures of a file's first stream, with a hash of the decoder's set-up and with how it
/// looks.
///
/// # Errors
/// A [`Failure`] that says why the file cannot be read.
pub(crate) fn pictures(
    host: &dyn Host,
    tools: &Tools,
    path: &Path,
    bytes: u64,
    doing: Doing<'_>,
) -> Result<Scan, Failure> {
    let entries = format!("{}:stream=extradata_hash,{}", scan::ENTRIES, scan::LOOKS);
    let arguments = ["-show_data_hash", "CRC32", "-select_streams", "0", "-show_entries", &entries];
    let scan = Scan::with_clock(0, None);
    let mut scan = list(host, tools, path, bytes, (doing, scan, &arguments))?;
    scan.pictures.sort();
    Ok(scan)
}

fn list(
    host: &dyn Host,
    tools: &Tools,
    path: &Path,
    bytes: u64,
    (doing, scan, arguments): (Doing<'_>, Scan, &[&str]),
) -> Result<Scan, Failure> {
    let mut listing =
        Listing { scan, stderr: Stderr::default(), host, doing, shown_at: Instant::now() };
    let arguments: Vec<&str> = ["-of", "compact=p=0"].iter().chain(arguments).copied().collect();
    let mut program = ffprobe((host, tools), INPUT_GUARD, &arguments, path);
    program.timeout = Some(OPEN_TIMEOUT + Duration::from_secs(bytes / READ_RATE_MIN));
    let ended = host.run(&program, &mut listing)?;
    match classify::failure("ffprobe", path, &ended, &listing.stderr) {
        Some(failure) => Err(failure),
        None => Ok(listing.scan),
    }
}

struct Listing<'a> {
    scan: Scan,
    stderr: Stderr,
    host: &'a dyn Host,
    doing: Doing<'a>,
    shown_at: Instant,
}

impl Lines for Listing<'_> {
    fn on_stdout(&mut self, line: &[u8]) {
        self.scan.on_stdout(line);
        if self.shown_at.elapsed() >= PROGRESS_INTERVAL {
            self.shown_at = Instant::now();
            let reached = time_text(seconds(self.scan.reached_us));
            let (doing, share) = self.doing;
            self.host.progress(share, &format!("{doing}, at {reached}"));
        }
    }

    fn on_stderr(&mut self, line: &[u8]) {
        self.scan.on_stderr(line);
        self.stderr.on_line(line);
    }
}

/// A run of ffprobe on one file.
pub(crate) fn ffprobe(
    (host, tools): (&dyn Host, &Tools),
    guard: &[&str],
    arguments: &[&str],
    path: &Path,
) -> Program {
    let mut argv: Vec<OsString> = vec![tools.ffprobe.clone().into()];
    argv.extend(["-hide_banner", "-loglevel", "level+error"].map(OsString::from));
    argv.extend(guard.iter().chain(arguments).map(OsString::from));
    argv.extend(["-i".into(), path.into()]);
    let mut read = tools::beside(host.settings(), argv.first());
    read.push(Place::from(path));
    Program { argv, read, ..Program::default() }
}
