//! Where things lie when nobody says so: the file, the database, the working and the runtime
//! directory, the worker program. Nothing is created here, and no database is opened.

use super::problem::{ConfigError, Origin};
use super::{Config, LoadOptions};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Largest configuration file, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

const WORKER_PROGRAM: &str = "shiftboss-worker";

/// The first file found, with its text.
pub(crate) fn read_file(options: &LoadOptions) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let named = options.config.clone().or_else(|| {
        options.environment.get("SHIFTBOSS_CONFIG").filter(|p| !p.is_empty()).map(PathBuf::from)
    });
    if let Some(path) = named {
        let path = options.cwd.join(path);
        return match read_text(&path) {
            Ok(text) => Ok(Some((path, text))),
            Err(source) => Err(ConfigError::Unreadable { path, source }),
        };
    }
    for path in [options.cwd.join("shiftboss.toml"), options.system_config.clone()] {
        match read_text(&path) {
            Ok(text) => return Ok(Some((path, text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A file that exists is meant to be used: going on without it would run with
            // settings that nobody chose.
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        }
    }
    Ok(None)
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let sentence = format!("larger than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, sentence));
    }
    Ok(text)
}

/// Names, sizes and times of the files in a folder, to see that something in it has changed.
pub(crate) fn listing(folder: &Path) -> Vec<(PathBuf, u64, Option<SystemTime>)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let facts = entry.metadata().ok()?;
            Some((entry.path(), facts.len(), facts.modified().ok()))
        })
        .collect();
    found.sort();
    found
}

/// The first absolute directory of a variable that may list several, as systemd sets it.
fn directory(options: &LoadOptions, name: &str) -> Option<(PathBuf, Origin)> {
    let first = options.environment.get(name)?.split(':').next()?;
    let path = Path::new(first);
    path.is_absolute().then(|| (path.to_owned(), Origin::Environment { name: name.to_owned() }))
}

/// `$STATE_DIRECTORY`, else beside the database.
pub(crate) fn work_dir(options: &LoadOptions, database: &Path) -> (PathBuf, Origin) {
    directory(options, "STATE_DIRECTORY")
        .unwrap_or_else(|| (beside(database, ".work"), Origin::Default))
}

/// `$RUNTIME_DIRECTORY`, else a directory per database below the user's own runtime directory,
/// else one below /tmp, whose ownership whoever uses it must check.
pub(crate) fn runtime_dir(options: &LoadOptions, database: &Path) -> (PathBuf, Origin) {
    if let Some(given) = directory(options, "RUNTIME_DIRECTORY") {
        return given;
    }
    let hash = hash_of(&real_path(database));
    match directory(options, "XDG_RUNTIME_DIR") {
        Some((base, origin)) => (base.join("shiftboss").join(hash), origin),
        None => {
            let base = PathBuf::from(format!("/tmp/shiftboss-{}", options.uid));
            (base.join(hash), Origin::Default)
        }
    }
}

/// A name that lies beside `path` and starts with its name.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

impl Config {
    /// The file that this instance keeps locked for life, beside the database.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.lock_file_of(&self.instance)
    }

    /// Names of all instances that ever had a lock on this database.
    #[must_use]
    pub fn instance_names(&self) -> BTreeSet<String> {
        let real = real_path(&self.database);
        let (Some(folder), Some(file)) = (real.parent(), real.file_name()) else {
            return BTreeSet::new();
        };
        let prefix = format!("{}.", file.to_string_lossy());
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let name =
            |file: String| Some(file.strip_prefix(&prefix)?.strip_suffix(".lock")?.to_owned());
        entries.filter_map(|entry| name(entry.file_name().into_string().ok()?)).collect()
    }

    /// Tells the instance of that name on this database from all others on this host: 16
    /// hexadecimal digits.
    #[must_use]
    pub fn mark_of(&self, instance: &str) -> String {
        // Nothing of a path is zero, so no two pairs have the same text.
        hash_of(&beside(&real_path(&self.database), &format!("\0{instance}")))
    }

    /// The lock file of the instance of that name on this database.
    #[must_use]
    pub fn lock_file_of(&self, instance: &str) -> PathBuf {
        // Beside the file itself: a link to it must not be another database.
        beside(&real_path(&self.database), &format!(".{instance}.lock"))
    }
}

/// The database's path without links, so that everybody who means the same file finds the same
/// supervisor. The file need not exist yet.
pub(crate) fn real_path(database: &Path) -> PathBuf {
    if let Ok(real) = fs::canonicalize(database) {
        return real;
    }
    match (database.parent().map(fs::canonicalize), database.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => database.to_owned(),
    }
}

/// 16 hexadecimal digits: short, because a socket's whole path has at most 107 bytes.
fn hash_of(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    digest.iter().take(8).fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes every write");
        text
    })
}

/// The worker program beside our own, else the one in PATH, else its bare name.
pub(crate) fn worker(options: &LoadOptions) -> PathBuf {
    let own_folder = options.executable.as_deref().and_then(Path::parent).map(Path::to_owned);
    let path = options.environment.get("PATH").map(String::as_str).unwrap_or_default();
    own_folder
        .into_iter()
        .chain(path.split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from))
        .map(|folder| folder.join(WORKER_PROGRAM))
        .find(|program| program.is_file())
        .unwrap_or_else(|| WORKER_PROGRAM.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_found_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let mut options = LoadOptions::plain(folder.path());
        let found =
            |options: &LoadOptions| read_file(options).expect("readable").map(|(path, _)| path);
        assert_eq!(found(&options), None);
        options.system_config = at("system.toml");
        for (name, setting) in [("system.toml", 0), ("shiftboss.toml", 1), ("v.toml", 2), ("c", 3)]
        {
            fs::write(at(name), "").expect("written");
            if setting == 2 {
                options.environment.insert("SHIFTBOSS_CONFIG".into(), "v.toml".into());
            } else if setting == 3 {
                options.config = Some("c".into());
            }
            assert_eq!(found(&options), Some(at(name)));
        }
    }

    #[test]
    fn a_file_that_was_asked_for_or_exists_must_be_readable() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = LoadOptions::plain(folder.path());
        fs::create_dir(folder.path().join("shiftboss.toml")).expect("made");
        let error = read_file(&options).expect_err("a folder is no file").to_string();
        assert!(error.starts_with("cannot read configuration file /"), "{error}");
        options.config = Some("missing.toml".into());
        assert!(matches!(read_file(&options), Err(ConfigError::Unreadable { .. })));
        fs::write(folder.path().join("big"), vec![b'#'; 1 << 21]).expect("written");
        options.config = Some("big".into());
        let Err(ConfigError::Unreadable { source, .. }) = read_file(&options) else {
            panic!("a huge file is refused");
        };
        assert!(source.to_string().contains("larger than"), "{source}");
    }

    #[test]
    fn the_runtime_directory_depends_on_the_real_database() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("real")).expect("made");
        std::os::unix::fs::symlink("real", folder.path().join("link")).expect("linked");
        let mut options = LoadOptions::plain(folder.path());
        let at = |name: &str| folder.path().join(name);
        let (real, origin) = runtime_dir(&options, &at("real/s.db"));
        assert_eq!((runtime_dir(&options, &at("link/s.db")).0, origin), (real, Origin::Default));
        assert_ne!(
            runtime_dir(&options, &at("real/s.db")),
            runtime_dir(&options, &at("real/t.db"))
        );
        assert!(runtime_dir(&options, &at("s.db")).0.starts_with("/tmp/shiftboss-1000"));
        options.environment.insert("XDG_RUNTIME_DIR".into(), "/run/user/1000".into());
        let (path, _) = runtime_dir(&options, &at("s.db"));
        assert!(path.starts_with("/run/user/1000/shiftboss"), "{path:?}");
        assert_eq!(path.file_name().map(std::ffi::OsStr::len), Some(16));
        options.environment.insert("RUNTIME_DIRECTORY".into(), "/run/a:/run/b".into());
        assert_eq!(runtime_dir(&options, &at("s.db")).0, Path::new("/run/a"));
    }

    #[test]
    fn the_worker_beside_our_program_is_preferred() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = LoadOptions::plain(folder.path());
        assert_eq!(worker(&options), Path::new("shiftboss-worker"));
        for name in ["path", "own"] {
            let program = folder.path().join(name).join("shiftboss-worker");
            fs::create_dir(folder.path().join(name)).expect("made");
            fs::write(&program, "").expect("written");
            if name == "path" {
                let path = format!("/nowhere:{}", folder.path().join(name).display());
                options.environment.insert("PATH".into(), path);
            } else {
                options.executable = Some(folder.path().join("own/shiftboss"));
            }
            assert_eq!(worker(&options), program);
        }
    }
}
