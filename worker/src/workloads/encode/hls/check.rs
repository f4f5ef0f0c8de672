//! Whether a rendition of HLS is what its playlist promises, and whether players can switch
//! between renditions at every segment. Pure.

use super::boxes::{Init, Segment};
use super::playlist::{Bits, Media};

/// Roundings of two clocks, microseconds.
const SAME_TIME_US: i64 = 1_000;
/// Of times that are compared after the begin of the same track.
const SAME_GAP_US: i64 = 50;

/// A rendition as it was found on disk.
#[derive(Clone, Debug)]
pub(crate) struct Rendition {
    pub(crate) name: String,
    pub(crate) media: Media,
    pub(crate) init: Init,
    /// One for each segment of the playlist.
    pub(crate) segments: Vec<Segment>,
}

/// The name of the segment `at` of a rendition.
pub(crate) fn segment_name(rendition: &str, at: usize) -> String {
    format!("{rendition}-{at:05}.m4s")
}

impl Rendition {
    /// When each sample is shown, microseconds, sorted.
    pub(crate) fn times_us(&self) -> Vec<i64> {
        let samples = self.segments.iter().flat_map(|segment| &segment.samples);
        let mut times: Vec<i64> = samples.map(|sample| self.init.us(sample.shown)).collect();
        times.sort_unstable();
        times
    }

    /// Begins of the segments and the end of the last one, microseconds.
    fn bounds_us(&self) -> Vec<i64> {
        let begins = self.segments.iter().filter_map(|segment| segment.samples.first());
        let last = self.segments.last().into_iter().flat_map(|segment| &segment.samples);
        let end = last.map(|sample| sample.shown + i64::from(sample.duration)).max();
        begins.map(|sample| sample.shown).chain(end).map(|ticks| self.init.us(ticks)).collect()
    }

    /// The playlist with the durations that its segments really have. FFmpeg adds up what the
    /// packets of the last one claim, which is wrong when pictures come irregularly.
    pub(crate) fn measured(&self) -> Media {
        let mut media = self.media.clone();
        for (listed, bounds) in media.segments.iter_mut().zip(self.bounds_us().windows(2)) {
            listed.us = bounds[1] - bounds[0];
        }
        let longest = media.segments.iter().map(|listed| listed.us).max().unwrap_or(0);
        media.target = u32::try_from((longest + 500_000) / 1_000_000).unwrap_or(0).max(1);
        media
    }

    /// What its segments need of a line.
    pub(crate) fn bits(&self) -> Bits {
        let listed = self.media.segments.iter().map(|listed| listed.us);
        let segments: Vec<(u64, i64)> =
            self.segments.iter().map(|segment| segment.bytes).zip(listed).collect();
        Bits::of(&segments, self.media.target)
    }

    /// The playlist agrees with its segments, which follow each other without a gap and can each
    /// be decoded alone.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let bounds = self.bounds_us();
        for (at, (segment, listed)) in self.segments.iter().zip(&self.media.segments).enumerate() {
            let name = &listed.name;
            let Some(first) = segment.samples.first().filter(|_| bounds.len() > at + 1) else {
                return Err(format!("{name} holds no samples"));
            };
            if !first.is_sync {
                return Err(format!("{name} does not begin with a keyframe"));
            }
            if segment.samples.iter().any(|sample| sample.shown < first.shown) {
                return Err(format!("{name} shows something before its keyframe"));
            }
            let before = at.checked_sub(1).and_then(|before| self.segments.get(before));
            if before.is_some_and(|before| before.end != segment.begin) {
                return Err(format!("{name} does not begin where its predecessor ends"));
            }
            let lasts = bounds[at + 1] - bounds[at];
            if (lasts - listed.us).abs() > SAME_TIME_US {
                return Err(format!("{name} lasts {lasts} us, its playlist says {}", listed.us));
            }
            if (listed.us + 500_000) / 1_000_000 > i64::from(self.media.target) {
                let target = self.media.target;
                return Err(format!("{name} lasts {lasts} us, more than the target of {target} s"));
            }
        }
        Ok(())
    }

    /// It holds exactly these samples, shown at these times, microseconds, sorted. Before them up
    /// to `unheard_max` only set a decoder going.
    ///
    /// # Errors
    /// What differs.
    pub(crate) fn holds(&self, wanted: &[i64], unheard_max: usize) -> Result<(), String> {
        let mut times = self.times_us();
        let begin = wanted.first().map_or(0, |first| first - SAME_TIME_US);
        let unheard = times.iter().take(unheard_max).filter(|time| **time < begin).count();
        times.drain(..unheard);
        if times.len() != wanted.len() {
            return Err(format!("it holds {} samples instead of {}", times.len(), wanted.len()));
        }
        let (Some(first), Some(first_wanted)) = (times.first(), wanted.first()) else {
            return Err("it holds nothing".to_owned());
        };
        if (first - first_wanted).abs() > SAME_TIME_US {
            return Err(format!("it begins at {first} us instead of {first_wanted} us"));
        }
        let moved = times.iter().zip(wanted).position(|(time, wanted)| {
            ((time - first) - (wanted - first_wanted)).abs() > SAME_GAP_US
        });
        match moved {
            Some(at) => Err(format!(
                "sample {at} comes {} us after the first instead of {} us",
                times[at] - first,
                wanted[at] - first_wanted
            )),
            None => Ok(()),
        }
    }

    /// All its segments begin and end when those of `other` do.
    ///
    /// # Errors
    /// Which one does not.
    pub(crate) fn is_aligned(&self, other: &Self) -> Result<(), String> {
        let (own, others) = (self.bounds_us(), other.bounds_us());
        if own.len() != others.len() {
            let (own, others) = (own.len(), others.len());
            return Err(format!("it has {own} segments, {} has {others}", other.name));
        }
        let pairs = own.iter().zip(&others);
        match pairs.clone().position(|(own, other)| (own - other).abs() > SAME_TIME_US) {
            Some(at) => {
                let (own, others) = (own[at], others[at]);
                let other = &other.name;
                Err(format!("segment {at} begins at {own} us, that of {other} at {others} us"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::boxes::Sample;
    use super::super::playlist::Listed;
    use super::*;

    /// Three segments of a second at 10 pictures a second.
    fn rendition(change: impl Fn(&mut Rendition)) -> Rendition {
        let segment = |at: u64| Segment {
            bytes: 1000,
            begin: at * 1000,
            end: (at + 1) * 1000,
            samples: (0..10)
                .map(|sample: i64| Sample {
                    shown: at.cast_signed() * 1000 + sample * 100,
                    duration: 100,
                    is_sync: sample == 0,
                })
                .collect(),
        };
        let listed = |at| Listed { name: segment_name("360p", at), us: 1_000_000 };
        let media = Media {
            target: 1,
            init: "360p-init.mp4".to_owned(),
            segments: (0..3).map(listed).collect(),
            is_independent: true,
        };
        let init = Init::for_test(1000);
        let segments = (0..3).map(segment).collect();
        let mut rendition = Rendition { name: "360p".to_owned(), media, init, segments };
        change(&mut rendition);
        rendition
    }

    #[test]
    fn a_rendition_that_keeps_its_promises_is_good() {
        let good = rendition(|_| {});
        assert_eq!(good.check(), Ok(()));
        assert_eq!(good.is_aligned(&good), Ok(()));
        let times: Vec<i64> = (0..30).map(|at| at * 100_000).collect();
        assert_eq!(good.holds(&times, 0), Ok(()));
        assert_eq!(good.measured(), good.media);
        let claimed = rendition(|one| one.media.segments[2].us = 400_000);
        assert_eq!(claimed.measured(), good.media);
        assert_eq!(good.bits(), Bits { peak: 8_000, average: 8_000 });
    }

    #[test]
    fn every_broken_promise_is_found() {
        type Change = fn(&mut Rendition);
        let changes: [(&str, Change); 7] = [
            ("holds no samples", |one| one.segments[2].samples.clear()),
            ("with a keyframe", |one| one.segments[2].samples[0].is_sync = false),
            ("before its keyframe", |one| one.segments[2].samples[4].shown = 1_950),
            ("its predecessor ends", |one| one.segments[1].begin += 1),
            ("its playlist says 1200000", |one| one.media.segments[0].us = 1_200_000),
            ("lasts 1100000", |one| one.segments[2].samples[9].duration = 200),
            ("more than the target", |one| {
                one.segments[2].samples[9].duration = 800;
                one.media.segments[2].us = 1_700_000;
            }),
        ];
        for (words, change) in changes {
            let found = rendition(change).check().expect_err(words);
            assert!(found.contains(words), "{words}: {found}");
        }
    }

    #[test]
    fn renditions_that_a_player_cannot_switch_between_are_found() {
        let good = rendition(|_| {});
        let moved = rendition(|one| one.segments[1].samples[0].shown += 2);
        let found = moved.is_aligned(&good).expect_err("a segment begins later");
        assert!(found.contains("segment 1 begins at 1002000 us"), "{found}");
        let short = rendition(|one| {
            one.segments.pop();
        });
        assert!(short.is_aligned(&good).expect_err("one is missing").contains("has 3"));
    }

    #[test]
    fn lost_and_moved_pictures_are_found() {
        let good = rendition(|_| {});
        let mut times: Vec<i64> = (0..30).map(|at| at * 100_000).collect();
        times[17] += 100;
        assert!(good.holds(&times, 0).expect_err("one moved").contains("sample 17"));
        let late: Vec<i64> = (0..30).map(|at| at * 100_000 + 2_000).collect();
        assert!(good.holds(&late, 0).expect_err("all moved").contains("begins at 0 us"));
        assert!(good.holds(&times[1..], 0).expect_err("one is too many").contains("30 samples"));
        // The first one of a sound may be there for the decoder alone.
        assert_eq!(rendition(|_| {}).holds(&good.times_us()[1..], 1), Ok(()));
    }
}
