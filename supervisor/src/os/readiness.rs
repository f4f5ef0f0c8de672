//! Waits until a descriptor has something to say.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor of our own, registered with the event loop.
#[derive(Debug)]
pub struct Readiness(AsyncFd<OwnedFd>);

impl Readiness {
    /// Registers `fd`. Must be called inside the event loop's runtime.
    ///
    /// # Errors
    /// When the descriptor cannot be polled, or the loop has no room.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        #[expect(unsafe_code, reason = "tokio cannot know that the descriptor stays what it is")]
        // SAFETY: the OwnedFd moves into the AsyncFd and is closed only with it; nothing here
        // replaces or closes it before.
        let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Returns when the descriptor became readable after the last return.
    ///
    /// # Errors
    /// When the event loop ends.
    pub async fn wait(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}
