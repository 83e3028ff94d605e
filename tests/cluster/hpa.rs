//! How many pods a server has, where what they use decides.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::mcp::Session;
use portolan_tests::puppet;
use portolan_tests::sized::{pod_of, pods, session, session_at_another, until_pods};
use portolan_tests::tidy::{deleting, finally};
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Held by whoever needs that someone tells what pods use, or that nobody does.
static METRICS: Mutex<()> = Mutex::const_new(());
/// Pods that are started or ended here wait for an autoscaler that looks every few seconds at figures of the last tens of seconds.
const AUTOSCALER: Duration = Duration::from_secs(240);

/// A puppet that requests some, and of which what it uses decides.
fn scaled(name: &str, autoscaling: &Value) -> Value {
    let mut manifest = puppet::stdio(TENANT, name);
    manifest["spec"]["container"]["resources"] = json!({"requests": {"cpu": "100m", "memory": "64Mi"}});
    manifest["spec"]["autoscaling"] = autoscaling.clone();
    manifest["spec"]["rollout"] = json!({"drainTimeout": "10m"});
    manifest
}

async fn deployment(cluster: &Cluster, revision: &str) -> Deployment {
    cluster.api(TENANT).get(revision).await.expect("the revision has a Deployment")
}

/// How many pods a revision is asked to have.
fn replicas(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref().and_then(|spec| spec.replicas)
}

/// The generation of what its Deployment makes pods by: another with every number of pods that was asked for.
async fn scaled_times(cluster: &Cluster, revision: &str) -> Vec<Option<i64>> {
    let selector = ListParams::default().labels(&format!("portolan.dev/revision={revision}"));
    let found = cluster.api::<ReplicaSet>(TENANT).list(&selector).await.expect("listed").items;
    found.into_iter().map(|found| found.metadata.generation).collect()
}

/// Whether the operator says how many pods there are.
fn is_operators(deployment: &Deployment) -> bool {
    let entries = deployment.metadata.managed_fields.iter().flatten();
    let mut ours = entries.filter(|entry| entry.manager.as_deref() == Some(portolan_crds::OPERATOR_MANAGER));
    ours.any(|entry| entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some()))
}

/// Waits until the operator has looked at the spec as it is and has left it to an autoscaler how many pods there are.
async fn until_left(cluster: &Cluster, revision: &str) -> HorizontalPodAutoscaler {
    until(&format!("{revision} is left to an autoscaler"), PATIENCE, || async {
        let autoscaler = cluster.api::<HorizontalPodAutoscaler>(TENANT).get_opt(revision).await;
        match autoscaler.map_err(|error| error.to_string())? {
            Some(autoscaler) if !is_operators(&deployment(cluster, revision).await) => Ok(autoscaler),
            found => Err(format!("autoscaler: {}", found.is_some())),
        }
    })
    .await
}

/// Has the process of a session use about half a processor until it is told to stop.
async fn burn(session: Session, stop: Arc<AtomicBool>) {
    let half =
        "for (const end = Date.now() + 200; Date.now() < end;); new Promise(done => setTimeout(() => done(1), 200))";
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(puppet::eval(&session, 2, half).await, Ok(json!(1)));
    }
    session.delete().await.expect("the session ends");
}

#[tokio::test]
async fn a_server_that_is_busy_gets_pods_until_it_rests_and_those_without_sessions_go() {
    let (cluster, _metrics) = (Cluster::connect().await, METRICS.lock().await);
    let name = "hpa-busy";
    deleting(&cluster, &[name], busy(&cluster, name)).await;
}

async fn busy(cluster: &Cluster, name: &str) {
    let by_cpu = json!({
        "minReplicas": 1, "maxReplicas": 3, "metrics": [{"type": "CPU", "target": 50}], "scaleDownDelay": "30s",
    });
    let revision = cluster.serve(&scaled(name, &by_cpu)).await;
    let autoscaler = until_left(cluster, &revision).await;
    let metrics = serde_json::to_value(autoscaler.spec.and_then(|spec| spec.metrics)).expect("metrics");
    assert_eq!(metrics[0]["containerResource"]["container"], json!("server"), "{metrics}");
    let (stop, began, mut burning) = (Arc::new(AtomicBool::new(false)), Instant::now(), JoinSet::new());
    burning.spawn(burn(session(cluster, name).await, stop.clone()));
    until_pods(cluster, name, 3, AUTOSCALER).await;
    println!("from 1 to 3 pods that answer {:.0} s after one began to be busy", began.elapsed().as_secs_f64());
    assert_eq!(cluster.serving_revision(TENANT, name).await, revision, "it is no other revision");
    rests_while_others_decide(cluster, name, &revision).await;

    let held = session_at_another(cluster, name).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = burning.join_next().await {
        ended.expect("no call fails");
    }
    let began = Instant::now();
    until_pods(cluster, name, 1, AUTOSCALER).await;
    println!("back to 1 pod {:.0} s after it began to rest", began.elapsed().as_secs_f64());
    assert_eq!(pods(cluster, name).await, [pod_of(&held).await], "the one with a session stays");
    let refused = kubectl(&["scale", "-n", TENANT, "mcps", name, "--replicas", "2"]).await.expect_err("it is refused");
    assert!(refused.contains("autoscaling says how many pods there are"), "{refused}");
}

/// The operator looks at the server and leaves its Deployment as it is.
async fn rests_while_others_decide(cluster: &Cluster, name: &str, revision: &str) {
    let before = deployment(cluster, revision).await;
    cluster.patch_spec(TENANT, name, &json!({"limits": {"maxParallelRequests": 77}})).await;
    cluster.ready(TENANT, name).await;
    let after = deployment(cluster, revision).await;
    assert_eq!((replicas(&before), replicas(&after)), (Some(3), Some(3)));
    assert_eq!(before.metadata.generation, after.metadata.generation);
    assert!(!is_operators(&after), "{:?}", after.metadata.managed_fields);
}

#[tokio::test]
async fn whoever_comes_to_decide_takes_over_the_pods_that_there_are_and_a_rollout_keeps_their_number() {
    let cluster = Cluster::connect().await;
    let name = "hpa-handed-over";
    let last = deleting(&cluster, &[name], handed_over(&cluster, name)).await;
    cluster.gone::<HorizontalPodAutoscaler>(TENANT, &last, PATIENCE).await;
}

/// The revision that serves at the end.
async fn handed_over(cluster: &Cluster, name: &str) -> String {
    let by_cpu = json!({"minReplicas": 3, "maxReplicas": 3, "metrics": [{"type": "CPU", "target": 80}]});
    let revision = cluster.serve(&scaled(name, &by_cpu)).await;
    until_left(cluster, &revision).await;
    until_pods(cluster, name, 3, PATIENCE).await;
    let before = scaled_times(cluster, &revision).await;

    let by_calls = json!({"minReplicas": 1, "maxReplicas": 5, "metrics": [{"type": "InFlight", "target": 100}]});
    cluster.patch_spec(TENANT, name, &json!({"autoscaling": by_calls})).await;
    cluster.gone::<HorizontalPodAutoscaler>(TENANT, &revision, PATIENCE).await;
    let calls = deployment(cluster, &revision).await;
    assert!(is_operators(&calls));

    let by_memory = json!({"minReplicas": 1, "maxReplicas": 4, "metrics": [{"type": "Memory", "target": 500}]});
    cluster.patch_spec(TENANT, name, &json!({"autoscaling": by_memory})).await;
    let autoscaler = until_left(cluster, &revision).await.spec.expect("a spec");
    assert_eq!((autoscaler.min_replicas, autoscaler.max_replicas), (Some(1), 4));
    let memory = deployment(cluster, &revision).await;

    cluster.patch_spec(TENANT, name, &json!({"autoscaling": null, "replicas": 3})).await;
    cluster.gone::<HorizontalPodAutoscaler>(TENANT, &revision, PATIENCE).await;
    let fixed = deployment(cluster, &revision).await;
    assert!(is_operators(&fixed));
    for (who, after) in [("calls", &calls), ("memory", &memory), ("a number", &fixed)] {
        assert_eq!(replicas(after), Some(3), "{who}");
    }
    assert_eq!(scaled_times(cluster, &revision).await, before, "there were three all the time");

    let by_cpu = json!({"minReplicas": 1, "maxReplicas": 3, "metrics": [{"type": "CPU", "target": 80}]});
    cluster.patch_spec(TENANT, name, &json!({"replicas": null, "autoscaling": by_cpu})).await;
    until_left(cluster, &revision).await;
    cluster.patch_spec(TENANT, name, &json!({"pod": {"labels": {"tests/edited": "yes"}}})).await;
    cluster.ready(TENANT, name).await;
    let next = cluster.serving_revision(TENANT, name).await;
    assert_ne!(next, revision);
    until_left(cluster, &next).await;
    assert_eq!(replicas(&deployment(cluster, &next).await), Some(3), "it began with as many");
    cluster.gone::<HorizontalPodAutoscaler>(TENANT, &revision, PATIENCE).await;
    edited(cluster, &next).await;
    next
}

#[tokio::test]
async fn a_revision_that_takes_a_share_or_comes_after_another_has_as_many_pods_as_that_had() {
    let cluster = Cluster::connect().await;
    let name = "hpa-shares";
    deleting(&cluster, &[name], shares(&cluster, name)).await;
}

async fn shares(cluster: &Cluster, name: &str) {
    let by_cpu = json!({"minReplicas": 2, "maxReplicas": 3, "metrics": [{"type": "CPU", "target": 1000}]});
    let first = cluster.serve(&scaled(name, &by_cpu)).await;
    until_left(cluster, &first).await;
    let canary = json!({"type": "Canary", "canary": {"steps": [{"setWeight": 50, "pause": "10m"}]}});
    let edit =
        json!({"autoscaling": {"minReplicas": 1}, "rollout": canary, "pod": {"labels": {"tests/edited": "once"}}});
    cluster.patch_spec(TENANT, name, &edit).await;
    let sharing = cluster.condition(TENANT, name, "Progressing", "True", "CanaryStep", PATIENCE).await;
    println!("{}", sharing.message);
    let server = cluster.api::<MCPServer>(TENANT).get(name).await.expect("the server is there");
    let revisions = server.status.map(|status| status.revisions).unwrap_or_default();
    let second = revisions.into_iter().map(|one| one.name).find(|one| *one != first).expect("another revision");
    for (revision, least) in [(&first, 1), (&second, 2)] {
        let spec = until_left(cluster, revision).await.spec.expect("a spec");
        assert_eq!((spec.min_replicas, replicas(&deployment(cluster, revision).await)), (Some(least), Some(2)));
    }
    cluster.patch_spec(TENANT, name, &json!({"rollout": {"promote": second}})).await;
    cluster.gone::<HorizontalPodAutoscaler>(TENANT, &first, PATIENCE).await;
    cluster.ready(TENANT, name).await;
    assert_eq!(cluster.serving_revision(TENANT, name).await, second);

    let recreate = json!({"type": "Recreate", "canary": null, "promote": null});
    let edit = json!({"rollout": recreate, "pod": {"labels": {"tests/edited": "twice"}}});
    cluster.patch_spec(TENANT, name, &edit).await;
    cluster.ready(TENANT, name).await;
    let third = cluster.serving_revision(TENANT, name).await;
    assert_ne!(third, second);
    until_left(cluster, &third).await;
    assert_eq!(replicas(&deployment(cluster, &third).await), Some(2));
}

/// What a hand changes comes back, with the number of pods that others decide as it is.
async fn edited(cluster: &Cluster, revision: &str) {
    let patch = async |kind: &str, patch: &str| {
        let edit = ["patch", "-n", TENANT, kind, revision, "--type", "strategic", "--patch", patch];
        kubectl(&edit).await.expect("a hand edits");
    };
    patch("hpa", r#"{"spec": {"maxReplicas": 9}}"#).await;
    patch("deployment", r#"{"spec": {"minReadySeconds": 1, "progressDeadlineSeconds": 700}}"#).await;
    until("what was edited is as before", PATIENCE, || async {
        let autoscaler =
            cluster.api::<HorizontalPodAutoscaler>(TENANT).get(revision).await.map_err(|e| e.to_string())?;
        let most = autoscaler.spec.map(|spec| spec.max_replicas);
        let spec = deployment(cluster, revision).await.spec.expect("a spec");
        let seconds = spec.min_ready_seconds.unwrap_or_default();
        if (most, seconds, spec.progress_deadline_seconds) == (Some(3), 0, Some(600)) {
            assert_eq!(spec.replicas, Some(3));
            return Ok(());
        }
        Err(format!("{most:?} {seconds} {:?}", spec.progress_deadline_seconds))
    })
    .await;
    kubectl(&["delete", "-n", TENANT, "hpa", revision]).await.expect("a hand deletes");
    until_left(cluster, revision).await;
    assert_eq!(replicas(&deployment(cluster, revision).await), Some(3));
}

#[tokio::test]
async fn requests_that_are_missing_are_named() {
    let cluster = Cluster::connect().await;
    for (type_, resource) in [("CPU", "cpu"), ("Memory", "memory")] {
        let autoscaling = json!({"maxReplicas": 3, "metrics": [{"type": type_, "target": 50}]});
        let mut manifest = scaled("hpa-without-requests", &autoscaling);
        manifest["spec"]["container"]["resources"] = json!({"requests": {}});
        let refused = cluster.apply::<MCPServer>(&manifest).await.expect_err("it is refused").to_string();
        let field = format!("write container.resources.requests.{resource}");
        assert!(refused.contains(&field), "{refused}");
    }
}

#[tokio::test]
async fn a_server_of_which_nobody_tells_what_it_uses_serves_and_says_what_to_do() {
    let (cluster, _metrics) = (Cluster::connect().await, METRICS.lock().await);
    let name = "hpa-blind";
    let apis = Api::<DynamicObject>::all_with(cluster.client.clone(), &api_services());
    let found = apis.get("v1beta1.metrics.k8s.io").await.expect("metrics-server answers in this cluster");
    let metrics =
        DynamicObject::new("v1beta1.metrics.k8s.io", &api_services()).data(json!({"spec": found.data["spec"]}));
    deleting(&cluster, &[name], async {
        let by_cpu = json!({"minReplicas": 1, "maxReplicas": 3, "metrics": [{"type": "CPU", "target": 50}]});
        cluster.serve(&scaled(name, &by_cpu)).await;
        apis.delete("v1beta1.metrics.k8s.io", &DeleteParams::default()).await.expect("it is deleted");
        let back = async {
            apis.create(&PostParams::default(), &metrics).await.expect("it is there again");
        };
        finally(until_told(&cluster, name), back).await;
    })
    .await;
}

fn api_services() -> ApiResource {
    let kind = kube::api::GroupVersionKind::gvk("apiregistration.k8s.io", "v1", "APIService");
    ApiResource::from_gvk_with_plural(&kind, "apiservices")
}

async fn until_told(cluster: &Cluster, name: &str) {
    until(&format!("{name} says what to do"), AUTOSCALER, || async {
        let available = cluster.condition(TENANT, name, "Available", "True", "Available", PATIENCE).await;
        if available.message.contains("install metrics-server") { Ok(()) } else { Err(available.message) }
    })
    .await;
}
