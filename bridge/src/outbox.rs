//! Messages on their way to a server that may not read: bounded in number and in bytes, and nobody waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::link::NotReading;

/// Messages that wait: as many as calls may, since a burst is no refusal to read. Their bytes have a bound of their own.
const QUEUE: usize = 1024;

/// Where messages are put.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: mpsc::Sender<Outgoing>,
    bytes: Arc<AtomicUsize>,
    limit: usize,
}

/// One message that waits or is being sent. It counts against the bound until it is dropped.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) message: Bytes,
    bytes: Arc<AtomicUsize>,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.message.len(), Ordering::Relaxed);
    }
}

impl Outbox {
    /// An outbox for at most `limit` bytes, or one message that is longer, and where its messages come out.
    pub(crate) fn new(limit: usize) -> (Self, mpsc::Receiver<Outgoing>) {
        let (queue, outgoing) = mpsc::channel(QUEUE);
        (Self { queue, bytes: Arc::default(), limit }, outgoing)
    }

    pub(crate) fn push(&self, message: Bytes) -> Result<(), NotReading> {
        let held = self.bytes.fetch_add(message.len(), Ordering::Relaxed);
        // From here on its drop gives the bytes back.
        let outgoing = Outgoing { message, bytes: Arc::clone(&self.bytes) };
        if held > 0 && held + outgoing.message.len() > self.limit {
            return Err(NotReading);
        }
        self.queue.try_send(outgoing).map_err(|_| NotReading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_or_is_being_sent_is_bounded_in_bytes_and_number() {
        let (outbox, mut outgoing) = Outbox::new(10);
        assert!(outbox.push(Bytes::from_static(b"longer than the bound")).is_ok(), "one message always has room");
        assert!(outbox.push(Bytes::from_static(b"x")).is_err());
        let sending = outgoing.try_recv().expect("it waits");
        assert!(outbox.push(Bytes::from_static(b"x")).is_err(), "it is not sent yet");
        drop(sending);
        for _ in 0..10 {
            assert!(outbox.push(Bytes::from_static(b"x")).is_ok());
        }
        assert!(outbox.push(Bytes::from_static(b"x")).is_err());
        let (outbox, _outgoing) = Outbox::new(10);
        let pushed = (0..=QUEUE).filter(|_| outbox.push(Bytes::new()).is_ok()).count();
        assert_eq!(pushed, QUEUE);
    }
}
