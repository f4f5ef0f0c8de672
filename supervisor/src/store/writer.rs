//! The writer thread: the only one that changes the table while a supervisor runs.
//!
//! It sleeps on its channel without a timeout while there is nothing to do. What is queued is
//! committed in groups ([`group`]), acknowledged after the commit, and kept in the queue while
//! the database is in trouble ([`trouble`], [`spell`]).

mod answer;
mod checkpoint;
mod group;
mod recheck;
mod spell;
#[cfg(test)]
pub(super) mod tests;
mod trouble;

use super::change::instances::{self, InstanceRow, OtherInstance};
use super::change::{ROWS_MAX, requests};
use super::connection::{Db, OpenOptions};
use super::error::Error;
use super::files::Files;
use super::op::{Event, Op};
use answer::Answer;
use checkpoint::Checkpoints;
use recheck::Recheck;
use spell::Spell;
use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long one statement waits for somebody's lock; between two waits the queue is served.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// How long a stop waits for a database in trouble before what is queued is given up.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// When a move that failed by itself is tried again.
const DEFERRED_WAIT: Duration = Duration::from_secs(1);

/// Sends operations to the writer thread.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    sender: Sender<Op>,
}

impl StoreHandle {
    /// Queues an operation. After the writer's end a reply is answered with
    /// [`Error::Stopped`]; everything else is dropped.
    pub fn send(&self, op: Op) {
        if let Err(unsent) = self.sender.send(op) {
            answer::refuse(unsent.0);
        }
    }
}

/// A writer that runs.
#[derive(Debug)]
pub struct Started {
    /// Takes operations; the writer also stops when the last clone is dropped.
    pub handle: StoreHandle,
    /// Ends after [`Op::Stop`].
    pub thread: JoinHandle<()>,
    /// The types that are paused.
    pub paused: Vec<String>,
    /// The other instances, dead or alive, and what they have running.
    pub others: Vec<OtherInstance>,
    /// Version of the SQLite library in this program.
    pub sqlite_version: &'static str,
}

/// Opens the database, makes or migrates the tables, registers this instance, and starts the
/// writer thread. `events` is called on that thread and must not block.
///
/// # Errors
/// The database cannot be opened, or is refused with its remedy.
pub fn start(
    options: OpenOptions,
    instance: InstanceRow,
    events: Box<dyn Fn(Event) + Send>,
) -> Result<Started, Error> {
    let (sender, receiver) = mpsc::channel();
    let (opened, opening) = mpsc::sync_channel(1);
    let path = options.path.clone();
    let run = move || match open(&options, &instance) {
        Ok(Opened { db, files, paused, others }) => {
            let mut writer = Writer::new((db, files), instance.id, receiver, events);
            // The receiver waits below, so this cannot fail.
            let _ = opened.send(Ok((paused, others)));
            writer.run();
        }
        Err(error) => {
            let _ = opened.send(Err(error));
        }
    };
    let thread = std::thread::Builder::new().name("store".to_owned()).spawn(run);
    let thread =
        thread.map_err(|e| Error::Refused(format!("cannot start the store's thread: {e}")))?;
    let (paused, others) = opening.recv().unwrap_or(Err(Error::Stopped))?;
    tracing::debug!(path = %path.display(), sqlite = rusqlite::version(), "store is open");
    let sqlite_version = rusqlite::version();
    Ok(Started { handle: StoreHandle { sender }, thread, paused, others, sqlite_version })
}

/// The database as it was found at the start.
struct Opened {
    db: Db,
    files: Files,
    paused: Vec<String>,
    others: Vec<OtherInstance>,
}

fn open(options: &OpenOptions, instance: &InstanceRow) -> Result<Opened, Error> {
    let db = Db::open_writer(options)?;
    db.refuse_damage()?;
    // The writer decides itself when the log goes into the database.
    db.pragma("wal_autocheckpoint", 0)?;
    instances::insert(&db, instance)?;
    let paused = requests::paused(&db)?;
    let others = instances::others(&db, &instance.id)?;
    db.wait_for_locks(LOCK_WAIT)?;
    let files = Files::of(&db)?;
    Ok(Opened { db, files, paused, others })
}

/// An operation that waits for its commit.
struct Queued {
    op: Op,
    /// Of a rescue in batches: jobs given back by earlier ones.
    rescued: u64,
    since: Instant,
    /// Whoever asked was told that it is not known whether this was stored.
    is_abandoned: bool,
}

impl Queued {
    fn new(op: Op) -> Self {
        Self { op, rescued: 0, since: Instant::now(), is_abandoned: false }
    }
}

struct Writer {
    db: Db,
    files: Files,
    /// The log and its database lie apart, and all of the log is in the database.
    is_log_saved: bool,
    /// Id of this instance: the owner of what it claims.
    us: String,
    receiver: Receiver<Op>,
    events: Box<dyn Fn(Event) + Send>,
    queue: VecDeque<Queued>,
    /// Moves and checkpoints that the table refused by themselves, and when to try again.
    deferred: Vec<(Instant, Op)>,
    /// What `PRAGMA synchronous` was last set to: FULL (true) or NORMAL.
    is_synced: Option<bool>,
    /// Number of the last group that wrote.
    group: u64,
    /// A group whose COMMIT failed after it may have landed.
    doubt: Option<group::Doubt>,
    recheck: Recheck,
    spell: Spell,
    checkpoints: Checkpoints,
    /// The last `data_version` that was reported.
    version: i64,
    /// When to give up; set by a stop.
    stop_by: Option<Instant>,
    /// No operation can come any more.
    is_closed: bool,
    /// Happens once between a commit and its answer.
    #[cfg(test)]
    after_commit: Option<tests::AfterCommit>,
}

impl Writer {
    fn new(
        (db, files): (Db, Files),
        us: String,
        receiver: Receiver<Op>,
        events: Box<dyn Fn(Event) + Send>,
    ) -> Self {
        let version = recheck::data_version(&db).unwrap_or_default();
        Self {
            db,
            files,
            is_log_saved: false,
            us,
            receiver,
            events,
            queue: VecDeque::new(),
            deferred: Vec::new(),
            is_synced: None,
            group: 0,
            doubt: None,
            recheck: Recheck::default(),
            spell: Spell::default(),
            checkpoints: Checkpoints::default(),
            version,
            stop_by: None,
            is_closed: false,
            #[cfg(test)]
            after_commit: None,
        }
    }

    fn run(&mut self) {
        loop {
            self.receive();
            let now = Instant::now();
            self.queue_deferred(now);
            if self.has_work() && self.spell.allows(now) {
                self.commit_group();
            }
            self.recheck(Instant::now());
            self.checkpoint(Instant::now());
            match self.stop_by {
                Some(_) if self.queue.is_empty() || self.spell.halted().is_some() => break,
                Some(stop_by) if Instant::now() >= stop_by => break,
                Some(_) | None => {}
            }
        }
        self.end();
    }

    /// A trouble is work, too: somebody must find out when it is over.
    fn has_work(&self) -> bool {
        !self.queue.is_empty() || self.spell.is_on()
    }

    /// Waits until there is something to do, and takes all that was sent.
    fn receive(&mut self) {
        self.drain();
        let now = Instant::now();
        if self.has_work() && self.spell.allows(now) {
            return;
        }
        let retry_at = self.spell.retry_at();
        let deferred = self.deferred.iter().map(|(at, _)| *at).min();
        let wakes = [retry_at, deferred, self.recheck.next(), self.checkpoints.due(), self.stop_by];
        let received = match wakes.into_iter().flatten().min() {
            _ if self.is_closed && self.queue.is_empty() => return,
            Some(at) if at <= now => return,
            Some(at) if self.is_closed => {
                std::thread::park_timeout(at - now);
                return;
            }
            Some(at) => self.receiver.recv_timeout(at - now),
            None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(op) => self.accept(op),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.on_closed(),
        }
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.receiver.try_recv() {
                Ok(op) => self.accept(op),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return self.on_closed(),
            }
        }
    }

    fn on_closed(&mut self) {
        self.is_closed = true;
        self.stop_by.get_or_insert_with(|| Instant::now() + STOP_WAIT);
    }

    /// Queues an operation; large ones in parts, so that no transaction gets long.
    fn accept(&mut self, op: Op) {
        match op {
            Op::Touched => {
                self.recheck.touched(Instant::now());
                self.look_at_files();
            }
            Op::Stop => {
                self.stop_by.get_or_insert_with(|| Instant::now() + STOP_WAIT);
            }
            op if self.turns_away(&op) => self.turn_away(op),
            Op::Move(moves) if moves.len() > ROWS_MAX => {
                for part in moves.chunks(ROWS_MAX) {
                    self.push(Op::Move(part.to_vec()));
                }
            }
            Op::Progress(rows) if rows.len() > ROWS_MAX => {
                for part in rows.chunks(ROWS_MAX) {
                    self.push(Op::Progress(part.to_vec()));
                }
            }
            Op::Enqueue(..)
            | Op::Take(_)
            | Op::Move(_)
            | Op::Progress(_)
            | Op::Confined { .. }
            | Op::Checkpoint { .. }
            | Op::Cancel(..)
            | Op::Retry(..)
            | Op::Resolve(..)
            | Op::Adopt(..)
            | Op::Rescue(..)
            | Op::Pause { .. }
            | Op::Prune { .. } => self.push(op),
        }
    }

    fn push(&mut self, op: Op) {
        self.queue.push_back(Queued::new(op));
    }

    /// Puts back what was deferred long enough; at a stop, everything.
    fn queue_deferred(&mut self, now: Instant) {
        let is_due = |at: Instant| at <= now || self.stop_by.is_some();
        let (due, later) = self.deferred.drain(..).partition(|(at, _)| is_due(*at));
        self.deferred = later;
        let due: Vec<(Instant, Op)> = due;
        for (_, op) in due {
            self.push(op);
        }
    }

    /// Answers what could not be stored, and leaves the log empty.
    fn end(&mut self) {
        self.drain();
        self.give_up_doubtful("the writer has stopped");
        let queued = self.queue.drain(..).map(|queued| queued.op);
        for op in queued.chain(self.deferred.drain(..).map(|(_, op)| op)) {
            answer::refuse(op);
        }
        self.checkpoint_last();
    }

    fn send(&self, event: Event) {
        (self.events)(event);
    }
}
