//! Whether what lies at a path is the operator's: a file that says what is run with a service's
//! rights, or is run, must not be another user's to change.

/// What is known of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its owner's number.
    pub owner: u32,
    /// Its mode, as of stat(2).
    pub mode: u32,
    /// It is a folder.
    pub is_folder: bool,
}

/// Bits of a mode: writing by group and others, and the sticky bit.
const WRITTEN_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Judges one place of the way to a file, or the file: only root and `user` may change it.
///
/// # Errors
/// A sentence that names `place`.
pub fn judge(place: &str, facts: Facts, user: u32) -> Result<(), String> {
    let Facts { owner, mode, is_folder } = facts;
    if owner != 0 && owner != user {
        return Err(format!("{place} belongs to user {owner}, neither to root nor to user {user}"));
    }
    // In a folder with the sticky bit, such as /tmp, nobody can replace the files of others.
    if mode & WRITTEN_BY_OTHERS != 0 && !(is_folder && mode & STICKY != 0) {
        let mode = mode & 0o7777;
        return Err(format!("{place} can be written by others than its owner (mode {mode:o})"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_can_change_is_refused_and_named() {
        let judged = |owner, mode, is_folder| judge("/x", Facts { owner, mode, is_folder }, 7);
        for (owner, mode, is_folder) in [
            (0, 0o755, false),
            (7, 0o700, false),
            (0, 0o40755, true),
            (0, 0o41777, true),
            (7, 0o644, false),
        ] {
            assert_eq!(judged(owner, mode, is_folder), Ok(()), "{owner} {mode:o}");
        }
        for (owner, mode, is_folder, told) in [
            (8, 0o755, false, "belongs to user 8, neither to root nor to user 7"),
            (0, 0o775, false, "written by others than its owner (mode 775)"),
            (0, 0o757, false, "written by others than its owner (mode 757)"),
            (0, 0o101777, false, "written by others than its owner (mode 1777)"),
            (0, 0o42775, true, "written by others than its owner (mode 2775)"),
        ] {
            let why = judged(owner, mode, is_folder).expect_err(told);
            assert!(why.starts_with("/x ") && why.contains(told), "{why}");
        }
    }
}
