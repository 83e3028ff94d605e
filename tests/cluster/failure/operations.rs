//! Operations in an order that nobody would think of.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PropagationPolicy};
use portolan_crds::MCPServer;
use portolan_tests::children::{count, versions};
use portolan_tests::cluster::{Cluster, OPERATOR, PLATFORM, TENANT, kubectl};
use portolan_tests::stand::manifest;
use portolan_tests::tidy::deleting;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::{amount, on_a_stand, rate, report};

/// Servers that come and go.
const NAMES: [&str; 4] = ["any-a", "any-b", "any-c", "any-d"];
/// From one operation to the next: some meet the operator in the middle of the one before.
const PACE: Duration = Duration::from_millis(700);
/// Until everything is as declared: what was edited last comes up while what was before drains.
const CONVERGED: Duration = Duration::from_secs(180);

#[tokio::test]
async fn operations_in_any_order_converge_to_what_was_declared_last_and_leave_nothing_over() {
    let seed = seed();
    println!("SEED={seed} runs these operations again");
    on_a_stand("beside-operations", 2, async |stand| {
        let cluster = &stand.cluster;
        deleting(cluster, &NAMES, async {
            let load = stand.load(rate()).await;
            let declared = operate(cluster, &mut Rng::with_seed(seed), amount(30, 100)).await;
            for name in NAMES {
                converges(cluster, name, declared.get(name)).await;
            }
            let tally = load.stop().await;
            report("beside operations on other servers", &tally);
            tally.assert_nothing_failed();
        })
        .await;
    })
    .await;
}

/// The seed of the environment, or one that no run has had.
fn seed() -> u64 {
    match std::env::var("SEED") {
        Ok(seed) => seed.parse().expect("SEED is a number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_millis() as u64,
    }
}

/// What a server was declared to be last.
#[derive(Clone, Debug, PartialEq)]
struct Declared {
    replicas: i32,
    version: String,
}

/// Makes so many operations, and returns what is declared after the last one.
async fn operate(cluster: &Cluster, rng: &mut Rng, operations: usize) -> BTreeMap<&'static str, Declared> {
    let mut declared = BTreeMap::new();
    let mut clock = interval(PACE);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let template = manifest("any", 1);
    for number in 0..operations {
        clock.tick().await;
        let name = NAMES[rng.usize(..NAMES.len())];
        let is_declared = declared.contains_key(name);
        match rng.u8(..10) {
            0..3 => {
                let spec = Declared { replicas: rng.i32(1..=3), version: number.to_string() };
                println!("{number:>3} apply {name} {spec:?}");
                cluster.apply::<MCPServer>(&written(&template, name, &spec)).await.expect("applied");
                declared.insert(name, spec);
            }
            3..5 if is_declared => {
                println!("{number:>3} edit {name}");
                let spec = declared.get_mut(name).expect("it is declared");
                spec.version = number.to_string();
                let edit = json!({"container": {"env": [{"name": "VERSION", "value": spec.version}]}});
                cluster.patch_spec(TENANT, name, &edit).await;
            }
            5 if is_declared => {
                let spec = declared.get_mut(name).expect("it is declared");
                spec.replicas = rng.i32(1..=3);
                println!("{number:>3} scale {name} to {}", spec.replicas);
                cluster.patch_spec(TENANT, name, &json!({"replicas": spec.replicas})).await;
            }
            6..8 => {
                let policy = if rng.bool() { PropagationPolicy::Background } else { PropagationPolicy::Foreground };
                println!("{number:>3} delete {name} in the {policy:?}");
                let parameters = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
                delete(cluster, name, &parameters, rng.bool()).await;
                declared.remove(name);
            }
            8 => delete_a_child(rng, name, number).await,
            9 if rng.u8(..4) == 0 => {
                println!("{number:>3} the operator ends");
                if let Some(operator) = cluster.pods(PLATFORM, OPERATOR).await.pop() {
                    let name = operator.metadata.name.unwrap_or_default();
                    let at_once = DeleteParams::default().grace_period(0);
                    cluster.api::<Pod>(PLATFORM).delete(&name, &at_once).await.expect("deleted");
                }
            }
            _ => println!("{number:>3} nothing"),
        }
    }
    declared
}

fn written(template: &Value, name: &str, spec: &Declared) -> Value {
    let mut manifest = template.clone();
    manifest["metadata"]["name"] = name.into();
    manifest["spec"]["replicas"] = spec.replicas.into();
    manifest["spec"]["container"]["env"] = json!([{"name": "VERSION", "value": spec.version}]);
    manifest["spec"]["rollout"] = json!({"drainTimeout": "1s"});
    manifest
}

/// Deletes a server, and waits until it is gone or does not: what is applied next may meet what goes.
async fn delete(cluster: &Cluster, name: &str, parameters: &DeleteParams, waits: bool) {
    match cluster.api::<MCPServer>(TENANT).delete(name, parameters).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => return,
        Err(error) => panic!("delete {name}: {error}"),
    }
    // In the foreground an object stays until its children are gone, and what is applied to it meanwhile goes with it.
    if waits || parameters.propagation_policy == Some(PropagationPolicy::Foreground) {
        cluster.gone::<MCPServer>(TENANT, name, PATIENCE).await;
    }
}

/// Deletes any child of a server.
async fn delete_a_child(rng: &mut Rng, server: &str, number: usize) {
    let children: Vec<_> = versions(&[server]).await.expect("listed").into_keys().collect();
    let Some(child) = rng.choice(&children) else { return };
    println!("{number:>3} delete {child}");
    kubectl(&["delete", child, "--namespace", TENANT, "--wait=false", "--ignore-not-found"]).await.expect("deleted");
}

/// Waits until a server is Ready as it was declared, with nothing left of what it was before; or, where it is not declared,
/// until nothing is left of it.
async fn converges(cluster: &Cluster, name: &str, declared: Option<&Declared>) {
    until(&format!("{name} is as declared: {declared:?}"), CONVERGED, || async {
        let server = cluster.api::<MCPServer>(TENANT).get_opt(name).await.map_err(|error| error.to_string())?;
        let children = versions(&[name]).await?;
        match (declared, server) {
            (None, None) if children.is_empty() => Ok(()),
            (Some(declared), Some(server)) => is(declared, &server, &children),
            (_, server) => Err(format!("{:?} {:?}", server.map(|server| server.status), children.keys())),
        }
    })
    .await;
    if let Some(declared) = declared {
        cluster.ready(TENANT, name).await;
        let pods = cluster.pods(TENANT, &format!("portolan.dev/server={name}")).await;
        for pod in pods {
            let spec = serde_json::to_value(pod.spec).expect("JSON");
            let env = &spec["containers"][0]["env"];
            let has = |entry: &Value| entry["name"] == "VERSION" && entry["value"] == declared.version.as_str();
            assert!(env.as_array().is_some_and(|env| env.iter().any(has)), "{env}");
        }
    }
}

fn is(declared: &Declared, server: &MCPServer, children: &BTreeMap<String, String>) -> Result<(), String> {
    let status = server.status.clone().unwrap_or_default();
    let is_ready =
        status.ready_replicas == declared.replicas && status.observed_generation == server.metadata.generation;
    let ones = ["Deployment", "Service", "ConfigMap", "Secret", "NetworkPolicy", "ServiceAccount"];
    let each_once = ones.iter().all(|kind| count(children, kind) == 1);
    let pods = i32::try_from(count(children, "Pod"));
    if is_ready && each_once && pods == Ok(declared.replicas) {
        Ok(())
    } else {
        Err(format!("{status:?} {:?}", children.keys()))
    }
}
