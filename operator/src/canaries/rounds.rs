//! The rounds of one pod, one after the other.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use portolan_canary::{Checks, Endpoint, Outcome, Protocol, round};
use portolan_crds::ports;
use portolan_mcp::wire;
use tokio::{sync::watch, time::sleep};

use super::{
    Asker,
    signed::Signed,
    standing::{Standing, Tally},
};
use crate::requeue::Key;

/// First delay after a round in which nothing could be asked.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// Longest time between two rounds of a pod whose revision does not serve yet, and after one in which nothing could be asked.
const EAGER: Duration = Duration::from_secs(5);

/// The checks of one pod.
pub(super) struct Rounds {
    pub(super) asker: Asker,
    pub(super) server: Key,
    /// UID of the pod.
    pub(super) pod: String,
    pub(super) protocol: Protocol,
    /// Whether its revision has served.
    pub(super) serves: Arc<AtomicBool>,
    pub(super) checks: Arc<Checks>,
    pub(super) interval: Duration,
    pub(super) threshold: u32,
    pub(super) limit: Duration,
    pub(super) said: watch::Sender<Standing>,
}

impl Rounds {
    /// Asks until aborted.
    pub(super) async fn run(self) {
        let mut tally = Tally::new(&self.checks, self.threshold);
        let mut delay = FIRST_DELAY;
        for number in 0.. {
            let outcomes = self.round(number).await;
            for outcome in &outcomes {
                self.asker.metrics.canary(outcome);
            }
            tally.take(outcomes);
            self.tell(tally.standing());
            let eager = self.interval.min(EAGER);
            let pause = if tally.is_open() {
                delay.min(eager)
            } else if self.serves.load(Ordering::Relaxed) {
                self.interval
            } else {
                eager
            };
            delay = if tally.is_open() { (delay * 2).min(eager) } else { FIRST_DELAY };
            sleep(pause).await;
        }
    }

    fn tell(&self, standing: Standing) {
        let is_news = self.said.send_if_modified(|said| {
            let is_news = *said != standing;
            *said = standing;
            is_news
        });
        if is_news {
            let (namespace, name) = &self.server;
            self.asker.servers.wake(namespace, name);
        }
    }

    /// One round, through one replica of a gateway that serves the server; another each time.
    async fn round(&self, number: usize) -> Vec<Outcome> {
        let not_run = |why: String| vec![Outcome::NotRun(why); self.checks.checks.len()];
        let (namespace, name) = &self.server;
        let of_namespace = self.asker.of_namespace(namespace);
        // Neither semaphore is ever closed.
        let (Ok(_place), Ok(_one_of_all)) = (of_namespace.acquire().await, self.asker.places.acquire().await) else {
            return not_run("the operator ends".into());
        };
        let ways = self.asker.loaded.replicas_with(namespace, name);
        let Some((gateway, replica)) = ways.get(number % ways.len().max(1)) else {
            return not_run("no gateway replica has loaded the server".into());
        };
        let key = match self.asker.keys.of(gateway).await {
            Ok(key) => key,
            Err(error) => return not_run(format!("the key of gateway {gateway} cannot be read: {error}")),
        };
        let Ok(ip) = replica.ip.parse::<IpAddr>() else {
            return not_run(format!("{:?} of replica {} is not an address", replica.ip, replica.name));
        };
        let path: Arc<str> = format!("{}{namespace}/{name}/{}", wire::CHECKS, self.pod).into();
        let url = format!("http://{}{path}", SocketAddr::new(ip, ports::GATEWAY_ADMIN));
        let endpoint = Endpoint {
            client: Signed { http: self.asker.http.clone(), key, path },
            url: url.into(),
            token: None,
            headers: HashMap::new(),
            protocol: self.protocol,
            limit: self.limit,
        };
        round(endpoint, &self.checks).await
    }
}
