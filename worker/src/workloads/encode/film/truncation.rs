//! Whether a file holds less of a film than it should. Pure: facts and packets in, a sentence
//! out.

use super::probe::Film;
use super::scan::Track;

/// How far two lengths of a film may lie apart: 1 %, from 0.2 to 2 seconds. Containers round,
/// tracks begin and end apart, and encoders pad.
pub(crate) fn tolerance_us(length_us: i64) -> i64 {
    (length_us / 100).clamp(200_000, 2_000_000)
}

/// Says in what way the file holds less than it should, or another film than was expected.
pub(crate) fn truncation(film: &Film, expected_ms: Option<u64>) -> Option<String> {
    let track = film.scan.tracks.get(&film.facts.video.stream).cloned().unwrap_or_default();
    if track.packets == 0 {
        return Some("is truncated or damaged: its video stream holds no packet".to_owned());
    }
    let declared = |ms: u64, held_us: i64| {
        let frames = film.facts.video.declared_frames;
        let frames = frames.map_or(String::new(), |frames| format!(" and {frames} frames"));
        let (length, held) = (length_text(ms_to_us(ms)), length_text(held_us));
        let packets = track.packets;
        format!("is truncated: it declares {length}{frames}, but holds {held} and {packets} frames")
    };
    let held_us = film.scan.end_us();
    if let Some(words) = &film.scan.cut {
        let declared_ms = film.facts.video.declared_ms.or(film.facts.duration_ms);
        return Some(match declared_ms {
            Some(ms) => declared(ms, held_us),
            None => format!("is truncated: it ends inside a packet ({words})"),
        });
    }
    if let Some((ms, held_us)) = promise(film, &track) {
        let promised_us = ms_to_us(ms);
        if held_us < promised_us - tolerance_us(promised_us) {
            return Some(declared(ms, held_us));
        }
    }
    against_expectation(film, &track, expected_ms)
}

/// The length that a container stores, milliseconds, and the length of what must fill it.
///
/// MP4 declares frames and length; an edit list may hide frames, so both must fall short.
/// Matroska declares the length of its longest stream, and AVI frames at a fixed rate. MPEG-TS,
/// FLV and the others declare nothing that can be trusted: only the payload's `expect` helps
/// there.
fn promise(film: &Film, track: &Track) -> Option<(u64, i64)> {
    let video = &film.facts.video;
    let is_container = |name| film.facts.container.split(',').any(|container| container == name);
    if is_container("mov") {
        let (end, first) = track.end_us.zip(track.first_us)?;
        let is_complete = video.declared_frames.is_some_and(|frames| track.packets >= frames);
        return video.declared_ms.filter(|_| !is_complete).map(|ms| (ms, end.max(end - first)));
    }
    let held_us = film.scan.end_us();
    if is_container("matroska") {
        return film.facts.duration_ms.map(|ms| (ms, held_us));
    }
    if is_container("avi") {
        let (frames, rate) = video.declared_frames.zip(video.rate)?;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts of frames are far below 2^52, and the cast saturates"
        )]
        let ms = (frames as f64 / rate * 1000.0) as u64;
        return Some((ms, held_us));
    }
    None
}

fn against_expectation(film: &Film, track: &Track, expected_ms: Option<u64>) -> Option<String> {
    let expected_us = ms_to_us(expected_ms?);
    if !track.has_steady_clock() {
        // Times that begin anew do not tell how much there is.
        return None;
    }
    let length_us = film.scan.length_us();
    if (length_us - expected_us).abs() <= tolerance_us(expected_us) {
        return None;
    }
    let (expected, length) = (length_text(expected_us), length_text(length_us));
    Some(if length_us < expected_us {
        format!("is truncated: {expected} were expected, but it holds {length}")
    } else {
        format!("is not the film that was expected: it holds {length} instead of {expected}")
    })
}

fn ms_to_us(ms: u64) -> i64 {
    i64::try_from(ms.saturating_mul(1000)).unwrap_or(i64::MAX)
}

pub(crate) fn length_text(us: i64) -> String {
    format!("{:.2} s", seconds(us))
}

/// Microseconds as seconds, for people.
#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
pub(crate) fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::super::facts::Facts;
    use super::super::scan::Scan;
    use super::*;

    /// A film of `seconds` seconds at 10 frames per second in its only stream.
    fn film(container: &str, seconds: u32) -> Film {
        let mut facts = Facts::for_test();
        facts.container = container.to_owned();
        facts.video.rate = Some(10.0);
        let mut scan = Scan::default();
        for frame in 0..seconds * 10 {
            let time = f64::from(frame) / 10.0;
            let line = format!(
                "stream_index=0|pts_time={time}|dts_time={time}|duration_time=0.1|flags=K_"
            );
            scan.on_stdout(line.as_bytes());
        }
        Film { facts, scan, bytes: 1 }
    }

    #[test]
    fn matroska_is_judged_by_its_declared_length() {
        assert_eq!(truncation(&film("matroska,webm", 10), None), None);
        assert_eq!(
            truncation(&film("matroska,webm", 6), None).as_deref(),
            Some("is truncated: it declares 10.00 s, but holds 6.00 s and 60 frames")
        );
    }

    #[test]
    fn mp4_is_judged_by_frames_and_length_together() {
        let mut cut = film("mov,mp4,m4a", 6);
        (cut.facts.video.declared_ms, cut.facts.video.declared_frames) = (Some(10_000), Some(100));
        let sentence = truncation(&cut, None).expect("it is cut");
        assert!(sentence.contains("declares 10.00 s and 100 frames"), "{sentence}");
        // An edit list that trims the film: fewer frames, but as long as it says.
        (cut.facts.video.declared_ms, cut.facts.video.declared_frames) = (Some(6_000), Some(100));
        assert_eq!(truncation(&cut, None), None);
        cut.scan.on_stderr(b"[mov @ 0x1] [error] stream 1, offset 0x8376d: partial file");
        assert!(truncation(&cut, None).is_some());
    }

    #[test]
    fn mpeg_ts_is_judged_only_by_what_was_expected() {
        let film = film("mpegts", 6);
        assert_eq!(truncation(&film, None), None);
        assert_eq!(truncation(&film, Some(6_100)), None);
        let short = truncation(&film, Some(10_000)).expect("it is short");
        assert_eq!(short, "is truncated: 10.00 s were expected, but it holds 6.00 s");
        let long = truncation(&film, Some(3_000)).expect("it is another film");
        assert!(long.contains("not the film that was expected"), "{long}");
    }

    #[test]
    fn a_clock_that_begins_anew_is_no_measure() {
        let mut film = film("mpegts", 6);
        film.scan.on_stdout(b"stream_index=0|pts_time=0.5|dts_time=0.5|duration_time=0.1|flags=K_");
        assert_eq!(truncation(&film, Some(10_000)), None);
    }

    #[test]
    fn the_tolerance_grows_with_the_film_within_bounds() {
        assert_eq!(tolerance_us(1_000_000), 200_000);
        assert_eq!(tolerance_us(60_000_000), 600_000);
        assert_eq!(tolerance_us(7_200_000_000), 2_000_000);
    }
}
