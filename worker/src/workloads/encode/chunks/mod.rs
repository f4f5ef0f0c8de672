//! Long films are encoded in chunks of fixed frames, so that a crash costs one chunk.
//!
//! `cut` decides where (pure), `make` encodes what is missing and joins, `check` compares a
//! chunk with the film (pure), `shelf` is the folder that outlives the attempt, `arguments`
//! has FFmpeg's command lines and `share` the progress of the whole (pure).

mod arguments;
pub(super) mod check;
pub(super) mod cut;
pub(super) mod make;
mod share;
pub(super) mod shelf;
