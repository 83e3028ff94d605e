//! What the scan refuses.

use super::{MAX_DEPTH, text::MAX_NUMBER};

/// Why a body was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// The bytes are not UTF-8.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// Something stands where JSON has something else.
    #[error("this is not JSON")]
    Unexpected,
    /// The body ends within a value.
    #[error("the body ends within a JSON value")]
    Unfinished,
    /// Something follows the value.
    #[error("something follows the JSON value: send one message per request")]
    Trailing,
    /// Arrays and objects are nested too deeply.
    #[error("arrays and objects are nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// A number is longer than any that a parser keeps.
    #[error("a number has more than {MAX_NUMBER} characters: send it as a string")]
    NumberTooLong,
    /// A number is beyond what a double holds.
    #[error("a number is too large for a double: send it as a string")]
    NumberOutOfRange,
    /// A backslash is not followed by an escape of JSON.
    #[error("a string has an escape that JSON does not know")]
    BadEscape,
    /// Half of a surrogate pair is escaped alone.
    #[error("a string escapes half of a surrogate pair")]
    LoneSurrogate,
    /// A control character stands in a string unescaped.
    #[error("a string has a control character that is not escaped")]
    ControlCharacter,
    /// An object has a key twice, perhaps written differently.
    #[error("an object has the same key twice")]
    RepeatedKey,
    /// A key looks like one that the protocol gives a meaning and is another one.
    #[error("a key looks like one of the protocol's and is spelled differently")]
    LookalikeKey,
}

/// What is wrong with a body, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault} (at byte {at})")]
pub struct ScanError {
    /// What.
    pub fault: Fault,
    /// Offset of the byte where it was noticed.
    pub at: usize,
}

impl ScanError {
    pub(super) fn new(fault: Fault, at: usize) -> Self {
        Self { fault, at }
    }
}
