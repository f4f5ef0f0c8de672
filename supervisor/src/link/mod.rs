//! The sockets: the only module of the supervisor that listens, reads and writes on them.
//!
//! [`worker`] carries frames between the daemon and its workers, [`control`] requests of
//! clients. Both only carry: what a message means is decided elsewhere.

pub mod control;
mod listen;
pub mod worker;

pub use listen::Error;
