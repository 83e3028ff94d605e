//! Where something in a client's session with several servers comes from: which server, and which of the sessions that this
//! server has had for the client. A pod that goes takes its part of the session with it, and the next part counts from the
//! beginning; replicas that know of different pods may even open two. So what a client sends back, an id or an event's, says
//! to which of them it belongs.

use super::{Member, Owned};
use crate::envelope::Id;

/// Ends the name of a part, which is base64url and has none.
const SEPARATOR: char = '@';

/// A server, and its part of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The server.
    pub member: Member<'a>,
    /// The part, as [`crate::wire::PART`] names it; empty where a server knows no sessions.
    pub part: &'a str,
}

impl<'a> Origin<'a> {
    /// `own` of this origin, as the client is shown it.
    #[must_use]
    pub fn marked(&self, own: &str) -> String {
        self.member.uri(&format!("{}{SEPARATOR}{own}", self.part))
    }

    /// What [`Self::marked`] made of what: the origin, and how it was called there.
    #[must_use]
    pub fn of(marked: &'a str) -> Option<(Self, &'a str)> {
        let owned = Owned::of_uri(marked)?;
        let (part, own) = owned.own.split_once(SEPARATOR)?;
        Some((Self { member: owned.member, part }, own))
    }

    /// The same of an id or a token, which is JSON there.
    #[must_use]
    pub fn of_id(marked: &'a str) -> Option<(Self, Id)> {
        let (origin, own) = Self::of(marked)?;
        Some((origin, Id::parse(serde_json::from_str(own).ok()?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin<'static> = Origin { member: Member { namespace: "n", server: "s" }, part: "p_-1" };

    #[test]
    fn an_id_that_says_where_it_comes_from_is_read_back_and_nothing_else_is_one() {
        let id = |json: &str| Id::parse(serde_json::from_str(json).expect("JSON")).expect("an id");
        for own in ["7", r#""a@b""#] {
            let marked = ORIGIN.marked(own);
            assert_eq!(Origin::of_id(&marked), Some((ORIGIN, id(own))), "{marked}");
        }
        let nobodys = Origin { part: "", ..ORIGIN };
        assert_eq!(Origin::of_id("s.n+@7"), Some((nobodys, id("7"))));
        assert_eq!(Origin::of("s.n+@a@b"), Some((nobodys, "a@b")), "what a server calls it may be anything");
        for other in ["7", "s.n+", "s.n+7", "s.n+p@", "s.n+p@a", "s.n+p@{}", "s.n+p@7 8", "+p@7", ""] {
            assert_eq!(Origin::of_id(other), None, "{other}");
        }
    }
}
