//! Whether bytes are a whole JPEG picture, and how large it is. Pure.

/// Begin and end of a picture: SOI and EOI of ITU-T T.81, table B.1.
const BEGIN: &[u8] = &[0xFF, 0xD8];
const END: &[u8] = &[0xFF, 0xD9];

/// Width and height in pixels; `None` when it is no picture, or one that is cut.
pub(super) fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    if !bytes.ends_with(END) {
        return None;
    }
    let mut rest = bytes.strip_prefix(BEGIN)?;
    loop {
        // A segment: its marker, and its length with the two bytes of the length itself.
        let [0xFF, marker, high, low, ..] = *rest else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let body = rest.get(4..2 + length)?;
        // Begin of frame: SOF0 to SOF15 without DHT, JPG and DAC, which lie between.
        if matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC) {
            let [_precision, h1, h0, w1, w0, ..] = *body else { return None };
            let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
            return Some((side(w1, w0), side(h1, h0))).filter(|(w, h)| *w > 0 && *h > 0);
        }
        rest = &rest[2 + length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// SOI, an application segment, a frame of 640 x 360, EOI.
    const PICTURE: &[u8] = &[
        0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 1, 2, 0xFF, 0xC0, 0, 11, 8, 0x01, 0x68, 0x02, 0x80, 1, 1,
        0x11, 0, 0xFF, 0xD9,
    ];

    #[test]
    fn a_picture_has_its_size() {
        assert_eq!(size(PICTURE), Some((640, 360)));
    }

    #[test]
    fn a_cut_picture_has_none() {
        for end in 0..PICTURE.len() {
            assert_eq!(size(&PICTURE[..end]), None, "{end}");
        }
        assert_eq!(size(b"\xFF\xD8GIF89a\xFF\xD9"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            size(&bytes);
            bytes.splice(0..0, PICTURE[..8].iter().copied());
            bytes.extend(END);
            size(&bytes);
        }
    }
}
