//! Long films are encoded in chunks of fixed frames, so that a crash costs one chunk.
//!
//! `cut` decides where (pure), `make` encodes what is missing and joins, `check` compares a
//! chunk with the film (pure), `shelf` is the folder that outlives the attempt, `arguments` has
//! FFmpeg's command lines, `share` the progress (pure). `seam` joins chunks of two encoders.

mod arguments;
pub(super) mod check;
pub(super) mod cut;
pub(super) mod make;
mod seam;
mod set_up;
mod share;
pub(super) mod shelf;
