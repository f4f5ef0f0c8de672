//! Other supervisors on this database: when one dies, its jobs are taken over here, unless its
//! workers live on for a supervisor of its name that may come back.
//!
//! Asked of lock files alone, so an idle supervisor runs no query for it.

use super::Daemon;
use super::fleet::{chain, recovery};
use super::inputs::Input;
use crate::config::Config;
use crate::os::lock::{Holder, holder};
use crate::store::reader::Reader;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// What is known of the other names.
#[derive(Debug)]
pub(super) struct Neighbours {
    next: Instant,
    names: BTreeMap<String, Known>,
}

/// What is known of one name.
#[derive(Clone, Copy, Debug)]
struct Known {
    is: Neighbour,
    /// When its lock file was last written: each start writes it.
    started: Option<SystemTime>,
}

/// Where a supervisor of another name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbour {
    /// It holds its lock.
    Lives,
    /// It is dead, and what it left must be looked at.
    Died,
    /// What it left is being looked at.
    InCare,
    /// It is dead and nothing of it is left.
    Settled,
}

impl Neighbours {
    /// Before the look at the start for what the dead have left, so that whoever dies during it
    /// is not missed.
    pub(super) fn new(config: &Config) -> Self {
        let known = |name: &String| {
            let lock = config.lock_file_of(name);
            let lives = holder(&lock) == Holder::Somebody;
            let is = if lives { Neighbour::Lives } else { Neighbour::Settled };
            Known { is, started: written(&lock) }
        };
        let names = config.instance_names();
        let names = names.into_iter().map(|name| (name.clone(), known(&name))).collect();
        Self { next: Instant::now() + EVERY, names }
    }

    /// After that look: `left` are the names of dead supervisors whose workers still live.
    pub(super) fn postpone(&mut self, left: &BTreeSet<String>) {
        for name in left {
            self.set(name, Neighbour::Died);
        }
    }

    fn set(&mut self, name: &str, is: Neighbour) {
        let started = self.names.get(name).and_then(|known| known.started);
        self.names.insert(name.to_owned(), Known { is, started });
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Looks at the locks; names of the dead whose rest must be looked at now.
    fn look(&mut self, config: &Config) -> BTreeSet<String> {
        for name in config.instance_names() {
            if name == config.instance {
                continue;
            }
            let lock = config.lock_file_of(&name);
            let (lives, started) = (holder(&lock) == Holder::Somebody, written(&lock));
            let was = self.names.get(&name);
            // It may have started and died since the last look.
            let is_news = was.is_none_or(|was| was.started != started);
            let is = match (was.map(|was| was.is), lives) {
                // Looked at once more when that is done, if it has started meanwhile.
                (Some(Neighbour::InCare), _) => continue,
                (_, true) => Neighbour::Lives,
                (Some(Neighbour::Settled), false) if !is_news => Neighbour::Settled,
                (Some(Neighbour::Lives | Neighbour::Died | Neighbour::Settled) | None, false) => {
                    Neighbour::Died
                }
            };
            self.names.insert(name, Known { is, started });
        }
        let died = self.names.iter().filter(|(_, known)| known.is == Neighbour::Died);
        died.map(|(name, _)| name.clone()).collect()
    }
}

fn written(lock: &Path) -> Option<SystemTime> {
    lock.metadata().and_then(|facts| facts.modified()).ok()
}

impl Daemon {
    pub(super) fn look_at_neighbours(&mut self) {
        let now = Instant::now();
        if self.neighbours.next > now {
            return;
        }
        self.neighbours.next = now + EVERY;
        let died = self.neighbours.look(&self.config);
        if died.is_empty() {
            return;
        }
        for name in &died {
            self.neighbours.set(name, Neighbour::InCare);
        }
        let (config, store, inputs) =
            (self.config.clone(), self.store.clone(), self.inputs.clone());
        let us = self.instance.clone();
        let tree = self.fleet.tree();
        let look = move || {
            let others = Reader::open(&config.database, &config.table_prefix)
                .and_then(|reader| reader.other_instances(&us));
            let recovery = match others {
                Ok(mut others) => {
                    let of_dead =
                        |id: &str| recovery::name_of(id).is_some_and(|name| died.contains(name));
                    others.retain(|other| of_dead(&other.id));
                    let looked = (recovery::Moment::Later, tree.as_ref());
                    recovery::recover(&config, &others, &store, looked)
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, "cannot look for the jobs of a dead supervisor");
                    recovery::Recovery::postponed(died.clone())
                }
            };
            let _ = inputs.send(Input::Recovered(died, Box::new(recovery)));
        };
        // On a thread: it reads the environment of every process of this host.
        if let Err(error) = std::thread::Builder::new().name("recovery".to_owned()).spawn(look) {
            tracing::error!(%error, "cannot look for the jobs of a dead supervisor");
        }
    }

    pub(super) fn on_recovered(&mut self, names: &BTreeSet<String>, recovery: recovery::Recovery) {
        for name in names {
            let left = recovery.postponed.contains(name);
            let is = if left { Neighbour::Died } else { Neighbour::Settled };
            self.neighbours.set(name, is);
        }
        self.take_over(recovery);
    }
}
