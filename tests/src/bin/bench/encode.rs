//! The program of an encode under the product, beside the very same command line without it,
//! in turn; and what probing and checking add.

use crate::figures::{Spread, head, row, say};
use crate::film::{self, Film};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::{Value, json};
use shiftboss_tests::{Stage, wait_for};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 6;
/// As the launcher has it.
pub(crate) const NICE: &str = "10";
/// Of the whole session, where the kernel schedules sessions as groups.
const YIELD: &str = "echo 10 2>/dev/null >/proc/self/autogroup; exec \"$@\"";
/// A film of minutes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(600);

const FILM: Film = Film {
    name: "film.mp4",
    size: "1280x720",
    seconds: "10",
    codec: &["-c:v", "libx264", "-preset", "ultrafast"],
};

/// A command line that the product ran, program first.
#[derive(Clone, Debug)]
pub(crate) struct Argv(Vec<OsString>);

/// How long something took, seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

/// What a job that ended well says of itself, seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Of ffmpeg, from its start to its exit.
    pub(crate) program: Cost,
    pub(crate) probe: f64,
    pub(crate) verify: f64,
    /// From the INSERT to the committed outcome.
    pub(crate) whole: f64,
}

pub(crate) fn encode() {
    if !film::is_possible() {
        return;
    }
    let stage = Stage::new("");
    let film = FILM.make(&stage);
    say(&format!("Film: {}; renditions 720p, 480p, 360p.\n", FILM.describe()));
    compare(&stage, &film, "made");
    if let Some(film) = film::brought() {
        let name = film.file_name().unwrap_or_default().to_string_lossy().into_owned();
        say(&format!("\nFilm: {name}; the same renditions.\n"));
        compare(&stage, &film, "brought");
    }
}

fn compare(stage: &Stage, film: &Path, folder: &str) {
    let renditions = ["720p", "480p", "360p"];
    let order = (folder, &renditions[..], "veryfast");
    // Not measured: it warms the page cache, and shows the command line.
    let (_, argv) = run_shown(stage, film, order);
    let argv = argv.elsewhere(&stage.path("bare"));
    let (mut product, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // The other one first each time: whatever drifts or warms up favours none.
        if round % 2 == 0 {
            bare.push(argv.run());
        }
        product.push(run(stage, film, order));
        if round % 2 == 1 {
            bare.push(argv.run());
        }
    }
    let ours: Vec<Cost> = product.iter().map(|told| told.program).collect();
    head(&["seconds, min / median / max", "n", "ffmpeg under the product", "bare ffmpeg", "ratio"]);
    ratio_row("start to exit (target: ratio 1.02)", (&ours, &bare), |cost| cost.wall);
    ratio_row("CPU, user and system", (&ours, &bare), |cost| cost.cpu);
    let median = |part: fn(&Told) -> f64| Spread::of(product.iter().map(part)).range(3);
    say(&format!(
        "\nbeside it, seconds: probing {}, checking {}, INSERT to committed outcome {}",
        median(|told| told.probe),
        median(|told| told.verify),
        median(|told| told.whole)
    ));
}

/// The ratio is that of the medians; then the spread of the ratios of neighbours in time.
fn ratio_row(what: &str, (ours, bare): (&[Cost], &[Cost]), part: fn(&Cost) -> f64) {
    let pairs = Spread::of(ours.iter().zip(bare).map(|(one, other)| part(one) / part(other)));
    let ours = Spread::of(ours.iter().map(part));
    let bare = Spread::of(bare.iter().map(part));
    let ratio = ours.median() / bare.median();
    row(&[
        what.to_owned(),
        ours.count().to_string(),
        ours.range(3),
        bare.range(3),
        format!("**{ratio:.3}** (pairs {})", pairs.range(3)),
    ]);
}

/// Folder of the outputs, renditions, preset.
pub(crate) type Order<'a> = (&'a str, &'a [&'a str], &'a str);

pub(crate) fn submit(stage: &Stage, film: &Path, (folder, renditions, preset): Order<'_>) -> i64 {
    submit_payload(stage, film, folder, &json!({"renditions": renditions, "preset": preset}))
}

/// The same with any fields of the payload.
pub(crate) fn submit_payload(stage: &Stage, film: &Path, folder: &str, more: &Value) -> i64 {
    let mut payload = json!({"op": "ladder", "input": film, "output_dir": stage.path(folder)});
    let more = more.as_object().expect("benches give an object").clone();
    payload.as_object_mut().expect("it is an object").extend(more);
    stage.insert("encode", &payload.to_string())
}

/// Runs a job to its end.
pub(crate) fn run(stage: &Stage, film: &Path, order: Order<'_>) -> Told {
    let start = Instant::now();
    wait_told(stage, submit(stage, film, order), start)
}

/// The same, and the command line of its ffmpeg.
pub(crate) fn run_shown(stage: &Stage, film: &Path, order: Order<'_>) -> (Told, Argv) {
    let start = Instant::now();
    let job = submit(stage, film, order);
    let argv = Argv::of_job(stage, job);
    (wait_told(stage, job, start), argv)
}

pub(crate) fn wait_told(stage: &Stage, job: i64, start: Instant) -> Told {
    let database = stage.database();
    let sql = "SELECT state, result, last_error FROM jobs WHERE id = ?1";
    let mut statement = database.prepare(sql).expect("the table is there");
    loop {
        std::thread::sleep(Duration::from_millis(5));
        let row = statement.query_row([job], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<String>>(2)?))
        });
        let (state, result, error): (String, Option<String>, _) = row.expect("it is there");
        if state == "succeeded" {
            let whole = start.elapsed().as_secs_f64();
            let result = serde_json::from_str(&result.unwrap_or_default()).expect("JSON");
            return told(&result, whole);
        }
        let goes_on = state == "available" || state == "running";
        assert!(goes_on && start.elapsed() < PATIENCE, "job {job} is {state}: {error:?}");
    }
}

fn told(result: &Value, whole: f64) -> Told {
    let seconds = |name: &str| {
        let ms = result[name].as_f64();
        ms.unwrap_or_else(|| panic!("{name} is missing in {result}")) / 1000.0
    };
    let program = Cost { wall: seconds("ffmpeg_ms"), cpu: seconds("ffmpeg_cpu_ms") };
    Told { program, probe: seconds("probe_ms"), verify: seconds("verify_ms"), whole }
}

/// The command line of a job's ffmpeg, while it encodes.
pub(crate) fn ffmpeg_of(stage: &Stage, job: i64) -> Option<Argv> {
    let argv = |pid: i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = line.strip_suffix(&[0])?.split(|byte| *byte == 0);
        Some(words.map(|word| OsString::from_vec(word.to_vec())).collect::<Vec<_>>())
    };
    let is_encode = |argv: &Vec<OsString>| argv.iter().any(|word| word == "-filter_complex");
    stage.programs_of(job).into_iter().filter_map(argv).find(is_encode).map(Argv)
}

impl Argv {
    /// That of a job's ffmpeg, which is waited for.
    pub(crate) fn of_job(stage: &Stage, job: i64) -> Self {
        wait_for("ffmpeg encodes", || ffmpeg_of(stage, job))
    }

    /// The same with its outputs in another folder, which is made.
    pub(crate) fn elsewhere(self, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("the folder is ours");
        let mut moved = 0;
        let words = self.0.into_iter().map(|word| {
            let path = Path::new(&word);
            let staging = path.parent().and_then(Path::file_name).unwrap_or_default();
            if !staging.to_string_lossy().starts_with(".shiftboss-") {
                return word;
            }
            moved += 1;
            folder.join(path.file_name().unwrap_or_default()).into_os_string()
        });
        let words = words.collect();
        assert!(moved > 0, "no output was recognised in {words:?}");
        Self(words)
    }

    /// Runs it as the product does: in a session of its own that yields as much, at the same
    /// nice level, with an open standard input.
    pub(crate) fn run(&self) -> Cost {
        Self::run_at_once(std::slice::from_ref(self))
    }

    /// Runs several at the same time, until the last has ended.
    pub(crate) fn run_at_once(all: &[Self]) -> Cost {
        let before = cpu_of_children();
        let start = Instant::now();
        let children = all.iter().map(|argv| {
            let mut command = Command::new("setsid");
            command.args(["nice", "-n", NICE, "sh", "-c", YIELD, "sh"]).args(&argv.0);
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("it can be started")
        });
        for mut child in children.collect::<Vec<_>>() {
            let stdin = child.stdin.take();
            let status = child.wait().expect("it is ours");
            drop(stdin);
            assert!(status.success(), "bare ffmpeg: {status}, {all:?}");
        }
        Cost { wall: start.elapsed().as_secs_f64(), cpu: cpu_of_children() - before }
    }
}

/// CPU seconds of all children that were waited for; the caller has no others meanwhile.
fn cpu_of_children() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("Linux has it");
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
}
