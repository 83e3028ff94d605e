//! A client's session with a streamable HTTP server, and what is under way in it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::modern::VERSION_HEADER;
use portolan_mcp::token::SessionKey;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::part::Part;
use crate::state::lock;

/// A client's session with the server.
#[derive(Debug)]
pub(crate) struct Session {
    /// Whose it is, where that is known.
    pub(super) owner: Option<SessionKey>,
    /// The server's name for it, where it gives one.
    pub(super) id: Mutex<Option<HeaderValue>>,
    /// The revision that its client names, which whatever is said of it names too.
    revision: Mutex<Option<HeaderValue>>,
    pub(super) last_used: Mutex<Instant>,
    pub(super) in_flight: AtomicUsize,
    pub(super) over: CancellationToken,
    /// Of one that is opened in its client's stead, its name, and what says that it is open.
    pub(super) part: Option<Part>,
    pub(super) begun: CancellationToken,
}

impl Session {
    pub(super) fn of(owner: Option<SessionKey>, part: Option<Part>) -> Arc<Self> {
        Arc::new(Self {
            owner,
            part,
            begun: CancellationToken::new(),
            id: Mutex::new(None),
            revision: Mutex::new(None),
            last_used: Mutex::new(Instant::now()),
            in_flight: AtomicUsize::new(0),
            over: CancellationToken::new(),
        })
    }

    /// Whether it is opened in its client's stead.
    pub(crate) fn is_to_begin(&self) -> bool {
        self.part.is_some()
    }

    /// Waits until it is open, if that is not its client's matter.
    pub(super) async fn until_begun(&self) -> Result<(), Failure> {
        if self.part.is_none() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.begun.cancelled() => Ok(()),
            () = self.over.cancelled() => Err(Failure::new(Kind::UnknownSession, "the session did not open")),
        }
    }

    pub(super) fn note_revision(&self, headers: &HeaderMap) {
        if let Some(revision) = headers.get(VERSION_HEADER) {
            *lock(&self.revision) = Some(revision.clone());
        }
    }

    /// The headers of a message that is posted in its client's stead.
    pub(super) fn message_headers(&self) -> HeaderMap {
        let mut headers = self.headers();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers
    }

    /// What a message about it says in its client's stead.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.extend(lock(&self.revision).clone().map(|revision| (VERSION_HEADER, revision)));
        headers
    }
}

/// Counts a call for as long as its answer is under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    session: Arc<Session>,
    all: Arc<AtomicUsize>,
}

impl InFlight {
    pub(super) fn new(session: &Arc<Session>, all: &Arc<AtomicUsize>) -> Self {
        session.in_flight.fetch_add(1, Ordering::Relaxed);
        all.fetch_add(1, Ordering::Relaxed);
        *lock(&session.last_used) = Instant::now();
        Self { session: Arc::clone(session), all: Arc::clone(all) }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.session.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.all.fetch_sub(1, Ordering::Relaxed);
        *lock(&self.session.last_used) = Instant::now();
    }
}
