//! The boxes of fragmented MP4: what an init segment sets up, and which samples a media segment
//! holds. Pure: it reads bytes that FFmpeg wrote, and believes no length in them.

use super::codecs::codec;
use std::io::{self, Read, Seek, SeekFrom};

/// Boxes that are kept in memory; a media segment's index has a few bytes per picture.
const KEPT_BYTES_MAX: u64 = 16 << 20;
/// Samples of one segment: an hour of 120 pictures a second.
const SAMPLES_MAX: usize = 432_000;
const NOT_SYNC: u32 = 0x0001_0000;

/// What all segments of a rendition share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Init {
    /// Ticks per second.
    pub(crate) timescale: u32,
    /// As the attribute CODECS of a master playlist names it.
    pub(crate) codec: String,
    /// The tick of the samples' clock that is shown at 0.
    shown_from: i64,
    defaults: Defaults,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Defaults {
    duration: u32,
    size: u32,
    flags: u32,
}

/// The samples of one media segment, in the order in which they are decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) bytes: u64,
    /// Ticks of decoding: of the first sample, and where the next segment must begin.
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// When it is shown, ticks by the clock of the film.
    pub(crate) shown: i64,
    pub(crate) duration: u32,
    /// It can be decoded without its predecessors.
    pub(crate) is_sync: bool,
}

impl Init {
    /// Reads an init segment, which must have one track and no time before its begin.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let moov = find(bytes, b"moov")?;
        let trak = find(moov, b"trak")?;
        if children(moov).filter(|(kind, _)| kind == b"trak").count() != 1 {
            return Err("it has more than one track".to_owned());
        }
        let mdia = find(trak, b"mdia")?;
        let mut mdhd = Fields(find(mdia, b"mdhd")?);
        let is_long = mdhd.u32()? >> 24 == 1;
        mdhd.skip(if is_long { 16 } else { 8 })?;
        let timescale = mdhd.u32()?;
        if timescale == 0 {
            return Err("its clock has no ticks".to_owned());
        }
        let stbl = find(find(mdia, b"minf")?, b"stbl")?;
        let mut trex = Fields(find(find(moov, b"mvex")?, b"trex")?);
        trex.skip(12)?;
        let defaults = Defaults { duration: trex.u32()?, size: trex.u32()?, flags: trex.u32()? };
        let shown_from = match find(trak, b"edts") {
            Ok(edts) => shown_from(find(edts, b"elst")?)?,
            Err(_) => 0,
        };
        Ok(Self { timescale, codec: codec(find(stbl, b"stsd")?)?, shown_from, defaults })
    }

    /// Ticks in whole microseconds.
    pub(crate) fn us(&self, ticks: i64) -> i64 {
        let us = i128::from(ticks) * 1_000_000;
        let scale = i128::from(self.timescale);
        i64::try_from((us + scale / 2).div_euclid(scale)).unwrap_or(i64::MAX)
    }

    /// Reads a media segment.
    ///
    /// # Errors
    /// What is wrong with it: it ends early, or holds another number of bytes than it says.
    pub(crate) fn segment(&self, file: &mut (impl Read + Seek)) -> Result<Segment, String> {
        let failed = |error: io::Error| format!("it cannot be read: {error}");
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let (mut at, mut segment) = (0, Segment { bytes, ..Segment::default() });
        let mut owed: Option<u64> = None;
        while at < bytes {
            file.seek(SeekFrom::Start(at)).map_err(failed)?;
            let (kind, head, length) = head(file, bytes - at)?;
            match &kind {
                b"moof" if length > KEPT_BYTES_MAX => {
                    return Err(format!("its index has {length} bytes"));
                }
                b"moof" => {
                    let kept = usize::try_from(length - head).unwrap_or(0);
                    let mut moof = vec![0; kept];
                    file.read_exact(&mut moof).map_err(failed)?;
                    owed = Some(self.fragment(&moof, &mut segment)?);
                }
                b"mdat" => match owed.take() {
                    Some(owed) if owed == length - head => {}
                    Some(owed) => {
                        let found = length - head;
                        return Err(format!("its samples have {found} bytes instead of {owed}"));
                    }
                    None => return Err("it has samples without an index".to_owned()),
                },
                _ => {}
            }
            at += length;
        }
        if segment.samples.is_empty() || owed.is_some() {
            return Err("it holds no samples".to_owned());
        }
        Ok(segment)
    }

    /// Takes a moof's samples; gives how many bytes they have.
    fn fragment(&self, moof: &[u8], segment: &mut Segment) -> Result<u64, String> {
        let traf = find(moof, b"traf")?;
        let defaults = self.defaults_of(find(traf, b"tfhd")?)?;
        let mut tfdt = Fields(find(traf, b"tfdt")?);
        let is_long = tfdt.u32()? >> 24 == 1;
        let begin = if is_long { tfdt.u64()? } else { u64::from(tfdt.u32()?) };
        if segment.samples.is_empty() {
            (segment.begin, segment.end) = (begin, begin);
        } else if segment.end != begin {
            return Err(format!("it jumps from tick {} to {begin}", segment.end));
        }
        let runs = children(traf).filter(|(kind, _)| kind == b"trun");
        runs.map(|(_, run)| self.run(run, defaults, segment)).sum()
    }

    fn defaults_of(&self, tfhd: &[u8]) -> Result<Defaults, String> {
        let (mut tfhd, mut defaults) = (Fields(tfhd), self.defaults);
        let flags = tfhd.u32()?;
        tfhd.skip(4)?;
        for (flag, bytes) in [(0x01, 8), (0x02, 4)] {
            tfhd.skip(if flags & flag == 0 { 0 } else { bytes })?;
        }
        for (flag, value) in [
            (0x08, &mut defaults.duration),
            (0x10, &mut defaults.size),
            (0x20, &mut defaults.flags),
        ] {
            if flags & flag != 0 {
                *value = tfhd.u32()?;
            }
        }
        Ok(defaults)
    }

    fn run(&self, run: &[u8], defaults: Defaults, segment: &mut Segment) -> Result<u64, String> {
        let mut run = Fields(run);
        let (flags, count) = (run.u32()?, run.u32()?);
        run.skip(if flags & 0x01 == 0 { 0 } else { 4 })?;
        let mut first_flags = if flags & 0x04 == 0 { None } else { Some(run.u32()?) };
        let mut bytes = 0;
        for _ in 0..count {
            let mut field = |flag: u32, default: u32| {
                if flags & flag == 0 { Ok(default) } else { run.u32() }
            };
            let duration = field(0x100, defaults.duration)?;
            bytes += u64::from(field(0x200, defaults.size)?);
            let own_flags = field(0x400, defaults.flags)?;
            let sample_flags = first_flags.take().unwrap_or(own_flags);
            // Below version 1 it has no sign; no delay is so long that the sign could matter.
            let delay = field(0x800, 0)?.cast_signed();
            let decoded = i64::try_from(segment.end).unwrap_or(i64::MAX);
            segment.end = segment.end.saturating_add(u64::from(duration));
            segment.samples.push(Sample {
                shown: decoded.saturating_add(i64::from(delay)).saturating_sub(self.shown_from),
                duration,
                is_sync: sample_flags & NOT_SYNC == 0,
            });
            if segment.samples.len() > SAMPLES_MAX {
                return Err(format!("it has more than {SAMPLES_MAX} samples"));
            }
        }
        Ok(bytes)
    }
}

/// From which tick on a track is shown. A time before it would have to be waited for by the
/// player, and many do not.
fn shown_from(elst: &[u8]) -> Result<i64, String> {
    let mut elst = Fields(elst);
    let is_long = elst.u32()? >> 24 == 1;
    let count = elst.u32()?;
    elst.skip(if is_long { 8 } else { 4 })?;
    let from =
        if is_long { elst.u64()?.cast_signed() } else { i64::from(elst.u32()?.cast_signed()) };
    if count != 1 || from < 0 {
        return Err("its edit list has a gap".to_owned());
    }
    Ok(from)
}

/// Kind, length of the head and whole length of the box that begins here, where so many bytes are
/// left.
///
/// # Errors
/// It does not fit, or cannot be read.
pub(crate) fn head(file: &mut impl Read, left: u64) -> Result<([u8; 4], u64, u64), String> {
    let mut bytes = [0; 16];
    let cut = |_| "it ends within a box".to_owned();
    file.read_exact(&mut bytes[..8]).map_err(cut)?;
    let mut fields = Fields(&bytes);
    let short = u64::from(fields.u32()?);
    let kind = bytes[4..8].try_into().expect("they are four");
    let (head, length) = match short {
        1 => {
            file.read_exact(&mut bytes[8..]).map_err(cut)?;
            (16, Fields(&bytes[8..]).u64()?)
        }
        0 => (8, left),
        short => (8, short),
    };
    if length < head || length > left {
        return Err(format!("a box of {length} bytes where {left} are left"));
    }
    Ok((kind, head, length))
}

/// The boxes in a box; ends at the first one that does not fit.
pub(crate) fn children(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let mut rest = bytes;
        let (kind, head, length) = head(&mut rest, u64::try_from(bytes.len()).ok()?).ok()?;
        let (head, length) = (usize::try_from(head).ok()?, usize::try_from(length).ok()?);
        let body = bytes.get(head..length)?;
        bytes = bytes.get(length..)?;
        Some((kind, body))
    })
}

/// The body of the first box of this kind.
///
/// # Errors
/// There is none.
pub(crate) fn find<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Result<&'a [u8], String> {
    let found = children(bytes).find(|(found, _)| found == kind);
    found
        .map(|(_, body)| body)
        .ok_or_else(|| format!("it has no box {}", String::from_utf8_lossy(kind)))
}

/// Numbers, most significant byte first.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn skip(&mut self, bytes: usize) -> Result<(), String> {
        self.0 = self.0.get(bytes..).ok_or_else(|| "a box ends early".to_owned())?;
        Ok(())
    }

    fn u32(&mut self) -> Result<u32, String> {
        let bytes = self.0.first_chunk().copied();
        self.skip(4)?;
        Ok(u32::from_be_bytes(bytes.unwrap_or_default()))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from(self.u32()?) << 32 | u64::from(self.u32()?))
    }
}

#[cfg(test)]
impl Init {
    /// A track of H.264 with this clock.
    pub(super) fn for_test(timescale: u32) -> Self {
        let codec = "avc1.64001f".to_owned();
        Self { timescale, codec, shown_from: 0, defaults: Defaults::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 8).expect("tests are small");
        [&length.to_be_bytes()[..], kind, body].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    /// A moof that begins at tick 512 and has three samples of 10 ticks, and their 6 bytes.
    fn segment() -> Vec<u8> {
        let tfhd = boxed(b"tfhd", &words(&[0x0002_0028, 1, 10, NOT_SYNC]));
        let tfdt = boxed(b"tfdt", &words(&[0x0100_0000, 0, 512]));
        // Data offset, flags of the first, sizes and delays.
        let samples = [1, 20, 2, 40, 3, 0];
        let trun = boxed(b"trun", &words(&[&[0x0000_0a05, 3, 0, 0][..], &samples].concat()));
        let traf = boxed(b"traf", &[tfhd, tfdt, trun].concat());
        let moof = boxed(b"moof", &[boxed(b"mfhd", &words(&[0, 1])), traf].concat());
        [boxed(b"styp", b"msdh"), moof, boxed(b"mdat", b"abbccc")].concat()
    }

    fn init(elst: &[u32]) -> Vec<u8> {
        let entry = [vec![0; 78], boxed(b"avcC", &[1, 0x64, 0, 0x1f])].concat();
        let stsd = boxed(b"stsd", &[words(&[0, 1]), boxed(b"avc1", &entry)].concat());
        let minf = boxed(b"minf", &boxed(b"stbl", &stsd));
        let mdhd = boxed(b"mdhd", &words(&[0, 0, 0, 1000, 0, 0]));
        let edts = boxed(b"edts", &boxed(b"elst", &words(elst)));
        let trak = boxed(b"trak", &[edts, boxed(b"mdia", &[mdhd, minf].concat())].concat());
        let mvex = boxed(b"mvex", &boxed(b"trex", &words(&[0, 1, 1, 0, 0, 0])));
        boxed(b"moov", &[trak, mvex].concat())
    }

    fn read(bytes: &[u8]) -> Result<Segment, String> {
        let init = Init::read(&init(&[0, 1, 0, 20, 0x1_0000])).expect("the test wrote it");
        init.segment(&mut Cursor::new(bytes))
    }

    #[test]
    fn a_segment_is_read() {
        let read = read(&segment()).expect("the test wrote it");
        assert_eq!((read.begin, read.end), (512, 542));
        let sample = |shown, is_sync| Sample { shown, duration: 10, is_sync };
        assert_eq!(read.samples, [sample(512, true), sample(542, false), sample(512, false)]);
    }

    #[test]
    fn a_begin_that_an_edit_list_delays_is_refused() {
        let gap = [0, 2, 700, u32::MAX, 0x1_0000, 0, 0, 0x1_0000];
        assert!(Init::read(&init(&gap)).expect_err("a gap").contains("gap"));
        let init = Init::read(&init(&[0, 1, 0, 20, 0x1_0000])).expect("the test wrote it");
        assert_eq!((init.timescale, init.codec.as_str()), (1000, "avc1.64001f"));
        assert_eq!((init.us(1), init.us(-1)), (1000, -1000));
    }

    #[test]
    fn a_cut_segment_is_found_wherever_it_was_cut() {
        let whole = segment();
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length} of {}", whole.len());
        }
        let longer = [&whole[..], &boxed(b"mdat", b"x")].concat();
        assert!(read(&longer).expect_err("too much").contains("without an index"));
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(at in 0_usize..200, byte in any::<u8>(), cut in 0_usize..200) {
            for mut bytes in [segment(), init(&[0, 1, 0, 20, 0x1_0000])] {
                let end = bytes.len();
                bytes[at % end] = byte;
                bytes.truncate(end - cut % end);
                let _ = (read(&bytes), Init::read(&bytes));
            }
        }
    }
}
