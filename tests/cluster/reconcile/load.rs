//! Calls that go on while something else happens, and what they are answered.

use std::collections::BTreeMap;

use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::mcp::Session;
use portolan_tests::puppet;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Clients that call at once.
const CLIENTS: usize = 8;
/// What each call evaluates: which version it is, or an error.
const CODE: &str = "if (process.env.BAD) throw new Error('bad'); \
                    new Promise(done => setTimeout(() => done(process.env.VERSION), +process.env.SLOW || 0))";

/// Calls, each in a session of its own, until [`Self::stop`].
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    clients: JoinSet<BTreeMap<String, usize>>,
}

impl Load {
    pub(crate) async fn start(cluster: &Cluster, name: &str) -> Self {
        let (url, token) = (cluster.gateway_url(TENANT, name).await, cluster.token(TENANT, "default").await);
        let stop = watch::Sender::new(false);
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (url, token, stopped) = (url.clone(), token.clone(), stop.subscribe());
            clients.spawn(async move {
                let mut answers = BTreeMap::new();
                while !*stopped.borrow() {
                    *answers.entry(call(&url, &token).await).or_default() += 1;
                }
                answers
            });
        }
        Self { stop, clients }
    }

    /// How often each answer came; what is no answer of the server's is told as it is.
    pub(crate) async fn stop(mut self) -> BTreeMap<String, usize> {
        self.stop.send_replace(true);
        let mut answers = BTreeMap::new();
        while let Some(client) = self.clients.join_next().await {
            for (answer, count) in client.expect("no panic") {
                *answers.entry(answer).or_default() += count;
            }
        }
        answers
    }
}

pub(crate) async fn call(url: &str, token: &str) -> String {
    let answer = async {
        let session = Session::open(url, Some(token)).await?;
        let answer = puppet::eval(&session, 1, CODE).await;
        session.delete().await?;
        answer
    };
    match answer.await {
        Ok(answer) => answer.as_str().expect("text").to_owned(),
        Err(error) if error.contains("Error: bad") => "bad".to_owned(),
        Err(error) => error,
    }
}
