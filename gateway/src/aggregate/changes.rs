//! Streams on which clients hear that lists changed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use portolan_mcp::{aggregate::Kind as ListKind, sse};
use portolan_policy::identity::Identity;
use portolan_snapshot::Toolset;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Asked;
use super::catalog::Changes;
use super::views::Looks;
use crate::gateway::Gateway;
use crate::relay;
use crate::respond::{Body, BoxError};
use crate::state::Serving;

/// A timer has no shorter one.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// What a stream says: first of all, at every change of a list, and last of all.
pub(super) struct Script {
    pub(super) begins: Begins,
    pub(super) told: Box<dyn Fn(ListKind) -> Option<String> + Send + Sync>,
    pub(super) farewell: Bytes,
}

/// How a stream begins.
pub(super) enum Begins {
    /// With this; nobody comes back for what was missed.
    With(Bytes),
    /// Anew, so that its client can come back for what it missed: by an event that only has an id where clients expect one.
    Resumable { is_primed: bool },
    /// Behind the event of this id.
    After(String),
}

struct Stream {
    gateway: Arc<Gateway>,
    caller: Identity,
    /// What is listened to, as it was last; `None` for all servers.
    toolset: Option<Arc<Toolset>>,
    changes: watch::Receiver<Changes>,
    seen: Changes,
    closing: CancellationToken,
    script: Script,
    /// What tells this replica's events from others', where they have ids.
    replica: Option<u64>,
    /// When what servers have is looked at for those who listen, and the stream gets a comment.
    looks: Interval,
    ended: bool,
}

/// A stream for who asks, until either side, this replica or the toolset goes.
pub(super) fn stream(gateway: &Arc<Gateway>, asked: Asked<'_>, script: Script) -> Response<Body> {
    let changes = gateway.catalog.changes();
    let seen = *changes.borrow();
    let own = gateway.catalog.replica();
    let replica = (!matches!(script.begins, Begins::With(_))).then_some(own);
    let every = gateway.bounds.lists_interval.max(MIN_INTERVAL);
    let mut looks = tokio::time::interval_at(Instant::now() + every, every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = Stream {
        gateway: Arc::clone(gateway),
        caller: asked.caller.clone(),
        toolset: asked.toolset.cloned(),
        changes,
        seen,
        closing: gateway.drain.streams.clone(),
        script,
        replica,
        looks,
        ended: false,
    };
    let first = Some(stream.first());
    let frames = stream::unfold((first, stream), |(first, mut stream)| async move {
        let data = match first {
            Some(first) => first,
            None => stream.next().await?,
        };
        Some((Ok::<_, BoxError>(Frame::data(data)), (None, stream)))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    relay::set_stream_headers(headers);
    response
}

/// What became of a toolset since it was looked at last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Became {
    Same,
    Another,
    Gone,
}

impl Stream {
    fn first(&self) -> Bytes {
        let missed: Vec<ListKind> = match &self.script.begins {
            Begins::With(first) => return first.clone(),
            Begins::Resumable { is_primed: true } => return sse::encode(self.id().as_deref(), b""),
            Begins::Resumable { is_primed: false } => Vec::new(),
            // What another replica had told by then nobody here knows: to be told again does no harm.
            Begins::After(last) => match Changes::of_id(last, self.replica.unwrap_or_default()) {
                Some(earlier) => self.seen.since(earlier).collect(),
                None => ListKind::ALL.into(),
            },
        };
        let events = self.events(missed);
        if events.is_empty() { Bytes::from_static(sse::KEEP_ALIVE) } else { events }
    }

    /// The id of an event behind which everything is told so far.
    fn id(&self) -> Option<String> {
        self.replica.map(|replica| self.seen.as_id(replica))
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        loop {
            tokio::select! {
                () = self.closing.cancelled() => {
                    self.ended = true;
                    return Some(self.script.farewell.clone());
                }
                Ok(()) = self.changes.changed() => {
                    let now = *self.changes.borrow_and_update();
                    let kinds: Vec<ListKind> = now.since(std::mem::replace(&mut self.seen, now)).collect();
                    let events = self.events(kinds);
                    if !events.is_empty() {
                        return Some(events);
                    }
                }
                _ = self.looks.tick() => {
                    let Ok(serving) = self.gateway.state.serving() else { continue };
                    let became = self.follow(&serving);
                    if became == Became::Gone {
                        self.ended = true;
                        return Some(self.script.farewell.clone());
                    }
                    self.look(&serving).await;
                    let events = if became == Became::Another { self.events(ListKind::ALL) } else { Bytes::new() };
                    return Some(if events.is_empty() { Bytes::from_static(sse::KEEP_ALIVE) } else { events });
                }
            }
        }
    }

    /// Takes in the toolset as it is now.
    fn follow(&mut self, serving: &Serving) -> Became {
        let Some(toolset) = &mut self.toolset else { return Became::Same };
        let Some(now) = serving.now_of(toolset) else { return Became::Gone };
        let before = std::mem::replace(toolset, now.clone());
        if before.selection == toolset.selection { Became::Same } else { Became::Another }
    }

    fn events(&self, kinds: impl IntoIterator<Item = ListKind>) -> Bytes {
        let mut methods: Vec<(&str, String)> =
            kinds.into_iter().filter_map(|kind| Some((kind.changed(), (self.script.told)(kind)?))).collect();
        // Resources and their templates are told as one.
        methods.dedup_by_key(|(method, _)| *method);
        let last = methods.len().saturating_sub(1);
        let events = methods.into_iter().enumerate().map(|(place, (_, message))| {
            let id = self.id().filter(|_| place == last);
            sse::encode(id.as_deref(), message.as_bytes())
        });
        events.collect::<Vec<_>>().concat().into()
    }

    /// Has the lists asked for again where it is time; who does not answer is no news here.
    async fn look(&self, serving: &Serving) {
        let looks = Looks { serving, caller: &self.caller, toolset: self.toolset.as_ref() };
        let _view = self.gateway.views.view(&self.gateway, looks).await;
    }
}
