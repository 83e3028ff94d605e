//! Where a page of a list over several servers begins.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

const VERSION: &str = "1";

/// The last item of a page: the next page begins behind it, whatever was added or taken away since.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// `namespace/server` of the item.
    pub route: String,
    /// Its place in that server's list, from 0.
    pub place: usize,
    /// Its name or URI, which says whether the place is still the same.
    pub own: String,
}

impl Cursor {
    /// Reads what [`Self::to_string`] wrote; `None` for everything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut parts = text.splitn(4, '\n');
        let (version, route, place, own) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        (version == VERSION).then_some(())?;
        Some(Self { route: route.to_owned(), place: place.parse().ok()?, own: own.to_owned() })
    }

    /// Whether all of the list of `route` was on the pages before.
    #[must_use]
    pub fn is_behind(&self, route: &str) -> bool {
        route < self.route.as_str()
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { route, place, own } = self;
        f.write_str(&URL_SAFE_NO_PAD.encode(format!("{VERSION}\n{route}\n{place}\n{own}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_is_read_back_and_nothing_else_is_one(own in ".{0,40}", place in 0usize..10_000, text in ".{0,40}") {
            let cursor = Cursor { route: "a/b".into(), place, own };
            prop_assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
            prop_assert_eq!(Cursor::parse(&text), None);
        }
    }
}
