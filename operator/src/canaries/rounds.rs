//! The rounds of one pod, one after the other.

use std::{collections::HashMap, sync::Arc, time::Duration};

use portolan_canary::{Checks, Endpoint, Outcome, round};
use portolan_crds::ports;
use portolan_mcp::wire;
use tokio::{sync::watch, time::sleep};

use super::{
    Asker, Target,
    signed::Signed,
    standing::{Standing, Tally},
};
use crate::requeue::Key;

/// First delay after a round in which nothing could be asked.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// Longest time between two rounds of a pod that has not passed yet.
const EAGER: Duration = Duration::from_secs(5);

/// The checks of one pod.
pub(super) struct Rounds {
    pub(super) asker: Asker,
    pub(super) server: Key,
    pub(super) pod: Target,
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
            let pause = self.pause(&tally, delay);
            delay = if tally.is_open() { (delay * 2).min(self.interval) } else { FIRST_DELAY };
            sleep(pause).await;
        }
    }

    fn pause(&self, tally: &Tally, delay: Duration) -> Duration {
        match *self.said.borrow() {
            _ if tally.is_open() => delay.min(self.interval),
            Standing::Unknown(_) => self.interval.min(EAGER),
            Standing::Passed | Standing::Failed(_) => self.interval,
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
        // The semaphore is never closed.
        let Ok(_place) = self.asker.places.acquire().await else { return not_run("the operator ends".into()) };
        let (namespace, name) = &self.server;
        let ways = self.asker.loaded.replicas_with(namespace, name);
        let Some((gateway, replica)) = ways.get(number % ways.len().max(1)) else {
            return not_run("no gateway replica has loaded the server".into());
        };
        let key = match self.asker.keys.of(gateway).await {
            Ok(key) => key,
            Err(error) => return not_run(format!("the key of gateway {gateway} cannot be read: {error}")),
        };
        let path: Arc<str> = format!("{}{namespace}/{name}/{}", wire::CHECKS, self.pod.uid).into();
        let host = if replica.ip.contains(':') { format!("[{}]", replica.ip) } else { replica.ip.clone() };
        let url = format!("http://{host}:{}{path}", ports::GATEWAY_ADMIN);
        let endpoint = Endpoint {
            client: Signed { http: self.asker.http.clone(), key, path },
            url: url.into(),
            token: None,
            headers: HashMap::new(),
            protocol: self.pod.protocol,
            limit: self.limit,
        };
        let outcomes = round(endpoint, &self.checks).await;
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::NotRun(_))) {
            // It may be that the key is another one by now.
            self.asker.keys.forget(gateway);
        }
        outcomes
    }
}
