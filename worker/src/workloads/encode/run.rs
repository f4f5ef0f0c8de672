//! Runs FFmpeg to its end, and shows its progress blocks on the way.

use super::classify::{self, Stderr};
use super::codec::Encoder;
use super::host::{Host, stopped};
use super::progress::{self, Block, Parser};
use super::tools;
use crate::program::{Lines, Place, Program};
use shiftboss_protocol::job::Failure;
use std::ffi::OsString;
use std::ops::AddAssign;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long FFmpeg may take to close its files after `q`, before SIGTERM.
const STOP_WORD_GRACE: Duration = Duration::from_secs(5);

/// What FFmpeg said and used until its good end.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) last: Block,
    pub(super) stderr: Stderr,
    pub(super) used: Used,
}

/// Time of FFmpeg itself, from its start to its exit; of several runs, the sum.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
}

impl AddAssign for Used {
    fn add_assign(&mut self, other: Self) {
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

/// What FFmpeg needs to see.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files<'a> {
    /// What it is to read: a film, or a list of files beside it. Named in failures.
    pub(super) input: &'a Path,
    /// What of it it sees: the film alone, or the folder of the list.
    pub(super) read: &'a Path,
    /// The folder that holds nothing but its outputs; `None`: it makes none.
    pub(super) write: Option<&'a Path>,
}

impl<'a> Files<'a> {
    /// A film, and the folder of its outputs.
    pub(super) fn of(input: &'a Path, write: &'a Path) -> Self {
        Self { input, read: input, write: Some(write) }
    }

    /// A film that is only looked at.
    pub(super) fn only(input: &'a Path) -> Self {
        Self { input, read: input, write: None }
    }
}

/// Runs the command `argv` on these files.
///
/// # Errors
/// The [`Failure`] that its end stands for. Exit code 0 alone proves nothing.
pub(super) fn ffmpeg(
    host: &dyn Host,
    files: Files<'_>,
    argv: Vec<OsString>,
    show: &mut (dyn FnMut(&Block) + Send),
) -> Result<Ran, Failure> {
    run(host, (files, &[], None), (argv, None), show)
}

/// The same for a command that reads `more` files too.
///
/// # Errors
/// As [`ffmpeg`].
pub(super) fn ffmpeg_on(
    host: &dyn Host,
    (files, more): (Files<'_>, &[&Path]),
    argv: Vec<OsString>,
    show: &mut (dyn FnMut(&Block) + Send),
) -> Result<Ran, Failure> {
    run(host, (files, more, None), (argv, None), show)
}

/// The same for a command that encodes pictures: tells whether its encoder failed, and not the
/// film.
///
/// # Errors
/// As [`ffmpeg`].
pub(super) fn encode(
    host: &dyn Host,
    files: Files<'_>,
    command: (Vec<OsString>, Option<&Lost>),
    show: &mut (dyn FnMut(&Block) + Send),
) -> Result<Ran, Failure> {
    run(host, (files, &[], None), command, show)
}

/// What hardware said when it refused to encode.
#[derive(Debug, Default)]
pub(super) struct Lost(Mutex<Option<String>>);

impl Lost {
    /// Where to tell it: only hardware can be lost.
    pub(super) fn of(&self, encoder: Encoder) -> Option<&Self> {
        encoder.is_hardware().then_some(self)
    }

    pub(super) fn words(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, words: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(words.to_owned());
    }
}

/// The same for a command that names its outputs without their folder `within`, which it runs in.
/// It is short enough to show nothing.
///
/// # Errors
/// As [`ffmpeg`].
pub(super) fn ffmpeg_within(
    host: &dyn Host,
    (input, within): (&Path, &Path),
    argv: Vec<OsString>,
) -> Result<Ran, Failure> {
    run(host, (Files::of(input, within), &[], Some(within)), (argv, None), &mut |_| ())
}

fn run(
    host: &dyn Host,
    (files, more, within): (Files<'_>, &[&Path], Option<&Path>),
    (argv, lost): (Vec<OsString>, Option<&Lost>),
    show: &mut (dyn FnMut(&Block) + Send),
) -> Result<Ran, Failure> {
    let mut read = tools::beside(host.settings(), argv.first());
    read.push(Place::from(files.read));
    read.extend(more.iter().map(|path| Place::from(*path)));
    let program = Program {
        argv,
        read,
        cwd: within.map(Path::to_owned),
        write: files.write.map(Place::from).into_iter().collect(),
        stop_word: Some(b"q".to_vec()),
        stop_word_grace: STOP_WORD_GRACE,
        log_name: Some("ffmpeg".to_owned()),
        unlogged: Some(progress::is_number),
        ..Program::default()
    };
    let (parser, last, stderr) = (Parser::default(), Block::default(), Stderr::default());
    let mut watch = Watch { parser, last, stderr, show };
    let ended = host.run(&program, &mut watch)?;
    match classify::failure("ffmpeg", files.input, &ended, &watch.stderr) {
        Some(failure) => {
            if let (Some(lost), Some(words)) = (lost, watch.stderr.encoder_lost()) {
                lost.set(words);
            }
            Err(failure)
        }
        // It may have ended by itself in the moment in which it was told to stop.
        None => match host.stop_reason() {
            Some(reason) if !watch.last.is_last => Err(stopped(reason)),
            Some(_) | None => {
                let Watch { last, stderr, .. } = watch;
                Ok(Ran { last, stderr, used: Used { wall: ended.wall, cpu: ended.cpu } })
            }
        },
    }
}

struct Watch<'a> {
    parser: Parser,
    last: Block,
    stderr: Stderr,
    show: &'a mut (dyn FnMut(&Block) + Send),
}

impl Lines for Watch<'_> {
    fn on_stdout(&mut self, line: &[u8]) {
        let Some(block) = self.parser.on_line(line) else { return };
        (self.show)(&block);
        self.last = block;
    }

    fn on_stderr(&mut self, line: &[u8]) {
        self.stderr.on_line(line);
    }
}

/// What the files have together.
pub(super) fn bytes_of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> u64 {
    let sizes = paths.into_iter().filter_map(|path| path.symlink_metadata().ok());
    sizes.map(|metadata| metadata.len()).sum()
}
