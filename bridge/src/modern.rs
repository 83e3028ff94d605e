//! Requests of the sessionless era (2026-07-28): to a server that speaks it as they are, to another one translated.

use std::sync::Arc;

use http::{Response, StatusCode};
use portolan_mcp::aggregate as list;
use portolan_mcp::envelope::{Message, Request};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::modern::{DISCOVER, Head, check_params};
use portolan_mcp::revision::Era;
use portolan_mcp::token::SessionKey;
use portolan_mcp::translate::{Introduction, without_modern};

use crate::backend::{Backend, Way};
use crate::caller::CallerSession;
use crate::data::{self, Answer, Received, id_of, refused};
use crate::link::Caller;
use crate::respond;
use crate::server::Body;
use crate::shared::Shared;
use crate::state::State;
use crate::tools;

/// Answers one of them.
pub(crate) async fn post(state: &State, backend: &Backend, key: &SessionKey, received: &Received<'_>) -> Answer {
    let message = received.message;
    let head =
        Head::of(message).ok_or_else(|| refused(Kind::InvalidRequest, "a client of this revision sends no answers"))?;
    let era = state.era().await.map_err(|failure| failed(&failure, message))?;
    match &backend.way {
        Way::Http(relay) if era != Era::Legacy => relay.pass(received, head.is_listen()).await,
        _ => post_to_link(state, backend, key, era, &head, received).await,
    }
}

/// Answers what is the same for everyone from what is kept anyway.
pub(crate) async fn shared(state: &Arc<State>, backend: &Backend, key: &SessionKey, received: &Received<'_>) -> Answer {
    let Message::Request(request) = received.message else {
        return Err(refused(Kind::InvalidRequest, "what is the same for everyone is asked for with a request"));
    };
    let is_shared = request.method == DISCOVER || list::Kind::of_method(&request.method).is_some();
    if !is_shared {
        return Err(refused(Kind::InvalidRequest, "only lists and server/discover are the same for everyone"));
    }
    if let Way::Http(_) = &backend.way {
        let era = state.era().await.map_err(|failure| failed(&failure, received.message))?;
        let everyone = session_of(backend, Caller::everyone(), era, received.message)?;
        return ask(&everyone, request, received).await;
    }
    let kept = Shared::new(state);
    if request.method == DISCOVER {
        return kept.discover(&request.id);
    }
    let body = without_modern(received.body).unwrap_or_else(|| received.body.clone());
    let message = data::parse(&body)?;
    kept.post(key, &Received { message: &message, body: &body, ..*received }).await
}

async fn post_to_link(
    state: &State,
    backend: &Backend,
    key: &SessionKey,
    era: Era,
    head: &Head<'_>,
    received: &Received<'_>,
) -> Answer {
    let Received { headers, message, body, .. } = *received;
    if let Some((schema, arguments)) = tools::with_headers(&state.marked_tools(), head, message.params()) {
        // Nobody behind this sees headers: whether they say what the body says is decided here.
        check_params(schema, &arguments, headers).map_err(|failure| failed(&failure, message))?;
    }
    let session = session_of(backend, caller(state, key, head), era, message)?;
    match message {
        Message::Request(request) => ask(&session, request, received).await,
        _ if head.method == "notifications/cancelled" => {
            Err(refused(Kind::InvalidRequest, "over HTTP, a request is taken back by closing it"))
        }
        _ => {
            session.notify(body).map_err(|failure| respond::failure(&failure, None, None))?;
            Ok(respond::empty(StatusCode::ACCEPTED))
        }
    }
}

/// Who asks. At a server without sessions of its own to keep, everyone is the same caller.
fn caller(state: &State, key: &SessionKey, head: &Head<'_>) -> Caller {
    if state.config.sessions.stateless {
        return Caller::everyone();
    }
    Caller { key: key.clone(), introduction: Introduction::of(head) }
}

/// What is kept for the caller.
fn session_of(
    backend: &Backend,
    caller: Caller,
    era: Era,
    message: &Message<'_>,
) -> Result<Arc<CallerSession>, Response<Body>> {
    backend.sessions.caller(caller, era).map_err(|failure| failed(&failure, message))
}

async fn ask(session: &Arc<CallerSession>, request: &Request<'_>, received: &Received<'_>) -> Answer {
    let reply = session.ask(request, received.body, received.timeout);
    let reply = reply.map_err(|error| data::not_taken(&error, Some(&request.id), Some(&request.method)))?;
    Ok(respond::answer_of_era(reply).await)
}

fn failed(failure: &Failure, message: &Message<'_>) -> Response<Body> {
    respond::failure(failure, id_of(message), message.method())
}
