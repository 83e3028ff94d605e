//! Pods that are evicted, as happens to every one on a node that is drained.

use crate::{amount, on_a_stand, rate, report};

#[tokio::test]
async fn an_eviction_of_a_servers_pod_and_of_a_gateways_pod_fails_no_call_and_loses_no_session() {
    on_a_stand("evicted", 2, async |stand| {
        let load = stand.load(rate()).await;
        for _ in 0..amount(1, 3) {
            stand.evict_a_server_pod().await;
            stand.evict_a_gateway_pod().await;
        }
        let tally = load.stop().await;
        report("a server's pod and a gateway's pod evicted", &tally);
        tally.assert_nothing_failed();
    })
    .await;
}
