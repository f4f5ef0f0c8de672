//! What a file is, by how it begins: a page of HTML is not a film, whatever its name is.

use shiftboss_provider::description::Kind;

/// Bytes that are looked at.
pub(super) const BYTES: usize = 16;

/// How a file that begins like this is named, when it is of `kind`.
///
/// # Errors
/// A sentence: it is something else.
pub(super) fn ending(kind: Kind, start: &[u8]) -> Result<&'static str, String> {
    let found = recognise(start);
    let is_wanted = match (kind, found) {
        (Kind::Any, _) => true,
        (_, None) => false,
        (wanted, Some((kind, _))) => kind == wanted,
    };
    if is_wanted {
        return Ok(found.map_or("bin", |(_, ending)| ending));
    }
    let wanted = match kind {
        Kind::Any | Kind::Video => "a film",
        Kind::Image => "a picture",
        Kind::Audio => "sound",
    };
    let shown: String = start.escape_ascii().to_string();
    Err(format!("it is not {wanted}: it begins with \"{shown}\""))
}

fn recognise(start: &[u8]) -> Option<(Kind, &'static str)> {
    let at =
        |place: usize, text: &[u8]| start.get(place..).is_some_and(|rest| rest.starts_with(text));
    if at(4, b"ftyp") {
        let brand = start.get(8..12).unwrap_or_default();
        return Some(match brand {
            b"avif" | b"avis" | b"heic" | b"mif1" => (Kind::Image, "avif"),
            b"M4A " | b"M4B " => (Kind::Audio, "m4a"),
            b"qt  " => (Kind::Video, "mov"),
            _ => (Kind::Video, "mp4"),
        });
    }
    let plain: [(&[u8], Kind, &str); 9] = [
        (b"\x1aE\xdf\xa3", Kind::Video, "webm"),
        (b"\x89PNG\r\n\x1a\n", Kind::Image, "png"),
        (b"\xff\xd8\xff", Kind::Image, "jpg"),
        (b"GIF8", Kind::Image, "gif"),
        (b"ID3", Kind::Audio, "mp3"),
        (b"fLaC", Kind::Audio, "flac"),
        (b"OggS", Kind::Audio, "ogg"),
        (b"\xff\xfb", Kind::Audio, "mp3"),
        (b"\xff\xf3", Kind::Audio, "mp3"),
    ];
    if let Some((_, kind, ending)) = plain.into_iter().find(|(text, _, _)| at(0, text)) {
        return Some((kind, ending));
    }
    if !at(0, b"RIFF") {
        return None;
    }
    match start.get(8..12)? {
        b"WEBP" => Some((Kind::Image, "webp")),
        b"WAVE" => Some((Kind::Audio, "wav")),
        b"AVI " => Some((Kind::Video, "avi")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_how_they_begin() {
        assert_eq!(ending(Kind::Video, b"\0\0\0\x20ftypisom\0\0\0\0"), Ok("mp4"));
        assert_eq!(ending(Kind::Image, b"\x89PNG\r\n\x1a\n"), Ok("png"));
        assert_eq!(ending(Kind::Audio, b"RIFF\0\0\0\0WAVE"), Ok("wav"));
        assert_eq!(ending(Kind::Any, b"{}"), Ok("bin"));
        for start in [&b"<!doctype html>"[..], b"", b"\x89PNG\r\n\x1a\n", b"RIFF"] {
            let refusal = ending(Kind::Video, start).expect_err("no film");
            assert!(refusal.starts_with("it is not a film"), "{refusal}");
        }
    }
}
