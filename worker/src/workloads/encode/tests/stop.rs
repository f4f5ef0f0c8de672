//! Attempts that are stopped, interrupted or followed by another: outputs appear all or none.

use super::super::ladder;
use super::stage::{Stage, Studio, ffmpeg};
use crate::StopReason;
use serde_json::{Value, json};
use shiftboss_protocol::job::{Attempt, Cause, Failure};
use std::path::PathBuf;

fn film(studio: &Studio, seconds: u32) -> PathBuf {
    let film = studio.path("film.mp4");
    let source = format!("-f lavfi -i testsrc2=s=320x240:r=30 -t {seconds}");
    ffmpeg(&format!("{source} -c:v libx264 -preset ultrafast -pix_fmt yuv420p"), &film);
    film
}

#[test]
fn a_stopped_encode_is_no_success_although_ffmpeg_says_0() {
    let studio = Studio::new();
    let film = film(&studio, 60);
    let stop_at = Some(("speed", StopReason::Cancelled));
    let stage = Stage { stop_at, ..Stage::default() };
    let job = studio.job(&film, &json!({"preset": "veryslow"}));
    let failure = ladder::run(&job, &stage).expect_err("it was cancelled");
    assert_eq!(failure.cause, Cause::Cancelled);
    assert_eq!(studio.outputs(), Vec::<String>::new());
}

#[test]
fn a_stop_before_the_outputs_are_listed_leaves_nothing() {
    let studio = Studio::new();
    let film = film(&studio, 1);
    let stop_at = Some(("checking output", StopReason::Released));
    let stage = Stage { stop_at, ..Stage::default() };
    let failure = ladder::run(&studio.job(&film, &json!({})), &stage).expect_err("it was stopped");
    assert_eq!(failure.cause, Cause::Released);
    assert_eq!(studio.outputs(), Vec::<String>::new());
}

#[test]
fn an_attempt_that_cannot_store_its_list_publishes_nothing() {
    let studio = Studio::new();
    let film = film(&studio, 1);
    let stage = Stage { no_checkpoints: true, ..Stage::default() };
    ladder::run(&studio.job(&film, &json!({})), &stage).expect_err("nothing can be stored");
    assert_eq!(studio.outputs(), Vec::<String>::new());
}

/// Runs once with two outputs and puts everything back as if the attempt had died after
/// `renamed` renames.
fn interrupted(studio: &Studio, renamed: usize) -> (Vec<u8>, Value) {
    let film = film(studio, 1);
    let stage = Stage::default();
    let two = json!({"renditions": ["240p", "160p"]});
    let result = ladder::run(&studio.job(&film, &two), &stage).expect("the film is good");
    let list = stage.checkpoint.lock().expect("no test panics with it").clone();
    let staging = studio.path("out/.shiftboss-7-1");
    std::fs::create_dir(&staging).expect("the output folder is there");
    for name in ["film-240p.mp4", "film-160p.mp4"].into_iter().skip(renamed) {
        std::fs::rename(studio.path("out").join(name), staging.join(name)).expect("it is there");
    }
    std::fs::remove_file(film).expect("it is there");
    (list.expect("the list was stored before the first rename"), result)
}

fn run_again(studio: &Studio, list: Vec<u8>) -> Result<Value, Failure> {
    let two = json!({"renditions": ["240p", "160p"]});
    let mut job = studio.job(&studio.path("film.mp4"), &two);
    (job.attempt, job.checkpoint) = (Attempt(2), Some(list));
    ladder::run(&job, &Stage::default())
}

#[test]
fn the_next_attempt_finishes_a_stored_list_without_the_film() {
    for renamed in 0..=2 {
        let studio = Studio::new();
        let (list, result) = interrupted(&studio, renamed);
        assert_eq!(run_again(&studio, list).expect("only renames were missing"), result);
        assert_eq!(studio.outputs(), ["film-160p.mp4", "film-240p.mp4"]);
    }
}

#[test]
fn a_list_whose_files_are_gone_or_foreign_is_not_believed() {
    let studio = Studio::new();
    let (list, _) = interrupted(&studio, 1);
    let staged = studio.path("out/.shiftboss-7-1/film-160p.mp4");
    let bytes = std::fs::read(&staged).expect("it is staged");
    // A copy under the same name and of the same size is another file.
    std::fs::write(studio.path("copy"), bytes).expect("the folder can be written");
    std::fs::rename(studio.path("copy"), &staged).expect("it is there");
    let failure = run_again(&studio, list).expect_err("the film is gone, so it is made anew");
    assert!(failure.message.contains("does not exist"), "{}", failure.message);
}

#[test]
fn a_stored_list_cannot_reach_out_of_its_staging_folder() {
    let studio = Studio::new();
    let (list, _) = interrupted(&studio, 0);
    let list = String::from_utf8(list).expect("it is JSON");
    for (from, to) in [("film-160p.mp4", "../film.mp4"), (".shiftboss-7-1", "..")] {
        let forged = list.replace(from, to).into_bytes();
        run_again(&studio, forged).expect_err("a forged list is not followed");
    }
}

#[test]
fn leftovers_of_earlier_attempts_are_removed_and_others_are_not() {
    let studio = Studio::new();
    let film = film(&studio, 1);
    for folder in [".shiftboss-7-1", ".shiftboss-7-12", ".shiftboss-70-1", ".shiftboss-7-x"] {
        std::fs::create_dir_all(studio.path("out").join(folder)).expect("it can be made");
    }
    std::fs::write(studio.path("out/.shiftboss-7-1/part"), "x").expect("it can be written");
    studio.run(&film, &json!({})).expect("the film is good");
    assert_eq!(studio.outputs(), [".shiftboss-7-x", ".shiftboss-70-1", "film-240p.mp4"]);
}

#[test]
fn an_earlier_output_is_replaced_and_a_folder_in_the_way_is_not() {
    let studio = Studio::new();
    let film = film(&studio, 1);
    std::fs::create_dir_all(studio.path("out")).expect("it can be made");
    let target = studio.path("out/film-240p.mp4");
    std::fs::write(&target, "old").expect("it can be written");
    studio.encode(&film, &json!({}));
    assert!(target.metadata().expect("it is there").len() > 1000);
    std::fs::remove_file(&target).expect("it is there");
    std::fs::create_dir(&target).expect("it can be made");
    let failure = studio.run(&film, &json!({})).expect_err("a folder is in the way");
    assert!(failure.permanent && failure.message.contains("in the way"), "{}", failure.message);
    assert_eq!(studio.outputs(), ["film-240p.mp4"]);
}

#[test]
fn an_output_folder_without_parent_is_refused() {
    let studio = Studio::new();
    let film = film(&studio, 1);
    let far = studio.path("a/b/c");
    let failure = studio.run(&film, &json!({"output_dir": far})).expect_err("no parent");
    assert!(failure.permanent, "{failure:?}");
}
