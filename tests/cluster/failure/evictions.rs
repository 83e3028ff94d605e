//! Pods that are evicted, as happens to every one on a node that is drained.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, EvictParams};
use portolan_tests::changes::{DRAINED, pods_of};
use portolan_tests::cluster::TENANT;
use portolan_tests::pods::{evict, settled};
use portolan_tests::stand::Stand;
use portolan_tests::wait::PATIENCE;

use crate::{amount, on_a_stand, rate, report};

#[tokio::test]
async fn an_eviction_of_a_servers_pod_and_of_a_gateways_pod_fails_no_call_and_loses_no_session() {
    on_a_stand("evicted", 2, async |stand| {
        let load = stand.load(rate()).await;
        only_one_goes_at_a_time(stand).await;
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

/// Evicts both pods of the server as quickly as can be: the second one stays until there is another in place of the first.
async fn only_one_goes_at_a_time(stand: &Stand) {
    let (cluster, selector) = (&stand.cluster, pods_of(&stand.server));
    let [goes, stays] = cluster.pods(TENANT, &selector).await.try_into().expect("two pods");
    evict(cluster, TENANT, &goes.name_any()).await;
    // One that is told to come back would, until it may.
    let mut config = kube::Config::infer().await.expect("KUBECONFIG names a cluster");
    config.default_retry = false;
    let pods = Api::<Pod>::namespaced(kube::Client::try_from(config).expect("a client"), TENANT);
    let refused = pods.evict(&stays.name_any(), &EvictParams::default()).await;
    assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 429), "{refused:?}");
    cluster.gone::<Pod>(TENANT, &goes.name_any(), DRAINED).await;
    let pods = settled(cluster, TENANT, &selector, 2, PATIENCE).await;
    assert!(pods.iter().any(|pod| pod.uid() == stays.uid()), "it was not evicted");
}
