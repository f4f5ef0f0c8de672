//! Chunks are checked while the next one is encoded:
//!
//!   encode N, sync | encode N + 1, sync ........ | encode N + 2, sync
//!                  | check N, rename  | (waits)  | check N + 1, rename
//!
//! What is encoded is on the disk before the next begins: a death costs the one being encoded.

use super::super::super::film::probe;
use super::super::super::host::{Beside, go_on};
use super::super::super::run::{self, Files, Ran, Used};
use super::super::arguments;
use super::super::check;
use super::super::share::Share;
use super::super::shelf::Record;
use super::{Parts, folder_of, is_about_reading, part_name};
use shiftboss_protocol::job::{Cause, Failure};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Builder};

/// The inner error says which chunk differs from the film, and in what.
type Exact<T> = Result<Result<T, String>, Failure>;

/// A chunk that lies on the shelf and is still to be checked.
struct Unchecked {
    at: usize,
    record: Record,
    used: Used,
}

impl Parts<'_> {
    /// Makes the chunks that are missing; gives the reason when the film must be encoded in one
    /// go.
    ///
    /// # Errors
    /// The [`Failure`] of the run that failed. What was encoded beside it stays.
    pub(super) fn make_chunks(&mut self) -> Result<Option<String>, Failure> {
        let mut behind: Option<Unchecked> = None;
        loop {
            // Not from first to last: chunks of another encoder may turn out to be of no use.
            let is_behind = |at: usize| behind.as_ref().is_some_and(|behind| behind.at == at);
            let mut all = self.records.iter().enumerate();
            let next = all.find(|(at, record)| record.is_none() && !is_behind(*at));
            let next = next.map(|(at, _)| at);
            if behind.is_none() && next.is_none() {
                return Ok(None);
            }
            behind = match self.step(behind, next)? {
                Ok(encoded) => encoded,
                Err(reason) => return Ok(Some(reason)),
            };
        }
    }

    /// Encodes a chunk while the one before it is checked.
    fn step(&mut self, behind: Option<Unchecked>, next: Option<usize>) -> Exact<Option<Unchecked>> {
        go_on(self.work.host)?;
        let mut share = self.share.clone();
        let (checked, encoded) = self.both(behind.as_ref(), next, &mut share);
        self.share = share;
        let mut wrong = None;
        match (behind, checked) {
            // It is done, whatever has become of the other one.
            (Some(Unchecked { at, .. }), Some(Ok(Ok(record)))) => self.is_done(at, record)?,
            (_, Some(Ok(Err(reason)))) => wrong = Some(Ok(reason)),
            (_, Some(Err(failure))) => wrong = Some(Err(failure)),
            (_, None) | (None, _) => {}
        }
        match (wrong, encoded.transpose()?) {
            (Some(Err(failure)), _) => Err(failure),
            (Some(Ok(reason)), _) | (None, Some(Err(reason))) => Ok(Err(reason)),
            (None, None) => Ok(Ok(None)),
            (None, Some(Ok(encoded))) => {
                self.is_encoded(&encoded)?;
                Ok(Ok(Some(encoded)))
            }
        }
    }

    fn both(
        &self,
        behind: Option<&Unchecked>,
        next: Option<usize>,
        share: &mut Share,
    ) -> (Option<Exact<Record>>, Option<Exact<Unchecked>>) {
        let is_silent = AtomicBool::new(false);
        let check = || behind.map(|behind| self.check(behind, &is_silent));
        let mut make = || next.map(|at| self.make(at, share));
        if behind.is_none() || next.is_none() {
            return (check(), make());
        }
        thread::scope(|scope| {
            is_silent.store(true, Ordering::Relaxed);
            let beside = Builder::new().name("check".to_owned()).spawn_scoped(scope, check);
            // Where no thread can be had, one after the other.
            let before = beside.is_err().then(check);
            let encoded = make();
            is_silent.store(false, Ordering::Relaxed);
            let join = || {
                beside.ok().map(|beside| beside.join().unwrap_or_else(|panic| resume_unwind(panic)))
            };
            (before.or_else(join).flatten(), encoded)
        })
    }

    /// Encodes a chunk, and makes what came of it durable.
    fn make(&self, at: usize, share: &mut Share) -> Exact<Unchecked> {
        let part = part_name(at);
        let folder = self.shelf.begin(&part)?;
        let outputs: Vec<PathBuf> = self.names.iter().map(|name| folder.join(name)).collect();
        let (mut record, used) = match self.encode(at, &outputs, share)? {
            Ok(encoded) => encoded,
            Err(reason) => return Ok(Err(not_exact(at, &reason))),
        };
        record.encoder = Some(self.work.plan.encoder);
        let record = self.shelf.put_unchecked(&part, &self.names, record)?;
        Ok(Ok(Unchecked { at, record, used }))
    }

    fn encode(&self, at: usize, outputs: &[PathBuf], share: &mut Share) -> Exact<(Record, Used)> {
        let (work, cuts, began) = (self.work, self.cuts, self.began);
        let chunk = &cuts.chunks[at];
        let argv =
            arguments::chunk(&work.tools.ffmpeg, work.input, (work.plan, cuts, chunk), outputs);
        let count = self.records.len();
        let files = Files::of(work.input, folder_of(&outputs[0]));
        let lost = work.lost.of(work.plan.encoder);
        let ended = run::encode(work.host, files, (argv, lost), &mut |block| {
            let frame = usize::try_from(block.frame.unwrap_or(0)).unwrap_or(0);
            let done =
                (self.film_us(chunk, frame), run::bytes_of(outputs.iter().map(PathBuf::as_path)));
            let (part, note) = share.on_pictures(began.elapsed(), block, done);
            work.show(part, &format!("{note}, chunk {} of {count}", at + 1));
        });
        let Ran { last, stderr, used } = match ended {
            Err(failure)
                if chunk.seek_us.is_some()
                    && is_about_reading(&failure)
                    && work.lost.words().is_none() =>
            {
                return Ok(Err(failure.message));
            }
            other => other?,
        };
        self.is_complete(&last)?;
        let frames = last.frame.and_then(|frame| usize::try_from(frame).ok()).unwrap_or(0);
        if frames != chunk.frames {
            let planned = chunk.frames;
            return Ok(Err(format!("{frames} frames were decoded, {planned} were planned")));
        }
        let errors = match chunk.seek_us {
            Some(_) => stderr.within(),
            None => (stderr.errors, stderr.first()),
        };
        Ok(Ok((Record::new(errors), used)))
    }

    /// Checks a chunk and puts it into its place.
    fn check(&self, chunk: &Unchecked, is_silent: &AtomicBool) -> Exact<Record> {
        let (host, at) = (&Beside { host: self.work.host, is_silent }, &chunk.at);
        let (part, mut record) = (part_name(*at), chunk.record.clone());
        // It may have been checked before, and not been put into its place.
        (record.set_ups, record.looks, record.starts_us) = Default::default();
        let doing = format!("checking chunk {} of {}", at + 1, self.records.len());
        let share = self.share.clone().now() * self.work.plan.check.begin();
        for name in &self.names {
            go_on(host)?;
            let path = self.shelf.path_of_unchecked(&part, name);
            let (bytes, doing) = (record.bytes_of(name), (doing.as_str(), Some(share)));
            let found = probe::pictures(host, self.work.tools, &path, bytes, doing)
                .map_err(|failure| Failure { permanent: false, ..failure })?;
            if let Err(reason) = check::compare(self.cuts, &self.cuts.chunks[*at], &found.pictures)
            {
                return Ok(Err(not_exact(*at, &reason)));
            }
            record.set_ups.push(found.set_up);
            record.looks.push(found.looks);
            record.starts_us.push(found.pictures.times_us.first().copied().unwrap_or(0));
        }
        if !self.is_like_others(&record) {
            return Ok(Err(not_exact(*at, "its encoder was set up in another way")));
        }
        self.shelf.accept(&part, &record)?;
        Ok(Ok(record))
    }

    /// What an earlier attempt had encoded and not checked. It is checked now, and made again when
    /// it is not good.
    pub(super) fn take_unchecked(&self, at: usize) -> Result<Option<Record>, Failure> {
        let found = self.shelf.take_unchecked(&part_name(at), &self.names)?;
        let Some(record) = found.filter(|record| self.is_wanted(record)) else { return Ok(None) };
        let chunk = Unchecked { at, record, used: Used::default() };
        let reason = match self.check(&chunk, &AtomicBool::new(false)) {
            Ok(Ok(record)) => return Ok(Some(record)),
            Ok(Err(reason)) => reason,
            // Others say nothing about the chunk.
            Err(failure)
                if matches!(failure.cause, Cause::Error | Cause::ExitCode | Cause::Signal) =>
            {
                failure.message
            }
            Err(failure) => return Err(failure),
        };
        self.work.host.log(&format!("chunk {} is made again: {reason}", at + 1));
        Ok(None)
    }

    /// A chunk was encoded: its share is done.
    fn is_encoded(&mut self, Unchecked { at, record, used }: &Unchecked) -> Result<(), Failure> {
        self.used += *used;
        let chunk = &self.cuts.chunks[*at];
        self.share.chunk_done(self.film_us(chunk, chunk.frames), record.bytes());
        self.is_worth_it(*at, record)
    }

    /// A chunk was checked.
    fn is_done(&mut self, at: usize, record: Record) -> Result<(), Failure> {
        self.records[at] = Some(record);
        let there = self.records.iter().flatten().count();
        self.leave_strange()?;
        if self.records.iter().flatten().count() < there {
            self.taken = 0;
            self.count_again();
            self.share.sound_done();
            self.work.host.begin_anew();
        }
        Ok(())
    }

    /// What is there of each rung, with what was encoded just now, promises no more bytes than the
    /// film has.
    fn is_worth_it(&self, at: usize, encoded: &Record) -> Result<(), Failure> {
        let chunks = || self.records.iter().zip(&self.cuts.chunks);
        let frames = chunks().filter(|(record, _)| record.is_some()).map(|(_, chunk)| chunk.frames);
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let frames = frames.sum::<usize>() + self.cuts.chunks[at].frames;
        let part = (count(frames), count(self.cuts.times_us.len()));
        for (rung, file) in self.work.plan.rungs.iter().zip(&self.names) {
            let records = self.records.iter().flatten().chain([encoded]);
            let bytes = records.map(|record| record.bytes_of(file)).sum();
            self.work.is_worth_it(&rung.name, bytes, part)?;
        }
        Ok(())
    }
}

fn not_exact(at: usize, reason: &str) -> String {
    format!("chunk {} is not exact: {reason}", at + 1)
}
