//! Sessions as clients name them: a sealed token says which pod holds a session, so that any replica can find it.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use portolan_crds::server::SessionType;
use portolan_mcp::{
    failure::{Failure, Kind},
    token::{self, Binding, Claims, SessionKey, TokenError},
};
use portolan_policy::identity::Principal;
use portolan_snapshot::{
    Route,
    snapshot::{Holder, Pod, Snapshot},
};
use ring::rand::{SecureRandom, SystemRandom};

use crate::metrics::Metrics;
use crate::state::{Entry, unix_time};

/// How long a token is good for. What ends an idle session is the bridge.
pub(crate) const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// When a caller may come back while no pod is ready.
const COME_BACK: Duration = Duration::from_secs(2);

/// An open session: its name at the bridge, and the pod to ask.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) key: SessionKey,
    pub(crate) pod: &'a Pod,
}

/// Finds the session that a request names.
pub(crate) fn find<'a>(
    headers: &HeaderMap,
    snapshot: &Snapshot,
    entry: &'a Entry,
    principal: &Principal,
    metrics: &Metrics,
) -> Result<Session<'a>, Failure> {
    let token = self::token(headers)?;
    let binding = Binding { principal, route: entry.route.name.as_str() };
    let now = unix_time().as_secs();
    let opened = snapshot.keyring.open(token, binding, now);
    let claims = opened.map_err(|error| refused(error, metrics))?;
    let pod = holder(entry, &claims, now).inspect_err(|failure| {
        metrics.sessions_refused.with_label_values(&[failure.kind.as_str()]).inc();
    })?;
    Ok(Session { key: claims.session, pod })
}

/// Whether the request names a session that is at a pod of its own, or was.
pub(crate) fn is_at_a_pod(headers: &HeaderMap, snapshot: &Snapshot, entry: &Entry, principal: &Principal) -> bool {
    let binding = Binding { principal, route: entry.route.name.as_str() };
    let opened = |token: &str| snapshot.keyring.open(token, binding, unix_time().as_secs());
    token(headers).is_ok_and(|token| opened(token).is_ok_and(|claims| claims.pod.is_some()))
}

/// The session id that a request names.
pub(crate) fn token(headers: &HeaderMap) -> Result<&str, Failure> {
    let mut values = headers.get_all(token::HEADER).iter();
    let value = values.next().ok_or_else(|| missing("open a session with initialize and send its Mcp-Session-Id"))?;
    if values.next().is_some() {
        return Err(missing("send one Mcp-Session-Id"));
    }
    Ok(value.to_str().unwrap_or_default())
}

/// A session id that does not open: counted by its reason, of which the client learns nothing.
pub(crate) fn refused(error: TokenError, metrics: &Metrics) -> Failure {
    metrics.sessions_refused.with_label_values(&[reason(error)]).inc();
    unknown()
}

/// The pod to ask for a session.
fn holder<'a>(entry: &'a Entry, claims: &Claims, now: u64) -> Result<&'a Pod, Failure> {
    let route = &entry.route;
    match route.holder(claims, now) {
        Holder::Pod(pod) => Ok(pod),
        Holder::Any => {
            let own: Vec<&Pod> = route.pods_of(Some(&claims.revision)).filter(|pod| pod.ready).collect();
            let pods = if own.is_empty() { candidates(entry)? } else { ranked(entry.in_rotation(own), entry)? };
            pods.first().copied().ok_or_else(|| not_ready(route))
        }
        Holder::Silent => {
            let message = "the pod that holds this session does not answer at the moment; try again";
            Err(Failure::new(Kind::NotReady, message).retry_after(COME_BACK))
        }
        Holder::Unheard => {
            let message = "this gateway has not heard yet of the pod that holds this session; try again";
            Err(Failure::new(Kind::NotReady, message).retry_after(Duration::from_secs(1)))
        }
        Holder::Gone => Err(unknown()),
    }
}

/// Pods for a new session, best first: those of the revision that it is drawn for, then those of another that takes some.
pub(crate) fn candidates(entry: &Entry) -> Result<Vec<&Pod>, Failure> {
    let Some(canary) = &entry.route.canary else { return of_serving(entry) };
    let pods: Vec<&Pod> = entry.route.ready_pods().chain(entry.route.canary_pods()).collect();
    if pods.is_empty() {
        return Err(not_ready(&entry.route));
    }
    let is_canary = |pod: &&Pod| pod.revision == canary.revision;
    let (canaries, serving): (Vec<_>, Vec<_>) = entry.in_rotation(pods).into_iter().partition(is_canary);
    let is_drawn = random(100)? < usize::from(canary.weight);
    let (first, second) = if is_drawn { (canaries, serving) } else { (serving, canaries) };
    Ok([ranked(first, entry)?, ranked(second, entry)?].concat())
}

/// Pods of the revision that serves, best first.
pub(crate) fn of_serving(entry: &Entry) -> Result<Vec<&Pod>, Failure> {
    let pods: Vec<&Pod> = entry.route.ready_pods().collect();
    if pods.is_empty() { Err(not_ready(&entry.route)) } else { ranked(entry.in_rotation(pods), entry) }
}

/// The less busy of two pods that were drawn first, then the others as they were drawn.
fn ranked<'a>(mut pods: Vec<&'a Pod>, entry: &Entry) -> Result<Vec<&'a Pod>, Failure> {
    for position in 0..pods.len() {
        let other = position + random(pods.len() - position)?;
        pods.swap(position, other);
    }
    let drawn = pods.len().min(2);
    pods[..drawn].sort_by_key(|pod| entry.calls(&pod.uid));
    Ok(pods)
}

/// A number below `bound`.
fn random(bound: usize) -> Result<usize, Failure> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| internal(TokenError::NoRandomness))?;
    Ok((u64::from_le_bytes(bytes) % (bound as u64).max(1)) as usize)
}

/// A name for a session that is about to be opened.
pub(crate) fn generate() -> Result<SessionKey, Failure> {
    SessionKey::generate().map_err(internal)
}

/// The header that names a session to its client.
pub(crate) fn seal(
    key: SessionKey,
    pod: &Pod,
    snapshot: &Snapshot,
    route: &Route,
    principal: &Principal,
) -> Result<HeaderValue, Failure> {
    let claims = Claims {
        session: key,
        revision: pod.revision.clone(),
        pod: (route.settings.sessions == SessionType::Stateful).then(|| pod.uid.clone()),
        issued: unix_time().as_secs(),
        expires: (unix_time() + LIFETIME).as_secs(),
    };
    let token = snapshot.keyring.seal(&claims, Binding { principal, route: route.name.as_str() }).map_err(internal)?;
    HeaderValue::try_from(token).map_err(|_| internal(TokenError::Malformed))
}

fn missing(message: &str) -> Failure {
    Failure::new(Kind::MissingSession, message)
}

/// The client is told nothing of why: it opens another session either way.
fn unknown() -> Failure {
    Failure::new(Kind::UnknownSession, "there is no such session; open one with initialize")
}

pub(crate) fn not_ready(route: &Route) -> Failure {
    let message = format!("no pod of {} is ready; try again", route.name);
    Failure::new(Kind::NotReady, message).retry_after(COME_BACK)
}

fn internal(error: TokenError) -> Failure {
    tracing::error!(%error, "a session id could not be made");
    Failure::new(Kind::Internal, "the gateway could not make a session id")
}

fn reason(error: TokenError) -> &'static str {
    match error {
        TokenError::Malformed => "Malformed",
        TokenError::UnknownVersion => "UnknownVersion",
        TokenError::UnknownKey => "UnknownKey",
        TokenError::NotYours => "NotYours",
        TokenError::Expired => "Expired",
        TokenError::NoRandomness | TokenError::BadKey => "Internal",
    }
}
