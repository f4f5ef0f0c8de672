//! The rules, one function each; what it returns is wrong.

use super::facts::{Facts, Job, Promise};
use crate::chaos::journal::{Deed, Line};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// All rules about what was read.
pub(super) const ALL: [fn(&Facts) -> Vec<String>; 9] = [
    nothing_is_lost,
    everything_ends,
    ends_are_explained,
    nothing_succeeds_twice,
    attempts_are_counted,
    attempts_do_not_overlap,
    success_means_a_whole_run,
    outputs_are_whole,
    the_database_is_whole,
];

const FINAL: [&str; 3] = ["succeeded", "failed", "cancelled"];

fn nothing_is_lost(facts: &Facts) -> Vec<String> {
    let lost = facts.promises.iter().filter(|(id, _)| !facts.jobs.contains_key(id));
    lost.map(|(id, promise)| format!("job {id} ({}) was acknowledged and is lost", promise.kind))
        .collect()
}

fn everything_ends(facts: &Facts) -> Vec<String> {
    let open = facts.jobs.iter().filter(|(_, job)| !FINAL.contains(&&*job.state));
    let mut wrong: Vec<String> =
        open.map(|(id, job)| format!("job {id} is {} in the end", job.state)).collect();
    for (id, attempts) in &facts.attempts {
        let open = attempts.iter().filter(|one| one.ended_at.is_none() || one.outcome.is_none());
        wrong.extend(open.map(|one| format!("attempt {} of job {id} has no end", one.attempt)));
    }
    wrong
}

fn ends_are_explained(facts: &Facts) -> Vec<String> {
    let with_promise = facts.promises.iter().filter_map(|(id, promise)| {
        let job = facts.jobs.get(id)?;
        (!is_explained(facts, *id, job, promise)).then_some((id, promise, job))
    });
    with_promise
        .map(|(id, promise, job)| {
            let causes: Vec<_> =
                facts.attempts_of(*id).iter().map(|one| one.cause.as_deref()).collect();
            format!(
                "job {id} ({}) was to end as {} and is {}: {} {:?}",
                promise.kind,
                promise.state,
                job.state,
                job.error,
                causes.last()
            )
        })
        .collect()
}

fn is_explained(facts: &Facts, id: i64, job: &Job, promise: &Promise) -> bool {
    if job.state == "cancelled" {
        return facts.cancelled.contains(&id);
    }
    let last = facts.attempts_of(id).last().and_then(|one| one.cause.clone());
    job.state == promise.state
        && (job.state != "failed" || last.is_some_and(|cause| promise.causes.contains(&cause)))
}

fn nothing_succeeds_twice(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, job) in &facts.jobs {
        let succeeded: Vec<i64> = facts
            .attempts_of(*id)
            .iter()
            .filter(|one| one.outcome.as_deref() == Some("succeeded"))
            .map(|one| one.attempt)
            .collect();
        let wanted: &[i64] = if job.state == "succeeded" { &[job.attempt] } else { &[] };
        if succeeded != wanted {
            wrong.push(format!(
                "job {id} is {} with attempt {}, and attempts {succeeded:?} succeeded",
                job.state, job.attempt
            ));
        }
    }
    wrong
}

fn attempts_are_counted(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, job) in &facts.jobs {
        let numbers: Vec<i64> = facts.attempts_of(*id).iter().map(|one| one.attempt).collect();
        if numbers != (1..=job.attempt).collect::<Vec<_>>() {
            wrong.push(format!("job {id} counts {} attempts and has {numbers:?}", job.attempt));
        }
        let mut started: Vec<i64> = starts(facts.lines_of(*id)).map(|line| line.attempt).collect();
        started.sort_unstable();
        let twice = started.windows(2).find(|pair| pair[0] == pair[1]);
        wrong.extend(twice.map(|pair| format!("attempt {} of job {id} began twice", pair[0])));
        let unknown = started.iter().find(|one| !numbers.contains(one));
        wrong.extend(unknown.map(|one| format!("attempt {one} of job {id} ran unclaimed")));
    }
    let strange = facts.lines.keys().filter(|id| !facts.jobs.contains_key(id));
    wrong.extend(strange.map(|id| format!("job {id} ran and is not in the table")));
    wrong
}

fn starts(lines: &[Line]) -> impl Iterator<Item = &Line> {
    lines.iter().filter(|line| line.deed == Deed::Start)
}

fn attempts_do_not_overlap(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, lines) in &facts.lines {
        let held = lines.iter().filter(|line| line.deed == Deed::Overlap);
        wrong.extend(held.map(|line| {
            format!(
                "attempt {} of job {id} (process {}) began while processes of an earlier one lived",
                line.attempt, line.pid
            )
        }));
        let mut lines = lines.clone();
        lines.sort_by_key(|line| line.at_ns);
        let back = lines.windows(2).find(|pair| pair[1].attempt < pair[0].attempt);
        wrong.extend(back.map(|pair| {
            format!(
                "attempt {} of job {id} acted after attempt {}",
                pair[1].attempt, pair[0].attempt
            )
        }));
    }
    for (id, attempts) in &facts.attempts {
        let early = attempts
            .windows(2)
            .find(|pair| pair[0].ended_at.is_some_and(|ended| ended > pair[1].started_at));
        wrong.extend(early.map(|pair| {
            format!(
                "attempt {} of job {id} ends after attempt {} has started",
                pair[0].attempt, pair[1].attempt
            )
        }));
    }
    wrong
}

fn success_means_a_whole_run(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, promise) in facts.promises.iter().filter(|(_, promise)| promise.journalled) {
        let Some(job) = facts.jobs.get(id).filter(|job| job.state == "succeeded") else { continue };
        let of_last = |deed: Deed| {
            let lines = facts.lines_of(*id).iter();
            lines.filter(|line| line.deed == deed && line.attempt == job.attempt).count()
        };
        if (of_last(Deed::Start), of_last(Deed::End(true))) != (1, 1) {
            wrong.push(format!(
                "job {id} ({}) succeeded with attempt {}, whose program began {} times and was \
                 done {} times",
                promise.kind,
                job.attempt,
                of_last(Deed::Start),
                of_last(Deed::End(true))
            ));
        }
    }
    wrong
}

fn outputs_are_whole(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, promise) in &facts.promises {
        let succeeded = facts.jobs.get(id).is_some_and(|job| job.state == "succeeded");
        let Some((folder, frames)) = promise.output.as_ref().filter(|_| succeeded) else {
            continue;
        };
        let entries = names(folder);
        if !entries.iter().any(|path| path.extension().is_some_and(|one| one == "mp4")) {
            wrong.push(format!("job {id} succeeded and made nothing in {}", folder.display()));
        }
        for path in entries {
            let found = frames_of(&path);
            if found != Some(*frames) {
                let path = path.display();
                wrong.push(format!("{path} of job {id} has {found:?} pictures, not {frames}"));
            }
        }
    }
    wrong
}

/// Pictures of a film, counted packet by packet.
fn frames_of(film: &Path) -> Option<u64> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-select_streams", "v:0", "-count_packets"]);
    command.args(["-show_entries", "stream=nb_read_packets", "-of", "csv=p=0"]).arg(film);
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim().trim_end_matches(',').parse().ok().filter(|_| output.status.success())
}

fn the_database_is_whole(facts: &Facts) -> Vec<String> {
    facts.damage.iter().map(|line| format!("the database is damaged: {line}")).collect()
}

/// Files that should be gone.
pub(super) fn leftovers(folders: &[PathBuf]) -> Vec<String> {
    let left = folders.iter().flat_map(|folder| names(folder));
    left.map(|path| format!("left behind: {}", path.display())).collect()
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
