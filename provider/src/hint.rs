//! What an answer's headers say about when to come back.
//!
//! Every number in them is the provider's, so it may be absurd: a wait of a year, or one that is
//! over. It is cut to [`PAUSE_MAX`]; the operation stays, and is tried again after that.

use std::time::{Duration, SystemTime};

/// The longest pause that a provider can ask for.
pub const PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// A number of a reset header above this is a moment in Unix seconds, not a length.
const UNIX_SECONDS_MIN: f64 = 1e9;

/// What headers asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// Send nothing of this class before this much time has passed, at most [`PAUSE_MAX`].
    pub pause: Option<Duration>,
    /// Ask for this operation again after this, at most [`PAUSE_MAX`].
    pub poll_after: Option<Duration>,
    /// What was asked for was cut, or was in the past.
    pub is_absurd: bool,
}

/// Reads the headers of an answer. `header` finds one by its lower-case name, `is_refusal` says
/// that the answer was 429 or 503. Moments are compared with the answer's own `Date`, because our
/// clock may be wrong; only without one with `now`, the wall clock.
#[must_use]
pub fn read<'a>(
    header: impl Fn(&str) -> Option<&'a str>,
    is_refusal: bool,
    now: SystemTime,
) -> Hint {
    let mut hint = Hint::default();
    let date = header("date").and_then(|text| httpdate::parse_http_date(text.trim()).ok());
    let now = date.unwrap_or(now);
    let number = |name: &str| header(name).and_then(|text| text.trim().parse::<f64>().ok());
    let asked = number("retry-after-ms")
        .map(|ms| ms / 1e3)
        .or_else(|| header("retry-after").and_then(|text| retry_after(text, now)))
        .or_else(|| used_up(&header, is_refusal, now));
    hint.pause = asked.map(|seconds| bounded(seconds, &mut hint.is_absurd));
    let poll_after = number("openai-poll-after-ms").map(|ms| ms / 1e3);
    hint.poll_after = poll_after.map(|seconds| bounded(seconds, &mut hint.is_absurd));
    hint
}

/// Seconds of a `Retry-After`: a number of them, or a date.
fn retry_after(text: &str, now: SystemTime) -> Option<f64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Some(seconds);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(match date.duration_since(now) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(error) => -error.duration().as_secs_f64(),
    })
}

/// Seconds until a budget is filled again, when it is empty.
fn used_up<'a>(
    header: &impl Fn(&str) -> Option<&'a str>,
    is_refusal: bool,
    now: SystemTime,
) -> Option<f64> {
    let is_empty = |name: &str| header(name).is_some_and(|text| text.trim() == "0");
    let kinds = ["", "-requests", "-tokens"];
    let resets = kinds.iter().filter_map(|kind| {
        let is_empty = is_empty(&format!("x-ratelimit-remaining{kind}"));
        let reset = header(&format!("x-ratelimit-reset{kind}"))?;
        (is_empty || is_refusal).then(|| reset_in(reset, now)).flatten()
    });
    resets.fold(None, |most, one| Some(most.map_or(one, |most: f64| most.max(one))))
}

/// `12`, `0.5`, a moment in Unix seconds, or `1m30s`, `20ms`.
fn reset_in(text: &str, now: SystemTime) -> Option<f64> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        let unix = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        return Some(if number > UNIX_SECONDS_MIN { number - unix } else { number });
    }
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit());
        let unit_end = unit_end.map_or(rest.len(), |at| at + digits);
        seconds += number
            * match &rest[digits..unit_end] {
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(seconds)
}

fn bounded(seconds: f64, is_absurd: &mut bool) -> Duration {
    let most = PAUSE_MAX.as_secs_f64();
    if !seconds.is_finite() || seconds < 0.0 || seconds > most {
        *is_absurd = true;
    }
    // A NaN asks for nothing.
    if seconds.is_nan() {
        Duration::ZERO
    } else {
        Duration::from_secs_f64(seconds.clamp(0.0, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(1_790_000_000);

    fn hint(headers: &[(&str, &str)]) -> Hint {
        let find = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, text)| *text);
        read(find, true, SystemTime::UNIX_EPOCH + NOW)
    }

    fn pause_ms(headers: &[(&str, &str)]) -> Option<u128> {
        hint(headers).pause.map(|pause| pause.as_millis())
    }

    #[test]
    fn every_form_of_a_wait_is_understood() {
        assert_eq!(pause_ms(&[("retry-after-ms", "1500")]), Some(1_500));
        assert_eq!(pause_ms(&[("retry-after", "30")]), Some(30_000));
        assert_eq!(pause_ms(&[("retry-after", "0.25")]), Some(250));
        let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + NOW + Duration::from_secs(90));
        assert_eq!(pause_ms(&[("retry-after", &date)]), Some(90_000));
        assert_eq!(pause_ms(&[("retry-after-ms", "10"), ("retry-after", "30")]), Some(10));
        assert_eq!(pause_ms(&[("x-ratelimit-reset-requests", "1m30s")]), Some(90_000));
        assert_eq!(pause_ms(&[("x-ratelimit-reset", "1790000012")]), Some(12_000));
        let poll = hint(&[("openai-poll-after-ms", "5000")]);
        assert_eq!((poll.poll_after, poll.pause), (Some(Duration::from_secs(5)), None));
        assert_eq!(pause_ms(&[("retry-after", "soon")]), None);
    }

    #[test]
    fn a_clock_of_ours_that_is_wrong_changes_no_wait_where_the_answer_has_a_date() {
        let at = |after: u64| SystemTime::UNIX_EPOCH + NOW + Duration::from_secs(after);
        let (date, until) = (httpdate::fmt_http_date(at(0)), httpdate::fmt_http_date(at(90)));
        for (name, value) in [("retry-after", until.as_str()), ("x-ratelimit-reset", "1790000090")]
        {
            for ours in [NOW - 40 * PAUSE_MAX, NOW - PAUSE_MAX, NOW, NOW + PAUSE_MAX] {
                let headers = [("date", date.as_str()), (name, value)];
                let find = |name: &str| {
                    headers.iter().find(|(key, _)| *key == name).map(|(_, text)| *text)
                };
                let hint = read(find, true, SystemTime::UNIX_EPOCH + ours);
                let wanted = (Some(Duration::from_secs(90)), false);
                assert_eq!((hint.pause, hint.is_absurd), wanted, "{name}, {ours:?}");
            }
        }
    }

    #[test]
    fn a_budget_that_is_not_empty_pauses_nothing() {
        let headers = [("x-ratelimit-remaining", "12"), ("x-ratelimit-reset", "60")];
        let find = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, text)| *text);
        assert_eq!(read(find, false, SystemTime::UNIX_EPOCH + NOW), Hint::default());
    }

    #[test]
    fn an_absurd_wait_is_cut_and_told() {
        let year = hint(&[("retry-after", "31536000")]);
        assert_eq!((year.pause, year.is_absurd), (Some(PAUSE_MAX), true));
        let past = hint(&[("retry-after", "Fri, 01 Jan 1999 00:00:00 GMT")]);
        assert_eq!((past.pause, past.is_absurd), (Some(Duration::ZERO), true));
        assert!(hint(&[("retry-after", "inf")]).is_absurd);
        assert_eq!(hint(&[("retry-after-ms", "NaN")]).pause, Some(Duration::ZERO));
    }

    proptest! {
        #[test]
        fn no_header_makes_a_pause_too_long_or_panics(name in 0_usize..5, text in "\\PC{0,24}") {
            let names = ["retry-after-ms", "retry-after", "openai-poll-after-ms",
                "x-ratelimit-reset", "x-ratelimit-reset-tokens"];
            let hint = hint(&[(names[name], &text)]);
            prop_assert!(hint.pause.unwrap_or_default() <= PAUSE_MAX);
            prop_assert!(hint.poll_after.unwrap_or_default() <= PAUSE_MAX);
        }
    }
}
