//! Whether the answer to `initialize` opened the session that was made for it: an error opens none, and then its client is
//! given no name for one.

use bytes::Bytes;
use http::{Response, response::Parts};
use http_body_util::BodyExt;
use hyper::body::Body;
use portolan_mcp::{envelope::Message, failure::Failure};
use tokio::time::{Duration, timeout};

use crate::negotiate;
use crate::pool::Answer;
use crate::upstream::{broke_off, timed_out};

/// An answer that is longer is a result: an error that explains itself takes less.
const MAX_ERROR: u64 = 64 * 1024;

/// Whether an answer has to be read to know what it is. One that comes as a stream is named before anybody knows.
pub(crate) fn may_be_error(response: &Response<Answer>) -> bool {
    let is_short = response.body().size_hint().exact().is_some_and(|size| size <= MAX_ERROR);
    is_short && !negotiate::is_stream(response.headers())
}

/// Reads a short answer to its end.
pub(crate) async fn read(response: Response<Answer>, within: Duration) -> Result<(Parts, Bytes), Failure> {
    let (parts, body) = response.into_parts();
    let whole = timeout(within, body.collect()).await.map_err(|_| timed_out(within))?.map_err(|_| broke_off())?;
    Ok((parts, whole.to_bytes()))
}

/// Whether an answer opened the session.
pub(crate) fn is_opened_by(answer: &[u8]) -> bool {
    matches!(Message::parse(answer), Ok(Message::Response { is_error: false, .. }))
}
