//! Words shared by the supervisor, its workers and its clients, and the frames that carry them.
//!
//! Owns the vocabulary ([`job`], [`media`]), what a worker and its supervisor say to each other
//! ([`message`]), what a client and the supervisor say ([`control`]), what a worker writes down
//! ([`stored`]), what confines an attempt ([`confine`]) and the wire format ([`frame`]). No I/O
//! happens here beyond a stream that the caller owns, and nothing here is unsafe.
#![forbid(unsafe_code)]

pub mod confine;
pub mod control;
pub mod frame;
pub mod job;
pub mod media;
pub mod message;
pub mod stored;

/// The version that both sides say in Hello and Welcome. Their layout never changes; a change
/// of any other message raises this number.
pub const PROTOCOL_VERSION: u32 = 1;
