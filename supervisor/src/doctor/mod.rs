//! `shiftboss doctor`: what this host offers, found out by trying, each finding with its remedy.

mod media;
mod table;

use crate::config::{Config, Confine};
use crate::os::disk::{is_usable, room};
use crate::os::{dirs, ladder};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, with less than there could be.
    Note,
    /// Something will not work.
    Problem,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about: `media`, `database`, `disk`, `ladder`.
    pub area: &'static str,
    /// What was checked.
    pub check: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do, if anything.
    pub remedy: Option<String>,
    /// For a rung of the ladder its word, as in `attempts.confinement` where it stands there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word: Option<&'static str>,
}

impl Finding {
    fn new(
        area: &'static str,
        check: impl Into<String>,
        verdict: Verdict,
        found: impl Into<String>,
    ) -> Self {
        Self { area, check: check.into(), verdict, found: found.into(), remedy: None, word: None }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Free room below which a disk is called full: an encode needs some gigabytes.
const ROOM_MIN: u64 = 2 << 30;

/// All checks. Takes some seconds: codecs are tried by encoding. Must be called while the
/// process has one thread.
#[must_use]
pub fn examine(config: &Config) -> Vec<Finding> {
    // First, while there is one thread: it forks.
    let rungs = ladder::probe();
    let mut findings = media::examine(&config.tools);
    findings.extend(table::examine(config));
    findings.extend(disk(config));
    findings.push(Finding::new("ladder", "trees are killed", Verdict::Ok, ladder::killing(&rungs)));
    findings.extend(rungs.iter().map(rung));
    findings.extend(confined(config, &rungs));
    findings.extend(pressure());
    findings
}

fn rung(rung: &ladder::Rung) -> Finding {
    let verdict = if rung.offered { Verdict::Ok } else { Verdict::Note };
    let mut finding = Finding::new("ladder", rung.name, verdict, rung.found.clone());
    finding.word = Some(rung.piece.word());
    if rung.offered { finding } else { finding.remedy(rung.remedy) }
}

/// Whether the configured types get on this host what they require, or what they go without.
fn confined(config: &Config, rungs: &[ladder::Rung]) -> Vec<Finding> {
    let check = "what types ask for";
    let mut findings = Vec::new();
    if let Err(error) = config.check_host(rungs) {
        let finding = Finding::new("ladder", check, Verdict::Problem, error.to_string());
        findings.push(finding.remedy("the supervisor does not start before that is solved"));
    }
    for (name, pieces) in config.lacks(rungs) {
        if config.types[&name].confine == Confine::BestEffort {
            let words: Vec<_> = pieces.iter().map(|piece| piece.word()).collect();
            let found = format!("type {name} runs without {}", words.join(", "));
            findings.push(Finding::new("ladder", check, Verdict::Note, found));
        }
    }
    if findings.is_empty() {
        let found = "all that they ask for can be enforced here";
        findings.push(Finding::new("ladder", check, Verdict::Ok, found));
    }
    findings
}

fn pressure() -> Option<Finding> {
    let finding = Finding::new("ladder", "pressure stall information", Verdict::Note, "missing");
    (!Path::new("/proc/pressure/cpu").exists()).then(|| finding.remedy("boot with psi=1"))
}

fn disk(config: &Config) -> Vec<Finding> {
    let database = config.database.parent().unwrap_or(Path::new("/")).to_owned();
    [("folder of the database", database), ("work_dir", config.work_dir.clone())]
        .into_iter()
        .flat_map(|(name, folder)| [space(name, &folder), rights(name, &folder)])
        .collect()
}

/// The folder itself, or the nearest parent that exists: that is where it will be made.
fn existing(folder: &Path) -> PathBuf {
    folder.ancestors().find(|one| one.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn space(name: &str, folder: &Path) -> Finding {
    let check = format!("room in {name}");
    match room(&existing(folder)) {
        Ok(room) => {
            let (free, total) = (room.free >> 20, room.total >> 20);
            let found = format!("{free} of {total} MiB free at {}", folder.display());
            if room.free < ROOM_MIN {
                let remedy = "free some room: jobs fail and outcomes wait when the disk is full";
                Finding::new("disk", check, Verdict::Problem, found).remedy(remedy)
            } else if dirs::is_tmpfs(&existing(folder)) {
                Finding::new("disk", check, Verdict::Note, format!("{found}, in memory (tmpfs)"))
                    .remedy("use a folder on a disk: this one is empty after a power cut")
            } else {
                Finding::new("disk", check, Verdict::Ok, found)
            }
        }
        Err(error) => {
            let found = format!("cannot look at {}: {error}", folder.display());
            Finding::new("disk", check, Verdict::Problem, found)
        }
    }
}

fn rights(name: &str, folder: &Path) -> Finding {
    let check = format!("rights in {name}");
    let place = existing(folder);
    if is_usable(&place) {
        let found = format!("this user may read and write {}", place.display());
        Finding::new("disk", check, Verdict::Ok, found)
    } else {
        let found = format!("this user may not write {}", place.display());
        Finding::new("disk", check, Verdict::Problem, found)
            .remedy("run as its owner, or change its rights")
    }
}
