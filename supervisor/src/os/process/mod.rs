//! Processes: [`spawn`] makes workers and holds them, [`facts`] tells which one a number means,
//! [`memory`] what it uses; [`orphans`] and [`leftovers`] see to it that nothing of a dead one goes
//! on, [`peer`] who is at the other end of a socket.

mod birth;
pub mod facts;
pub mod leftovers;
pub mod memory;
pub mod orphans;
pub mod peer;
pub mod spawn;

pub use spawn::{Ended, Process};
