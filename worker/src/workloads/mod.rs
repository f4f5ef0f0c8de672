//! The workloads that every worker has.

pub mod command;
pub mod encode;
pub mod noop;
pub mod remote;

use crate::workload::Workload;
use std::sync::LazyLock;

/// All built-in workloads.
#[must_use]
pub fn built_in() -> &'static [&'static dyn Workload] {
    static ENCODE: LazyLock<encode::Encode> = LazyLock::new(encode::Encode::default);
    static REMOTE: LazyLock<remote::Remote> = LazyLock::new(remote::Remote::default);
    static ALL: LazyLock<[&'static dyn Workload; 4]> =
        LazyLock::new(|| [&command::Command, &*ENCODE, &noop::Noop, &*REMOTE]);
    &*ALL
}
