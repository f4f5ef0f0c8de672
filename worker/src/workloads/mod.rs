//! The workloads that every worker has.

pub mod command;
pub mod encode;
pub mod noop;

use crate::workload::Workload;
use std::sync::LazyLock;

/// All built-in workloads.
#[must_use]
pub fn built_in() -> &'static [&'static dyn Workload] {
    static ENCODE: LazyLock<encode::Encode> = LazyLock::new(encode::Encode::default);
    static ALL: LazyLock<[&'static dyn Workload; 3]> =
        LazyLock::new(|| [&command::Command, &*ENCODE, &noop::Noop]);
    &*ALL
}
