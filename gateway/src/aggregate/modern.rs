//! Requests of the sessionless era to all servers.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use portolan_mcp::{
    aggregate::Kind as ListKind,
    envelope::{Message, Request},
    failure::{Failure, Kind},
    members::Members,
    modern::{DISCOVER, Head, LIST_CHANGES, LISTEN, ListChange, meta},
    sse,
};

use super::changes::{self, Begins, Script};
use super::{Asked, answer, lists, settle, target};
use crate::gateway::Gateway;
use crate::record::Record;
use crate::recorded::Held;
use crate::relay;
use crate::respond::{self, Body};

/// Answers a request, or says why there is no answer.
pub(super) async fn post(
    gateway: &Arc<Gateway>,
    asked: Asked<'_>,
    message: &Message<'_>,
    body: &Bytes,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    let head = Head::of(message)
        .ok_or_else(|| Failure::new(Kind::InvalidRequest, "a client of this revision sends no answers"))?;
    head.check(&asked.request.headers)?;
    let Message::Request(request) = message else {
        let message = "notifications are for one server; send this one to the server's own endpoint";
        return Err(Failure::new(Kind::InvalidRequest, message));
    };
    let fresh = gateway.bounds.lists_interval;
    match (&*request.method, ListKind::of_method(&request.method)) {
        (_, Some(kind)) => asked.list(gateway, kind, request, Some(fresh), record).await,
        (DISCOVER, _) => {
            let view = asked.view(gateway, record).await;
            let result = lists::discover(&view, asked.toolset.map(Arc::as_ref), fresh);
            Ok(answered(request, &result, record))
        }
        (LISTEN, _) => {
            // As at a server's own endpoint: a replica that goes away does not wait for it as for a call.
            held.call = None;
            listen(gateway, asked, request, record)
        }
        _ => call(gateway, asked, request, body, record, held).await,
    }
}

pub(super) fn answered(request: &Request<'_>, result: &str, record: &mut Record) -> Response<Body> {
    record.set_answer(StatusCode::OK, None);
    let answer = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, request.id.as_json());
    respond::full(StatusCode::OK, "application/json", answer)
}

/// Asks the one server that the request names.
async fn call(
    gateway: &Arc<Gateway>,
    asked: Asked<'_>,
    request: &Request<'_>,
    body: &Bytes,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    let target = target::of(request, body, asked.selection())?;
    let awake = match asked.member(target.member()) {
        Some((entry, _permit)) => record.wait(gateway.state.awake(entry, &gateway.metrics)).await?,
        None => None,
    };
    let asked = awake.as_deref().map_or(asked, |serving| asked.in_(serving));
    let (entry, permit) = asked.member(target.member()).ok_or_else(|| target::unknown(request))?;
    settle(entry, record, held);
    entry.budget.admit()?;
    let mut parts = asked.request.clone();
    parts.headers = target.headers(&asked.request.headers);
    let message = Message::parse(&target.body)?;
    let one = asked.of(&parts, entry, permit);
    let response = crate::modern::post(gateway, &one, &message, &target.body, record, held).await?;
    let from = answer::From { entry, part: None, is_alone: asked.is_alone() };
    record.wait(answer::renamed(gateway, response, from, Some(&request.method))).await
}

/// A stream of what changes in the lists. Of single resources nothing is told here, and the acknowledgement says so.
fn listen(
    gateway: &Arc<Gateway>,
    asked: Asked<'_>,
    request: &Request<'_>,
    record: &mut Record,
) -> Result<Response<Body>, Failure> {
    let params = request.params.and_then(|params| Members::of(params.get())).unwrap_or_default();
    let filter = params.get("notifications").and_then(Members::of).ok_or_else(|| {
        let message = "params.notifications must say what to listen for, such as {\"toolsListChanged\": true}";
        Failure::new(Kind::InvalidParams, message)
    })?;
    let honoured: Vec<ListChange> =
        LIST_CHANGES.into_iter().filter(|change| filter.get(change.filter) == Some("true")).collect();
    let mut acknowledged = Members::default();
    for change in &honoured {
        acknowledged.set(change.filter, "true");
    }
    let addressed = format!(r#""_meta":{{"{}":{}}}"#, meta::SUBSCRIPTION_ID, request.id.as_json());
    let first = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"notifications":{acknowledged},{addressed}}}}}"#
    );
    let told = move |kind: ListKind| {
        let method = kind.changed();
        let hears = honoured.iter().any(|change| change.method == method);
        let event = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{{addressed}}}}}"#);
        hears.then_some(event)
    };
    let script = Script {
        begins: Begins::With(sse::encode(None, first.as_bytes())),
        told: Box::new(told),
        farewell: relay::listen_farewell(&request.id),
    };
    record.set_answer(StatusCode::OK, None);
    Ok(changes::stream(gateway, asked, script))
}
