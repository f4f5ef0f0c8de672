//! Tests of the store on real databases in temporary folders.

mod faults;
mod insert;
mod locks;
mod moves;
mod open;
mod plans;
mod random;
mod requests;
mod rescue;
mod take;
mod wakeup;

use super::connection::Db;
use super::op::{AttemptRecord, Event, FencedMove, Move, Moved, Op, Parcel, Reply};
use super::reader::Reader;
use super::writer::{self, StoreHandle};
use super::{Error, InstanceRow, OpenOptions, WalPolicy};
use crate::policy::claim::{Offer, TakeRequest, Taken, TakenJob, TypeLook, WorkerId};
use rusqlite::Connection;
use serde_json::Value;
use shiftboss_protocol::control::NewJob;
use shiftboss_protocol::job::JobId;
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait for something that must happen; a machine under load is slow.
const PATIENCE: Duration = Duration::from_secs(30);
/// Id of the supervisor under test.
const US: &str = "main-boot-1";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

fn options(folder: &tempfile::TempDir) -> OpenOptions {
    OpenOptions {
        path: folder.path().join("jobs.db"),
        prefix: String::new(),
        wal: WalPolicy::Require,
        network_fs: None,
    }
}

fn instance(id: &str) -> InstanceRow {
    InstanceRow {
        id: id.to_owned(),
        boot_id: "boot".to_owned(),
        host: "host".to_owned(),
        pid: 77,
        version: "0.1.0".to_owned(),
        started_at_ms: 1,
    }
}

/// A database with tables, without a writer.
fn database(folder: &tempfile::TempDir) -> Db {
    Db::open_writer(&options(folder)).expect("an empty folder takes a database")
}

/// A connection as another program makes it.
fn foreign(path: &std::path::Path) -> Connection {
    let conn = Connection::open(path).expect("the database opens");
    conn.busy_timeout(PATIENCE).expect("a timeout can be set");
    conn
}

fn new_job(job_type: &str) -> NewJob {
    NewJob { job_type: job_type.to_owned(), payload: "{}".to_owned(), ..NewJob::default() }
}

/// A look that offers one worker of type `a` with this much room.
fn look(now_ms: i64, room: u32) -> TakeRequest {
    let look =
        TypeLook { priority: 0, counts_in_total: true, count_max: 100, sync: true, running: 0 };
    let offer = Offer {
        worker: WorkerId(5),
        job_type: "a".into(),
        room,
        pid: 4321,
        confinement: "namespaces".into(),
        only: Vec::new(),
    };
    TakeRequest {
        now_ms,
        offers: if room == 0 { Vec::new() } else { vec![offer] },
        room_total: None,
        types: [("a".into(), look.clone()), ("b".into(), look)].into(),
        avoid: Default::default(),
    }
}

fn fenced(job: &TakenJob, to: Move) -> FencedMove {
    FencedMove { job: job.job, attempt: job.attempt, to, record: AttemptRecord::default() }
}

fn now_ms() -> i64 {
    super::change::now_ms()
}

/// A writer that runs, and what it said.
struct Rig {
    handle: StoreHandle,
    thread: Option<JoinHandle<()>>,
    events: Receiver<Event>,
    /// Events that came while another was waited for.
    passed: RefCell<Vec<Event>>,
    path: PathBuf,
    folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        Self::within(folder(), US)
    }

    fn within(folder: tempfile::TempDir, id: &str) -> Self {
        let (sender, events) = mpsc::channel();
        let send = move |event| drop(sender.send(event));
        let started = writer::start(options(&folder), instance(id), Box::new(send))
            .expect("the writer starts");
        Self {
            handle: started.handle,
            thread: Some(started.thread),
            events,
            passed: RefCell::default(),
            path: options(&folder).path,
            folder,
        }
    }

    /// The next event that fits, whatever came before it.
    fn wait<T>(&self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        let mut passed = self.passed.borrow_mut();
        if let Some(at) = passed.iter().position(|event| pick(event).is_some()) {
            return pick(&passed.remove(at)).expect("it was picked just now");
        }
        loop {
            let event = self.events.recv_timeout(PATIENCE);
            let event = event.unwrap_or_else(|_| panic!("{what} did not come: {passed:?}"));
            match pick(&event) {
                Some(found) => return found,
                None => passed.push(event),
            }
        }
    }

    fn ask<T: Send + 'static>(&self, op: impl FnOnce(Reply<T>) -> Op) -> Result<T, Error> {
        let (sender, receiver) = mpsc::channel();
        self.handle.send(op(Box::new(move |answer| drop(sender.send(answer)))));
        receiver.recv_timeout(PATIENCE).expect("an answer comes")
    }

    fn enqueue(&self, jobs: Vec<NewJob>) -> Vec<JobId> {
        self.ask(|reply| Op::Enqueue(jobs, reply)).expect("the jobs are good")
    }

    fn take(&self, request: TakeRequest) -> (Taken, Vec<Parcel>) {
        self.handle.send(Op::Take(request));
        self.wait("the answer to a take", |event| match event {
            Event::Taken(taken, parcels) => Some((taken.clone(), parcels.clone())),
            _ => None,
        })
    }

    /// Claims one job of type `a`.
    fn claim(&self) -> TakenJob {
        let (mut taken, _) = self.take(look(now_ms(), 1));
        taken.jobs.pop().expect("a job is available")
    }

    fn apply(&self, moves: Vec<FencedMove>) -> Vec<Moved> {
        self.handle.send(Op::Move(moves));
        self.wait("the answer to a move", |event| match event {
            Event::Moved(moved) => Some(moved.clone()),
            _ => None,
        })
    }

    fn job(&self, id: JobId) -> Value {
        let reader = Reader::open(&self.path, "").expect("a reader opens");
        reader.job(id).expect("jobs can be read").expect("the job exists")
    }

    fn attempts(&self, id: JobId) -> Vec<Value> {
        let reader = Reader::open(&self.path, "").expect("a reader opens");
        reader.attempts(id).expect("attempts can be read")
    }

    fn stop(mut self) -> tempfile::TempDir {
        self.handle.send(Op::Stop);
        let thread = self.thread.take().expect("it is stopped once");
        thread.join().expect("the writer ends in order");
        self.folder
    }
}
