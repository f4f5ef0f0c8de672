//! Plays a run: producers, faults, a quiet phase at the end, and the checker's verdict.

use super::check::{self, Evidence};
use super::evidence;
use super::faults::{Stopped, strike};
use super::journal::Journals;
use super::mix::Props;
use super::posts::{Orders, Post};
use super::produce;
use super::random::Random;
use super::victims;
use crate::{Disk, Stage, built, is_root};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// How long it may take until another job ends, once the faults have stopped: longer than any job's
/// timeout. How many are left then says how fast the machine is, and nothing about the product.
const SETTLES_WITHIN: Duration = Duration::from_secs(150);
/// How long a drain of idle supervisors may take.
const STOPS_WITHIN: Duration = Duration::from_secs(60);
/// The small file system that database and scratch lie on, MiB.
const DISK_MIB: u32 = 96;

/// What to play.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides everything that can be decided.
    pub seed: u64,
    /// How long faults go on.
    pub length: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// How often what was done, by name.
    pub counts: BTreeMap<String, u64>,
    /// What the checker found wrong; empty is good.
    pub violations: Vec<String>,
}

/// What all threads of a run share.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) stage: &'a Stage,
    pub(super) disk: Option<Disk>,
    pub(super) props: Props,
    /// What the names of this run's instances begin with.
    pub(super) mark: String,
    /// The instances.
    pub(super) names: Vec<String>,
    pub(super) latest: AtomicI64,
    pub(super) is_disk_full: AtomicBool,
    is_noisy: AtomicBool,
    storage_fault: Mutex<Option<Instant>>,
    counts: Mutex<BTreeMap<String, u64>>,
    odd: Mutex<Vec<String>>,
}

impl Scene<'_> {
    pub(super) fn is_noisy(&self) -> bool {
        self.is_noisy.load(Ordering::Relaxed)
    }

    pub(super) fn tally(&self, what: &str) {
        let mut counts = self.counts.lock().expect("nothing panics while it counts");
        *counts.entry(what.to_owned()).or_default() += 1;
    }

    /// Something that no fault explains.
    pub(super) fn odd(&self, what: String) {
        self.odd.lock().expect("nothing panics while it notes").push(what);
    }

    pub(super) fn note_storage_fault(&self) {
        *self.storage_fault.lock().expect("a time is only copied") = Some(Instant::now());
    }

    pub(super) fn since_storage_fault(&self) -> Duration {
        let last = *self.storage_fault.lock().expect("a time is only copied");
        last.map_or(Duration::MAX, |at| at.elapsed())
    }
}

/// Plays a run to its end and judges it.
///
/// # Panics
/// When the stage cannot be set up.
#[must_use]
pub fn run(plan: &Plan) -> Report {
    let mut random = Random::new(plan.seed);
    let mark = format!("chaos{}x", std::process::id());
    let stage = Stage::dark(&configuration(&mut random));
    let disk = evidence::mount_disk(&stage, is_root(), DISK_MIB);
    let props = evidence::props(&stage);
    let scene = Scene {
        stage: &stage,
        disk,
        props,
        names: ["a", "b"].map(|name| format!("{mark}{name}")).to_vec(),
        mark,
        latest: AtomicI64::new(0),
        is_disk_full: AtomicBool::new(false),
        is_noisy: AtomicBool::new(true),
        storage_fault: Mutex::new(None),
        counts: Mutex::new(BTreeMap::new()),
        odd: Mutex::new(Vec::new()),
    };
    let now = Instant::now();
    let mut posts: Vec<Post> = scene.names.iter().map(|name| Post::new(name, now)).collect();
    play(&scene, &mut posts, &mut random, plan.length);
    let stuck = settle(&scene, &mut posts, &mut random);
    stop(&scene, &mut posts);
    judge(&scene, stuck)
}

/// TOML of the stage: everything is tried again and again, and soon.
fn configuration(random: &mut Random) -> String {
    let grace = ["300ms", "3s", "20s"][usize::try_from(random.below(3)).unwrap_or(0)];
    let common = format!(
        "max_attempts = 100000\npoison_after = 100000\norphan_grace = \"{grace}\"\n\
         retry = {{ base = \"50ms\", max = \"500ms\", factor = 2.0, jitter = 0.2 }}\n\
         restart = {{ burst = 1000, within = \"60s\", base = \"20ms\", max = \"500ms\", \
         healthy_after = \"10s\" }}\ngrace = {{ drain = \"1s\", term = \"300ms\" }}\n"
    );
    let fragile = common.replacen("poison_after = 100000", "poison_after = 3", 1);
    let crowd = built("crowd-worker");
    format!(
        "[poll]\nidle_min = \"1s\"\nidle_max = \"3s\"\nstagger_max = \"0s\"\n\
         [types.command]\nworkers = {{ max = 4 }}\ntimeout = \"20s\"\n{common}\
         [types.encode]\nworkers = {{ max = 1 }}\ntimeout = \"90s\"\n{common}\
         [types.noop]\n{common}\
         [types.crowd]\nworkload = \"crowd\"\nworker = {crowd:?}\nconcurrency = 8\n\
         timeout = \"20s\"\n{common}\
         [types.fragile]\nworkload = \"command\"\nworkers = {{ max = 1 }}\ntimeout = \"20s\"\n\
         {fragile}"
    )
}

fn play(scene: &Scene<'_>, posts: &mut [Post], random: &mut Random, length: Duration) {
    let end = Instant::now() + length;
    let mut stopped = Stopped::default();
    let mut next = Instant::now() + random.millis(1000, 2000);
    std::thread::scope(|threads| {
        threads.spawn(|| produce::by_sql(scene, random.branch(1)));
        threads.spawn(|| produce::by_command(scene, random.branch(2)));
        let mut random = random.branch(3);
        while Instant::now() < end {
            let now = Instant::now();
            for post in &mut *posts {
                post.tend(scene, &mut random, Orders::Some);
            }
            victims::grant(&scene.mark, &scene.props.journals);
            stopped.release(posts, now);
            if now >= next {
                strike(scene, threads, &mut random, (posts, &mut stopped));
                next = now + random.millis(30, 700);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        scene.is_noisy.store(false, Ordering::Relaxed);
        // A client that waits for a stopped supervisor must get its answer.
        stopped.release_all(posts, &scene.mark);
    });
}

/// No more faults: waits until every job has ended; says what has not.
fn settle(scene: &Scene<'_>, posts: &mut [Post], random: &mut Random) -> bool {
    Stopped::default().release_all(posts, &scene.mark);
    let mut deadline = Instant::now() + SETTLES_WITHIN;
    let mut fewest = i64::MAX;
    loop {
        for post in &mut *posts {
            post.tend(scene, random, Orders::None);
        }
        victims::grant(&scene.mark, &scene.props.journals);
        let left = evidence::unfinished(scene.stage);
        if left == Some(0) && evidence::is_clean(scene.stage) {
            return false;
        }
        if let Some(left) = left.filter(|left| *left < fewest) {
            fewest = left;
            deadline = Instant::now() + SETTLES_WITHIN;
        }
        if Instant::now() > deadline {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn stop(scene: &Scene<'_>, posts: &mut [Post]) {
    let deadline = Instant::now() + STOPS_WITHIN;
    for post in &mut *posts {
        post.signal(Signal::SIGTERM);
    }
    while !posts.iter_mut().all(|post| post.has_stopped(scene)) {
        if Instant::now() > deadline {
            scene.odd("a supervisor does not stop".to_owned());
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    posts.iter_mut().for_each(Post::give_up);
}

fn judge(scene: &Scene<'_>, stuck: bool) -> Report {
    let mut counts = scene.counts.lock().expect("nothing panics while it counts").clone();
    let left = victims::describe(&scene.mark);
    let evidence = Evidence {
        database: scene.stage.path("jobs.db"),
        journals: Journals::at(scene.props.journals.folder()),
        empty: evidence::empty_in_the_end(scene.stage, &scene.names),
        left,
    };
    let mut violations = check::check(&evidence);
    violations.append(&mut scene.odd.lock().expect("nothing panics while it notes"));
    violations.extend(evidence::panics(scene.stage, &scene.names));
    counts.extend(check::count(&evidence));
    if stuck {
        violations.push(format!("no job has ended for {} s", SETTLES_WITHIN.as_secs()));
    }
    if !violations.is_empty() {
        let kept = evidence::keep(scene.stage);
        violations.push(format!("the run's files are kept in {}", kept.display()));
    }
    Report { counts, violations }
}
