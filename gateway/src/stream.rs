//! GET opens a session's standing stream, DELETE ends a session.

use bytes::Bytes;
use http::{Method, Response};
use portolan_mcp::failure::Failure;
use portolan_snapshot::snapshot::Pod;

use crate::gateway::Gateway;
use crate::pool::Answer;
use crate::record::Record;
use crate::recorded::Held;
use crate::relay::{self, For};
use crate::respond::Body;
use crate::route::Asked;
use crate::upstream::{self, Call, GRACE, Purpose};
use crate::{metrics, negotiate, session};

/// Opens the stream on which a server speaks first.
pub(crate) async fn open(
    gateway: &Gateway,
    asked: &Asked<'_>,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    record.set_method(metrics::STREAM);
    negotiate::get(&asked.request.headers)?;
    let (response, pod) = forward(gateway, asked, &Method::GET, record, held).await?;
    Ok(relay::answer(response, pod, For::standing(gateway.drain.streams.clone().cancelled_owned())))
}

/// Ends a session.
pub(crate) async fn delete(
    gateway: &Gateway,
    asked: &Asked<'_>,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    record.set_method(metrics::DELETE);
    let (response, pod) = forward(gateway, asked, &Method::DELETE, record, held).await?;
    let silence = asked.entry.route.settings.request_timeout + GRACE;
    Ok(relay::answer(response, pod, For::Post { id: None, method: None, silence }))
}

async fn forward<'a>(
    gateway: &Gateway,
    asked: &'a Asked<'_>,
    method: &Method,
    record: &mut Record,
    held: &mut Held,
) -> Result<(Response<Answer>, &'a Pod), Failure> {
    let headers = &asked.request.headers;
    let route = &asked.entry.route;
    negotiate::version(headers)?;
    let session = session::find(headers, asked.snapshot, asked.entry, asked.caller.principal(), &gateway.metrics)?;
    record.set_session(&session.key);
    let timeout = route.settings.request_timeout;
    let purpose = Purpose::of(method);
    let call = Call { method, headers, session: &session.key, part: None, body: Bytes::new(), timeout, purpose };
    let response = upstream::ask(&call, session.pod, asked.entry, record, held).await?;
    record.set_answer(response.status(), relay::failure_of(response.headers()));
    Ok((response, session.pod))
}
