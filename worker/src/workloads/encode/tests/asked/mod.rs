//! What a job or its profile may ask of a ladder.

mod codecs;
mod hls;
mod lost;
mod profiles;
