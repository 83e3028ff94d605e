//! The way of a request. The order of the layers is written here and nowhere else.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use portolan_mcp::failure::{Failure, Kind};
use portolan_policy::{authorize, hosts::Refusal, identity::Identity};

use crate::body::Incoming;
use crate::budget::Answer;
use crate::endpoint;
use crate::gateway::Gateway;
use crate::record::Record;
use crate::recorded::{self, Held};
use crate::respond::{self, Body};
use crate::route::Asked;
use crate::state::Serving;
use crate::{aggregate, check, cors, message, session, stream};

/// Answers one request of a client.
pub(crate) fn serve(
    gateway: Arc<Gateway>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> impl Future<Output = Response<Body>> + Send {
    // Handed on, not awaited: a future around it would be as large again, and moved once more for every call.
    answer(gateway, peer, request, Port::Clients)
}

/// Answers one request of the operator to a pod of its choice.
pub(crate) fn check(
    gateway: Arc<Gateway>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> impl Future<Output = Response<Body>> + Send {
    answer(gateway, peer, request, Port::Admin)
}

/// Where a request came in.
#[derive(Clone, Copy)]
enum Port {
    Clients,
    Admin,
}

async fn answer(gateway: Arc<Gateway>, peer: SocketAddr, request: Request<Incoming>, port: Port) -> Response<Body> {
    let (request, body) = request.into_parts();
    // Access log and metrics are outermost: a request leaves one line, however it ends, refused or in a panic too.
    let mut record = Record::open(gateway.metrics.clone(), peer, request.method.clone(), request.uri.path());
    if let Some((message, bytes)) = body.message() {
        // Whatever comes of it, the answer says to which of a batch's messages.
        record.set_message(&message, bytes);
    }
    // Calls are counted from here on, so that a replica that goes away waits for what it has begun.
    let call = (request.method != Method::GET).then(|| gateway.drain.calls.token());
    let mut held = Held { call, ..Held::default() };
    let mut origin = None;
    // A panic ends one request; the others on this replica know nothing of it.
    let layers = async {
        match port {
            Port::Clients => layers(&gateway, &request, body, &mut record, &mut held, &mut origin).await,
            // In a box, or every request of a client would be as large as these together.
            Port::Admin => Box::pin(check::layers(&gateway, &request, body, &mut record, &mut held)).await,
        }
    };
    let answer = AssertUnwindSafe(layers).catch_unwind().await.unwrap_or_else(|_| {
        gateway.metrics.panics.inc();
        Err(Failure::new(Kind::Internal, "the gateway failed on this request"))
    });
    let mut response = answer.unwrap_or_else(|failure| refuse(&failure, &mut record));
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        // Whoever said it, a server behind a bridge too: a client is never left to guess.
        response.headers_mut().entry(header::RETRY_AFTER).or_insert(HeaderValue::from_static("1"));
    }
    if let Some(origin) = origin {
        cors::admit(origin, response.headers_mut());
    }
    if gateway.drain.is_draining() {
        // Moves clients with open connections to a replica that stays; those of HTTP/2 get a GOAWAY.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    recorded::tie(response, record, held)
}

async fn layers(
    gateway: &Arc<Gateway>,
    request: &Parts,
    body: Incoming,
    record: &mut Record,
    held: &mut Held,
    origin: &mut Option<HeaderValue>,
) -> Result<Response<Body>, Failure> {
    held.entered = Some(gateway.gate.enter()?);
    // One snapshot from here to the end: a change in between never mixes two.
    let serving = gateway.state.serving()?;
    let snapshot = &serving.snapshot;
    // Host and Origin first: a page that was led here by a false DNS answer learns nothing, not even who may call.
    snapshot.http.rules.check(&request.uri, &request.headers).map_err(misdirected)?;
    *origin = request.headers.get(header::ORIGIN).cloned();
    if let Some(response) = cors::preflight(request) {
        record.set_answer(response.status(), None);
        return Ok(response);
    }
    // Who is calling, by headers alone: not a byte of a stranger's body is read, and no stranger learns which routes exist.
    let caller = gateway.authenticator.authenticate(&request.headers, &snapshot.authentication).await?;
    record.set_caller(&caller);
    if let Some(asked) = of_many(request, &serving, &caller)? {
        // In a box, or every request would be as large as one to many servers.
        return Box::pin(aggregate::serve(gateway, asked, body, record, held)).await;
    }
    // Route and right to it together: one that is not there and one that may not be used are the same answer.
    let entry = endpoint::route_of(request.uri.path()).and_then(|name| serving.route(name)).ok_or_else(no_route)?;
    let permit = authorize::authorize(&caller, entry.route.name.target()).map_err(|_| no_route())?;
    record.set_route(&entry.series);
    held.answer = Some(Answer::passed_on(entry.budget.clone()));
    // A session that was opened before the server slept goes on where it is.
    if let Some(alone) = &entry.route.alone
        && !session::is_at_a_pod(&request.headers, snapshot, entry, caller.principal())
    {
        let route = entry.route.name.as_str();
        let asked = aggregate::Asked { request, serving: &serving, caller: &caller, toolset: Some(alone), route };
        return Box::pin(aggregate::serve(gateway, asked, body, record, held)).await;
    }
    let asked = Asked { request, snapshot, entry, caller: &caller, permit };
    of_one(gateway, &asked, body, record, held).await
}

/// What is asked of one server.
pub(crate) async fn of_one(
    gateway: &Arc<Gateway>,
    asked: &Asked<'_>,
    body: Incoming,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    match asked.request.method {
        // Media types, body, envelope and era, session, limits, upstream: see there, in this order.
        Method::POST => message::post(gateway, asked, body, record, held).await,
        Method::GET => stream::open(gateway, asked, record, held).await,
        Method::DELETE => stream::delete(gateway, asked, record, held).await,
        _ => Err(Failure::new(Kind::MethodNotAllowed, format!("use one of {}", respond::ALLOWED_METHODS))),
    }
}

/// What is asked of many servers: of all, or of a toolset that the caller may use.
fn of_many<'a>(
    request: &'a Parts,
    serving: &'a Serving,
    caller: &'a Identity,
) -> Result<Option<aggregate::Asked<'a>>, Failure> {
    let path = request.uri.path();
    let (toolset, route) = if path == endpoint::ALL {
        (None, aggregate::ROUTE)
    } else if let Some((name, route)) = endpoint::toolset_of(path) {
        (Some(serving.toolset_for(caller, &name).ok_or_else(no_route)?), route)
    } else {
        return Ok(None);
    };
    Ok(Some(aggregate::Asked { request, serving, caller, toolset, route }))
}

fn refuse(failure: &Failure, record: &mut Record) -> Response<Body> {
    let (id, method) = record.request();
    let response = respond::failure(failure, id, method);
    if matches!(failure.kind, Kind::BodyTooLarge | Kind::BodyTimeout | Kind::Overloaded) {
        record.metrics().bound_hit(failure.kind.as_str());
    }
    record.set_answer(response.status(), Some(failure.kind));
    response
}

fn misdirected(refusal: Refusal) -> Failure {
    let kind = match refusal {
        Refusal::Host | Refusal::TwoHosts => Kind::HostNotAllowed,
        Refusal::Origin => Kind::OriginNotAllowed,
    };
    Failure::new(kind, refusal.to_string())
}

fn no_route() -> Failure {
    Failure::new(
        Kind::UnknownRoute,
        "there is no such endpoint; write /<namespace>/<server>/mcp, /<namespace>/toolsets/<toolset>/mcp, or /mcp for all",
    )
}
