//! The decoder's set-up of H.264 in MP4 (`avcC`, ISO 14496-15), and one for the chunks of two
//! encoders. Pure: it reads bytes that FFmpeg wrote, and believes no length in them.
//!
//! A track has one set-up for all its pictures, and players of `avc1` look for no other. It may
//! hold the parameter sets of several encoders, if each has numbers of its own; every picture
//! names the set that it needs, and changes it at a keyframe. Other codecs have no such numbers.

use super::super::hls::boxes::{children, find};

/// Bytes of a sample description and of a picture's sample entry before the boxes in them.
const DESCRIPTION: usize = 8;
const PICTURE_ENTRY: usize = 78;
/// From the index of a file to the set-up.
const WAY: [(&[u8; 4], usize); 7] = [
    (b"trak", 0),
    (b"mdia", 0),
    (b"minf", 0),
    (b"stbl", 0),
    (b"stsd", DESCRIPTION),
    (b"avc1", PICTURE_ENTRY),
    (b"avcC", 0),
];
/// Profiles of which each can be decoded by who can decode the next: constrained baseline, main
/// and high, all 8 bit 4:2:0.
const PROFILES: [u8; 3] = [66, 77, 100];
/// What makes baseline the constrained one, which is a part of main.
const CONSTRAINED: u8 = 0x40;
/// What follows the sets in high profile: 4:2:0, 8 bit, no extensions.
const HIGH_END: [u8; 4] = [0xfd, 0xf8, 0xf8, 0];
const SETS_MAX: usize = 31;

/// What is in an `avcC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetUp {
    profile: u8,
    constraints: u8,
    level: u8,
    /// Bytes of a length, less one, with the bits that are reserved.
    lengths: u8,
    sequences: Vec<Vec<u8>>,
    pictures: Vec<Vec<u8>>,
}

impl SetUp {
    /// Finds it in the body of a file's index (`moov`).
    ///
    /// # Errors
    /// What is missing or has no place in a set-up of ours.
    pub(super) fn find(index: &[u8]) -> Result<Self, String> {
        let body = WAY.iter().try_fold(index, |bytes, (kind, skip)| {
            find(bytes, kind).map(|body| body.get(*skip..).unwrap_or_default())
        })?;
        Self::read(body).ok_or("its set-up cannot be read".to_owned())?
    }

    fn read(body: &[u8]) -> Option<Result<Self, String>> {
        let [1, profile, constraints, level, lengths, count, rest @ ..] = body else { return None };
        let (sequences, rest) = sets(rest, usize::from(count & 0x1f))?;
        let (count, rest) = rest.split_first()?;
        let (pictures, rest) = sets(rest, usize::from(*count))?;
        let is_constrained = *profile != PROFILES[0] || constraints & CONSTRAINED != 0;
        if !PROFILES.contains(profile) || !is_constrained || !(rest.is_empty() || rest == HIGH_END)
        {
            return Some(Err(format!("profile {profile} ({constraints:#04x}) fits no other")));
        }
        let (profile, constraints, level) = (*profile, *constraints, *level);
        Some(Ok(Self { profile, constraints, level, lengths: *lengths, sequences, pictures }))
    }

    /// One for pictures of both.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn with(mut self, other: Self) -> Result<Self, String> {
        if self.lengths != other.lengths {
            return Err("they write lengths in another way".to_owned());
        }
        // The profile and the level of who can decode both.
        self.profile = self.profile.max(other.profile);
        self.level = self.level.max(other.level);
        self.constraints &= other.constraints;
        add(&mut self.sequences, other.sequences, 4)?;
        add(&mut self.pictures, other.pictures, 1)?;
        Ok(self)
    }

    fn bytes(&self) -> Vec<u8> {
        let count = |sets: &[Vec<u8>]| u8::try_from(sets.len()).expect("there are at most 31");
        let mut bytes = vec![1, self.profile, self.constraints, self.level, self.lengths];
        for (head, sets) in [(0xe0, &self.sequences), (0, &self.pictures)] {
            bytes.push(head | count(sets));
            for set in sets {
                let length = u16::try_from(set.len()).expect("it had a length of 16 bits");
                bytes.extend(length.to_be_bytes());
                bytes.extend(set);
            }
        }
        if self.profile == PROFILES[2] {
            bytes.extend(HIGH_END);
        }
        bytes
    }

    /// The body of an index with this set-up in place of its own. It may have another length.
    ///
    /// # Errors
    /// What cannot be read in it.
    pub(super) fn into_index(self, index: &[u8]) -> Result<Vec<u8>, String> {
        replaced(index, &WAY, &self.bytes())
    }
}

/// Takes so many sets, each after its length.
fn sets(mut bytes: &[u8], count: usize) -> Option<(Vec<Vec<u8>>, &[u8])> {
    let mut sets = Vec::new();
    for _ in 0..count {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (set, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        sets.push(set.to_vec());
        bytes = rest;
    }
    Some((sets, bytes))
}

/// Adds sets, which have their number behind so many bytes, unless they are there.
fn add(sets: &mut Vec<Vec<u8>>, others: Vec<Vec<u8>>, behind: usize) -> Result<(), String> {
    for other in others {
        if sets.contains(&other) {
            continue;
        }
        let number = number(&other, behind).ok_or("a parameter set has no number")?;
        if sets.iter().any(|set| self::number(set, behind) == Some(number)) {
            return Err(format!("both use parameter set {number}"));
        }
        if sets.len() == SETS_MAX {
            return Err("they have too many parameter sets".to_owned());
        }
        sets.push(other);
    }
    Ok(())
}

/// The number (Exp-Golomb) with which a set goes on after so many bytes. All are below 256.
fn number(set: &[u8], behind: usize) -> Option<u32> {
    let bytes: [u8; 4] = set
        .get(behind..)?
        .iter()
        .copied()
        .chain([0; 4])
        .take(4)
        .collect::<Vec<_>>()
        .try_into()
        .ok()?;
    let bits = u32::from_be_bytes(bytes);
    let zeros = bits.leading_zeros();
    (zeros <= 8).then(|| (bits << zeros >> (31 - zeros)) - 1)
}

/// The boxes with the body of the one at the end of the `way` replaced.
fn replaced(bytes: &[u8], way: &[(&[u8; 4], usize)], new: &[u8]) -> Result<Vec<u8>, String> {
    let Some(((wanted, skip), rest)) = way.split_first() else { return Ok(new.to_vec()) };
    let (mut all, mut read, mut is_found) = (Vec::new(), 0, false);
    for (kind, body) in children(bytes) {
        read += body.len() + 8;
        let is_wanted = kind == **wanted && !is_found;
        is_found |= is_wanted;
        let body = if is_wanted {
            let (head, boxes) = body.split_at_checked(*skip).ok_or("a box ends early")?;
            [head, &replaced(boxes, rest, new)?].concat()
        } else {
            body.to_vec()
        };
        let length = u32::try_from(body.len() + 8).map_err(|_| "a box is too long")?;
        all.extend(length.to_be_bytes());
        all.extend(kind);
        all.extend(body);
    }
    // Longer heads and what is no box are not written by FFmpeg here.
    if is_found && read == bytes.len() {
        Ok(all)
    } else {
        Err(format!("its index has no box {} to change", String::from_utf8_lossy(*wanted)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sets of number 0 and 1; the rest of them is made up.
    const SEQUENCES: [&[u8]; 2] =
        [&[0x67, 100, 0, 30, 0b1010_1010], &[0x67, 66, 0xc0, 31, 0b0101_0000]];
    const PICTURES: [&[u8]; 2] = [&[0x68, 0b1110_0000], &[0x68, 0b0100_1010]];

    fn avcc(profile: [u8; 3], at: usize) -> Vec<u8> {
        let [profile, constraints, level] = profile;
        let (sequence, picture) = (SEQUENCES[at], PICTURES[at]);
        let mut bytes = vec![1, profile, constraints, level, 0xff, 0xe1];
        bytes.extend([0, 5]);
        bytes.extend(sequence);
        bytes.extend([1, 0, 2]);
        bytes.extend(picture);
        bytes.extend(if profile == 100 { &HIGH_END[..] } else { &[] });
        bytes
    }

    fn read(bytes: &[u8]) -> SetUp {
        SetUp::read(bytes).expect("it is whole").expect("it fits others")
    }

    fn high() -> SetUp {
        read(&avcc([100, 0, 30], 0))
    }

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 8).expect("tests are small");
        [&length.to_be_bytes()[..], kind, body].concat()
    }

    fn index(avcc: &[u8]) -> Vec<u8> {
        let entry =
            [vec![7; PICTURE_ENTRY], boxed(b"avcC", avcc), boxed(b"btrt", b"rate")].concat();
        let stsd = boxed(b"stsd", &[vec![0; DESCRIPTION], boxed(b"avc1", &entry)].concat());
        let stbl = boxed(b"stbl", &[stsd, boxed(b"stco", b"offsets")].concat());
        let mdia = boxed(b"mdia", &boxed(b"minf", &stbl));
        [boxed(b"mvhd", b"head"), boxed(b"trak", &[boxed(b"tkhd", b""), mdia].concat())].concat()
    }

    #[test]
    fn sets_of_two_encoders_with_numbers_of_their_own_are_one_set_up() {
        let both = high().with(read(&avcc([66, 0xc0, 31], 1))).expect("their numbers differ");
        assert_eq!((both.profile, both.constraints, both.level), (100, 0, 31));
        assert_eq!(both.sequences, SEQUENCES);
        assert_eq!(both.pictures, PICTURES);
        assert_eq!(read(&both.bytes()), both);
        assert_eq!(both.clone().with(high()), Ok(both), "what is there is not added");
    }

    #[test]
    fn two_encoders_that_use_the_same_number_are_not_one_stream() {
        let mut other = avcc([100, 0, 31], 0);
        other[11] = 31;
        let reason = high().with(read(&other)).expect_err("both are number 0");
        assert_eq!(reason, "both use parameter set 0");
        let mut other = avcc([77, 0, 30], 1);
        other[17] = 0b1010_0000;
        let reason = high().with(read(&other)).expect_err("the pictures' sets are");
        assert_eq!(reason, "both use parameter set 0");
        let mut other = avcc([77, 0, 30], 1);
        other[4] = 0xfd;
        assert!(high().with(read(&other)).expect_err("lengths").contains("lengths"));
    }

    #[test]
    fn profiles_that_no_decoder_of_the_other_knows_are_refused() {
        for profile in [[66, 0, 30], [110, 0, 30], [88, 0x40, 30], [244, 0, 30]] {
            let refused = SetUp::read(&avcc(profile, 0)).expect("it is whole");
            assert!(refused.expect_err("another family").contains("fits no other"));
        }
        let mut deep = avcc([100, 0, 30], 0);
        let end = deep.len();
        deep[end - 3] = 0xfa;
        assert!(SetUp::read(&deep).expect("it is whole").is_err(), "10 bit");
    }

    #[test]
    fn numbers_are_read() {
        for (bits, value) in
            [(0b1000_0000, 0), (0b0100_0000, 1), (0b0110_0000, 2), (0b0011_1000, 6)]
        {
            assert_eq!(number(&[0x68, bits], 1), Some(value));
        }
        assert_eq!(number(&[0x68, 0, 0b1000_0000, 0b1000_0000], 1), Some(256));
        assert_eq!((number(&[0x68, 0, 0], 1), number(&[0x68], 2)), (None, None));
    }

    #[test]
    fn an_index_gets_another_set_up_and_keeps_all_else() {
        let before = index(&avcc([100, 0, 30], 0));
        let other = read(&avcc([77, 0, 40], 1));
        let both = SetUp::find(&before).and_then(|own| own.with(other)).expect("they fit");
        let after = both.clone().into_index(&before).expect("it is an index");
        assert_eq!(SetUp::find(&after).as_ref(), Ok(&both));
        assert_eq!(after, index(&both.bytes()));
        assert!(both.clone().into_index(&before[..before.len() - 1]).is_err());
        assert!(both.into_index(&boxed(b"trak", b"")).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(at in 0_usize..200, byte in any::<u8>(), cut in 0_usize..200) {
            let mut bytes = index(&avcc([100, 0, 30], 0));
            let end = bytes.len();
            bytes[at % end] = byte;
            bytes.truncate(end - cut % end);
            if let Ok(set_up) = SetUp::find(&bytes) {
                let _ = high().with(set_up.clone()).map(|both| both.into_index(&bytes));
                let _ = set_up.into_index(&bytes);
            }
        }
    }
}
