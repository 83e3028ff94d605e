//! The same questions answered the slow and obvious way.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// JSON in which no object has a key twice: reading fails otherwise. The number is its depth.
pub(crate) struct Unique(pub(crate) usize);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON without repeated keys")
            }

            fn visit_unit<E>(self) -> Result<Unique, E> {
                Ok(Unique(0))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
                Ok(Unique(0))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
                Ok(Unique(0))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
                Ok(Unique(0))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
                Ok(Unique(0))
            }

            fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
                Ok(Unique(0))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Unique, A::Error> {
                let mut deepest = 0;
                while let Some(Unique(depth)) = array.next_element()? {
                    deepest = deepest.max(depth);
                }
                Ok(Unique(deepest + 1))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Unique, A::Error> {
                let (mut keys, mut deepest) = (HashSet::new(), 0);
                while let Some((key, Unique(depth))) = object.next_entry::<String, Unique>()? {
                    if !keys.insert(key) {
                        return Err(serde::de::Error::custom("a key stands twice"));
                    }
                    deepest = deepest.max(depth);
                }
                Ok(Unique(deepest + 1))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Lines of `text` that are over, and what follows the last of them.
pub(crate) fn lines(text: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        lines.push(&rest[..end]);
        rest = if rest[end..].starts_with(b"\r\n") { &rest[end + 2..] } else { &rest[end + 1..] };
    }
    (lines, rest)
}
