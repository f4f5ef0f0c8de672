//! What a job may wish for besides sizes and quality: fewer pictures, a loudness, an early end.

use super::super::film::probe::Film;
use super::super::loudness::{self, Measured};
use super::super::output::verify::Made;
use super::super::plan::Thin;
use super::Work;
use shiftboss_protocol::job::{Cause, Failure};
use std::borrow::Cow;

impl Work<'_> {
    /// The film as its outputs are to show it: with as many pictures as are kept.
    pub(super) fn as_kept(&self, made: &[Made]) -> Cow<'_, Film> {
        let Some(thin) = self.plan.thin else { return Cow::Borrowed(self.film) };
        let mut film = self.film.clone();
        if let Some(track) = film.scan.tracks.get_mut(&self.plan.video_stream) {
            track.decodable = match thin {
                Thin::Every(count) => track.decodable.div_ceil(u64::from(count)),
                // As many as there are times for: their span is compared.
                Thin::Resample(_) => made.first().map_or(0, |made| made.video.packets),
            };
        }
        Cow::Owned(film)
    }

    /// Ends the job when a rendition of which `bytes` are made will be larger than the film.
    ///
    /// # Errors
    /// A permanent [`Failure`] that says so, where the job asks for it.
    pub(crate) fn is_worth_it(
        &self,
        rendition: &str,
        bytes: u64,
        (done, all): (u64, u64),
    ) -> Result<(), Failure> {
        // What a tenth of a film takes says little about the rest.
        if !self.ladder.stop_when_larger || done.saturating_mul(10) < all {
            return Ok(());
        }
        let whole = u128::from(bytes) * u128::from(all) / u128::from(done.max(1));
        if whole <= u128::from(self.film.bytes) {
            return Ok(());
        }
        let film = self.film.bytes;
        let message = format!(
            "rendition {rendition} would have {whole} bytes, the film has {film}: \
             stop_when_larger ended the job; ask for fewer bits (crf, maxrate) or less renditions"
        );
        Err(Failure::permanent(Cause::Limit, message))
    }

    /// The loudness of each audio track, where that is to be changed and it is not silent.
    ///
    /// # Errors
    /// The [`Failure`] of the run that measures it.
    pub(crate) fn loudness(&self, share: Option<f64>) -> Result<Vec<Option<Measured>>, Failure> {
        let Some(target) = self.plan.loudness else { return Ok(Vec::new()) };
        let film = (self.tools, self.input);
        let measure = |track| loudness::measure(self.host, film, track, (target, share));
        self.plan.audio.iter().map(measure).collect()
    }
}
