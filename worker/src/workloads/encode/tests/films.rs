//! The film that comes with the workspace, where there is one.

use std::path::{Path, PathBuf};

/// `SHIFTBOSS_TEST_MEDIA` names the folder; otherwise it lies beside the workspace.
pub(super) fn supplied() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/media");
    let folder = std::env::var_os("SHIFTBOSS_TEST_MEDIA").map_or(beside, PathBuf::from);
    let film = folder.join("bigbuckbunny.mp4");
    if film.is_file() {
        return Some(film);
    }
    skip(&format!("there is no {}, set SHIFTBOSS_TEST_MEDIA", film.display()));
    None
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(super) fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}
