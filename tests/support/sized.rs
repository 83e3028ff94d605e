//! Puppets of which the number of pods is looked at, and sessions at a pod of theirs.

use std::time::Duration;

use portolan_crds::MCPServer;

use crate::cluster::{Cluster, TENANT};
use crate::mcp::Session;
use crate::puppet;
use crate::wait::until;

/// A session with a puppet.
///
/// # Panics
/// It does not open.
pub async fn session(cluster: &Cluster, name: &str) -> Session {
    let token = cluster.token(TENANT, "default").await;
    Session::open(&cluster.gateway_url(TENANT, name).await, Some(&token)).await.expect("a session")
}

/// The pod of a session.
///
/// # Panics
/// It does not answer.
pub async fn pod_of(session: &Session) -> String {
    let host = puppet::eval(session, 1, "require('os').hostname()").await.expect("its pod's name");
    host.as_str().expect("text").to_owned()
}

/// Names of the pods that were not told to end.
///
/// # Panics
/// They cannot be listed.
pub async fn pods(cluster: &Cluster, name: &str) -> Vec<String> {
    let pods = cluster.pods(TENANT, &format!("portolan.dev/server={name}")).await;
    pods.into_iter().filter_map(|pod| pod.metadata.name).collect()
}

/// Waits until there are so many, and all of them answer.
///
/// # Panics
/// It is not so within `limit`.
pub async fn until_pods(cluster: &Cluster, name: &str, count: usize, limit: Duration) {
    until(&format!("{name} has {count} pods"), limit, || async {
        let (pods, server) = (pods(cluster, name).await, cluster.api::<MCPServer>(TENANT).get(name).await);
        let ready = server.ok().and_then(|server| server.status).map_or(0, |status| status.ready_replicas);
        if pods.len() == count && usize::try_from(ready) == Ok(count) { Ok(()) } else { Err(format!("{pods:?}")) }
    })
    .await;
}

/// A session at a pod that is not the first one that there was.
///
/// # Panics
/// None of many is.
pub async fn session_at_another(cluster: &Cluster, name: &str) -> Session {
    let mut pods = cluster.pods(TENANT, &format!("portolan.dev/server={name}")).await;
    pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let first = pods.first().and_then(|pod| pod.metadata.name.clone()).expect("a pod");
    for _ in 0..200 {
        let session = session(cluster, name).await;
        if pod_of(&session).await != first {
            return session;
        }
        session.delete().await.expect("the session ends");
    }
    panic!("none of 200 sessions is at another pod than {first}")
}
