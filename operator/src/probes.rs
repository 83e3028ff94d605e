//! What the probes of servers find, as it changes: the leader holds a stream to the bridge of every pod that may serve.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use futures::future;
use portolan_mcp::{
    mac::{KEY_LEN, MacKey},
    wire::{self, ProbeStatus},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    bridge_client::Address,
    lines::{LinesClient, LinesError},
    metrics::Metrics,
    requeue::{Key, Requeue},
};

/// Longest line: a verdict without the tools' definitions.
const MAX_LINE: usize = 1024 * 1024;
/// First and longest delay between two connections.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// How long what a bridge said is believed while its stream is down, and how long one is tried that says nothing.
const GRACE: Duration = Duration::from_secs(15);
/// How long a bridge has for its first word.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// Streams to bridges.
pub struct Probes {
    streams: Streams,
    held: Mutex<HashMap<Key, HashMap<String, Held>>>,
}

/// What every stream needs.
#[derive(Clone)]
struct Streams {
    client: LinesClient,
    servers: Requeue,
    metrics: Metrics,
}

/// A stream to the bridge of one pod.
struct Held {
    ip: IpAddr,
    key: [u8; KEY_LEN],
    heard: watch::Receiver<Heard>,
    task: AbortOnDropHandle<()>,
}

/// What a bridge said.
#[derive(Clone, Debug, Default)]
enum Heard {
    /// It was not asked yet.
    #[default]
    NotYet,
    /// It is not reached.
    Nothing,
    /// Its last word.
    Verdict(Box<ProbeStatus>),
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error(transparent)]
    Lines(#[from] LinesError),
    #[error("a line is no verdict: {0}")]
    NotAVerdict(#[from] serde_json::Error),
}

impl Probes {
    /// No streams yet; a server is woken through `servers` when the verdict on one of its pods changes.
    #[must_use]
    pub fn new(servers: Requeue, metrics: Metrics) -> Self {
        let streams = Streams { client: LinesClient::new(MAX_LINE), servers, metrics };
        Self { streams, held: Mutex::default() }
    }

    /// Holds streams to these pods of a server and to no other of it, and returns the last verdict on each that is known, by
    /// uid of the pod. A bridge that was not asked before has a moment to answer.
    pub async fn of(&self, server: &Key, pods: &[Address], key: [u8; KEY_LEN]) -> BTreeMap<String, ProbeStatus> {
        let heard = self.hold(server, pods, key);
        let verdicts = heard.into_iter().map(|(uid, mut heard)| async move {
            let said = timeout(FIRST_WORD, heard.wait_for(|heard| !matches!(heard, Heard::NotYet))).await;
            match &*said.ok()?.ok()? {
                Heard::Verdict(verdict) => Some((uid, ProbeStatus::clone(verdict))),
                Heard::NotYet | Heard::Nothing => None,
            }
        });
        future::join_all(verdicts).await.into_iter().flatten().collect()
    }

    /// Forgets streams that ended: those of pods that are gone.
    pub fn sweep(&self) {
        self.lock().retain(|_, held| {
            held.retain(|_, held| !held.task.is_finished());
            !held.is_empty()
        });
    }

    fn hold(&self, server: &Key, pods: &[Address], key: [u8; KEY_LEN]) -> Vec<(String, watch::Receiver<Heard>)> {
        let mut all = self.lock();
        if pods.is_empty() {
            all.remove(server);
            return Vec::new();
        }
        let held = all.entry(server.clone()).or_default();
        let is_wanted = |uid: &str, ip: IpAddr| pods.iter().any(|pod| pod.uid == uid && pod.ip == ip);
        held.retain(|uid, held| is_wanted(uid, held.ip) && held.key == key && !held.task.is_finished());
        let stream = |pod: &Address| {
            let (said, heard) = watch::channel(Heard::NotYet);
            let stream = Stream { streams: self.streams.clone(), server: server.clone(), pod: pod.clone(), key, said };
            Held { ip: pod.ip, key, heard, task: AbortOnDropHandle::new(tokio::spawn(stream.run())) }
        };
        let heard = |pod: &Address| {
            let held = held.entry(pod.uid.clone()).or_insert_with(|| stream(pod));
            (pod.uid.clone(), held.heard.clone())
        };
        pods.iter().map(heard).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, HashMap<String, Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream to one bridge.
struct Stream {
    streams: Streams,
    server: Key,
    pod: Address,
    key: [u8; KEY_LEN],
    said: watch::Sender<Heard>,
}

impl Stream {
    /// Reads until the bridge has said nothing for [`GRACE`]. A pod that is there then is asked anew by the next reconcile.
    async fn run(self) {
        let Some(key) = MacKey::new(&self.key) else { return };
        let (mut delay, mut heard, mut last) = (BACKOFF.0, Instant::now(), BytesMut::new());
        while heard.elapsed() < GRACE {
            let before = heard;
            let error = match self.read(&key, &mut heard, &mut last).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            tracing::debug!(server = ?self.server, pod = self.pod.uid, %error, "the stream of a bridge ended");
            if matches!(error, ProbeError::Lines(LinesError::TooLong(_))) {
                self.streams.metrics.refused("probe_line");
            }
            self.said.send_if_modified(|said| {
                let is_first = matches!(said, Heard::NotYet);
                if is_first {
                    *said = Heard::Nothing;
                }
                is_first
            });
            delay = if heard > before { BACKOFF.0 } else { (delay * 2).min(BACKOFF.1) };
            sleep(delay).await;
        }
        self.said.send_replace(Heard::Nothing);
        self.wake();
    }

    async fn read(
        &self,
        key: &MacKey,
        heard: &mut Instant,
        last: &mut BytesMut,
    ) -> Result<std::convert::Infallible, ProbeError> {
        let address = SocketAddr::from((self.pod.ip, wire::ADMIN_PORT));
        let mut lines = self.streams.client.open(address, wire::PROBE, &self.pod.uid, key).await?;
        loop {
            let line = lines.next().await?;
            *heard = Instant::now();
            // A connection that was made anew begins with what is known.
            if line.is_empty() || line == *last {
                continue;
            }
            self.said.send_replace(Heard::Verdict(serde_json::from_slice(&line)?));
            *last = line;
            self.wake();
        }
    }

    fn wake(&self) {
        let (namespace, name) = &self.server;
        self.streams.servers.wake(namespace, name);
    }
}

#[cfg(test)]
mod tests;
