//! Paths in payloads: how they are written, and which of them a job may name.
//!
//! A payload grants itself nothing: the type's roots bound every path in it, after links are
//! resolved, and the supervisor's own files are never among them.

use percent_encoding::percent_decode_str;
use shiftboss_protocol::job::{Cause, Failure};
use shiftboss_protocol::message::Settings;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Folders in which the kernel shows itself, other processes and devices.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The one of these that is a folder of ordinary files.
const SHARED_MEMORY: &str = "/dev/shm";

/// The path that a payload's `field` names: an absolute path, or a `file://` URI in which bytes
/// that are not UTF-8 are percent-encoded.
///
/// # Errors
/// A permanent [`Failure`] with cause [`Cause::Payload`] that names `field`.
pub fn parse_path(field: &str, text: &str) -> Result<PathBuf, Failure> {
    let refuse = |reason: &str| {
        let shown: String = text.chars().take(200).collect();
        Err(Failure::permanent(
            Cause::Payload,
            format!("payload field {field}: path {shown:?} {reason}"),
        ))
    };
    let bytes = match strip_scheme(text) {
        None => text.as_bytes().to_vec(),
        Some(rest) => {
            let encoded = rest.strip_prefix("localhost").unwrap_or(rest);
            if !encoded.starts_with('/') {
                return refuse("names another host, write file:///folder/name");
            }
            if encoded.contains(['?', '#']) {
                return refuse("holds ? or #, which a file:// URI writes as %3F or %23");
            }
            if !is_well_encoded(encoded.as_bytes()) {
                return refuse("holds a % that is not followed by two hexadecimal digits");
            }
            percent_decode_str(encoded).collect()
        }
    };
    if bytes.contains(&0) {
        return refuse("holds a zero byte");
    }
    if bytes.first() != Some(&b'/') {
        return refuse("is not absolute, write it from / or as a file:// URI");
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

/// Checks that a job may read `path` and returns it with all links resolved. The path must
/// exist.
///
/// # Errors
/// A permanent [`Failure`] that names `field`, the path and what is allowed.
pub fn check_read(settings: &Settings, field: &str, path: &Path) -> Result<PathBuf, Failure> {
    let real = path.canonicalize().map_err(|error| out_of_reach(field, path, &error))?;
    check_reach(settings, field, path, &real)?;
    check_roots("read", &settings.read_roots, field, path, &real)?;
    Ok(real)
}

/// Checks that a job may write `path` and returns it with all links resolved. The path itself
/// need not exist, but its parent must.
///
/// # Errors
/// A permanent [`Failure`] that names `field`, the path and what is allowed.
pub fn check_write(settings: &Settings, field: &str, path: &Path) -> Result<PathBuf, Failure> {
    let real = resolve_target(path).map_err(|error| out_of_reach(field, path, &error))?;
    check_reach(settings, field, path, &real)?;
    check_roots("write", &settings.write_roots, field, path, &real)?;
    Ok(real)
}

fn strip_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case("file://").then_some(rest)
}

fn is_well_encoded(text: &[u8]) -> bool {
    text.iter().enumerate().filter(|(_, byte)| **byte == b'%').all(|(at, _)| {
        text.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// A path that exists (also as a dangling link) is resolved whole, so that a link in its last
/// place cannot lead out; of a new one the parent is resolved.
fn resolve_target(path: &Path) -> io::Result<PathBuf> {
    if path.symlink_metadata().is_ok() {
        return path.canonicalize();
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn out_of_reach(field: &str, path: &Path, error: &io::Error) -> Failure {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "is not within reach of the supervisor's user".into(),
        _ => format!("cannot be resolved: {error}"),
    };
    Failure::permanent(
        Cause::Payload,
        format!("payload field {field}: {} {reason}", path.display()),
    )
}

/// Whether the path holds none of the supervisor's own files and lies in none of its folders.
pub(crate) fn is_apart(settings: &Settings, real: &Path) -> bool {
    check_reach(settings, "", real, real).is_ok()
}

/// The supervisor's own files are out of reach, and so is every folder that holds them.
fn check_reach(settings: &Settings, field: &str, path: &Path, real: &Path) -> Result<(), Failure> {
    let is_kernels = |folder: &&&str| real.starts_with(folder) && !real.starts_with(SHARED_MEMORY);
    if let Some(folder) = KERNEL.iter().find(is_kernels) {
        return Err(Failure::permanent(
            Cause::Payload,
            format!(
                "payload field {field}: {} lies in {folder}, which is the kernel's and no folder \
                 of files; devices are given to a type by its key devices",
                path.display()
            ),
        ));
    }
    let inside = |forbidden: &String| {
        let forbidden = resolved_root(forbidden);
        real.starts_with(&forbidden)
            || forbidden.starts_with(real)
            || is_beside_database(&forbidden, real)
    };
    match settings.forbidden.iter().find(|forbidden| inside(forbidden)) {
        None => Ok(()),
        Some(forbidden) => Err(Failure::permanent(
            Cause::Payload,
            format!(
                "payload field {field}: {} is inside or above {forbidden}, which belongs to the \
                 supervisor: no job may name it",
                path.display()
            ),
        )),
    }
}

/// `-wal`, `-shm` and lock files carry the database's name with something behind it.
fn is_beside_database(forbidden: &Path, real: &Path) -> bool {
    let (Some(own), Some(name)) = (forbidden.file_name(), real.file_name()) else { return false };
    let (own, name) = (own.as_bytes(), name.as_bytes());
    real.parent() == forbidden.parent()
        && forbidden.is_file()
        && name
            .strip_prefix(own)
            .is_some_and(|rest| rest.starts_with(b"-") || rest.starts_with(b"."))
}

fn check_roots(
    action: &str,
    roots: &[String],
    field: &str,
    path: &Path,
    real: &Path,
) -> Result<(), Failure> {
    if roots.is_empty() || roots.iter().any(|root| real.starts_with(resolved_root(root))) {
        return Ok(());
    }
    let leads = if real == path { String::new() } else { format!(" (it is {})", real.display()) };
    Err(Failure::permanent(
        Cause::Payload,
        format!(
            "payload field {field}: {}{leads} lies outside the folders that this type may \
             {action}: {}",
            path.display(),
            roots.join(", ")
        ),
    ))
}

/// A root may itself be a link; one that does not exist yet is compared as it is written.
fn resolved_root(root: &str) -> PathBuf {
    Path::new(root).canonicalize().unwrap_or_else(|_| PathBuf::from(root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    fn message(result: Result<PathBuf, Failure>) -> String {
        let failure = result.expect_err("the path is refused");
        assert!(failure.permanent);
        assert_eq!(failure.cause, Cause::Payload);
        failure.message
    }

    #[test]
    fn absolute_paths_and_file_uris_name_the_same_file() {
        let plain = parse_path("input", "/srv/a b.mp4").expect("absolute");
        assert_eq!(plain, parse_path("input", "file:///srv/a%20b.mp4").expect("uri"));
        assert_eq!(plain, parse_path("input", "FILE://localhost/srv/a%20b.mp4").expect("uri"));
        let bytes = parse_path("input", "file:///srv/%FF%fe").expect("not UTF-8");
        assert_eq!(bytes.as_os_str().as_bytes(), b"/srv/\xff\xfe");
        assert_eq!(parse_path("i", "/srv/100%25").expect("plain").as_os_str(), "/srv/100%25");
    }

    #[test]
    fn a_path_that_cannot_be_meant_is_refused_with_the_field_named() {
        for text in
            ["", "film.mp4", "./x", "file://host/x", "file:///a%0", "file:///a%00b", "/a\0b"]
        {
            let message = message(parse_path("inputs[2]", text));
            assert!(message.starts_with("payload field inputs[2]: path "), "{message}");
        }
        assert!(message(parse_path("i", "file:///a?b")).contains("%3F"));
    }

    #[test]
    fn a_link_cannot_lead_out_of_the_roots() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let root = folder.path().join("root");
        std::fs::create_dir(&root).expect("root");
        std::fs::write(folder.path().join("secret"), "x").expect("secret");
        std::fs::write(root.join("film"), "x").expect("film");
        symlink("../secret", root.join("link")).expect("link");
        symlink("../new", root.join("dangling")).expect("link");
        let roots = vec![root.to_str().expect("UTF-8").to_owned()];
        let settings =
            Settings { read_roots: roots.clone(), write_roots: roots, ..Settings::default() };
        check_read(&settings, "input", &root.join("film")).expect("inside");
        check_write(&settings, "output_dir", &root.join("out")).expect("inside and new");
        let read = message(check_read(&settings, "input", &root.join("link")));
        assert!(read.contains("lies outside the folders that this type may read"), "{read}");
        message(check_read(&settings, "input", &root.join("../secret")));
        message(check_write(&settings, "output_dir", &root.join("link")));
        message(check_write(&settings, "output_dir", &root.join("dangling")));
        message(check_write(&settings, "output_dir", &root.join("../new")));
        message(check_write(&settings, "output_dir", &root.join("no/such/parent")));
    }

    #[test]
    fn the_supervisors_files_are_out_of_reach_from_inside_and_from_above() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let database = folder.path().join("jobs.db");
        for name in ["jobs.db", "jobs.db-wal", "film.mp4"] {
            std::fs::write(folder.path().join(name), "x").expect("file");
        }
        let settings = Settings {
            forbidden: vec![database.to_str().expect("UTF-8").to_owned()],
            ..Settings::default()
        };
        check_read(&settings, "input", &folder.path().join("film.mp4")).expect("beside it");
        message(check_read(&settings, "input", &database));
        message(check_read(&settings, "input", folder.path()));
        message(check_write(&settings, "output", Path::new("/")));
        message(check_write(&settings, "output", &folder.path().join("jobs.db-wal")));
    }

    proptest! {
        #[test]
        fn parse_path_never_panics_and_never_returns_a_relative_path(text in "\\PC*") {
            for text in [text.clone(), format!("file://{text}"), format!("file:///{text}")] {
                if let Ok(path) = parse_path("input", &text) {
                    prop_assert!(path.is_absolute());
                }
            }
        }
    }
}
