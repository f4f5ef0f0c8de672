//! `media`: encodes beside what people would run instead: bare ffmpeg, HandBrakeCLI, ab-av1, one
//! encode after another; `peers` is a part of it. `chunks`: what they cost, in time, size and quality.
//!
//! [`SHORT`] makes all films a sixth as long and leaves the first part out, to try the bench.

use crate::encode::{Argv, Cost, submit_payload, wait_told};
use crate::figures::{Spread, head, row, say};
use crate::film::{self, Film};
use crate::ladder;
use crate::peers::{self, Peer};
use serde_json::{Value, json};
use shiftboss_tests::Stage;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const SHORT: &str = "SHIFTBOSS_BENCH_SHORT";

/// Noise costs an encoder what film grain does.
const CODEC: &[&str] = &["-c:v", "libx264", "-preset", "superfast", "-crf", "18"];

pub(crate) fn media() {
    if !film::is_possible() {
        return;
    }
    if !is_short() {
        say("### One decode for three renditions, beside three runs\n");
        ladder::decode_heavy(1);
    }
    peers();
    at_once(&Stage::new(TWO));
}

const TWO: &str = "[types.encode]\nworkers = { max = 2 }";

fn is_short() -> bool {
    std::env::var_os(SHORT).is_some()
}

/// Seconds of a film, or a sixth of them.
fn seconds(long: u32) -> &'static str {
    match (long, is_short()) {
        (90, false) => "90",
        (60, false) => "60",
        (60 | 90, true) => "10",
        (_, false) => "18",
        (_, true) => "3",
    }
}

fn film(stage: &Stage, name: &'static str, size: &'static str, long: u32) -> PathBuf {
    let film = Film { name, size, seconds: seconds(long), codec: CODEC };
    say(&format!("Film: {}.\n", film.describe()));
    film.make(stage)
}

/// What one way of encoding gave.
struct Way {
    what: &'static str,
    costs: Vec<Cost>,
    /// Bytes.
    size: u64,
    ssim: String,
    psnr: String,
    vmaf: String,
}

impl Way {
    fn new(what: &'static str, costs: Vec<Cost>, (made, source): (&Path, &Path)) -> Self {
        let size = made.metadata().expect("it was made").len();
        let of = |filter: &str, key: &str| quality(made, source, filter, key);
        Self {
            what,
            costs,
            size,
            ssim: of("ssim", "All:"),
            psnr: of("psnr", "average:"),
            vmaf: if has_filter("libvmaf") {
                of("libvmaf=n_threads=2", "VMAF score:")
            } else {
                "-".to_owned()
            },
        }
    }
}

/// Rows of ways, each beside the first.
fn compare(ways: &[Way]) {
    head(&["", "wall, s", "times the first", "bytes", "SSIM", "PSNR, dB", "VMAF"]);
    let wall = |way: &Way| Spread::of(way.costs.iter().map(|cost| cost.wall));
    let first = ways.first().map_or(1.0, |way| wall(way).median());
    for way in ways {
        let walls = wall(way);
        let times = format!("**{:.3}**", walls.median() / first);
        let size = way.size.to_string();
        let range = walls.range(2);
        row(&[way.what, &range, &times, &size, &way.ssim, &way.psnr, &way.vmaf]);
    }
    say("");
}

/// Runs a job; gives what it cost from INSERT to outcome, and in ffmpeg alone.
fn job(stage: &Stage, film: &Path, folder: &str, more: &Value) -> (Cost, Cost) {
    let start = Instant::now();
    let told = wait_told(stage, submit_payload(stage, film, folder, more), start);
    (Cost { wall: told.whole, cpu: told.program.cpu }, told.program)
}

fn output(stage: &Stage, film: &Path, (folder, rendition): (&str, &str)) -> PathBuf {
    let name = film.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    stage.path(folder).join(format!("{name}-{rendition}.mp4"))
}

pub(crate) fn chunks() {
    if !film::is_possible() {
        return;
    }
    let stage = &Stage::new(TWO);
    let film = film(stage, "chunks.mp4", "1280x720", 90);
    let rendition = "720p";
    // The film must last more than four chunks.
    let chunk = if is_short() { 2 } else { 20 };
    let make = |folder: &str, chunk_seconds: u32| {
        let more = json!({"renditions": [rendition], "chunk_seconds": chunk_seconds});
        job(stage, &film, folder, &more).0
    };
    // In turn, the other one first in the second round.
    let (whole_one, chunks_one) = (make("whole", 0), make("chunks", chunk));
    let (chunks_two, whole_two) = (make("chunks", chunk), make("whole", 0));
    let made = |folder: &str| output(stage, &film, (folder, rendition));
    compare(&[
        Way::new("in one go", vec![whole_one, whole_two], (&made("whole"), &film)),
        Way::new("in chunks", vec![chunks_one, chunks_two], (&made("chunks"), &film)),
    ]);
    say(&format!("Chunks of {chunk} s; INSERT to committed outcome, checks among it."));
}

/// Beside bare ffmpeg and what people would run instead.
pub(crate) fn peers() {
    if !film::is_possible() {
        return;
    }
    let stage = &Stage::new(TWO);
    say("\n### A film of full HD: supervised, bare, by others\n");
    let minute = film(stage, "minute.mp4", "1920x1080", 60);
    beside(stage, &minute, &json!({"renditions": ["1080p"]}), peers::H264);
    let listed = Command::new("ffmpeg").args(["-v", "error", "-encoders"]).output();
    let listed = listed.expect("ffmpeg can be started").stdout;
    if !String::from_utf8_lossy(&listed).contains(" libsvtav1 ") {
        return say("ffmpeg has no libsvtav1: AV1 is left out.");
    }
    say("\n### The same in AV1, by libsvtav1\n");
    let short = film(stage, "short.mp4", "1280x720", 18);
    let rendition = json!({"name": "720p", "maxrate": "6000k", "bufsize": "12000k"});
    let more = json!({"renditions": [rendition], "codecs": ["libsvtav1"], "crf": 35});
    beside(stage, &short, &more, peers::AV1);
}

fn beside(stage: &Stage, film: &Path, more: &Value, peers: &[Peer]) {
    let stem = film.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let (bare, folder) = (stage.path(&format!("bare-{stem}")), stage.path(&stem));
    let id = submit_payload(stage, film, &stem, more);
    let (start, argv) = (Instant::now(), Argv::of_job(stage, id).elsewhere(&bare));
    // The first run warms the page cache, and shows the command line.
    wait_told(stage, id, start);
    let (bare_one, (whole_one, program_one)) = (argv.run(), job(stage, film, &stem, more));
    let ((whole_two, program_two), bare_two) = (job(stage, film, &stem, more), argv.run());
    let only = |folder: &Path| {
        let file = std::fs::read_dir(folder).expect("it was made").flatten().next();
        file.expect("ffmpeg made it").path()
    };
    let (bare_file, made) = (only(&bare), only(&folder));
    let mut ways = vec![
        Way::new("bare ffmpeg, the same arguments", vec![bare_one, bare_two], (&bare_file, film)),
        Way::new("its ffmpeg, supervised", vec![program_one, program_two], (&made, film)),
        Way::new("INSERT to committed outcome", vec![whole_one, whole_two], (&made, film)),
    ];
    for peer in peers {
        let other = stage.path(&format!("{}-{stem}.mp4", peer.name));
        // In turn with nothing, so at least twice.
        let costs: Option<Vec<Cost>> = (0..2).map(|_| peer.run(film, &other)).collect();
        if let Some(costs) = costs {
            ways.push(Way::new(peer.name, costs, (&other, film)));
        }
    }
    compare(&ways);
    say("Goal: the second within 1.02 of the first, with the same quality.");
}

fn at_once(stage: &Stage) {
    say("\n### Two encodes at once, beside one after the other\n");
    let film = film(stage, "pair.mp4", "1280x720", 18);
    let more = json!({"renditions": ["720p"]});
    let submit = |folder: &str| submit_payload(stage, &film, folder, &more);
    let together = || {
        let start = Instant::now();
        let jobs = [submit("one"), submit("two")];
        for id in jobs {
            wait_told(stage, id, start);
        }
        start.elapsed().as_secs_f64()
    };
    let in_turn = || {
        let start = Instant::now();
        for folder in ["one", "two"] {
            wait_told(stage, submit(folder), start);
        }
        start.elapsed().as_secs_f64()
    };
    // Both workers are there before anything is measured.
    together();
    let (mut at_once, mut turns) = (Vec::new(), Vec::new());
    for round in 0..3 {
        if round % 2 == 0 {
            turns.push(in_turn());
        }
        at_once.push(together());
        if round % 2 == 1 {
            turns.push(in_turn());
        }
    }
    let (at_once, turns) = (Spread::of(at_once), Spread::of(turns));
    head(&["seconds for both, min / median / max of 3", "wall", "times in turn"]);
    row(&["one after the other".to_owned(), turns.range(2), "1".to_owned()]);
    let times = format!("**{:.3}** (goal: 1.05)", at_once.median() / turns.median());
    row(&["at once".to_owned(), at_once.range(2), times]);
}

fn has_filter(name: &str) -> bool {
    let listed = Command::new("ffmpeg").args(["-v", "error", "-filters"]).output();
    let listed = listed.expect("ffmpeg can be started").stdout;
    String::from_utf8_lossy(&listed).split_whitespace().any(|word| word == name)
}

/// What a filter that compares says of a film beside its source.
fn quality(made: &Path, source: &Path, filter: &str, key: &str) -> String {
    let one = "settb=AVTB,setpts=N/30/TB";
    let graph = format!("[0:v]{one}[a];[1:v]{one}[b];[a][b]{filter}");
    let said = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-i"])
        .arg(made)
        .arg("-i")
        .arg(source)
        .args(["-filter_complex", &graph, "-f", "null", "-"])
        .output()
        .expect("ffmpeg can be started");
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    let value = text.rsplit_once(key).map(|(_, rest)| rest.trim_start());
    let value = value.and_then(|rest| rest.split_whitespace().next());
    value.unwrap_or_else(|| panic!("{filter} says nothing: {text}")).to_owned()
}
