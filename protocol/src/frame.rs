//! Frames: a little-endian `u32` length, then one bincode message of that many bytes.
//!
//! The only file that names bincode. The format is its fixed-int little-endian `legacy()`
//! configuration, byte-equal to bincode 1 and to wincode, so that there are two ways out.
//! Messages hold no recursive type and no sequence of zero-sized elements: bincode's limit
//! bounds memory, but neither stack depth nor the CPU spent on such sequences.

use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};

/// Largest message on the wire, bytes, without its length prefix.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Largest payload, result or checkpoint of one job, bytes: a message carries at most one of
/// each of two kinds, so that both and their envelope fit a frame.
pub const TEXT_BYTES_MAX: usize = 480 << 10;

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;

const _: () = assert!(2 * TEXT_BYTES_MAX + 4096 < FRAME_BYTES_MAX);

/// bincode's limit counts claimed in-memory bytes, which exceed wire bytes for short strings.
const DECODE_BYTES_MAX: usize = 8 * FRAME_BYTES_MAX;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side announced more than [`FRAME_BYTES_MAX`]; nothing was allocated for it.
    #[error("frame of {0} bytes announced, at most {FRAME_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// The message to be sent does not fit a frame.
    #[error("message of {0} bytes does not fit a frame of {FRAME_BYTES_MAX}")]
    MessageTooLarge(usize),
    /// The bytes are no message of the expected kind.
    #[error("frame of {bytes} bytes cannot be decoded: {reason}")]
    Undecodable {
        /// Length of the frame's body.
        bytes: usize,
        /// The decoder's words.
        reason: String,
    },
    /// The stream ended inside a frame.
    #[error("connection ended inside a frame")]
    Cut,
    /// The stream failed.
    #[error("cannot read or write a frame")]
    Io(#[source] io::Error),
}

fn decoding() -> impl bincode::config::Config {
    bincode::config::legacy().with_limit::<DECODE_BYTES_MAX>()
}

/// The frame of `message`: prefix and body.
///
/// # Errors
/// [`Error::MessageTooLarge`] when the body would exceed [`FRAME_BYTES_MAX`].
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; PREFIX_BYTES];
    append(&mut frame, message)?;
    Ok(frame)
}

fn append<M: Serialize>(frame: &mut Vec<u8>, message: &M) -> Result<(), Error> {
    // bincode's limit does not hold for encoding, so the length is checked afterwards.
    bincode::serde::encode_into_std_write(message, frame, bincode::config::legacy()).map_err(
        |error| Error::Undecodable { bytes: 0, reason: format!("encoding failed: {error}") },
    )?;
    let body = frame.len() - PREFIX_BYTES;
    if body > FRAME_BYTES_MAX {
        return Err(Error::MessageTooLarge(body));
    }
    let prefix = u32::try_from(body).expect("FRAME_BYTES_MAX fits u32").to_le_bytes();
    frame[..PREFIX_BYTES].copy_from_slice(&prefix);
    Ok(())
}

/// The message of a frame's whole body.
///
/// # Errors
/// [`Error::Undecodable`] for anything but exactly one message; never panics, and never
/// allocates more than a small multiple of [`FRAME_BYTES_MAX`].
pub fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, Error> {
    let undecodable = |reason: String| Error::Undecodable { bytes: body.len(), reason };
    if body.len() > FRAME_BYTES_MAX {
        return Err(Error::TooLarge(body.len()));
    }
    let (message, consumed) = bincode::serde::decode_from_slice(body, decoding())
        .map_err(|error| undecodable(error.to_string()))?;
    if consumed != body.len() {
        return Err(undecodable(format!("{} bytes are left over", body.len() - consumed)));
    }
    Ok(message)
}

/// The body length that a prefix announces.
///
/// # Errors
/// [`Error::TooLarge`] before anything is allocated.
pub fn body_length(prefix: [u8; PREFIX_BYTES]) -> Result<usize, Error> {
    let length = u32::from_le_bytes(prefix) as usize;
    if length > FRAME_BYTES_MAX { Err(Error::TooLarge(length)) } else { Ok(length) }
}

/// Takes one message off the front of `buffer`. `Ok(None)` means that more bytes are needed.
///
/// # Errors
/// As [`body_length`] and [`decode`].
pub fn take<M: DeserializeOwned>(buffer: &mut Vec<u8>) -> Result<Option<M>, Error> {
    let mut at = 0;
    let message = peek(buffer, &mut at)?;
    buffer.drain(..at);
    Ok(message)
}

/// Reads one message at `at` and moves `at` behind it. `Ok(None)` means that more bytes are
/// needed. For readers that take many messages out of one buffer before they drain it.
///
/// # Errors
/// As [`body_length`] and [`decode`].
pub fn peek<M: DeserializeOwned>(buffer: &[u8], at: &mut usize) -> Result<Option<M>, Error> {
    let rest = &buffer[*at..];
    let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let length = body_length(*prefix)?;
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let message = decode(body)?;
    *at += PREFIX_BYTES + length;
    Ok(Some(message))
}

/// Reads one message from a blocking stream. `Ok(None)` is a clean end between two frames.
///
/// # Errors
/// Any [`Error`]; [`Error::Cut`] for an end inside a frame.
pub fn read<M: DeserializeOwned>(stream: &mut impl Read) -> Result<Option<M>, Error> {
    let mut prefix = [0; PREFIX_BYTES];
    let mut have = 0;
    while have < PREFIX_BYTES {
        match stream.read(&mut prefix[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(Error::Cut),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Io(error)),
        }
    }
    let mut body = vec![0; body_length(prefix)?];
    stream.read_exact(&mut body).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Cut,
        _ => Error::Io(error),
    })?;
    decode(&body).map(Some)
}

/// Writes one message to a blocking stream.
///
/// # Errors
/// [`Error::MessageTooLarge`] or [`Error::Io`].
pub fn write<M: Serialize>(stream: &mut impl Write, message: &M) -> Result<(), Error> {
    stream.write_all(&encode(message)?).map_err(Error::Io)
}
