//! Strings, numbers and literals of JSON.

use std::borrow::Cow;

use super::{Fault, ScanError};

/// Longest text of a number, in bytes.
pub(super) const MAX_NUMBER: usize = 64;

/// A valid string as it is written.
pub(super) struct Written<'a> {
    quoted: &'a str,
    is_escaped: bool,
}

impl<'a> Written<'a> {
    /// What it stands for. Only keys are asked: a value is not built to be looked at and dropped.
    pub(super) fn unescaped(self) -> Result<Cow<'a, str>, Fault> {
        if self.is_escaped {
            return serde_json::from_str(self.quoted).map(Cow::Owned).map_err(|_| Fault::BadEscape);
        }
        Ok(Cow::Borrowed(&self.quoted[1..self.quoted.len() - 1]))
    }
}

/// Reads the string that begins at `at`, and leaves `at` behind it.
pub(super) fn string<'a>(text: &'a str, at: &mut usize) -> Result<Written<'a>, ScanError> {
    let bytes = text.as_bytes();
    let start = *at;
    let mut is_escaped = false;
    *at += 1;
    loop {
        let plain = bytes[*at..].iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        *at += plain.ok_or(ScanError::new(Fault::Unfinished, bytes.len()))?;
        match bytes[*at] {
            b'"' => break,
            b'\\' => {
                is_escaped = true;
                escape(bytes, at)?;
            }
            _ => return Err(ScanError::new(Fault::ControlCharacter, *at)),
        }
    }
    *at += 1;
    Ok(Written { quoted: &text[start..*at], is_escaped })
}

fn escape(bytes: &[u8], at: &mut usize) -> Result<(), ScanError> {
    let start = *at;
    let bad = |fault| Err(ScanError::new(fault, start));
    match bytes.get(start + 1) {
        None => return bad(Fault::Unfinished),
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => *at += 2,
        Some(b'u') => match code_unit(bytes, start) {
            None => return bad(Fault::BadEscape),
            Some(0xD800..=0xDBFF) => match code_unit(bytes, start + 6) {
                Some(0xDC00..=0xDFFF) => *at += 12,
                _ => return bad(Fault::LoneSurrogate),
            },
            Some(0xDC00..=0xDFFF) => return bad(Fault::LoneSurrogate),
            Some(_) => *at += 6,
        },
        Some(_) => return bad(Fault::BadEscape),
    }
    Ok(())
}

/// The code unit of a `\uXXXX` at `at`.
fn code_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | u16::try_from((*digit as char).to_digit(16)?).ok()?))
}

/// Reads the number that begins at `at`, and leaves `at` behind it.
pub(super) fn number(text: &str, at: &mut usize) -> Result<(), ScanError> {
    let bytes = text.as_bytes();
    let start = *at;
    skip_if(bytes, at, |byte| byte == b'-');
    if !skip_if(bytes, at, |byte| byte == b'0') {
        digits(bytes, at)?;
    }
    if skip_if(bytes, at, |byte| byte == b'.') {
        digits(bytes, at)?;
    }
    if skip_if(bytes, at, |byte| matches!(byte, b'e' | b'E')) {
        skip_if(bytes, at, |byte| matches!(byte, b'+' | b'-'));
        digits(bytes, at)?;
    }
    let number = &text[start..*at];
    if number.len() > MAX_NUMBER {
        return Err(ScanError::new(Fault::NumberTooLong, start));
    }
    match number.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(()),
        _ => Err(ScanError::new(Fault::NumberOutOfRange, start)),
    }
}

/// At least one digit, and all that follow.
fn digits(bytes: &[u8], at: &mut usize) -> Result<(), ScanError> {
    let start = *at;
    while skip_if(bytes, at, |byte| byte.is_ascii_digit()) {}
    if *at > start {
        return Ok(());
    }
    let fault = if *at < bytes.len() { Fault::Unexpected } else { Fault::Unfinished };
    Err(ScanError::new(fault, *at))
}

fn skip_if(bytes: &[u8], at: &mut usize, is_wanted: impl Fn(u8) -> bool) -> bool {
    let found = bytes.get(*at).is_some_and(|byte| is_wanted(*byte));
    *at += usize::from(found);
    found
}

/// Reads `true`, `false` or `null` at `at`, and leaves `at` behind it.
pub(super) fn literal(text: &str, at: &mut usize) -> Result<(), ScanError> {
    let rest = &text.as_bytes()[*at..];
    for word in [&b"true"[..], b"false", b"null"] {
        if rest.starts_with(word) {
            *at += word.len();
            return Ok(());
        }
        if word.starts_with(rest) {
            return Err(ScanError::new(Fault::Unfinished, text.len()));
        }
    }
    Err(ScanError::new(Fault::Unexpected, *at))
}
