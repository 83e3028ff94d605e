//! Durations as Gateway API writes them (GEP-2257): `30s`, `1h30m`, `1500ms`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What the API server accepts, from GEP-2257: one to four numbers of one to five digits, each with its unit.
pub const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// Longest string that [`PATTERN`] admits.
const MAX_LENGTH: u32 = 28;
/// Largest number of hours that five digits can say.
const MAX_HOURS: u64 = 99_999;
/// Units with their length in milliseconds, largest first. `ms` precedes `m` and `s` when parsing.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A length of time in whole milliseconds, at most 99999 hours and a bit.
///
/// Serializes in canonical form: largest units first, none of them zero (`90m` becomes `1h30m`, nothing is `0s`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration(std::time::Duration);

/// Why a text is no [`Duration`], and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// The text does not match [`PATTERN`].
    #[error("{0:?} is no duration: write whole numbers with units h, m, s or ms, such as 30s, 1h30m or 500ms")]
    Malformed(String),
    /// The sum cannot be written back in canonical form.
    #[error("{0:?} is too long: write at most {MAX_HOURS}h")]
    TooLong(String),
}

/// Why a [`std::time::Duration`] is no [`Duration`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be written as a duration string: use whole milliseconds, at most {MAX_HOURS}h")]
pub struct OutOfRange(std::time::Duration);

impl Duration {
    /// That many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u16) -> Self {
        Self(std::time::Duration::from_secs(seconds as u64))
    }

    /// That many milliseconds.
    #[must_use]
    pub const fn from_millis(milliseconds: u16) -> Self {
        Self(std::time::Duration::from_millis(milliseconds as u64))
    }

    /// The same length of time for timers and arithmetic.
    #[must_use]
    pub const fn as_std(self) -> std::time::Duration {
        self.0
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl TryFrom<std::time::Duration> for Duration {
    type Error = OutOfRange;

    fn try_from(duration: std::time::Duration) -> Result<Self, OutOfRange> {
        let whole = duration.subsec_nanos().is_multiple_of(1_000_000);
        if whole && duration.as_secs() / 3600 <= MAX_HOURS { Ok(Self(duration)) } else { Err(OutOfRange(duration)) }
    }
}

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, ParseDurationError> {
        let malformed = || ParseDurationError::Malformed(text.to_owned());
        let mut rest = text;
        let mut milliseconds = 0;
        let mut terms = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if !(1..=5).contains(&digits) {
                return Err(malformed());
            }
            let (number, tail) = rest.split_at(digits);
            let letters = tail.bytes().take_while(u8::is_ascii_lowercase).count();
            let (name, tail) = tail.split_at(letters);
            let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name).ok_or_else(malformed)?;
            let number: u64 = number.parse().map_err(|_| malformed())?;
            milliseconds += number * unit;
            terms += 1;
            rest = tail;
        }
        if !(1..=4).contains(&terms) {
            return Err(malformed());
        }
        Self::try_from(std::time::Duration::from_millis(milliseconds))
            .map_err(|_| ParseDurationError::TooLong(text.to_owned()))
    }
}

impl TryFrom<String> for Duration {
    type Error = ParseDurationError;

    fn try_from(text: String) -> Result<Self, ParseDurationError> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.to_string()
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return formatter.write_str("0s");
        }
        let mut rest = self.0.as_secs() * 1000 + u64::from(self.0.subsec_millis());
        for (name, unit) in UNITS {
            if rest >= unit {
                write!(formatter, "{}{name}", rest / unit)?;
            }
            rest %= unit;
        }
        Ok(())
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": MAX_LENGTH, "pattern": PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_text_survives_a_round_trip() {
        for text in ["0s", "1ms", "30s", "1h30m", "10m", "99999h59m59s999ms"] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_spellings_of_a_length_become_canonical() {
        for (text, canonical) in
            [("90m", "1h30m"), ("1500ms", "1s500ms"), ("0h0m", "0s"), ("30s1m", "1m30s"), ("1s1s1s1s", "4s")]
        {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn a_text_outside_the_pattern_is_refused_with_what_to_write() {
        for text in ["", "30", "s", "-1s", "1.5h", "100000s", "1d", "1us", "1S", " 1s", "1s ", "1s1s1s1s1s", "１s"] {
            let error = text.parse::<Duration>().unwrap_err();
            assert_eq!(error, ParseDurationError::Malformed(text.to_owned()));
            assert!(error.to_string().contains("such as 30s"), "{error}");
        }
    }

    #[test]
    fn a_sum_that_has_no_canonical_text_is_refused() {
        assert_eq!("99999h60m".parse::<Duration>(), Err(ParseDurationError::TooLong("99999h60m".to_owned())));
        assert!(Duration::try_from(std::time::Duration::from_nanos(1)).is_err());
        assert!(Duration::try_from(std::time::Duration::MAX).is_err());
    }
}
