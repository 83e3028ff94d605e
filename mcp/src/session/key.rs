//! Ids compared by what they mean, not by how they are written.

use crate::envelope::Id;

/// Integers up to here survive a trip through a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// What an id means: a server may answer `1.0` with `1`, or `"\u0061"` with `"a"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IdKey {
    /// A string, unescaped.
    Text(Box<str>),
    /// A whole number.
    Integer(i128),
    /// Any other number, as written.
    Number(Box<str>),
}

impl From<&Id> for IdKey {
    fn from(id: &Id) -> Self {
        let text = id.as_json();
        if text.starts_with('"')
            && let Ok(unescaped) = serde_json::from_str::<String>(text)
        {
            return Self::Text(unescaped.into());
        }
        if let Ok(integer) = text.parse() {
            return Self::Integer(integer);
        }
        match text.parse::<f64>() {
            #[expect(clippy::cast_possible_truncation, reason = "whole and within the exact range")]
            Ok(number) if number.fract() == 0.0 && number.abs() < EXACT => Self::Integer(number as i128),
            _ => Self::Number(text.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Message;

    fn key(id: &str) -> IdKey {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        let Ok(Message::Request(request)) = Message::parse(text.as_bytes()) else { panic!("{text} is a request") };
        IdKey::from(&request.id)
    }

    #[test]
    fn ids_are_the_same_when_they_mean_the_same() {
        for (one, other) in [("1", "1.0"), ("1", "1e0"), (r#""a""#, r#""\u0061""#)] {
            assert_eq!(key(one), key(other));
        }
        for (one, other) in [("1", r#""1""#), ("1", "1.5"), ("9007199254740993", "9007199254740992")] {
            assert_ne!(key(one), key(other));
        }
    }
}
