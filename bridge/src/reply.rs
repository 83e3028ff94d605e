//! The stream of messages that answers one HTTP request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use portolan_mcp::failure::Kind;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes that may wait for one client; a longer message waits alone.
const BUDGET: u32 = 1024 * 1024;
/// Messages that may wait for one client where the sender cannot wait.
const MAX_WAITING: usize = 64;
/// A client that takes nothing for so long loses its stream.
const STALLED: Duration = Duration::from_secs(10);

/// One message for a client.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// The event's id, where the stream can be resumed.
    pub(crate) id: Option<String>,
    pub(crate) message: Bytes,
    /// Set where the bridge answered in the server's stead.
    pub(crate) failure: Option<Kind>,
    /// Whether the stream ends with it.
    pub(crate) last: bool,
    /// Returns its bytes to the budget once the client took it.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// The sending side.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    sender: mpsc::UnboundedSender<Delivery>,
    budget: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

/// The client does not take what is sent.
#[derive(Debug)]
pub(crate) struct Stalled;

impl Outlet {
    /// Sends without waiting: for what is bounded elsewhere.
    pub(crate) fn send_now(&self, delivery: Delivery) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // Nobody listening is the client's business: its connection is closing.
        let _ = self.sender.send(delivery);
    }

    /// Whether few enough messages wait for the client that one more may be sent without waiting.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < MAX_WAITING
    }

    /// Sends once the client took enough of what was sent before.
    pub(crate) async fn send(&self, mut delivery: Delivery) -> Result<(), Stalled> {
        let weight = u32::try_from(delivery.message.len()).unwrap_or(BUDGET).min(BUDGET);
        let permit = tokio::select! {
            permit = Arc::clone(&self.budget).acquire_many_owned(weight) => permit,
            () = self.sender.closed() => return Ok(()),
            () = tokio::time::sleep(STALLED) => return Err(Stalled),
        };
        delivery.permit = permit.ok();
        self.send_now(delivery);
        Ok(())
    }
}

/// The receiving side; dropping it tells whoever feeds it.
pub(crate) struct Reply {
    /// The event id that stands for the stream's beginning, where the stream can be resumed.
    pub(crate) beginning: Option<String>,
    waiting: Arc<AtomicUsize>,
    receiver: mpsc::UnboundedReceiver<Delivery>,
    on_drop: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}

impl Reply {
    #[expect(clippy::disallowed_methods, reason = "the bytes in it are bounded by the outlet's budget")]
    pub(crate) fn new() -> (Outlet, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let budget = Arc::new(Semaphore::new(BUDGET as usize));
        let outlet = Outlet { sender, budget, waiting: Arc::clone(&waiting) };
        (outlet, Self { beginning: None, waiting, receiver, on_drop: None })
    }

    /// The stream can be resumed, from its beginning with the event id `id`.
    pub(crate) fn resumable(mut self, id: String) -> Self {
        self.beginning = Some(id);
        self
    }

    /// Has `tell` called when the client is gone or everything was sent.
    pub(crate) fn on_drop(mut self, tell: impl FnOnce() + Send + Sync + 'static) -> Self {
        self.on_drop = Some(Box::new(tell));
        self
    }

    /// The next message; `None` when the stream ended.
    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        let next = self.receiver.recv().await?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(next)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(tell) = self.on_drop.take() {
            tell();
        }
    }
}
