//! What outputs are called, and how paths are written in results.

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Longest stem of an output, bytes: with a hash, `-4320p.mp4` and room for a user's own suffix
/// below the 255 of most file systems.
const STEM_BYTES_MAX: usize = 200;

/// What a `file://` URI writes with a percent sign besides bytes that are not ASCII.
const URI: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`');

/// `<stem of the input>-<rung>.mp4`, see [`file_name`].
pub(crate) fn output_name(input: &Path, rung: &str) -> String {
    file_name(input, rung, "mp4")
}

/// `<stem of the input>-<what>.<extension>`, see [`folder_name`].
pub(crate) fn file_name(input: &Path, what: &str, extension: &str) -> String {
    format!("{}.{extension}", folder_name(input, what))
}

/// `<stem of the input>-<what>`.
///
/// The stem is the input's name without its last extension. It is kept as it is when it is
/// plain: UTF-8 of at most [`STEM_BYTES_MAX`] bytes, without control characters and
/// `" \ / : * ? < > |`, not beginning with a dot or a dash. Otherwise what is not plain becomes
/// `_`, and eight hexadecimal digits that stand for the original bytes follow, so that two
/// inputs whose names differ only there do not meet.
pub(crate) fn folder_name(input: &Path, what: &str) -> String {
    let stem = input.file_stem().unwrap_or_default();
    let mut plain: String = String::new();
    for (at, letter) in stem.to_string_lossy().chars().enumerate() {
        let is_strange = letter.is_control()
            || matches!(letter, '"' | '\\' | '/' | ':' | '*' | '?' | '<' | '>' | '|')
            || letter == char::REPLACEMENT_CHARACTER
            || (at == 0 && matches!(letter, '.' | '-'));
        let letter = if is_strange { '_' } else { letter };
        if plain.len() + letter.len_utf8() > STEM_BYTES_MAX {
            break;
        }
        plain.push(letter);
    }
    if plain.as_bytes() != stem.as_bytes() {
        plain.push_str(&format!("-{:08x}", fingerprint(stem.as_bytes())));
    }
    format!("{plain}-{what}")
}

/// FNV-1a: no secret, the same on every machine and in every version.
fn fingerprint(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// A path in the form in which payloads take it: text, or a `file://` URI when it is not UTF-8.
pub(crate) fn path_text(path: &Path) -> String {
    match path.to_str() {
        Some(text) => text.to_owned(),
        None => format!("file://{}", percent_encode(path.as_os_str().as_bytes(), URI)),
    }
}

/// A file name as a relative URL.
pub(crate) fn url_of(name: &str) -> String {
    percent_encode(name.as_bytes(), URI).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn named(bytes: &[u8]) -> String {
        output_name(&Path::new("/in").join(OsStr::from_bytes(bytes)), "720p")
    }

    #[test]
    fn plain_names_are_kept() {
        assert_eq!(named(b"film.mp4"), "film-720p.mp4");
        assert_eq!(named(b"Bob's film (2), part.1.mkv"), "Bob's film (2), part.1-720p.mp4");
        assert_eq!(named("Überfilm 映画.mov".as_bytes()), "Überfilm 映画-720p.mp4");
        assert_eq!(named(b"film"), "film-720p.mp4");
    }

    #[test]
    fn strange_names_become_plain_and_stay_apart() {
        let strange: [&[u8]; 7] = [
            b"a\"b.mp4",
            b"a\nb.mp4",
            b"a\xffb.mp4",
            b"a\xfeb.mp4",
            b"-i.mp4",
            b".hid.mp4",
            b"_i.mp4",
        ];
        let names: Vec<String> = strange.iter().map(|name| named(name)).collect();
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{name}");
            assert!(name.is_ascii() && !name.contains(['\n', '"']) && name.ends_with("-720p.mp4"));
        }
        assert!(names[0].starts_with("a_b-") && names[4].starts_with("_i-"));
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let long = "ü".repeat(127);
        let name = named(long.as_bytes());
        assert!(name.len() < 255 && name.starts_with("üü") && name.ends_with("-720p.mp4"));
    }

    #[test]
    fn paths_are_written_as_payloads_take_them() {
        for bytes in [&b"/a b/\"c\n"[..], b"/a%20\xff/b c\n?#%"] {
            let path = Path::new(OsStr::from_bytes(bytes));
            let text = path_text(path);
            assert_eq!(crate::path::parse_path("input", &text).expect("it is a path"), path);
        }
        assert!(path_text(Path::new(OsStr::from_bytes(b"/\xff"))).starts_with("file:///%FF"));
    }
}
