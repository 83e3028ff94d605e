//! What is added to the pods.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::tidy::finally;
use portolan_tests::wait::PATIENCE;
use serde_json::{Value, json};

use crate::{Served, apply_global, delete_global, puppet_with};

#[tokio::test]
async fn users_and_groups_are_those_of_the_process_and_the_volumes() {
    let pod = json!({"runAsUser": 4001, "runAsGroup": 4002, "fsGroup": 4003, "supplementalGroups": [4004, 4005]});
    let container = json!({
        "volumes": [{"name": "data", "emptyDir": {}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    });
    let served = Served::from(&puppet_with("fields-users", &json!({"pod": pod, "container": container}))).await;
    let seen = served
        .eval(
            "fs.writeFileSync('/data/mine', ''); fs.writeFileSync(process.env.HOME + '/kept', 'at home'); \
             ({user: process.getuid(), group: process.getgid(), volume: fs.statSync('/data').gid, \
               groups: process.getgroups().sort(), file: fs.statSync('/data/mine').uid, \
               home: fs.readFileSync(process.env.HOME + '/kept', 'utf8')})",
        )
        .await;
    let groups = [4002, 4003, 4004, 4005];
    assert_eq!(
        seen,
        json!({"user": 4001, "group": 4002, "volume": 4003, "groups": groups, "file": 4001, "home": "at home"}),
        "and HOME is that user's to write"
    );
    served.gone().await;
}

#[tokio::test]
async fn labels_and_annotations_are_the_pods_and_select_them() {
    let pod = json!({"labels": {"team": "fields"}, "annotations": {"example.com/note": "seen"}});
    let served = Served::from(&puppet_with("fields-labels", &json!({"pod": pod}))).await;
    let found = served.cluster.pods(TENANT, "team=fields").await;
    let [pod] = found.as_slice() else { panic!("the label selects the pod: {found:?}") };
    assert_eq!(pod.labels().get("portolan.dev/server").map(String::as_str), Some("fields-labels"));
    assert_eq!(pod.annotations().get("example.com/note").map(String::as_str), Some("seen"));
    served.gone().await;
}

#[tokio::test]
async fn a_pod_waits_for_a_node_that_has_the_labels_of_its_node_selector() {
    let cluster = Cluster::connect().await;
    let name = "fields-selector";
    let manifest = puppet_with(name, &json!({"pod": {"nodeSelector": {"fields.test/disk": "fast"}}}));
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let workers = ListParams::default().labels("!fields.test/fake");
    let node = nodes.list(&workers).await.expect("listed").items.remove(0).name_any();
    let label = async |value: Value| {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"fields.test/disk": value}}}));
        nodes.patch(&node, &PatchParams::default(), &patch).await.expect("labelled");
    };
    finally(
        async {
            cluster.apply::<MCPServer>(&manifest).await.expect("accepted");
            cluster.condition(TENANT, name, "Ready", "False", "PodNotScheduled", PATIENCE).await;
            label("fast".into()).await;
            cluster.ready(TENANT, name).await;
        },
        async {
            label(Value::Null).await;
            cluster.delete::<MCPServer>(TENANT, name).await;
        },
    )
    .await;
}

#[tokio::test]
async fn priority_and_runtime_classes_are_those_that_the_pod_runs_with() {
    let cluster = Cluster::connect().await;
    let name = "fields-classes";
    let priority = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 4711});
    apply_global::<PriorityClass>(&cluster, &priority).await;
    let runtime = |handler: &str, name: &str| {
        json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name},
            "handler": handler, "overhead": {"podFixed": {"memory": "3Mi"}}})
    };
    apply_global::<RuntimeClass>(&cluster, &runtime("runc", name)).await;
    let classes = json!({"pod": {"priorityClassName": name, "runtimeClassName": name}});
    let served = Served::from(&puppet_with(name, &classes)).await;
    let spec = serde_json::to_value(served.pod().await.spec).expect("JSON");
    assert_eq!(spec["priority"], 4711, "admission looked the class up");
    assert_eq!(spec["overhead"]["memory"], "3Mi", "admission looked the class up");
    served.gone().await;
    delete_global::<PriorityClass>(&cluster, name).await;
    delete_global::<RuntimeClass>(&cluster, name).await;
}
