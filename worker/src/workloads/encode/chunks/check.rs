//! Whether a chunk's file holds exactly the pictures that it was to hold. Pure.

use super::super::film::pictures::Pictures;
use super::cut::{Chunk, Cuts, tick_of};

/// How far a picture of an irregular film may have moved: ticks of two clocks, microseconds.
const MOVED_MAX_US: i64 = 150;
/// Players read where a track begins by a clock of milliseconds.
const START_MOVED_MAX_US: i64 = 1_000;

/// Compares the packets of a chunk's file with the film.
///
/// # Errors
/// What differs.
pub(crate) fn compare(cuts: &Cuts, chunk: &Chunk, found: &Pictures) -> Result<(), String> {
    let wanted = cuts.times_of(chunk);
    same_gaps(cuts, wanted, &found.times_us)?;
    if let (Some(time), Some(wanted)) = (found.times_us.first(), wanted.first()) {
        let is_there = match cuts.rate {
            // On the clock of the rate, as the encoder counts.
            Some(rate) => tick_of(*time, rate) == tick_of(*wanted, rate),
            None => (time - wanted).abs() <= MOVED_MAX_US,
        };
        if !is_there {
            return Err(format!("it begins at {time} us instead of {wanted} us"));
        }
    }
    let keyframes = chunk.keyframes.iter().filter_map(|at| found.times_us.get(*at));
    has_keyframes(keyframes, found)
}

/// Compares the packets of a joined output with the film. `start_us` is when the first chunk
/// begins.
///
/// # Errors
/// What differs.
pub(crate) fn compare_all(cuts: &Cuts, start_us: i64, found: &Pictures) -> Result<(), String> {
    same_gaps(cuts, &cuts.times_us, &found.times_us)?;
    if let Some(time) = found.times_us.first()
        && (time - start_us).abs() > START_MOVED_MAX_US
    {
        return Err(format!("it begins at {time} us instead of {start_us} us"));
    }
    let planned = cuts.chunks.iter().flat_map(|chunk| {
        chunk.keyframes.iter().filter_map(|at| found.times_us.get(chunk.first + at))
    });
    has_keyframes(planned, found)
}

/// Times that count from the first picture.
fn same_gaps(cuts: &Cuts, wanted: &[i64], times: &[i64]) -> Result<(), String> {
    if times.len() != wanted.len() {
        return Err(format!("it holds {} frames, {} were planned", times.len(), wanted.len()));
    }
    let (Some(first), Some(first_wanted)) = (times.first(), wanted.first()) else { return Ok(()) };
    for (at, (time, wanted)) in times.iter().zip(wanted).enumerate() {
        let is_there = match cuts.rate {
            Some(rate) => {
                let wanted = tick_of(*wanted, rate) - tick_of(*first_wanted, rate);
                tick_of(time - first, rate) == wanted
            }
            None => (time - first - (wanted - first_wanted)).abs() <= MOVED_MAX_US,
        };
        if !is_there {
            return Err(format!(
                "frame {at} comes {} us after the first instead of {} us",
                time - first,
                wanted - first_wanted
            ));
        }
    }
    Ok(())
}

fn has_keyframes<'a>(
    mut planned: impl Iterator<Item = &'a i64>,
    found: &Pictures,
) -> Result<(), String> {
    let is_missing = |time: &&i64| found.keys_us.binary_search(time).is_err();
    match planned.find(is_missing) {
        Some(missing) => Err(format!("there is no keyframe at {missing} us")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(rate: Option<f64>) -> Cuts {
        let times_us: Vec<i64> = (0..200).map(|at| at * 40_000).collect();
        let chunk = |first, keyframes: &[usize]| Chunk {
            first,
            frames: 100,
            keyframes: keyframes.to_vec(),
            seek_us: None,
            from_us: None,
            to_us: None,
        };
        let chunks = vec![chunk(0, &[0, 50]), chunk(100, &[0, 50])];
        Cuts { origin_us: 0, before_us: times_us.clone(), times_us, rate, chunks }
    }

    fn found(cuts: &Cuts, change: impl Fn(&mut Vec<i64>, &mut Vec<i64>)) -> Pictures {
        let mut pictures = Pictures::of(0);
        pictures.times_us = cuts.times_us[100..].to_vec();
        pictures.keys_us = vec![4_000_000, 6_000_000];
        change(&mut pictures.times_us, &mut pictures.keys_us);
        pictures
    }

    fn verdict(rate: Option<f64>, change: impl Fn(&mut Vec<i64>, &mut Vec<i64>)) -> String {
        let cuts = cuts(rate);
        compare(&cuts, &cuts.chunks[1], &found(&cuts, change)).err().unwrap_or_default()
    }

    #[test]
    fn the_planned_pictures_are_accepted_with_more_keyframes_too() {
        for rate in [Some(25.0), None] {
            assert_eq!(verdict(rate, |_, _| {}), "");
            assert_eq!(verdict(rate, |_, keys| keys.insert(1, 5_000_000)), "");
        }
    }

    #[test]
    fn lost_moved_and_foreign_pictures_are_found() {
        for rate in [Some(25.0), None] {
            assert!(verdict(rate, |times, _| times.truncate(99)).contains("99 frames"));
            assert!(verdict(rate, |times, _| times[7] += 90_000).contains("frame 7"));
            assert!(verdict(rate, |_, keys| keys.truncate(1)).contains("keyframe at 6000000"));
            let shifted = verdict(rate, |times, _| {
                times.iter_mut().for_each(|time| *time -= 40_000);
            });
            assert!(shifted.contains("begins at 3960000 us"), "{shifted}");
        }
        assert!(verdict(None, |times, _| times[7] += 1_000).contains("frame 7"));
    }

    #[test]
    fn a_joined_output_holds_every_picture_and_every_keyframe() {
        let cuts = cuts(Some(25.0));
        let mut all = Pictures::of(0);
        all.times_us = cuts.times_us.iter().map(|time| time + 367).collect();
        all.keys_us = [0, 50, 100, 150].map(|at| all.times_us[at]).to_vec();
        assert_eq!(compare_all(&cuts, 0, &all), Ok(()));
        assert!(compare_all(&cuts, 40_000, &all).is_err_and(|what| what.contains("begins")));
        all.keys_us.remove(2);
        assert!(compare_all(&cuts, 0, &all).is_err_and(|what| what.contains("keyframe")));
        all.times_us.remove(100);
        assert!(compare_all(&cuts, 0, &all).is_err_and(|what| what.contains("199 frames")));
    }
}
