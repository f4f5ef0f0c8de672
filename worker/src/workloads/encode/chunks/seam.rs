//! Joins chunks of two encoders: reads their set-ups, and writes the first chunk again with one for
//! all, which the joined file takes over.

use super::super::hls::boxes::head;
use super::set_up::SetUp;
use super::shelf::open_regular;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// The index of a chunk has a few bytes for each picture.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// The set-up for the pictures of all these files of H.264.
///
/// # Errors
/// Why there is none.
pub(super) fn of_all<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<SetUp, String> {
    let mut all: Option<SetUp> = None;
    for path in files {
        let own = Index::read(path).and_then(|index| SetUp::find(&index.body))?;
        all = Some(match all {
            Some(all) => all.with(own)?,
            None => own,
        });
    }
    all.ok_or_else(|| "there are no chunks".to_owned())
}

/// Writes the file again, with another set-up.
///
/// # Errors
/// What cannot be read or written.
pub(super) fn copy_with(set_up: SetUp, from: &Path, to: &Path) -> Result<(), String> {
    let index = Index::read(from)?;
    let body = set_up.into_index(&index.body)?;
    let length = u32::try_from(body.len() + 8).map_err(|_| "its index is too long")?;
    let write = || -> io::Result<()> {
        let (mut from, mut to) = (open_regular(from)?, File::create(to)?);
        io::copy(&mut Read::by_ref(&mut from).take(index.begin), &mut to)?;
        to.write_all(&length.to_be_bytes())?;
        to.write_all(b"moov")?;
        to.write_all(&body)
    };
    write().map_err(|error| format!("cannot write {}: {error}", to.display()))
}

/// The last box of a file: what lies before it stays where it is when its length changes.
struct Index {
    begin: u64,
    /// Without its head.
    body: Vec<u8>,
}

impl Index {
    fn read(path: &Path) -> Result<Self, String> {
        let named = |what: String| format!("{}: {what}", path.display());
        let failed = |error: io::Error| named(format!("it cannot be read: {error}"));
        let mut file = open_regular(path).map_err(failed)?;
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut begin = 0;
        loop {
            file.seek(SeekFrom::Start(begin)).map_err(failed)?;
            let (kind, head, length) = head(&mut file, bytes - begin).map_err(named)?;
            if &kind != b"moov" {
                begin += length;
                continue;
            }
            if begin + length != bytes || head != 8 || length > INDEX_BYTES_MAX {
                return Err(named(format!("its index of {length} bytes is not at its end")));
            }
            let mut body = Vec::new();
            file.read_to_end(&mut body).map_err(failed)?;
            return Ok(Self { begin, body });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 8).expect("tests are small");
        [&length.to_be_bytes()[..], kind, body].concat()
    }

    #[test]
    fn an_index_is_found_at_the_end_and_nowhere_else() {
        let folder = tempfile::tempdir().expect("the temporary folder can be written");
        let path = folder.path().join("chunk.mp4");
        let found = |boxes: &[Vec<u8>]| {
            std::fs::write(&path, boxes.concat()).expect("the folder can be written");
            Index::read(&path).map(|index| (index.begin, index.body))
        };
        let (kind, data, index) =
            (boxed(b"ftyp", b"isom"), boxed(b"mdat", b"pictures"), boxed(b"moov", b"index"));
        let all = [kind.clone(), data.clone(), index.clone()];
        assert_eq!(found(&all), Ok((28, b"index".to_vec())));
        assert!(found(&[kind.clone(), index, data.clone()]).expect_err("front").contains("end"));
        assert!(found(&[kind, data]).expect_err("none").contains("ends within a box"));
    }
}
