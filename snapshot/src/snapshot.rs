//! What a gateway serves from: immutable, swapped whole.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use portolan_crds::server::SessionType;
use portolan_mcp::{
    mac::MacKey,
    token::{Claims, Keyring, SessionKey},
};
use portolan_policy::{api_key::ApiKeys, authorize::Target, hosts::HostRules};

use crate::toolset::Toolset;

/// Everything that a request is decided by.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts snapshots of this process, from 1.
    pub generation: u64,
    /// The gateway's object: UID and `metadata.generation`.
    pub gateway: ObjectVersion,
    /// Routes by `namespace/server`.
    pub routes: HashMap<RouteName, Arc<Route>>,
    /// Toolsets by `namespace/name`.
    pub toolsets: HashMap<RouteName, Arc<Toolset>>,
    /// Who is let in.
    pub authentication: Authentication,
    /// How HTTP is served.
    pub http: Http,
    /// Seals and opens session tokens.
    pub keyring: Arc<Keyring>,
    /// Authenticates the operator's stream; without it there is no stream.
    pub stream_key: Option<MacKey>,
}

/// Which version of an object something was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectVersion {
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.generation`.
    pub generation: i64,
}

/// Who is let in.
#[derive(Clone, Debug, Default)]
pub struct Authentication {
    /// Accepted API keys; empty where the gateway has no list.
    pub api_keys: ApiKeys,
    /// Audiences of which a service account's token must name one; empty where none is let in.
    pub audiences: Arc<[String]>,
    /// Whether a request without any credential is let in.
    pub anonymous: bool,
}

/// How HTTP is served.
#[derive(Clone, Debug)]
pub struct Http {
    /// Which `Host` and `Origin` values are answered.
    pub rules: HostRules,
    /// Largest request body in bytes.
    pub max_body_bytes: usize,
}

/// `namespace/server`: a route's name in paths, tokens, logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName(Arc<str>);

impl RouteName {
    /// The name of the route to `server` in `namespace`.
    #[must_use]
    pub fn new(namespace: &str, server: &str) -> Self {
        Self(format!("{namespace}/{server}").into())
    }

    /// `namespace/server`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Namespace and server apart.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        let (namespace, server) = self.0.split_once('/').unwrap_or(("", &self.0));
        Target { namespace, server }
    }
}

impl Borrow<str> for RouteName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RouteName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One server.
#[derive(Clone, Debug)]
pub struct Route {
    /// `namespace/server`.
    pub name: RouteName,
    /// How it is served: the last good version.
    pub settings: Arc<Settings>,
    /// The revision that takes new sessions.
    pub serving: Option<Box<str>>,
    /// Another one that takes a share of them.
    pub canary: Option<Canary>,
    /// Pods by UID, of every revision.
    pub pods: HashMap<Box<str>, Pod>,
    /// UIDs of pods that were here and are gone, the latest last; bounded.
    pub departed: Vec<Box<str>>,
    /// The server as an endpoint that answers while it sleeps; `None` where it always has pods.
    pub alone: Option<Arc<Toolset>>,
}

/// A revision that takes a share of new sessions, and of calls without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Its name.
    pub revision: Box<str>,
    /// Its share, in percent.
    pub weight: u8,
}

/// How a server is served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The object that this was made from.
    pub version: ObjectVersion,
    /// Speaks for this gateway to the server's bridges.
    pub mac: MacKey,
    /// From a request to its answer.
    pub request_timeout: Duration,
    /// Requests under way at once.
    pub max_parallel_requests: usize,
    /// Requests that wait for one of those to end.
    pub max_pending_requests: usize,
    /// Whether a session stays with one pod.
    pub sessions: SessionType,
    /// Whether the operator is told how many calls are under way.
    pub is_measured: bool,
    /// How long a call waits for a pod of a server that sleeps; `None` where it always has pods.
    pub activation: Option<Duration>,
}

/// One pod of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.uid`: an address may come back, a UID never does.
    pub uid: Box<str>,
    /// Its name, for people.
    pub name: Box<str>,
    /// Its revision.
    pub revision: Box<str>,
    /// Address and data port of its bridge.
    pub address: SocketAddr,
    /// The same as `Host` says it.
    pub host: HeaderValue,
    /// Its UID, as [`portolan_mcp::wire::POD`] says it.
    pub named: HeaderValue,
    /// Whether it takes new sessions: ready, and not on its way out.
    pub ready: bool,
    /// Whether it answers for the sessions it has.
    pub serving: bool,
}

/// Where a session is, as far as a gateway knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder<'a> {
    /// This pod has it.
    Pod(&'a Pod),
    /// The pod that has it does not answer at the moment.
    Silent,
    /// No pod in particular: any of its revision will do.
    Any,
    /// A pod that this gateway never heard of, for a session so young that it may yet.
    Unheard,
    /// The pod that had it is gone.
    Gone,
}

/// How much later than another replica one may hear of a pod.
const HEARSAY: Duration = Duration::from_secs(10);

impl Route {
    /// Where the session is that `claims` speak of, at `now` (Unix seconds). A UID is looked up, never an address: what
    /// another pod got since is not asked.
    #[must_use]
    pub fn holder(&self, claims: &Claims, now: u64) -> Holder<'_> {
        let Some(uid) = claims.pod.as_deref() else { return Holder::Any };
        match self.pods.get(uid).filter(|pod| pod.revision == claims.revision) {
            Some(pod) if pod.serving => Holder::Pod(pod),
            Some(_) => Holder::Silent,
            None if self.departed.iter().any(|gone| **gone == *uid) => Holder::Gone,
            None if now < claims.issued.saturating_add(HEARSAY.as_secs()) => Holder::Unheard,
            None => Holder::Gone,
        }
    }

    /// Pods of the serving revision that take new sessions: those that are ready.
    pub fn ready_pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods_of(self.serving.as_deref()).filter(|pod| pod.ready)
    }

    /// Pods of the revision that takes a share of new sessions.
    pub fn canary_pods(&self) -> impl Iterator<Item = &Pod> {
        let revision = self.canary.as_ref().map(|canary| &*canary.revision);
        self.pods_of(revision).filter(|pod| pod.ready)
    }

    /// Pods that take a new session of this name, in the order that every replica has for it: those of the revision that its name is drawn
    /// for, then those of the other.
    #[must_use]
    pub fn takers(&self, session: &SessionKey) -> Vec<&Pod> {
        self.takers_drawn_by(session, session)
    }

    /// The same, of the revision that another name is drawn for.
    #[must_use]
    pub fn takers_drawn_by(&self, session: &SessionKey, drawn: &SessionKey) -> Vec<&Pod> {
        let Some(canary) = &self.canary else { return ranked(self.ready_pods(), session) };
        let (serving, canaries) = (ranked(self.ready_pods(), session), ranked(self.canary_pods(), session));
        let is_drawn = drawn.percentile(&canary.revision) < canary.weight;
        if is_drawn { [canaries, serving].concat() } else { [serving, canaries].concat() }
    }

    /// Whether there is no pod for a new session, and a call makes one come up.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.alone.is_some() && self.ready_pods().chain(self.canary_pods()).next().is_none()
    }

    /// Whether the pod of that UID takes no new callers any more, and others do.
    #[must_use]
    pub fn is_left(&self, uid: &str) -> bool {
        let mut takers = self.ready_pods().chain(self.canary_pods()).peekable();
        takers.peek().is_some() && takers.all(|pod| *pod.uid != *uid)
    }

    /// Pods that may hold the session of this name, of every revision, in the same order.
    #[must_use]
    pub fn holders(&self, session: &SessionKey) -> Vec<&Pod> {
        ranked(self.pods.values().filter(|pod| pod.serving), session)
    }

    /// Pods of `revision`.
    pub fn pods_of<'a, 'b>(&'a self, revision: Option<&'b str>) -> impl Iterator<Item = &'a Pod> + use<'a, 'b> {
        self.pods.values().filter(move |pod| revision == Some(&*pod.revision))
    }
}

fn ranked<'a>(pods: impl Iterator<Item = &'a Pod>, session: &SessionKey) -> Vec<&'a Pod> {
    let mut pods: Vec<&Pod> = pods.collect();
    pods.sort_by_cached_key(|pod| session.rank(&pod.uid));
    pods
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_mcp::token::KEY_LEN;

    fn pod(uid: &str, revision: &str) -> (Box<str>, Pod) {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let pod = Pod {
            uid: uid.into(),
            name: uid.into(),
            revision: revision.into(),
            address,
            host: HeaderValue::from_static("127.0.0.1:1"),
            named: HeaderValue::from_static("x"),
            ready: true,
            serving: true,
        };
        (uid.into(), pod)
    }

    /// Two pods of revision `a`, which serves, and two of `b`, which takes `weight` percent.
    fn route(weight: u8) -> Route {
        let settings = Settings {
            version: ObjectVersion { uid: "u".into(), generation: 1 },
            mac: MacKey::new(&[7; KEY_LEN]).expect("a key"),
            request_timeout: Duration::from_secs(1),
            max_parallel_requests: 1,
            max_pending_requests: 1,
            sessions: SessionType::Stateful,
            is_measured: false,
            activation: None,
        };
        Route {
            name: RouteName::new("tools", "s"),
            settings: settings.into(),
            serving: Some("a".into()),
            canary: Some(Canary { revision: "b".into(), weight }),
            pods: [pod("1", "a"), pod("2", "a"), pod("3", "b"), pod("4", "b")].into(),
            departed: Vec::new(),
            alone: None,
        }
    }

    #[test]
    fn a_sessions_name_decides_its_revision_by_weight_and_a_greater_weight_takes_none_back() {
        let sessions: Vec<_> = (0..2000).map(|_| SessionKey::generate().expect("random")).collect();
        let goes_to_canary = |weight: u8| {
            let route = route(weight);
            let first = |session: &SessionKey| &*route.takers(session)[0].revision == "b";
            sessions.iter().map(first).collect::<Vec<_>>()
        };
        let (tenth, half) = (goes_to_canary(10), goes_to_canary(50));
        let count = |drawn: &[bool]| drawn.iter().filter(|drawn| **drawn).count();
        assert!((100..=300).contains(&count(&tenth)), "{} of 2000 are a tenth", count(&tenth));
        assert!((850..=1150).contains(&count(&half)), "{} of 2000 are the half", count(&half));
        assert!(tenth.iter().zip(&half).all(|(tenth, half)| !tenth || *half));
    }

    #[test]
    fn pods_of_the_other_revision_take_a_session_that_those_it_is_drawn_for_cannot() {
        let session = SessionKey::generate().expect("random");
        for (weight, revisions) in [(0, ["a", "a", "b", "b"]), (100, ["b", "b", "a", "a"])] {
            let route = route(weight);
            let takers: Vec<_> = route.takers(&session).into_iter().map(|pod| &*pod.revision).collect();
            assert_eq!(takers, revisions, "{weight} %");
        }
    }
}
