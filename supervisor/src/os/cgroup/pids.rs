//! The pids controller: how many processes and threads a group may have.

use super::{Error, keep};
use std::path::Path;

/// Limits processes and threads of the group and of those below it, together.
///
/// # Errors
/// When the kernel does not keep what is written.
pub fn limit(dir: &Path, pids: u32) -> Result<(), Error> {
    keep(dir, "pids.max", &pids.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fake, text};
    use super::*;

    #[test]
    fn processes_are_limited() {
        let dir = fake(&[("pids.max", "max")]);
        limit(dir.path(), 64).expect("it can be written");
        assert!(text(dir.path(), "pids.max").starts_with("64"));
        let error = limit(fake(&[]).path(), 64).expect_err("no controller");
        assert!(error.to_string().contains("pids.max = 64"), "{error}");
    }
}
