//! A session that is opened in a client's stead: the client's part at this server of a session with several. Others than
//! whoever opens it have its name, so each that is opened under that gets a name of its own too.

use http::{HeaderMap, HeaderValue, Response};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire;

/// Enough for the few that one key has.
const LENGTH: usize = 8;

/// Names one of the sessions that one key has had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part(HeaderValue);

impl Part {
    /// Whether a session that these headers open is opened in its client's stead.
    pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
        headers.contains_key(wire::HANDSHAKE)
    }

    /// A name for a session that these headers open, if it is opened in its client's stead.
    pub(crate) fn of_opening(headers: &HeaderMap) -> Result<Option<Self>, Failure> {
        if !Self::is_wanted(headers) {
            return Ok(None);
        }
        let internal = || Failure::new(Kind::Internal, "the bridge could not name a session");
        let name = SessionKey::generate().map_err(|_| internal())?;
        let name = name.as_str().get(..LENGTH).and_then(|name| HeaderValue::from_str(name).ok());
        name.map(|name| Some(Self(name))).ok_or_else(internal)
    }

    /// Whether a request with these headers is meant for a session of this name, or of none.
    pub(crate) fn is_meant(part: Option<&Self>, headers: &HeaderMap) -> bool {
        headers.get(wire::PART).is_none_or(|meant| part.is_some_and(|part| part.0 == meant))
    }

    /// `response` of a session of this name, or of none.
    pub(crate) fn told<B>(part: Option<&Self>, mut response: Response<B>) -> Response<B> {
        if let Some(Self(name)) = part {
            response.headers_mut().insert(wire::PART, name.clone());
        }
        response
    }
}
