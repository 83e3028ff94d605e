//! The admin port: is the bridge alive, is the server ready, what happened.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, Stream};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use portolan_mcp::failure::Kind;
use portolan_mcp::wire::{self, ProbeStatus, ToolsFound};

use crate::bridge::Reporter;
use crate::data::{check_mac, refused};
use crate::respond;
use crate::server::{Body, Handler};
use crate::state::State;

/// Answers the admin port.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) reporter: Reporter,
}

impl Handler for Admin {
    async fn handle(self: Arc<Self>, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let allowed = if path == wire::ABANDON { Method::POST } else { Method::GET };
        if request.method() != allowed {
            return refused(Kind::MethodNotAllowed, &format!("use {allowed}"));
        }
        match path {
            wire::LIVEZ => respond::empty(StatusCode::OK),
            wire::READYZ => self.ready(),
            wire::DRAINED if peer.ip().to_canonical().is_loopback() => self.drained().await,
            wire::STATUS => self.status(&request),
            wire::PROBE => self.probe(&request),
            wire::ABANDON => self.abandon(&request),
            _ => refused(
                Kind::UnknownRoute,
                "the bridge's admin port serves /livez, /readyz, /v1/status, /v1/probe and /v1/abandon",
            ),
        }
    }
}

impl Admin {
    fn ready(&self) -> Response<Body> {
        let status = if self.reporter.state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let probe = self.reporter.state.probe.borrow().clone();
        respond::json(status, to_json(&without_definitions(&probe)))
    }

    async fn drained(&self) -> Response<Body> {
        let mut drained = self.reporter.state.drained.subscribe();
        // The sender lives in the same state as we do.
        let _ = drained.wait_for(|drained| *drained).await;
        respond::empty(StatusCode::OK)
    }

    fn status(&self, request: &Request<Incoming>) -> Response<Body> {
        if let Err(response) = check_mac(&self.reporter.state, request, "") {
            return response;
        }
        let definitions =
            request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "definitions=1"));
        respond::json(StatusCode::OK, to_json(&self.reporter.report(definitions)))
    }

    fn probe(&self, request: &Request<Incoming>) -> Response<Body> {
        match check_mac(&self.reporter.state, request, "") {
            Ok(()) => respond::lines(verdicts(&self.reporter.state)),
            Err(response) => response,
        }
    }

    fn abandon(&self, request: &Request<Incoming>) -> Response<Body> {
        if let Err(response) = check_mac(&self.reporter.state, request, "") {
            return response;
        }
        tracing::info!("nobody can reach the sessions any more: a drain does not wait for them");
        self.reporter.state.abandoned.send_replace(true);
        respond::empty(StatusCode::NO_CONTENT)
    }
}

/// What the probe finds, until the bridge ends: a line for each change, an empty one where nothing changed for a while.
fn verdicts(state: &State) -> impl Stream<Item = Bytes> + Send + use<> {
    let mut verdict = state.probe.subscribe();
    verdict.mark_changed();
    let stop = state.stop.clone();
    stream::unfold((verdict, Vec::new()), move |(mut verdict, last)| {
        let stop = stop.clone();
        async move {
            let changed = tokio::select! {
                () = stop.cancelled() => return None,
                changed = tokio::time::timeout(wire::HEARTBEAT, verdict.changed()) => changed,
            };
            let now = match changed {
                Ok(changed) => changed.map(|()| to_json(&without_definitions(&verdict.borrow_and_update()))).ok()?,
                Err(_) => last.clone(),
            };
            let line = if now == last { Bytes::from_static(b"\n") } else { [&now[..], b"\n"].concat().into() };
            Some((line, (verdict, now)))
        }
    })
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    // Plain structs of strings and numbers: there is nothing in them that JSON cannot say.
    serde_json::to_vec(value).unwrap_or_default()
}

/// The verdict without the tools' definitions, which may be large.
pub(crate) fn without_definitions(probe: &ProbeStatus) -> ProbeStatus {
    let tools = probe.tools.as_ref().map(|tools| ToolsFound {
        definitions: None,
        hash: tools.hash.clone(),
        count: tools.count,
    });
    ProbeStatus { tools, server: probe.server.clone(), message: probe.message.clone(), ..*probe }
}
