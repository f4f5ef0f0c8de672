//! The input: what it is (`facts`), which packets it holds (`scan`, `pictures`), and the ffprobe
//! runs that find both out and refuse what is no film (`probe`) or a truncated one
//! (`truncation`).

pub(super) mod facts;
pub(super) mod pictures;
pub(super) mod probe;
pub(super) mod scan;
pub(super) mod truncation;
