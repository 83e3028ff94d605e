//! What the operator asks of one pod, as a client would: whether it answers what it is known to have to answer.
//!
//! It comes in on the admin port, names the pod, and goes the way of a call from there on, past what chooses between pods
//! and past every cache. It is nobody's call: what counts calls of clients, and what judges pods by them, does not count it.

use std::sync::Arc;

use http::{Response, request::Parts};
use portolan_mcp::{
    failure::{Failure, Kind},
    mac, wire,
};
use portolan_policy::{authorize, identity::Identity};

use crate::body::Incoming;
use crate::budget::Answer;
use crate::gateway::Gateway;
use crate::record::Record;
use crate::recorded::Held;
use crate::respond::Body;
use crate::route::Asked;
use crate::stack;
use crate::state::{Serving, unix_time};

/// The layers of such a request.
pub(crate) async fn layers(
    gateway: &Arc<Gateway>,
    request: &Parts,
    body: Incoming,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    record.set_check();
    let serving = gateway.state.serving()?;
    authenticate(request, &serving)?;
    let (route, pod) = pod_of(request.uri.path()).ok_or_else(no_pod)?;
    let entry = serving.route(route).and_then(|entry| entry.confined_to(pod)).ok_or_else(no_pod)?;
    let caller = Identity::operator();
    let permit = authorize::authorize(&caller, entry.route.name.target()).map_err(|_| no_pod())?;
    held.answer = Some(Answer::passed_on(entry.budget.clone()));
    let asked = Asked { request, snapshot: &serving.snapshot, entry: &entry, caller: &caller, permit };
    stack::of_one(gateway, &asked, body, record, held).await
}

/// Whoever has the gateway's stream key is the operator.
pub(crate) fn authenticate(request: &Parts, serving: &Serving) -> Result<(), Failure> {
    let refused = |message: String| Failure::new(Kind::Unauthenticated, message);
    let Some(key) = &serving.snapshot.stream_key else {
        return Err(refused("this gateway's Secret has no stream key".into()));
    };
    let header = request.headers.get(mac::HEADER).and_then(|value| value.to_str().ok());
    let (method, path) = (request.method.as_str(), request.uri.path());
    let now = unix_time().as_millis().try_into().unwrap_or(u64::MAX);
    let subject = mac::Subject { method, path, session: "", pod: "" };
    key.verify(header, subject, now).map_err(|error| refused(error.to_string()))
}

/// `namespace/server` and the pod's UID behind [`wire::CHECKS`].
fn pod_of(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix(wire::CHECKS)?.rsplit_once('/')
}

fn no_pod() -> Failure {
    Failure::new(Kind::NotReady, "this replica does not know that pod; try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_server_and_a_pod() {
        assert_eq!(pod_of("/v1/checks/default/quickstart/3f0c"), Some(("default/quickstart", "3f0c")));
        for path in ["/v1/checks/", "/v1/checks/x", "/v1/check/default/quickstart/3f0c", "/mcp"] {
            assert_eq!(pod_of(path), None, "{path}");
        }
    }
}
