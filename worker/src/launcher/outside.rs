//! The worker's side of a launcher: starting one, asking it to stop, hearing its report.

use super::{Order, Report, Request, tree};
use rustix::fs::{Mode, OFlags, open};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Pid;
use shiftboss_protocol::frame;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::serve::start::LAUNCH;

/// The image that launchers are: opened once, so that an upgrade that replaces the file cannot
/// mix two versions.
static IMAGE: OnceLock<OwnedFd> = OnceLock::new();

/// Opens this program's own image.
pub(crate) fn remember_image() -> io::Result<()> {
    image(Path::new("/proc/self/exe")).map(|_| ())
}

/// The image opened first; `path` when none is open yet.
pub(crate) fn image(path: &Path) -> io::Result<&'static OwnedFd> {
    if let Some(image) = IMAGE.get() {
        return Ok(image);
    }
    let opened = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(IMAGE.get_or_init(|| opened))
}

/// A running launcher. Dropping it kills the tree: its lifeline ends.
#[derive(Debug)]
pub(crate) struct Launched {
    lifeline: UnixStream,
    process: Child,
    received: Vec<u8>,
}

impl Launched {
    /// Starts a launcher and gives it its order and the program's standard streams.
    pub(crate) fn start(order: &[u8], streams: [OwnedFd; 3]) -> io::Result<Self> {
        let image = image(Path::new("/proc/self/exe"))?;
        let (lifeline, theirs) = UnixStream::pair()?;
        // The child resolves the name in its own descriptor table, before CLOEXEC closes it.
        let mut command = Command::new(format!("/proc/self/fd/{}", image.as_raw_fd()));
        command.arg0("shiftboss-launcher").arg(LAUNCH).env_clear();
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        let process = command.spawn()?;
        // The command holds this process's copy of the launcher's end.
        drop(command);
        let mut launched = Self { lifeline, process, received: Vec::new() };
        match launched.give(order, &streams) {
            // A launcher that died before it read its order is told of by its missing report.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other?,
        }
        launched.lifeline.set_nonblocking(true)?;
        Ok(launched)
    }

    fn give(&mut self, order: &[u8], streams: &[OwnedFd; 3]) -> io::Result<()> {
        let descriptors = streams.each_ref().map(AsFd::as_fd);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        beside.push(SendAncillaryMessage::ScmRights(&descriptors));
        let slices = [IoSlice::new(order)];
        let sent = sendmsg(&self.lifeline, &slices, &mut beside, SendFlags::NOSIGNAL)?;
        self.lifeline.write_all(&order[sent..])
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Asks something of the launcher. One that is gone hears nothing, and need not.
    pub(crate) fn ask(&mut self, request: Request) {
        let _ = self.lifeline.write_all(&[request.to_byte()]);
    }

    /// Reads what the launcher says, without waiting for it. `Ok(None)`: nothing yet.
    ///
    /// # Errors
    /// It ended without a report. [`Launched::wait`] still makes sure that its tree is dead.
    pub(crate) fn report(&mut self) -> Result<Option<Report>, frame::Error> {
        let mut chunk = [0; 512];
        loop {
            if let Some(report) = frame::take(&mut self.received)? {
                return Ok(Some(report));
            }
            match io::Read::read(&mut self.lifeline, &mut chunk) {
                Ok(0) => return Err(frame::Error::Cut),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(frame::Error::Io(error)),
            }
        }
    }

    /// Waits for the launcher's exit, which comes last in its tree, and says how it ended.
    pub(crate) fn wait(mut self) -> io::Result<std::process::ExitStatus> {
        drop(self.lifeline);
        self.process.wait()
    }

    /// Ends what a launcher that ended without a report has left behind: in its session, and
    /// what has left that, by these entries of its environment.
    pub(crate) fn sweep(mut self, marks: &[Vec<u8>]) -> io::Result<std::process::ExitStatus> {
        drop(self.lifeline);
        self.process.kill()?;
        tree::kill_session(Pid::from_child(&self.process));
        tree::kill_marked(marks);
        self.process.wait()
    }
}

impl AsFd for Launched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lifeline.as_fd()
    }
}

/// The frame of an order.
pub(crate) fn encode(order: &Order) -> Result<Vec<u8>, frame::Error> {
    frame::encode(order)
}
