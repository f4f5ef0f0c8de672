//! A program that prints tokens which the simulator takes, and misbehaves when it is told to.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// Every token begins like this; then come its number and when it ends, Unix milliseconds.
pub const TOKEN: &str = "sb-token-";

/// The program. Each run is a line in `runs`, with its pid; `mode` says what it does, `holds` how
/// long its tokens hold, milliseconds. Its children's pids are in `left`.
const PROGRAM: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 9
echo $$ >> runs
number=$(wc -l < runs)
end=$(($(date +%s%3N) + $(cat holds)))
token="sb-token-$number-$end"
case $(cat mode) in
plain) echo "$token" ;;
json) printf '{"status": {"token": "%s", "expirationTimestamp": "%s"}}\n' "$token" \
    "$(date -u -d "@$((end / 1000))" +%Y-%m-%dT%H:%M:%SZ)" ;;
spy) env > env; ls -l /proc/self/fd > fds; cat /proc/self/status > status; ulimit -c > core
    echo "$token" ;;
slow) sleep 2; echo "$token" ;;
hang) exec sleep 600 ;;
closed) exec sleep 600 < /dev/null > /dev/null 2>&1 ;;
forks) setsid sh -c 'trap "" TERM HUP; echo $$ >> left; sleep 600; :' < /dev/null > /dev/null 2>&1 &
    sleep 600 &
    echo $! >> left
    until [ "$(wc -l < left)" -ge 2 ]; do sleep 0.01; done
    echo "$token" ;;
huge) exec yes sb-token-yes ;;
noisy) yes "noise" | head -c 100000000 >&2; exit 3 ;;
leaks) echo "warning" >&2; echo "token $token refused, password=hunter22 and $SECRET" >&2; exit 1 ;;
fails) echo "ERROR: no account is active" >&2; exit 1 ;;
killed) kill -9 $$ ;;
prose) echo "please log in" ;;
old) printf '{"access_token": "%s", "expires_in": 0}' "$token" ;;
esac
"#;

/// A program that prints tokens.
#[derive(Debug)]
pub struct Minter {
    dir: TempDir,
}

impl Minter {
    /// One in `mode`, whose tokens hold for so long.
    ///
    /// # Panics
    /// When no folder can be made.
    #[must_use]
    pub fn new(mode: &str, holds_ms: u64) -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let minter = Self { dir };
        minter.write("holds", &holds_ms.to_string());
        minter.set_mode(mode);
        minter.write("token", PROGRAM);
        minter.set_permissions(0o755);
        minter
    }

    fn write(&self, name: &str, text: &str) {
        // Renamed into place: it may be read at any moment.
        let part = self.path("part");
        std::fs::write(&part, text).expect("the folder is ours");
        std::fs::rename(part, self.path(name)).expect("the folder is ours");
    }

    /// A file beside the program.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What such a file says; nothing where it is not.
    #[must_use]
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Has it behave otherwise from its next run on.
    ///
    /// # Panics
    /// When its folder is gone.
    pub fn set_mode(&self, mode: &str) {
        self.write("mode", mode);
    }

    /// The mode of its file.
    ///
    /// # Panics
    /// When it is gone.
    pub fn set_permissions(&self, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path("token"), mode).expect("it is ours");
    }

    /// How often it was run.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.pids("runs").len()
    }

    /// The pids in `runs` or `left`.
    #[must_use]
    pub fn pids(&self, name: &str) -> Vec<i32> {
        self.read(name).lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// A description in which it gives the tokens; `more` is more of the section.
    #[must_use]
    pub fn describe(&self, text: &str, more: &str) -> String {
        let auth = text.lines().find(|line| line.starts_with("auth = ")).expect("it has one");
        let program = self.path("token");
        let new = format!("auth = {{ kind = \"command\", command = [{program:?}], {more} }}");
        text.replacen(auth, &new, 1)
    }
}

/// Whether the simulator takes what a header says; `revoked` has the numbers of tokens that it
/// takes no more.
pub(in crate::provider) fn is_good<'a>(header: impl Fn(&str) -> &'a str, revoked: &Path) -> bool {
    let bearer = header("authorization").strip_prefix("Bearer ");
    let token = bearer.or_else(|| header("x-token").strip_prefix("Key ")).unwrap_or_default();
    let Some((number, end)) = token.strip_prefix(TOKEN).and_then(|rest| rest.split_once('-'))
    else {
        return false;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let is_revoked = std::fs::read_to_string(revoked)
        .is_ok_and(|text| text.lines().any(|line| line == number || line == "all"));
    end.parse::<u128>().is_ok_and(|end| now < end) && !is_revoked
}
