//! Reads a request's body: bounded in size, in time, and by the budget of its server.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use portolan_mcp::envelope::Message;
use portolan_mcp::failure::{Failure, Kind};

use crate::budget::{Budget, Share};

/// So much of a body has to come before what it says of its length is believed, and a sixteenth of it: saying so alone holds no
/// room.
const BELIEVED_BYTES: usize = 32 * 1024;

/// A request's body that was not read yet.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// It comes from the client.
    Stream(hyper::body::Incoming),
    /// A part of a batch, whose bytes the batch has counted.
    Whole(Bytes),
}

impl Incoming {
    /// The message that it is, where that is known before it is read; and its length in bytes.
    pub(crate) fn message(&self) -> Option<(Message<'_>, usize)> {
        match self {
            Self::Stream(_) => None,
            Self::Whole(bytes) => Some((Message::parse(bytes).ok()?, bytes.len())),
        }
    }
}

/// A whole body with its share of the budget.
#[derive(Debug)]
pub(crate) struct Buffered {
    pub(crate) bytes: Bytes,
    _share: Share,
}

/// Reads `body` of at most `cap` bytes within `time`.
pub(crate) async fn read(
    body: Incoming,
    cap: usize,
    time: Duration,
    budget: &Arc<Budget>,
) -> Result<Buffered, Failure> {
    let body = match body {
        Incoming::Stream(body) => body,
        Incoming::Whole(bytes) => return Ok(Buffered { bytes, _share: Share::new(budget.clone()) }),
    };
    // A declared length over the cap is refused before a byte is read.
    if body.size_hint().lower() > cap as u64 {
        return Err(too_large(cap));
    }
    let mut collected = pin!(collect(body, cap, budget));
    // Most bodies came with their head: for those no time is measured.
    if let Poll::Ready(collected) = futures::poll!(collected.as_mut()) {
        return collected;
    }
    let late = || Failure::new(Kind::BodyTimeout, format!("the body did not arrive within {} s", time.as_secs()));
    tokio::time::timeout(time, collected).await.map_err(|_| late())?
}

async fn collect(mut body: hyper::body::Incoming, cap: usize, budget: &Arc<Budget>) -> Result<Buffered, Failure> {
    let mut share = Share::new(budget.clone());
    let declared = body.size_hint().exact().and_then(|size| usize::try_from(size).ok());
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::new(Kind::Malformed, format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = first.len() + rest.len() + data.len();
        if length > cap {
            return Err(too_large(cap));
        }
        // Most bodies are one frame: that one is kept as it came.
        if first.is_empty() && rest.is_empty() {
            share.grow(data.len())?;
            first = data;
            continue;
        }
        if length > rest.capacity() {
            let capacity = room(length, rest.capacity(), declared, cap);
            share.grow(capacity - rest.capacity().max(first.len()))?;
            rest.reserve(capacity - rest.len());
        }
        rest.extend_from_slice(&std::mem::take(&mut first));
        rest.extend_from_slice(&data);
    }
    let bytes = if rest.is_empty() { first } else { rest.freeze() };
    Ok(Buffered { bytes, _share: share })
}

/// The room to take for a body of which `length` bytes have come and that has `taken` so far: twice as much, or all that it
/// needs once it has shown that it is coming. Of a crowd that does not fit, some come through then, and the others take
/// nothing.
fn room(length: usize, taken: usize, declared: Option<usize>, cap: usize) -> usize {
    match declared {
        Some(all) if length > BELIEVED_BYTES.max(all / 16) => all,
        _ => 2 * taken,
    }
    .min(declared.unwrap_or(cap))
    .max(length)
}

fn too_large(cap: usize) -> Failure {
    Failure::new(Kind::BodyTooLarge, format!("a request body may have {cap} bytes (spec.http.maxBodyBytes)"))
}
