//! What a master playlist calls the codec of a rendition (RFC 6381 and the codecs' own
//! specifications), read from its sample description. Pure.

use super::boxes::{children, find};
use std::fmt::Write as _;

/// Bytes of a picture's and of a sound's sample entry before the boxes in it.
const PICTURE_ENTRY: usize = 78;
const SOUND_ENTRY: usize = 28;

/// The codec of the first entry of `stsd`.
///
/// # Errors
/// What cannot be read, or which codec has no name here.
pub(super) fn codec(stsd: &[u8]) -> Result<String, String> {
    let entries = stsd.get(8..).unwrap_or_default();
    let Some((kind, entry)) = children(entries).next() else {
        return Err("it describes no samples".to_owned());
    };
    let boxes = |skip: usize| entry.get(skip..).unwrap_or_default();
    let name = match &kind {
        b"avc1" => avc(find(boxes(PICTURE_ENTRY), b"avcC")?),
        b"hvc1" => hevc(find(boxes(PICTURE_ENTRY), b"hvcC")?),
        b"av01" => av1(find(boxes(PICTURE_ENTRY), b"av1C")?),
        b"vp09" => vp9(find(boxes(PICTURE_ENTRY), b"vpcC")?),
        b"mp4a" => aac(find(boxes(SOUND_ENTRY), b"esds")?),
        other => {
            return Err(format!("its codec {} has no name", String::from_utf8_lossy(other)));
        }
    };
    name.ok_or_else(|| format!("its box for {} is cut", String::from_utf8_lossy(&kind)))
}

fn avc(set_up: &[u8]) -> Option<String> {
    let [profile, compatible, level] = set_up.get(1..4)?.try_into().ok()?;
    Some(format!("avc1.{profile:02x}{compatible:02x}{level:02x}"))
}

fn hevc(set_up: &[u8]) -> Option<String> {
    let general = *set_up.get(1)?;
    let space = ["", "A", "B", "C"][usize::from(general >> 6)];
    let tier = if general & 0x20 == 0 { 'L' } else { 'H' };
    let compatible = u32::from_be_bytes(set_up.get(2..6)?.try_into().ok()?).reverse_bits();
    let level = *set_up.get(12)?;
    let mut name = format!("hvc1.{space}{}.{compatible:x}.{tier}{level}", general & 0x1f);
    let constraints = set_up.get(6..12)?;
    let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for byte in &constraints[..used] {
        write!(name, ".{byte:x}").expect("writing to a String cannot fail");
    }
    Some(name)
}

fn av1(set_up: &[u8]) -> Option<String> {
    let (one, two) = (*set_up.get(1)?, *set_up.get(2)?);
    let tier = if two & 0x80 == 0 { 'M' } else { 'H' };
    let depth = match two & 0x60 {
        0x60 => 12,
        0x40 => 10,
        _ => 8,
    };
    Some(format!("av01.{}.{:02}{tier}.{depth:02}", one >> 5, one & 0x1f))
}

fn vp9(set_up: &[u8]) -> Option<String> {
    let [profile, level, depth] = set_up.get(4..7)?.try_into().ok()?;
    Some(format!("vp09.{profile:02}.{level:02}.{:02}", depth >> 4))
}

/// The descriptors of MPEG-4 part 1 have lengths of one to four bytes. The first two that matter
/// here are whole: decoder set-up (4), in it the codec's own set-up (5).
fn aac(esds: &[u8]) -> Option<String> {
    let (tag, stream) = descriptor(esds.get(4..)?)?;
    let flags = *stream.get(2).filter(|_| tag == 3)?;
    // FFmpeg writes none of the optional fields.
    let (tag, decoder) = descriptor(stream.get(3..).filter(|_| flags & 0xe0 == 0)?)?;
    let kind = *decoder.first().filter(|_| tag == 4)?;
    let (tag, set_up) = descriptor(decoder.get(13..)?)?;
    let object = *set_up.first().filter(|_| tag == 5)? >> 3;
    Some(format!("mp4a.{kind:02x}.{object}"))
}

fn descriptor(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (mut length, mut at) = (0_usize, 1);
    for _ in 0..4 {
        let byte = *bytes.get(at)?;
        at += 1;
        length = length << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some((*bytes.first()?, bytes.get(at..at + length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_are_named_as_players_expect() {
        assert_eq!(avc(&[1, 0x64, 0, 0x1f]).as_deref(), Some("avc1.64001f"));
        // Main profile, compatible with main and main 10, level 4: an example of ISO 14496-15.
        let main = [1, 1, 0x60, 0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 120];
        assert_eq!(hevc(&main).as_deref(), Some("hvc1.1.6.L120.b0"));
        // Main profile, level 4.0, 10 bit: from the example of the AV1 binding to ISO files.
        assert_eq!(av1(&[0x81, 0x08, 0x4c]).as_deref(), Some("av01.0.08M.10"));
        assert_eq!(vp9(&[1, 0, 0, 0, 0, 31, 0x82]).as_deref(), Some("vp09.00.31.08"));
    }

    #[test]
    fn what_is_cut_has_no_name() {
        assert_eq!((avc(&[1, 2]), hevc(&[1; 12]), av1(&[0x81]), aac(&[0; 9])), Default::default());
        assert!(codec(&[0; 8]).is_err());
    }
}
