//! Which encoder a job uses: the first of its list that passed its trial. Pure; what a trial
//! showed is remembered for a while.

use super::{Encoder, X264};
use std::time::{Duration, Instant};

/// A machine may get a driver, or a device that was busy.
const FAILED_FOR: Duration = Duration::from_secs(300);
/// What worked is tried again too: drivers break.
const PASSED_FOR: Duration = Duration::from_secs(3600);
const REMEMBERED_MAX: usize = 64;

/// What a trial's answer depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) encoder: Encoder,
    /// Stands for the program: its path, size and time of change.
    pub(crate) program: String,
    /// The devices that the type was given, and their drivers.
    pub(crate) devices: String,
}

/// Why an encoder cannot be used.
pub(crate) type Refusal = String;

/// Answers of trials.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    known: Vec<(Subject, Instant, Option<Refusal>)>,
}

impl Memory {
    pub(crate) const fn new() -> Self {
        Self { known: Vec::new() }
    }

    /// What the last trial showed, while that counts.
    pub(crate) fn recall(&self, now: Instant, subject: &Subject) -> Option<Result<(), Refusal>> {
        let (_, since, refusal) = self.known.iter().find(|(known, ..)| known == subject)?;
        let counts_for = if refusal.is_none() { PASSED_FOR } else { FAILED_FOR };
        let answer = refusal.clone().map_or(Ok(()), Err);
        (now.saturating_duration_since(*since) < counts_for).then_some(answer)
    }

    pub(crate) fn keep(&mut self, now: Instant, subject: Subject, answer: &Result<(), Refusal>) {
        self.known.retain(|(known, ..)| *known != subject);
        if self.known.len() == REMEMBERED_MAX {
            self.known.remove(0);
        }
        self.known.push((subject, now, answer.clone().err()));
    }

    /// An encoder failed at work: whatever its trial showed counts no more.
    pub(crate) fn forget(&mut self, encoder: Encoder) {
        self.known.retain(|(known, ..)| known.encoder != encoder);
    }
}

/// The order in which encoders are tried. `begun` is the one of parts that an earlier attempt has
/// finished: they are of no use with another. `lost` have failed in this attempt.
pub(crate) fn order(listed: &[Encoder], begun: Option<Encoder>, lost: &[Encoder]) -> Vec<Encoder> {
    let begun = begun.filter(|encoder| listed.contains(encoder));
    let others = listed.iter().copied().filter(|encoder| begun != Some(*encoder));
    begun.into_iter().chain(others).filter(|encoder| !lost.contains(encoder)).collect()
}

/// A trial would show what the worker's set-up has shown.
pub(crate) fn needs_trial(encoder: Encoder) -> bool {
    encoder != X264
}

/// The sentence for a job of which no encoder can be used.
pub(crate) fn none_left(refusals: &[(Encoder, Refusal)]) -> String {
    let told: Vec<String> =
        refusals.iter().map(|(encoder, why)| format!("{}: {why}", encoder.name())).collect();
    format!(
        "none of the encoders that the job or its profile lists works here ({}); add \"libx264\" \
         to codecs, or see what the type's devices and the driver lack",
        told.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoder(name: &str) -> Encoder {
        Encoder::named(name).expect("it is known")
    }

    fn subject(name: &str, program: &str) -> Subject {
        let devices = "/dev/dri/renderD128 i915".to_owned();
        Subject { encoder: encoder(name), program: program.to_owned(), devices }
    }

    #[test]
    fn a_refusal_is_remembered_for_minutes_and_a_success_for_an_hour() {
        let (mut memory, now) = (Memory::new(), Instant::now());
        // Quoted from the measured notes on FFmpeg 5.1 and 9.0 without a GPU.
        let refusal = Err("Cannot load libcuda.so.1".to_owned());
        memory.keep(now, subject("h264_nvenc", "ffmpeg 5.1"), &refusal);
        memory.keep(now, subject("h264_vaapi", "ffmpeg 5.1"), &Ok(()));
        let at = |seconds| now + Duration::from_secs(seconds);
        let nvenc = subject("h264_nvenc", "ffmpeg 5.1");
        assert_eq!(memory.recall(at(299), &nvenc), Some(refusal));
        assert_eq!(memory.recall(at(301), &nvenc), None);
        let vaapi = subject("h264_vaapi", "ffmpeg 5.1");
        assert_eq!(memory.recall(at(3599), &vaapi), Some(Ok(())));
        assert_eq!(memory.recall(at(3601), &vaapi), None);
        // Another program, or other drivers, is another question.
        assert_eq!(memory.recall(now, &subject("h264_vaapi", "ffmpeg 9.0")), None);
        memory.forget(encoder("h264_vaapi"));
        assert_eq!(memory.recall(now, &vaapi), None);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut memory, now) = (Memory::new(), Instant::now());
        for at in 0..200 {
            memory.keep(now, subject("h264_nvenc", &at.to_string()), &Ok(()));
        }
        assert_eq!(memory.known.len(), REMEMBERED_MAX);
    }

    #[test]
    fn what_was_begun_goes_first_and_what_was_lost_is_left_out() {
        let list = ["h264_nvenc", "h264_vaapi", "libx264"].map(encoder);
        assert_eq!(order(&list, None, &[]), list);
        assert_eq!(order(&list, Some(list[2]), &[]), [list[2], list[0], list[1]]);
        assert_eq!(order(&list, None, &list[..1]), &list[1..]);
        assert_eq!(order(&list[..1], Some(list[2]), &[]), &list[..1]);
    }

    #[test]
    fn a_job_without_an_encoder_is_told_why_for_each() {
        let refusals = [
            (encoder("h264_nvenc"), "Cannot load libcuda.so.1".to_owned()),
            (encoder("h264_vaapi"), "No VA display found".to_owned()),
        ];
        let sentence = none_left(&refusals);
        assert!(sentence.contains("h264_nvenc: Cannot load libcuda.so.1; h264_vaapi: No VA"));
    }
}
