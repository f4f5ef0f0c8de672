//! Progress of an encode in chunks: one share over the whole job. Pure.

use super::super::progress::{Block, Meter};
use std::time::Duration;

/// What the parts of the work take, about: nearly all of it is encoding pictures.
const SOUND: f64 = 0.02;
const PICTURES: f64 = 0.95;
const JOINING: f64 = 0.025;

/// How far the whole is. It never goes back.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    meter: Meter,
    film_us: u64,
    /// Shares from 0 to 1.
    sound: f64,
    joined: f64,
    /// Pictures of chunks that are finished, microseconds of film and bytes.
    done_us: u64,
    done_bytes: u64,
    shown: f64,
}

impl Share {
    pub(crate) fn of_film(film_us: u64) -> Self {
        let (meter, film_us) = (Meter::new(Some(film_us)), film_us.max(1));
        Self { meter, film_us, sound: 0.0, joined: 0.0, done_us: 0, done_bytes: 0, shown: 0.0 }
    }

    pub(crate) fn chunk_done(&mut self, film_us: u64, bytes: u64) {
        self.done_us += film_us;
        self.done_bytes += bytes;
    }

    pub(crate) fn sound_done(&mut self) {
        self.sound = 1.0;
    }

    pub(crate) fn now(&mut self) -> f64 {
        self.show(self.done_us)
    }

    /// A block of a chunk of which `chunk_us` of film is encoded, in `bytes`.
    pub(crate) fn on_pictures(
        &mut self,
        elapsed: Duration,
        block: &Block,
        (chunk_us, bytes): (u64, u64),
    ) -> (f64, String) {
        let us = self.done_us + chunk_us;
        // FFmpeg's own speed counts from another begin.
        let block = Block { out_time_us: Some(us), speed: None, ..block.clone() };
        let (_, note) = self.meter.report(elapsed, &block, self.done_bytes + bytes);
        (self.show(us), note)
    }

    /// A block of the audio's run.
    pub(crate) fn on_sound(&mut self, block: &Block) -> f64 {
        self.sound = block.out_time_us.map_or(0.0, |us| self.part(us));
        self.now()
    }

    /// A block of the joining of output `at` of `count`.
    pub(crate) fn on_joining(&mut self, (at, count): (usize, usize), block: &Block) -> f64 {
        let within = block.out_time_us.map_or(0.0, |us| self.part(us));
        #[expect(clippy::cast_precision_loss, reason = "there are at most eight outputs")]
        let joined = (at as f64 + within) / count.max(1) as f64;
        self.joined = joined;
        self.now()
    }

    fn part(&self, us: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "times are below 2^52 microseconds")]
        let part = us as f64 / self.film_us as f64;
        part.clamp(0.0, 1.0)
    }

    fn show(&mut self, pictures_us: u64) -> f64 {
        let pictures = self.part(pictures_us);
        let share = SOUND * self.sound + PICTURES * pictures + JOINING * self.joined;
        self.shown = self.shown.max(share);
        self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Block {
        Block { fps: Some(90.0), ..Block::default() }
    }

    #[test]
    fn a_resumed_encode_starts_at_what_is_done_and_never_goes_back() {
        let mut share = Share::of_film(100_000_000);
        share.sound_done();
        share.chunk_done(60_000_000, 7_500_000);
        let mut shown = vec![share.now()];
        assert!((0.58..0.60).contains(&shown[0]), "{shown:?}");
        let mut note = String::new();
        for second in 1..=10 {
            let elapsed = Duration::from_secs(second);
            let part;
            (part, note) = share.on_pictures(elapsed, &block(), (second * 2_000_000, 250_000));
            shown.push(part);
        }
        // 20 of 40 seconds are left at twice the speed of the film.
        assert_eq!(note, "90.0 fps, 775 kbit/s, speed 2.0x, eta 10s, 7.8 MB");
        share.chunk_done(20_000_000, 2_500_000);
        shown.push(share.on_pictures(Duration::from_secs(11), &block(), (0, 0)).0);
        share.chunk_done(20_000_000, 2_500_000);
        shown.push(share.now());
        for at in 0..2 {
            let half = Block { out_time_us: Some(50_000_000), ..Block::default() };
            shown.push(share.on_joining((at, 2), &half));
        }
        assert!(shown.is_sorted() && shown.iter().all(|part| *part < 1.0), "{shown:?}");
        assert!(shown.last().is_some_and(|last| *last > 0.98), "{shown:?}");
    }

    #[test]
    fn the_sound_is_a_small_part() {
        let mut share = Share::of_film(100_000_000);
        let half = Block { out_time_us: Some(50_000_000), ..Block::default() };
        assert!((share.on_sound(&half) - 0.01).abs() < 1e-9);
        assert!((share.on_sound(&Block::default()) - 0.01).abs() < 1e-9);
    }
}
