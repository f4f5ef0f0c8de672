//! The input: what it is (`facts`), which packets it holds (`scan`, `pictures`), and the ffprobe
//! runs that find both out and refuse what is no film (`probe`) or a truncated one
//! (`truncation`). What it needs is decided by `treatment` (pictures) and `tracks` (the rest).

pub(super) mod facts;
pub(super) mod foreign;
pub(super) mod pictures;
pub(super) mod probe;
pub(super) mod scan;
pub(super) mod tracks;
pub(super) mod treatment;
pub(super) mod truncation;
