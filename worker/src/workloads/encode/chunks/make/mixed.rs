//! Chunks that two encoders made, because the first one was lost: whether they can be one stream,
//! and how they are joined then.

use super::super::super::codec::{Codec, Encoder};
use super::super::super::film::probe;
use super::super::super::run;
use super::super::seam;
use super::super::set_up::SetUp;
use super::super::shelf::Record;
use super::{Parts, part_name};
use shiftboss_protocol::job::{Cause, Failure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

impl Parts<'_> {
    /// It fits the chunks that the same encoder has made.
    pub(super) fn is_like_others(&self, record: &Record) -> bool {
        let own = self.records.iter().flatten().find(|other| other.encoder == record.encoder);
        own.is_none_or(|own| own.set_ups == record.set_ups && own.looks == record.looks)
    }

    /// The first chunk of each kind of set-up that there is.
    fn kinds(&self) -> Vec<(usize, &Record)> {
        let mut kinds: Vec<(usize, &Record)> = Vec::new();
        for (at, record) in self.records.iter().enumerate() {
            let Some(record) = record else { continue };
            if kinds.iter().all(|(_, kind)| kind.set_ups != record.set_ups) {
                kinds.push((at, record));
            }
        }
        kinds
    }

    /// The set-up for what all encoders have made of this rung.
    fn set_up(&self, rung: usize) -> Result<SetUp, String> {
        let kinds = self.kinds();
        let paths = kinds.iter().map(|(at, _)| part_name(*at));
        let paths = paths.map(|part| self.shelf.path_of(&part, &self.names[rung]));
        let paths: Vec<PathBuf> = paths.collect();
        seam::of_all(paths.iter().map(PathBuf::as_path))
    }

    /// Why chunks of several encoders cannot be one stream; `None`: they can.
    fn mismatch(&self) -> Option<String> {
        let kinds = self.kinds();
        let (_, first) = kinds.first().filter(|_| kinds.len() > 1)?;
        if self.work.plan.encoder.codec != Codec::H264 {
            return Some("only streams of H.264 can be joined".to_owned());
        }
        for (_, other) in &kinds {
            let looks = first.looks.iter().zip(&other.looks).find(|(one, other)| one != other);
            if let Some((one, other)) = looks {
                return Some(format!("pictures differ: {one}and {other}"));
            }
        }
        (0..self.names.len()).find_map(|rung| self.set_up(rung).err())
    }

    /// Removes what another encoder has made when it cannot be joined with what ours makes.
    pub(super) fn leave_strange(&mut self) -> Result<(), Failure> {
        let Some(reason) = self.mismatch() else { return Ok(()) };
        let own = self.work.plan.encoder;
        let (mut count, mut others) = (0, Vec::new());
        for at in 0..self.records.len() {
            let Some(record) = self.records[at].take_if(|record| record.encoder != Some(own))
            else {
                continue;
            };
            self.shelf.remove(&part_name(at))?;
            count += 1;
            others.extend(record.encoder.map(Encoder::name));
        }
        others.dedup();
        let (others, own) = (others.join(" and "), own.name());
        let note = format!(
            "{count} chunks of {others} were made anew: they cannot be joined with those of {own} \
             ({reason})"
        );
        self.work.host.log(&note);
        self.notes.push(note);
        Ok(())
    }

    /// What people should know of who made the chunks.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        let by = self.made_by();
        if by.len() > 1 {
            let parts: Vec<String> =
                by.iter().map(|(encoder, count)| format!("{count} by {encoder}")).collect();
            notes.push(format!("chunks were made by two encoders: {}", parts.join(", ")));
        }
        notes
    }

    /// How many chunks each encoder has made.
    pub(crate) fn made_by(&self) -> BTreeMap<&'static str, usize> {
        let mut by = BTreeMap::new();
        for encoder in self.records.iter().flatten().filter_map(|record| record.encoder) {
            *by.entry(encoder.name()).or_insert(0) += 1;
        }
        by
    }

    /// The first chunk once more, with the set-up for all, where there are several.
    pub(super) fn first(&self, rung: usize) -> Result<Option<String>, Failure> {
        if self.kinds().len() < 2 {
            return Ok(None);
        }
        let file = format!("first-{}", self.names[rung]);
        let from = self.shelf.path_of(&part_name(0), &self.names[rung]);
        let written =
            self.set_up(rung).and_then(|all| seam::copy_with(all, &from, &self.shelf.own(&file)));
        match written {
            Ok(()) => Ok(Some(file)),
            Err(reason) => Err(self.strange(&reason)),
        }
    }

    /// The joined file has taken over the set-up of its first part.
    pub(super) fn has_set_up_of(&self, first: &Path, output: &Path) -> Result<(), Failure> {
        let (host, tools) = (self.work.host, self.work.tools);
        let read = |path: &Path| {
            let bytes = run::bytes_of([path]);
            let doing = ("checking the seams", None);
            probe::pictures(host, tools, path, bytes, doing).map(|found| found.set_up)
        };
        if read(first)? == read(output)? {
            return Ok(());
        }
        Err(self.strange("the joined file lacks a part of its set-up"))
    }

    /// Chunks that seemed to fit each other do not: none is used again.
    fn strange(&self, reason: &str) -> Failure {
        let message = format!("chunks of two encoders could not be joined: {reason}");
        match self.shelf.give_up(&message) {
            Ok(()) => Failure::retryable(Cause::Error, message),
            Err(failure) => failure,
        }
    }
}
