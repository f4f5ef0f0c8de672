//! Times, rates and sizes as a description writes them: `20s`, `600/1m`, `8GiB`.

use serde::Deserialize;
use std::time::Duration;

/// A length of time, `500ms`, `20s`, `45m`, `2h` or `1d`; at most a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

/// At most `count` requests in every window of `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate {
    /// From 1 to 100,000.
    pub count: u32,
    /// From 1 ms to a day.
    pub window: Duration,
}

/// A number of bytes, `512KiB`, `1MiB` or `8GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub u64);

const DAY: Duration = Duration::from_secs(86_400);

/// The longest [`Span`].
const SPAN_MAX: Duration = Duration::from_secs(365 * 86_400);

/// The most requests of a [`Rate`]: each is remembered for the length of its window.
const COUNT_MAX: u32 = 100_000;

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        const ALLOWED: &str =
            "expected a time such as \"500ms\", \"20s\", \"45m\", \"2h\" or \"1d\"";
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(format!("{text:?}: {ALLOWED}")),
        };
        let number: u64 = number.parse().map_err(|_| format!("{text:?}: {ALLOWED}"))?;
        let span = number.checked_mul(unit_ms).map(Duration::from_millis);
        span.filter(|span| *span <= SPAN_MAX)
            .map(Self)
            .ok_or_else(|| format!("{text:?}: at most 365 days are allowed"))
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?}: {why}");
        let allowed = "expected requests per window, such as \"600/1m\" or \"10/1s\"";
        let (count, window) = text.split_once('/').ok_or_else(|| wrong(allowed))?;
        let count: u32 = count.parse().map_err(|_| wrong(allowed))?;
        if !(1..=COUNT_MAX).contains(&count) {
            return Err(wrong("from 1 to 100000 requests are allowed"));
        }
        let Span(window) = Span::try_from(window.to_owned()).map_err(|_| wrong(allowed))?;
        if window.is_zero() || window > DAY {
            return Err(wrong("a window is at least 1ms and at most 1d"));
        }
        Ok(Self { count, window })
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong =
            || format!("{text:?}: expected a size such as \"512KiB\", \"1MiB\" or \"8GiB\"");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shift = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_read_as_they_are_written() {
        let span = |text: &str| Span::try_from(text.to_owned()).map(|Span(span)| span);
        assert_eq!(span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(span("45m"), Ok(Duration::from_secs(2_700)));
        let rate = Rate::try_from("600/1m".to_owned());
        assert_eq!(rate, Ok(Rate { count: 600, window: Duration::from_secs(60) }));
        assert_eq!(Size::try_from("8GiB".to_owned()), Ok(Size(8 << 30)));
    }

    #[test]
    fn what_is_no_measure_is_refused_with_what_is_allowed() {
        for text in ["", "s", "5", "-5s", "5 s", "1.5s", "400d", "99999999999999999999s"] {
            Span::try_from(text.to_owned()).expect_err(text);
        }
        for text in ["", "5", "0/1s", "5/0s", "5/2d", "/1s", "5/", "200000/1s", "-1/1s"] {
            let refusal = Rate::try_from(text.to_owned()).expect_err(text);
            assert!(refusal.starts_with(&format!("{text:?}: ")), "{refusal}");
        }
        for text in ["", "5", "5GB", "99999999999TiB", "GiB"] {
            Size::try_from(text.to_owned()).expect_err(text);
        }
    }
}
