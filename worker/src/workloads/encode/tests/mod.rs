//! The ladder on real films with the real FFmpeg, without a supervisor.

mod checks;
mod chunks;
mod codecs;
mod films;
mod hls;
mod hostile;
mod hygiene;
mod ladder;
mod ops;
mod profiles;
mod stage;
mod stop;
