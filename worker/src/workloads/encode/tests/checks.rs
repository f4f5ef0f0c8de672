//! The check of outputs: what is damaged is found, and what is good is not thrown away.

use super::super::codec::X264;
use super::super::codec::trial::Chosen;
use super::super::film::probe;
use super::super::output::{decode, verify};
use super::super::payload;
use super::super::plan;
use super::super::progress::Block;
use super::super::tools::Tools;
use super::stage::{Stage, Studio, cut, ffmpeg};
use serde_json::{Value, json};
use shiftboss_protocol::job::Failure;
use std::path::{Path, PathBuf};

/// A film of nine seconds, and its only output.
struct Scene {
    studio: Studio,
    film: PathBuf,
    good: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let studio = Studio::new();
        let film = studio.path("film.mp4");
        let source = "-f lavfi -i testsrc2=s=320x180:r=25 -f lavfi -i sine=frequency=440 -t 9";
        let codecs = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac";
        ffmpeg(&format!("{source} {codecs}"), &film);
        studio.encode(&film, &json!({}));
        let good = studio.path("out/film-180p.mp4");
        Self { studio, film, good }
    }

    /// The check of a file as the output of this film; the sentence, empty when it is good.
    fn says(&self, output: &Path, check: &str) -> String {
        self.judge(output, check).err().map(|failure| failure.message).unwrap_or_default()
    }

    fn judge(&self, output: &Path, check: &str) -> Result<u64, Failure> {
        let stage = Stage::default();
        let host = (
            &stage as &dyn super::super::host::Host,
            &Tools::find(&stage.settings).expect("they are there"),
        );
        let job = self.studio.job(&self.film, &json!({"check": check}));
        let ladder = payload::read(&job, &stage.settings).expect("the payload is valid");
        let chosen = Chosen { encoder: X264, device: None };
        let film = probe::film(host.0, host.1, &self.film, None).expect("the film is good");
        let plan = plan::plan(&film.facts, &ladder, &chosen).expect("the film can be planned");
        let bytes = output.metadata().expect("it is there").len();
        let made = verify::open(host.0, host.1, output, bytes, (&plan.rungs[0], &plan))?;
        let last = Block { is_last: true, ..Block::default() };
        verify::judge(std::slice::from_ref(&made), (&film, &plan), &last)?;
        decode::decode(host, output, &made, (ladder.check, 0, 1))
    }

    /// The good output, made again by FFmpeg with these arguments.
    fn remade(&self, arguments: &str) -> PathBuf {
        let path = self.studio.path("remade.mp4");
        ffmpeg(&format!("-i {} {arguments}", self.good.display()), &path);
        path
    }

    fn spoiled(&self, change: impl Fn(&mut Vec<u8>)) -> PathBuf {
        let path = self.studio.path("spoiled.mp4");
        let mut bytes = std::fs::read(&self.good).expect("it was made");
        change(&mut bytes);
        std::fs::write(&path, bytes).expect("the folder can be written");
        path
    }
}

#[test]
fn a_good_output_is_good_by_both_checks() {
    let scene = Scene::new();
    assert_eq!(scene.says(&scene.good, "quick"), "");
    assert_eq!(scene.says(&scene.good, "full"), "");
}

#[test]
fn the_findings_are_in_the_result() {
    let scene = Scene::new();
    for (check, decoded) in [("quick", 75), ("full", 225)] {
        let result = scene.studio.encode(&scene.film, &json!({"check": check}));
        let found = &result["outputs"][0]["check"];
        assert_eq!((&found["kind"], &found["decoded_frames"]), (&json!(check), &json!(decoded)));
        assert_eq!((&found["keyframes"], &found["video_ms"]), (&json!(5), &json!([0, 9000])));
        let ends = |value: &Value| value[0][1].as_u64().expect("it is a number");
        assert!(ends(&found["audio_ms"]).abs_diff(9000) < 100, "{found}");
    }
}

#[test]
fn bytes_that_were_flipped_are_found_at_the_ends_and_with_full_in_the_middle() {
    let scene = Scene::new();
    let flipped = |percent: usize| {
        scene.spoiled(|bytes| {
            let from = bytes.len() * percent / 100;
            bytes[from..from + 3000].iter_mut().for_each(|byte| *byte ^= 0x5A);
        })
    };
    // Between two keyframes: FFmpeg 9 does not take a damaged one for a keyframe.
    let said = scene.says(&flipped(56), "full");
    assert!(said.contains("decoders reported") || said.contains("could be decoded"), "{said}");
    // Nobody looks there in a quick check.
    assert_eq!(scene.says(&flipped(56), "quick"), "");
    for percent in [10, 97] {
        let said = scene.says(&flipped(percent), "quick");
        assert!(said.contains("failed its check"), "{percent}: {said}");
    }
}

#[test]
fn a_cut_output_is_found() {
    let scene = Scene::new();
    for percent in [30, 70, 99] {
        let cut = scene.spoiled(|bytes| bytes.truncate(bytes.len() * percent / 100));
        let said = scene.says(&cut, "quick");
        assert!(!said.is_empty(), "{percent}");
    }
    let short = scene.remade("-t 7 -c copy");
    let said = scene.says(&short, "quick");
    assert!(said.contains("frames could not be decoded"), "{said}");
}

#[test]
fn lost_and_wrong_pictures_and_streams_are_found() {
    let scene = Scene::new();
    let fast = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 50 -bf 0";
    for (arguments, words) in [
        // Frames from the middle are missing, and their times with them.
        (format!("-vf select='not(between(n,50,99))' -fps_mode vfr {fast} -c:a copy"), "frames"),
        (format!("-vf scale=160:90 {fast} -c:a copy"), "320x180 was planned"),
        ("-c:v mpeg4 -c:a copy".to_owned(), "320x180 was planned"),
        (format!("{fast} -pix_fmt yuv444p -c:a copy"), "was planned"),
        ("-c copy -an".to_owned(), "video, audio were planned"),
        (format!("{fast} -c:a mp3"), "(\"mp3\", 1)"),
        ("-c:v copy -c:a aac -ac 2".to_owned(), "(\"aac\", 2)"),
        // One keyframe at the begin alone.
        ("-c:v libx264 -preset ultrafast -g 999 -c:a copy".to_owned(), "no keyframe up to"),
        ("-c:v copy -af atrim=end=5 -c:a aac".to_owned(), "its sound ends"),
    ] {
        let said = scene.says(&scene.remade(&arguments), "quick");
        assert!(said.contains(words), "{arguments}: {said}");
    }
}

#[test]
fn sound_that_was_shifted_is_found() {
    let scene = Scene::new();
    let film = scene.good.display();
    for (seconds, words) in [("0.7", "later"), ("-0.3", "earlier")] {
        let maps = "-map 0:v -map 1:a -c copy";
        let shifted = scene.remade(&format!("-itsoffset {seconds} -i {film} {maps}"));
        let said = scene.says(&shifted, "quick");
        assert!(said.contains("its sound") && said.contains(words), "{seconds}: {said}");
    }
    let kept = scene.remade(&format!("-itsoffset 0.02 -i {film} -map 0:v -map 1:a -c copy"));
    assert_eq!(scene.says(&kept, "quick"), "");
}

#[test]
fn an_output_that_a_full_disk_has_cut_can_be_made_again() {
    let scene = Scene::new();
    let short = scene.studio.path("short.mp4");
    // Within its index, and within its pictures.
    for percent in [1, 60] {
        cut(&scene.good, percent, &short);
        let failure = scene.judge(&short, "quick").expect_err("it is cut");
        assert!(!failure.permanent, "{failure:?}");
        assert!(failure.message.starts_with("output 180p failed its check: "), "{failure:?}");
    }
}
