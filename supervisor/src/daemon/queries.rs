//! Questions to the database and to the host, answered on a thread of their own: the daemon's
//! loop never waits for a disk.

use crate::os::host::Host;
use crate::store::reader::Reader;
use std::path::PathBuf;
use std::sync::mpsc;

/// A question, with its answer inside: what it does with the reader is its own business.
pub(super) type Query = Box<dyn FnOnce(&mut Desk) + Send>;

/// Where questions are answered.
pub(super) struct Desk {
    path: PathBuf,
    prefix: String,
    reader: Option<Reader>,
    host: Option<Host>,
}

impl Desk {
    /// The database, opened at the first question and kept.
    pub(super) fn reader(&mut self) -> Result<&Reader, String> {
        if self.reader.is_none() {
            let opened = Reader::open(&self.path, &self.prefix);
            self.reader = Some(opened.map_err(|error| super::fleet::chain(&error))?);
        }
        self.reader.as_ref().ok_or_else(|| "the database is not open".to_owned())
    }

    /// The host, looked at from the first question on.
    pub(super) fn host(&mut self) -> Option<&mut Host> {
        if self.host.is_none() {
            self.host = Host::new().ok();
        }
        self.host.as_mut()
    }
}

/// The way to the desk.
#[derive(Clone)]
pub(super) struct Queries(mpsc::Sender<Query>);

impl Queries {
    /// Opens the desk. It closes when the last way to it is gone.
    pub(super) fn start(path: PathBuf, prefix: String) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Query>();
        std::thread::Builder::new().name("queries".to_owned()).spawn(move || {
            let mut desk = Desk { path, prefix, reader: None, host: None };
            while let Ok(query) = receiver.recv() {
                query(&mut desk);
            }
        })?;
        Ok(Self(sender))
    }

    /// Asks. A desk that is closed drops the question, and with it the way back.
    pub(super) fn ask(&self, query: impl FnOnce(&mut Desk) + Send + 'static) {
        let _ = self.0.send(Box::new(query));
    }
}
