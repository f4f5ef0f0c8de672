//! Whether the sound of an output begins and ends where that of its film does, measured from the
//! pictures. Pure: the packets of both in, a sentence out.

use super::super::film::scan::Track;
use super::super::film::truncation::length_text;

/// How much earlier than in the film sound may begin, microseconds: below what people notice
/// (ITU-R BT.1359 says 45 ms to 125 ms) and above the packets of all codecs.
const EARLY_MAX_US: i64 = 120_000;
/// How much later: the first packets of a recording can often not be decoded.
const LATE_MAX_US: i64 = 500_000;
/// How much earlier it may end: an edit list can hide its begin, so that only the end shows that
/// all of it was moved. Containers that do not say how long packets are let it end later.
const END_EARLY_MAX_US: i64 = 250_000;

/// One file's pictures and one of its audio tracks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) pictures: &'a Track,
    pub(crate) sound: &'a Track,
}

/// Says how the sound of an output lies elsewhere than that of its film. `None` also when the
/// film's clock jumps: then nobody knows where it should lie.
pub(crate) fn shift(film: Pair<'_>, made: Pair<'_>) -> Option<String> {
    if !film.pictures.has_steady_clock() || !film.sound.has_steady_clock() {
        return None;
    }
    let begin = off_by(film, made, |sound| sound.first_us)?;
    if !(-EARLY_MAX_US..=LATE_MAX_US).contains(&begin) {
        return Some(format!("its sound begins {} than that of the film", direction(begin)));
    }
    let end = off_by(film, made, |sound| sound.end_us)?;
    if !(-END_EARLY_MAX_US..=LATE_MAX_US).contains(&end) {
        return Some(format!("its sound ends {} than that of the film", direction(end)));
    }
    None
}

fn direction(us: i64) -> String {
    let word = if us < 0 { "earlier" } else { "later" };
    format!("{} {word}", length_text(us.abs()))
}

/// By how much a time of the sound is later than in the film. The first pictures may have been
/// lost, or the last ones: the nearer of both counts.
fn off_by(film: Pair<'_>, made: Pair<'_>, time: impl Fn(&Track) -> Option<i64>) -> Option<i64> {
    let (wanted, found) = (time(film.sound)?, time(made.sound)?);
    let by_first = (found - made.pictures.first_us?) - (wanted - film.pictures.decodable_us?);
    let by_last = (found - made.pictures.last_us?) - (wanted - film.pictures.last_us?);
    Some(if by_first.abs() < by_last.abs() { by_first } else { by_last })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(first_us: i64, end_us: i64) -> Track {
        let mut track = Track::default();
        (track.first_us, track.decodable_us) = (Some(first_us), Some(first_us));
        (track.last_us, track.end_us) = (Some(end_us - 20_000), Some(end_us));
        track
    }

    fn shifted(pictures: (i64, i64), sound: (i64, i64)) -> Option<String> {
        // The film begins at 1.4 s, its sound half a second later.
        let (film_pictures, film_sound) =
            (track(1_400_000, 21_400_000), track(1_900_000, 21_400_000));
        let film = Pair { pictures: &film_pictures, sound: &film_sound };
        let (pictures, sound) = (track(pictures.0, pictures.1), track(sound.0, sound.1));
        shift(film, Pair { pictures: &pictures, sound: &sound })
    }

    #[test]
    fn sound_at_its_place_is_in_sync_wherever_the_clock_begins() {
        assert_eq!(shifted((0, 20_000_000), (500_000, 20_000_000)), None);
        assert_eq!(shifted((80_000, 20_080_000), (570_000, 20_100_000)), None);
        // A second of pictures could not be decoded: the sound is still where it was.
        assert_eq!(shifted((1_000_000, 20_000_000), (500_000, 20_000_000)), None);
    }

    #[test]
    fn shifted_and_short_sound_is_found() {
        let early = shifted((0, 20_000_000), (0, 19_500_000)).expect("it is early");
        assert_eq!(early, "its sound begins 0.50 s earlier than that of the film");
        let late = shifted((0, 20_000_000), (1_500_000, 21_000_000)).expect("it is late");
        assert_eq!(late, "its sound begins 1.00 s later than that of the film");
        let hidden = shifted((0, 20_000_000), (500_000, 19_700_000)).expect("it was moved");
        assert_eq!(hidden, "its sound ends 0.30 s earlier than that of the film");
        let short = shifted((0, 20_000_000), (500_000, 15_000_000)).expect("it is short");
        assert_eq!(short, "its sound ends 5.00 s earlier than that of the film");
    }

    #[test]
    fn nobody_knows_where_sound_belongs_when_the_clock_jumps() {
        let (pictures, mut sound) = (track(0, 10_000_000), track(5_000_000, 10_000_000));
        sound.disordered = 1;
        let film = Pair { pictures: &pictures, sound: &sound };
        let (pictures, sound) = (track(0, 10_000_000), track(0, 5_000_000));
        assert_eq!(shift(film, Pair { pictures: &pictures, sound: &sound }), None);
    }
}
