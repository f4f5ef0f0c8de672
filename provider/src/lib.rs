//! AI providers as data: what their interfaces look like, and what an operation does next.
//!
//! Pure: no clock, no files, no network, no chance. Time comes in as a [`Moment`], the world as
//! an [`operation::Event`], and what should happen goes out as an [`operation::Step`]. The worker
//! type `remote` does it; the command line reads the same descriptions.

pub mod breaker;
pub mod description;
pub mod hint;
pub mod load;
pub mod measure;
pub mod operation;
pub mod pace;
pub mod queue;
pub mod request;
pub mod shipped;
pub mod template;
pub mod token;
pub mod window;

/// Time since the process began to count, monotonic.
pub type Moment = std::time::Duration;
