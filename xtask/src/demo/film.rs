//! The film to encode: the person's own, or one that is made up.
//!
//! A worker reaches what our user reaches *without* capabilities: in its user namespace, root has
//! no override over other users' files. A film beyond that reach is staged by copy.

use crate::programs;
use crate::step;
use anyhow::{Context, Result, bail};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Checks that a file can be read; returns its real path.
pub(super) fn check(file: &Path) -> Result<PathBuf> {
    let shown = file.display();
    let real = file
        .canonicalize()
        .with_context(|| format!("cannot find the film {shown} (seen from the current folder)"))?;
    let found = real.metadata().with_context(|| format!("cannot look at {shown}"))?;
    if !found.is_file() {
        bail!("{shown} is not a file: the demo encodes one film");
    }
    if found.len() == 0 {
        bail!("{shown} is empty: there is nothing to encode");
    }
    File::open(&real).with_context(|| {
        format!("cannot read {shown}: it belongs to user {}, mode {}", found.uid(), mode(&found))
    })?;
    Ok(real)
}

/// The film itself, or a copy in `staging` when a worker could not reach it.
pub(super) fn within_reach(film: &Path, staging: &Path) -> Result<PathBuf> {
    let Some(reason) = out_of_reach(film)? else {
        return Ok(film.to_path_buf());
    };
    step::say(&format!("copy the film into {}: {reason}", staging.display()));
    std::fs::create_dir_all(staging)
        .with_context(|| format!("cannot make {}", staging.display()))?;
    let copy = staging.join(film.file_name().context("the film's path names no file")?);
    let mut from = File::open(film).with_context(|| format!("cannot read {}", film.display()))?;
    let mut to = File::create(&copy).with_context(|| format!("cannot write {}", copy.display()))?;
    std::io::copy(&mut from, &mut to)
        .with_context(|| format!("cannot copy {} to {}", film.display(), copy.display()))?;
    Ok(copy)
}

/// Why a root supervisor's workers could not read a path, if so: the part of it that belongs to
/// another user and is closed to the rest. Without root, opening it was the whole answer.
pub(super) fn out_of_reach(path: &Path) -> Result<Option<String>> {
    if !programs::is_root() {
        return Ok(None);
    }
    for part in path.ancestors() {
        let found =
            part.metadata().with_context(|| format!("cannot look at {}", part.display()))?;
        if !is_open_to_root(&found) {
            return Ok(Some(format!(
                "{} belongs to user {}, mode {}",
                part.display(),
                found.uid(),
                mode(&found)
            )));
        }
    }
    Ok(None)
}

/// The film of the demo: 30 seconds of moving test picture with running numbers, and a tone.
/// Made once.
pub(super) fn sample(file: &Path) -> Result<PathBuf> {
    if file.exists() {
        return Ok(file.to_path_buf());
    }
    // Renamed when it is whole: a sample cut short by Ctrl-C must not be taken for one.
    let part = file.with_extension("part");
    let mut command = Command::new("ffmpeg");
    command
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
        .args(["-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=30:duration=30"])
        .args(["-f", "lavfi", "-i", "sine=frequency=440:beep_factor=4:duration=30"])
        .args(["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p"])
        .args(["-c:a", "aac", "-b:a", "128k", "-shortest", "-movflags", "+faststart"])
        .args(["-f", "mp4"])
        .arg(&part);
    step::run("make a film of 30 seconds, 1920x1080", &mut command)?;
    std::fs::rename(&part, file).with_context(|| format!("cannot make {}", file.display()))?;
    Ok(file.to_path_buf())
}

/// Whether the mode bits alone let root in: reading a file, passing through a folder.
fn is_open_to_root(found: &Metadata) -> bool {
    let wanted = if found.is_dir() { 0o1 } else { 0o4 };
    let shift = match (found.uid(), found.gid()) {
        (0, _) => 6,
        (_, 0) => 3,
        _ => 0,
    };
    found.mode() >> shift & wanted != 0
}

fn mode(found: &Metadata) -> String {
    format!("{:04o}", found.mode() & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_not_a_film_and_a_missing_file_is_named() {
        let folder = check(Path::new("/")).expect_err("a folder was taken for a film");
        assert!(folder.to_string().contains("is not a file"), "{folder}");
        let missing = check(Path::new("no-such-film.mp4")).expect_err("a film was made up");
        assert!(missing.to_string().contains("no-such-film.mp4"), "{missing}");
    }

    #[test]
    fn what_everybody_may_read_is_within_reach() -> Result<()> {
        assert_eq!(out_of_reach(Path::new("/bin/sh"))?, None);
        Ok(())
    }
}
