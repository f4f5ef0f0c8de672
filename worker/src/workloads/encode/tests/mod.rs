//! The ladder on real films with the real FFmpeg, without a supervisor.

mod chunks;
mod films;
mod hls;
mod hostile;
mod ladder;
mod ops;
mod stage;
mod stop;
