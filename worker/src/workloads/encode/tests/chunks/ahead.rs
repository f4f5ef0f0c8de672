//! A chunk is checked while the next one is encoded: what that may not change.

use super::super::super::ladder;
use super::super::stage::{Stage, Studio};
use super::{film, finish, in_chunks, two_seconds};
use crate::{Settings, StopReason};
use serde_json::json;
use shiftboss_protocol::job::Cause;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A stage with a program in the place of ffprobe that does this first with the second chunk when
/// that is checked (`$kept` is its folder; `real` asks ffprobe).
fn with_probe(studio: &Studio, second: &str) -> Stage {
    let path = studio.path("ffprobe-of-ours");
    let script = format!(
        "#!/bin/sh\n\
         kept={kept}\n\
         real() {{ command ffprobe \"$@\"; }}\n\
         case \" $* \" in *chunk-00001.unchecked*)\n{second}\n;; esac\n\
         exec ffprobe \"$@\"\n",
        kept = studio.path("kept").display()
    );
    std::fs::write(&path, script).expect("it is ours");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("it is ours");
    let settings = Settings { ffprobe: path.display().to_string(), ..Settings::default() };
    Stage { settings, ..in_chunks(studio) }
}

/// Waits in a shell, 20 s at most; what comes too late is an error of ffprobe.
fn wait_for(condition: &str) -> String {
    format!("n=0; until {condition}; do n=$((n+1)); [ $n -lt 400 ] || exit 9; sleep 0.05; done")
}

fn exists(studio: &Studio, name: &str) -> bool {
    studio.path("kept").join(name).exists()
}

fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    path.metadata().expect("it is there").ino()
}

#[test]
fn a_chunk_is_checked_while_the_next_one_is_encoded_and_no_further_one() {
    let studio = Studio::new();
    let film = film(&studio);
    // Neither began before the other had ended: one would wait for ever, the other find too much.
    let begun = wait_for("[ -e $kept/chunk-00002.part ]");
    let made = wait_for("[ -e $kept/chunk-00002.unchecked ]");
    let alone =
        "sleep 0.3; [ ! -e $kept/chunk-00003.part ] && [ ! -e $kept/chunk-00001 ] || exit 8";
    let stage = with_probe(&studio, &format!("{begun}\n{made}\n{alone}"));
    let result = ladder::run(&studio.job(&film, &two_seconds()), &stage).expect("it is good");
    assert_eq!((&result["chunks"], &result["resumed"]), (&json!(5), &json!(0)));
    assert_eq!(result["outputs"][0]["frames"], json!(250));
    let progress = stage.progress.lock().expect("no test panics with it");
    let shares: Vec<f64> = progress.iter().filter_map(|(share, _)| *share).collect();
    assert!(shares.is_sorted(), "{shares:?}");
}

#[test]
fn a_stop_ends_both_and_what_was_encoded_is_checked_and_not_encoded_again() {
    let studio = Studio::new();
    let film = film(&studio);
    // It ends when the attempt is over, and the chunk was not put into its place.
    let hang = wait_for("[ -e $kept/chunk-00002.part ] && [ -e $kept/../stopped ]");
    let stage = with_probe(&studio, &format!("{hang}\nexit 7"));
    let stop_at = Some((", chunk 3 of 5", StopReason::Released));
    let stage = Stage { stop_at, touch_at_stop: Some(studio.path("stopped")), ..stage };
    let failure = ladder::run(&studio.job(&film, &two_seconds()), &stage).expect_err("stopped");
    assert_eq!(failure.cause, Cause::Released);
    assert!(exists(&studio, "chunk-00000") && !exists(&studio, "chunk-00001"));
    let unchecked = studio.path("kept/chunk-00001.unchecked/120p.mp4");
    let before = inode(&unchecked);
    // Another attempt is stopped as soon as it has looked: the same file lies in its place.
    let stage = Stage { stop_at, ..in_chunks(&studio) };
    ladder::run(&studio.job(&film, &two_seconds()), &stage).expect_err("it was stopped");
    assert_eq!(inode(&studio.path("kept/chunk-00001/120p.mp4")), before);
    assert!(!unchecked.exists());
    assert_eq!(finish(&studio, &film)["resumed"], json!(2));
}

#[test]
fn a_check_that_fails_keeps_what_was_encoded_meanwhile() {
    let studio = Studio::new();
    let film = film(&studio);
    let begun = wait_for("[ -e $kept/chunk-00002.part ]");
    let stage = with_probe(&studio, &format!("{begun}\necho '[error] broken' >&2; exit 1"));
    let failure = ladder::run(&studio.job(&film, &two_seconds()), &stage).expect_err("no check");
    assert!(!failure.permanent, "{failure:?}");
    assert!(failure.message.contains("broken"), "{}", failure.message);
    assert!(exists(&studio, "chunk-00000") && exists(&studio, "chunk-00002.unchecked"));
    assert!(!exists(&studio, "chunk-00001") && !exists(&studio, "chunk-00003.part"));
    let kept = inode(&studio.path("kept/chunk-00002.unchecked/120p.mp4"));
    // Still no check of it when the next attempt looks, so it alone is made again.
    let once =
        "[ -e $kept/../looked ] || { touch $kept/../looked; echo '[error] broken' >&2; exit 1; }";
    let stage = with_probe(&studio, once);
    let stop_at = Some((", chunk 4 of 5", StopReason::Released));
    let stage = Stage { stop_at, ..stage };
    ladder::run(&studio.job(&film, &two_seconds()), &stage).expect_err("it was stopped");
    let logged = stage.logged.lock().expect("no test panics with it");
    assert!(logged.iter().any(|line| line.contains("chunk 2 is made again")), "{logged:?}");
    assert!(logged.iter().any(|line| line.contains("2 of 5 chunks are taken over")), "{logged:?}");
    assert!(exists(&studio, "chunk-00001"));
    assert_eq!(inode(&studio.path("kept/chunk-00002/120p.mp4")), kept);
    assert_eq!(finish(&studio, &film)["resumed"], json!(3));
}

#[test]
fn an_unchecked_chunk_that_is_not_what_it_was_is_made_again() {
    let studio = Studio::new();
    let film = film(&studio);
    let begun = wait_for("[ -e $kept/chunk-00002.part ]");
    let stage = with_probe(&studio, &format!("{begun}\nexit 1"));
    ladder::run(&studio.job(&film, &two_seconds()), &stage).expect_err("it could not be checked");
    for number in [1, 2] {
        let file = studio.path(format!("kept/chunk-0000{number}.unchecked/120p.mp4"));
        let mut bytes = std::fs::read(&file).expect("it was encoded");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(file, bytes).expect("it is ours");
    }
    assert_eq!(finish(&studio, &film)["resumed"], json!(1));
}

#[test]
fn a_chunk_that_differs_from_its_film_ends_all_chunks() {
    let studio = Studio::new();
    let film = film(&studio);
    let begun = wait_for("[ -e $kept/chunk-00002.part ]");
    // One picture less than there are.
    let stage = with_probe(&studio, &format!("{begun}\nreal \"$@\" | sed 5d\nexit 0"));
    let result = ladder::run(&studio.job(&film, &two_seconds()), &stage).expect("it is good");
    let reason = result["whole_because"].as_str().expect("it says why");
    assert!(reason.contains("chunk 2 is not exact: it holds 49 frames"), "{reason}");
    assert_eq!((&result["chunks"], &result["outputs"][0]["frames"]), (&json!(0), &json!(250)));
    let progress = stage.progress.lock().expect("no test panics with it");
    let shares: Vec<f64> = progress.iter().filter_map(|(share, _)| *share).collect();
    assert!(shares.is_sorted(), "{shares:?}");
    assert!(!progress.iter().any(|(_, note)| note.contains(", chunk 4 of 5")));
    assert!(!studio.path("kept").exists());
}
