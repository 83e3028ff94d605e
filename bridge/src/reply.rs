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

    /// Sends without waiting, where so few messages and bytes wait for the client that one more may; says whether.
    pub(crate) fn send_if_room(&self, mut delivery: Delivery) -> bool {
        if self.waiting.load(Ordering::Relaxed) >= MAX_WAITING {
            return false;
        }
        let Ok(permit) = Arc::clone(&self.budget).try_acquire_many_owned(weight(&delivery)) else { return false };
        delivery.permit = Some(permit);
        self.send_now(delivery);
        true
    }

    /// Sends once the client took enough of what was sent before.
    pub(crate) async fn send(&self, mut delivery: Delivery) -> Result<(), Stalled> {
        let permit = tokio::select! {
            permit = Arc::clone(&self.budget).acquire_many_owned(weight(&delivery)) => permit,
            () = self.sender.closed() => return Ok(()),
            () = tokio::time::sleep(STALLED) => return Err(Stalled),
        };
        delivery.permit = permit.ok();
        self.send_now(delivery);
        Ok(())
    }
}

/// What a message takes of the budget.
fn weight(delivery: &Delivery) -> u32 {
    u32::try_from(delivery.message.len()).unwrap_or(BUDGET).min(BUDGET)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(bytes: usize) -> Delivery {
        Delivery { id: None, message: vec![b' '; bytes].into(), failure: None, last: false, permit: None }
    }

    #[tokio::test]
    async fn what_waits_for_a_client_that_does_not_read_is_bounded_in_bytes_and_in_messages() {
        let budget = usize::try_from(BUDGET).expect("it fits");
        let (outlet, mut reply) = Reply::new();
        assert!(outlet.send_if_room(delivery(budget - 1)));
        assert!(!outlet.send_if_room(delivery(2)), "the bytes are used up");
        drop(reply.next().await);
        assert!(outlet.send_if_room(delivery(2 * budget)), "a longer message waits alone");
        assert!(!outlet.send_if_room(delivery(1)));
        drop(reply.next().await);
        let sent = (0..2 * MAX_WAITING).filter(|_| outlet.send_if_room(delivery(1))).count();
        assert_eq!(sent, MAX_WAITING);
    }
}
