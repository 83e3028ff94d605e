//! The members of a JSON object in the order in which they were written, each value as written.
//!
//! What a translation changes is a member; what it leaves alone keeps its bytes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// An object, member by member. Values are JSON text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Members<'a> {
    /// The members of `json`; `None` where that is no object.
    #[must_use]
    pub fn of(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// The value of `name` where that is a string, unescaped.
    #[must_use]
    pub fn string(&self, name: &str) -> Option<String> {
        self.get(name).and_then(|json| serde_json::from_str(json).ok())
    }

    /// Gives `name` the value `json`, in its place where it has one, else behind the others.
    pub fn set(&mut self, name: &'a str, json: impl Into<Cow<'a, str>>) {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some((_, value)) => *value = json.into(),
            None => self.0.push((name.into(), json.into())),
        }
    }

    /// Takes `name` out and says what it was.
    pub fn remove(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let position = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.remove(position).1)
    }

    /// Keeps the members whose names `keep` admits.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|(key, _)| keep(key));
    }

    /// Names and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Members<'_> {
    /// The object as JSON text, on one line but for line breaks inside of values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (key, value)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{}:{value}", serde_json::Value::from(&**key))?;
        }
        f.write_str("}")
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    members.push((key, Cow::Borrowed(value.get())));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A key, borrowed unless it was written with escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_keeps_its_bytes_and_its_place() {
        let mut members = Members::of(r#"{ "b" : 1.50, "a\u0062": {"x": [1e2 ]}, "c":"\u00e9" }"#).expect("an object");
        members.set("b", "2");
        members.set("d", "null".to_owned());
        assert_eq!(members.remove("c").as_deref(), Some(r#""\u00e9""#));
        assert_eq!(members.get("ab"), Some(r#"{"x": [1e2 ]}"#));
        assert_eq!(members.to_string(), r#"{"b":2,"ab":{"x": [1e2 ]},"d":null}"#);
    }

    #[test]
    fn only_objects_have_members() {
        for json in ["[]", "1", "\"x\"", "null", "{", ""] {
            assert_eq!(Members::of(json), None, "{json}");
        }
        assert_eq!(Members::of("{}").map(|members| members.to_string()).as_deref(), Some("{}"));
    }
}
