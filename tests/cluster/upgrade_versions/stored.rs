//! Specs as the API server has them, whichever release's definitions it reads them by.

use std::collections::BTreeMap;

use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::{Resource, ResourceExt};
use portolan_crds::{MCPGateway, MCPServer, MCPToolset};
use portolan_tests::cluster::Cluster;
use serde_json::Value;

/// All of them, by kind and name.
pub(crate) async fn specs(cluster: &Cluster) -> BTreeMap<String, Value> {
    let kinds = [of::<MCPServer>(), of::<MCPGateway>(), of::<MCPToolset>()];
    let mut specs = BTreeMap::new();
    for kind in kinds {
        let api = Api::<DynamicObject>::all_with(cluster.client.clone(), &kind);
        for object in api.list(&ListParams::default()).await.expect("every object can be read") {
            specs.insert(format!("{} {}", kind.kind, object.name_any()), object.data["spec"].clone());
        }
    }
    specs
}

fn of<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

/// Whatever was in the first ones is in the others.
pub(crate) fn assert_kept(first: &BTreeMap<String, Value>, others: &BTreeMap<String, Value>) {
    for (name, spec) in first {
        let other = others.get(name).unwrap_or_else(|| panic!("{name} is there"));
        assert!(has(other, spec), "{name} was {spec} and is {other}");
    }
}

fn has(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| has(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| has(whole, part))
        }
        _ => whole == part,
    }
}
