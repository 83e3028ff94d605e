//! A link that the bridge keeps for itself: the probe's, and in stateless mode everyone's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use portolan_mcp::envelope::{Id, Message, Meta, Request, scalar_param};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::session::{
    INITIALIZED, IdKey, Refusal, cancelled, single_line, with_id, with_progress_token_asked, with_progress_token_told,
    with_request_id,
};
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire::{ExitCause, ProbeReason};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use crate::lines::LineError;
use crate::link::{End, Heard, Inbox, Link, Opener, timed_out};
use crate::process::SpawnError;
use crate::reply::{Delivery, Outlet, Reply};
use crate::rpc::{CallError, Rpc};
use crate::session::{PostError, exited};
use crate::state::{State, lock};
use crate::stderr::shorten;

/// Names a request of the client that it no longer waits for (2025-11-25, "Cancellation").
pub(crate) const CANCELLED: &str = "notifications/cancelled";
/// Calls of clients that wait at a time.
const MAX_CALLS: usize = 1024;
/// What is quoted of a line that is not MCP.
const MAX_QUOTE: usize = 120;
/// How long a server that closed its stdout may take to end.
const EXIT_AFTER_EOF: Duration = Duration::from_secs(1);

/// A kept link.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) link: Link,
    state: Arc<State>,
    inner: Mutex<Inner>,
    over: watch::Sender<Option<Over>>,
    initialized: OnceLock<String>,
    /// Begins the progress tokens that the server is given. A client cannot guess it, so none can have another's.
    tokens: SessionKey,
}

#[derive(Debug, Default)]
struct Inner {
    last_id: u64,
    pending: HashMap<u64, Pending>,
    garbage: Option<String>,
    closed: bool,
}

impl Inner {
    /// Our id of the call that `client` knows as `key`.
    fn find(&self, client: &SessionKey, key: &IdKey) -> Option<u64> {
        self.pending.iter().find_map(|(id, pending)| match pending {
            Pending::Client(caller) if caller.client == *client && caller.key == *key => Some(*id),
            _ => None,
        })
    }
}

/// Who waits for an answer.
#[derive(Debug)]
enum Pending {
    /// The bridge itself.
    Own(oneshot::Sender<Result<Bytes, Failure>>),
    /// A client of the stateless mode.
    Client(Caller),
}

/// A client's call, under an id of ours.
#[derive(Debug)]
struct Caller {
    client: SessionKey,
    key: IdKey,
    id: Id,
    method: String,
    /// The client's own token for progress.
    progress: Option<Id>,
    outlet: Outlet,
    timer: Option<AbortHandle>,
}

impl Caller {
    /// Sends `message`, with which the stream ends.
    fn finish(self, message: Bytes, failure: Option<Kind>) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
        self.outlet.send_now(Delivery { id: None, message, failure, last: true, permit: None });
    }

    fn fail(self, failure: &Failure) {
        let answer = failure.answer(Some(&self.id), Some(&self.method));
        self.finish(answer.into(), Some(failure.kind));
    }
}

fn not_taken(failure: Failure) -> CallError {
    match failure.kind {
        Kind::ServerUnreachable => CallError::Unreachable(ProbeReason::Unreachable, failure.message),
        _ => CallError::NotMcp(failure.message),
    }
}

/// Why nothing more will come from the server.
#[derive(Clone, Debug)]
pub(crate) enum Over {
    Ended(Arc<End>),
    ClosedStdout,
    TooLong(String),
}

impl Kept {
    pub(crate) fn open(state: &Arc<State>, opener: &Opener) -> Result<Arc<Self>, SpawnError> {
        let tokens = SessionKey::generate().map_err(|_| SpawnError::NoRandomness)?;
        let (link, inbox) = opener.open(state, "probe")?;
        let kept = Arc::new(Self {
            link,
            state: Arc::clone(state),
            inner: Mutex::default(),
            over: watch::Sender::new(None),
            initialized: OnceLock::new(),
            tokens,
        });
        tokio::spawn(Arc::clone(&kept).read(inbox));
        Ok(kept)
    }

    /// Asks the server and waits for the whole answer at most `timeout`.
    pub(crate) async fn request(&self, method: &str, params: &str, timeout: Duration) -> Result<Rpc, CallError> {
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut inner = lock(&self.inner);
            inner.last_id += 1;
            let id = inner.last_id;
            inner.pending.insert(id, Pending::Own(sender));
            id
        };
        let line = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
        let answer = self.exchange(line.into(), receiver, timeout).await;
        lock(&self.inner).pending.remove(&id);
        answer
    }

    async fn exchange(
        &self,
        line: Bytes,
        receiver: oneshot::Receiver<Result<Bytes, Failure>>,
        timeout: Duration,
    ) -> Result<Rpc, CallError> {
        let mut over = self.over.subscribe();
        // A server that does not read does not answer either, and a gone one is told below.
        let _ = self.link.write(line);
        tokio::select! {
            biased;
            Ok(answer) = receiver => Rpc::parse(&answer.map_err(not_taken)?),
            Ok(over) = over.wait_for(Option::is_some) => Err(over.clone().map_or(CallError::TimedOut, CallError::Over)),
            () = tokio::time::sleep(timeout) => Err(CallError::TimedOut),
        }
    }

    /// `initialize` was answered with `result`.
    pub(crate) fn opened(&self, result: &Value) {
        self.initialized.get_or_init(|| result.to_string());
        // A server that does not read fails the next request.
        let _ = self.link.write(Bytes::from_static(INITIALIZED));
    }

    /// What `initialize` was answered with.
    pub(crate) fn initialize_result(&self) -> Option<&str> {
        self.initialized.get().map(String::as_str)
    }

    /// Asks in the stead of `client`; its id and its token for progress are replaced on the way, and put back in what comes
    /// of it.
    pub(crate) fn call(
        self: &Arc<Self>,
        client: &SessionKey,
        request: &Request<'_>,
        body: &Bytes,
        timeout: Duration,
    ) -> Result<Reply, PostError> {
        let (outlet, reply) = Reply::new();
        let meta = request.params.and_then(Meta::of);
        let mut caller = Caller {
            client: client.clone(),
            key: IdKey::from(&request.id),
            id: request.id.clone(),
            method: request.method.clone().into_owned(),
            progress: meta.and_then(|meta| meta.progress_token),
            outlet,
            timer: None,
        };
        let mut inner = lock(&self.inner);
        if inner.closed {
            let failure = Failure::new(Kind::ServerExited, "the server has just ended; ask again soon");
            return Err(PostError::Failed(failure));
        }
        if inner.find(client, &caller.key).is_some() {
            return Err(PostError::Refused(Refusal::DuplicateId));
        }
        if inner.pending.len() >= MAX_CALLS {
            self.state.counters.refused_calls.add(1);
            let failure = Failure::new(Kind::Overloaded, "too many calls wait for the server; ask again later");
            return Err(PostError::Failed(failure.retry_after(Duration::from_secs(1))));
        }
        inner.last_id += 1;
        let id = inner.last_id;
        let line = self
            .in_our_terms(body, id, caller.progress.is_some())
            .ok_or_else(|| PostError::Failed(Failure::new(Kind::Internal, "the id or the token went missing")))?;
        self.write(&line).map_err(PostError::Failed)?;
        caller.timer = Some(tokio::spawn(Self::time_out(Arc::downgrade(self), id, timeout)).abort_handle());
        inner.pending.insert(id, Pending::Client(caller));
        let kept = Arc::downgrade(self);
        Ok(reply.on_drop(move || {
            if let Some(kept) = kept.upgrade() {
                kept.forget(id);
            }
        }))
    }

    fn in_our_terms(&self, body: &Bytes, id: u64, has_token: bool) -> Option<Bytes> {
        let line = with_id(body, &Id::number(id))?;
        if !has_token {
            return Some(line);
        }
        with_progress_token_asked(&line, &Id::string(&format!("{}-{id}", self.tokens)))
    }

    fn write(&self, message: &Bytes) -> Result<(), Failure> {
        self.link.write(single_line(message)).map_err(|error| {
            self.state.counters.refused_calls.add(1);
            error.failure()
        })
    }

    /// Calls of clients that wait for the server.
    pub(crate) fn in_flight(&self) -> usize {
        lock(&self.inner).pending.values().filter(|pending| matches!(pending, Pending::Client(_))).count()
    }

    /// Hands on what `client` says on its own; `method` and `params` are those of `body`.
    ///
    /// # Errors
    /// The server does not take it.
    pub(crate) fn notify(
        &self,
        client: &SessionKey,
        method: &str,
        params: Option<&RawValue>,
        body: &Bytes,
    ) -> Result<(), Failure> {
        if method != CANCELLED {
            return self.write(body);
        }
        let asked = params.and_then(|params| scalar_param(params, "requestId"));
        let own = asked.and_then(|id| lock(&self.inner).find(client, &IdKey::from(&id)));
        // A call that was answered, or is another client's, is not this one's to cancel.
        let line = own.and_then(|id| with_request_id(body, &Id::number(id)));
        line.map_or(Ok(()), |line| self.write(&line))
    }

    /// The client hung up: its answer will be dropped.
    fn forget(&self, id: u64) {
        if let Some(Pending::Client(Caller { timer: Some(timer), .. })) = lock(&self.inner).pending.remove(&id) {
            timer.abort();
        }
    }

    async fn time_out(kept: Weak<Self>, id: u64, timeout: Duration) {
        tokio::time::sleep(timeout).await;
        let Some(kept) = kept.upgrade() else { return };
        let Some(Pending::Client(caller)) = lock(&kept.inner).pending.remove(&id) else { return };
        kept.state.counters.timeouts.add(1);
        caller.fail(&timed_out(timeout));
        // A server that does not read will not read that nobody waits either.
        let _ = kept.link.write(cancelled(&Id::number(id)));
    }

    /// Where the server's messages come, in words.
    pub(crate) fn voice(&self) -> &'static str {
        self.link.voice()
    }

    /// The first line that was not MCP, shortened.
    pub(crate) fn garbage(&self) -> Option<String> {
        lock(&self.inner).garbage.clone()
    }

    pub(crate) async fn over(&self) -> Over {
        let mut over = self.over.subscribe();
        over.wait_for(Option::is_some).await.ok().and_then(|over| over.clone()).unwrap_or(Over::ClosedStdout)
    }

    /// Ends it and waits until it is gone.
    pub(crate) async fn end(&self, cause: ExitCause) {
        self.link.terminate(cause);
        self.link.ended().await;
    }

    /// Ends it at once; calls are answered with `failure` before it is gone. Says whether there was one to end.
    pub(crate) fn kill(&self, cause: ExitCause, failure: &Failure) -> bool {
        let is_there = !self.link.is_ending();
        if is_there {
            self.fail_callers(failure);
        }
        is_there && self.link.kill(cause)
    }

    async fn read(self: Arc<Self>, mut inbox: Inbox) {
        let over = loop {
            match inbox.next().await {
                Ok(Some(Heard::Message(line))) => self.take_line(&line),
                Ok(Some(Heard::Refused { id, failure })) => self.take_refusal(&id, failure),
                Ok(None) | Err(LineError::Io(_)) => {
                    break match tokio::time::timeout(EXIT_AFTER_EOF, self.link.ended()).await {
                        Ok(end) => Over::Ended(end),
                        Err(_) => Over::ClosedStdout,
                    };
                }
                Err(error @ LineError::TooLong { .. }) => {
                    self.state.counters.oversized_messages.add(1);
                    self.link.terminate(ExitCause::MessageTooLong);
                    break Over::TooLong(error.to_string());
                }
            }
        };
        self.fail_callers(&match &over {
            Over::Ended(end) => exited(end),
            Over::ClosedStdout => Failure::new(Kind::ServerExited, "the server closed its stdout during the call"),
            Over::TooLong(error) => Failure::new(Kind::BadServerReply, format!("the server was ended: {error}")),
        });
        self.over.send_replace(Some(over));
    }

    /// No calls from now on; those under way fail.
    fn fail_callers(&self, failure: &Failure) {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        for pending in std::mem::take(&mut inner.pending).into_values() {
            if let Pending::Client(caller) = pending {
                caller.fail(failure);
            }
        }
    }

    fn take_line(&self, line: &Bytes) {
        let line = line.slice_ref(line.trim_ascii());
        match Message::parse(&line) {
            _ if line.is_empty() => {}
            Ok(Message::Response { id: Some(id), .. }) => self.take_answer(&id, &line),
            Ok(Message::Request(request)) => self.answer_server(&request.id, &request.method),
            Ok(Message::Notification { method, params }) if method == "notifications/progress" => {
                let token = params.and_then(|params| scalar_param(params, "progressToken"));
                self.progress(token.as_ref().map(IdKey::from), &line);
            }
            Ok(_) => {}
            Err(_) => {
                self.state.counters.skipped_lines.add(1);
                let text = String::from_utf8_lossy(&line);
                lock(&self.inner).garbage.get_or_insert_with(|| shorten(&text, MAX_QUOTE).to_owned());
            }
        }
    }

    fn take_answer(&self, id: &Id, line: &Bytes) {
        match self.take_pending(id) {
            // It may have given up a moment ago.
            Some(Pending::Own(waiting)) => drop(waiting.send(Ok(Bytes::copy_from_slice(line)))),
            Some(Pending::Client(caller)) => match with_id(line, &caller.id) {
                Some(answer) => caller.finish(answer, None),
                None => caller.fail(&Failure::new(Kind::BadServerReply, "the server's answer has no id")),
            },
            None => {}
        }
    }

    /// The server did not take a request.
    fn take_refusal(&self, id: &Id, failure: Failure) {
        match self.take_pending(id) {
            Some(Pending::Own(waiting)) => drop(waiting.send(Err(failure))),
            Some(Pending::Client(caller)) => caller.fail(&failure),
            None => {}
        }
    }

    fn take_pending(&self, id: &Id) -> Option<Pending> {
        id.as_json().parse().ok().and_then(|id: u64| lock(&self.inner).pending.remove(&id))
    }

    /// Progress is the client's whose call was given the token; once that is over it is nobody's.
    fn progress(&self, token: Option<IdKey>, line: &Bytes) {
        let Some(IdKey::Text(token)) = token else { return };
        let own = token.strip_prefix(self.tokens.as_str()).and_then(|rest| rest.strip_prefix('-')?.parse::<u64>().ok());
        let inner = lock(&self.inner);
        let Some(Pending::Client(caller)) = own.and_then(|id| inner.pending.get(&id)) else { return };
        let Some(message) = caller.progress.as_ref().and_then(|token| with_progress_token_told(line, token)) else {
            return;
        };
        let delivery = Delivery { id: None, message, failure: None, last: false, permit: None };
        if !caller.outlet.send_if_room(delivery) {
            self.state.counters.dropped_messages.add(1);
        }
    }

    fn answer_server(&self, id: &Id, method: &str) {
        let id = id.as_json();
        let answer = if method == "ping" {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
        } else {
            format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"no client is behind this session"}}}}"#
            )
        };
        // A server that does not read its answers misses them.
        let _ = self.link.write(answer.into());
    }
}
