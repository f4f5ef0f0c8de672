//! The worker binary, driven by a supervisor made for tests over a real socket.

mod cage;
mod life;
mod orphans;
mod programs;
mod reattach;
mod reports;
mod supervisor;
