//! Places at which a test lets the supervisor die. Debug builds only: in a release build the
//! functions are empty.
//!
//! `SHIFTBOSS_TEST_FAILPOINT=NAME[:N]` makes the process kill itself with SIGKILL when it
//! reaches the place of that name for the Nth time (1 when left out).

/// The variable of [`is_lacking`].
pub const LACK_VARIABLE: &str = "SHIFTBOSS_TEST_LACK";

/// The variable that tells a worker what [`is_lacking`].
pub const WORKER_LACK_VARIABLE: &str = "SHIFTBOSS_TEST_CAGE_LACKS";

/// The places, in the order of a job's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The tables are being made; their transaction is open.
    Migration,
    /// A worker's process exists and is not on record.
    Spawned,
    /// A worker has proved who it is and has not been welcomed.
    Greeted,
    /// A group of changes is complete; its COMMIT has not been tried.
    Commit,
    /// Claims are committed; nobody was told.
    Claimed,
    /// A worker has named a launcher, which is not on record.
    Launched,
    /// An outcome was heard and is not stored.
    Finished,
    /// Outcomes are committed; their workers have no receipt.
    Stored,
    /// The log is going into the database: death comes a moment later.
    Checkpoint,
    /// What a dead supervisor left is known, its leftovers are dead, no row was changed.
    Found,
    /// The rows of its living workers are ours, the others were not given back.
    Adopted,
}

#[cfg(debug_assertions)]
impl Place {
    const ALL: [(&'static str, Self); 11] = [
        ("migration", Self::Migration),
        ("spawned", Self::Spawned),
        ("greeted", Self::Greeted),
        ("commit", Self::Commit),
        ("claimed", Self::Claimed),
        ("launched", Self::Launched),
        ("finished", Self::Finished),
        ("stored", Self::Stored),
        ("checkpoint", Self::Checkpoint),
        ("found", Self::Found),
        ("adopted", Self::Adopted),
    ];
}

/// Dies here, if a test wants that.
#[cfg(debug_assertions)]
pub fn reach(place: Place) {
    if armed::is_hit(place) {
        armed::die();
    }
}

/// Dies within the next moments, if a test wants that, in the middle of what comes next.
#[cfg(debug_assertions)]
pub fn reach_around(place: Place) {
    if armed::is_hit(place) {
        let die = || {
            std::thread::sleep(std::time::Duration::from_micros(200));
            armed::die();
        };
        // No thread, no death: the test that wants one fails.
        let _ = std::thread::Builder::new().name("failpoint".to_owned()).spawn(die);
    }
}

/// Nothing: this is no debug build.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn reach(_: Place) {}

/// Nothing: this is no debug build.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn reach_around(_: Place) {}

/// Whether a test pretends that this host lacks what this word names:
/// `SHIFTBOSS_TEST_LACK=user-ns,landlock`.
#[cfg(debug_assertions)]
#[must_use]
pub fn is_lacking(word: &str) -> bool {
    lacking().is_some_and(|words| words.split(',').any(|lack| lack == word))
}

/// The words of [`is_lacking`], for workers, which then lack the same.
#[cfg(debug_assertions)]
#[must_use]
pub fn lacking() -> Option<String> {
    std::env::var(LACK_VARIABLE).ok()
}

/// False: this is no debug build.
#[cfg(not(debug_assertions))]
#[inline]
#[must_use]
pub const fn is_lacking(_: &str) -> bool {
    false
}

/// None: this is no debug build.
#[cfg(not(debug_assertions))]
#[inline]
#[must_use]
pub const fn lacking() -> Option<String> {
    None
}

#[cfg(debug_assertions)]
mod armed {
    use super::Place;
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    const VARIABLE: &str = "SHIFTBOSS_TEST_FAILPOINT";

    static WANTED: OnceLock<Option<(Place, u32)>> = OnceLock::new();
    static VISITS: AtomicU32 = AtomicU32::new(0);

    /// Counts the visit, and says whether it is the one.
    pub(super) fn is_hit(place: Place) -> bool {
        let wanted = WANTED.get_or_init(|| parse(&std::env::var(VARIABLE).ok()?));
        wanted.is_some_and(|(wanted, nth)| {
            wanted == place && VISITS.fetch_add(1, Ordering::Relaxed) + 1 == nth
        })
    }

    pub(super) fn parse(text: &str) -> Option<(Place, u32)> {
        let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
        let (_, place) = Place::ALL.into_iter().find(|(one, _)| *one == name)?;
        Some((place, nth.parse().ok()?))
    }

    pub(super) fn die() {
        tracing::warn!("a test wants this supervisor to die here");
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_is_a_place_and_a_number() {
        assert_eq!(armed::parse("claimed:3"), Some((Place::Claimed, 3)));
        assert_eq!(armed::parse("stored"), Some((Place::Stored, 1)));
        assert_eq!(armed::parse("nowhere"), None);
        assert_eq!(armed::parse("stored:x"), None);
    }

    #[test]
    fn nothing_dies_unless_it_is_wanted() {
        for (_, place) in Place::ALL {
            reach(place);
            reach_around(place);
        }
    }
}
