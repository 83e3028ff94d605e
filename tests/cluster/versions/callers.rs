//! Third-party clients that make one call again and again, each run a process of its own, and how many of them failed.

use std::fmt;

use portolan_tests::thirdparty::{CLIENTS, Call, Client, client};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Clients that call until [`Self::stop`].
pub(crate) struct Callers {
    stop: watch::Sender<bool>,
    clients: JoinSet<Tally>,
}

/// What came of the runs.
#[derive(Default)]
pub(crate) struct Tally {
    runs: Vec<(&'static str, usize)>,
    failed: Vec<String>,
}

impl Callers {
    /// One of each client.
    pub(crate) fn start(url: &str, token: &str, call: &Call) -> Self {
        let stop = watch::Sender::new(false);
        let mut clients = JoinSet::new();
        for by in CLIENTS {
            let (url, token, call, stopped) = (url.to_owned(), token.to_owned(), call.clone(), stop.subscribe());
            clients.spawn(async move {
                let (mut runs, mut failed) = (0, Vec::new());
                while !*stopped.borrow() {
                    runs += 1;
                    failed.extend(run(by, &url, &token, &call).await.err());
                }
                Tally { runs: vec![(by.name, runs)], failed }
            });
        }
        Self { stop, clients }
    }

    /// Waits for the runs that are under way, and counts.
    pub(crate) async fn stop(mut self) -> Tally {
        self.stop.send_replace(true);
        let mut all = Tally::default();
        while let Some(one) = self.clients.join_next().await {
            let one = one.expect("no panic");
            all.runs.extend(one.runs);
            all.failed.extend(one.failed);
        }
        all.runs.sort_unstable();
        all
    }
}

impl Tally {
    /// Every client ran, and got the answer that it asked for each time.
    pub(crate) fn assert_nothing_failed(&self) {
        assert!(self.failed.is_empty(), "{self}\n{}", self.failed.join("\n"));
        // Less than that is no load: nothing would have been seen of a rollout.
        assert!(self.runs.iter().all(|(_, runs)| *runs >= 3), "{self}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: usize = self.runs.iter().map(|(_, runs)| runs).sum();
        let each: Vec<_> = self.runs.iter().map(|(by, runs)| format!("{by} {runs}")).collect();
        write!(to, "{all} client runs ({}), {} failed", each.join(", "), self.failed.len())
    }
}

async fn run(by: Client, url: &str, token: &str, call: &Call) -> Result<(), String> {
    let arguments = Value::from(call.arguments.clone()).to_string();
    let answer = client(by, url, Some(token), &["call", &call.tool, &arguments]).await?;
    let text = answer["text"].as_str().unwrap_or_default();
    let is_known = answer["isError"] == false && text.contains(&call.expect_contains);
    if is_known { Ok(()) } else { Err(format!("{by}: {answer}")) }
}
