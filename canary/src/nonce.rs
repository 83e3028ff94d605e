//! What makes a question one that was never asked before.

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value};

/// Stands for the nonce in what a spec says.
pub const NONCE: &str = "{{nonce}}";

/// Sixteen characters that nobody can have known: lower-case hexadecimal digits, so that they mean themselves in a URI, a regular
/// expression and a CEL string too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(String);

/// The system gives no random numbers.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

impl Nonce {
    /// A new one.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn fresh() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 8];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(Self(format!("{:016x}", u64::from_be_bytes(bytes))))
    }

    /// One that stands for any, to see whether what is made with it can be.
    pub(crate) fn sample() -> Self {
        Self("0123456789abcdef".into())
    }

    /// Its characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `text` with it in the place of [`NONCE`].
    #[must_use]
    pub fn fill(&self, text: &str) -> String {
        text.replace(NONCE, &self.0)
    }

    /// The same for every string of a value, names of members too.
    #[must_use]
    pub fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(items) => items.iter().map(|item| self.fill_value(item)).collect(),
            Value::Object(members) => Value::Object(self.fill_members(members)),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    /// The same for every member.
    #[must_use]
    pub fn fill_members(&self, members: &Map<String, Value>) -> Map<String, Value> {
        members.iter().map(|(name, value)| (self.fill(name), self.fill_value(value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_two_nonces_are_alike_and_each_means_itself_everywhere() {
        let nonces: std::collections::HashSet<_> =
            (0..1_000).map(|_| Nonce::fresh().expect("randomness").as_str().to_owned()).collect();
        assert_eq!(nonces.len(), 1_000);
        assert!(nonces.iter().all(|nonce| nonce.len() == 16 && nonce.bytes().all(|b| b.is_ascii_hexdigit())));
    }

    #[test]
    fn it_is_filled_in_at_any_depth() {
        let filled = Nonce::sample()
            .fill_value(&json!({"a": [1, "x{{nonce}}", {"{{nonce}}": null}], "b": "{{nonce}}{{nonce}}"}));
        assert_eq!(
            filled,
            json!({"a": [1, "x0123456789abcdef", {"0123456789abcdef": null}], "b": "0123456789abcdef0123456789abcdef"})
        );
    }
}
