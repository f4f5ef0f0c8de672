//! Makes the parts of a film that no earlier attempt has finished, and joins all of them.

mod ahead;
mod mixed;

use super::super::host::go_on;
use super::super::ladder::Work;
use super::super::progress::Block;
use super::super::run::{self, Files, Ran, Used};
use super::arguments;
use super::cut::{Chunk, Cuts};
use super::share::Share;
use super::shelf::{FilmFile, Identity, Record, Shelf, Sum};
use shiftboss_protocol::job::{Cause, Failure};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The part that holds the audio of the whole film, and its file.
const SOUND: &str = "sound";
const SOUND_FILE: &str = "sound.mp4";
/// What became of the wish to encode in chunks.
pub(crate) enum Made<'a> {
    Parts(Box<Parts<'a>>),
    /// The film must be encoded in one go, because of this. Progress begins anew then: the work
    /// does.
    Whole(String),
}

/// The parts of a film.
pub(crate) struct Parts<'a> {
    work: &'a Work<'a>,
    cuts: &'a Cuts,
    shelf: Shelf,
    /// The file of each rung within a chunk.
    names: Vec<String>,
    film: FilmFile,
    records: Vec<Option<Record>>,
    sound: Option<Record>,
    taken: usize,
    share: Share,
    used: Used,
    began: Instant,
    /// What became of chunks that another encoder had made, for people.
    notes: Vec<String>,
}

/// Takes over what is there and makes what is missing.
///
/// # Errors
/// The [`Failure`] of the step that failed; finished parts stay for the next attempt.
pub(crate) fn parts<'a>(work: &'a Work<'a>, cuts: &'a Cuts) -> Result<Made<'a>, Failure> {
    let tool = work.tools.version();
    let tool = tool.map_err(|sentence| Failure::retryable(Cause::FailedStart, sentence))?;
    let film = FilmFile::look(work.input)?;
    let encoder = work.plan.encoder;
    let cuts_sum = fingerprint(cuts);
    let (plan, codec) = (work.plan, encoder.codec.name());
    let identity = Identity { film: film.clone(), plan, codec, tool, cuts: cuts_sum };
    let shelf = Shelf::open(work.host.kept()?, &identity, encoder)?;
    if let Some(reason) = shelf.whole() {
        return Ok(Made::Whole(reason));
    }
    let mut parts = Parts {
        work,
        cuts,
        shelf,
        names: work.plan.rungs.iter().map(|rung| format!("{}.mp4", rung.name)).collect(),
        film,
        records: vec![None; cuts.chunks.len()],
        sound: None,
        taken: 0,
        share: Share::of_film(u64::try_from(cuts.span_us()).unwrap_or(0)),
        used: Used::default(),
        began: Instant::now(),
        notes: Vec::new(),
    };
    parts.take_over()?;
    parts.make_sound()?;
    if let Some(reason) = parts.make_chunks()? {
        parts.shelf.give_up(&reason)?;
        return Ok(Made::Whole(reason));
    }
    Ok(Made::Parts(Box::new(parts)))
}

fn part_name(at: usize) -> String {
    format!("chunk-{at:05}")
}

/// Stands for the times of all pictures, and for where the film is cut.
fn fingerprint(cuts: &Cuts) -> String {
    let mut sum = Sum::default();
    let times = cuts.times_us.iter().chain([&cuts.origin_us]);
    times.for_each(|time| sum.add(&time.to_le_bytes()));
    sum.add(format!("{:?}{:?}", cuts.rate, cuts.chunks).as_bytes());
    sum.text()
}

/// What may only have come from starting to read in the middle of the film: a whole encode
/// finds out.
fn is_about_reading(failure: &Failure) -> bool {
    failure.cause == Cause::ExitCode || (failure.cause == Cause::Error && failure.permanent)
}

impl Parts<'_> {
    /// How many chunks there are, and how many of them an earlier attempt had made.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.records.len(), self.taken)
    }

    /// By FFmpeg, in this attempt.
    pub(crate) fn used(&self) -> Used {
        self.used
    }

    pub(crate) fn cuts(&self) -> &Cuts {
        self.cuts
    }

    /// When the first picture of an output is shown, microseconds.
    pub(crate) fn start_us(&self, rung: usize) -> i64 {
        let first = self.records.iter().flatten().next();
        first.and_then(|record| record.starts_us.get(rung)).copied().unwrap_or(0)
    }

    /// No attempt of this job is to use the chunks again.
    pub(crate) fn give_up(&self, reason: &str) -> Result<(), Failure> {
        self.shelf.give_up(reason)
    }

    fn take_over(&mut self) -> Result<(), Failure> {
        let (work, count) = (self.work, self.records.len());
        for at in 0..count {
            go_on(work.host)?;
            let part = part_name(at);
            work.host.progress(None, &format!("looking for chunk {} of {count}", at + 1));
            let checked = self.shelf.take(&part, &self.names)?;
            self.records[at] = match checked.filter(|record| self.is_of_use(record)) {
                Some(record) => Some(record),
                None => self.take_unchecked(at)?,
            };
            if self.records[at].is_none() {
                self.shelf.remove(&part)?;
            }
        }
        self.leave_strange()?;
        self.count_again();
        self.taken = self.records.iter().flatten().count();
        let before = *work.resumed.get_or_init(|| self.taken);
        if self.taken > 0 {
            let taken = self.taken;
            let from = if work.again { "the encoder that was lost" } else { "an earlier attempt" };
            work.host.log(&format!("{taken} of {count} chunks are taken over from {from}"));
            let share = self.share.now();
            work.show(share, &format!("{taken} of {count} chunks are there"));
        } else if work.again {
            work.host.begin_anew();
        }
        self.taken = self.taken.min(before);
        Ok(())
    }

    /// It was made by an encoder that may still be used, and fits what there is of that one.
    fn is_of_use(&self, record: &Record) -> bool {
        self.is_wanted(record) && self.is_like_others(record)
    }

    fn is_wanted(&self, record: &Record) -> bool {
        record.encoder.is_some_and(|made| self.work.ladder.codecs.0.contains(&made))
    }

    /// What is shown begins with the chunks that are there.
    fn count_again(&mut self) {
        self.share = Share::of_film(u64::try_from(self.cuts.span_us()).unwrap_or(0));
        for at in 0..self.records.len() {
            let Some(record) = &self.records[at] else { continue };
            let chunk = &self.cuts.chunks[at];
            self.share.chunk_done(self.film_us(chunk, chunk.frames), record.bytes());
        }
    }

    /// How much of the film lies between a chunk's begin and its picture `frame`.
    fn film_us(&self, chunk: &Chunk, frame: usize) -> u64 {
        let begin = self.cuts.times_us[chunk.first];
        let end = self.cuts.times_us.get(chunk.first + frame.min(chunk.frames));
        let end = end.or(self.cuts.times_us.last()).copied().unwrap_or(begin);
        u64::try_from(end - begin).unwrap_or(0)
    }

    /// The audio of the whole film, first: what is wrong with it shows before the hours.
    fn make_sound(&mut self) -> Result<(), Failure> {
        let (work, host, names) = (self.work, self.work.host, [SOUND_FILE.to_owned()]);
        if !self.work.plan.has_beside() {
            return Ok(());
        }
        self.sound = self.shelf.take(SOUND, &names)?;
        if self.sound.is_none() {
            go_on(host)?;
            let folder = self.shelf.begin(SOUND)?;
            let (ffmpeg, input) = (&self.work.tools.ffmpeg, self.work.input);
            let output = folder.join(SOUND_FILE);
            let measured = self.work.loudness(Some(self.share.now()))?;
            let sound = (self.work.plan, measured.as_slice(), self.cuts);
            let argv = arguments::sound(ffmpeg, input, sound, &output);
            let share = &mut self.share;
            let files = Files::of(input, &folder);
            let Ran { last, stderr, used } = run::ffmpeg(host, files, argv, &mut |block| {
                work.show(share.on_sound(block), "encoding the audio");
            })?;
            self.used += used;
            self.is_complete(&last)?;
            let record = Record::new((stderr.errors, stderr.first()));
            self.sound = Some(self.shelf.put(SOUND, &names, record)?);
        }
        self.share.sound_done();
        Ok(())
    }

    /// Both ends of a run: FFmpeg said its last word, and the film is still the one that was cut.
    fn is_complete(&self, last: &Block) -> Result<(), Failure> {
        if !last.is_last {
            let message = "ffmpeg ended without its final report".to_owned();
            return Err(Failure::retryable(Cause::Error, message));
        }
        if FilmFile::look(self.work.input)? != self.film {
            let film = self.work.input.display();
            let message = format!("input {film} was changed while it was encoded");
            return Err(Failure::retryable(Cause::Error, message));
        }
        Ok(())
    }

    /// Joins the chunks of every rung into its staged file.
    ///
    /// # Errors
    /// The [`Failure`] of the run that failed; the parts stay.
    pub(crate) fn join(&mut self, staged: &[PathBuf]) -> Result<(), Failure> {
        let (work, host, count) = (self.work, self.work.host, staged.len());
        let sound = self.shelf.path_of(SOUND, SOUND_FILE);
        let sound = self.work.plan.has_beside().then_some(sound.as_path());
        for (at, (name, output)) in self.names.iter().zip(staged).enumerate() {
            go_on(host)?;
            let records = self.records.iter().flatten();
            let starts: Vec<i64> = records.map(|record| record.starts_us[at]).collect();
            let start_us = starts.first().copied().unwrap_or(0);
            let parts = (0..self.records.len()).map(part_name);
            let mut files: Vec<String> = parts.map(|part| format!("{part}/{name}")).collect();
            let first = self.first(at)?;
            if let (Some(first), Some(file)) = (&first, files.first_mut()) {
                file.clone_from(first);
            }
            let list =
                self.shelf.write(&format!("{name}.list"), &arguments::list(&files, &starts))?;
            let argv = arguments::join(&self.work.tools.ffmpeg, (&list, start_us), sound, output);
            let note = format!("joining output {} of {count}", at + 1);
            let share = &mut self.share;
            let (read, write) = (folder_of(&list), Some(folder_of(output)));
            let files = Files { input: &list, read, write };
            let Ran { last, used, .. } = run::ffmpeg(host, files, argv, &mut |block| {
                work.show(share.on_joining((at, count), block), &note);
            })?;
            self.used += used;
            self.is_complete(&last)?;
            if let Some(first) = first {
                self.has_set_up_of(&self.shelf.own(&first), output)?;
            }
        }
        Ok(())
    }

    /// What FFmpeg complained about.
    pub(crate) fn complaint(&self) -> Option<String> {
        let all = || self.records.iter().chain([&self.sound]).flatten();
        let bad = || all().filter(|record| record.errors > 0);
        let errors: u64 = bad().map(|record| record.errors).sum();
        let words = bad().next()?.first_error.as_deref().unwrap_or("no message");
        Some(format!("ffmpeg reported {errors} errors, the first: {words}"))
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().expect("files are made in folders")
}
