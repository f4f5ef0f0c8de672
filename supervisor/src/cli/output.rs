//! Printing: a reader that goes away (`| head`) ends the command quietly.

pub(super) mod table;

use super::Error;
use std::io::{self, Write};

/// Standard output.
pub(super) struct Output;

impl Output {
    pub(super) fn new() -> Self {
        Self
    }

    /// One line.
    pub(super) fn line(&self, text: &str) -> Result<(), Error> {
        self.raw(text.as_bytes())?;
        self.raw(b"\n")
    }

    /// Bytes as they are.
    pub(super) fn raw(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Error::Closed,
            _ => Error::Print(error),
        })
    }

    /// A remark beside the answer, on standard error.
    pub(super) fn remark(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }
}
