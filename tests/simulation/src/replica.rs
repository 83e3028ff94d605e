//! A gateway replica: it knows what it was told last, and nothing of the sessions that it opened.

use std::{net::IpAddr, sync::Arc};

use fastrand::Rng;
use portolan_mcp::{
    envelope::Message,
    mac,
    modern::{Head, headers_of},
    parked::{Opened, ParkingKey},
    token::{Binding, Claims, ManyClaims, SessionKey},
    wire::DATA_PATH,
};
use portolan_snapshot::{
    Route, Snapshot,
    snapshot::{Holder, Pod},
};

use crate::{
    cluster::{Cluster, NAMESPACE, SERVERS},
    network::{Ask, Stage},
    parts::Parts,
    wire,
};

/// The time of MACs: clocks agree.
pub(crate) const NOW_MILLIS: u64 = 1_000_000;
/// How long a token is good for.
const LIFETIME: u64 = 100_000;
/// How many seconds a watch is late at most.
const MAX_LAG: u64 = 5;

/// One replica.
#[derive(Debug)]
pub(crate) struct Replica {
    snapshot: Arc<Snapshot>,
    /// What it knows of sessions with all servers.
    pub(crate) parts: Parts,
    learnt: u64,
}

/// What a replica does with a request.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Sends it on; `name` is what the client is to call the session, if it opens.
    Forward { stage: Stage, name: Option<String> },
    /// Says no.
    Refuse(u16),
    /// Says that a half-done call is over: it does not know its pod.
    Stale(Box<str>),
}

impl Replica {
    pub(crate) fn new(cluster: &Cluster, now: u64) -> Self {
        Self { snapshot: cluster.fresh(), parts: Parts::default(), learnt: now }
    }

    /// The watches have caught up.
    pub(crate) fn learn(&mut self, cluster: &mut Cluster, now: u64) {
        self.snapshot = cluster.followed();
        self.learnt = now;
    }

    /// Whether the watches are late at `now`.
    pub(crate) fn is_behind(&self, now: u64) -> bool {
        now > self.learnt + MAX_LAG
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// A name for a session with all servers, which are told of the client what `initialize` says.
    pub(crate) fn introduce(&self, client: usize, initialize: &[u8], now: u64, rng: &mut Rng) -> String {
        let claims = ManyClaims {
            // The order of pods follows from the name, which has to be the same in every run of a seed.
            session: SessionKey::of_everyone().derived(&rng.u128(..).to_le_bytes()),
            client: wire::read(initialize).body.to_string().into(),
            expires: now + LIFETIME,
        };
        self.snapshot.keyring.seal(&claims, with_all(&principal(client))).expect("randomness")
    }

    /// The session with all servers of that name, if it is `client`'s.
    pub(crate) fn opened(&self, client: usize, token: &str, now: u64) -> Option<ManyClaims> {
        self.snapshot.keyring.open_as(token, with_all(&principal(client)), now).ok()
    }

    pub(crate) fn decide(&self, client: usize, server: usize, ask: Ask, now: u64, rng: &mut Rng) -> Decision {
        let name = format!("{NAMESPACE}/{}", SERVERS[server]);
        let Some(route) = self.snapshot.routes.get(name.as_str()) else { return Decision::Refuse(404) };
        let principal = principal(client);
        let binding = Binding { principal: &principal, route: route.name.as_str() };
        if let Ask::Alone(body) = &ask {
            let body = body.clone();
            return Self::alone(route, binding, &body, ask, rng);
        }
        let (Ask::Post { token, .. } | Ask::Open { token, .. } | Ask::Delete { token }) = &ask else {
            return self.open(route, binding, ask, now, rng);
        };
        let Ok(claims) = self.snapshot.keyring.open(token, binding, now) else { return Decision::Refuse(404) };
        match route.holder(&claims, now) {
            Holder::Pod(pod) => Decision::Forward { stage: to(route, pod, claims.session, ask), name: None },
            Holder::Silent | Holder::Unheard => Decision::Refuse(503),
            Holder::Gone | Holder::Any => Decision::Refuse(404),
        }
    }

    /// A request that stands alone goes where a half-done call waits, else to any pod.
    fn alone(route: &Route, binding: Binding<'_>, body: &[u8], ask: Ask, rng: &mut Rng) -> Decision {
        let message = Message::parse(body).expect("clients write JSON-RPC");
        let head = Head::of(&message).expect("clients post requests");
        head.check(&headers_of(&head, None, None)).expect("a head says what its body says");
        let caller = SessionKey::of_caller(binding);
        let key = ParkingKey::of(&route.settings.mac).expect("a key");
        match head.request_state.as_deref().map(|state| key.open(state, &caller)) {
            Some(Opened::Ours(parked)) => match route.pods.get(&parked.pod).filter(|pod| pod.serving) {
                Some(pod) => Decision::Forward { stage: to(route, pod, caller, ask), name: None },
                None => Decision::Stale(parked.pod),
            },
            Some(Opened::Refused) => Decision::Refuse(400),
            Some(Opened::Foreign) | None => match choose(route, rng) {
                Some(pod) => Decision::Forward { stage: to(route, pod, caller, ask), name: None },
                None => Decision::Refuse(503),
            },
        }
    }

    fn open(&self, route: &Route, binding: Binding<'_>, ask: Ask, now: u64, rng: &mut Rng) -> Decision {
        let Some(pod) = choose(route, rng) else { return Decision::Refuse(503) };
        let session = SessionKey::generate().expect("randomness");
        let claims = Claims {
            session: session.clone(),
            revision: pod.revision.clone(),
            pod: Some(pod.uid.clone()),
            issued: now,
            expires: now + LIFETIME,
        };
        let name = self.snapshot.keyring.seal(&claims, binding).expect("randomness");
        Decision::Forward { stage: to(route, pod, session, ask), name: Some(name) }
    }
}

/// A pod that takes new sessions.
fn choose<'a>(route: &'a Route, rng: &mut Rng) -> Option<&'a Pod> {
    let mut pods: Vec<&Pod> = route.ready_pods().collect();
    pods.sort_by(|one, other| one.uid.cmp(&other.uid));
    rng.choice(pods)
}

fn principal(client: usize) -> [u8; 32] {
    [u8::try_from(client).expect("few clients"); 32]
}

/// What names of sessions with all servers are bound to.
fn with_all(principal: &[u8; 32]) -> Binding<'_> {
    Binding { principal, route: "*" }
}

pub(crate) fn to(route: &Route, pod: &Pod, session: SessionKey, ask: Ask) -> Stage {
    let IpAddr::V4(address) = pod.address.ip() else { panic!("the run has IPv4 addresses only") };
    let subject = subject(&ask, &session, &pod.uid);
    let mac = route.settings.mac.sign(subject, NOW_MILLIS);
    Stage::ToPod { address: usize::from(address.octets()[3]), pod: pod.uid.clone(), session, part: None, mac, ask }
}

/// What the MAC of a request speaks for.
pub(crate) fn subject<'a>(ask: &Ask, session: &'a SessionKey, pod: &'a str) -> mac::Subject<'a> {
    let method = match ask {
        Ask::Initialize { .. } | Ask::Post { .. } | Ask::Alone(_) => "POST",
        Ask::Open { .. } => "GET",
        Ask::Delete { .. } => "DELETE",
    };
    mac::Subject { method, path: DATA_PATH, session: session.as_str(), pod }
}
