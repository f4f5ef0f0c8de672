//! The faults: one is chosen, a victim is chosen, and it is struck.

use super::drive::Scene;
use super::journal::append;
use super::posts::Post;
use super::random::Random;
use super::victims::{self, Role, Victim};
use nix::sys::signal::Signal as Posix;
use rusqlite::TransactionBehavior;
use rustix::process::Signal;
use std::sync::atomic::Ordering;
use std::thread::Scope;
use std::time::{Duration, Instant};

/// Processes and supervisors that were stopped, and when they go on; `None`: at the end.
#[derive(Debug, Default)]
pub(super) struct Stopped {
    victims: Vec<(Option<Instant>, Victim)>,
    posts: Vec<(Instant, usize)>,
}

impl Stopped {
    /// Lets go on whose time has come.
    pub(super) fn release(&mut self, posts: &mut [Post], now: Instant) {
        for (_, one) in self.victims.extract_if(.., |(at, _)| at.is_some_and(|at| at <= now)) {
            one.signal(Signal::CONT);
        }
        for (_, post) in self.posts.extract_if(.., |(at, _)| *at <= now) {
            posts[post].signal(Posix::SIGCONT);
        }
    }

    /// Lets everything go on.
    pub(super) fn release_all(&mut self, posts: &mut [Post], mark: &str) {
        self.victims.clear();
        self.posts.clear();
        for post in posts {
            post.signal(Posix::SIGCONT);
        }
        for one in victims::find(mark) {
            one.signal(Signal::CONT);
        }
    }
}

/// Strikes once.
pub(super) fn strike<'scope>(
    scene: &'scope Scene<'_>,
    threads: &'scope Scope<'scope, '_>,
    random: &mut Random,
    (posts, stopped): (&mut [Post], &mut Stopped),
) {
    match random.below(100) {
        0..14 => kill(scene, random, Role::Worker),
        14..22 => kill(scene, random, Role::Launcher),
        22..32 => kill(scene, random, Role::Program),
        32..38 => stop(scene, random, Role::Worker, stopped),
        38..42 => stop(scene, random, Role::Launcher, stopped),
        42..47 => stop(scene, random, Role::Program, stopped),
        47..65 => signal_supervisor(scene, random, posts, Posix::SIGKILL),
        65..68 => signal_supervisor(scene, random, posts, Posix::SIGUSR2),
        68..70 => signal_supervisor(scene, random, posts, Posix::SIGTERM),
        70..76 => stop_supervisor(scene, random, posts, stopped),
        76..79 => {
            let name = random.pick(&scene.names).cloned().unwrap_or_default();
            scene.tally("upgrade asked");
            threads.spawn(move || {
                let mut command = scene.stage.shiftboss(&["upgrade"]);
                crate::output_of(command.env("INSTANCE_ID", name))
            });
        }
        79..86 => {
            let pause = random.millis(100, 3000);
            threads.spawn(move || lock_database(scene, pause));
        }
        86..91 => {
            let pause = random.millis(300, 3000);
            threads.spawn(move || fill_disk(scene, pause));
        }
        _ => {
            let latest = scene.latest.load(Ordering::Relaxed);
            let job = latest - i64::try_from(random.below(20)).unwrap_or(0);
            let by_sql = random.percent(50);
            if job > 0 {
                threads.spawn(move || cancel(scene, job, by_sql));
            }
        }
    }
}

fn choose(scene: &Scene<'_>, random: &mut Random, role: Role) -> Option<Victim> {
    let mut found = victims::find(&scene.mark);
    found.retain(|one| one.role == role);
    let bound = u64::try_from(found.len()).ok().filter(|bound| *bound > 0)?;
    Some(found.swap_remove(usize::try_from(random.below(bound)).ok()?))
}

fn kill(scene: &Scene<'_>, random: &mut Random, role: Role) {
    if let Some(victim) = choose(scene, random, role) {
        victim.signal(Signal::KILL);
        scene.tally(&format!("{role:?} killed"));
    }
}

fn stop(scene: &Scene<'_>, random: &mut Random, role: Role, stopped: &mut Stopped) {
    let pause = random.millis(100, 5000);
    let at = (!random.percent(15)).then(|| Instant::now() + pause);
    if let Some(victim) = choose(scene, random, role) {
        victim.signal(Signal::STOP);
        scene.tally(&format!("{role:?} stopped"));
        stopped.victims.push((at, victim));
    }
}

fn signal_supervisor(scene: &Scene<'_>, random: &mut Random, posts: &mut [Post], signal: Posix) {
    let bound = u64::try_from(posts.len()).unwrap_or(1);
    let post = usize::try_from(random.below(bound)).unwrap_or(0);
    if posts[post].signal(signal) {
        scene.tally(&format!("supervisor got {signal}"));
    }
}

fn stop_supervisor(
    scene: &Scene<'_>,
    random: &mut Random,
    posts: &mut [Post],
    stopped: &mut Stopped,
) {
    let bound = u64::try_from(posts.len()).unwrap_or(1);
    let post = usize::try_from(random.below(bound)).unwrap_or(0);
    if posts[post].signal(Posix::SIGSTOP) {
        scene.tally("supervisor stopped");
        stopped.posts.push((Instant::now() + random.millis(100, 3000), post));
    }
}

fn lock_database(scene: &Scene<'_>, pause: Duration) {
    let mut database = scene.stage.database();
    let Ok(tx) = database.transaction_with_behavior(TransactionBehavior::Immediate) else {
        return;
    };
    scene.tally("database locked");
    std::thread::sleep(pause);
    scene.note_storage_fault();
    drop(tx);
}

fn fill_disk(scene: &Scene<'_>, pause: Duration) {
    let Some(disk) = &scene.disk else { return };
    if scene.is_disk_full.swap(true, Ordering::Relaxed) {
        return;
    }
    scene.tally("disk full");
    scene.note_storage_fault();
    disk.fill();
    std::thread::sleep(pause);
    disk.empty();
    scene.note_storage_fault();
    scene.is_disk_full.store(false, Ordering::Relaxed);
}

fn cancel(scene: &Scene<'_>, job: i64, by_sql: bool) {
    // Written down before it is asked: it may be carried out before anything else is known.
    append(&scene.props.journals.cancelled(), &job.to_string()).expect("it has room");
    scene.tally("cancel asked");
    if by_sql {
        let sql = "UPDATE jobs SET cancel_requested_at = unixepoch() * 1000
            WHERE id = ?1 AND state = 'running'";
        let _ = scene.stage.database().execute(sql, [job]);
    } else {
        let id = job.to_string();
        let name = scene.names.first().cloned().unwrap_or_default();
        let mut command = scene.stage.shiftboss(&["cancel", &id]);
        crate::output_of(command.env("INSTANCE_ID", name));
    }
}
