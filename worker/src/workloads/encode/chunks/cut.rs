//! Where a film is cut into chunks, or why it is not. Pure.
//!
//! Chunks begin where the whole encode would have a keyframe, and are selected by time after
//! decoding: between two pictures, so that no rounding can move one to the other side. A film
//! whose pictures cannot be told apart by their times is encoded in one go.

use super::super::film::probe::Film;
use super::super::plan::{KEYFRAME_SECONDS, Plan, Thin};

/// Films of which each shown packet becomes one picture, and which decode the same from any
/// keyframe on.
const CODECS: &[&str] =
    &["h264", "hevc", "vp9", "av1", "prores", "dnxhd", "mjpeg", "ffv1", "mpeg2video"];
/// A film shorter than this many chunks is encoded again as a whole sooner than it is cut,
/// checked and joined.
const CHUNKS_MIN: i64 = 4;
/// More chunks than this are files without end: they become longer instead.
const CHUNKS_MAX: i64 = 1000;
/// A chunk may begin this share of its length later, where less has to be decoded twice.
const LATER: i64 = 3;
/// Keyframes nearer to each other than this are all one to a reader, which goes to one of them:
/// pictures are decoded up to a few frames before they are shown. Microseconds.
const KEYS_APART_US: i64 = 500_000;
/// Least distance of two pictures between which a cut is certain, microseconds: below the gap of
/// 240 frames per second, above the roundings of Matroska.
const GAP_MIN_US: i64 = 3_000;
/// Decoding is cheap beside encoding: this share of the film may be decoded a second time.
const TWICE_WANTED: f64 = 0.5;
const TWICE_MAX: f64 = 1.0;
/// Readers of these containers go to the keyframe before a time; others go anywhere near it.
const SEEK_TO_KEYFRAMES: &[&str] = &["mov", "matroska"];
/// FFmpeg starts the clock of these with the streams that are used, that of others with all.
const CLOCK_OF_USED: &[&str] = &["mpegts", "mpeg"];

/// A film, cut. Times are microseconds after [`Cuts::origin_us`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cuts {
    /// The time in the film's own clock that is 0 in the outputs.
    pub(crate) origin_us: i64,
    /// When each picture is shown.
    pub(crate) times_us: Vec<i64>,
    /// Frames per second of a regular film: its times fall on this clock.
    pub(crate) rate: Option<f64>,
    pub(crate) chunks: Vec<Chunk>,
    /// When the picture of the film is shown that precedes the next one of `times_us`: another
    /// one where only some are kept.
    pub(crate) before_us: Vec<i64>,
}

/// Pictures that are encoded by one run of FFmpeg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Index of the first one.
    pub(crate) first: usize,
    pub(crate) frames: usize,
    /// Which of them are keyframes, counted from 0; the first one always is.
    pub(crate) keyframes: Vec<usize>,
    /// Where reading begins, in the film's own clock; `None`: at its begin.
    pub(crate) seek_us: Option<i64>,
    /// Between the last picture before and the first one; `None` for the first chunk.
    pub(crate) from_us: Option<i64>,
    /// Between the last picture and the first one after; `None` for the last chunk.
    pub(crate) to_us: Option<i64>,
}

impl Cuts {
    pub(crate) fn times_of(&self, chunk: &Chunk) -> &[i64] {
        &self.times_us[chunk.first..chunk.first + chunk.frames]
    }

    /// From the first picture to the last one.
    pub(crate) fn span_us(&self) -> i64 {
        self.times_us.last().zip(self.times_us.first()).map_or(0, |(last, first)| last - first)
    }
}

/// Whether a film is long enough for chunks of this length, which may be 0 for none.
pub(crate) fn is_long(film: &Film, seconds: u32) -> bool {
    seconds > 0 && film.scan.length_us() > CHUNKS_MIN * i64::from(seconds) * 1_000_000
}

/// Cuts a film into chunks of about this length.
///
/// # Errors
/// Why it must be encoded in one go: words that follow "because".
pub(crate) fn cut(film: &Film, plan: &Plan, seconds: u32) -> Result<Cuts, String> {
    refuse(film, plan)?;
    let pictures = &film.scan.pictures;
    let origin_us = origin_us(film, plan);
    let kept = match plan.thin {
        Some(Thin::Every(count)) => usize::try_from(count).unwrap_or(1).max(1),
        Some(Thin::Resample(_)) | None => 1,
    };
    let times = pictures.times_us.iter().step_by(kept);
    let times_us: Vec<i64> = times.map(|time| time - origin_us).collect();
    let before = pictures.times_us.iter().skip(kept - 1).step_by(kept);
    let before_us: Vec<i64> = before.map(|time| time - origin_us).collect();
    let rate = film.facts.video.rate.filter(|_| !plan.irregular);
    let mut cuts = Cuts { origin_us, times_us, rate, chunks: Vec::new(), before_us };
    let ticks = ticks(&cuts)?;
    let keyframes = keyframes(&ticks, rate);
    let film_seconds = cuts.span_us() / 1_000_000 + 1;
    let mut cells = i64::from(seconds.div_ceil(KEYFRAME_SECONDS));
    cells = cells.max(film_seconds / (CHUNKS_MAX * i64::from(KEYFRAME_SECONDS)));
    loop {
        let starts = starts(&cuts, &keyframes, cells, film);
        let twice_us = chunks(&mut cuts, &starts, &keyframes, film);
        #[expect(clippy::cast_precision_loss, reason = "times are below 2^52 microseconds")]
        let twice = twice_us as f64 / cuts.span_us().max(1) as f64;
        let is_longest = cells * i64::from(KEYFRAME_SECONDS) * 4 > film_seconds;
        if twice > TWICE_WANTED && !is_longest {
            cells *= 2;
        } else if twice > TWICE_MAX || cuts.chunks.len() < 2 {
            return Err("its own keyframes lie too far apart".to_owned());
        } else {
            return Ok(cuts);
        }
    }
}

fn refuse(film: &Film, plan: &Plan) -> Result<(), String> {
    if matches!(plan.thin, Some(Thin::Resample(_))) {
        return Err("its pictures get new times".to_owned());
    }
    let per_cell = plan.rate.unwrap_or(0.0) * f64::from(KEYFRAME_SECONDS);
    if plan.encoder.counts_keyframes() && (plan.irregular || (per_cell % 1.0).abs() > 1e-6) {
        let encoder = plan.encoder.name();
        return Err(format!("{encoder} cannot set keyframes at the times of this film"));
    }
    let pictures = &film.scan.pictures;
    let codec = film.facts.video.codec.as_str();
    if !CODECS.contains(&codec) {
        return Err(format!("its codec {codec} hides or splits pictures"));
    }
    if pictures.untimed > 0 {
        return Err(format!("{} of its pictures have no time", pictures.untimed));
    }
    if pictures.too_many {
        return Err("it has too many pictures".to_owned());
    }
    if pictures.times_us.is_empty() || pictures.keys_us.is_empty() {
        return Err("it has no keyframe".to_owned());
    }
    for stream in used(plan) {
        let Some(track) = film.scan.tracks.get(&stream) else { continue };
        if track.breaks > 0 || track.disordered > 0 {
            return Err(format!("the clock of its stream {stream} jumps"));
        }
        if track.damaged > 0 {
            return Err(format!("{} packets of its stream {stream} are damaged", track.damaged));
        }
    }
    Ok(())
}

/// The streams that outputs are made of. Subtitles are left out: they come and go.
fn used(plan: &Plan) -> impl Iterator<Item = u32> {
    std::iter::once(plan.video_stream).chain(plan.audio.iter().map(|audio| audio.stream))
}

fn is_container(film: &Film, names: &[&str]) -> bool {
    film.facts.container.split(',').any(|name| names.contains(&name))
}

/// FFmpeg takes the container's start for 0. One that looks at the streams in use compares that
/// start with the offset that it was given, and takes an equal one for its own: hence the
/// microsecond, which is less than a tick of these containers.
fn origin_us(film: &Film, plan: &Plan) -> i64 {
    let tracks = used(plan).filter_map(|stream| film.scan.tracks.get(&stream));
    let first = tracks.filter_map(|track| track.first_us).min().unwrap_or(0);
    if is_container(film, CLOCK_OF_USED) { first + 1 } else { film.facts.start_us.unwrap_or(first) }
}

/// The time of each picture after the first one: in ticks of the film's rate, as the encoder
/// counts, or in microseconds. Two pictures at one time would become one.
fn ticks(cuts: &Cuts) -> Result<Vec<i64>, String> {
    let tick = |time: i64| cuts.rate.map_or(time, |rate| tick_of(time, rate));
    let begin = cuts.times_us.first().map_or(0, |first| tick(*first));
    let ticks: Vec<i64> = cuts.times_us.iter().map(|time| tick(*time) - begin).collect();
    if ticks.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("two of its pictures are shown at the same time".to_owned());
    }
    Ok(ticks)
}

/// The tick of a clock that is nearest to a time.
pub(crate) fn tick_of(time_us: i64, rate: f64) -> i64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "times are below 2^52 microseconds"
    )]
    let tick = (time_us as f64 * rate / 1e6).round() as i64;
    tick
}

/// A picture that is to be a keyframe: its index, and how many keyframe intervals lie before it.
#[derive(Clone, Copy)]
struct Keyframe {
    picture: usize,
    cell: i64,
}

/// The first picture of every interval: what `gte(t,n_forced*2)` says of a film without gaps.
fn keyframes(ticks: &[i64], rate: Option<f64>) -> Vec<Keyframe> {
    let mut keyframes: Vec<Keyframe> = Vec::new();
    for (picture, tick) in ticks.iter().enumerate() {
        let cell = match rate {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                reason = "a film has fewer than 2^52 ticks"
            )]
            Some(rate) => {
                (*tick as f64 / (rate * f64::from(KEYFRAME_SECONDS)) + 1e-9).floor() as i64
            }
            // Both times were rounded.
            None => (tick + 1) / (i64::from(KEYFRAME_SECONDS) * 1_000_000),
        };
        if keyframes.last().is_none_or(|last| cell > last.cell) {
            keyframes.push(Keyframe { picture, cell });
        }
    }
    keyframes
}

/// The first picture of each chunk of about `cells` keyframe intervals: the first one of the
/// interval where it is due, or of one soon after, if reading for that begins at a nearer keyframe.
fn starts(cuts: &Cuts, keyframes: &[Keyframe], cells: i64, film: &Film) -> Vec<usize> {
    let mut starts = vec![0];
    let due = keyframes.chunk_by(|one, next| one.cell / cells == next.cell / cells);
    for group in due.skip(1) {
        let is_apart = |keyframe: &&Keyframe| {
            let picture = keyframe.picture;
            cuts.times_us[picture] - cuts.before_us[picture - 1] >= GAP_MIN_US
        };
        let mut possible = group.iter().filter(is_apart);
        let Some(first) = possible.next() else { continue };
        let later = possible.take_while(|keyframe| keyframe.cell % cells <= cells / LATER);
        let twice_us =
            |keyframe: &&Keyframe| seek(film, cuts.times_us[keyframe.picture] + cuts.origin_us).1;
        let best = std::iter::once(first).chain(later).min_by_key(twice_us);
        starts.extend(best.map(|keyframe| keyframe.picture));
    }
    // A last chunk of a moment is not worth a start of FFmpeg.
    if let (Some(start), Some(last)) = (starts.last(), cuts.times_us.last())
        && starts.len() > 1
        && last - cuts.times_us[*start] < cells * i64::from(KEYFRAME_SECONDS) * 250_000
    {
        starts.pop();
    }
    starts
}

/// Makes the chunks that begin there; gives how much film is decoded twice, microseconds.
fn chunks(cuts: &mut Cuts, starts: &[usize], keyframes: &[Keyframe], film: &Film) -> i64 {
    let between = |at: usize| (cuts.before_us[at - 1] + cuts.times_us[at]) / 2;
    let mut twice_us = 0;
    let mut chunks = Vec::new();
    for (at, first) in starts.iter().enumerate() {
        let end = starts.get(at + 1).copied();
        let frames = end.unwrap_or(cuts.times_us.len()) - first;
        let own = |keyframe: &&Keyframe| (*first..first + frames).contains(&keyframe.picture);
        let own = keyframes.iter().filter(own).map(|keyframe| keyframe.picture - first);
        let seek = (*first > 0).then(|| seek(film, cuts.times_us[*first] + cuts.origin_us));
        let (seek_us, read_twice_us) = seek.unwrap_or((None, 0));
        twice_us += read_twice_us;
        chunks.push(Chunk {
            first: *first,
            frames,
            keyframes: own.collect(),
            seek_us,
            from_us: (*first > 0).then(|| between(*first)),
            to_us: end.map(between),
        });
    }
    cuts.chunks = chunks;
    twice_us
}

/// Where to read from so that the picture at `time_us` is decoded right, and how much comes
/// before it. The keyframe before it is enough where its group is closed and the reader goes to
/// keyframes: pictures shown after an open one may need what was decoded before, and other readers
/// may land behind what they were asked for.
fn seek(film: &Film, time_us: i64) -> (Option<i64>, i64) {
    let pictures = &film.scan.pictures;
    let keys = &pictures.keys_us;
    let until = keys.partition_point(|key| *key <= time_us);
    // The keyframe `back` before the picture, and where to ask for it: well before the next one.
    let key = |back: usize| {
        let at = until.checked_sub(back).filter(|at| *at > 0)?;
        let next = keys.get(at + 1).or(pictures.times_us.last())?;
        Some((keys[at], *next))
    };
    let is_enough = |(key, next): &(i64, i64)| {
        pictures.open_keys_us.binary_search(key).is_err() && next - key >= KEYS_APART_US
    };
    let found = if is_container(film, SEEK_TO_KEYFRAMES) {
        key(1).filter(is_enough).or_else(|| key(2))
    } else {
        key(3)
    };
    match found {
        Some((key, next)) => (Some((key + next) / 2), time_us - key),
        None => (None, time_us - keys.first().copied().unwrap_or(time_us)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::codec::X264;
    use super::super::super::codec::trial::Chosen;
    use super::super::super::film::facts::Facts;
    use super::super::super::film::scan::Scan;
    use super::super::super::plan;
    use super::*;

    /// A film whose pictures are shown at these times, with every `keys`th a keyframe.
    fn film(times_us: &[i64], keys: usize, change: impl Fn(&mut Film)) -> Film {
        let mut scan = Scan::with_clock(0, Some(30.0));
        for (at, time) in times_us.iter().enumerate() {
            let (seconds, micros) = (time / 1_000_000, time % 1_000_000);
            let time = format!("{seconds}.{micros:06}");
            let flag = if at % keys == 0 { 'K' } else { '_' };
            let line = format!("stream_index=0|pts_time={time}|dts_time={time}|flags={flag}");
            scan.on_stdout(line.as_bytes());
        }
        scan.pictures.sort();
        let mut facts = Facts::for_test();
        facts.streams.clear();
        let mut film = Film { facts, scan, bytes: 1 };
        change(&mut film);
        film
    }

    fn regular(seconds: i64) -> Vec<i64> {
        (0..seconds * 30).map(|frame| frame * 1_000_000 / 30).collect()
    }

    fn cut_film(film: &Film, seconds: u32) -> Result<Cuts, String> {
        let payload = r#"{"op":"ladder","input":"/a","output_dir":"/b"}"#;
        let payload = serde_json::from_str(payload).expect("the payload is valid");
        let chosen = Chosen { encoder: X264, device: None };
        let plan = plan::plan(&film.facts, &payload, &chosen).expect("the film can be planned");
        cut(film, &plan, seconds)
    }

    #[test]
    fn a_regular_film_is_cut_at_keyframes_into_ranges_that_meet() {
        let film = film(&regular(61), 30, |_| {});
        let cuts = cut_film(&film, 10).expect("it is regular");
        let ranges: Vec<(usize, usize)> = cuts.chunks.iter().map(|c| (c.first, c.frames)).collect();
        // The last second is no chunk of its own.
        let expected = [(0, 300), (300, 300), (600, 300), (900, 300), (1200, 300), (1500, 330)];
        assert_eq!(ranges, expected);
        assert_eq!(cuts.chunks[1].keyframes, [0, 60, 120, 180, 240]);
        let (first, second) = (&cuts.chunks[0], &cuts.chunks[1]);
        assert_eq!((first.from_us, first.seek_us, first.to_us), (None, None, Some(9_983_333)));
        // Between the keyframe and the next one, so that any rounding ends at the first.
        assert_eq!((second.from_us, second.seek_us), (Some(9_983_333), Some(10_500_000)));
        assert_eq!(cuts.chunks[5].to_us, None);
    }

    #[test]
    fn chunks_begin_where_little_is_decoded_twice() {
        let shown = |cuts: &Cuts| -> Vec<i64> {
            let first = cuts.chunks.iter().map(|chunk| cuts.times_us[chunk.first]);
            first.map(|time| time / 1_000_000).collect()
        };
        // Keyframes every 8.33 s: the 34th second follows one soon, the 30th does not.
        let sparse = film(&regular(130), 250, |_| {});
        let cuts = cut_film(&sparse, 30).expect("it is regular");
        assert_eq!(shown(&cuts), [0, 34, 68, 100]);
        assert_eq!(cuts.chunks[1].seek_us, Some((33_333_333 + 41_666_666) / 2));
        // In the nearest group a picture may need another one of the group before.
        let open = film(&regular(130), 250, |film| {
            film.scan.pictures.open_keys_us = film.scan.pictures.keys_us.clone();
        });
        let cuts = cut_film(&open, 30).expect("it is regular");
        assert_eq!(cuts.chunks[1].seek_us, Some((25_000_000 + 33_333_333) / 2));
        // A reader cannot tell keyframes that lie as near as this.
        let dense = film(&regular(130), 10, |_| {});
        let cuts = cut_film(&dense, 30).expect("it is regular");
        assert_eq!(shown(&cuts), [0, 30, 60, 90, 120]);
        assert_eq!(cuts.chunks[1].seek_us, Some((29_666_666 + 30_000_000) / 2));
    }

    #[test]
    fn times_count_from_the_container_start_and_from_the_streams_of_mpeg() {
        let times: Vec<i64> = regular(60).iter().map(|time| time + 1_480_000).collect();
        let started = film(&times, 30, |film| film.facts.start_us = Some(1_000_000));
        assert_eq!(cut_film(&started, 10).expect("it is regular").times_us[0], 480_000);
        let stream = film(&times, 30, |film| film.facts.container = "mpegts".to_owned());
        let cuts = cut_film(&stream, 10).expect("it is regular");
        assert_eq!((cuts.times_us[0], cuts.origin_us), (-1, 1_480_001));
        // The first key lies two further back: transport streams are not read from keyframes.
        assert_eq!(cuts.chunks[1].seek_us, Some(1_480_000 + 8_500_000));
    }

    #[test]
    fn sparse_keyframes_make_longer_chunks_and_in_the_end_none() {
        let sparse = film(&regular(120), 300, |_| {});
        let cuts = cut_film(&sparse, 4).expect("10 seconds between keyframes are borne");
        // Chunks of 4 s would be decoded more than half a time again.
        assert_eq!(cuts.chunks.len(), 15);
        let single = film(&regular(120), 100_000, |_| {});
        let reason = cut_film(&single, 4).expect_err("only one keyframe");
        assert!(reason.contains("too far apart"), "{reason}");
    }

    #[test]
    fn irregular_films_are_cut_by_time_and_only_between_pictures() {
        let mut times: Vec<i64> = (0..600).map(|at| at * 100_000 + (at % 3) * 17_011).collect();
        // Too close to tell apart at the place of the first cut.
        times[100] = times[99] + 11;
        let irregular = film(&times, 10, |film| film.facts.video.irregular = true);
        let cuts = cut_film(&irregular, 10).expect("times are unique");
        assert_eq!(cuts.rate, None);
        let total: usize = cuts.chunks.iter().map(|chunk| chunk.frames).sum();
        assert_eq!(total, 600);
        for chunk in &cuts.chunks[1..] {
            let from = chunk.from_us.expect("it is not the first");
            let (before, after) = (times[chunk.first - 1], times[chunk.first]);
            assert!(before + 1_000 < from && from + 1_000 < after, "{before} {from} {after}");
        }
    }

    #[test]
    fn films_that_cannot_be_cut_exactly_say_why() {
        type Change = fn(&mut Film);
        let changes: [(&str, Change); 5] = [
            ("no time", |film| film.scan.pictures.untimed = 3),
            ("codec vp8", |film| film.facts.video.codec = "vp8".to_owned()),
            ("jumps", |film| film.scan.tracks.get_mut(&0).expect("a track").breaks = 1),
            ("damaged", |film| film.scan.tracks.get_mut(&0).expect("a track").damaged = 1),
            ("same time", |film| film.scan.pictures.times_us[7] = 200_000),
        ];
        for (words, change) in changes {
            let film = film(&regular(60), 30, change);
            let reason = cut_film(&film, 10).expect_err(words);
            assert!(reason.contains(words), "{words}: {reason}");
        }
    }

    #[test]
    fn only_long_films_are_cut() {
        let film = film(&regular(60), 30, |_| {});
        assert!(is_long(&film, 10) && !is_long(&film, 15) && !is_long(&film, 0));
    }
}
