//! Standing streams beside the calls: opened again as often as they end, as a client does that was told to come back.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Response;
use tokio::time::sleep;

use super::call::connected;
use super::{Shared, Who};
use crate::mcp::{self, Session};

/// Longer than any load lasts.
const LASTS: Duration = Duration::from_secs(24 * 3600);
/// From the end of a stream to the next one: a client that is told to come back is told when.
const COME_BACK: Duration = Duration::from_secs(1);

/// The stream of a session of its own.
pub(super) async fn standing(shared: Arc<Shared>, session: Session) {
    again_and_again(&shared, "retry:", || session.listen_for(LASTS)).await;
}

/// A stream of what changes, of a client without a session.
pub(super) async fn alone(shared: Arc<Shared>, caller: Who) {
    let credential = caller.credential.as_deref();
    let open = || mcp::listen_alone(&caller.http, &shared.plan.url, credential, LASTS);
    again_and_again(&shared, r#""resultType":"complete""#, open).await;
}

async fn again_and_again<F>(shared: &Shared, farewell: &str, open: impl Fn() -> F)
where
    F: Future<Output = reqwest::Result<Response>>,
{
    loop {
        let mut unconnected = 0;
        let opened = connected(&mut unconnected, &open).await;
        shared.tally().unconnected += unconnected;
        if let Ok(response) = opened
            && response.status().is_success()
        {
            shared.stream(|streams| {
                streams.opened += 1;
                streams.open += 1;
            });
            let is_told = last_words(response).await.contains(farewell);
            shared.stream(|streams| {
                streams.open -= 1;
                *(if is_told { &mut streams.farewells } else { &mut streams.broken }) += 1;
            });
        }
        sleep(COME_BACK).await;
    }
}

/// Reads a stream until it ends, and returns the last of it; nothing where it broke off.
async fn last_words(mut response: Response) -> String {
    const KEPT: usize = 1024;
    let mut last = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                last.extend_from_slice(&chunk);
                last.drain(..last.len().saturating_sub(KEPT));
            }
            Ok(None) => return String::from_utf8_lossy(&last).into_owned(),
            Err(_) => return String::new(),
        }
    }
}
