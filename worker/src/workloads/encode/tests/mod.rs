//! The ladder on real films with the real FFmpeg, without a supervisor.

mod asked;
mod checks;
mod chunks;
mod films;
mod hostile;
mod hygiene;
mod ladder;
mod ops;
mod quality;
mod stage;
mod stop;
