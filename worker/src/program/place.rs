//! A file or folder that a program sees.

use std::path::{Path, PathBuf};

/// A file or folder that a program sees: under the name by which its job knows it, and under
/// its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where the program sees it. Absolute.
    pub named: PathBuf,
    /// The file itself, without links; the program sees it there too. Absolute.
    pub real: PathBuf,
}

impl Place {
    /// What was named, and what [`crate::check_read`] or [`crate::check_write`] found there.
    #[must_use]
    pub fn checked(named: &Path, real: &Path) -> Self {
        Self { named: named.to_owned(), real: real.to_owned() }
    }
}

/// The path as it is, for those of the workload itself. Its links are followed now; one that
/// does not exist is told when the program is started.
impl<P: AsRef<Path>> From<P> for Place {
    fn from(path: P) -> Self {
        let named = path.as_ref();
        let real = named.canonicalize().unwrap_or_else(|_| named.to_owned());
        Self { named: named.to_owned(), real }
    }
}
