//! The background of a composition: one picture, or a film.

use super::super::super::film::facts::Facts;
use super::super::super::film::probe::{self, size_of_file};
use super::super::super::host::Host;
use super::super::super::tools::Tools;
use super::super::details;
use super::super::filters::Look;
use super::graph::Background;
use shiftboss_protocol::job::{Cause, Failure};
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

/// Longest side of a picture, pixels: beyond that it takes gigabytes to decode.
const SIDE_MAX: u32 = 16_384;

/// A background that was opened.
#[derive(Debug)]
pub(super) enum Behind {
    Still(PathBuf, &'static str),
    Film(PathBuf, Box<Facts>, Look),
}

impl Behind {
    pub(super) fn background(&self) -> Background<'_> {
        match self {
            Self::Still(path, reader) => Background::Still(path, reader),
            Self::Film(path, facts, look) => Background::Film(path, facts, look),
        }
    }
}

/// Finds out what a file is: its first bytes name FFmpeg's reader of pictures, everything else is
/// opened as films are.
///
/// # Errors
/// A permanent [`Failure`] that names the file.
pub(super) fn look(host: &dyn Host, tools: &Tools, path: PathBuf) -> Result<Behind, Failure> {
    let refuse = |sentence: String| {
        let message = format!("background {} {sentence}", path.display());
        Failure::permanent(Cause::Error, message)
    };
    size_of_file(&path).map_err(|failure| about_the_background(&failure))?;
    let mut begin = [0; 16];
    let file = File::open(&path).map_err(|error| refuse(format!("cannot be opened: {error}")))?;
    let read = file.take(16).read(&mut begin);
    let length = read.map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let named = |failure: Failure| about_the_background(&failure);
    let Some(reader) = reader(&begin[..length]) else {
        let facts = probe::answer(host, tools, &path).map_err(named)?.facts();
        let facts = facts.ok_or_else(|| refuse("has no video stream".to_owned()))?;
        let details = details::of(host, tools, &path).map_err(named)?;
        let detail = details.stream(facts.video.stream).cloned().unwrap_or_default();
        let look = Look::of(&facts, &detail).map_err(named)?;
        return Ok(Behind::Film(path, Box::new(facts), look));
    };
    let details = details::of_picture(host, tools, &path, reader).map_err(named)?;
    let (width, height) = details.streams.first().map_or((0, 0), |one| (one.width, one.height));
    if width == 0 || height == 0 {
        return Err(refuse("is no picture that can be decoded".to_owned()));
    }
    if width.max(height) > SIDE_MAX {
        let sentence =
            format!("is {width}x{height} pixels, at most {SIDE_MAX} on a side are taken");
        return Err(refuse(sentence));
    }
    Ok(Behind::Still(path, reader))
}

fn about_the_background(failure: &Failure) -> Failure {
    let message = format!("the background cannot be used: {}", failure.message);
    Failure { message, ..failure.clone() }
}

/// FFmpeg's reader for a picture that begins like this. Named, because its own choice for a name
/// that ends with .png or .jpg would be the reader of whole folders of pictures.
fn reader(begin: &[u8]) -> Option<&'static str> {
    match begin {
        [0x89, b'P', b'N', b'G', ..] => Some("png_pipe"),
        [0xFF, 0xD8, 0xFF, ..] => Some("jpeg_pipe"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("webp_pipe"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_told_by_their_first_bytes() {
        assert_eq!(reader(b"\x89PNG\r\n\x1a\n"), Some("png_pipe"));
        assert_eq!(reader(b"\xFF\xD8\xFF\xE0"), Some("jpeg_pipe"));
        assert_eq!(reader(b"RIFF\0\0\0\0WEBPVP8 "), Some("webp_pipe"));
        assert_eq!(reader(b"RIFF\0\0\0\0AVI LIST"), None);
        assert_eq!(reader(b"\x89P"), None);
        assert_eq!(reader(b""), None);
    }
}
