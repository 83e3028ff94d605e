//! From the release before to this one and back, whole and part by part, under calls in both eras. `make test-upgrade` builds that
//! release and runs this, on a cluster where nobody else has servers: it begins with none of Portolan.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

mod elsewhere;
mod fleet;
mod newer;
mod parts;
mod stored;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ListParams};
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, PLATFORM};
use portolan_tests::helm::{self, Version};
use portolan_tests::tidy::finally;
use portolan_tests::wait::PATIENCE;

use fleet::Fleet;
use parts::Parts;

/// Gateways that either release is to have: its own, and the one under load.
const GATEWAYS: &str = "gateway.names={default,failure}";

#[tokio::test]
async fn a_release_and_the_one_before_it_follow_each_other_whole_and_in_parts_and_no_call_fails() {
    let (before, this) = (Version::before(), Version::of_this_tree());
    assert_ne!(before.tag, this.tag, "they are two releases");
    let cluster = Cluster::connect().await;
    let servers = Api::<MCPServer>::all(cluster.client.clone()).list_metadata(&ListParams::default()).await;
    assert!(servers.expect("listed").items.is_empty(), "nobody has servers here: all of them would go");
    println!("{} is the release before, {} this one", before.tag, this.tag);
    helm::uninstall().await;
    cluster.gone::<Deployment>(PLATFORM, "portolan-gateway-default", PATIENCE).await;
    let as_it_was = async {
        Fleet::close(&cluster).await;
        // What was changed by hand on the way is helm's again.
        this.install(&["--force-conflicts"]).await;
        parts::hand_back(&cluster).await;
    };
    let body = async {
        before.install(&["--set", GATEWAYS]).await;
        follow_each_other(&cluster, &before, &this).await;
    };
    finally(body, as_it_was).await;
}

async fn follow_each_other(cluster: &Cluster, before: &Version, this: &Version) {
    let fleet = Fleet::open(cluster).await;
    let stored = stored::specs(cluster).await;
    fleet.settles("the release before", &Parts::of(before)).await;

    this.install(&["--set", GATEWAYS]).await;
    fleet.settles("this release", &Parts::of(this)).await;
    stored::assert_kept(&stored, &stored::specs(cluster).await);
    newer::apply(cluster).await;
    let newest = stored::specs(cluster).await;

    before.install(&["--set", GATEWAYS]).await;
    fleet.settles("the release before again", &Parts::of(before)).await;
    let pruned = stored::specs(cluster).await;
    stored::assert_kept(&stored, &pruned);
    stored::assert_kept(&pruned, &newest);

    parts::patch_others(cluster, &this.tag).await;
    let parts = Parts { operator: before, others: this };
    fleet.settles("the operator of the release before, gateways and bridges of this one", &parts).await;

    this.install_images_of(before, &["--set", GATEWAYS, "--force-conflicts"]).await;
    parts::patch_operator(cluster, &this.tag).await;
    let parts = Parts { operator: this, others: before };
    fleet.settles("the operator of this release, gateways and bridges of the one before", &parts).await;

    this.install(&["--set", GATEWAYS, "--force-conflicts"]).await;
    fleet.settles("this release again", &Parts::of(this)).await;
    stored::assert_kept(&stored, &stored::specs(cluster).await);
    newer::are_ready(cluster).await;
    fleet.stop().await;
}
