//! One turn of one way: so many calls by so many clients, each as soon as its last one was answered.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::future::try_join_all;

use crate::mcp::Session;

/// Length of the text that is said back.
const TEXT: usize = 64;
/// Calls before those that count, all clients together: a connection may have been closed since the last turn.
const UNCOUNTED: usize = 64;
/// Longest turn; what is done by then counts.
const LIMIT: Duration = Duration::from_secs(20);

/// What a turn took.
pub(crate) struct Visit {
    /// Of each call.
    pub(crate) latencies: Vec<Duration>,
    took: Duration,
}

impl Visit {
    /// Calls per second.
    pub(crate) fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let calls = self.latencies.len() as f64;
        calls / self.took.as_secs_f64()
    }
}

/// Makes the calls; any that fails ends the turn, for a share of failures has no rate.
pub(crate) async fn visit(sessions: &mut [Session], calls: u64) -> anyhow::Result<Visit> {
    let each = UNCOUNTED.div_ceil(sessions.len());
    try_join_all(sessions.iter_mut().enumerate().map(|(client, session)| async move {
        for number in 0..each {
            session.echo(&text(client, number)).await?;
        }
        anyhow::Ok(())
    }))
    .await?;
    let left = Cell::new(calls);
    let began = Instant::now();
    let workers = sessions.iter_mut().enumerate().map(|(client, session)| work(client, session, &left, began + LIMIT));
    let latencies: Vec<Duration> = try_join_all(workers).await?.into_iter().flatten().collect();
    let took = began.elapsed();
    ensure!(!latencies.is_empty(), "no call was made within {LIMIT:?}");
    Ok(Visit { latencies, took })
}

async fn work(client: usize, session: &mut Session, left: &Cell<u64>, end: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    while left.get() > 0 && Instant::now() < end {
        left.set(left.get() - 1);
        let text = text(client, latencies.len());
        let began = Instant::now();
        session.echo(&text).await?;
        latencies.push(began.elapsed());
    }
    Ok(latencies)
}

/// A text that no other call of the turn sends, so that no answer is mistaken for another's.
fn text(client: usize, number: usize) -> String {
    format!("{:.<TEXT$}", format!("{client}-{number}-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_differ_and_are_equally_long() {
        assert_eq!(text(3, 1200).len(), TEXT);
        assert_ne!(text(3, 1), text(31, 1));
    }
}
