//! Durations and sizes that carry their unit: `"1h30m"`, `"4GiB"`.
//!
//! A bare number is refused everywhere: `timeout = 30` would mean seconds to one reader and
//! milliseconds to the next. [`std::fmt::Display`] prints the canonical form, which parses back.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

/// What a text must look like to be a [`Span`].
pub(crate) const SPAN_FORM: &str = "a duration such as \"250ms\", \"10m\" or \"1h30m\"";
/// What a text must look like to be a [`Size`].
pub(crate) const SIZE_FORM: &str = "a size such as \"512MiB\" or \"4GiB\"";

const SPAN_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const BINARY_UNITS: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const DECIMAL_UNITS: [(&str, u64); 5] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];

/// A length of time in whole milliseconds, written with units: `"250ms"`, `"1h30m"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// That many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// That many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The same length as the standard library's type.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// Whole milliseconds.
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).expect("a span is made of a u64 of milliseconds")
    }
}

impl FromStr for Span {
    type Err = String;

    /// Parts of a number and a unit, each unit at most once, the larger first.
    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("expected {SPAN_FORM}");
        let mut rest = text;
        let mut total = 0_u64;
        let mut smaller_than = u64::MAX;
        while !rest.is_empty() || smaller_than == u64::MAX {
            let (number, after) = leading_number(rest).ok_or_else(refused)?;
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, following) = after.split_at(end);
            let factor = factor_of(unit, &SPAN_UNITS).ok_or_else(refused)?;
            if factor >= smaller_than {
                return Err(refused());
            }
            total = number
                .checked_mul(factor)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(refused)?;
            smaller_than = factor;
            rest = following;
        }
        Ok(Self::from_millis(total))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in SPAN_UNITS {
            if rest >= factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

/// A number of bytes, written with a unit: `"512MiB"` (1024) or `"4GB"` (1000).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// That many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("expected {SIZE_FORM}");
        let (number, unit) = leading_number(text).ok_or_else(refused)?;
        let factor = factor_of(unit, &BINARY_UNITS)
            .or_else(|| factor_of(unit, &DECIMAL_UNITS))
            .ok_or_else(refused)?;
        number.checked_mul(factor).map(Self).ok_or_else(refused)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0B");
        }
        let (unit, factor) = BINARY_UNITS
            .into_iter()
            .chain(DECIMAL_UNITS)
            .filter(|(_, factor)| self.0.is_multiple_of(*factor))
            .max_by_key(|(_, factor)| *factor)
            .expect("every number of bytes is a multiple of 1");
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// The number that a text starts with, digits only, and what follows it.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

fn factor_of(unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
}

/// The word that stands for "no bound" in a [`SpanOr`].
pub trait Word {
    /// The word as it is written.
    const WORD: &'static str;
}

/// `"none"`: without limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLimit {}
impl Word for NoLimit {
    const WORD: &'static str = "none";
}

/// `"forever"`: never deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forever {}
impl Word for Forever {
    const WORD: &'static str = "forever";
}

/// A duration, or the word that says that there is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanOr<W>(Option<Span>, PhantomData<W>);

impl<W> SpanOr<W> {
    /// Bounded by that many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Some(Span::from_secs(seconds)), PhantomData)
    }

    /// Without bound.
    #[must_use]
    pub const fn unbounded() -> Self {
        Self(None, PhantomData)
    }

    /// The bound, `None` when there is none.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        self.0.map(Span::duration)
    }
}

impl<W: Word> FromStr for SpanOr<W> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == W::WORD {
            return Ok(Self::unbounded());
        }
        match text.parse() {
            Ok(span) => Ok(Self(Some(span), PhantomData)),
            Err(refusal) => Err(format!("{refusal}, or \"{}\"", W::WORD)),
        }
    }
}

impl<W: Word> fmt::Display for SpanOr<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(span) => span.fmt(f),
            None => f.write_str(W::WORD),
        }
    }
}

/// Reads and writes a type as the text of its `FromStr` and `Display`.
macro_rules! as_text {
    ([$($generics:tt)*] $type:ty, $name:expr, $form:expr, $pattern:expr) => {
        impl<'de, $($generics)*> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl<$($generics)*> Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<$($generics)*> JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                Cow::from($name)
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $form, "pattern": $pattern })
            }
        }
    };
}

const SPAN_PATTERN: &str = "([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?";
as_text!([] Span, "Duration", SPAN_FORM, format!("^(?=[0-9]){SPAN_PATTERN}$"));
as_text!([] Size, "Size", SIZE_FORM, "^[0-9]+([KMGT]iB|kB|[MGT]?B)$");
as_text!(
    [W: Word] SpanOr<W>,
    format!("DurationOr_{}", W::WORD),
    format!("{SPAN_FORM}, or \"{}\"", W::WORD),
    format!("^({}|(?=[0-9]){SPAN_PATTERN})$", W::WORD)
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_need_a_unit_and_may_be_sums() {
        let millis = |text: &str| text.parse::<Span>().map(Span::millis);
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("0s"), Ok(0));
        assert_eq!(millis("1h30m"), Ok(5_400_000));
        assert_eq!(millis("7d"), Ok(604_800_000));
        let bad = ["", "5", "5 s", "-1s", "1.5s", "1m1h", "1s1s", "s", "1x", "99999999999999999d"];
        for text in bad {
            let refusal = millis(text).expect_err(text);
            assert_eq!(refusal, format!("expected {SPAN_FORM}"), "{text}");
        }
    }

    #[test]
    fn sizes_need_a_unit_of_1024_or_1000() {
        let bytes = |text: &str| text.parse::<Size>().map(Size::bytes);
        assert_eq!(bytes("0B"), Ok(0));
        assert_eq!(bytes("512KiB"), Ok(524_288));
        assert_eq!(bytes("4GB"), Ok(4_000_000_000));
        assert_eq!(bytes("1kB"), Ok(1_000));
        for text in ["", "4", "4GB5", "4G", "1KB", "-1B", "1.5GiB", "99999999999TiB"] {
            assert_eq!(bytes(text), Err(format!("expected {SIZE_FORM}")), "{text}");
        }
    }

    #[test]
    fn the_canonical_form_is_the_shortest() {
        assert_eq!(Span::from_secs(90).to_string(), "1m30s");
        assert_eq!(Size::from_bytes(1_500).to_string(), "1500B");
        assert_eq!(Size::from_bytes(4_000_000_000).to_string(), "4GB");
        assert_eq!(Size::from_bytes(4 << 30).to_string(), "4GiB");
        assert_eq!(SpanOr::<Forever>::unbounded().to_string(), "forever");
        let refusal = "never".parse::<SpanOr<NoLimit>>().expect_err("not a word");
        assert!(refusal.ends_with("or \"none\""), "{refusal}");
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(number: u64) {
            let (span, size) = (Span::from_millis(number), Size::from_bytes(number));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn parsing_never_panics(text: String) {
            let _ = text.parse::<Span>();
            let _ = text.parse::<Size>();
        }
    }
}
