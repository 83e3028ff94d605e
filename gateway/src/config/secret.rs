//! The gateway's own Secret: read and watched by name, with the verbs `get` and `watch` and no `list`.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::{Api, WatchEvent, WatchParams};
use tokio::sync::watch;

/// `data` of the Secret; `None` until it was read once.
pub(crate) type Data = Option<BTreeMap<String, ByteString>>;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Keeps `data` what the Secret `name` holds. An API server that does not answer changes nothing; a Secret that is
/// gone holds nothing.
pub(crate) async fn follow(api: Api<Secret>, name: String, data: watch::Sender<Data>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match follow_once(&api, &name, &data).await {
            Ok(()) => pause = FIRST_PAUSE,
            Err(error) => {
                tracing::warn!(%error, secret = name, "the gateway's Secret cannot be watched");
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Reads the Secret, then follows it for as long as the watch lasts.
async fn follow_once(api: &Api<Secret>, name: &str, data: &watch::Sender<Data>) -> Result<(), kube::Error> {
    let secret = api.get_opt(name).await?;
    let version = secret.as_ref().and_then(|secret| secret.metadata.resource_version.clone());
    data.send_replace(Some(secret.and_then(|secret| secret.data).unwrap_or_default()));
    let by_name = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut events = pin!(api.watch(&by_name, version.as_deref().unwrap_or("0")).await?);
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::Added(secret) | WatchEvent::Modified(secret) => {
                data.send_replace(Some(secret.data.unwrap_or_default()));
            }
            WatchEvent::Deleted(_) => {
                data.send_replace(Some(BTreeMap::new()));
            }
            WatchEvent::Bookmark(_) => {}
            // Too old, usually: it is read again.
            WatchEvent::Error(_) => return Ok(()),
        }
    }
    Ok(())
}
