//! What came of an attempt, how a denial must look, and the judgement. Pure.

use serde::{Deserialize, Serialize};

/// What an attempt saw, from inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// The kernel refused with this error number.
    Errno(i32),
    /// The process that tried it was ended by this signal.
    Killed(i32),
    /// It got what it wanted.
    Got(String),
    /// It looked, and the wall stands.
    Held(String),
    /// The call succeeded; whether it reached anything must be seen from outside.
    Done(String),
    /// It could not be tried.
    Unable(String),
    /// There is nothing to try: no such limit was given.
    Pointless(String),
}

/// How a denial must look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// The kernel says one of these errors, or ends the process for a forbidden call.
    Errno(&'static [i32]),
    /// The attempt itself sees that the wall stands.
    Seen,
    /// One of these errors; or success that reached nothing outside, which the host proves.
    Contained(&'static [i32]),
}

/// The judgement about one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It failed in the expected way.
    Denied,
    /// It got through, or failed in a way that is no refusal.
    GotThrough,
    /// It could not be made: counts as a failure.
    NotTried,
    /// Left out for a stated reason, counted apart.
    Skipped,
}

/// Signal of a forbidden system call.
const SIGSYS: i32 = 31;

/// Judges an outcome. `proof` is what the host saw of it outside, if anything.
#[must_use]
pub(super) fn judge(denial: Denial, outcome: &Outcome, proof: Option<&str>) -> Verdict {
    if proof.is_some() {
        return Verdict::GotThrough;
    }
    let expected = |number: &i32| match denial {
        Denial::Errno(list) | Denial::Contained(list) => list.contains(number),
        Denial::Seen => false,
    };
    match outcome {
        Outcome::Unable(_) => Verdict::NotTried,
        Outcome::Pointless(_) => Verdict::Skipped,
        Outcome::Held(_) | Outcome::Killed(SIGSYS) => Verdict::Denied,
        Outcome::Errno(number) if expected(number) => Verdict::Denied,
        Outcome::Done(_) if matches!(denial, Denial::Contained(_)) => Verdict::Denied,
        Outcome::Errno(_) | Outcome::Killed(_) | Outcome::Got(_) | Outcome::Done(_) => {
            Verdict::GotThrough
        }
    }
}

impl Outcome {
    /// In words, for the table.
    #[must_use]
    pub(super) fn text(&self) -> String {
        match self {
            Self::Errno(number) => std::io::Error::from_raw_os_error(*number).to_string(),
            Self::Killed(SIGSYS) => "ended by SIGSYS".to_owned(),
            Self::Killed(signal) => format!("ended by signal {signal}"),
            Self::Got(text)
            | Self::Held(text)
            | Self::Done(text)
            | Self::Unable(text)
            | Self::Pointless(text) => text.clone(),
        }
    }
}

/// What counts as a denial, in words, for the table.
#[must_use]
pub(super) fn expectation(denial: Denial) -> &'static str {
    match denial {
        Denial::Errno(_) => "refused",
        Denial::Seen => "wall seen",
        Denial::Contained(_) => "nothing outside",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[i32] = &[1, 13];

    #[test]
    fn only_the_expected_refusal_is_a_denial() {
        let errno = Denial::Errno(LIST);
        assert_eq!(judge(errno, &Outcome::Errno(13), None), Verdict::Denied);
        assert_eq!(judge(errno, &Outcome::Killed(31), None), Verdict::Denied);
        assert_eq!(judge(errno, &Outcome::Errno(22), None), Verdict::GotThrough);
        assert_eq!(judge(errno, &Outcome::Killed(11), None), Verdict::GotThrough);
        assert_eq!(judge(errno, &Outcome::Done(String::new()), None), Verdict::GotThrough);
        assert_eq!(judge(errno, &Outcome::Got(String::new()), None), Verdict::GotThrough);
        assert_eq!(judge(errno, &Outcome::Unable(String::new()), None), Verdict::NotTried);
    }

    #[test]
    fn success_inside_is_a_denial_only_where_the_host_can_prove_that_nothing_came_out() {
        let contained = Denial::Contained(LIST);
        assert_eq!(judge(contained, &Outcome::Done(String::new()), None), Verdict::Denied);
        let proof = Some("a file");
        assert_eq!(judge(contained, &Outcome::Done(String::new()), proof), Verdict::GotThrough);
        assert_eq!(judge(contained, &Outcome::Errno(13), proof), Verdict::GotThrough);
        assert_eq!(judge(Denial::Seen, &Outcome::Errno(13), None), Verdict::GotThrough);
        assert_eq!(judge(Denial::Seen, &Outcome::Held(String::new()), None), Verdict::Denied);
    }
}
