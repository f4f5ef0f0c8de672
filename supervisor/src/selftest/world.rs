//! The staged world: a folder with the baits, the hostile program and its plans. Everything in it
//! ends with it.

use super::attempts::traces;
use super::listeners::Listeners;
use super::plan::{Phase, Plan};
use super::stand_in;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The staged world.
pub(super) struct World {
    folder: PathBuf,
    keep: bool,
    /// Random, in the name of everything that the hostile program makes.
    pub(super) token: String,
    /// What no hostile program may ever have seen: content of the baits.
    pub(super) secret: String,
    pub(super) listeners: Listeners,
}

impl World {
    /// Makes a folder below `parent` with everything in it.
    pub(super) fn build(parent: &Path, program: &Path, keep: bool) -> io::Result<Self> {
        let (token, secret) = (random_word()?, random_word()?);
        let token = format!("shiftboss-selftest-{token}");
        let folder = parent.join(&token);
        fs::create_dir(&folder)?;
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&folder, open)?;
        let listeners = Listeners::open(&folder.join("service.sock"), &token);
        let listeners = listeners.inspect_err(|_| {
            let _ = fs::remove_dir_all(&folder);
        })?;
        // From here on, dropping removes what was made.
        let world = Self { folder, keep, token, secret, listeners };
        for name in ["in", "other", "outside", "out", "tools"] {
            fs::create_dir(world.path(name))?;
        }
        fs::set_permissions(world.path("outside"), fs::Permissions::from_mode(0o777))?;
        fs::set_permissions(world.path("out"), fs::Permissions::from_mode(0o777))?;
        fs::write(world.other_input(), format!("{}\n", world.secret).repeat(64))?;
        world.stage_program(program)?;
        Ok(world)
    }

    /// Copies, because of a tool that lies elsewhere a cage shows the file alone.
    fn stage_program(&self, program: &Path) -> io::Result<()> {
        for name in [stand_in::FFMPEG, stand_in::FFPROBE, "shiftboss"] {
            let copy = self.path("tools").join(name);
            fs::hard_link(program, &copy).or_else(|_| fs::copy(program, &copy).map(|_| ()))?;
        }
        self.stage_setuid_copy()
    }

    /// It can do nothing but say who it is; and where we are root it belongs to the user who owns
    /// nothing, so that nobody on this host gains by it.
    fn stage_setuid_copy(&self) -> io::Result<()> {
        const NOBODY: u32 = 65_534;
        let copy = self.setuid_copy();
        fs::copy("/usr/bin/id", &copy)?;
        // Only root can; another user's copy is its own, and can gain nothing.
        let _ = std::os::unix::fs::chown(&copy, Some(NOBODY), Some(NOBODY));
        fs::set_permissions(copy, fs::Permissions::from_mode(0o4755))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The hostile program.
    pub(super) fn program(&self) -> PathBuf {
        self.path("tools").join("shiftboss")
    }

    pub(super) fn setuid_copy(&self) -> PathBuf {
        self.path("in").join("id")
    }

    pub(super) fn other_input(&self) -> PathBuf {
        self.path("other").join("film.mp4")
    }

    /// A new output folder; outputs of different jobs must not be taken for each other.
    pub(super) fn output(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.path("out").join(name);
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        Ok(folder)
    }

    /// Writes the plan of a phase for a type into the input folder and returns where.
    pub(super) fn write_plan(&self, name: &str, phase: Phase, plan: &Plan) -> io::Result<PathBuf> {
        let own_input = self.path("in").join(format!("{name}.plan"));
        let plan = Plan { phase, own_input: own_input.clone(), ..plan.clone() };
        fs::write(&own_input, serde_json::to_vec_pretty(&plan)?)?;
        Ok(own_input)
    }

    /// What of the hostile program lies where it must not, by attempt; removes it.
    pub(super) fn traces(&self, plan: &Plan) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        for (name, path) in traces(plan) {
            if path.symlink_metadata().is_ok() {
                found.push((name, format!("{} is there", path.display())));
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
            }
        }
        found
    }

    /// Whether a bait has changed.
    pub(super) fn damage(&self) -> Option<String> {
        let expected = format!("{}\n", self.secret).repeat(64);
        match fs::read_to_string(self.other_input()) {
            Ok(text) if text == expected => None,
            Ok(_) => Some("the other job's input was changed".to_owned()),
            Err(error) => Some(format!("the other job's input: {error}")),
        }
    }

    /// Files below a folder that hold the secret, or lead to it.
    pub(super) fn leaks(&self, folder: &Path) -> Option<String> {
        let Ok(entries) = fs::read_dir(folder) else { return None };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(facts) = path.symlink_metadata() else { continue };
            if facts.is_dir() {
                if let Some(leak) = self.leaks(&path) {
                    return Some(leak);
                }
            } else if facts.is_symlink() {
                return Some(format!("{} is a link", path.display()));
            } else if let Ok(bytes) = fs::read(&path)
                && bytes.windows(self.secret.len()).any(|part| part == self.secret.as_bytes())
            {
                return Some(format!("{} holds a bait's content", path.display()));
            }
        }
        None
    }

    /// Processes that still run with a plan of this world.
    pub(super) fn left_behind(&self) -> Vec<i32> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
        let is_ours = |pid: &i32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).into_owned();
            words.contains("\0--inside\0") && words.contains(&self.token)
        };
        pids.filter(is_ours).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn random_word() -> io::Result<String> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
