//! How far a stream of events was read, and when the rest may be asked for.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use portolan_mcp::sse::Decoder;

/// How soon a stream that ended is opened again, where the server does not say.
const COME_BACK: Duration = Duration::from_secs(1);
/// However soon the server wants it.
const MIN_COME_BACK: Duration = Duration::from_millis(100);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How far a stream of events was read.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// The last event.
    id: Option<HeaderValue>,
    retry: Option<Duration>,
}

impl Place {
    /// Whether there is something to go on from.
    pub(crate) fn is_named(&self) -> bool {
        self.id.is_some()
    }

    /// Says in the head of a request where to go on from.
    pub(crate) fn name(&self, headers: &mut HeaderMap) {
        headers.extend(self.id.clone().map(|id| (LAST_EVENT_ID, id)));
    }

    /// Takes what `decoder` read last.
    pub(crate) fn learn(&mut self, decoder: &Decoder) {
        if let Some(id) = decoder.last_id() {
            self.id = HeaderValue::from_str(id).ok();
        }
        self.retry = decoder.retry().or(self.retry);
    }

    /// Until the server may be asked for the rest.
    pub(crate) async fn wait(&self) {
        tokio::time::sleep(self.retry.unwrap_or(COME_BACK).max(MIN_COME_BACK)).await;
    }
}
