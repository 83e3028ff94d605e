//! Images that are not there any more when they are asked for again.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use portolan_tests::cluster::{Cluster, TENANT, portolan};
use portolan_tests::demo;
use portolan_tests::images::Image;
use portolan_tests::mcp::Session;
use portolan_tests::tidy::{deleting, finally};
use portolan_tests::wait::{PATIENCE, until};
use serde_json::json;

#[tokio::test]
async fn an_undo_to_a_revision_whose_image_is_gone_is_told_and_the_one_that_serves_serves_on() {
    let cluster = Cluster::connect().await;
    let name = "undone";
    let image = Image::of_demo("undone");
    let body = async {
        image.load().await;
        let mut manifest = image.manifest(TENANT, name);
        manifest["spec"]["rollout"] = json!({"drainTimeout": "0s"});
        let first = cluster.serve(&manifest).await;
        manifest["spec"]["container"]["image"] = demo::stdio(TENANT, name)["spec"]["container"]["image"].clone();
        let second = cluster.serve(&manifest).await;
        let pods = cluster.api::<Pod>(TENANT);
        until("no pod runs the image", PATIENCE, || async {
            let its = ListParams::default().labels(&format!("portolan.dev/revision={first}"));
            let left = pods.list(&its).await.map_err(|error| error.to_string())?.items.len();
            if left == 0 { Ok(()) } else { Err(format!("{left} pods")) }
        })
        .await;
        image.remove().await;

        portolan(&["rollout", "undo", name, "-n", TENANT]).await;
        let told = cluster.condition(TENANT, name, "Ready", "False", "ImagePullFailed", PATIENCE).await;
        for part in [&image.name, &first, &second] {
            assert!(told.message.contains(part), "{part} is named: {}", told.message);
        }
        cluster.condition(TENANT, name, "Available", "True", "", PATIENCE).await;
        assert_eq!(cluster.serving_revision(TENANT, name).await, second);
        let url = cluster.gateway_url(TENANT, name).await;
        let session = Session::open(&url, Some(&cluster.token(TENANT, "default").await)).await.expect("a session");
        let reply = session.call(1, "echo", json!({"message": "ahoy"})).await.expect("answers");
        assert_eq!(reply.answer()["result"]["content"][0]["text"], "Echo: ahoy");

        // What it was before that: an edit like any other.
        cluster.patch_spec(TENANT, name, &json!({"container": manifest["spec"]["container"]})).await;
        cluster.ready(TENANT, name).await;
        assert_eq!(cluster.serving_revision(TENANT, name).await, second);
    };
    // The image goes after the pods that run it.
    finally(deleting(&cluster, &[name], body), image.remove()).await;
}
