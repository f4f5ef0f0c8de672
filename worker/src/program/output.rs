//! What a program writes: bounded log files, lines for whoever watches, and the tail that ends
//! up in messages. However much it writes, memory and disk stay bounded.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest line that is kept together, bytes; a longer one is handed out in pieces.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Bounds of a tail.
const TAIL_LINES_MAX: usize = 40;
const TAIL_BYTES_MAX: usize = 8 << 10;

/// Largest log file when the supervisor says nothing, bytes.
const LOG_BYTES_DEFAULT: u64 = 8 << 20;

/// One output stream of a program.
#[derive(Debug, Default)]
pub(crate) struct Output {
    log: Option<LogFile>,
    /// Lines for which it is true are left out of the log.
    is_left_out: Option<fn(&[u8]) -> bool>,
    line: Vec<u8>,
    tail: Tail,
}

impl Output {
    pub(crate) fn new(log: Option<LogFile>, is_left_out: Option<fn(&[u8]) -> bool>) -> Self {
        Self { log, is_left_out, ..Self::default() }
    }

    /// Takes what the program wrote and hands out its whole lines. An error is about the log
    /// file only and comes once: the stream is then no longer logged.
    pub(crate) fn take(&mut self, bytes: &[u8], mut on_line: impl FnMut(&[u8])) -> io::Result<()> {
        let mut logged = if self.is_left_out.is_none() { self.log(bytes) } else { Ok(()) };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut piece = piece;
            while self.line.len() + piece.len() > LINE_BYTES_MAX {
                let (now, later) = piece.split_at(LINE_BYTES_MAX - self.line.len());
                self.line.extend_from_slice(now);
                logged = logged.and(self.hand_out(&mut on_line));
                piece = later;
            }
            self.line.extend_from_slice(piece);
            if self.line.ends_with(b"\n") {
                logged = logged.and(self.hand_out(&mut on_line));
            }
        }
        logged
    }

    /// Hands out what was not ended by a line end. An error is that of [`Self::take`].
    pub(crate) fn finish(&mut self, mut on_line: impl FnMut(&[u8])) -> io::Result<()> {
        if self.line.is_empty() { Ok(()) } else { self.hand_out(&mut on_line) }
    }

    pub(crate) fn tail(&self) -> String {
        self.tail.text()
    }

    fn hand_out(&mut self, on_line: &mut impl FnMut(&[u8])) -> io::Result<()> {
        let mut whole = std::mem::take(&mut self.line);
        let line = whole.strip_suffix(b"\n").unwrap_or(&whole);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.tail.push(line);
        on_line(line);
        let is_for_log = self.is_left_out.is_some_and(|is_left_out| !is_left_out(line));
        let logged = if is_for_log { self.log(&whole) } else { Ok(()) };
        whole.clear();
        self.line = whole;
        logged
    }

    fn log(&mut self, bytes: &[u8]) -> io::Result<()> {
        let logged = self.log.as_mut().map_or(Ok(()), |log| log.write(bytes));
        if logged.is_err() {
            self.log = None;
        }
        logged
    }
}

/// The last lines.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Tail {
    fn push(&mut self, line: &[u8]) {
        let line = &line[line.len().saturating_sub(TAIL_BYTES_MAX - 1)..];
        // The oldest line's memory is used again: a program may write millions of lines.
        let mut kept = Vec::new();
        self.bytes += line.len() + 1;
        while self.lines.len() >= TAIL_LINES_MAX || self.bytes > TAIL_BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len() + 1;
            kept = oldest;
        }
        kept.clear();
        kept.extend_from_slice(line);
        self.lines.push_back(kept);
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&String::from_utf8_lossy(line));
        }
        // A replaced byte is three bytes of text.
        let from = text.ceil_char_boundary(text.len().saturating_sub(TAIL_BYTES_MAX));
        text.split_off(from)
    }
}

/// A log file and the one before it, `<name>.1`: together at most twice the limit.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    written: u64,
    bytes_max: u64,
}

impl LogFile {
    /// Opens it for appending: programs of one attempt may share a log.
    pub(crate) fn open(path: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let bytes_max = if bytes_max == 0 { LOG_BYTES_DEFAULT } else { bytes_max };
        let file = open(&path)?;
        let written = file.metadata()?.len();
        Ok(Self { path, file, written, bytes_max })
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.bytes_max.saturating_sub(self.written);
            if room == 0 {
                self.rotate()?;
                continue;
            }
            let count = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
            self.file.write_all(&bytes[..count])?;
            self.written += count as u64;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut older = self.path.clone().into_os_string();
        older.push(".1");
        std::fs::rename(&self.path, older)?;
        self.file = open(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW;
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(output: &mut Output, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        output.take(bytes, |line| lines.push(line.to_vec())).expect("no log");
        lines
    }

    #[test]
    fn lines_come_without_their_ends_and_only_when_whole() {
        let mut output = Output::default();
        assert_eq!(lines(&mut output, b"one\ntwo\r\nth"), [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(lines(&mut output, b"ree\n\n"), [b"three".to_vec(), Vec::new()]);
        lines(&mut output, b"end");
        let mut rest = Vec::new();
        output.finish(|line| rest.push(line.to_vec())).expect("no log");
        assert_eq!(rest, [b"end".to_vec()]);
        assert_eq!(output.tail(), "one\ntwo\nthree\n\nend");
    }

    #[test]
    fn a_line_without_end_is_handed_out_in_pieces() {
        let mut output = Output::default();
        let pieces = lines(&mut output, &vec![b'x'; 3 * LINE_BYTES_MAX]);
        assert!(pieces.iter().all(|piece| piece.len() == LINE_BYTES_MAX));
        assert!(output.line.len() <= LINE_BYTES_MAX);
        assert!(output.line.capacity() <= 2 * LINE_BYTES_MAX);
    }

    #[test]
    fn a_log_and_the_one_before_it_hold_the_last_bytes_and_no_more_than_twice_the_limit() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("1.out");
        let mut log = LogFile::open(path.clone(), 10).expect("log");
        log.write(b"0123456789abcdefghijXYZ").expect("write");
        drop(log);
        let mut log = LogFile::open(path.clone(), 10).expect("log again");
        log.write(b"!").expect("write");
        assert_eq!(std::fs::read(&path).expect("newest"), b"XYZ!");
        assert_eq!(std::fs::read(folder.path().join("1.out.1")).expect("older"), b"abcdefghij");
    }

    #[test]
    fn lines_that_nobody_wants_to_read_are_handed_out_and_not_logged() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("1.out");
        let log = LogFile::open(path.clone(), 1000).expect("log");
        let mut output = Output::new(Some(log), Some(|line| line.starts_with(b"n=")));
        let mut found = lines(&mut output, b"n=1\na word\r\nn=");
        found.extend(lines(&mut output, b"2\nthe e"));
        output.finish(|line| found.push(line.to_vec())).expect("the disk has room");
        assert_eq!(found, [&b"n=1"[..], b"a word", b"n=2", b"the e"].map(<[u8]>::to_vec));
        assert_eq!(std::fs::read(path).expect("it was opened"), b"a word\r\nthe e");
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_bytes_were_cut(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400),
            cut in 1usize..50,
        ) {
            let (mut whole, mut cut_up) = (Output::default(), Output::default());
            let expected = lines(&mut whole, &bytes);
            let found: Vec<_> =
                bytes.chunks(cut).flat_map(|chunk| lines(&mut cut_up, chunk)).collect();
            prop_assert_eq!(expected, found);
        }

        #[test]
        fn a_tail_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..40_000)) {
            let mut output = Output::default();
            lines(&mut output, &bytes);
            prop_assert!(output.tail().len() <= TAIL_BYTES_MAX);
            prop_assert!(output.tail.lines.len() <= TAIL_LINES_MAX);
        }
    }
}
