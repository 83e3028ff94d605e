//! `/mcp`: all servers that a caller may see, as one; and toolsets, which are some of them.
//!
//! Lists come from what this replica knows of every server; a call goes to the one server that it names. Clients of both
//! eras are served: without sessions as at a server's own endpoint, with one by sessions at the servers' bridges that are
//! opened when they are first needed and named after the client's.

mod answer;
mod catalog;
mod changes;
mod fetch;
mod lists;
mod many;
mod modern;
mod part;
mod placed;
mod sessions;
mod target;
mod view;
mod views;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Response, StatusCode, request::Parts};
use portolan_mcp::{
    aggregate::{Kind as ListKind, Member, Selection},
    envelope::{Message, Request, is_batch},
    failure::{Failure, Kind},
    modern::DISCOVER,
    revision::Era,
    scan,
};
use portolan_policy::{
    authorize::{self, Permit},
    identity::Identity,
};
use portolan_snapshot::Toolset;

pub(crate) use self::catalog::Catalog;
pub(crate) use self::placed::Placed;
use self::view::View;
use self::views::Looks;
pub(crate) use self::views::Views;
use crate::batch::Batch;
use crate::body::Incoming;
use crate::budget::Answer;
use crate::gateway::Gateway;
use crate::record::Record;
use crate::recorded::Held;
use crate::respond::{self, Body};
use crate::route;
use crate::state::{Entry, Serving};
use crate::{body, negotiate};

/// The route that tokens of the endpoint of all servers are bound to. No other route is written like it.
pub(crate) const ROUTE: &str = "*";

/// What is asked of several servers together, and by whom.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a Parts,
    pub(crate) serving: &'a Serving,
    pub(crate) caller: &'a Identity,
    /// The toolset that is asked; `None` for all servers.
    pub(crate) toolset: Option<&'a Arc<Toolset>>,
    /// What tokens of the endpoint are bound to.
    pub(crate) route: &'a str,
}

impl<'a> Asked<'a> {
    fn selection(&self) -> Option<&'a Selection> {
        self.toolset.map(|toolset| &toolset.selection)
    }

    /// Whether it is one server, under that server's own names.
    fn is_alone(&self) -> bool {
        self.selection().is_some_and(Selection::is_alone)
    }

    /// The same, asked of what is served now.
    fn in_<'b>(self, serving: &'b Serving) -> Asked<'b>
    where
        'a: 'b,
    {
        Asked { serving, ..self }
    }

    /// What a server alone is asked for that sleeps, and of which nothing is known here, only a pod can tell: waits for one.
    async fn introduced(&self, gateway: &Arc<Gateway>, message: &Message<'_>) -> Result<Option<Arc<Serving>>, Failure> {
        let (Message::Request(request), Some(only)) = (message, self.selection().and_then(Selection::only)) else {
            return Ok(None);
        };
        let introduces = matches!(&*request.method, "initialize" | DISCOVER);
        match self.serving.route(&only.route()) {
            Some(entry) if introduces || ListKind::of_method(&request.method).is_some() => {
                if gateway.catalog.knows(entry) { Ok(None) } else { gateway.state.awake(entry, &gateway.metrics).await }
            }
            _ => Ok(None),
        }
    }

    /// What the caller is shown.
    async fn view(&self, gateway: &Arc<Gateway>, record: &mut Record) -> Arc<View> {
        let looks = Looks { serving: self.serving, caller: self.caller, toolset: self.toolset };
        record.wait(gateway.views.view(gateway, looks)).await
    }

    /// Answers a request for a list with a page of it; in the sessionless era a client need not ask again for `fresh`.
    async fn list(
        &self,
        gateway: &Arc<Gateway>,
        kind: ListKind,
        request: &Request<'_>,
        fresh: Option<Duration>,
        record: &mut Record,
    ) -> Result<Response<Body>, Failure> {
        let listed = lists::list(kind, request, &*self.view(gateway, record).await)?;
        let listed = match fresh {
            Some(fresh) => listed.in_modern(fresh),
            None => listed,
        };
        record.set_answer(StatusCode::OK, None);
        Ok(listed.answer(&request.id))
    }

    /// One of its servers; one that is not there and one that the caller may not see are the same.
    fn member(&self, member: Member<'_>) -> Option<(&'a Entry, Permit)> {
        let route = member.route();
        if self.selection().is_some_and(|selection| !selection.has(&route)) {
            return None;
        }
        let entry = self.serving.route(&route)?;
        Some((entry, self.permit(entry)?))
    }

    fn permit(&self, entry: &Entry) -> Option<Permit> {
        authorize::authorize(self.caller, entry.route.name.target()).ok()
    }

    /// What is asked of the one server behind `entry`, with the headers of `request`.
    fn of<'b>(&self, request: &'b Parts, entry: &'b Entry, permit: Permit) -> route::Asked<'b>
    where
        'a: 'b,
    {
        route::Asked { request, snapshot: &self.serving.snapshot, entry, caller: self.caller, permit }
    }
}

/// Notes that a request is one server's from here on.
fn settle(entry: &Entry, record: &mut Record, held: &mut Held) {
    record.set_route(&entry.series);
    held.answer = Some(Answer::passed_on(entry.budget.clone()));
}

/// Has asked what servers have that sleep while nobody calls, before they do: who asks then is answered without a pod.
pub(crate) fn learn(gateway: &Arc<Gateway>) {
    if let Ok(serving) = gateway.state.serving() {
        let unknown: Vec<_> = serving.sleepers().filter(|entry| !gateway.catalog.knows(entry)).collect();
        gateway.catalog.refresh(gateway, &unknown);
    }
}

/// Answers a request to `/mcp`, to a toolset, or to a server that sleeps while nobody calls.
pub(crate) async fn serve(
    gateway: &Arc<Gateway>,
    asked: Asked<'_>,
    incoming: Incoming,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    if !asked.is_alone() {
        record.set_all();
    }
    match asked.request.method {
        Method::POST => post(gateway, asked, incoming, record, held).await,
        Method::GET => sessions::open(gateway, asked, record, held).await,
        Method::DELETE => sessions::delete(gateway, asked, record).await,
        _ => Err(Failure::new(Kind::MethodNotAllowed, format!("use one of {}", respond::ALLOWED_METHODS))),
    }
}

async fn post(
    gateway: &Arc<Gateway>,
    asked: Asked<'_>,
    incoming: Incoming,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    let headers = &asked.request.headers;
    negotiate::post(headers)?;
    let cap = asked.serving.snapshot.http.max_body_bytes;
    let buffered = record.wait(body::read(incoming, cap, gateway.bounds.body_timeout, &gateway.budget)).await?;
    scan::scan(&buffered.bytes).map_err(|error| Failure::new(Kind::Malformed, error.to_string()))?;
    if is_batch(&buffered.bytes) {
        let batch = Batch::read(headers, buffered)?;
        sessions::find(gateway, asked)?;
        return Ok(batch.serve(gateway, asked.request, record, held).await);
    }
    let message = Message::parse(&buffered.bytes)?;
    record.set_message(&message, buffered.bytes.len());
    // Until it is one server's.
    held.answer = Some(Answer::made(gateway.budget.clone()));
    let introduced = record.wait(asked.introduced(gateway, &message)).await?;
    let asked = introduced.as_deref().map_or(asked, |serving| asked.in_(serving));
    if negotiate::era(headers, &message) == Era::Modern {
        return modern::post(gateway, asked, &message, &buffered.bytes, record, held).await;
    }
    sessions::post(gateway, asked, &message, &buffered.bytes, record, held).await
}
