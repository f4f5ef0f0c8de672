//! The supervisors of a run: each has a post, dies on it often, and is replaced.

use super::drive::Scene;
use super::random::Random;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// Places at which a debug build of the supervisor dies when it is told to.
const PLACES: [&str; 10] = [
    "claimed",
    "finished",
    "stored",
    "commit",
    "spawned",
    "greeted",
    "launched",
    "checkpoint",
    "found",
    "adopted",
];

/// A storage fault explains that a start fails, this long after it.
const EXPLAINS: Duration = Duration::from_secs(60);

/// Whether supervisors are started with orders to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Orders {
    Some,
    None,
}

/// One supervisor's post.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) name: String,
    child: Option<Child>,
    start_at: Instant,
    failpoint: Option<String>,
    was_killed: bool,
    starts: u32,
}

impl Post {
    pub(super) fn new(name: &str, start_at: Instant) -> Self {
        let name = name.to_owned();
        // The first start dies while it makes the tables.
        let failpoint = Some("migration".to_owned());
        Self { name, child: None, start_at, failpoint, was_killed: false, starts: 0 }
    }

    /// Sends its supervisor a signal; false when there is none.
    pub(super) fn signal(&mut self, signal: Signal) -> bool {
        let Some(child) = &self.child else { return false };
        self.was_killed |= signal == Signal::SIGKILL;
        // Not waited for yet, so the number is its own.
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids are small"));
        kill(pid, signal).is_ok()
    }

    /// Sees whether its supervisor has ended, and starts the next when it is time.
    pub(super) fn tend(&mut self, scene: &Scene<'_>, random: &mut Random, orders: Orders) {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("it is ours"));
        if let Some(status) = ended {
            self.child = None;
            self.on_end(scene, status);
            let pause = if random.percent(60) { 0 } else { 3000 };
            self.start_at = Instant::now() + random.millis(0, pause);
            let is_ordered = random.percent(40) && orders == Orders::Some;
            let place = random.pick(&PLACES).copied().unwrap_or_default();
            // So many jobs have no idle second, in which it is reached more than once.
            let nth = if place == "checkpoint" { 1 } else { 1 + random.below(6) };
            self.failpoint = is_ordered.then(|| format!("{place}:{nth}"));
        }
        if self.child.is_none() && Instant::now() >= self.start_at {
            let mut env = vec![("INSTANCE_ID", self.name.as_str())];
            if let Some(failpoint) = &self.failpoint {
                env.push(("SHIFTBOSS_TEST_FAILPOINT", failpoint));
            }
            let log = format!("log-{}", self.name);
            self.child = Some(scene.stage.spawn_supervisor(&log, &env));
            self.was_killed = false;
            self.starts += 1;
            scene.tally("supervisor started");
        }
    }

    fn on_end(&self, scene: &Scene<'_>, status: ExitStatus) {
        match (status.signal(), status.code()) {
            (Some(9), _) if self.was_killed => {}
            (Some(9), _) if self.failpoint.is_some() => {
                let text = self.failpoint.as_deref().unwrap_or_default();
                scene.tally(&format!("failpoint {}", text.split(':').next().unwrap_or(text)));
            }
            (None, Some(0)) => {}
            // It was told to go before it could listen.
            (Some(12 | 15), _) => scene.tally("supervisor ended before it could listen"),
            // It could not use its database, and said so.
            (None, Some(1)) if scene.since_storage_fault() < EXPLAINS => {
                scene.tally("supervisor ended by a storage fault");
            }
            _ => scene.odd(format!("a supervisor of post {} ended: {status}", self.name)),
        }
    }

    /// Ends its supervisor as an operator would; true once it has ended.
    pub(super) fn has_stopped(&mut self, scene: &Scene<'_>) -> bool {
        let Some(child) = &mut self.child else { return true };
        match child.try_wait().expect("it is ours") {
            None => false,
            Some(status) => {
                self.child = None;
                if status.code() != Some(0) {
                    scene.odd(format!("the last supervisor of {} ended: {status}", self.name));
                }
                true
            }
        }
    }

    /// For the end of a run that failed.
    pub(super) fn give_up(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
